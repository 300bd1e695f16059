"""Exact intervals and tests for counts. numpy and scipy only."""

import math

import numpy as np
from scipy.special import bdtr, betaincinv  # scipy.stats would add 0.6 s to the opening of a page

from ser_backend.records import Interval


def clopper_pearson(right: int, n: int, level: float = 0.95) -> Interval:
    """Exact two-sided interval of a proportion (Clopper and Pearson 1934); n = 0 gives the whole of 0..1."""
    tail = (1 - level) / 2
    low = 0.0 if right == 0 else float(betaincinv(right, n - right + 1, tail))
    high = 1.0 if right == n else float(betaincinv(right + 1, n - right, 1 - tail))
    return Interval(right / n if n else math.nan, low, high, n)


def mcnemar_worse(new: np.ndarray, old: np.ndarray) -> float:
    """One-sided exact McNemar test: probability of so many losses against `old` if the two were equally good.

    new, old: 0/1 per pair (nan left out; 0.5, a zero margin, counts as wrong), shape (n,). Small = new is worse.
    """
    known = ~(np.isnan(new) | np.isnan(old))
    new, old = new[known] == 1, old[known] == 1
    lost, won = int((old & ~new).sum()), int((new & ~old).sum())
    return float(bdtr(won, lost + won, 0.5)) if lost + won else 1.0
