"""A simulated person at the review desk: who answers (Annotator), which pairs are shown (WAYS), and when (Desk).

Hidden labels are read by the annotator only, one pair at a time, when the pair is shown; `asked` remembers which. What is
shown depends on arrays that the engine wrote into the run's folder, on answers given so far and on a random seed.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ser_backend.metrics import sigmoid
from ser_backend.records import Checks, Preferred
from ser_backend.run_folder import RunFolder


class Annotator:
    """Answers from hidden labels, wrongly for a share of the pairs; of a pair always the same, whenever it is shown."""

    def __init__(self, hidden: Mapping[str, int], error: float, random_seed: int) -> None:
        """hidden: pair id -> +1 a, -1 b. error: share of wrong answers. random_seed: which pairs those are."""
        self._hidden, self._error, self._random_seed = hidden, error, random_seed
        self.asked: set[str] = set()

    def errs(self, pair: str) -> bool:
        """A coin thrown by the pair's id: the same for every arm."""
        coin = hashlib.blake2b(f"{self._random_seed}/{pair}".encode(), digest_size=8, person=b"annotate").digest()
        return int.from_bytes(coin, "little") < self._error * 2**64

    def answer(self, pair: str) -> Preferred:
        self.asked.add(pair)
        return "a" if (self._hidden[pair] > 0) != self.errs(pair) else "b"


class Picked(NamedTuple):
    rows: np.ndarray  # int (n,): rows of the pool
    at_random: np.ndarray  # bool (n,): drawn evenly from all open pairs, so that what is kept among them is an audit


def uniform(_: object, is_open: np.ndarray, n: int, random: np.random.Generator) -> Picked:
    """n open pairs, evenly at random."""
    rows = np.flatnonzero(is_open)
    picked = random.choice(rows, min(n, len(rows)), replace=False)
    return Picked(picked, np.ones(len(picked), bool))


def targeted(confidence: np.ndarray, is_open: np.ndarray, n: int, random: np.random.Generator) -> Picked:
    """Half of n evenly at random from all open pairs, half the least sure of the others.

    confidence: float (n_pool,), nan where nothing is known (these come last). is_open: bool (n_pool,).
    """
    blind = uniform(None, is_open, n - n // 2, random)
    others = np.setdiff1d(np.flatnonzero(is_open), blind.rows)
    unsure = others[np.argsort(confidence[others], kind="stable")][: n - len(blind.rows)]
    at_random = np.arange(len(blind.rows) + len(unsure)) < len(blind.rows)
    return Picked(np.concatenate([blind.rows, unsure]), at_random)


def least_sure(arrays: Mapping[str, np.ndarray], is_open: np.ndarray, n: int, random: np.random.Generator) -> Picked:
    return targeted(sureness(arrays), is_open, n, random)


def queue(arrays: Mapping[str, np.ndarray], is_open: np.ndarray, n: int, random: np.random.Generator) -> Picked:
    """As the product's desk mixes: two fifths random pairs, two fifths informative, one fifth of the less sure half."""
    picked = uniform(None, is_open, n - 3 * n // 5, random)
    rows = picked.rows
    for name, upto in (("informative", n - n // 5), ("unsure", n)):
        listed = arrays.get(f"queue_{name}", np.empty(0, np.int64))
        new = listed[is_open[listed] & ~np.isin(listed, rows)]
        rows = np.concatenate([rows, new[: max(0, upto - len(rows))]])
    rest = is_open.copy()
    rest[rows] = False
    more = uniform(None, rest, n - len(rows), random)
    rows = np.concatenate([rows, more.rows])
    return Picked(rows, np.arange(len(rows)) < len(picked.rows))


# Of what a round left on disk, which pairs are open, how many are wanted, and randomness.
Way = Callable[[Mapping[str, np.ndarray], np.ndarray, int, np.random.Generator], Picked]
WAYS: Mapping[str, Way] = {"random": uniform, "least sure": least_sure, "queue": queue}


class Desk:
    """Shows one batch after every finished round that has used all answers so far; `labels` and `checks` are what
    self_evolve asks for."""

    def __init__(
        self,
        folder: RunFolder,
        pair_keys: np.ndarray,
        batches: Sequence[int],
        way: Way,
        annotator: Annotator,
        random_seed: int,
    ) -> None:
        """pair_keys: S32 (n_pool,). batches: how many pairs each."""
        self._folder, self._keys, self._way, self._annotator = folder, pair_keys, way, annotator
        self._random = np.random.default_rng([random_seed, 1])  # not the stream that drew the seed's pairs
        self.waiting = list(batches)
        self.answers: dict[str, Preferred] = {}
        self._audits: dict[str, bool] = {}
        self._sample: set[str] = set()

    def labels(self) -> Mapping[str, Preferred]:
        """Pair id -> answer."""
        finished = self._folder.finished()
        if finished and self.waiting:
            arrays = self._folder.round_arrays(finished[-1])
            if (arrays["human"] != 0).sum() == len(self.answers):
                self._show(self.waiting.pop(0), arrays)
        return dict(self.answers)

    def checks(self) -> Checks:
        """Answers to random draws; of those that hit a self-label in force, whether the person agreed."""
        return Checks(dict(self._audits), frozenset(self._sample))

    def _show(self, n: int, arrays: Mapping[str, np.ndarray]) -> None:
        is_open = self._folder.arrays("data", "pool_open")["pool_open"] & (arrays["human"] == 0)
        picked = self._way(arrays, is_open, n, self._random)
        kept, said = arrays["kept_round"][0] > 0, arrays["preferred"][0]
        for row, at_random in zip(picked.rows.tolist(), picked.at_random, strict=True):
            pair = self._keys[row].decode()
            self.answers[pair] = self._annotator.answer(pair)
            if at_random:
                self._sample.add(pair)
            if at_random and kept[row]:
                self._audits[pair] = (self.answers[pair] == "a") == (said[row] > 0)


def sureness(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """How sure a round's labeller is of its labels, float (n_pool,): the teacher; where it has said nothing, as in round 0,
    sigmoid |margin| of the model in force."""
    known = arrays["confidence"].astype(np.float64)
    model = sigmoid(np.abs(arrays["reward_a"] - arrays["reward_b"]).astype(np.float64))
    return np.where(np.isnan(known), model, known)
