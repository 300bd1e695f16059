"""What answers at the review desk say of the people who gave them: biases, consistency, pace, and how many audits suffice.

Figures of counts have exact intervals (Clopper-Pearson). Knows no store and no page.
"""

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.special import bdtr, bdtrik, betaincinv, betaln, xlog1py, xlogy

from ser_backend.calibration import clopper_pearson
from ser_backend.metrics import paired_difference
from ser_backend.records import Interval

BIAS_WORTH_SEEING = 0.1  # share chosen minus one half
POWER = 0.8
SURE = 0.05  # a p-value below this is called a sign
SESSION_GAP_S = 300.0  # a longer pause begins a new session
TIE = 2  # the category of a tie, after a and b
HALVINGS = 60  # of an interval of length 1: to less than the precision of a float


# ---- biases


@dataclass(frozen=True, slots=True)
class Bias:
    """Which side is chosen, where either would be chosen half the time if the side did not matter."""

    share: Interval  # of decided answers that chose the left
    p_value: float  # exact, two-sided, against one half
    n_needed: int  # answers with which a bias of BIAS_WORTH_SEEING is found with probability POWER

    def in_words(self) -> str:
        if not self.share.n:
            return "No decided answer yet, so nothing is known of a preference for one side."
        found = f"The left response was chosen in {self.share}"
        if self.p_value < SURE:
            return f"{found}, further from one half than chance explains (p = {self.p_value:.2g}): the side seems to matter."
        if self.share.n >= self.n_needed:
            return f"{found}, no further from one half than chance explains (p = {self.p_value:.2g})."
        return (
            f"{found}, no further from one half than chance explains (p = {self.p_value:.2g}). That is too few to rule a "
            f"bias out: to find one of {100 * BIAS_WORTH_SEEING:.0f} points in {100 * POWER:.0f} % of cases takes "
            f"{self.n_needed} decided answers."
        )


def position_bias(chose_left: np.ndarray) -> Bias:
    """Exact binomial test of the side chosen against one half; the sides are drawn by a coin.

    chose_left: 1 left, 0 right, nan where the answer was a tie (left out), shape (n,); may be bool.
    """
    chosen = _known(chose_left)
    n, left = len(chosen), int(chosen.sum())
    p_value = min(1.0, 2 * float(bdtr(min(left, n - left), n, 0.5))) if n else 1.0
    return Bias(clopper_pearson(left, n), p_value, answers_needed())


@cache
def answers_needed(bias: float = BIAS_WORTH_SEEING, power: float = POWER) -> int:
    """Answers from which on the exact two-sided binomial test at SURE finds a share of 1/2 + bias with this probability.

    "From which on", because the power of an exact test rises in a saw-tooth: the next answer may lower it.
    """
    most = math.ceil(4 / bias**2) + 100  # normal approximation: 1.96 for 2 n bias^2; this is twice that at power .8
    while True:
        n = np.arange(1.0, most + 1)
        fewest = np.floor(bdtrik(SURE / 2, n, 0.5))
        fewest -= bdtr(fewest, n, 0.5) > SURE / 2  # -1: with so few answers none is unlikely enough
        found = np.where(fewest < 0, 0.0, bdtr(fewest, n, 0.5 + bias) + bdtr(fewest, n, 0.5 - bias))
        short = np.flatnonzero(found < power)
        if len(short) == 0 or short[-1] + 1 < most * 0.9:
            return int(short[-1]) + 2 if len(short) else 1
        most *= 2


@dataclass(frozen=True, slots=True)
class LengthBias:
    """How often the longer response is chosen, and how much more often than is right where that is known."""

    share: Interval  # of decided answers that chose the longer
    beyond_gold: tuple[float, float, float] | None  # share minus gold's: value, low, high (95 %); None: no gold
    n_gold: int

    def in_words(self) -> str:
        if not self.share.n:
            return "No decided answer about responses of different lengths yet."
        found = f"The longer response was chosen in {self.share}."
        if self.beyond_gold is None:
            return f"{found} That is no proof of a bias: the longer one may be the better one."
        value, low, high = (100 * x for x in self.beyond_gold)
        gap = f"{value:+.1f} points ({low:+.1f} to {high:+.1f})"
        if low > 0:
            said = "more often than it is the better one: length may sway the answers, or they err where the shorter is better"
        elif high < 0:
            said = "less often than it is the better one: answers may shun length, or err where the longer is better"
        else:
            said = "which chance may explain: no sign that length sways the answers"
        return f"{found} Against the right answers to {self.n_gold:,} of these pairs that is {gap}, {said}."


