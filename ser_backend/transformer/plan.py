"""What a training learns from, and in which steps: labelled pairs, the recipe, every step's pairs and learning rate."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from ser_backend.errors import SerError


@dataclass(frozen=True)
class Examples:
    """n labelled pairs as rows of a token table; ties are the caller's to leave out."""

    preferred: np.ndarray  # int64 (n,)
    other: np.ndarray  # int64 (n,)
    weight: np.ndarray  # float32 (n,), mean 1 is usual
    target: np.ndarray  # float32 (n,), 1 = sure; .9 = one in ten of such labels is thought wrong
    margin: np.ndarray  # float32 (n,), reward difference wanted

    def __len__(self) -> int:
        return len(self.preferred)

    @classmethod
    def of(
        cls,
        preferred: Sequence[int] | np.ndarray,
        other: Sequence[int] | np.ndarray,
        weight: Sequence[float] | np.ndarray | float = 1.0,
        target: Sequence[float] | np.ndarray | float = 1.0,
        margin: Sequence[float] | np.ndarray | float = 0.0,
    ) -> "Examples":
        n = len(preferred)
        rows = (np.asarray(end, np.int64) for end in (preferred, other))
        numbers = (np.broadcast_to(np.asarray(x, np.float32), n).copy() for x in (weight, target, margin))
        return cls(*rows, *numbers)

    @classmethod
    def joined(cls, *parts: "Examples") -> "Examples":
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in cls.__dataclass_fields__))


@dataclass(frozen=True)
class Recipe:
    learning_rate: float = 1e-4
    epochs: float = 2.0
    batch_size: int = 32
    warmup: float = 0.05  # share of the steps
    weight_decay: float = 0.0
    smoothing: float = 0.0
    centring: float = 0.01
    dropout: float = 0.0
    frozen_layers: int = 0
    random_seed: int = 0


def plan_steps(examples: Examples, recipe: Recipe, steps: int | None = None) -> list[np.ndarray]:
    """Pairs (indices) of every step. steps: that many, going round again as often as needed; None: recipe.epochs.

    Random by recipe.random_seed: groups of pairs that share texts in random order, laid end to end.
    """
    if not len(examples):
        raise SerError("There is no labelled pair to train on; ties do not count. Label some pairs first.")
    room = 2 * recipe.batch_size
    component, sizes = components(examples)
    found: list[np.ndarray] = []
    epoch = 0
    while len(found) < steps if steps is not None else epoch < math.ceil(recipe.epochs):
        random = np.random.default_rng([recipe.random_seed, epoch])
        new = _lay_out(examples, component, sizes, room, random)
        share = recipe.epochs - epoch
        found += new if steps is not None or share >= 1 else new[: max(1, round(share * len(new)))]
        epoch += 1
    return found[:steps] if steps is not None else found


def components(examples: Examples) -> tuple[np.ndarray, np.ndarray]:
    """For each pair, the number of its set of pairs connected by shared texts, int64 (n,); for each set, its texts."""
    rows, inverse = np.unique(np.concatenate([examples.preferred, examples.other]), return_inverse=True)
    n = len(examples)
    edges = coo_matrix((np.ones(n, np.int8), (inverse[:n], inverse[n:])), shape=(len(rows), len(rows)))
    component = connected_components(edges, directed=False)[1]
    return component[inverse[:n]], np.bincount(component)


def _lay_out(
    examples: Examples, component: np.ndarray, sizes: np.ndarray, room: int, random: np.random.Generator
) -> list[np.ndarray]:
    # Within a set too large for one step, pairs with the same first text stand together.
    place = random.permutation(int(max(examples.preferred.max(), examples.other.max())) + 1)
    first, second = place[examples.preferred], place[examples.other]
    order = np.lexsort(
        (np.maximum(first, second), np.minimum(first, second), random.permutation(component.max() + 1)[component])
    )
    steps: list[list[int]] = []
    texts: set[int] = set()
    before = -1
    for pair in order.tolist():
        ends = {int(examples.preferred[pair]), int(examples.other[pair])}
        begins = component[pair] != before
        before = component[pair]
        # a set that fits into one step is not cut in two
        needed = len(texts) + sizes[before] if begins and sizes[before] <= room else len(texts | ends)
        if not steps or needed > room:
            steps.append([])
            texts = set()
        steps[-1].append(pair)
        texts |= ends
    return [np.array(step) for step in steps]


def schedule(step: int, total: int, warmup: float) -> float:
    """Share of the learning rate at a step (from 0): up over the first `warmup` share, then down, linearly."""
    up = round(warmup * total)
    return (step + 1) / (up + 1) if step < up else (total - step) / (total - up)


def evenly(sizes: Sequence[int], n: int) -> list[list[int]]:
    """Indices in n sets of like sums: the largest first, each to the set that has least."""
    found: list[list[int]] = [[] for _ in range(n)]
    sums = [0] * n
    for index in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        least = sums.index(min(sums))
        found[least].append(index)
        sums[least] += sizes[index]
    return [one for one in found if one]
