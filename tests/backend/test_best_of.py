import itertools
import json
import math

import numpy as np
import pytest

from ser_backend.best_of import best_of, curve, expected_best, kl, read_samples
from ser_backend.errors import SerError
from ser_backend.records import Problem
from ser_backend.reward_model import Rewarder


@pytest.fixture
def by_length():
    """A reward that is the number of letters a."""

    def read(responses):
        yield np.arange(len(responses)), np.array([float(r.text.count("a")) for r in responses])

    return Rewarder("a", "count-of-a", read, ("A note.",))


def test_the_expected_best_is_the_mean_of_the_maximum_over_all_subsets():
    rewards = np.random.default_rng(0).normal(size=7)
    for n in range(1, 8):
        every = [max(subset) for subset in itertools.combinations(rewards, n)]
        assert expected_best(rewards)[n - 1] == pytest.approx(np.mean(every))


def test_the_expected_best_of_many_does_not_overflow():
    found = expected_best(np.arange(3_000.0))
    assert found[0] == pytest.approx(1499.5)
    assert found[-1] == pytest.approx(2999)
    assert np.all(np.diff(found) >= 0)


def test_the_expected_best_is_unbiased():
    """Of standard normal rewards the best of 3 is 3 / (2 sqrt pi) on average."""
    random = np.random.default_rng(1)
    means = [expected_best(random.normal(size=6))[2] for _ in range(20_000)]
    assert np.mean(means) == pytest.approx(3 / (2 * math.sqrt(math.pi)), abs=4 * np.std(means) / math.sqrt(len(means)))


def test_kl_is_that_of_the_best_of_n_of_distinct_outcomes():
    """The maximum of n uniform numbers has density n x^(n - 1): KL = the integral of it times its logarithm."""
    assert kl(1) == 0
    x = (np.arange(200_000) + 0.5) / 200_000
    for n in (2, 5, 16):
        density = n * x ** (n - 1)
        assert kl(n) == pytest.approx(np.mean(density * np.log(density)), abs=1e-4)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    random = np.random.default_rng(2)
    truth, hits, trials = 1 / math.sqrt(math.pi), 0, 300  # the best of two standard normals
    for trial in range(trials):
        point = curve(random.normal(size=(60, 2)), draws=300, random_seed=trial)[1]
        hits += point.low <= truth <= point.high
    assert 0.90 <= hits / trials <= 0.98


def test_the_curve_begins_at_nothing_and_ends_where_prompts_are_too_few():
    found = curve([np.array([0.0, 1.0, 2.0]), np.array([5.0, 7.0]), np.array([1.0])])
    assert [(point.n, point.prompts) for point in found] == [(1, 3), (2, 2)]
    assert (found[0].gain, found[0].kl) == (0.0, 0.0)
    assert found[1].gain == pytest.approx(np.mean([5 / 3 - 1, 7 - 6]))


def test_a_constant_added_to_every_reward_changes_no_gain():
    rewards = [np.random.default_rng(i).normal(size=5) for i in range(9)]
    moved = [found + 100 for found in rewards]
    assert np.allclose([p.gain for p in curve(rewards)], [p.gain for p in curve(moved)])


def test_a_list_of_responses_and_several_rows_a_prompt_say_the_same(tmp_path, by_length):
    lists, rows = tmp_path / "lists.jsonl", tmp_path / "rows.jsonl"
    lists.write_text('{"prompt": "p", "responses": ["a", "aaa", "aa"]}\n{"prompt": "q", "responses": ["b", "ab"]}\n')
    told = [("p", "a"), ("q", "b"), ("p", "aaa"), ("q", "ab"), ("p", "aa")]
    rows.write_text("".join(json.dumps({"prompt": p, "response": r}) + "\n" for p, r in told))
    for source in (lists, rows):
        found = best_of(by_length, str(source), tmp_path / "out.jsonl")
        lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
        assert [(line["prompt"], line["response"], line["reward"], line["n"]) for line in lines] == [
            ("p", "aaa", 3.0, 3),
            ("q", "ab", 1.0, 2),
        ]
        assert lines[0]["place"] == 1
        assert lines[0]["mean_reward"] == 2.0
        assert (found.rows, found.responses, found.mean, found.best) == (2, 5, 1.25, 2.0)
        assert "rises from +1.250 to +2.000" in found.in_words()
    assert found.notes == ("A note.",)


def test_rows_that_cannot_be_used_are_named_and_the_rest_is_not_lost(tmp_path, by_length):
    source = tmp_path / "x.jsonl"
    source.write_text(
        '{"prompt": "p", "responses": ["a"]}\n{"prompt": "q", "responses": "no list"}\n{"responses": [1]}\n'
    )
    found = best_of(by_length, str(source), tmp_path / "out.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["row"] for line in lines] == [1, 2, 3]
    assert "problem" in lines[1]
    assert (found.rows, found.problems) == (1, 2)


def test_a_file_without_any_usable_row_writes_nothing(tmp_path, by_length):
    source = tmp_path / "x.jsonl"
    source.write_text('{"prompt": "p", "responses": []}\n')
    with pytest.raises(SerError, match="No row of"):
        best_of(by_length, str(source), tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def test_a_cell_of_a_csv_file_may_hold_the_list(tmp_path):
    source = tmp_path / "x.csv"
    source.write_text('prompt,responses\np,"[""one"", ""two""]"\nq,nonsense\n')
    found = list(read_samples(source))
    assert found[0].responses == ("one", "two")
    assert isinstance(found[1], Problem)
