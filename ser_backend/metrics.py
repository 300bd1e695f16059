"""Accuracy and its uncertainty. numpy only."""

import math

import numpy as np

from ser_backend.records import Interval

FEW_GROUPS = 10
Z_95 = 1.959963984540054  # two-sided 95 % point of the standard normal


def wilson(right: float, n: int) -> Interval:
    """Wilson score interval (95 %) of a proportion; n = 0 gives the whole of 0..1."""
    if n == 0:
        return Interval(math.nan, 0.0, 1.0, 0)
    share = right / n
    centre = (share + Z_95**2 / (2 * n)) / (1 + Z_95**2 / n)
    half = Z_95 * math.sqrt(share * (1 - share) / n + Z_95**2 / (4 * n * n)) / (1 + Z_95**2 / n)
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half), n)


def correct(margin: np.ndarray, preferred: np.ndarray) -> np.ndarray:
    """1 where the sign of the margin agrees with the label, 0.5 where the margin is 0, nan where the label is a tie.

    margin: reward a - reward b, shape (n,). preferred: +1 a, -1 b, 0 tie, shape (n,).
    """
    agreement = 0.5 + 0.5 * np.sign(margin) * preferred
    return np.where(preferred == 0, np.nan, agreement)


def accuracy(margin: np.ndarray, preferred: np.ndarray) -> Interval:
    """Share of labels whose sign the margin has, with its Wilson interval; ties among the labels are left out."""
    hits = correct(margin, preferred)
    hits = hits[~np.isnan(hits)]
    return wilson(float(hits.sum()), len(hits))


def paired_difference(
    new: np.ndarray, old: np.ndarray, groups: np.ndarray, random_seed: int = 0, draws: int = 2_000
) -> tuple[float, float, float]:
    """Mean of new - old with a 95 % interval by paired bootstrap over groups (whole groups are drawn).

    new, old: per-pair results such as `correct` gives, shape (n,), nan left out. groups: shape (n,). With fewer than
    FEW_GROUPS groups, which say little of how groups differ (a single one nothing at all), the interval is at least as wide
    as with every pair a group of its own.
    """
    known = ~(np.isnan(new) | np.isnan(old))
    names, group = np.unique(groups[known], return_inverse=True)
    if not len(group):
        return math.nan, math.nan, math.nan
    sums = np.bincount(group, weights=(new - old)[known])
    sizes = np.bincount(group)
    random = np.random.default_rng(random_seed)
    block = max(1, 2_000_000 // len(sizes))  # draws at a time, so that many groups do not fill the memory
    means = []
    for begin in range(0, draws, block):
        picked = random.integers(len(sizes), size=(min(block, draws - begin), len(sizes)))
        means.append(sums[picked].sum(1) / sizes[picked].sum(1))
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    if len(names) < min(FEW_GROUPS, len(group)):
        _, alone_low, alone_high = paired_difference(new[known], old[known], np.arange(len(group)), random_seed, draws)
        low, high = min(low, alone_low), max(high, alone_high)
    return float(sums.sum() / sizes.sum()), float(low), float(high)


def log_loss(margin: np.ndarray, preferred: np.ndarray) -> np.ndarray:
    """-log sigmoid(margin of the preferred response), per pair, in nats; nan where the label is a tie."""
    return np.where(preferred == 0, np.nan, np.logaddexp(0, -margin * preferred))


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)) without overflow."""
    return np.exp(-np.logaddexp(0, -x))
