"""Rewards of several responses to one prompt -> rank, margins, probabilities. numpy only.

Bradley and Terry: P(i preferred to j) = sigmoid(reward_i - reward_j). Of more than two at once it is Plackett and Luce's
model that gives P(i is the best) = softmax; both depend on differences only.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ser_backend.metrics import sigmoid


@dataclass(frozen=True, slots=True)
class Comparison:
    rewards: tuple[float, ...]
    rank: tuple[int, ...]  # 1 is the best; equals share the better rank
    margin: tuple[float, ...]  # to the best, 0 or less
    spread: tuple[float, ...] | None  # standard error of each margin; None where it is not known
    preferred: tuple[tuple[float, ...], ...]  # [i][j]: P(i preferred to j)
    best: tuple[float, ...]  # P(i is the best of all), Plackett and Luce

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def compared(rewards: np.ndarray) -> Comparison:
    """rewards: (n,), or (n, arms) as Model.rewards gives them."""
    arms = np.asarray(rewards, float).reshape(len(rewards), -1)
    mine = arms[:, 0]
    top = int(mine.argmax())
    margin = mine - mine[top]
    weight = np.exp(margin)
    return Comparison(
        rewards=_floats(mine),
        rank=tuple(int((mine > value).sum()) + 1 for value in mine),
        margin=_floats(margin),
        spread=_floats(jackknife(arms - arms[top])) if arms.shape[1] > 2 else None,
        preferred=tuple(_floats(sigmoid(value - mine)) for value in mine),
        best=_floats(weight / weight.sum()),
    )


def jackknife(arms: np.ndarray) -> np.ndarray:
    """Standard error (n,) of the first column by the delete-a-group jackknife; the others each leave a group of labels out.

    sqrt((g - 1) / g * sum of squares about their mean), with g groups (Efron and Stein 1981).
    """
    left_out = arms[:, 1:]
    g = left_out.shape[1]
    return np.sqrt((g - 1) / g * ((left_out - left_out.mean(1, keepdims=True)) ** 2).sum(1))


def _floats(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
