"""What pages show of a policy: its steps as curves, figures before and after, and its gain on the axes of best of n."""

import json
import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import t

from ser_backend.policy import figures, outcome, prompts
from ser_backend.policy.curves import MEMBER, Steps, thinned
from ser_backend.policy.folder import PolicyFolder
from ser_backend.policy.settings import PolicySettings
from ser_backend.policy.shaping import Start


def a_step(number, reward=0.5, se=0.1, prompts=8, **more):
    told = {"mean": reward, "se": se, "n": 4 * prompts, "prompts": prompts}
    return {
        "step": number, "of": 100, "stage": "checkpoints", "loss": 0.1, "seconds": 2.0, "reward": told,
        "members": {"one": told}, "judge": None, "kl": {"mean": 0.1 * number, "se": 0.01, "n": 8, "prompts": prompts},
        "entropy": 2.0, "length": 10.0, "ended": 0.5, "distinct": 0.9, **more,
    }  # fmt: skip


def write(path, steps, how="w"):
    with (path / "steps.jsonl").open(how) as file:
        file.writelines(json.dumps(step) + "\n" for step in steps)


# ---- curves


def test_a_curve_of_few_steps_is_what_the_steps_say(tmp_path):
    write(tmp_path, [a_step(i, reward=i) for i in range(1, 6)])
    curve = Steps(tmp_path).refresh().curve(f"{MEMBER}one")
    assert curve.step.tolist() == curve.value.tolist() == [1, 2, 3, 4, 5]
    assert curve.each == 1
    half = t.ppf(0.975, 7) * 0.1
    assert curve.low == pytest.approx(np.arange(1, 6) - half)
    assert curve.high == pytest.approx(np.arange(1, 6) + half)


def test_only_what_is_new_is_read_and_a_line_is_waited_for(tmp_path):
    write(tmp_path, [a_step(1), a_step(2)])
    steps = Steps(tmp_path).refresh()
    assert len(steps) == 2
    with (tmp_path / "steps.jsonl").open("a") as file:
        half = json.dumps(a_step(3))
        file.write(half[:40])
    assert len(steps.refresh()) == 2
    with (tmp_path / "steps.jsonl").open("a") as file:
        file.write(half[40:] + "\n")
    honest, taken = steps._take, []
    steps._take = lambda line: (taken.append(line), honest(line))
    assert len(steps.refresh()) == 3
    assert len(taken) == 1
    assert steps.newest["step"] == 3
    assert steps.seconds() == 2.0


def test_a_training_that_goes_on_from_a_checkpoint_is_read_anew(tmp_path):
    folder = PolicyFolder(tmp_path)
    write(tmp_path, [a_step(i) for i in range(1, 8)])
    steps = Steps(tmp_path).refresh()
    folder.keep_steps(4)
    for number in range(5, 12):
        folder.add_step(a_step(number, reward=9.0))
    assert list(steps.refresh().step) == list(range(1, 12))
    assert steps.curve("reward").value[4:].tolist() == [9.0] * 7
    (tmp_path / "steps.jsonl").unlink()
    assert len(steps.refresh()) == 0


def test_figures_that_come_late_or_go_are_not_known_there(tmp_path):
    judged = {"mean": 1.0, "se": None, "n": 8, "prompts": 1}
    write(tmp_path, [a_step(1), a_step(2, judge=judged), a_step(3, loss=None)])
    steps = Steps(tmp_path).refresh()
    assert steps.curve("judge").step.tolist() == [2]
    assert not steps.curve("judge").has_interval
    assert steps.curve("loss").step.tolist() == [1, 2]
    assert steps.curve("accuracy") is None
    assert steps.members == ["one"]


