"""Writes the sample sets in this folder from content/*.txt, all of it text of our own.

    python data/samples/make_samples.py            writes the files
    python data/samples/make_samples.py --check    fails when a committed file is not what it would write

content/<domain>.txt holds the prompts: "=== group", the prompt, then each response under its grade, "[5]" the best
and "[1]" the worst. A pair is two responses of one prompt whose grades differ. Every choice is a hash of what is
chosen, so nothing depends on a random generator. The graded pool exists in memory only: its file has no labels.
"""

import argparse
import csv
import gzip
import hashlib
import io
import json
import re
import sys
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

FOLDER = Path(__file__).resolve().parent
SIZES = {"seed": 120, "pool": 500, "heldout": 200}  # pairs
PROMPTS = {"heldout": 3, "seed": 2}  # of each domain; the pool gets the others
NOISE = 0.08  # share of labels turned round in each set, as annotators disagree
FORMAT_ROWS = 24
TIES = 2  # among the rows of the format that can say "tie"


@dataclass(frozen=True)
class Graded:
    """A pair whose first response has the higher grade."""

    prompt: str
    better: str
    worse: str
    group: str
    domain: str
    flipped: bool = False  # the label says the opposite of the grades

    @property
    def key(self) -> str:
        return "\0".join((self.group, self.better, self.worse))

    @property
    def chosen(self) -> str:
        return self.worse if self.flipped else self.better

    @property
    def rejected(self) -> str:
        return self.better if self.flipped else self.worse


def unit(*parts: str) -> float:
    """A number in [0, 1) that depends on the parts alone."""
    return int.from_bytes(hashlib.blake2b("\0".join(parts).encode(), digest_size=8).digest(), "big") / 2**64


@cache
def prompts() -> dict[str, tuple[str, str, list[tuple[int, str]]]]:
    """group -> (domain, prompt, [(grade, response), ...])"""
    found = {}
    for path in sorted((FOLDER / "content").glob("*.txt")):
        for block in re.split(r"^=== ", path.read_text(encoding="utf-8"), flags=re.M)[1:]:
            head, *parts = re.split(r"^\[([1-5])\]\n", block, flags=re.M)
            group, prompt = head.split("\n", 1)
            responses = [(int(grade), text.strip()) for grade, text in zip(parts[::2], parts[1::2], strict=True)]
            found[group.strip()] = (path.stem, prompt.strip(), responses)
    return found


def split() -> dict[str, set[str]]:
    """The groups of each set; a prompt occurs in one of them only, and every domain in all three."""
    groups: dict[str, set[str]] = {"heldout": set(), "seed": set(), "pool": set()}
    for domain in {domain for domain, _, _ in prompts().values()}:
        own = [group for group, (its_domain, _, _) in prompts().items() if its_domain == domain]
        own.sort(key=lambda group: unit("split 3", group))  # README.md says why 3
        for name, n in PROMPTS.items():
            groups[name].update(own[:n])
            own = own[n:]
        groups["pool"].update(own)
    return groups


def graded(groups: set[str], ties: bool = False) -> list[Graded]:
    """Every pair whose grades differ, or with `ties` every pair whose grades are equal."""
    pairs = []
    for group in sorted(groups):
        domain, prompt, responses = prompts()[group]
        for (grade_1, text_1), (grade_2, text_2) in combinations(sorted(responses, reverse=True), 2):
            if (grade_1 == grade_2) == ties:
                pairs.append(Graded(prompt, text_1, text_2, group, domain))
    return pairs