def length_bias(
    chose_longer: np.ndarray, gold_is_longer: np.ndarray | None = None, groups: np.ndarray | None = None
) -> LengthBias:
    """How often the longer one was chosen. That is a bias only so far as it goes beyond the right answers, so where these
    are known the two are compared on the same pairs (paired bootstrap over groups).

    chose_longer: 1 the longer, 0 the shorter, nan a tie or equal lengths, shape (n,); may be bool. gold_is_longer: the same
    for the right answer, nan where it is not known. groups: shape (n,); without, every pair is one of its own.
    """
    chosen = np.asarray(chose_longer, float)
    known = _known(chosen)
    share = clopper_pearson(int(known.sum()), len(known))
    if gold_is_longer is None:
        return LengthBias(share, None, 0)
    gold = np.asarray(gold_is_longer, float)
    gap = (chosen - gold)[~np.isnan(chosen - gold)]
    if not len(gap):
        return LengthBias(share, None, 0)
    value, low, high = paired_difference(chosen, gold, np.arange(len(gold)) if groups is None else np.asarray(groups))
    if np.ptp(gap) == 0:  # all resamples are alike; the exact bound says how many unlike pairs may have been missed
        missed = clopper_pearson(0, len(gap)).high * (1 + abs(gap[0]))
        low, high = max(-1.0, value - missed), min(1.0, value + missed)
    return LengthBias(share, (value, low, high), len(gap))


# ---- consistency


@dataclass(frozen=True, slots=True)
class Consistency:
    """Pairs shown twice to one person, the second time with the sides swapped."""

    same: Interval  # share answered the same, a tie being an answer
    same_side: Interval  # share, of those decided both times, in which the side stayed and so the preference turned

    def in_words(self) -> str:
        if not self.same.n:
            return "No pair was answered twice, so nothing is known of how steady the answers are."
        words = f"Shown again with the sides swapped, pairs got the same answer in {self.same}."
        if not self.same_side.n:
            return words
        return (
            f"{words} Where both answers were decided, the side was kept and the preference was not in {self.same_side}; "
            "guessing makes that 50 %, and more than 50 % is following the side."
        )


def self_consistency(first: np.ndarray, second: np.ndarray) -> Consistency:
    """first, second: answers to the same pairs by one person, 0 a, 1 b, 2 tie, negative where there is none, shape (n,).

    They are statements about a and b; as the sides were swapped between, a turned preference is the same side twice.
    """
    first, second = np.asarray(first), np.asarray(second)
    both = (first >= 0) & (second >= 0)
    decided = both & (first < TIE) & (second < TIE)
    return Consistency(
        clopper_pearson(int((first == second)[both].sum()), int(both.sum())),
        clopper_pearson(int((first != second)[decided].sum()), int(decided.sum())),
    )


def gold_accuracy(said: np.ndarray, gold: np.ndarray) -> Interval:
    """Share of answers that are the right one, exact interval; a tie is an answer, right where the right answer is a tie.

    said, gold: 0 a, 1 b, 2 tie, negative where there is none (left out), shape (n,).
    """
    said, gold = np.asarray(said), np.asarray(gold)
    both = (said >= 0) & (gold >= 0)
    return clopper_pearson(int((said == gold)[both].sum()), int(both.sum()))


# ---- how many audits


def audits_needed(right: int, n: int, half_width: float = 0.05, confidence: float = 0.95) -> int:
    """How many more audits until the Clopper-Pearson interval is at most half_width to either side on the average of both;
    0 when it is.

    Those to come are counted right in the share (right + 1/2) / (n + 1), the posterior mean under Jeffreys' prior (Brown,
    Cai and DasGupta 2001, Statistical Science 16, 101-133): with few audits, all of them right is no promise.
    """
    if half_width <= 0:
        raise ValueError(f"No number of audits makes an interval of half width {half_width:g}; ask for more than 0.")
    tail = (1 - confidence) / 2
    share = (right + 0.5) / (n + 1)

    def too_wide(more: int) -> bool:
        k, m = right + share * more, n + more  # k need not be whole: the beta quantiles go on between whole numbers
        low = betaincinv(k, m - k + 1, tail) if k > 0 else 0.0
        high = betaincinv(k + 1, m - k, 1 - tail) if k < m else 1.0
        return bool(high - low > 2 * half_width)

    if not too_wide(0):
        return 0
    short, enough = 0, 1
    while too_wide(enough):
        short, enough = enough, 2 * enough
    while enough - short > 1:
        middle = (short + enough) // 2
        short, enough = (middle, enough) if too_wide(middle) else (short, middle)
    return enough


