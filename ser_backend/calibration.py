"""How sure a model is, whether rightly so, and exact intervals and tests for counts. numpy and scipy only."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import bdtr, betaincinv, betaln  # scipy.stats would add 0.6 s to the opening of a page

from ser_backend.metrics import log_loss, sigmoid
from ser_backend.records import Interval

COLDEST, HOTTEST = 0.05, 20.0  # where temperature() ends


def clopper_pearson(right: int, n: int, level: float = 0.95) -> Interval:
    """Exact two-sided interval of a proportion (Clopper and Pearson 1934); n = 0 gives the whole of 0..1."""
    tail = (1 - level) / 2
    low = 0.0 if right == 0 else float(betaincinv(right, n - right + 1, tail))
    high = 1.0 if right == n else float(betaincinv(right + 1, n - right, 1 - tail))
    return Interval(right / n if n else math.nan, low, high, n)


def lower_bound(right: int, n: int, delta: float) -> float:
    """One-sided Clopper-Pearson bound: the share right is at least this with probability >= 1 - delta; n = 0 gives 0."""
    return float(betaincinv(right, n - right + 1, delta)) if right else 0.0


def upper_bound(wrong: int, n: int, delta: float) -> float:
    """One-sided Clopper-Pearson bound: the share wrong is at most this with probability >= 1 - delta; n = 0 gives 1."""
    return 1.0 - lower_bound(n - wrong, n, delta)


def so_few_wrong(wrong: np.ndarray, n: np.ndarray, other_wrong: np.ndarray, m: np.ndarray) -> np.ndarray:
    """Probability that, of wrong + other_wrong errors among n + m pairs, at most `wrong` fall on n drawn at random: the
    lower tail of a hypergeometric distribution. All are counts, shape (k,).

    Where it is small, other_wrong errors or more among the m others can be ruled out: exact prediction limits (Thatcher
    1964, Journal of the Royal Statistical Society B 26, 176-210). It speaks of the m pairs at hand where Clopper-Pearson
    speaks of an endless supply of such pairs; for m -> infinity they are one.
    """
    right, other_right = n - wrong, m - other_wrong

    def log_choices(k: np.ndarray, rest: np.ndarray) -> np.ndarray:
        """Of how many ways there are to choose k of k + rest."""
        return -betaln(k + 1, rest + 1) - np.log(k + rest + 1)

    ways = log_choices(wrong, right) + log_choices(other_wrong, other_right)
    exactly = np.exp(ways - log_choices(wrong + other_wrong, right + other_right))
    # Above the mode the tail is about a half or more: said to be 1, the safe side. Below it, fewer errors by the ratio of
    # neighbours, as far down as 6 standard deviations and more.
    above_mode = wrong * other_right >= (right + 1) * (other_wrong + 1)
    most = float(np.max(wrong * ~above_mode, initial=0))
    fewer = np.arange(min(most, 20 + 6 * math.sqrt(most)))[:, None]
    up = np.maximum(wrong - fewer, 0) * np.maximum(other_right - fewer, 0) * ~above_mode
    ratio = up / ((right + fewer + 1) * (other_wrong + fewer + 1))
    return np.where(above_mode, 1.0, exactly * (1 + np.cumprod(ratio, axis=0).sum(0)))


def spent(delta: float, t: int) -> float:
    """The share of delta for the t-th look, t = 1, 2, ...: 6 delta / (pi^2 t^2). All shares together make delta, so that
    one may look as often as one likes (union bound) without saying beforehand how often."""
    return 6 * delta / (math.pi * t) ** 2


def mcnemar_worse(new: np.ndarray, old: np.ndarray) -> float:
    """One-sided exact McNemar test: probability of so many losses against `old` if the two were equally good.

    new, old: 0/1 per pair (nan left out; 0.5, a zero margin, counts as wrong), shape (n,). Small = new is worse.
    """
    known = ~(np.isnan(new) | np.isnan(old))
    new, old = new[known] == 1, old[known] == 1
    lost, won = int((old & ~new).sum()), int((new & ~old).sum())
    return float(bdtr(won, lost + won, 0.5)) if lost + won else 1.0


def confidence(margin: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """margin / sqrt(1 + pi variance / 8), signed as the margin, shape (n,): sigmoid of it is close to the mean of sigmoid
    over a normal margin with that mean and variance (MacKay 1992, Neural Computation 4, 720-736).

    margin, variance: of reward a - reward b over a posterior or the members of a committee, shape (n,).
    """
    return margin / np.sqrt(1 + math.pi * variance / 8)


def temperature(s: np.ndarray, right_sign: np.ndarray) -> float:
    """T > 0 that minimises the mean log-loss of sigmoid(s * right_sign / T), in 0.05 .. 20 (Guo et al. 2017).

    s: signed confidence, shape (n,). right_sign: +1 where the person prefers a, -1 b; 0 and nan are left out, shape (n,).
    Few labels that are all right would make T = 0, so a prior worth two pairs is added: as sure as the given ones on the
    average, right as often as T = 1 says. Alone it gives T = 1; against n labels it weighs 2 / n.
    """
    s, right_sign = np.asarray(s, float), np.asarray(right_sign, float)
    known = np.isfinite(s) & np.isfinite(right_sign) & (right_sign != 0)
    z = s[known] * np.sign(right_sign[known])
    if not z.any():
        return 1.0
    believed = sigmoid(np.abs(z))

    def slope(coldness: float) -> float:
        """Of the loss by 1/T, in which it is convex."""
        data = -(z * sigmoid(-z * coldness)).sum()
        prior = (np.abs(z) * (sigmoid(np.abs(z) * coldness) - believed)).mean()
        return float(data + 2 * prior)

    low, high = math.log(1 / HOTTEST), math.log(1 / COLDEST)
    for _ in range(50):  # halves 6 nats to less than the precision of a float
        middle = (low + high) / 2
        low, high = (low, middle) if slope(math.exp(middle)) > 0 else (middle, high)
    return math.exp(-(low + high) / 2)


@dataclass(frozen=True, slots=True)
class Reliability:
    """Is a pair of which the model is 80 % sure right in 80 % of cases?"""

    confidence: tuple[float, ...]  # mean of each bin, rising
    right: tuple[Interval, ...]  # share right in each bin and its n, exact 95 % interval
    ece: Interval  # expected calibration error: mean distance of confidence and share right over bins, by their n
    brier: float
    log_loss: float


def reliability(probability: np.ndarray, right: np.ndarray, bins: int = 10) -> Reliability:
    """Reliability diagram over bins of equal count; pairs of one probability stay in one bin.

    probability: of the predicted side, 0.5 .. 1, shape (n,). right: 1 where that side is right, else 0; nan left out, (n,).
    The ECE is above 0 by chance alone, and an ordinary bootstrap adds this bias once more: it missed the truth in every
    draw of a calibrated model. So the lower end is ECE minus the 97.5 % point of the noise, sum over bins of
    |resampled - observed| (by the triangle inequality no less than the error of the ECE), the upper end the 97.5 %
    point of the resampled ECE, which errs upward.
    """
    probability, right = np.asarray(probability, float), np.asarray(right, float)
    known = np.isfinite(probability) & np.isfinite(right)
    order = np.argsort(probability[known], kind="stable")
    p, hit = probability[known][order], (right[known][order] == 1).astype(float)
    n = len(p)
    if n == 0:
        return Reliability((), (), Interval(math.nan, 0.0, 1.0, 0), math.nan, math.nan)
    wanted = np.round(np.arange(min(bins, n)) * n / min(bins, n)).astype(int)
    starts = np.unique(np.searchsorted(p, p[wanted], "left"))
    sizes = np.diff(np.append(starts, n))
    gap = p - hit
    observed = np.add.reduceat(gap, starts)
    drawn = _resampled_sums(gap, starts, sizes)
    value = float(np.abs(observed).sum() / n)
    low = value - float(np.quantile(np.abs(drawn - observed).sum(1), 0.975)) / n
    high = float(np.quantile(np.abs(drawn).sum(1), 0.975)) / n
    hits = np.add.reduceat(hit, starts)
    clipped = np.clip(p, 1e-12, 1 - 1e-12)
    return Reliability(
        confidence=tuple((np.add.reduceat(p, starts) / sizes).tolist()),
        right=tuple(clopper_pearson(int(k), int(m)) for k, m in zip(hits, sizes, strict=True)),
        ece=Interval(value, max(0.0, low), max(value, high), n),
        brier=float(np.mean(gap**2)),
        log_loss=float(log_loss(np.log(clipped) - np.log1p(-clipped), 2 * hit - 1).mean()),
    )


def _resampled_sums(values: np.ndarray, starts: np.ndarray, sizes: np.ndarray, draws: int = 1_000) -> np.ndarray:
    """Bootstrap within bins: the sum of each bin's resampled values, shape (draws, bins). values: bin after bin, (n,)."""
    random = np.random.default_rng(0)
    sums = np.empty((draws, len(starts)))
    for i, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        inside = values[start : start + size]
        block = max(1, 1_000_000 // int(size))  # draws at a time, so that large bins do not fill the memory
        for begin in range(0, draws, block):
            picked = random.integers(size, size=(min(block, draws - begin), size))
            sums[begin : begin + block, i] = inside[picked].sum(1)
    return sums
