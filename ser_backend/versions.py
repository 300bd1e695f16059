"""Versions of a data set: which came from which, what changed between two, and what people answered in a run as a new seed.

A stored set never changes; a newer version is a set of its own whose lineage names the one before. Of a pool only what people
said of its pairs is read, so that labels its source may have had cannot come back.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ser_backend import home, ingest
from ser_backend.errors import SerError
from ser_backend.ingest import Imported
from ser_backend.pairs import PairSet, PairWriter
from ser_backend.records import Dataset, Pair, Preferred, Review
from ser_backend.review import settled_by_pair
from ser_backend.review.answers import of_pair
from ser_backend.store import Store, in_force

BLOCK = 1_000  # pairs read at a time
SIGN: dict[Preferred, int] = {"a": 1, "b": -1, "tie": 0}  # as in a set's labels
SAID: dict[int, Preferred] = {sign: said for said, sign in SIGN.items()}
MADE_HERE = "reviews"  # lineage["made_by"] of a merge; an import has a "file"


@dataclass(frozen=True, slots=True)
class Family:
    """Versions of one data set, the newest first. The oldest may be gone; its id still names the family."""

    id: str
    versions: list[Dataset]

    @property
    def newest(self) -> Dataset:
        return self.versions[0]


@dataclass(frozen=True, slots=True)
class Changes:
    """From one version to another."""

    added: int
    removed: int
    relabelled: int  # in both, with another label
    kept: int  # in both, with the same label

    def __str__(self) -> str:
        parts = [(self.added, "added"), (self.removed, "removed"), (self.relabelled, "labelled otherwise")]
        told = [f"{n:,} {'pair' if n == 1 else 'pairs'} {what}" for n, what in parts if n]
        return f"{', '.join(told) or 'no pair changed'}; {self.kept:,} as before"


@dataclass(frozen=True, slots=True)
class Answers:
    """What people's answers to a run's pairs would do to its seed."""

    added: int  # pool pairs that get a label, ties among them
    ties: int  # of those added
    corrected: int  # seed labels that change
    confirmed: int  # seed labels that people gave again
    disputed: int  # pairs without a majority: left out, or with the label the seed has
    newest: int  # id of the last answer read; 0 without any

    @property
    def changes(self) -> bool:
        return bool(self.added or self.corrected)


def families(datasets: Sequence[Dataset]) -> list[Family]:
    """In the order in which their newest versions were made, the last first."""
    found: dict[str, list[Dataset]] = {}
    for dataset in sorted(datasets, key=lambda d: (d.created_at, len(d.lineage.get("ancestors", []))), reverse=True):
        found.setdefault((dataset.lineage.get("ancestors") or [dataset.id])[0], []).append(dataset)
    return [Family(name, versions) for name, versions in found.items()]


def changes(old_id: str, new_id: str) -> Changes:
    """Counted once and kept, since stored sets never change. Raises NotFound."""
    path = home.cache_dir() / "changes" / f"{old_id}-{new_id}.json"
    with suppress(OSError, ValueError, TypeError):
        return Changes(**json.loads(path.read_text("utf-8")))
    found = _changes(PairSet.open(old_id), PairSet.open(new_id))
    with suppress(OSError, SerError), home.atomic_file(path) as temporary:
        temporary.write_text(json.dumps(asdict(found)), "utf-8")
    return found


def _changes(old: PairSet, new: PairSet) -> Changes:
    _, in_old, in_new = np.intersect1d(old.pair_keys, new.pair_keys, assume_unique=True, return_indices=True)
    both, relabelled = len(in_old), 0
    if "pool" not in (old.role, new.role):
        relabelled = int((old.preferred()[in_old] != new.preferred()[in_new]).sum())
    return Changes(new.n_pairs - both, old.n_pairs - both, relabelled, both - relabelled)


def answers(store: Store, run_id: str) -> Answers:
    """What `merge` would do. Raises Forbidden."""
    return _Merge(store, run_id).answers


def merge(store: Store, run_id: str, name: str | None = None) -> Imported:
    """A new seed of a run's seed and all that people settled: answers about pool pairs join it, a tie as a tie, and answers
    about its own pairs replace the label. Nothing that is stored changes.

    The same answers make the same set, whoever merges them and when. Raises SerError when they change nothing, Forbidden.
    """
    store.require("import")
    found = _Merge(store, run_id)
    counts = found.answers
    if not counts.changes:
        disputed = f" {counts.disputed:,} pairs are without a majority; settle them first." if counts.disputed else ""
        raise SerError(
            f"No settled answer of {found.run.name!r} adds to its seed or changes a label of it, so there is nothing to merge."
            f"{disputed or ' Review pairs first.'}"
        )
    seed = store.dataset(found.run.seed)
    lineage = ingest.descent(seed) | {
        "made_by": MADE_HERE,
        "run": found.run.id,
        "run_name": found.run.name,
        "by": store.user.name if store.user else "",
        **asdict(counts),
    }
    with PairWriter("seed") as writer:
        for row, (pair, said) in enumerate(found.pairs(), start=1):
            own_group = "" if pair.group == pair.response_a.prompt else pair.group
            a, b = pair.response_a, pair.response_b
            writer.add(
                a.prompt, a.text, b.text, said, row=row, source=pair.source, group=own_group, domain=pair.domain
            )  # fmt: skip
        writer.finish(ingest.named(name or f"{seed.name} + reviews"), lineage)
        kept = ingest.keep(store, writer)
    return kept


class _Merge:
    def __init__(self, store: Store, run_id: str) -> None:
        store.require("export")
        self.run = store.run(run_id)
        self.seed, self.pool = PairSet.open(self.run.seed), PairSet.open(self.run.pool)
        self.seed_said = self.seed.preferred().copy()
        rows = in_force(store.reviews(self.run.id))
        settled = settled_by_pair(rows)
        asked = of_pair(rows)
        in_seed = self._rows(self.seed, settled)
        confirmed = corrected = 0
        for pair, row in in_seed.items():
            said = SIGN[_said(settled[pair])]
            if said == self.seed_said[row]:
                confirmed += 1
            else:
                corrected += 1
                self.seed_said[row] = said
        in_pool = self._rows(self.pool, [pair for pair in settled if pair not in in_seed])
        self.pool_rows = np.array(sorted(in_pool.values()), dtype=np.int64)
        by_row = {row: SIGN[_said(settled[pair])] for pair, row in in_pool.items()}
        self.pool_said = np.array([by_row[row] for row in self.pool_rows.tolist()], dtype=np.int8)
        self.answers = Answers(
            added=len(self.pool_rows),
            ties=int((self.pool_said == 0).sum()),
            corrected=corrected,
            confirmed=confirmed,
            disputed=len(asked) - len(settled),
            newest=rows[-1].id if rows else 0,
        )

    @staticmethod
    def _rows(source: PairSet, wanted: Any) -> dict[str, int]:
        names = list(wanted)
        rows = source.rows_of(names) if names else []
        return {pair: row for pair, row in zip(names, rows, strict=True) if row is not None}

    def pairs(self) -> Iterator[tuple[Pair, int]]:
        """The seed's, then those of the pool, each in the order of its set; +1 a, -1 b, 0 tie."""
        seed_rows = np.arange(self.seed.n_pairs)
        for source, rows, said in ((self.seed, seed_rows, self.seed_said), (self.pool, self.pool_rows, self.pool_said)):
            for begin in range(0, len(rows), BLOCK):
                block = slice(begin, begin + BLOCK)
                yield from zip(source.pairs(rows[block]), said[block].tolist(), strict=True)


