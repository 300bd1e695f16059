"""Biases, consistency, audits needed and pace: figures by hand, exact tests, and simulated audits that must cover."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, betabinom, binom, binomtest

from benchmarks import audit_coverage
from ser_backend import desk_figures
from ser_backend.calibration import clopper_pearson

# --- biases


@pytest.mark.parametrize(("left", "n"), [(0, 1), (3, 3), (9, 20), (10, 20), (61, 100), (520, 1_000)])
def test_position_bias_is_the_exact_binomial_test(left: int, n: int) -> None:
    chose_left = np.where(np.arange(n) < left, 1.0, 0.0)
    found = desk_figures.position_bias(np.append(chose_left, [math.nan] * 5))  # ties are left out
    assert found.p_value == pytest.approx(binomtest(left, n, 0.5).pvalue)
    assert found.share == clopper_pearson(left, n)
    assert found == desk_figures.position_bias(chose_left == 1)


def test_position_bias_finds_one_of_ten_points_as_often_as_it_says() -> None:
    def found(n: int, share: float) -> float:
        k = np.arange(n + 1)
        p = 2 * binom.cdf(np.minimum(k, n - k), n, 0.5)
        return float(binom.pmf(k, n, share)[p <= 0.05].sum())

    n = desk_figures.answers_needed()
    assert all(found(m, 0.6) >= 0.8 for m in range(n, n + 60))
    assert found(n - 1, 0.6) < 0.8
    assert found(n, 0.5) <= 0.05
    # normal approximation: ((1.960 + 0.842 sqrt(1 - 4 bias^2)) / (2 bias))^2
    assert n == pytest.approx(194, rel=0.1)
    assert desk_figures.answers_needed(0.05) == pytest.approx(783, rel=0.05)
    assert desk_figures.answers_needed(0.1, 0.99) > n
    assert desk_figures.answers_needed(0.49) == 6  # five of five still have p = 2 / 32


def test_position_bias_in_words() -> None:
    few, many, biased = (
        desk_figures.position_bias(np.arange(n) < left) for left, n in ((12, 20), (205, 400), (240, 400))
    )
    assert "too few" in few.in_words()
    assert "takes 210 decided answers" in few.in_words()
    assert many.in_words() == (
        "The left response was chosen in 51.2 % (46.2 to 56.2, n = 400), no further from one half than chance explains "
        "(p = 0.65)."
    )
    assert "seems to matter" in biased.in_words()
    assert "nothing is known" in desk_figures.position_bias(np.zeros(0)).in_words()
    assert desk_figures.position_bias(np.zeros(0)).p_value == 1


def test_length_is_no_bias_where_the_longer_one_is_better() -> None:
    random = np.random.default_rng(0)
    gold = (random.random(3_000) < 0.7).astype(float)
    errs = random.random(3_000) < 0.1
    honest = np.where(errs, random.integers(2, size=3_000), gold)
    swayed = np.where(errs, 1.0, gold)  # where in doubt, the longer one
    assert desk_figures.length_bias(honest).share.low > 0.6  # far from one half, and rightly so
    assert "no proof" in desk_figures.length_bias(honest).in_words()
    against, beyond = (desk_figures.length_bias(chosen, gold).beyond_gold for chosen in (swayed, honest))
    assert against is not None
    assert beyond is not None
    assert against[1] > 0
    assert against[0] == pytest.approx(0.03, abs=0.01)
    assert beyond[0] == pytest.approx(-0.02, abs=0.01)  # guesses are even, the right answers are not
    assert "sway the answers" in desk_figures.length_bias(swayed, gold).in_words()


def test_length_bias_by_hand_and_of_few() -> None:
    chosen = np.array([1, 1, 1, 0, math.nan, 1])
    gold = np.array([1, 0, math.nan, 0, 1, 1])
    found = desk_figures.length_bias(chosen, gold)
    assert (found.share.value, found.share.n, found.n_gold) == (0.8, 5, 4)
    assert found.beyond_gold is not None
    assert found.beyond_gold[0] == pytest.approx(0.25)
    same = desk_figures.length_bias(gold, gold).beyond_gold  # all alike: every resample is 0, which proves nothing
    assert same == (0, -clopper_pearson(0, 5).high, clopper_pearson(0, 5).high)
    assert desk_figures.length_bias(np.ones(9), np.zeros(9)).beyond_gold == (
        1,
        pytest.approx(1 - 2 * 0.3363, abs=1e-4),
        1,
    )
    nothing = desk_figures.length_bias(chosen, np.full(6, math.nan))
    assert (nothing.beyond_gold, nothing.n_gold) == (None, 0)
    assert "No decided answer" in desk_figures.length_bias(np.zeros(0)).in_words()


def test_length_bias_groups_are_drawn_whole() -> None:
    random = np.random.default_rng(1)
    gap = random.random(40) < 0.3
    gold, chosen = np.zeros(800), np.repeat(gap, 20).astype(float)
    alone = desk_figures.length_bias(chosen, gold).beyond_gold
    grouped = desk_figures.length_bias(chosen, gold, np.repeat(np.arange(40), 20)).beyond_gold
    assert alone is not None
    assert grouped is not None
    assert grouped[2] - grouped[1] > 3 * (alone[2] - alone[1])


# --- consistency


def test_self_consistency_by_hand() -> None:
    #                  same  turned     tie and a  tie both  missing
    first = np.array([0, 1, 0, 1, 0, 2, 0, 2, 2, -1, 1])
    second = np.array([0, 1, 1, 0, 1, 0, 2, 2, 2, 1, -1])
    found = desk_figures.self_consistency(first, second)
    assert found.same == clopper_pearson(4, 9)
    assert found.same_side == clopper_pearson(3, 5)
    assert "44.4 %" in found.in_words()
    assert "60.0 %" in found.in_words()
    assert "No pair" in desk_figures.self_consistency(first[:0], second[:0]).in_words()
    assert "side was kept" not in desk_figures.self_consistency(first[7:9], second[7:9]).in_words()


def test_who_follows_the_side_turns_every_preference_and_who_guesses_half() -> None:
    random = np.random.default_rng(2)
    a_is_left = random.random(400) < 0.5
    left_always = np.where(a_is_left, 0, 1), np.where(a_is_left, 1, 0)
    found = desk_figures.self_consistency(*left_always)
    assert (found.same.value, found.same_side.value) == (0, 1)
    guess = desk_figures.self_consistency(random.integers(2, size=400), random.integers(2, size=400))
    assert guess.same_side.low < 0.5 < guess.same_side.high


def test_gold_accuracy_counts_ties_as_answers() -> None:
    said, gold = np.array([0, 1, 2, 2, 0, -1, 1]), np.array([0, 0, 2, 1, 2, 1, -1])
    assert desk_figures.gold_accuracy(said, gold) == clopper_pearson(2, 5)
    assert desk_figures.gold_accuracy(said[:0], gold[:0]).n == 0


# --- audits needed


@given(st.integers(0, 300), st.integers(0, 300), st.sampled_from([0.03, 0.05, 0.1]))
def test_so_many_audits_do_and_one_fewer_does_not(one: int, other: int, half_width: float) -> None:
    right, n = min(one, other), max(one, other)

    def half(more: int) -> float:
        """By scipy's beta distribution, right ones added in the share seen."""
        k, m = right + (right + 0.5) / (n + 1) * more, n + more
        low = beta.ppf(0.025, k, m - k + 1) if k else 0.0
        return float((beta.ppf(0.975, k + 1, m - k) if k < m else 1.0) - low) / 2

    more = desk_figures.audits_needed(right, n, half_width)
    assert half(more) <= half_width + 1e-9
    assert more == 0 or half(more - 1) > half_width
    assert more >= desk_figures.audits_needed(right, n, half_width + 0.01)


