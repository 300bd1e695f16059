import math

import numpy as np
import pytest
from scipy.stats import binom

from ser_backend import calibration, metrics
from ser_backend.records import Interval


def test_wilson_worked_example() -> None:
    # Wilson 1927 as tabulated by Newcombe 1998, Statistics in Medicine 17, table I: 81/263 -> .2553 to .3662
    found = metrics.wilson(81, 263)
    assert (found.low, found.high) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert metrics.wilson(0, 20).low == 0
    assert metrics.wilson(20, 20).high == 1
    assert math.isnan(metrics.wilson(0, 0).value)


def test_clopper_pearson_is_the_exact_inversion_of_the_binomial() -> None:
    found = calibration.clopper_pearson(54, 60)
    assert binom.sf(53, 60, found.low) == pytest.approx(0.025)
    assert binom.cdf(54, 60, found.high) == pytest.approx(0.025)
    assert (calibration.clopper_pearson(0, 9).low, calibration.clopper_pearson(9, 9).high) == (0.0, 1.0)
    nothing = calibration.clopper_pearson(0, 0)
    assert (nothing.low, nothing.high, nothing.n) == (0.0, 1.0, 0)


@pytest.mark.parametrize("truth", [0.6, 0.9, 0.97])
def test_clopper_pearson_covers_at_least_its_level_in_simulated_audits(truth: float) -> None:
    draws = np.random.default_rng(1).binomial(60, truth, 4_000)
    intervals = {right: calibration.clopper_pearson(int(right), 60) for right in set(draws.tolist())}
    covered = np.mean([intervals[right].low <= truth <= intervals[right].high for right in draws.tolist()])
    assert covered >= 0.94


def test_accuracy_leaves_ties_out_and_halves_zero_margins() -> None:
    found = metrics.accuracy(np.array([1.0, -1.0, 0.0, 2.0]), np.array([1, 1, -1, 0]))
    assert (found.value, found.n) == (0.5, 3)


def test_mcnemar_worked_example() -> None:
    old = np.array([1] * 10 + [0] * 2 + [1] * 5)
    new = np.array([0] * 10 + [1] * 2 + [1] * 5)
    assert calibration.mcnemar_worse(new, old) == pytest.approx(binom.cdf(2, 12, 0.5))
    assert calibration.mcnemar_worse(old, old) == 1.0


def test_paired_difference_draws_whole_groups() -> None:
    random = np.random.default_rng(0)
    group = np.repeat(np.arange(40), 25)
    shift = np.repeat(random.normal(0.1, 0.2, 40), 25)  # all pairs of a group move together
    value, low, high = metrics.paired_difference(shift, np.zeros(1_000), group)
    assert value == pytest.approx(shift.mean())
    by_group = 2 * 1.96 * shift.reshape(40, 25).mean(1).std() / np.sqrt(40)
    assert high - low == pytest.approx(by_group, rel=0.2)


def test_interval_reads_as_a_sentence_part() -> None:
    assert str(metrics.wilson(0, 0)) == "not known (n = 0)"
    assert str(Interval(0.718, 0.694, 0.741, 1_388)) == "71.8 % (69.4 to 74.1, n = 1,388)"


def test_a_single_group_does_not_make_a_difference_certain() -> None:
    random = np.random.default_rng(0)
    new, old = (random.random(200) < 0.72).astype(float), (random.random(200) < 0.70).astype(float)
    value, low, high = metrics.paired_difference(new, old, np.zeros(200))
    alone = metrics.paired_difference(new, old, np.arange(200))
    assert (value, low, high) == alone
    assert low < 0 < high
    assert metrics.paired_difference(np.ones(3), np.zeros(3), np.arange(3)) == (1, 1, 1)
