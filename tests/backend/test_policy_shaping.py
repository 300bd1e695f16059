import itertools
import math

import numpy as np
import pytest

from ser_backend.errors import SerError
from ser_backend.policy import figures, gain, shaping
from ser_backend.policy.settings import PolicySettings
from ser_backend.policy.shaping import Start

START = Start(("A", "B"), (10.0, 0.0), (2.0, 1.0), length=20.0, slope=0.1, n=8)
LENGTHS, ENDED = np.array([20, 30, 10]), np.array([True, True, False])
RAW = np.array([[12.0, 0.0], [10.0, 2.0], [6.0, 9.0]])  # in standard deviations: (1, 0), (0, 2), (-2, 9)


def shape(**settings):
    plain = {"clip": 0.0, "no_end_penalty": 0.0}
    return shaping.shaped(RAW, LENGTHS, ENDED, START, PolicySettings(**{**plain, **settings})).tolist()


def test_rewards_are_told_in_the_start_models_standard_deviations():
    assert shape() == [0.5, 1.0, 3.5]
    assert shape(combine="worst") == [0.0, 0.0, -2.0]
    assert shape(normalise="off") == [6.0, 6.0, 7.5]


def test_clip_penalties_and_length_come_in_this_order():
    assert shape(clip=0.75) == [0.5, 0.75, 0.75]
    assert shape(clip=0.75, no_end_penalty=2.0) == [0.5, 0.75, -1.25]  # the clip does not swallow the penalty
    assert shape(length="penalty", length_weight=0.05) == [0.5, 0.5, 3.5]  # ten tokens too many; too few cost nothing
    assert shape(length="regress") == [0.5, 0.0, 4.5]  # ten tokens explain a reward of 1
    assert shape(length="regress", clip=1.0) == [0.5, 0.0, 1.0]


def test_a_constant_added_to_a_reward_model_changes_nothing_that_is_trained_on():
    moved = Start(START.names, (110.0, 0.0), START.sd, START.length, START.slope, START.n)
    settings = PolicySettings(combine="worst", clip=5.0)
    one = shaping.shaped(RAW, LENGTHS, ENDED, START, settings)
    other = shaping.shaped(RAW + [100.0, 0.0], LENGTHS, ENDED, moved, settings)
    assert np.allclose(one, other)


def test_the_start_is_measured_and_what_length_explains_within_prompts():
    random = np.random.default_rng(0)
    prompts = np.repeat(np.arange(50), 4)
    lengths = random.integers(5, 50, 200)
    raw = 0.3 * lengths + 100 * prompts  # prompts differ by far more than length explains
    assert shaping.within_slope(raw, lengths, prompts) == pytest.approx(0.3)
    start = shaping.measure_start(("A",), raw[:, None], lengths, prompts, PolicySettings())
    assert start.slope == pytest.approx(0.3 / raw.std(ddof=1))
    assert (start.mean[0], start.sd[0], start.length) == pytest.approx((raw.mean(), raw.std(ddof=1), lengths.mean()))
    assert Start.of_json(start.as_json()) == start
    assert shaping.within_slope(np.arange(3.0), np.array([4, 4, 4]), np.zeros(3)) == 0.0


def test_a_reward_model_that_says_the_same_of_all_is_refused():
    raw = np.array([[1.0, 3.0], [2.0, 3.0]])
    with pytest.raises(SerError, match="B gives all 2 responses of the start model the same reward"):
        shaping.measure_start(("A", "B"), raw, np.array([3, 4]), np.array([0, 1]), PolicySettings())


def test_the_mean_is_over_prompts_and_its_error_too():
    found = figures.mean(np.array([1.0, 3.0, 5.0, 5.0]), np.array([7, 7, 8, 8]))
    assert found == {"mean": 3.5, "se": pytest.approx(1.5), "n": 4, "prompts": 2}  # of 2 and 5
    assert figures.mean(np.array([1.0]), np.array([0]))["se"] is None


def test_a_difference_is_paired_by_prompt_and_its_interval_covers_as_it_says():
    random = np.random.default_rng(1)
    hits, trials = 0, 400
    for _ in range(trials):
        base = random.normal(0, 10, 20)  # prompts differ by far more than the effect
        before, after = base + random.normal(size=20), base + 0.5 + random.normal(size=20)
        found = figures.difference(after, before, np.arange(20), np.arange(20))
        hits += found["low"] <= 0.5 <= found["high"]
        assert found["high"] - found["low"] < 3
    assert 0.91 <= hits / trials <= 0.985