def test_audits_needed_by_known_sizes() -> None:
    # 384 by the normal curve; Clopper-Pearson is wider by about 1 / n
    assert desk_figures.audits_needed(0, 0) == pytest.approx(402, abs=1)
    now = clopper_pearson(540, 600)
    assert (now.high - now.low) / 2 < 0.05
    assert desk_figures.audits_needed(540, 600) == 0
    more = desk_figures.audits_needed(54, 60)
    then = clopper_pearson(54 + round(54.5 / 61 * more), 60 + more)
    assert (then.high - then.low) / 2 == pytest.approx(0.05, abs=0.001)
    assert desk_figures.audits_needed(54, 60, confidence=0.99) > more
    assert desk_figures.audits_needed(10, 10) > 36 - 10  # ten of ten are no promise that all will be right
    with pytest.raises(ValueError, match="half width"):
        desk_figures.audits_needed(1, 2, 0.0)


def test_the_goal_in_words() -> None:
    more = desk_figures.audits_needed(54, 60)
    assert desk_figures.goal_in_words(54, 60) == f"{more} more audits to know the precision to ±5 points"
    assert desk_figures.goal_in_words(900, 1_000) == "The precision is known to ±5 points."
    assert desk_figures.goal_in_words(0, 0).startswith("At most about 402 audits")
    last = next(n for n in range(60, 400) if desk_figures.audits_needed(n * 9 // 10, n) == 1)
    assert desk_figures.goal_in_words(last * 9 // 10, last) == "1 more audit to know the precision to ±5 points"
    assert "±2.5 points" in desk_figures.goal_in_words(54, 60, 0.025)


# --- audits as the desk takes them


def audits(
    precision: float, undecided: float, size: int = 3_000, n: int = 2_000
) -> tuple[np.ndarray, np.ndarray, float]:
    """Simulated audits by two people who skip and call ties; -> agreed (n, MOST), decided (n,), the truth."""
    random = np.random.default_rng([int(1_000 * precision), int(10 * undecided)])
    people = audit_coverage.population(size, precision, undecided, 2, random)
    order = random.permuted(np.tile(np.arange(size, dtype=np.int16), (n, 1)), axis=1)[:, :900]
    return (
        *audit_coverage.play(people[0][order], people[1][order], people[2:, order]),
        audit_coverage.share_right(people),
    )


@pytest.fixture(scope="module")
def bounds() -> dict[str, audit_coverage.Bounds]:
    return {"exact": audit_coverage.Bounds.exact(), "anytime": audit_coverage.Bounds.anytime()}


@pytest.mark.parametrize(("precision", "undecided"), [(0.6, 0.1), (0.9, 0.0), (0.9, 0.3), (0.95, 0.1)])
def test_intervals_cover_with_skips_and_ties(
    precision: float, undecided: float, bounds: dict[str, audit_coverage.Bounds]
) -> None:
    agreed, decided, truth = audits(precision, undecided)
    assert (decided == audit_coverage.MOST).all()
    exact = audit_coverage.coverage(agreed, decided, truth, bounds["exact"])
    assert min(exact[f"n={n}"] for n in audit_coverage.SIZES) >= 0.94
    assert exact["every look"] < 0.9  # who stops when the interval pleases has not what it says ...
    anytime = audit_coverage.coverage(agreed, decided, truth, bounds["anytime"])
    assert anytime["every look"] >= 0.95  # ... but with this one has


def test_a_small_population_is_covered_to_its_end(bounds: dict[str, audit_coverage.Bounds]) -> None:
    agreed, decided, truth = audits(0.9, 0.1, size=300, n=500)
    assert (decided < 300).all()
    assert np.ptp(decided) == 0  # what nobody decides is the same whatever the order
    assert agreed.sum(1) / decided == pytest.approx(truth)
    exact = audit_coverage.coverage(agreed, decided, truth, bounds["exact"])
    assert min(exact[f"n={n}"] for n in audit_coverage.SIZES) >= 0.94
    assert exact["n=300"] == 1
    assert audit_coverage.coverage(agreed, decided, truth, bounds["anytime"])["every look"] >= 0.95


def test_the_simulation_counts_what_the_desk_counts() -> None:
    random = np.random.default_rng(3)
    people = audit_coverage.population(120, 0.8, 0.3, 2, random)
    order = audit_coverage.orders(120, 3, 0)
    assert (np.sort(order, axis=1) == np.arange(120)).all()
    assert not (order[0] == order[1]).all()
    truth = audit_coverage.share_right(people)
    exact = audit_coverage.Bounds(np.zeros((401, 401)), np.ones((401, 401)))
    found = audit_coverage.one_setting(order, people, truth, {"exact": exact}, checked=3)  # raises where they differ
    assert found["exact"]["every look"] == 1
    whole = audit_coverage.played_at_the_desk(order[0], people, 400)
    assert whole[-1][0] / whole[-1][1] == pytest.approx(truth)


# --- at any time


def test_the_mixture_is_a_martingale_that_starts_at_one() -> None:
    """Its mean under the truth is 1 at every n, so Ville's inequality bounds how often it ever passes 20."""
    for n in (1, 7, 60):
        k = np.arange(n + 1)
        low, high = desk_figures.anytime_bounds(k, np.full(n + 1, n))
        for p in (0.2, 0.5, 0.9):
            ratio = betabinom.pmf(k, n, 0.5, 0.5) / binom.pmf(k, n, p)
            assert binom.pmf(k, n, p) @ ratio == pytest.approx(1)
            assert ((ratio < 20) == ((low < p) & (p < high))).all()


def test_the_interval_at_any_time_is_wider_and_shrinks() -> None:
    for k, n in ((0, 1), (9, 10), (54, 60), (270, 300), (1_000, 1_000)):
        found, fixed = desk_figures.anytime_interval(k, n), clopper_pearson(k, n)
        assert found.low <= fixed.low <= found.value <= fixed.high <= found.high
        assert (found.high - found.low) / (fixed.high - fixed.low) < 2
    turned, found = desk_figures.anytime_interval(6, 60), desk_figures.anytime_interval(54, 60)
    assert (1 - turned.high, 1 - turned.low) == (pytest.approx(found.low), pytest.approx(found.high))
    assert (desk_figures.anytime_interval(0, 0).low, desk_figures.anytime_interval(0, 0).high) == (0, 1)
    widths = [of.high - of.low for of in (desk_figures.anytime_interval(9 * n, 10 * n) for n in (1, 10, 100, 1_000))]
    assert widths == sorted(widths, reverse=True)
    assert desk_figures.anytime_interval(54, 60, 0.99).low < desk_figures.anytime_interval(54, 60).low


# --- pace


def test_pace_by_hand() -> None:
    first = np.array([0.0, 20, 60])
    second = 1_000 + np.array([0.0, 10, 40, 100])
    at = np.concatenate([first, second])
    found = desk_figures.pace(at[np.random.default_rng(0).permutation(7)])
    assert found.seconds == 30  # of 20, 40, 10, 30, 60: not the pause between the sessions
    assert found.per_hour == pytest.approx(3 * 3600 / 100)
    assert (found.n, found.n_session) == (7, 4)
    assert found.in_words() == "30 s a pair (median), 108 answers an hour in the last session (n = 4)."
    assert desk_figures.pace(np.array([0.0, 300.0])).n_session == 2
    assert desk_figures.pace(np.array([0.0, 300.1])).n_session == 1


def test_pace_by_the_time_a_person_was_there() -> None:
    at = np.array([250.0, 0.0, 100.0])
    active = np.array([math.nan, 5_000.0, 8_000.0])
    assert desk_figures.pace(at, active).seconds == 8  # 5, 8 and, not known, the 150 s since the answer before
    assert desk_figures.pace(at).seconds == 125
    assert desk_figures.pace(at[2:], active[2:]).in_words() == "8 s a pair (median)."
    assert desk_figures.pace(at[:1]).in_words() == "One answer so far, too few for a pace."
    assert desk_figures.pace(at[:0]).in_words() == "No answers yet."
    assert math.isnan(desk_figures.pace(at[:0]).seconds)
