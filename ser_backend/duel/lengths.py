"""The win rate of a trained model with the difference in length taken out. Knows votes and lengths, no store and no page.

`at_equal_length` says what is computed, whose idea it is and what is simpler here.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, stdtrit

from ser_backend.duel.figures import spread, win_rate
from ser_backend.records import Interval

FEW = 10  # prompts; with fewer answered nothing is said of lengths
STEPS = 60  # of Newton's method
LONGEST_STEP, HALVINGS = 5.0, 20  # of it, in log odds
TINY = 1e-300
FARTHEST = 30.0  # log odds beyond which nothing is looked for
CLOSE = 1e-4  # log odds; to 0.003 points


def at_equal_length(won: np.ndarray, longer_by: np.ndarray, prompts: np.ndarray, scale: float) -> Interval | None:
    """The win rate if both responses were as long as each other, with a 95 % interval; None where the votes cannot say.

    Logistic regression of the vote on tanh(longer_by / scale), read off at 0, as AlpacaEval 2 does (Dubois et al. 2024,
    "Length-Controlled AlpacaEval", arXiv:2404.04475). Simpler than there: it is one duel, so no term for a model's identity
    but the intercept, none for how hard a prompt is, and no cross-validated ridge. In its place Firth's penalty (1993,
    Biometrika 80, 27-38), which keeps the fit finite where length tells every vote apart. A tie is half a vote for each. The
    interval is that of the profile penalised likelihood (Heinze and Schemper 2002, Statistics in Medicine 21, 2409-2419),
    its threshold widened by what the votes vary by over a coin, prompts being what is drawn, and by t for the normal.

    longer_by: length of the trained model's response less the start model's, shape (n,). scale: a usual difference, over 0.
    """
    won, x = np.asarray(won, float), np.tanh(np.asarray(longer_by, float) / scale)
    k = len(np.unique(prompts))
    if k < FEW or (np.ptp(x) == 0 and x[0] != 0):
        return None
    if np.ptp(x) == 0:
        return win_rate(won, prompts)
    best = _Fit.of(won, x)
    allowed = best.likelihood - stdtrit(k - 2, 0.975) ** 2 * spread(won, best.p, prompts) / 2
    low, high = (_end(won, x, best, allowed, sign) for sign in (-1.0, 1.0))
    value, low, high = (float(expit(level)) for level in (best.level, low, high))
    return Interval(value, low, high, len(won))


@dataclass(frozen=True, slots=True)
class _Fit:
    """Of log odds = level + slope * x, by Firth's penalised likelihood."""

    level: float
    slope: float
    likelihood: float  # penalised, its logarithm
    p: np.ndarray
    information: tuple[float, float, float]  # of level, of both, of slope

    @classmethod
    def of(cls, won: np.ndarray, x: np.ndarray, level: float | None = None, slope: float = 0.0) -> "_Fit":
        """level: held there. slope: where the search, by Newton's method, begins."""
        found = cls._at(won, x, level or 0.0, slope)
        for _ in range(STEPS):
            first, both, second = found.information
            room = max(first * second - both**2, TINY)
            reach = found.p * (1 - found.p) * (second - 2 * both * x + first * x**2) / room
            rest = won - found.p + reach * (0.5 - found.p)
            up, across = float(rest.sum()), float(rest @ x)
            step = (0.0, across / max(second, TINY))
            if level is None:
                step = ((second * up - both * across) / room, (first * across - both * up) / room)
            share = LONGEST_STEP / max(LONGEST_STEP, abs(step[0]), abs(step[1]))
            for _ in range(HALVINGS):
                after = cls._at(won, x, found.level + share * step[0], found.slope + share * step[1])
                if after.likelihood >= found.likelihood - 1e-9:
                    break
                share /= 2
            found = after
            if share * max(abs(step[0]), abs(step[1])) < 1e-6:
                break
        return found

    @classmethod
    def _at(cls, won: np.ndarray, x: np.ndarray, level: float, slope: float) -> "_Fit":
        odds = level + slope * x
        p = expit(odds)
        weight = p * (1 - p)
        first, both, second = float(weight.sum()), float(weight @ x), float(weight @ x**2)
        penalty = 0.5 * math.log(max(first * second - both**2, TINY))
        return cls(level, slope, float((won * odds - np.logaddexp(0, odds)).sum()) + penalty, p, (first, both, second))


def _end(won: np.ndarray, x: np.ndarray, best: _Fit, allowed: float, sign: float) -> float:
    """The level at which the best of all slopes is only just likely enough."""
    from scipy.optimize import brentq  # 0.3 s of the first opening of a page that may not need it

    slope = best.slope

    def left(level: float) -> float:
        nonlocal slope
        found = _Fit.of(won, x, level, slope)
        slope = found.slope
        return found.likelihood - allowed

    inner, width = best.level, 0.25
    while abs(inner) < FARTHEST:
        outer = inner + sign * width
        if left(outer) < 0:
            return float(brentq(left, inner, outer, xtol=CLOSE))
        inner, width = outer, 2 * width
    return sign * FARTHEST