def draw(name: str, pairs: list[Graded], n: int) -> list[Graded]:
    """n pairs, in half of which the better response is the longer one, so that length says nothing; then the noise."""
    ordered = sorted(pairs, key=lambda pair: unit("draw", name, pair.key))
    longer = [pair for pair in ordered if len(pair.better) > len(pair.worse)][: n // 2]
    other = [pair for pair in ordered if len(pair.better) <= len(pair.worse)][: n - n // 2]
    if len(longer) + len(other) < n:
        raise SystemExit(f"{name}: too few pairs for {n}. Add responses to content/ or lower SIZES.")
    drawn = []
    for half in (longer, other):
        turned = sorted(half, key=lambda pair: unit("noise", pair.key))[: round(NOISE * len(half))]
        drawn += [replace(pair, flipped=pair in turned) for pair in half]
    return sorted(drawn, key=lambda pair: unit("order", name, pair.key))


@cache
def sets() -> dict[str, list[Graded]]:
    return {name: draw(name, graded(groups), SIZES[name]) for name, groups in split().items()}


def a_is_chosen(pair: Graded) -> bool:
    return (unit("side", pair.key) < 0.5) != pair.flipped


def hidden_pool_labels(noise: bool = True) -> list[str]:
    """One of a and b for each row of sample-pool.jsonl, in order; without noise, what the grades say."""
    return ["a" if a_is_chosen(pair) != (pair.flipped and not noise) else "b" for pair in sets()["pool"]]


def chosen_row(pair: Graded) -> dict[str, Any]:
    row = {"prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected}
    return row | {"group": pair.group, "domain": pair.domain}


def unlabelled_row(pair: Graded) -> dict[str, Any]:
    a, b = (pair.chosen, pair.rejected) if a_is_chosen(pair) else (pair.rejected, pair.chosen)
    return {"prompt": pair.prompt, "response_a": a, "response_b": b, "group": pair.group, "domain": pair.domain}


def format_pairs(name: str) -> list[Graded]:
    """Rows of the seed, so that no format tells a label of the pool or of the held-out set."""
    return sorted(sets()["seed"], key=lambda pair: unit("format", name, pair.key))[:FORMAT_ROWS]


def preferred_rows() -> list[dict[str, Any]]:
    labelled = format_pairs("preferred")[:-TIES]
    rows = [unlabelled_row(pair) | {"preferred": "a" if a_is_chosen(pair) else "b"} for pair in labelled]
    equal = sorted(graded({pair.group for pair in sets()["seed"]}, ties=True), key=lambda pair: unit("tie", pair.key))
    return rows + [unlabelled_row(pair) | {"preferred": "tie"} for pair in equal[:TIES]]


def conversational(pair: Graded) -> dict[str, Any]:
    return {
        "prompt": [{"role": "user", "content": pair.prompt}],
        "chosen": [{"role": "assistant", "content": pair.chosen}],
        "rejected": [{"role": "assistant", "content": pair.rejected}],
    }


def joined(pair: Graded, before: str, between: str) -> dict[str, str]:
    return {side: before + pair.prompt + between + getattr(pair, side) for side in ("chosen", "rejected")}


def unusual(pair: Graded) -> dict[str, str]:
    replies = {"Better reply": pair.chosen, "Worse reply": pair.rejected}
    return {"Topic": pair.domain, "Customer question": pair.prompt} | replies


def jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def csv_bytes(rows: list[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def gz(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def parquet(rows: list[dict[str, Any]]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink, compression="snappy")
    return sink.getvalue()


def files() -> dict[str, bytes]:
    implicit = [p for p in sets()["seed"] if p.chosen[0] != p.rejected[0]]  # what the two share is the prompt, no more
    implicit = sorted(implicit, key=lambda pair: unit("format", "implicit", pair.key))[:FORMAT_ROWS]
    stack = [{"question": p.prompt, "response_j": p.chosen, "response_k": p.rejected} for p in format_pairs("stack")]
    array = json.dumps([chosen_row(p) for p in format_pairs("array")], ensure_ascii=False, indent=1)
    return {
        "sample-seed.jsonl": jsonl([chosen_row(p) for p in sets()["seed"]]),
        "sample-pool.jsonl": jsonl([unlabelled_row(p) for p in sets()["pool"]]),
        "sample-heldout.jsonl": jsonl([chosen_row(p) for p in sets()["heldout"]]),
        "formats/preferred.csv": csv_bytes(preferred_rows()),
        "formats/array.json": (array + "\n").encode(),
        "formats/pairs.jsonl.gz": gz(jsonl([chosen_row(p) for p in format_pairs("gz")])),
        "formats/pairs.parquet": parquet([chosen_row(p) for p in format_pairs("parquet")]),
        "formats/trl-implicit-prompt.jsonl": jsonl([joined(p, "", " ") for p in implicit]),
        "formats/trl-conversational.jsonl": jsonl([conversational(p) for p in format_pairs("conversational")]),
        "formats/hh-transcripts.jsonl": jsonl(
            [joined(p, "\n\nHuman: ", "\n\nAssistant: ") for p in format_pairs("transcripts")]
        ),
        "formats/stack-exchange.jsonl.gz": gz(jsonl(stack)),
        "formats/unusual-columns.csv": csv_bytes([unusual(p) for p in format_pairs("unusual")]),
    }


def contents(name: str, data: bytes) -> Any:
    """What a file says: the bytes of .gz and .parquet also depend on the version of the library that packed them."""
    if name.endswith(".gz"):
        return gzip.decompress(data)
    if name.endswith(".parquet"):
        return pq.read_table(io.BytesIO(data)).to_pylist()
    return data


def differing() -> list[str]:
    """Committed files that are missing, stale or not ours."""
    wanted = files()
    found = [path for folder in (FOLDER, FOLDER / "formats") for path in folder.glob("*.*") if path.is_file()]
    extra = {path.relative_to(FOLDER).as_posix() for path in found} - set(wanted) - {"make_samples.py", "README.md"}
    stale = [
        name
        for name, data in wanted.items()
        if not (FOLDER / name).is_file() or contents(name, (FOLDER / name).read_bytes()) != contents(name, data)
    ]
    return stale + sorted(extra)


def main() -> int:
    parser = argparse.ArgumentParser(description="Writes the sample sets of this folder.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file is not up to date")
    if parser.parse_args().check:
        names = differing()
        stale = f"Not up to date: {', '.join(names)}. Run make_samples.py and commit what it writes."
        print(stale if names else "All sample files are up to date.")
        return 1 if names else 0
    for name, data in files().items():
        path = FOLDER / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        print(f"{name}: {len(data):,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
