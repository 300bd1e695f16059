"""Pairwise training of a linear reward head on frozen features, solved to its optimum. numpy and scipy only.

The model: reward = w . z with z the response's principal components; P(x preferred to y) = sigmoid(w . (z_x - z_y))
(Bradley and Terry 1952). The fit minimises the summed log-loss plus l2 / 2 |w - centre|^2: with centre 0 a ridge fit,
with the last round's weights as centre a continuation of that round ("warm"). There is no optimiser step count: the
problem is convex and Newton's method ends at its optimum.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from scipy.linalg import cho_factor, cho_solve, svd
from threadpoolctl import threadpool_limits

T = TypeVar("T")
R = TypeVar("R")

L2_GRID = (10.0, 30.0, 100.0, 300.0, 1_000.0, 3_000.0, 10_000.0)  # components have unit mean variance
N_FOLDS = 5
BASIS_SAMPLE = 4_096  # responses the principal components are fitted to
CHUNK = 2_048  # responses projected at a time: 2,048 x 5,376 x 4 bytes = 44 MB


@dataclass(frozen=True, slots=True)
class Basis:
    """Standardised principal components: z = (features - mean) @ directions. Made without any label."""

    mean: np.ndarray  # float32 (width,)
    directions: np.ndarray  # float32 (width, k)

    def project(self, features: np.ndarray) -> np.ndarray:
        """(n, width) -> float32 (n, k)."""
        return (features.astype(np.float32, copy=False) - self.mean) @ self.directions


def fit_basis(features: np.ndarray, k: int, random_seed: int) -> Basis:
    """Principal components of standardised features, shape (n, width), scaled to unit mean variance.

    k is lowered to what n and the width allow.
    """
    from sklearn.utils.extmath import randomized_svd

    features = features.astype(np.float32, copy=False)
    mean, spread = features.mean(0), features.std(0) + 1e-6
    k = min(k, *features.shape)
    standardised = (features - mean) / spread
    _, strengths, directions = randomized_svd(standardised, k, n_iter=4, random_state=random_seed)
    scale = np.sqrt((strengths**2).sum() / (len(features) * k))
    return Basis(mean, np.ascontiguousarray((directions.T / spread[:, None] / scale).astype(np.float32)))


def fit_head(
    differences: np.ndarray,
    l2: float,
    centre: np.ndarray,
    start: np.ndarray | None = None,
    weight: np.ndarray | None = None,
) -> np.ndarray:
    """Weights (k,) for differences z_preferred - z_other of shape (n, k); n = 0 returns the centre.

    weight: (n,), what each pair counts; None = 1.

    Newton's method with step halving. The objective is strictly convex: the result does not depend on `start`, only the
    number of steps does.
    """
    if not len(differences):
        return centre.astype(np.float64)
    x = differences.astype(np.float64)
    counts = np.ones(len(x)) if weight is None else weight.astype(np.float64)
    offset = x @ centre
    if len(x) < x.shape[1]:
        # The optimum lies in centre + the rows' span: solve there, in n unknowns instead of k.
        _, strengths, rotation = svd(x, full_matrices=False)
        rotation = rotation[strengths > 1e-10 * strengths[0]]
        if not len(rotation):  # every pair's two texts have the same features: there is nothing to learn
            return centre.astype(np.float64)
        w = rotation @ (start - centre) if start is not None else np.zeros(len(rotation))
        return centre + _newton(x @ rotation.T, offset, counts, l2, w) @ rotation
    return centre + _newton(x, offset, counts, l2, start - centre if start is not None else np.zeros(x.shape[1]))


def _newton(x: np.ndarray, offset: np.ndarray, counts: np.ndarray, l2: float, w: np.ndarray) -> np.ndarray:
    """argmin over w of sum counts log(1 + exp(-(offset + x w))) + l2 / 2 |w|^2."""

    def objective(at: np.ndarray) -> float:
        return float(counts @ np.logaddexp(0, -(offset + x @ at)) + 0.5 * l2 * (at @ at))

    value = objective(w)
    for _ in range(50):
        wrong = np.exp(-np.logaddexp(0, offset + x @ w))  # sigmoid(-margin)
        hessian = x.T @ (x * (counts * wrong * (1 - wrong))[:, None])
        hessian.flat[:: len(w) + 1] += l2
        step = cho_solve(cho_factor(hessian), l2 * w - x.T @ (counts * wrong))
        length = 1.0
        while (new := objective(w - length * step)) > value and length > 1e-6:
            length /= 2
        w, value = w - length * step, new
        if np.abs(step).max() <= 1e-7 * (1 + np.abs(w).max()):
            break
    return w


def fold_of(group_keys: np.ndarray, n_folds: int = N_FOLDS) -> np.ndarray:
    """Fold number (n,) of each pair; whole groups together, the same for a group whatever else is there."""
    return (group_keys % np.uint64(n_folds)).astype(np.int64)


@dataclass(frozen=True, slots=True)
class L2Choice:
    l2: float
    log_loss: dict[float, float]  # mean log-loss by cross-validation, per candidate


def choose_l2(differences: np.ndarray, folds: np.ndarray) -> L2Choice:
    """The l2 of L2_GRID with the least cross-validated log-loss. differences: (n, k) of human labels; folds: (n,).

    With a single fold nothing can be validated, and the middle of the grid is taken.
    """

    def losses(fold: int) -> list[np.ndarray]:
        test = folds == fold
        found, w = [], None
        for l2 in reversed(L2_GRID):  # each solution is near the next one's
            w = fit_head(differences[~test], l2, np.zeros(differences.shape[1]), w)
            found.append(np.logaddexp(0, -differences[test] @ w))
        return found

    names = np.unique(folds).tolist()
    if len(names) < 2:
        return L2Choice(L2_GRID[len(L2_GRID) // 2], {})
    by_fold = side_by_side(losses, names)
    means = {
        l2: float(np.concatenate(parts).mean())
        for l2, parts in zip(reversed(L2_GRID), zip(*by_fold, strict=True), strict=True)
    }
    return L2Choice(min(means, key=means.__getitem__), means)


def side_by_side(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """Results in order; independent fits on one core each. Several cores on one small fit are slower, far slower where
    the machine is shared: 8 s against 0.3 s for one choice of l2 on two busy cores."""
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        return list(pool.map(work, items))
