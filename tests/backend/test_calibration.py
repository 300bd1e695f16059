"""Confidence, temperature, reliability and bounds: worked examples, and simulations in which a wrong formula shows."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import betainc
from scipy.stats import binom, hypergeom

from ser_backend import calibration
from ser_backend.metrics import sigmoid


def brier_by_hand(probability: np.ndarray, right: np.ndarray) -> float:
    return float(np.mean([(p - r) ** 2 for p, r in zip(probability, right, strict=True)]))


# --- bounds of a proportion


def test_the_one_sided_bounds_of_the_method_are_at_delta_005() -> None:
    # Which delta the design's two examples have was not said; .05 gives both to the digit, .025 and .1 neither.
    assert calibration.lower_bound(54, 60, 0.05) == pytest.approx(0.812, abs=5e-4)
    assert calibration.lower_bound(170, 200, 0.05) == pytest.approx(0.802, abs=5e-4)
    for delta in (0.025, 0.1):
        assert calibration.lower_bound(54, 60, delta) != pytest.approx(0.812, abs=5e-3)


def test_one_sided_bounds_invert_the_binomial() -> None:
    low, high = calibration.lower_bound(54, 60, 0.1), calibration.upper_bound(6, 60, 0.1)
    assert binom.sf(53, 60, low) == pytest.approx(0.1)
    assert binom.cdf(6, 60, high) == pytest.approx(0.1)
    assert low == pytest.approx(1 - high)
    assert (calibration.lower_bound(0, 7, 0.1), calibration.upper_bound(7, 7, 0.1)) == (0, 1)
    assert (calibration.lower_bound(0, 0, 0.1), calibration.upper_bound(0, 0, 0.1)) == (0, 1)


@pytest.mark.parametrize(("n", "truth"), [(60, 0.9), (200, 0.8), (40, 0.97)])
def test_the_lower_bound_is_above_the_truth_no_more_often_than_delta(n: int, truth: float) -> None:
    chance = binom.pmf(np.arange(n + 1), n, truth)  # all possible draws, so no luck is in this
    above = [calibration.lower_bound(right, n, 0.1) > truth for right in range(n + 1)]
    normal = [share - 1.2816 * math.sqrt(share * (1 - share) / n) > truth for share in np.arange(n + 1) / n]
    assert chance @ above <= 0.1
    assert chance @ normal > 0.1  # the textbook's normal interval is too short so near to 1


def test_all_looks_together_spend_delta() -> None:
    shares = [calibration.spent(0.1, t) for t in range(1, 20_000)]
    assert sum(shares) == pytest.approx(0.1, rel=1e-4)
    assert sum(shares) < 0.1
    assert calibration.spent(0.1, 1) == pytest.approx(0.0608, abs=5e-5)


def test_so_few_wrong_is_the_hypergeometric_tail() -> None:
    random = np.random.default_rng(0)
    n, m = random.integers(1, 2_000, 400), random.integers(1, 20_000, 400)
    wrong = (random.random(400) * 0.3 * n).astype(int)
    others = np.minimum((random.random(400) * 0.5 * m).astype(int) + 1, m)
    found, true = calibration.so_few_wrong(wrong, n, others, m), hypergeom(n + m, wrong + others, n).cdf(wrong)
    small = found < 1
    assert found[small] == pytest.approx(true[small], rel=1e-6)
    assert small.any()
    assert (true[~small] > 0.4).all()


def test_so_few_wrong_becomes_clopper_pearsons_test_where_the_pool_has_no_end() -> None:
    m = 50_000_000
    found = calibration.so_few_wrong(np.array([6]), np.array([60]), np.array([m // 5]), np.array([m]))
    assert found == pytest.approx(betainc(54, 7, 0.8), rel=1e-3)


@pytest.mark.parametrize(("n", "m"), [(60, 60), (400, 400), (300, 100)])
def test_the_labels_at_hand_miss_the_target_no_more_often_than_delta(n: int, m: int) -> None:
    """The share right among m labels, not the chance behind them; Clopper-Pearson is no bound for that."""
    draws, target, delta, truth = 40_000, 0.9, 0.1, 0.91
    random = np.random.default_rng(0)
    wrong, others = random.binomial(n, 1 - truth, draws), random.binomial(m, 1 - truth, draws)
    too_many = np.full(n + 1, math.floor((1 - target) * m + 1e-9) + 1)
    p = calibration.so_few_wrong(np.arange(n + 1), np.full(n + 1, n), too_many, np.full(n + 1, m))
    missed = others >= too_many[0]
    assert np.mean((p[wrong] <= delta) & missed) <= delta
    bound = np.array([calibration.lower_bound(n - k, n, delta) for k in range(n + 1)])
    assert np.mean(missed[bound[wrong] >= target]) > 2 * delta


# --- confidence and temperature


def test_confidence_is_the_mean_of_sigmoid_over_a_normal_margin() -> None:
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    margin, variance = (x.ravel() for x in np.meshgrid([-3.0, -0.5, 0.0, 1.0, 4.0], [0.0, 0.5, 4.0, 16.0]))
    drawn = sigmoid(margin[:, None] + np.sqrt(variance)[:, None] * nodes) @ weights / weights.sum()
    assert sigmoid(calibration.confidence(margin, variance)) == pytest.approx(drawn, abs=0.02)
    # forgetting pi / 8, or taking the standard deviation for the variance, is plainly off
    assert np.abs(sigmoid(margin / np.sqrt(1 + variance)) - drawn).max() > 0.05
    assert np.abs(sigmoid(margin / np.sqrt(1 + np.pi * np.sqrt(variance) / 8)) - drawn).max() > 0.05


@pytest.mark.parametrize("true", [0.4, 1.0, 3.0])
def test_temperature_finds_the_scale_of_inflated_margins(true: float) -> None:
    random = np.random.default_rng(2)
    s = random.normal(0, 3, 20_000) * true
    preferred = np.where(random.random(20_000) < sigmoid(s / true), 1, -1)
    assert calibration.temperature(s, preferred) == pytest.approx(true, rel=0.06)
    assert calibration.temperature(-s, -preferred) == pytest.approx(calibration.temperature(s, preferred))


def test_temperature_minimises_the_loss_with_its_prior() -> None:
    random = np.random.default_rng(3)
    s, sign = random.normal(0, 2, 40), np.where(random.random(40) < 0.7, 1, -1)
    grid = np.geomspace(0.05, 20, 4_001)
    z = s * sign

    def loss(t: float) -> float:
        prior = -(sigmoid(abs(z)) * np.log(sigmoid(abs(z) / t)) + sigmoid(-abs(z)) * np.log(sigmoid(-abs(z) / t)))
        return float(np.logaddexp(0, -z / t).sum() + 2 * prior.mean())

    assert calibration.temperature(s, sign) == pytest.approx(grid[np.argmin([loss(t) for t in grid])], rel=2e-3)


def test_temperature_of_few_labels_stays_near_one() -> None:
    s = np.array([1.0, -2.0, 1.5])
    assert calibration.temperature(np.zeros(0), np.zeros(0)) == 1
    assert calibration.temperature(np.zeros(5), np.ones(5)) == 1
    assert 0.2 < calibration.temperature(s, np.sign(s)) < 1  # all right: without a prior it would be 0
    assert 1 < calibration.temperature(s, -np.sign(s)) <= 20
    assert calibration.temperature(np.full(5_000, 1e-3), np.ones(5_000)) == pytest.approx(0.05)
    with_ties = np.array([*s, 9.0, 9.0]), np.array([*np.sign(s), 0.0, np.nan])
    assert calibration.temperature(*with_ties) == calibration.temperature(s, np.sign(s))


# --- reliability


def test_reliability_by_hand() -> None:
    probability = np.array([0.9, 0.6, 0.6, 0.9, 0.7, 0.8, 0.99])
    right = np.array([1, 0, 1, 1, 1, 0, np.nan])
    found = calibration.reliability(probability, right, bins=3)
    assert found.confidence == pytest.approx((0.6, 0.75, 0.9))
    assert [(one.value, one.n) for one in found.right] == [(0.5, 2), (0.5, 2), (1.0, 2)]
    assert found.right[0] == calibration.clopper_pearson(1, 2)
    assert found.ece.value == pytest.approx((0.1 + 0.25 + 0.1) / 3)
    assert found.ece.n == 6
    assert found.brier == pytest.approx(brier_by_hand(probability[:6], right[:6]))
    assert found.log_loss == pytest.approx(-np.log([0.9, 0.4, 0.6, 0.9, 0.7, 0.2]).mean())


def test_reliability_of_nothing_of_one_value_and_of_certainty() -> None:
    nothing = calibration.reliability(np.zeros(0), np.zeros(0))
    assert (nothing.confidence, nothing.right, nothing.ece.n) == ((), (), 0)
    assert math.isnan(nothing.brier)
    same = calibration.reliability(np.full(50, 0.8), np.arange(50) % 5 > 0)
    assert [one.n for one in same.right] == [50]  # pairs of one probability stay together
    assert (same.ece.value, same.ece.low) == (pytest.approx(0, abs=1e-9), 0)
    assert math.isfinite(calibration.reliability(np.ones(4), np.array([1, 1, 1, 0])).log_loss)


def test_bins_hold_as_many_pairs_each() -> None:
    probability = np.random.default_rng(0).uniform(0.5, 1, 203) ** 0.2
    found = calibration.reliability(probability, np.ones(203))
    assert {one.n for one in found.right} <= {20, 21}
    assert list(found.confidence) == sorted(found.confidence)
    assert found == calibration.reliability(probability, np.ones(203)), "the bootstrap is seeded"


@pytest.mark.parametrize("overconfident", [0.0, 0.1, 0.4])
def test_the_interval_of_the_calibration_error_covers_it(overconfident: float) -> None:
    """overconfident: the share of its surplus over one half that the stated confidence has lost."""
    random, covered, plain = np.random.default_rng(4), [], []
    for _ in range(60):
        stated = random.uniform(0.5, 1, 300)
        true = stated - overconfident * (stated - 0.5)
        right = (random.random(300) < true).astype(int)
        error = np.mean(stated - true)
        found = calibration.reliability(stated, right).ece
        covered.append(found.low <= error <= found.high)
        order = np.argsort(stated)
        gap = (stated - right)[order].reshape(10, 30)
        drawn = np.abs(gap[:, random.integers(30, size=(200, 30))].sum(2)).sum(0) / 300
        plain.append(np.quantile(drawn, 0.025) <= error <= np.quantile(drawn, 0.975))
    assert np.mean(covered) >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / 60)
    if overconfident < 0.2:
        assert np.mean(plain) < 0.6  # the ordinary percentile bootstrap adds the bias of the ECE once more


@given(st.lists(st.tuples(st.floats(0.5, 1), st.integers(0, 1)), min_size=1, max_size=60))
def test_reliability_stays_within_its_bounds(cases: list[tuple[float, int]]) -> None:
    found = calibration.reliability(np.array([p for p, _ in cases]), np.array([r for _, r in cases]))
    assert 0 <= found.ece.low <= found.ece.value <= found.ece.high <= 1
    assert sum(one.n for one in found.right) == len(cases)