def test_distinct_counts_repeated_pairs_of_words():
    assert figures.distinct(["a b c d"]) == 1.0
    assert figures.distinct(["no no no no no"]) == 0.25
    assert figures.distinct(["a b a b", "x"]) == pytest.approx((2 / 3 + 1) / 2)


def steps(n, **series):
    """reward, judge, worst, length, distinct, kl: functions of the step's share."""
    found = []
    random = np.random.default_rng(0)
    for i in range(n):
        at = {"reward": 0.0, "judge": 0.0, "B": 0.0, "length": 20.0, "distinct": 0.9, "kl": 1.0}
        at |= {name: function(i / (n - 1)) for name, function in series.items()}
        noise = random.normal(0, 0.01, 3)
        members = {"A": {"mean": at["reward"] + noise[0]}, "B": {"mean": at["B"] + noise[1]}}
        found.append(
            {"shaped": {"mean": at["reward"] + noise[0]}, "judge": {"mean": at["judge"] + noise[2]}, "members": members}
            | {"length": at["length"], "distinct": at["distinct"], "kl": {"mean": at["kl"]}}
        )
    return found


@pytest.mark.parametrize(
    ("series", "kind"),
    [
        ({}, None),
        ({"reward": lambda x: x, "judge": lambda x: x}, None),
        ({"reward": lambda x: x, "judge": lambda x: -x}, "overoptimised:the judge"),
        ({"reward": lambda x: x, "B": lambda x: -x}, "overoptimised:the reward model B"),
        ({"judge": lambda x: -x}, None),
        ({"distinct": lambda x: 0.9 - 0.6 * x}, "repetition"),
        ({"length": lambda x: 20 + 30 * x}, "length"),
        ({"kl": lambda x: 12 * x}, "kl"),
    ],
)
def test_alarms_ring_for_what_they_are_for_and_not_otherwise(series, kind):
    found = figures.alarms(steps(30, **series), 20.0, 0.9, max_kl=8.0)
    assert list(found) == ([kind] if kind else [])


def test_a_judge_that_stays_where_it_is_rings_in_few_trainings_and_one_that_falls_in_all():
    """Looked at after every step: 40 % of such trainings rang when each look alone was to be sure."""
    random = np.random.default_rng(1)

    def rings(slope, n=150):
        noise = random.normal(0, 0.2, (n, 2))
        told = []
        for step in range(n):
            at = step / n
            reward, judge = {"mean": 2 * at + noise[step, 0]}, {"mean": slope * at + noise[step, 1]}
            told.append({"shaped": reward, "judge": judge, "members": {"A": reward}, "distinct": 0.9, "length": 20.0})
            if figures.alarms(told, 20.0, 0.9, 0.0):
                return True
        return False

    assert np.mean([rings(0.0) for _ in range(60)]) <= 0.12
    assert all(rings(-1.0) for _ in range(20))


def test_a_few_steps_say_nothing():
    assert figures.alarms(steps(4, length=lambda x: 90.0), 20.0, 0.9, 0.0) == {}


def test_the_best_by_one_reward_is_worth_the_mean_of_the_others_picks():
    random = np.random.default_rng(2)
    rewards, values = random.normal(size=6), random.normal(size=6)
    for n in range(1, 7):
        picks = [values[max(subset, key=lambda i: rewards[i])] for subset in itertools.combinations(range(6), n)]
        assert gain.picked(rewards, values)[n - 1] == pytest.approx(np.mean(picks))
    assert gain.picked(np.zeros(4), values[:4]) == pytest.approx([values[:4].mean()] * 4)  # ties: any of them


def test_an_independent_judge_gains_nothing_and_a_copy_gains_all():
    random = np.random.default_rng(3)
    rewards = [random.normal(size=64) for _ in range(200)]
    found = gain.curve(rewards, rewards)
    assert [point.n for point in found] == [1, 2, 4, 8, 16, 32, 64]
    assert found[1].reward == pytest.approx(1 / math.sqrt(math.pi), abs=0.05)
    assert all(point.judge == pytest.approx(point.reward) for point in found)
    blind = gain.curve(rewards, [random.normal(size=64) for _ in rewards])[3]
    assert blind.judge_low < 0 < blind.judge_high
