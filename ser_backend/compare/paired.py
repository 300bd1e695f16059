"""One model against another on held-out pairs: the difference, how sure it is, and what would make it surer.

On the same pairs it is the mean of the differences, its 95 % interval by paired bootstrap over prompt groups
(metrics.paired_difference, as everywhere here), and a p-value by turning the signs of whole groups' differences at random,
which under "no difference" are as likely either way (a randomisation test; with a pair a group it is McNemar's exact test).
On other pairs the two accuracies are held against one another as of independent samples (Newcombe 1998, Statistics in
Medicine 17, 873-890, method 10), and that is said. Several comparisons with one reference share the 5 %: their p-values are
Holm's (Holm 1979, Scandinavian Journal of Statistics 6, 65-70).

Every figure allows for another draw of held-out prompts, none for another random seed of the run. Knows no runs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ser_backend import metrics
from ser_backend.metrics import Z_95
from ser_backend.records import Interval

Z_80 = 0.8416212335729143  # with this power a difference is found
LEVEL = 0.05
FLIPS = 9_999
EXACT = 13  # up to so many groups that differ, every way to turn signs is counted
BLOCK = 4_000_000  # signs at a time

# all pairs of both, those that both held out, other pairs of one set, nobody knows which were right, or pairs of another set
Kind = Literal["paired", "shared", "unpaired", "unstored", "apart"]


@dataclass(frozen=True)
class Difference:
    """Accuracy of one run minus that of the reference."""

    value: float
    low: float
    high: float
    p: float
    n: int  # held-out pairs it rests on
    n_groups: int
    kind: Kind
    error: float  # standard error, with whole groups as the units
    p_holm: float = math.nan  # among all comparisons with this reference

    @property
    def is_clear(self) -> bool:
        """Both say so: the interval, and the p-value that allows for the other comparisons. On another set neither can: that
        set may be easier."""
        return self.kind != "apart" and (self.low > 0 or self.high < 0) and self.p_holm < LEVEL

    def pairs_needed(self, difference: float) -> int | None:
        """Held-out pairs with which a true difference like that is found four times in five, with the scatter seen here; None
        where nothing is seen, or no number of pairs would do."""
        if self.kind == "apart" or not self.error or not difference:
            return None
        return math.ceil(self.n * ((Z_95 + Z_80) * self.error / difference) ** 2)


def paired(new: np.ndarray, old: np.ndarray, groups: np.ndarray, kind: Kind) -> Difference:
    value, low, high = metrics.paired_difference(new, old, groups)
    _, group = np.unique(groups, return_inverse=True)
    sums, sizes = np.bincount(group, weights=new - old), np.bincount(group)
    return Difference(value, low, high, sign_flip(sums), len(new), len(sums), kind, standard_error(sums, sizes))


def standard_error(sums: np.ndarray, sizes: np.ndarray) -> float:
    """Of the mean over pairs, whole groups being the units: linearised ratio (Cochran 1977, Sampling Techniques, 6.3)."""
    if len(sums) < 2:
        return 0.0
    left = sums - sizes * (sums.sum() / sizes.sum())
    return float(math.sqrt((left**2).sum() * len(sums) / (len(sums) - 1)) / sizes.sum())


def unpaired(one: Interval, reference: Interval, kind: Kind) -> Difference:
    value = one.value - reference.value
    low = value - math.hypot(one.value - one.low, reference.high - reference.value)
    high = value + math.hypot(one.high - one.value, reference.value - reference.low)
    n = min(one.n, reference.n)
    pooled = (one.value * one.n + reference.value * reference.n) / (one.n + reference.n)
    error = math.sqrt(pooled * (1 - pooled) * (1 / one.n + 1 / reference.n))
    p = math.erfc(abs(value) / error / math.sqrt(2)) if error else 1.0
    return Difference(value, low, high, p, n, 0, kind, error)


def sign_flip(sums: np.ndarray, random_seed: int = 0) -> float:
    """Two-sided p-value: how often the sum of the groups' differences is as far from 0 when each one's sign is a coin's."""
    sums = sums[sums != 0]
    if not len(sums):
        return 1.0
    far = abs(sums.sum()) - 1e-9 * np.abs(sums).sum()  # sums of halves are exact, but not every sum need be
    if len(sums) <= EXACT:
        ways = (np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums)) & 1) * 2.0 - 1
        return float((np.abs(ways @ sums) >= far).mean())
    random, done, as_far = np.random.default_rng(random_seed), 0, 0
    while done < FLIPS:
        n = min(FLIPS - done, max(1, BLOCK // len(sums)))
        turned = random.integers(0, 2, size=(n, len(sums)), dtype=np.int8) * np.float32(2) - np.float32(1)
        as_far += int((np.abs(turned @ sums.astype(np.float32)) >= far - 1e-3).sum())
        done += n
    return (1 + as_far) / (1 + FLIPS)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given."""
    found, most = [0.0] * len(p), 0.0
    for rank, place in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        most = max(most, min(1.0, (len(p) - rank) * p[place]))
        found[place] = most
    return found


def adjusted(found: Sequence[Difference | None]) -> list[Difference | None]:
    shared = iter(holm([one.p for one in found if one]))
    return [one and replace(one, p_holm=next(shared)) for one in found]


# ---- in words


def in_words(found: Difference | None, name: str, reference: str, n_comparisons: int = 1, brief: bool = False) -> str:
    """One run against the reference, in a sentence or a few. brief: not how many pairs would tell them apart."""
    if found is None:
        return f"{name} and {reference} cannot be compared: one of them has no finished round."
    points = f"{100 * found.value:+.1f} points ({100 * found.low:+.1f} to {100 * found.high:+.1f})"
    if not found.error and not found.value and found.kind != "apart":
        return f"{name} and {reference} get the same {found.n:,} held-out pairs right: no difference at all."
    if found.kind == "apart":
        return (
            f"{name} and {reference} were measured on different held-out sets, so which is better is not known: {points} may "
            "lie in the pairs as well as in the models. Give both runs one held-out set."
        )
    shared = f", p = {shown_p(found.p_holm)} after Holm for {n_comparisons} comparisons" if n_comparisons > 1 else ""
    on = f"on {found.n:,} held-out pairs{' both have' if found.kind == 'shared' else ''}"
    if found.is_clear:
        which = "better" if found.value > 0 else "worse"
        said = f"{name} is {which} than {reference}: {points} {on}{shared}."
    else:
        said = f"{name} and {reference} cannot be told apart: {points} {on}{shared}. That is within noise."
        said += "" if brief else f" {needed(found)}"
    return said.strip() + f" {_caveat(found)}".rstrip()


def needed(found: Difference) -> str:
    """How many held-out pairs would show a difference like the one seen, and one of a point."""
    point, mine = found.pairs_needed(0.01), found.pairs_needed(found.value)
    if point is None:
        return ""
    how = "(four times in five, with the scatter seen here)"
    if not mine or abs(found.value) < 0.002 or round(abs(found.value), 3) == 0.01:
        return f"To see a true difference of 1 point would take about {rounded(point):,} held-out pairs {how}."
    return (
        f"To see a true difference of {100 * abs(found.value):.1f} points would take about {rounded(mine):,} held-out pairs, "
        f"one of 1 point about {rounded(point):,} {how}."
    )


def _caveat(found: Difference) -> str:
    if found.kind == "unpaired":
        return (
            "They were not measured on the same held-out pairs, so this is a comparison of two samples: part of the "
            "difference may lie in the pairs."
        )
    if found.kind == "unstored":
        return (
            "Which held-out pairs each got right is not stored for both (a run of an earlier version), so they are compared as "
            "two samples, which is vaguer than it need be."
        )
    if found.n_groups < metrics.FEW_GROUPS:
        return f"The pairs come from only {found.n_groups:,} prompt groups, so the interval says little."
    return ""


def rounded(n: int) -> int:
    """To two digits: the scatter is known no better."""
    return round(n, 2 - len(str(n))) if n > 99 else n


def shown_p(p: float) -> str:
    return "under 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"
