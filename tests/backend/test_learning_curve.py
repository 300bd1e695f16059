import json
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest

from ser_backend import learning_curve, training
from ser_backend.errors import SerError
from ser_backend.learning_curve import Curve, Points, fit, measure
from ser_backend.metrics import sigmoid

SIZES = np.array([25, 50, 100, 200, 400])
LABELS = 500
COMMON, OWN = 0.02, 0.008  # standard errors: of what all points share (the labels that judge), of each point alone


def law(n: np.ndarray | int, c: float, m: float, a: float) -> np.ndarray:
    return np.asarray(c - (c - 0.5) * (1 + n / m) ** -a)


def points(accuracy: np.ndarray, random: np.random.Generator | None = None) -> Points:
    covariance = COMMON**2 + OWN**2 * np.eye(len(SIZES))
    noise = random.multivariate_normal(0 * accuracy, covariance) if random else 0.0
    return Points(LABELS, SIZES, accuracy + noise, np.full(len(SIZES), 0.6), covariance)


def world(n: int, random: np.random.Generator, truth: np.ndarray, per_group: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Differences (n, k) of Bradley-Terry labels of a linear reward, and their groups (n,), alike within."""
    groups = np.arange(n) // per_group
    x = (random.normal(size=(n, len(truth))) + random.normal(size=(n, len(truth)))[groups]) / np.sqrt(2)
    return x * np.where(random.random(n) < sigmoid(x @ truth), 1, -1)[:, None], groups


def test_the_gain_s_interval_covers_the_true_gain_of_laws() -> None:
    """Nominal 95 %. It is cautious: what the points have in common is counted as noise of each as well."""
    random = np.random.default_rng(0)
    covered = []
    for draw in range(300):
        truth = random.uniform(0.6, 0.9), np.exp(random.uniform(np.log(10), np.log(500))), random.uniform(0.15, 1)
        found = fit(points(law(SIZES, *truth), random), random_seed=draw)
        for more in (100, 500):
            _, low, high = found.expected_gain(more)
            covered.append(low <= law(LABELS + more, *truth) - law(LABELS, *truth) <= high)
    assert np.mean(covered[::2]) >= 0.94
    assert np.mean(covered[1::2]) >= 0.94


def test_the_gain_s_interval_covers_the_true_gain_in_a_simulated_world() -> None:
    """8 features, 160 labels in groups of four; the true gain is that of other draws, judged without noise."""
    random, n, more, l2 = np.random.default_rng(3), 160, 160, 10.0
    truth = random.normal(size=8) * 0.7
    judges = random.normal(size=(4_000, 8))
    right = sigmoid(judges @ truth)

    def accuracy(differences: np.ndarray) -> float:
        says = judges @ training.fit_head(differences, l2, np.zeros(8)) > 0
        return float(np.where(says, right, 1 - right).mean())

    gains = []
    for _ in range(100):
        differences, _ = world(n + more, random, truth)
        gains.append(accuracy(differences) - accuracy(differences[:n]))
    gain, found = np.mean(gains), []
    for draw in range(30):
        differences, groups = world(n, random, truth)
        measured = measure(differences, groups, groups % 5, l2, random_seed=draw)
        found.append(fit(measured, random_seed=draw).expected_gain(more))
    value, low, high = np.array(found).T
    assert ((low <= gain) & (gain <= high)).mean() >= 0.9
    assert abs(value.mean() - gain) < 0.01
    assert (high - low).mean() < 0.05  # and is of some use


def test_points_are_accuracies_of_heads_of_that_many_labels() -> None:
    """Against heads trained on other labels and judged by many."""
    random = np.random.default_rng(5)
    truth = random.normal(size=6)
    many, _ = world(20_000, random, truth, 1)
    differences, groups = world(1_000, random, truth, 1)
    found = measure(differences, groups, groups % 5, 10.0)
    assert found.n.tolist() == [50, 100, 200, 400, 800]
    for n, accuracy, loss, variance in zip(
        found.n.tolist(), found.accuracy, found.log_loss, np.diag(found.covariance), strict=True
    ):
        margins = [many @ training.fit_head(world(n, random, truth, 1)[0], 10.0, np.zeros(6)) for _ in range(10)]
        assert abs(np.mean([(margin > 0).mean() for margin in margins]) - accuracy) < 3.5 * variance**0.5
        assert np.mean([np.logaddexp(0, -margin).mean() for margin in margins]) == pytest.approx(loss, abs=0.03)


def test_the_level_is_as_doubtful_as_the_points() -> None:
    _, low, high = fit(points(law(SIZES, 0.8, 100, 0.5)), draws=2_000).at(400)
    assert 4 * COMMON < high - low < 7 * COMMON  # 3.9 were the law known


def test_the_largest_point_is_cross_fitted_accuracy(monkeypatch: pytest.MonkeyPatch) -> None:
    differences, groups = world(200, np.random.default_rng(6), np.ones(4))
    folds = groups % 5
    spy = Mock(wraps=training.fit_head)
    monkeypatch.setattr(training, "fit_head", spy)
    found = measure(differences, groups, folds, 10.0, fractions=(1.0,), repeats=3)
    assert spy.call_count == 5  # nothing would differ between repeats
    margin = np.empty(200)
    for fold in range(5):
        margin[folds == fold] = differences[folds == fold] @ training.fit_head(
            differences[folds != fold], 10.0, np.zeros(4)
        )
    assert found.n.tolist() == [160]
    assert found.accuracy[0] == pytest.approx((margin > 0).mean())


def test_labels_of_a_group_count_as_less_than_as_many_single_ones() -> None:
    differences, _ = world(300, np.random.default_rng(7), np.ones(4), 1)
    again = np.repeat(differences, 4, 0)  # each label four times over
    groups = np.repeat(np.arange(300), 4)
    together = measure(again, groups, groups % 5, 10.0, fractions=(1.0,))
    apart = measure(again, np.arange(1_200), groups % 5, 10.0, fractions=(1.0,))
    assert together.covariance[0, 0] == pytest.approx(4 * apart.covariance[0, 0], rel=0.02)


def test_the_same_seed_gives_the_same_curve() -> None:
    differences, groups = world(120, np.random.default_rng(8), np.ones(4))
    once, again = (fit(measure(differences, groups, groups % 5, 10.0, random_seed=4)) for _ in range(2))
    assert once == again


def test_a_flat_curve_promises_nothing_and_says_stop() -> None:
    flat = fit(replace(points(np.full(5, 0.72)), covariance=0.005**2 * np.eye(5)))
    value, low, high = flat.expected_gain(100)
    assert low <= value < 0.001
    assert high < learning_curve.STOP
    assert "not worth the time" in flat.in_words()
    noise = np.random.default_rng(9).normal(size=(300, 5))  # labels that have nothing to do with the features
    found = fit(measure(noise, np.arange(300), np.arange(300) % 5, 100.0))
    assert found.expected_gain(100)[0] < 0.005


def test_a_rising_curve_is_worth_more_labels() -> None:
    rising = fit(points(law(SIZES, 0.85, 300, 0.5)))
    value, low, high = rising.expected_gain(100)
    assert 0 < low < value < high
    assert rising.in_words() == (
        f"The next 100 human labels are expected to bring {100 * value:+.1f} points ({100 * low:.1f} to {100 * high:.1f})."
    )
    assert rising.expected_gain(400)[0] > value


def test_labels_for_an_accuracy() -> None:
    truth = (0.9, 50, 0.5)
    exact = fit(replace(points(law(SIZES, *truth)), covariance=1e-8 * np.eye(5)), draws=2_000)
    wanted = float(law(1_000, *truth))
    found = exact.labels_for(wanted)
    assert found is not None
    middle, low, high = found
    assert high is None or low <= middle <= high
    assert 600 < middle < 1_800
    assert exact.at(middle)[0] == pytest.approx(wanted, abs=0.01)
    assert exact.labels_for(0.5) == (0, 0, 0)
    assert exact.labels_for(0.99) is None
    flat = fit(points(np.full(5, 0.6)))
    assert flat.labels_for(0.9) is None


def test_no_word_beyond_the_reach() -> None:
    found = fit(points(law(SIZES, 0.8, 100, 0.5)))
    assert found.reach == 2_000
    found.expected_gain(1_500)
    with pytest.raises(SerError, match="cannot be said"):
        found.expected_gain(1_501)
    with pytest.raises(SerError, match="cannot be said"):
        found.at(2_001)
    assert "cannot be said" in found.in_words(2_000)


def test_too_few_labels_are_said_to_be_too_few() -> None:
    differences, groups = world(learning_curve.LEAST, np.random.default_rng(10), np.ones(4), 1)
    assert "next 100" in fit(measure(differences, groups, groups % 5, 10.0)).in_words()
    with pytest.raises(SerError, match="at least 50 labels"):
        measure(differences[1:], groups[1:], groups[1:] % 5, 10.0)
    with pytest.raises(SerError, match="1 fold are too few"):
        measure(differences, groups, np.zeros(50), 10.0)
    lopsided = np.where(np.arange(50) < 47, 0, 1)
    with pytest.raises(SerError, match="other prompts"):
        measure(differences, groups, lopsided, 10.0)


def test_a_model_without_an_opinion_stays_at_chance() -> None:
    found = fit(measure(np.zeros((60, 3)), np.arange(60), np.arange(60) % 5, 10.0))
    assert found.accuracy == (0.5,) * len(found.n)


def test_a_large_set_is_trained_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning_curve, "MOST_TRAINED", 100)
    monkeypatch.setattr(learning_curve, "ROWS", 60)
    rows = []

    def counted(x: np.ndarray, *rest: object) -> np.ndarray:
        rows.append(len(x))
        return np.zeros(x.shape[1])

    monkeypatch.setattr(training, "fit_head", counted)
    differences, groups = world(300, np.random.default_rng(11), np.ones(3))
    measured = measure(differences, groups, groups % 5, 10.0, fractions=(0.25, 0.5, 1.0))
    assert measured.n.tolist() == [25, 50, 100]
    assert measured.labels == 300
    assert sorted(set(rows)) == [25, 50, 100]
    assert [rows.count(n) / 5 for n in (25, 50, 100)] == [2, 1, 1]


def test_a_curve_survives_json() -> None:
    found = fit(points(law(SIZES, 0.8, 100, 0.5)))
    assert Curve.of(json.loads(json.dumps(found.as_dict()))) == found
    assert len(json.dumps(found.as_dict())) < 16_000


def test_the_drawn_path_begins_at_the_first_size_and_ends_within_reach() -> None:
    found = fit(points(law(SIZES, 0.8, 50, 0.5)))
    path = found.path()
    assert path[0][0] == SIZES[0]
    assert max(found.n) < path[-1][0] <= found.reach
    assert all(low <= value <= high for _, value, low, high in path)
    assert path[5] == [path[5][0], *(pytest.approx(value, abs=1e-5) for value in found.at(int(path[5][0])))]