def goal_in_words(right: int, n: int, half_width: float = 0.05, confidence: float = 0.95) -> str:
    points = f"±{100 * half_width:.3g} points"
    more = audits_needed(right, n, half_width, confidence)
    if not more:
        return f"The precision is known to {points}."
    if not n:
        return f"At most about {more:,} audits to know the precision to {points}; fewer the further it is from 50 %."
    return f"{more:,} more audit{'s' if more > 1 else ''} to know the precision to {points}"


def anytime_interval(right: int, n: int, level: float = 0.95) -> Interval:
    """Confidence sequence of a proportion: with probability `level` all intervals of an audit, n = 1, 2, ..., hold the truth,
    so that one may look after each answer and stop when one likes. Clopper-Pearson promises that for one n fixed before.

    Mixture likelihood ratio (Robbins 1970, Annals of Mathematical Statistics 41, 1397-1409): under share p,
    B(right + 1/2, wrong + 1/2) / B(1/2, 1/2) / (p^right (1 - p)^wrong) is a martingale that starts at 1, so by Ville's
    inequality it ever reaches 1 / (1 - level) with probability 1 - level at most; kept are the p for which it is below
    (Howard et al. 2021, Annals of Statistics 49, 1055-1080, where it is the beta-binomial mixture boundary). Drawn without
    replacement from few labels it errs on the wide side, as Clopper-Pearson does: simulated in benchmarks.audit_coverage.
    """
    low, high = anytime_bounds(np.array([right]), np.array([n]), level)
    return Interval(right / n if n else math.nan, float(low[0]), float(high[0]), n)


def anytime_bounds(right: np.ndarray, n: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """The ends of anytime_interval, for many audits at once, shape (k,) each."""
    wrong = n - right
    mixture = betaln(right + 0.5, wrong + 0.5) - betaln(0.5, 0.5)
    best = right / np.maximum(n, 1)

    def end(outer: float) -> np.ndarray:
        """Where the martingale crosses its bound between `outer`, 0 or 1, and the share seen, on the outer side."""
        out, kept = np.full(best.shape, outer), best.copy()
        for _ in range(HALVINGS):
            middle = (out + kept) / 2
            beyond = mixture - xlogy(right, middle) - xlog1py(wrong, -middle) >= -math.log(1 - level)
            out, kept = np.where(beyond, middle, out), np.where(beyond, kept, middle)
        return out

    return end(0.0), end(1.0)


# ---- pace


@dataclass(frozen=True, slots=True)
class Pace:
    seconds: float  # median, a pair; nan when not known
    per_hour: float  # answers, over the last session; nan when that has one answer
    n: int
    n_session: int  # answers of the last session

    def in_words(self) -> str:
        if not self.n:
            return "No answers yet."
        words = [f"{self.seconds:.0f} s a pair (median)"] if math.isfinite(self.seconds) else []
        if math.isfinite(self.per_hour):
            words.append(f"{self.per_hour:.0f} answers an hour in the last session (n = {self.n_session:,})")
        return f"{', '.join(words)}." if words else "One answer so far, too few for a pace."


def pace(answered_at: np.ndarray, active_ms: np.ndarray | None = None) -> Pace:
    """answered_at: seconds since the epoch, any order, shape (n,). active_ms: milliseconds a person was at the pair, nan
    where not known, shape (n,); there the time since the answer before counts, if that was in the same session.
    """
    at = np.asarray(answered_at, float)
    order = np.argsort(at, kind="stable")
    at = at[order]
    n = len(at)
    since = np.diff(at, prepend=-np.inf)
    begins = since > SESSION_GAP_S
    seconds = np.where(begins, np.nan, since)
    if active_ms is not None:
        active = np.asarray(active_ms, float)[order] / 1000
        seconds = np.where(np.isfinite(active), active, seconds)
    seconds = seconds[~np.isnan(seconds)]
    session = at[np.flatnonzero(begins)[-1] :] if n else at
    lasted = float(session[-1] - session[0]) if n else 0.0
    return Pace(
        float(np.median(seconds)) if len(seconds) else math.nan,
        3600 * (len(session) - 1) / lasted if lasted > 0 else math.nan,
        n,
        len(session),
    )


def _known(chosen: np.ndarray) -> np.ndarray:
    chosen = np.asarray(chosen, float)
    return chosen[~np.isnan(chosen)]
