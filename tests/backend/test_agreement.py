"""Agreement of people: published worked examples, intervals that must cover, and the cases in which nothing can be said."""

import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ser_backend import agreement
from ser_backend.calibration import clopper_pearson

# Krippendorff (2011), Computing Krippendorff's Alpha-Reliability, section C: observers A to D, units 1 to 12, 0 is missing.
# The same data are Gwet's (2014, p. 120) and R's irrCAC::cac.raw4raters.
FOUR_OBSERVERS = (
    np.array(
        [
            [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
            [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
            [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
            [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
        ]
    ).T
    - 1
)
# Fleiss (1971), table 1: 30 patients, 6 of 43 psychiatrists each; counts of depression, personality disorder, schizophrenia,
# neurosis, other.
DIAGNOSES = """00060 03003 01401 00006 03030 20400 00402 20310 20040 00006 10050 11040 03300 10050 02031
00501 30012 51000 02040 10203 00006 01050 02013 20040 10041 05010 40002 02040 10500 00006"""
# The example of many textbooks: 14 raters, 10 subjects, 5 categories; kappa .210.
FOURTEEN_RATERS = [
    *([0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1]),
    *([7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7]),
]


def from_counts(counts: list[list[int]]) -> np.ndarray:
    """Ratings of which so many are each category; items with fewer have missing ones."""
    most = max(map(sum, counts))
    rows = [np.repeat(np.arange(len(row)), row) for row in counts]
    return np.array([np.pad(row, (0, most - len(row)), constant_values=-1) for row in rows])


def from_table(table: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.indices(np.shape(table))
    times = np.ravel(table)
    return np.repeat(x.ravel(), times), np.repeat(y.ravel(), times)


def drawn(n: int, agree: float, random: np.random.Generator, groups: np.ndarray | None = None) -> np.ndarray:
    """Two people; the second repeats the first with probability `agree`, else guesses among two: kappa is `agree`."""
    x = random.integers(2, size=n)
    repeats = random.random(n) < agree
    if groups is not None:
        repeats = repeats[groups]
    return np.column_stack([x, np.where(repeats, x, random.integers(2, size=n))])


# --- worked examples


def test_cohens_table() -> None:
    found = agreement.cohen(*from_table([[88, 14, 18], [10, 40, 10], [2, 6, 12]]))
    assert found.value == pytest.approx(0.492, abs=5e-4)  # Cohen 1960, p. 45: 200 patients, p_o .70, p_c .41
    assert (found.agreed, found.by_chance) == (pytest.approx(0.70), pytest.approx(0.41))
    assert (found.n_items, found.n_ratings) == (200, 400)
    # Gwet's table of three abstractors (irrCAC::cont3x3abstractors), kappa .7964, standard error .0589, (.680, .913)
    found = agreement.cohen(*from_table([[13, 0, 0], [0, 20, 7], [0, 4, 56]]))
    assert found.value == pytest.approx(0.7964094)
    assert (found.low, found.high) == (pytest.approx(0.680, abs=0.03), pytest.approx(0.913, abs=0.03))


def test_fleiss_psychiatric_diagnoses() -> None:
    ratings = from_counts([[int(n) for n in row] for row in DIAGNOSES.split()])
    assert ratings.shape == (30, 6)
    found = agreement.fleiss(ratings)
    assert found.value == pytest.approx(0.430, abs=5e-4)
    assert (found.agreed, found.by_chance) == (pytest.approx(0.556, abs=5e-4), pytest.approx(0.220, abs=5e-4))
    assert agreement.fleiss(from_counts(FOURTEEN_RATERS)).value == pytest.approx(0.210, abs=5e-4)


def test_four_observers_with_missing_answers() -> None:
    alpha = agreement.krippendorff(FOUR_OBSERVERS)
    assert alpha.value == pytest.approx(0.743, abs=5e-4)
    assert (alpha.n_items, alpha.n_ratings) == (11, 40)  # the twelfth unit has one answer
    # irrCAC prints both: fleiss.kappa.raw .76117, krippen.alpha.raw .74342; percent agreement .81818
    kappa = agreement.fleiss(FOUR_OBSERVERS)
    assert (kappa.value, kappa.agreed) == (pytest.approx(0.76117, abs=5e-6), pytest.approx(0.81818, abs=5e-6))
    assert alpha.value == pytest.approx(0.74342, abs=5e-6)


def test_krippendorff_of_two_observers() -> None:
    """Krippendorff (2011), section A: 10 items, binary."""
    x, y = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
    found = agreement.krippendorff(np.column_stack([x, y]))
    assert found.value == pytest.approx(0.095, abs=5e-4)
    assert agreement.observed(np.column_stack([x, y])).value == pytest.approx(0.6)


def test_observed_counts_pairs_of_answers() -> None:
    ratings = np.array([[0, 0, 0], [0, 1, -1], [2, 2, -1], [1, -1, -1]])
    found = agreement.observed(ratings)
    assert found.value == pytest.approx((3 + 0 + 1) / 5)
    assert (found.n_items, found.n_ratings) == (3, 7)
    assert math.isnan(found.by_chance)


# --- properties


@given(st.lists(st.lists(st.integers(-1, 2), min_size=3, max_size=3), min_size=1, max_size=30))
def test_no_name_and_no_order_matters(rows: list[list[int]]) -> None:
    ratings = np.array(rows)
    names = np.array([1, 2, 0, -1])  # where 0, 1, 2 and -1 go
    shuffled = np.random.default_rng(0).permutation(len(ratings))
    for coefficient in (agreement.fleiss, agreement.krippendorff, agreement.observed):
        one, other = coefficient(ratings), coefficient(names[ratings][shuffled][:, [2, 0, 1]])
        assert one.value == pytest.approx(other.value, nan_ok=True)
        assert math.isnan(one.value) or one.low <= one.value <= one.high <= 1 + 1e-9


def test_the_coefficients_of_two_people_are_near_each_other_and_zero_is_chance() -> None:
    ratings = drawn(20_000, 0.0, np.random.default_rng(0))
    for found in (agreement.cohen(*ratings.T), agreement.fleiss(ratings), agreement.krippendorff(ratings)):
        assert found.value == pytest.approx(0, abs=0.02)
        assert found.low < 0 < found.high
        assert found.agreed == pytest.approx(0.5, abs=0.02)
    # alpha is Scott's pi, Fleiss' kappa of two raters, but for 1 / (2 n): Krippendorff 2011
    few = drawn(40, 0.5, np.random.default_rng(1))
    pi = agreement.fleiss(few).value
    assert agreement.krippendorff(few).value == pytest.approx(pi + (1 - pi) / 80)


@pytest.mark.parametrize("n", [25, 100])
def test_the_interval_covers(n: int) -> None:
    random = np.random.default_rng(5)
    for coefficient in (lambda r: agreement.cohen(*r.T), agreement.fleiss, agreement.krippendorff):
        found = [coefficient(drawn(n, 0.6, random)) for _ in range(250)]
        assert np.mean([of.low <= 0.6 <= of.high for of in found]) >= 0.92


def test_groups_are_drawn_whole() -> None:
    """Items of a group are copies of one another: an interval that takes them for news is too short."""
    random, held, held_alone = np.random.default_rng(6), [], []
    for _ in range(150):
        groups = np.repeat(np.arange(40), 10)
        ratings = drawn(400, 0.6, random, groups)
        found, alone = agreement.krippendorff(ratings, groups), agreement.krippendorff(ratings)
        assert found.value == alone.value
        held.append(found.low <= 0.6 <= found.high)
        held_alone.append(alone.low <= 0.6 <= alone.high)
    assert np.mean(held) >= 0.9
    assert np.mean(held_alone) < 0.75
    few = np.arange(400) % 3  # three groups alike say nothing of how groups differ
    ratings = drawn(400, 0.6, random)
    found, alone = agreement.krippendorff(ratings, few), agreement.krippendorff(ratings)
    assert found.low <= alone.low < alone.high <= found.high


def test_the_interval_is_that_of_drawing_items_one_by_one() -> None:
    ratings = drawn(150, 0.6, np.random.default_rng(7))
    random, values = np.random.default_rng(8), []
    for _ in range(2_000):
        x, y = ratings[random.integers(150, size=150)].T
        by_chance = np.mean(x) * np.mean(y) + np.mean(1 - x) * np.mean(1 - y)
        values.append((np.mean(x == y) - by_chance) / (1 - by_chance))
    found = agreement.cohen(*ratings.T)
    assert [found.low, found.high] == pytest.approx(np.quantile(values, [0.025, 0.975]).tolist(), abs=0.02)
    assert found == agreement.cohen(*ratings.T), "seeded"
    assert found != agreement.cohen(*ratings.T, random_seed=1)


# --- where little or nothing can be said


def test_nothing_in_common() -> None:
    apart = np.array([[0, -1], [-1, 1], [2, -1]])
    nothing = np.full((3, 2), -1)
    for ratings in (apart, nothing, nothing[:0]):
        for found in (
            agreement.cohen(*ratings.T),
            agreement.fleiss(ratings),
            agreement.krippendorff(ratings),
            agreement.observed(ratings),
        ):
            assert (found.n_items, found.n_ratings, str(found)) == (0, 0, "not known (n = 0)")
            assert math.isnan(found.value)
            assert "No item" in found.in_words()


def test_one_category_only_is_not_agreement_beyond_chance() -> None:
    same = np.ones((40, 2), int)
    for found in (agreement.cohen(*same.T), agreement.fleiss(same), agreement.krippendorff(same)):
        assert math.isnan(found.value)
        assert (found.low, found.high, found.agreed) == (-1, 1, 1)
        assert str(found) == "not defined (n = 40)"
        assert "100.0 %" in found.in_words()
        assert "not defined" in found.in_words()
    assert agreement.observed(same).value == 1


def test_full_agreement_of_few_items_is_no_certainty() -> None:
    x = np.array([0, 1, 0, 1, 1, 0])
    exact = clopper_pearson(6, 6).low
    found = agreement.cohen(x, x)
    assert (found.value, found.high) == (pytest.approx(1), pytest.approx(1))
    assert found.low == pytest.approx((exact - 0.5) / 0.5)
    assert agreement.observed(np.column_stack([x, x])).low == pytest.approx(exact)
    assert agreement.cohen(x, 1 - x).value == pytest.approx(-1)
    assert agreement.cohen(x, 1 - x).high > -1
    one = agreement.observed(np.array([[0, 1]]))
    assert (one.value, one.low, one.high) == (0, 0, 1)


# --- people, parts, words, speed


def test_by_pair_of_people_and_by_part() -> None:
    ratings = np.array([[0, 0, -1], [1, 1, -1], [1, 0, -1], [0, -1, 0], [1, -1, 1], [0, -1, -1]])
    pairs = agreement.by_pair_of_people(ratings, ["Ada", "Ben", "Cy"])
    assert [(one, other, of.n_items) for one, other, of in pairs] == [("Ada", "Ben", 3), ("Ada", "Cy", 2)]
    assert pairs[0][2] == agreement.cohen(ratings[:, 0], ratings[:, 1])
    parts = agreement.by_part(ratings, ["law", "law", "law", "art", "art", "none"])
    assert [(name, of.n_items) for name, of in parts] == [("law", 3), ("art", 2)]
    assert parts[1][1] == agreement.krippendorff(ratings[3:5])
    grouped = agreement.by_part(ratings, ["law"] * 3 + ["art"] * 3, groups=np.arange(6))
    assert grouped[0][1].value == parts[0][1].value


def test_words() -> None:
    found = agreement.Agreement("Cohen's kappa", 0.4915, 0.39, 0.588, 200, 400, 0.7, 0.41)
    assert str(found) == "0.49 (0.39 to 0.59, n = 200)"
    assert found.in_words() == (
        "Two answers to one item were the same in 70.0 % of cases; chance alone would make it 41.0 %. Cohen's kappa, where "
        "0 is chance and 1 is full agreement: 0.49 (0.39 to 0.59, 200 items)."
    )
    raw = agreement.Agreement(agreement.RAW, 0.7, 0.633, 0.76, 200, 400, 0.7, math.nan)
    assert str(raw) == "70.0 % (63.3 to 76.0, n = 200)"
    assert raw.in_words() == "Two answers to one item were the same in 70.0 % of cases (63.3 to 76.0, 200 items)."


def test_ten_thousand_items_of_twenty_people_take_no_two_seconds() -> None:
    random = np.random.default_rng(9)
    ratings = np.full((10_000, 20), -1)
    people = random.random((10_000, 20)).argsort(1)[:, :2]
    ratings[np.arange(10_000)[:, None], people] = drawn(10_000, 0.6, random)
    for groups in (None, random.integers(3_000, size=10_000)):
        begun = time.process_time()
        found = agreement.krippendorff(ratings, groups)
        assert time.process_time() - begun < 2
        assert found.value == pytest.approx(0.6, abs=0.03)