def _said(review: Review) -> Preferred:
    assert review.preferred is not None  # what says nothing is never settled
    return review.preferred


def write(store: Store, dataset_id: str, path: Path) -> None:
    """A stored set as JSON lines, which any installation imports, as the same set under the same id. Raises Forbidden.

    A pool is written without a preference. Where some pair has no prompt, the responses are lists of messages: a prompt column
    may not be empty.
    """
    store.require("export")
    dataset = store.dataset(dataset_id)
    source = PairSet.open(dataset.id)
    said = None if source.role == "pool" else source.preferred()
    without_prompt = any(
        not prompt.strip()
        for batch in source.response_batches()
        for prompt in batch.column("prompt").unique().to_pylist()
    )
    with home.atomic_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for begin in range(0, source.n_pairs, BLOCK):
            rows = np.arange(begin, min(begin + BLOCK, source.n_pairs))
            for row, pair in zip(rows.tolist(), source.pairs(rows), strict=True):
                facts = _row(pair, without_prompt)
                if said is not None:
                    better = SAID[int(said[row])]
                    facts["preferred"] = better if better == "tie" else f"response_{better}"  # "a" could be a text
                file.write(json.dumps(facts, ensure_ascii=True) + "\n")  # a lone U+2028 must not break the file


def _row(pair: Pair, as_messages: bool) -> dict[str, Any]:
    prompt, texts = pair.response_a.prompt, (pair.response_a.text, pair.response_b.text)
    facts: dict[str, Any] = {"prompt": prompt} if not as_messages else {}
    asked = [{"role": "user", "content": prompt}] if as_messages and prompt.strip() else []
    for name, text in zip(("response_a", "response_b"), texts, strict=True):
        facts[name] = [*asked, {"role": "assistant", "content": text}] if as_messages else text
    return facts | {"group": "" if pair.group == prompt else pair.group, "domain": pair.domain}
