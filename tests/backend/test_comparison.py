"""Differences between runs: statistics against known formulas and simulations, tables, and what each kind of pairing says."""

import csv
import io
import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from ser_backend import metrics, table_file
from ser_backend.compare import comparison, comparison_tables, config_difference, paired
from ser_backend.compare.comparison import Measured, Outcome
from ser_backend.compare.config_difference import Asked
from ser_backend.config import RunConfig
from ser_backend.errors import SerError
from ser_backend.records import Interval, Round, Run, Status
from ser_backend.table_file import Percent, Points, Table

SETS = {"seed": "s", "pool": "p", "heldout": "h"}


def an_outcome(name="run", right=None, keys=None, groups=None, preferred=None, settings=None, sets=SETS, answers=0):
    right = np.asarray(right if right is not None else [1.0, 0.0] * 50)
    n = len(right)
    keys = np.array([f"{i:032x}" for i in range(n)], "S32") if keys is None else keys
    measured = Measured(
        keys,
        right,
        np.ones(n, np.int8) if preferred is None else preferred,
        np.arange(n, dtype=np.uint64) if groups is None else groups,
    )
    config = RunConfig().changed(settings or {})
    run = Run(name, name, config.as_dict(), "1", "2", "3", "2026-01-01T00:00:00", Status.SUCCEEDED, None, None, 0)
    end = metrics.wilson(float(right.sum()), n)
    round_ = Round(0, 9, 9, 9, 0, 0, 0, end, end, (0.0, 0.0, 0.0), None, "new", "w", 1.5)
    return Outcome(run, (round_,), Asked.of(config.as_dict(), sets, answers), "3", end, "seed model", end,
                   spent=(9,), seconds=1.5, measured=measured)  # fmt: skip


# ---- statistics


def test_with_a_pair_a_group_the_p_value_is_mcnemars_exact_test():
    assert paired.sign_flip(np.array([1.0] * 9 + [-1.0] * 2 + [0.0] * 50)) == pytest.approx(
        binomtest(2, 11, 0.5).pvalue, abs=1e-12
    )
    many = paired.sign_flip(np.array([1.0] * 60 + [-1.0] * 40))
    exact = binomtest(40, 100, 0.5).pvalue  # 0.0569
    assert many == pytest.approx(exact, abs=5 * math.sqrt(exact * (1 - exact) / paired.FLIPS))


def test_few_groups_can_never_be_sure():
    assert paired.sign_flip(np.array([3.0, 2.0, 4.0, 1.0])) == 2 / 2**4
    assert paired.sign_flip(np.zeros(5)) == 1.0


def test_without_a_difference_the_p_value_is_under_a_twentieth_in_a_twentieth_of_draws():
    random, rejected, times = np.random.default_rng(3), 0, 400
    for _ in range(times):
        share = random.normal(0, 0.3, size=60)  # groups differ, by chance, in which of the two they favour
        sums = np.array([(random.random(5) < 0.5 + s).sum() - (random.random(5) < 0.5 - s).sum() for s in share])
        rejected += paired.sign_flip(sums, random_seed=int(random.integers(1 << 30))) < 0.05
    assert binomtest(rejected, times, 0.05).pvalue > 0.001


def test_the_standard_error_is_that_of_many_draws_of_groups():
    random = np.random.default_rng(5)
    sizes = random.integers(1, 8, size=300)
    sums = random.normal(0.1 * sizes, 0.5 * sizes)
    draws = random.integers(300, size=(4_000, 300))
    means = sums[draws].sum(1) / sizes[draws].sum(1)
    assert paired.standard_error(sums, sizes) == pytest.approx(means.std(), rel=0.05)


def test_so_many_pairs_as_are_said_to_be_needed_find_the_difference_four_times_in_five():
    """And the rule of thumb: where the two disagree on 8 % of pairs, a point takes about 6,300."""
    random = np.random.default_rng(11)
    discordant, n = 0.08, 20_000
    new, old = np.ones(n), np.ones(n)
    new[: int(n * discordant / 2)] = 0
    old[int(n * discordant / 2) : int(n * discordant)] = 0
    pilot = paired.paired(new, old, np.arange(n), "paired")
    wanted = pilot.pairs_needed(0.01)
    assert wanted == pytest.approx(6_280, rel=0.01)
    gain = 0.02
    wanted = pilot.pairs_needed(gain)
    found = 0
    for _ in range(400):
        draw = random.random(wanted)
        up = (draw < discordant / 2 + gain / 2).sum()
        down = ((draw >= discordant / 2 + gain / 2) & (draw < discordant)).sum()
        found += abs(up - down) / math.sqrt(up + down) > norm.ppf(0.975)
    assert 0.74 < found / 400 < 0.86


def test_holm_by_the_worked_example_of_r():
    """p.adjust(c(.01, .02, .03, .04, .05), "holm")"""
    assert paired.holm([0.01, 0.02, 0.03, 0.04, 0.05]) == pytest.approx([0.05, 0.08, 0.09, 0.09, 0.09])
    assert paired.holm([0.03, 0.5, 0.001]) == pytest.approx([0.06, 0.5, 0.003])
    assert paired.holm([]) == []


