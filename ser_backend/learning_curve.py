"""How many labels do I need? Accuracy against the number of human labels, and what the next ones would bring.

Measured within the human labels: heads are trained on subsets of the folds that a label is not in and judged by it, so
every point is an accuracy on labels that were not trained on. Carried on by a power law that starts at chance:

    accuracy(n) = c - (c - 1/2) (1 + n / m) ** -a

c: the accuracy without end of labels. m: how many labels it takes to get going. a: how fast the rest melts away.
Power laws describe learning curves from Cortes et al. 1994 (Learning curves: asymptotic values and rate of convergence)
to Hestness et al. 2017 (Deep learning scaling is predictable, empirically), who also find a beginning near chance that
the law has no place for; the m is for that. Without it (c - b n ** -a, a = 0.1 to 1) the curve is steepest at the first
label: intervals of the gain from 79 to 237 labels of gsm8k held the true one in 4 of 15 cases, now in 14.

Honesty: this is an extrapolation. The intervals hold noise (of the labels that judge) and the doubt about the law's
shape, not that the next labels may be of another kind than those there are; beyond REACH times the largest measured
number nothing is said at all. The law and its grid were chosen on public sets and simulated worlds. On subsets not looked
at before, 5 to 15 % and 15 to 40 % of ukp, summeval and gsm8k, intervals held the mean real gain (0.8 to 2.5 points) in
83 of 84 cases and in six other simulated worlds in 88 to 100 %: cautious on the whole, too low where features are many
and good. The value was off by 0.4 to 1.3 points (root mean square). How lucky a certain draw of labels will be is not
foretold: there was no relation between that and what was expected. numpy and scipy only.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ser_backend import metrics, training
from ser_backend.errors import SerError

LEAST = 50  # labels; below, a point is known to 7 points or worse (one standard error), and anything would fit
MOST_TRAINED = 4_096  # labels in the largest fit; more would only cost time
ROWS = 2_048  # labels trained on per size and fold; the largest fit, tried once, limits what can be known anyway
FRACTIONS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
SMALLEST = 5  # training labels
PATH_POINTS = 40  # of the drawn curve
AHEAD = 3  # times the labels there are, that the drawn curve goes on to
REACH = 5  # times the largest measured number (a fold is always held out: four times the labels there are)
EXPONENTS = (0.1, 0.25, 0.5, 1.0)  # 0.1 is nearly the logarithm; 1 is a fixed number of weights with enough labels
SCALES = np.geomspace(1, 20_000, 24)  # labels
MISFIT = 0.005  # no real curve is the law: half a point a size, beside the sampling error
STOP = 0.005  # accuracy; a gain below half a point is not worth an hour's labelling
LEVEL = 0.95


@dataclass(frozen=True)
class Points:
    """A measured curve of J sizes, ascending."""

    labels: int  # human labels there are
    n: np.ndarray  # int64 (J,): labels trained on
    accuracy: np.ndarray  # (J,): on labels not trained on, 0 to 1
    log_loss: np.ndarray  # (J,): nats
    covariance: np.ndarray  # (J, J): of the accuracies


@dataclass(frozen=True)
class Curve:
    """A measured curve with the laws that fit it: one law per draw, all equally likely."""

    labels: int  # human labels there are
    n: tuple[int, ...]  # labels trained on, ascending
    accuracy: tuple[float, ...]  # measured, 0 to 1
    se: tuple[float, ...]  # standard errors
    log_loss: tuple[float, ...]  # nats
    limit: tuple[float, ...]  # c of each draw
    scale: tuple[float, ...]  # m of each draw, labels
    exponent: tuple[float, ...]  # a of each draw

    def as_dict(self) -> dict[str, Any]:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> "Curve":
        fields: dict[str, Any] = {name: tuple(x) if isinstance(x, list) else x for name, x in found.items()}
        return cls(**fields)

    @property
    def reach(self) -> int:
        """The largest number of labels the law is asked about."""
        return REACH * max(self.n)

    def at(self, n: int) -> tuple[float, float, float]:
        """Accuracy at n labels, 0 to 1, with its interval (95 %). Raises SerError beyond `reach`."""
        self._check(n)
        return _summary(self._laws(n))

    def expected_gain(self, more: int) -> tuple[float, float, float]:
        """Accuracy at `more` labels more, less that at the labels there are, 0 to 1, with its interval (95 %).

        Each draw's law is compared with itself, so that what is not known of the level cancels. Raises SerError beyond
        `reach`.
        """
        self._check(self.labels + more)
        return _summary(self._laws(self.labels + more) - self._laws(self.labels))

    def labels_for(self, accuracy: float) -> tuple[int, int, int | None] | None:
        """Labels in all for an accuracy of 0 to 1: the median, and an interval (95 %) whose end is None beyond `reach`.

        None when most draws need more labels than the reach, or never get there.
        """
        c, m, a = (np.array(part) for part in (self.limit, self.scale, self.exponent))
        # Chance takes no label; a law that ends below the accuracy never gets there.
        ahead = c > max(accuracy, 0.5)
        left = np.where(ahead, (c - 0.5) / np.where(ahead, c - accuracy, 1.0), 1.0)
        needed = np.where(ahead, m * (np.maximum(left, 1.0) ** (1 / a) - 1), 0.0 if accuracy <= 0.5 else math.inf)
        tail = (1 - LEVEL) / 2
        low, middle, high = np.quantile(needed, [tail, 0.5, 1 - tail], method="inverted_cdf").tolist()
        if middle > self.reach:
            return None
        return math.ceil(middle), math.ceil(low), math.ceil(high) if high <= self.reach else None

    def path(self) -> list[list[float]]:
        """The curve to be drawn: rows of labels, accuracy and its interval (95 %), from the first measured size on."""
        end = max(max(self.n), min(self.reach, AHEAD * self.labels))
        sizes = np.unique(np.geomspace(min(self.n), end, PATH_POINTS).astype(int)).tolist()
        return [[n, *(round(value, 5) for value in self.at(n))] for n in sizes]

    def in_words(self, more: int = 100) -> str:
        """What the next `more` labels would bring, and whether to stop. Never raises."""
        try:
            value, low, high = (100 * part for part in self.expected_gain(more))
        except SerError as error:
            return str(error)
        said = f"The next {more:,} human labels are expected to bring {value:+.1f} points ({low:.1f} to {high:.1f})."
        if high < 100 * STOP:
            said += " That is less than half a point at best: more labels of this kind are not worth the time."
        return said

    def _laws(self, n: int) -> np.ndarray:
        """Accuracy at n labels by every draw."""
        c, m, a = (np.array(part) for part in (self.limit, self.scale, self.exponent))
        return c - (c - 0.5) * (1 + n / m) ** -a

    def _check(self, n: int) -> None:
        if n > self.reach:
            raise SerError(
                f"What {n:,} labels would bring cannot be said from a curve measured up to {max(self.n):,}: it reaches to "
                f"{self.reach:,}. Label some more first, or ask for less."
            )


def measure(
    differences: np.ndarray,
    groups: np.ndarray,
    folds: np.ndarray,
    l2: float,
    fractions: Sequence[float] = FRACTIONS,
    repeats: int = 1,
    random_seed: int = 0,
) -> Points:
    """Accuracy of heads trained on subsets of the labels outside each fold, judged by the fold's labels.

    differences: float (n, k), z_preferred - z_other of human labels. groups: (n,), labels of a group are not independent.
    folds: (n,), as training.fold_of. fractions: of the labels outside the largest fold. repeats: how often the labels are
    divided anew. Raises SerError for fewer than LEAST labels or a single fold.

    A size is trained on subsets that share no label, so that a half is tried twice, a quarter four times, and the small
    sizes, which vary most, are known best. All sizes are judged by the same labels: a hard set of labels lowers the whole
    curve, not its slope.

    l2 stays what it is for the whole set. Chosen anew for every subset (which costs 35 times as much), the points of
    three public sets at 5 and 15 % of their labels moved by -1.3 to +1.1 points, mostly down, as the choice itself is
    noisy, and the gain expected from 2.5 times the labels by -0.1 to +0.1 points (once, at 79 labels, by +0.4).

    The covariance is that of sums over groups of the labels' hits: what another draw of labels to judge by would change.
    Another draw of labels to train on would change something as well: simulated standard errors of a point were 1.0 to 1.6
    times as large, those of the difference between two points 0.8 to 1.4 times.
    """
    n_labels, names = len(differences), np.unique(folds)
    if n_labels < LEAST or len(names) < 2:
        raise SerError(
            f"{n_labels:,} human labels in {len(names)} fold{'s' * (len(names) != 1)} are too few to say what more would "
            f"bring: it takes at least {LEAST} labels from several prompts. Label some more first."
        )
    x = differences.astype(np.float64)
    largest = min(MOST_TRAINED, *(int((folds != name).sum()) for name in names.tolist()))
    sizes = sorted({size for part in fractions if (size := round(part * largest)) >= SMALLEST})
    if not sizes:
        raise SerError(
            f"{largest:,} labels outside the largest group are too few to train on. Label pairs from other prompts."
        )

    def judged(place: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Labels of one fold, their hits and losses, (fold, J) each."""
        own, others = np.flatnonzero(folds == names[place]), np.flatnonzero(folds != names[place])
        random = np.random.default_rng([random_seed, place])
        orders = [random.permutation(others) for _ in range(repeats)]
        hits, losses = np.zeros((2, len(own), len(sizes)))
        for j, size in enumerate(sizes):
            each = max(1, min(largest, ROWS) // size)
            subsets = [order[i * size : (i + 1) * size] for order in orders for i in range(each)]
            if size == len(others):
                subsets = subsets[:1]
            for subset in subsets:
                margin = x[own] @ training.fit_head(x[subset], l2, np.zeros(x.shape[1]))
                hits[:, j] += metrics.correct(margin, np.ones(len(own))) / len(subsets)
                losses[:, j] += metrics.log_loss(margin, np.ones(len(own))) / len(subsets)
        return own, hits, losses

    hits, losses = np.zeros((2, n_labels, len(sizes)))
    for own, its_hits, its_losses in training.side_by_side(judged, range(len(names))):
        hits[own], losses[own] = its_hits, its_losses
    _, group = np.unique(groups, return_inverse=True)
    sums = np.zeros((group.max() + 1, len(sizes)))
    np.add.at(sums, group, hits - hits.mean(0))
    covariance = sums.T @ sums / n_labels**2 * len(sums) / max(1, len(sums) - 1)
    return Points(n_labels, np.array(sizes), hits.mean(0), losses.mean(0), covariance)


def fit(points: Points, draws: int = 500, random_seed: int = 0) -> Curve:
    """The laws that fit the points: m and a on a grid, c by weighted least squares between chance and 1 (never falling).

    A draw takes a shape (m, a) by its profile likelihood on the measured points, then c from points drawn about the
    measured ones with their covariance (parametric bootstrap). Shapes and heights are weighed by the standard errors
    alone: with the whole covariance, what all points have in common counted as noise, curves ran beneath their points, and
    expected gains were further off (0.67 points against 0.57, root mean square) with no better intervals.
    """
    m, a = (part.ravel() for part in np.meshgrid(SCALES, EXPONENTS))
    risen = 1 - (1 + points.n / m[:, None]) ** -a[:, None]  # (shapes, J): share of the way from chance to c
    covariance = points.covariance + MISFIT**2 * np.eye(len(points.n))
    weights = 1 / np.diag(covariance)
    height = (risen * risen) @ weights

    def above_chance(accuracy: np.ndarray) -> np.ndarray:
        """c - 1/2 of every shape, (..., shapes), for accuracies (..., J)."""
        return np.clip(((accuracy - 0.5) * weights) @ risen.T / height, 0.0, 0.5)

    rest = points.accuracy - 0.5 - above_chance(points.accuracy)[:, None] * risen
    misfit = (rest * rest) @ weights
    likelihood = np.exp(-0.5 * (misfit - misfit.min()))
    random = np.random.default_rng(random_seed)
    shape = random.choice(len(m), draws, p=likelihood / likelihood.sum())
    drawn = random.multivariate_normal(points.accuracy, covariance, draws, method="cholesky")
    limit = 0.5 + above_chance(drawn)[np.arange(draws), shape]
    return Curve(
        points.labels,
        tuple(points.n.tolist()),
        *(_rounded(part) for part in (points.accuracy, np.sqrt(np.diag(points.covariance)), points.log_loss)),
        *(_rounded(part) for part in (limit, m[shape], a[shape])),
    )


def _rounded(values: np.ndarray) -> tuple[float, ...]:
    """Six digits are plenty, and a third of the JSON."""
    return tuple(float(f"{value:.6g}") for value in values.tolist())


def _summary(values: np.ndarray) -> tuple[float, float, float]:
    """Mean and interval. The mean: on public sets it came nearer to the true gain than the median."""
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(values, [tail, 1 - tail]).tolist()
    return float(values.mean()), low, high
