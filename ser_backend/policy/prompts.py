"""What a policy is asked, and the examples of dpo and sft: out of an imported set, a file or a run.

Prompts are distinct; a part of them is kept apart to measure, and no example with such a prompt is trained on.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ser_backend.best_of import LIST_PROMPTS, LOOKED_AT
from ser_backend.errors import SerError
from ser_backend.ingest import read_pairs, read_texts
from ser_backend.ingest.messages import joined
from ser_backend.ingest.readers import open_source
from ser_backend.pairs import PairSet
from ser_backend.records import Problem
from ser_backend.store import Store
from ser_backend.transformer.tokens import HALF_CHARACTER

RUN = "run:"
BLOCK = 1_000
MOST_ROWS = 200_000  # responses of a set whose prompts are looked at; drawn at random from a larger one


class Example(NamedTuple):
    prompt: str
    chosen: str
    rejected: str


@dataclass(frozen=True, slots=True)
class Asked:
    train: tuple[str, ...]
    heldout: tuple[str, ...]
    examples: tuple[Example, ...]
    n_rows: int  # that were read
    n_empty: int  # rows without a prompt
    n_held_examples: int = 0  # left out, as their prompt is held out

    @property
    def heldout_id(self) -> str:
        """Names the held-out prompts: a file may hold others the next time it is read."""
        return hashlib.blake2b(json.dumps(self.heldout).encode(), digest_size=16).hexdigest()

    def in_words(self) -> str:
        parts = [f"{len(self.train):,} prompts to train on, {len(self.heldout):,} held out to measure"]
        if self.examples:
            parts.append(f"{len(self.examples):,} examples")
        if self.n_held_examples:
            parts.append(f"{self.n_held_examples:,} examples with a held-out prompt left out")
        if self.n_empty:
            parts.append(f"{self.n_empty:,} rows without a prompt left out")
        return "; ".join(parts) + "."


def gather(store: Store, prompts: str, examples: str, heldout: int, random_seed: int) -> Asked:
    """heldout: prompts to keep apart; at most half of all. Raises SerError or NotFound, Forbidden."""
    store.require("start")
    pairs = [Example(*map(_whole, pair)) for pair in read_examples(store, examples, random_seed)] if examples else []
    rows = [_whole(row) for row in read_prompts(store, prompts, random_seed)] if prompts else [p.prompt for p in pairs]
    source = prompts or examples
    distinct = list(dict.fromkeys(row.strip() for row in rows if row.strip()))
    if not distinct:
        raise SerError(
            f"{source} holds no prompt that is not empty ({len(rows):,} rows were read), and one is needed. "
            "Give a set or a file with a prompt column."
        )
    if len(distinct) < 2:
        raise SerError(
            f"{source} holds one distinct prompt, and two are needed: one to train on, one to measure. Give more."
        )
    order = np.random.default_rng([random_seed, 1]).permutation(len(distinct))
    n = min(heldout, len(distinct) // 2)
    held = tuple(distinct[place] for place in order[:n])
    kept = set(held)
    mine = tuple(pair for pair in pairs if pair.prompt.strip() not in kept)
    if pairs and not mine:
        raise SerError(
            f"All examples of {examples} have a held-out prompt. Give more prompts, or lower heldout_prompts."
        )
    train = tuple(distinct[place] for place in order[n:])
    empty = sum(not row.strip() for row in rows)
    return Asked(train, held, mine, len(rows), empty, len(pairs) - len(mine))


def _whole(text: str) -> str:
    """As a tokeniser takes it: JSON may hold half a character."""
    return HALF_CHARACTER.sub("\ufffd", text)


def read_prompts(store: Store, source: str, random_seed: int = 0) -> Iterator[str]:
    """The prompt of every row, as it stands; of a large set, of a random part of its responses."""
    if source.startswith(RUN):
        yield from (example.prompt for example in read_examples(store, source, random_seed))
        return
    if not is_file(source):
        found = PairSet.open(store.dataset(source).id)
        rows = np.arange(found.n_responses)
        if len(rows) > MOST_ROWS:
            rows = np.sort(np.random.default_rng([random_seed, 2]).choice(rows, MOST_ROWS, replace=False))
        for begin in range(0, len(rows), BLOCK):
            yield from (response.prompt for response in found.responses(rows[begin : begin + BLOCK]))
        return
    file = open_source(source)
    beginning = [values for _, _, values in islice(file.rows(), LOOKED_AT) if isinstance(values, dict)]
    columns = {name.lower(): name for values in beginning for name in values if name}
    column = next((columns[name] for name in LIST_PROMPTS if name in columns), None)
    if column is None:  # dialogues whose prompt is part of the responses
        try:
            yield from (item[1] for item in read_texts(source) if not isinstance(item, Problem))
        except SerError:
            named = ", ".join(columns.values()) or "no columns"
            raise SerError(
                f"{source} has {named}; a column named {', '.join(LIST_PROMPTS)} was needed. Rename one."
            ) from None
        return
    for _, _, values in file.rows():
        value = values.get(column) if isinstance(values, dict) else None
        yield value if isinstance(value, str) else joined(value) if isinstance(value, list) else ""


def read_examples(store: Store, source: str, random_seed: int = 0) -> Iterator[Example]:
    """Labelled pairs, ties left out: of a run its labels, reviews and kept self-labels."""
    if source.startswith(RUN):
        from ser_backend.shipping import export

        for row in export.preferences(store, store.run(source.removeprefix(RUN)).id):
            yield Example(row["prompt"], row["chosen"], row["rejected"])
        return
    if is_file(source):
        for item in read_pairs(source):
            if not isinstance(item, Problem) and item.preferred:
                ends = (item.first, item.second) if item.preferred > 0 else (item.second, item.first)
                yield Example(item.prompt, *ends)
        return
    found = PairSet.open(store.dataset(source).id)
    said = found.preferred()
    rows = np.flatnonzero(said)
    if len(rows) > MOST_ROWS:
        rows = np.sort(np.random.default_rng([random_seed, 3]).choice(rows, MOST_ROWS, replace=False))
    for begin in range(0, len(rows), BLOCK):
        block = rows[begin : begin + BLOCK]
        for pair, sign in zip(found.pairs(block), said[block], strict=True):
            a, b = pair.response_a, pair.response_b
            yield Example(a.prompt, *((a.text, b.text) if sign > 0 else (b.text, a.text)))


def order_of(n_prompts: int, n_wanted: int, random_seed: int) -> np.ndarray:
    """Which prompt is asked when: the whole list in random order, again and again. (n_wanted,)"""
    random = np.random.default_rng([random_seed, 4])
    rounds = [random.permutation(n_prompts) for _ in range(-(-n_wanted // n_prompts))]
    return np.concatenate(rounds)[:n_wanted]


def of_json(facts: dict) -> Asked:
    """What Asked's fields became in a file."""
    examples = tuple(Example(*row) for row in facts["examples"])
    return Asked(**{**facts, "train": tuple(facts["train"]), "heldout": tuple(facts["heldout"]), "examples": examples})


def is_file(source: str) -> bool:
    """Else it names an imported set. Raises SerError where a file is meant and there is none."""
    path = Path(source).expanduser()
    if path.exists():
        return True
    if source.startswith((".", "/", "~")) or source.endswith((".jsonl", ".json", ".csv", ".tsv", ".parquet", ".gz")):
        raise SerError(f"There is no file {source}. Give a file with a prompt column, or the name of an imported set.")
    return False


def short_enough(prompts: Sequence[str], lengths: Sequence[int], most: int) -> tuple[str, ...]:
    """Those of at most `most` tokens."""
    return tuple(prompt for prompt, length in zip(prompts, lengths, strict=True) if length <= most)
