"""How far people agree on the same items: raw and chance-corrected coefficients with bootstrap intervals.

Ratings: integers, shape (n_items, n_raters), categories 0 .. k-1, a negative number where a person did not answer. Categories
are names without an order (a, b, tie). a and b are at random in a pair, so two people who do not look agree on about half of
what both decide: the coefficients say what is left beyond that.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from scipy.special import ndtr, stdtrit

from ser_backend.calibration import clopper_pearson
from ser_backend.metrics import FEW_GROUPS

DRAWS = 1_000
RAW = "raw agreement"
Chances = tuple[np.ndarray, np.ndarray]  # share that agrees, and share that would by chance; one of each per resample


@dataclass(frozen=True, slots=True)
class Agreement:
    """A coefficient of agreement with its 95 % interval; 1 is full agreement, and 0 is chance unless it is the raw one."""

    name: str
    value: float  # nan where it is not defined
    low: float
    high: float
    n_items: int  # with two answers or more
    n_ratings: int  # answers on these items
    agreed: float  # share of pairs of answers to one item that agree, as the coefficient counts them
    by_chance: float  # that share if answers had nothing to do with items; nan for raw agreement

    def __str__(self) -> str:
        if not self.n_items:
            return "not known (n = 0)"
        if math.isnan(self.value):
            return f"not defined (n = {self.n_items:,})"
        if self.name == RAW:
            return f"{100 * self.value:.1f} % ({100 * self.low:.1f} to {100 * self.high:.1f}, n = {self.n_items:,})"
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f}, n = {self.n_items:,})"

    def in_words(self) -> str:
        if not self.n_items:
            return "No item has answers of two people, so nothing is known of how far they agree."
        same = f"Two answers to one item were the same in {100 * self.agreed:.1f} % of cases"
        if self.name == RAW:
            return f"{same} ({100 * self.low:.1f} to {100 * self.high:.1f}, {self.n_items:,} items)."
        if math.isnan(self.value):
            return (
                f"{same} ({self.n_items:,} items), but all answers were one and the same category, which chance would "
                f"do as well: {self.name} is not defined."
            )
        return (
            f"{same}; chance alone would make it {100 * self.by_chance:.1f} %. {self.name}, where 0 is chance and 1 is "
            f"full agreement: {self.value:.2f} ({self.low:.2f} to {self.high:.2f}, {self.n_items:,} items)."
        )


def cohen(x: np.ndarray, y: np.ndarray, groups: np.ndarray | None = None, random_seed: int = 0) -> Agreement:
    """Cohen's kappa of two people (Cohen 1960, Educational and Psychological Measurement 20, 37-46) over what both answered.

    x, y: categories, shape (n,). groups: as in `fleiss`. Chance is by each person's own use of the categories.
    """
    x, y = np.asarray(x), np.asarray(y)
    both = (x >= 0) & (y >= 0)
    k = int(max(x[both].max(initial=0), y[both].max(initial=0))) + 1
    cell = np.zeros((int(both.sum()), k * k))
    cell[np.arange(len(cell)), x[both] * k + y[both]] = 1

    def chances(sums: np.ndarray) -> Chances:
        table = sums.reshape(-1, k, k) / sums.sum(1)[:, None, None]
        return np.trace(table, axis1=1, axis2=2), (table.sum(1) * table.sum(2)).sum(1)

    kept = None if groups is None else np.asarray(groups)[both]
    return _estimate("Cohen's kappa", cell, chances, kept, len(cell), 2 * len(cell), random_seed)


def fleiss(ratings: np.ndarray, groups: np.ndarray | None = None, random_seed: int = 0) -> Agreement:
    """Fleiss' kappa (Fleiss 1971, Psychological Bulletin 76, 378-382), for unequal numbers of raters as generalised by Gwet
    (2014, Handbook of Inter-Rater Reliability, 4th edition, chapter 2): agreement is the mean over items with two ratings
    or more, chance is by the mean share of each category over all rated items.

    ratings: shape (n_items, n_raters). groups: shape (n_items,), drawn whole in the bootstrap: answers to one prompt, or of
    one session, are not independent.
    """
    counts = _counts(ratings)
    n = counts.sum(1)
    rated, pairable = n > 0, n > 1
    alike = (counts * (counts - 1)).sum(1) / np.maximum(n * (n - 1), 1)
    columns = np.column_stack([alike, pairable, counts / np.maximum(n, 1)[:, None]])

    def chances(sums: np.ndarray) -> Chances:
        share = sums[:, 2:] / sums[:, 2:].sum(1, keepdims=True)
        return sums[:, 0] / sums[:, 1], (share**2).sum(1)

    kept = None if groups is None else np.asarray(groups)[rated]
    n_items, n_ratings = int(pairable.sum()), int(n[pairable].sum())
    return _estimate("Fleiss' kappa", columns[rated], chances, kept, n_items, n_ratings, random_seed)


def krippendorff(ratings: np.ndarray, groups: np.ndarray | None = None, random_seed: int = 0) -> Agreement:
    """Krippendorff's alpha for categories, with any number of missing answers (Krippendorff 2011, Computing Krippendorff's
    Alpha-Reliability, University of Pennsylvania, section C). An item with one answer says nothing and is left out.

    ratings: shape (n_items, n_raters). groups: as in `fleiss`.
    """
    counts = _counts(ratings)
    pairable = counts.sum(1) > 1
    counts = counts[pairable]
    n = counts.sum(1)
    columns = np.column_stack([(counts * (counts - 1)).sum(1) / (n - 1), counts])

    def chances(sums: np.ndarray) -> Chances:
        of, total = sums[:, 1:], sums[:, 1:].sum(1)
        return sums[:, 0] / total, (of * (of - 1)).sum(1) / (total * (total - 1))

    kept = None if groups is None else np.asarray(groups)[pairable]
    return _estimate("Krippendorff's alpha", columns, chances, kept, len(counts), int(n.sum()), random_seed)


def observed(ratings: np.ndarray, groups: np.ndarray | None = None, random_seed: int = 0) -> Agreement:
    """Share of pairs of answers to one item that agree, all pairs counted alike. ratings, groups: as in `fleiss`."""
    counts = _counts(ratings)
    pairable = counts.sum(1) > 1
    counts = counts[pairable]
    n = counts.sum(1)
    columns = np.column_stack([(counts * (counts - 1)).sum(1), n * (n - 1)])

    def chances(sums: np.ndarray) -> Chances:
        return sums[:, 0] / sums[:, 1], np.zeros(len(sums))

    kept = None if groups is None else np.asarray(groups)[pairable]
    found = _estimate(RAW, columns, chances, kept, len(counts), int(n.sum()), random_seed)
    return replace(found, low=max(found.low, 0.0), by_chance=math.nan)


def by_pair_of_people(
    ratings: np.ndarray, names: Sequence[str], groups: np.ndarray | None = None, random_seed: int = 0
) -> list[tuple[str, str, Agreement]]:
    """Cohen's kappa of every two people who answered an item in common, those with most in common first.

    ratings: shape (n_items, n_raters). names: of the raters. groups: as in `fleiss`.
    """
    ratings = np.asarray(ratings)
    found = [
        (one, other, cohen(ratings[:, i], ratings[:, j], groups, random_seed))
        for (i, one), (j, other) in combinations(enumerate(names), 2)
    ]
    return sorted((of for of in found if of[2].n_items), key=lambda of: -of[2].n_items)


def by_part(
    ratings: np.ndarray, part: Sequence[str] | np.ndarray, groups: np.ndarray | None = None, random_seed: int = 0
) -> list[tuple[str, Agreement]]:
    """Krippendorff's alpha of each part, the largest first; parts without an item of two answers are left out.

    ratings: shape (n_items, n_raters). part: such as the domain, shape (n_items,). groups: as in `fleiss`.
    """
    ratings, part = np.asarray(ratings), np.asarray(part)
    inside = {str(name): part == name for name in np.unique(part)}
    found = [
        (name, krippendorff(ratings[rows], None if groups is None else np.asarray(groups)[rows], random_seed))
        for name, rows in inside.items()
    ]
    return sorted((of for of in found if of[1].n_items), key=lambda of: -of[1].n_items)


def _counts(ratings: np.ndarray) -> np.ndarray:
    """How many chose each category, int (n_items, k)."""
    ratings = np.asarray(ratings)
    k = int(ratings.max(initial=0)) + 1
    item, rater = np.nonzero(ratings >= 0)
    return np.bincount(item * k + ratings[item, rater], minlength=len(ratings) * k).reshape(len(ratings), k)


def _estimate(
    name: str,
    columns: np.ndarray,
    chances: Callable[[np.ndarray], Chances],
    groups: np.ndarray | None,
    n_items: int,
    n_ratings: int,
    random_seed: int,
) -> Agreement:
    """The coefficient (agreed - by chance) / (1 - by chance) with its interval. columns: per-item figures whose sums
    determine it, shape (n, c). chances: sums, shape (draws, c) -> agreed and by chance, shape (draws,) each.

    The interval is the expanded percentile interval (Hesterberg 2015, The American Statistician 69, 371-386): the plain one
    is too short for few items. Where nobody disagrees every resample is the same, so the end is that of Clopper and Pearson.
    With fewer than FEW_GROUPS groups it is at least as wide as with every item a group of its own, as in metrics.
    """
    if not n_items:
        return Agreement(name, math.nan, -1.0, 1.0, 0, 0, math.nan, math.nan)
    units = columns
    if groups is not None:
        _, group = np.unique(groups, return_inverse=True)
        units = np.column_stack([np.bincount(group, weights=column) for column in columns.T])
    with np.errstate(invalid="ignore", divide="ignore"):
        agreed, by_chance = chances(columns.sum(0)[None])
        value = float(_corrected(agreed, by_chance)[0])
        facts = n_items, n_ratings, float(agreed[0]), float(by_chance[0])
        if math.isnan(value):
            return Agreement(name, math.nan, -1.0, 1.0, *facts)
        drawn = _corrected(*chances(_resampled_sums(units, random_seed)))
    drawn = drawn[~np.isnan(drawn)]  # a resample may hold one category alone, or no item of two
    n = min(len(units), n_items)
    low, high = -1.0, 1.0
    if n > 1 and len(drawn):
        tail = ndtr(math.sqrt(n / (n - 1)) * stdtrit(n - 1, 0.025))
        low, high = (float(end) for end in np.quantile(drawn, [tail, 1 - tail]))
    if min(agreed[0], 1 - agreed[0]) < 1e-12:
        exact = clopper_pearson(round(n * agreed[0]), n)
        ends = _corrected(np.array([exact.low, exact.high]), by_chance)
        low, high = min(low, float(ends[0])), max(high, float(ends[1]))
    if groups is not None and len(units) < min(FEW_GROUPS, len(columns)):
        alone = _estimate(name, columns, chances, None, n_items, n_ratings, random_seed)
        low, high = min(low, alone.low), max(high, alone.high)
    return Agreement(name, value, min(value, max(low, -1.0)), max(value, min(high, 1.0)), *facts)


def _corrected(agreed: np.ndarray, by_chance: np.ndarray) -> np.ndarray:
    return np.where(1 - by_chance > 1e-12, (agreed - by_chance) / (1 - by_chance), np.nan)


def _resampled_sums(units: np.ndarray, random_seed: int) -> np.ndarray:
    """Bootstrap: sums of units drawn with replacement, shape (DRAWS, c). units: shape (n, c).

    Units with the same figures are alike, and how often each kind is drawn is multinomial: answers to pairs make few kinds,
    so this costs what the kinds are many, not the items.
    """
    kinds, times = np.unique(units, axis=0, return_counts=True)
    random = np.random.default_rng(random_seed)
    block = max(1, 4_000_000 // len(kinds))  # draws at a time, so that many groups do not fill the memory
    sums = [
        random.multinomial(len(units), times / len(units), min(block, DRAWS - begin)) @ kinds
        for begin in range(0, DRAWS, block)
    ]
    return np.concatenate(sums)