def test_many_steps_become_at_most_so_many_points(tmp_path):
    n = 4_321
    value = np.random.default_rng(0).normal(size=n)
    curve = thinned(np.arange(1, n + 1), value, np.full(n, 0.2), np.full(n, 8.0))
    assert len(curve.value) <= 400
    assert curve.each == 11
    assert curve.value[0] == pytest.approx(value[:11].mean())
    assert curve.value[-1] == pytest.approx(value[curve.each * (len(curve.value) - 1) :].mean())
    weights = np.minimum(11, n - 11 * np.arange(len(curve.value)))
    assert (curve.value * weights).sum() / n == pytest.approx(value.mean())


def test_the_interval_of_a_point_holds_its_truth_as_often_as_it_says():
    """Steps of 6 prompts each, three steps a point."""
    chance, inside, prompts, each = np.random.default_rng(1), 0, 6, 3
    trials = 4_000
    for _ in range(trials // 100):
        draws = chance.normal(0.7, 2.0, size=(100 * each, prompts))
        se = draws.std(1, ddof=1) / np.sqrt(prompts)
        curve = thinned(np.arange(100 * each), draws.mean(1), se, np.full(100 * each, float(prompts)), most=100)
        inside += int(((curve.low <= 0.7) & (curve.high >= 0.7)).sum())
    assert inside / trials == pytest.approx(0.95, abs=0.012)


def test_a_newest_step_is_found_without_reading_the_others(tmp_path):
    folder = PolicyFolder(tmp_path)
    assert folder.newest_steps() == []
    write(tmp_path, [a_step(i) for i in range(1, 200)])
    found = folder.newest_steps()
    assert found[-1] == a_step(199)
    assert len(found) < 30


# ---- what came of it


NAMES = ("one", "two")


def measured(rewards, judge, places, seed=0):
    chance = np.random.default_rng(seed)
    n = len(rewards)
    kl, length = chance.random(n), chance.integers(5, 50, n)
    ended = chance.random(n) < 0.5
    found = figures.responses(rewards, NAMES, judge, places, ["a b c"] * n, length, ended, kl, kl, np.ones(n))
    each = {"place": places.tolist(), "rewards": rewards.tolist(), "judge": judge.tolist(), "kl": kl.tolist(),
            "length": length.tolist(), "ended": ended.astype(float).tolist()}  # fmt: skip
    samples = [
        {"prompt": f"p{p}", "response": f"{seed}-{i}", "rewards": [0.0, 0.0], "kl": 0.1} for i, p in enumerate(places)
    ]
    return {"figures": found, "each": each, "samples": samples}


@pytest.fixture
def folder(ser_home):
    """A finished policy, fabricated."""
    from ser_backend.policy.loop import changed

    chance = np.random.default_rng(3)
    places = np.repeat(np.arange(20), 2)
    before_raw, judge = chance.normal(size=(40, 2)), chance.normal(size=40)
    before = measured(before_raw, judge, places, 1)
    after = measured(before_raw + [1.0, 3.0] + chance.normal(0, 0.1, (40, 2)), judge + 0.5, places, 2)
    folder = PolicyFolder.of("p")
    settings = PolicySettings(base_model="b", prompts="q", reward_models="one,two", judge="j").as_dict()
    folder.write("settings", settings)
    folder.write("before", before)
    folder.write("after", after)
    folder.write(
        "policy", {"settings": settings, "changes": changed(before["each"], after["each"], NAMES), "sentences": []}
    )
    return folder


def a_gain(folder, sd=(2.0, 4.0), **changed):
    start = Start(NAMES, (0.3, 0.4), sd, 20.0, 0.0, 100).as_json()
    return {"settings": folder.json("settings") | changed, "start": start, "points": [], "n": 8, "supervised": False}


def test_figures_before_and_after_are_paired_by_prompt(folder):
    before, after, policy = (folder.json(name) for name in ("before", "after", "policy"))
    rows = {row.what: row for row in outcome.rows(policy, before, after)}
    assert [row.kind for row in rows.values()] == ["reward"] * 2 + [
        "judge",
        "kl",
        "length",
        "ended",
        "distinct",
        "entropy",
    ]
    assert rows["one"].after - rows["one"].before == pytest.approx(rows["one"].change["mean"])
    length = rows["length, tokens"]
    first, last = (np.array(one["each"]["length"]).reshape(20, 2).mean(1) for one in (before, after))
    half = t.ppf(0.975, 19) * (last - first).std(ddof=1) / np.sqrt(20)
    assert length.change["mean"] == pytest.approx((last - first).mean())
    assert length.change["high"] - length.change["mean"] == pytest.approx(half)
    assert rows["entropy, nats a token"].change is None
    for one in (before, after):  # as an earlier version left them
        del one["each"]["length"]
    assert {row.what: row for row in outcome.rows(policy, before, after)}["length, tokens"].change is None


def test_a_policy_lies_on_the_axes_of_best_of_n_in_the_estimates_own_units(folder):
    found = outcome.reached(folder, a_gain(folder))
    before, after = (np.array(folder.json(name)["each"]["rewards"]) for name in ("before", "after"))
    by_hand = ((after - before) / [2.0, 4.0]).mean(1)
    assert found.reward[0] == pytest.approx(by_hand.mean())
    assert found.reward[1] < by_hand.mean() < found.reward[2]
    assert found.judge == pytest.approx((0.5, 0.5, 0.5))
    kl = folder.json("after")["figures"]["kl"]
    assert found.kl[0] == kl["mean"]
    assert found.kl[2] - found.kl[0] == pytest.approx(t.ppf(0.975, 19) * kl["se"])
    assert found.prompts == 20
    raw = outcome.reached(folder, a_gain(folder) | {"start": a_gain(folder, (1.0, 1.0))["start"]})
    assert raw.reward[0] == pytest.approx((after - before).mean())


def test_an_estimate_counts_for_policies_of_the_same_start_and_rewards_only(folder):
    settings = folder.json("settings")
    assert outcome.same(settings, settings | {"learning_rate": 0.1, "steps": 7, "examples": "run:x"})
    assert not outcome.same(settings, settings | {"temperature": 0.5})
    assert not outcome.same(settings | {"prompts": ""}, settings | {"prompts": "", "examples": "run:x"})
    policy, supervised = {"settings": settings}, {"settings": settings | {"sft_steps": 5}}
    assert outcome.incomparable(a_gain(folder), policy) == ""
    assert "before its supervised start" in outcome.incomparable(a_gain(folder), supervised)
    assert outcome.incomparable(a_gain(folder) | {"supervised": True}, supervised) == ""


def test_an_estimate_on_other_prompts_is_no_measure_of_a_policy(folder):
    """The file that both name has changed in between."""
    asked, later = (prompts.Asked((), told, (), 2, 0).heldout_id for told in (("one", "two"), ("one", "three")))
    policy = folder.json("policy") | {"data": {"heldout_id": asked}}
    assert outcome.incomparable(a_gain(folder) | {"heldout_id": asked}, policy) == ""
    assert "other held-out prompts" in outcome.incomparable(a_gain(folder) | {"heldout_id": later}, policy)
    assert outcome.incomparable(a_gain(folder), policy) == ""  # of an earlier version, which did not say


def test_responses_stand_side_by_side_by_prompt(folder):
    found = outcome.written(folder.json("before"), folder.json("after"))
    assert len(found) == 20
    assert [sample["response"] for sample in found[0].before] == ["1-0", "1-1"]
    assert [sample["response"] for sample in found[0].after] == ["2-0", "2-1"]
    assert outcome.written(folder.json("before"), None)[0].after == ()
    assert outcome.written(None, None) == []


def test_what_pages_read_of_policies_loads_no_torch():
    names = "queue, folder, settings, curves, outcome"
    code = f"import sys; from ser_backend.policy import {names}; print(sorted({{'torch', 'transformers'}} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.stdout.strip() == "[]", found.stderr