def test_independent_accuracies_by_the_published_example():
    """Newcombe 1998, table II, method 10: 56/70 and 48/80 differ by 0.2 (0.0524 to 0.3339)."""
    found = paired.unpaired(metrics.wilson(56, 70), metrics.wilson(48, 80), "unpaired")
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


# ---- which pairs


def test_the_same_pairs_in_another_order_give_the_interval_of_metrics():
    random = np.random.default_rng(0)
    old = (random.random(400) < 0.7).astype(float)
    new = np.where(random.random(400) < 0.1, 1 - old, old)
    groups = random.integers(80, size=400).astype(np.uint64)
    one, other = an_outcome("a", new, groups=groups), an_outcome("b", old, groups=groups)
    found = comparison.difference(one, other)
    assert found.kind == "paired"
    assert (found.value, found.low, found.high) == metrics.paired_difference(new, old, groups)
    assert found.n == 400
    assert found.n_groups == len(np.unique(groups))


def test_pairs_that_only_one_run_held_out_are_left_out_and_so_are_labels_that_changed():
    keys = np.array([f"{i:032x}" for i in range(140)], "S32")
    one = an_outcome("a", np.ones(100), keys[:100])
    other = an_outcome("b", np.zeros(100), keys[40:])
    found = comparison.difference(one, other)
    assert (found.kind, found.n, found.value) == ("shared", 60, 1.0)
    turned = np.where(np.arange(100) < 10, -1, 1).astype(np.int8)
    assert comparison.difference(one, an_outcome("b", np.zeros(100), keys[40:], preferred=turned)).n == 50
    few = comparison.difference(one, an_outcome("b", np.zeros(100), np.char.add(keys[:100], b"x")))
    assert few.kind == "unpaired"
    assert "part of the difference may lie in the pairs" in paired.in_words(paired.adjusted([few])[0], "A", "B")


def test_runs_measured_on_different_sets_are_never_called_better_or_worse():
    keys = np.array([f"{i:032x}" for i in range(300)], "S32")
    one = an_outcome("a", np.ones(300), keys)
    other = replace(an_outcome("b", np.zeros(300), np.char.add(keys, b"x")), heldout="another set")
    found = comparison.differences([one, other])[1]
    assert (found.kind, found.value, found.is_clear, found.pairs_needed(0.01)) == ("apart", -1.0, False, None)
    said = paired.in_words(found, "B", "A")
    assert "which is better is not known" in said
    assert "one held-out set" in said
    assert comparison_tables.verdict(found) == "not known: another held-out set"
    newer = replace(an_outcome("b", np.zeros(300), keys), heldout="a newer version with the same pairs")
    assert comparison.differences([one, newer])[1].is_clear


def test_a_run_that_stored_no_pairs_is_compared_as_a_sample_and_one_without_rounds_not_at_all():
    one, other = an_outcome("a"), an_outcome("b")
    old = replace(other, measured=None)
    assert comparison.difference(one, old).kind == "unstored"
    assert comparison.difference(one, replace(other, end=None)) is None


# ---- words


def test_noise_is_called_so_and_says_what_would_show_the_difference():
    random = np.random.default_rng(2)
    old = (random.random(200) < 0.7).astype(float)
    new = np.where(random.random(200) < 0.1, 1 - old, old)
    found = comparison.differences([an_outcome("a", old), an_outcome("b", new)])[1]
    said = paired.in_words(found, "B", "A")
    assert "cannot be told apart" in said
    assert "That is within noise." in said
    assert "of 1 point" in said
    assert f"on {200} held-out pairs" in said
    same = comparison.differences([an_outcome("a", old), an_outcome("b", old)])[1]
    assert "no difference at all" in paired.in_words(same, "B", "A")


def test_a_clear_difference_is_called_so_and_may_not_survive_many_comparisons():
    old = np.array([1.0] * 60 + [0.0] * 40)
    better = old.copy()
    better[60:67] = 1.0  # 7 of 7 pairs that differ: p = 1/64
    reference, one = an_outcome("a", old), an_outcome("b", better)
    (_, alone) = comparison.differences([reference, one])
    assert alone.is_clear
    assert paired.in_words(alone, "B", "A").startswith("B is better than A: +7.0 points (")
    many = comparison.differences([reference, one, *(an_outcome(f"c{i}", old) for i in range(4))])
    assert many[0] is None
    assert many[1].p == alone.p
    assert many[1].p_holm == pytest.approx(5 * alone.p)
    assert not many[1].is_clear


# ---- what differs


def test_a_setting_that_one_of_two_does_not_read_is_no_difference_beside_its_method():
    careful = Asked.of(RunConfig().changed({"tau_delta": 0.5}).as_dict(), SETS)
    calibrated = Asked.of(RunConfig().changed({"method": "calibrated"}).as_dict(), SETS)
    assert [str(change) for change in config_difference.changes(careful, calibrated)] == [
        "method: paper (tau_delta = 0.5) -> calibrated"
    ]
    differ, same = config_difference.rows([careful, calibrated])
    assert ("tau_delta", ["0.5", "not read"]) in differ
    assert ("target_precision", ["not read", "0.8"]) in differ
    assert ("rounds", "3") in same
    assert "lora_rank" not in dict(same) | dict(differ)  # neither reads it


def test_data_and_answers_count_as_changes_and_threads_do_not():
    base = RunConfig().as_dict()
    one = Asked.of(base, SETS)
    assert [str(c) for c in config_difference.changes(one, Asked.of(base, {**SETS, "pool": "q"}))] == [
        "pool set: p -> q"
    ]
    assert [str(c) for c in config_difference.changes(one, Asked.of(base, SETS, 12))] == ["answers in Review: 0 -> 12"]
    assert config_difference.changes(one, Asked.of({**base, "threads": 4, "track": "mlflow"}, SETS)) == []
    without = {role: name for role, name in SETS.items() if role != "heldout"}
    (change,) = config_difference.changes(one, Asked.of(base, without))
    assert str(change) == "held-out set: h -> a part of the seed"


def test_a_setting_that_an_older_run_does_not_name_is_as_a_worker_takes_it():
    old = {name: value for name, value in RunConfig().as_dict().items() if name != "risk"}
    assert config_difference.changes(Asked.of({**old, "gone": 3}, SETS), Asked.of(RunConfig().as_dict(), SETS)) == []


def test_the_ablation_holds_runs_with_one_change_and_shares_the_five_percent_among_them():
    outcomes = [
        an_outcome("a"),
        an_outcome("b", settings={"tau_delta": 0.5}),
        an_outcome("c", settings={"tau_delta": 0.4, "rounds": 2}),
        an_outcome("d", settings={"random_seed": 1}),
    ]
    table = comparison_tables.ablation(outcomes, comparison.differences(outcomes), 0)
    assert [row[:2] for row in table.rows] == [("tau_delta: 0.3 -> 0.5", "B"), ("random_seed: 0 -> 1", "D")]


# ---- tables as text

HOSTILE = "=1+1|a & b_50% $x$ \\ {c} #1 ~^<i>*\n-2"
TABLE = Table(
    "Title_1",
    ("run", "accuracy", "gain", "coverage", "n"),
    (
        (HOSTILE, Interval(0.71234567, 0.6, 0.8, 1388), Points(-0.0123, -0.03, 0.0001), Percent(0.25), 1388),
        ("b", None, None, None, None),
    ),
    ("A note.",),
)


def test_csv_has_a_column_for_each_number_and_no_formula():
    rows = list(csv.reader(io.StringIO(table_file.csv(TABLE))))
    assert rows[0] == ["run", "accuracy", "accuracy low", "accuracy high", "accuracy n", "gain", "gain low", "gain high",
                       "coverage", "n"]  # fmt: skip
    assert rows[1][1:] == ["0.71234567", "0.6", "0.8", "1388", "-0.0123", "-0.03", "0.0001", "0.25", "1388"]
    assert rows[1][0].startswith("'=1+1")
    assert rows[2] == ["b", *[""] * 9]
    content = table_file.as_bytes([TABLE], ".csv")
    assert content.startswith(b"\xef\xbb\xbf")


def test_markdown_keeps_its_columns_whatever_a_name_holds():
    lines = table_file.markdown(TABLE).splitlines()
    body = [line for line in lines if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in body} == {6}
    assert "71.2 % (60.0 to 80.0, n = 1,388)" in body[2]
    assert "-1.2 (-3.0 to 0.0)" in body[2]
    assert "\\<i\\>" in body[2]
    assert "**Title\\_1**" in lines[0]


def test_latex_escapes_its_specials_and_writes_minus_signs():
    text = table_file.latex(TABLE)
    row = next(line for line in text.splitlines() if "1+1" in line)
    assert r"=1+1\textbar{}a \& b\_50\% \$x\$ \textbackslash{} \{c\} \#1 " in row
    assert r" \textasciitilde{}\textasciicircum{}\textless{}i\textgreater{}*" in row
    assert r"71.2 \% (60.0 to 80.0, n = 1,388)" in row
    assert "$-$1.2 ($-$3.0 to 0.0)" in row
    assert row.count(" & ") == 4
    assert row.endswith(r" \\")


def test_an_unknown_format_is_refused_in_words():
    with pytest.raises(SerError, match="Choose one of"):
        table_file.as_bytes([TABLE], ".xls")


def test_everything_is_json_and_columns_without_a_figure_are_left_out():
    outcomes = [an_outcome("a"), an_outcome("b", np.ones(100), settings={"rounds": 1})]
    found = comparison.differences(outcomes)
    facts = json.loads(json.dumps(comparison.as_json(outcomes, found, 0)))
    assert facts["differences"][0] is None
    assert facts["differences"][1]["value"] == 0.5
    assert facts["runs"][1]["config"]["rounds"] == 1
    titles = [table.title for table in comparison_tables.everything(outcomes, 0)]
    assert titles == ["How the runs ended", "Difference to run A", "One change at a time, from run A",
                      "Settings and data that differ"]  # fmt: skip
    assert "precision checked" not in comparison_tables.runs(outcomes, found, 0).columns
