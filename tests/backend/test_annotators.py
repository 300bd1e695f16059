import json
import random
from dataclasses import replace

import numpy as np
import pytest

from ser_backend import annotators
from ser_backend.agreement import cohen
from ser_backend.annotators import ENOUGH, Changed, figures, in_words, warnings
from ser_backend.ingest import import_source
from ser_backend.pairs import PairSet
from ser_backend.records import Review

N_POOL, N_SEED = 80, 60


@pytest.fixture
def sets(store, tmp_path) -> tuple[PairSet, PairSet]:
    """Pool and seed; two pairs a prompt, two domains. In the seed the shorter response is right in two of three pairs."""
    made = []
    for role, n in (("pool", N_POOL), ("seed", N_SEED)):
        path = tmp_path / f"{role}.jsonl"
        with path.open("w") as file:
            for i in range(n):
                short, long = f"short {i}", f"a response that is long {i}"
                chosen, rejected = (short, long) if i % 3 else (long, short)
                row = {"prompt": f"{role} {i // 2}", "chosen": chosen, "rejected": rejected}
                file.write(json.dumps(row | {"domain": ("cooking", "travel")[i % 2]}) + "\n")
        made.append(PairSet.open(import_source(store, path, role).dataset.id))
    return made[0], made[1]


class Votes:
    """Answers as rows of the store, made by hand."""

    def __init__(self, pool: PairSet, seed: PairSet) -> None:
        self.sets, self.rows = (pool, seed), []

    def add(self, who: str, place: int, said: str, queue: str = "learn", **more) -> Review:
        """said: a, b, tie or skip."""
        pool, seed = self.sets
        source = seed if queue in ("gold", "seed") else pool
        left_is = more.pop("left_is", "ab"[(place + len(who)) % 2])
        verdict = said if said in ("tie", "skip", "undo") else "left" if said == left_is else "right"
        n = len(self.rows) + 1
        facts = {"round": 1, "margin": 0.0, "self_label": None, "reason": "", "shown_at": n * 10.0, "supersedes": None}
        facts |= {"answered_at": n * 10.0 + 5, "token": f"t{n}", "pair": source.pair_keys[place].decode(), **more}
        row = Review(n, "run", annotator=who, queue=queue, verdict=verdict, left_is=left_is, **facts)
        self.rows.append(row)
        return row

    def change(self, row: Review, said: str) -> Review:
        """A mind changed after the model's choice was shown."""
        verdict = said if said == "tie" else "left" if said == row.left_is else "right"
        n = len(self.rows) + 1
        changed = replace(row, id=n, verdict=verdict, blind=False, supersedes=row.id, token=f"t{n}")
        self.rows.append(changed)
        return changed

    def undo(self, row: Review) -> None:
        n = len(self.rows) + 1
        self.rows.append(replace(row, id=n, verdict="undo", supersedes=row.id, token=f"t{n}"))

    def figures(self):
        return figures(self.rows, *self.sets)

    def person(self, name: str):
        return next(person for person in self.figures().people if person.name == name)


@pytest.fixture
def votes(sets) -> Votes:
    return Votes(*sets)


def many(votes: Votes, n: int = 600) -> Votes:
    """Four people who err, in all queues."""
    chance = random.Random(5)
    seed_said = votes.sets[1].preferred()
    for _ in range(n):
        who = chance.choice(["anna", "ben", "cleo", "dora"])
        queue = chance.choice(["learn", "audit", "sample", "gold", "repeat"])
        place = chance.randrange(N_SEED if queue == "gold" else N_POOL)
        label = ("a" if seed_said[place] > 0 else "b") if queue == "gold" else chance.choice(["a", "b", None])
        said = chance.choices(["a", "b", "tie", "skip"], [5, 4, 1, 1])[0]
        more = {} if queue == "gold" else {"margin": chance.gauss(0, 1)}
        row = votes.add(who, place, said, queue, self_label=label, left_is=chance.choice("ab"), **more)
        if said in ("a", "b") and chance.random() < 0.1:
            votes.change(row, chance.choice(["a", "b", "tie"]))
    return votes


# ---- with one another


def test_coefficients_are_those_one_gets_by_hand(votes):
    for place, (anna, ben) in enumerate([("a", "a")] * 8 + [("b", "b")] * 4 + [("a", "b")] * 6 + [("b", "a")] * 2):
        votes.add("anna", place, anna)
        votes.add("ben", place, ben, "audit")
    found = votes.figures()
    assert found.observed.value == pytest.approx(0.6)
    ((one, other, kappa),) = found.couples
    assert (one, other) == ("anna", "ben")
    assert kappa.value == pytest.approx(0.2)  # by chance .7 * .5 + .3 * .5
    by_chance = (24 * 23 + 16 * 15) / (40 * 39)
    assert found.alpha.value == pytest.approx((0.6 - by_chance) / (1 - by_chance))
    assert found.fleiss.value == pytest.approx((0.6 - 0.52) / 0.48)  # .6 squared + .4 squared
    assert (found.everybody.with_others.value, found.everybody.with_others.n) == (0.6, 20)
    assert "60.0 %" in in_words(found)
    assert "0.19" in in_words(found)


def test_intervals_draw_whole_groups(votes, sets):
    chance = np.random.default_rng(0)
    ratings = chance.integers(0, 2, (N_POOL, 2))
    for place, row in enumerate(ratings):
        for who, said in zip(("anna", "ben"), row, strict=True):
            votes.add(who, place, "ab"[said])
    (_, _, kappa) = votes.figures().couples[0]
    expected = cohen(ratings[:, 0], ratings[:, 1], sets[0].group_keys)
    assert (kappa.value, kappa.low, kappa.high) == pytest.approx((expected.value, expected.low, expected.high))


def test_what_judges_a_person_or_settles_a_pair_is_no_second_answer(votes):
    for place in range(5):
        votes.add("anna", place, "a")
        votes.add("anna", place, "b", "repeat")
        votes.add("ben", place, "b", "adjudicate")
        votes.add("ben", place, "skip")
    found = votes.figures()
    assert (found.observed.n_items, found.everybody.with_others.n, found.couples) == (0, 0, ())
    assert "No pair has answers of two people" in in_words(found)


def test_two_people_need_enough_in_common_for_a_figure_of_their_own(votes):
    for place in range(ENOUGH):
        votes.add("anna", place, "a")
        votes.add("ben", place, "ab"[place % 2])
        if place:
            votes.add("cleo", place, "b")
    found = votes.figures()
    assert [(one, other) for one, other, _ in found.couples] == [("anna", "ben")]
    assert found.n_couples == 3


def test_a_person_is_compared_with_the_first_other_who_answered(votes):
    for who, said in (("anna", "a"), ("ben", "b"), ("cleo", "a"), ("dora", "b")):
        votes.add(who, 0, said)
    shares = {person.name: person.with_others for person in votes.figures().people}
    assert {name: (share.value, share.n) for name, share in shares.items()} == {
        "anna": (0.0, 1),
        "ben": (0.0, 1),
        "cleo": (1.0, 1),
        "dora": (0.0, 1),
    }


def test_domains_have_figures_only_where_there_are_several_and_enough_answers(votes):
    for place in range(0, 2 * ENOUGH, 2):
        for who in ("anna", "ben"):
            votes.add(who, place, "a", "sample", margin=1.0)
    assert votes.figures().domains == ()
    votes.add("anna", 1, "b", "sample", margin=1.0)
    cooking, travel = votes.figures().domains
    assert (cooking.name, cooking.n, cooking.with_model.n, cooking.observed.value) == ("cooking", 2 * ENOUGH, ENOUGH, 1)
    assert (travel.name, travel.n, travel.alpha, travel.observed, travel.with_model) == ("travel", 1, None, None, None)


# ---- with the model


def test_only_pairs_drawn_at_random_say_how_right_the_model_is(votes):
    for place, (said, margin, label) in enumerate([("a", 1, "a"), ("b", 1, "b"), ("a", -1, None), ("tie", 1, "a")]):
        votes.add("anna", place, said, ("audit", "sample")[place % 2], margin=margin, self_label=label)
        votes.add("anna", place + 10, said, "learn", margin=margin, self_label=label)
        votes.add("anna", place, said, "gold", self_label="a")
    found = votes.figures()
    anna = found.people[0]
    assert (anna.with_model.value, anna.with_model.n) == (pytest.approx(1 / 3), 3)
    assert (anna.with_label.value, anna.with_label.n) == (1.0, 2)
    assert (found.labelled.n, found.unlabelled.n, found.unlabelled.value) == (2, 1, 0.0)


def test_everybody_counts_each_pair_once(votes):
    for who in ("anna", "ben", "cleo"):
        votes.add(who, 0, "a", "audit", margin=1.0, self_label="a")
        votes.add(who, 0, "a", "gold", self_label="a")
    found = votes.figures()
    everybody = found.everybody
    assert (everybody.n, everybody.side.share.n) == (6, 6)  # sides are drawn for each person
    assert everybody.with_model.n == everybody.with_label.n == everybody.with_seed.n == 1
    assert [person.with_model.n for person in found.people] == [1, 1, 1]


def test_changed_minds_do_not_flatter_the_model(votes):
    for place in range(6):
        row = votes.add("anna", place, "b", "audit", margin=1.0, self_label="a")
        if place < 4:
            votes.change(row, "a")
    row = votes.add("anna", 6, "a", "audit", margin=1.0, self_label="a")
    votes.change(votes.change(row, "b"), "tie")
    votes.change(votes.add("anna", 0, "b", "gold", self_label="a"), "a")
    found = votes.figures()
    anna = found.people[0]
    assert (anna.with_model.value, anna.with_model.n) == (pytest.approx(1 / 7), 7)
    assert (anna.with_label.value, anna.with_label.n) == (pytest.approx(1 / 7), 7)
    assert anna.with_seed.value == 0
    assert anna.changed == found.everybody.changed == Changed(towards=4, away=1, neither=1)


def test_who_changes_their_mind_stays_the_first_to_have_answered(votes):
    row = votes.add("anna", 0, "b", "audit", margin=1.0, self_label="a")
    votes.add("ben", 0, "a", "audit", margin=1.0, self_label="a")
    votes.change(row, "a")
    everybody = votes.figures().everybody
    assert (everybody.with_model.value, everybody.with_label.value) == (0.0, 0.0)


def test_an_answer_given_anew_after_an_undo_or_a_skip_does_not_flatter_it_either(votes):
    """What the model thinks is shown after each vote, so the second showing of the pair is not blind."""
    for first in ("b", "skip"):
        row = votes.add("anna", len(votes.rows), first, "audit", margin=1.0, self_label="a")
        votes.undo(row)
        votes.rows.append(replace(row, id=len(votes.rows) + 1, verdict="left", left_is="a", token=f"again-{first}"))
    anna = votes.person("anna")
    assert anna.n == 2
    assert (anna.with_model.value, anna.with_model.n) == (0.0, 1)
    assert (anna.with_label.value, anna.with_label.n) == (0.0, 1)


def test_swapping_the_sides_of_showings_changes_no_agreement(votes):
    many(votes)
    chance = random.Random(1)

    def swapped(row: Review) -> Review:
        verdict = {"left": "right", "right": "left"}.get(row.verdict, row.verdict)
        return replace(row, verdict=verdict, left_is="b" if row.left_is == "a" else "a")

    flipped = {row.pair: chance.random() < 0.5 for row in votes.rows}
    before, after = (
        figures(rows, *votes.sets) for rows in (votes.rows, [swapped(r) if flipped[r.pair] else r for r in votes.rows])
    )
    assert before.everybody.side != after.everybody.side
    people = [[replace(p, side=None) for p in (found.everybody, *found.people)] for found in (before, after)]
    assert people[0] == people[1]
    nothing = {"everybody": None, "people": ()}
    assert str(replace(before, **nothing)) == str(replace(after, **nothing))  # nan is equal to nothing, not itself
    assert before.observed.n_items > 20


# ---- with themselves, with the seed, biases


def test_consistency_and_gold_are_the_counts(votes):
    for place, (first, again) in enumerate([("a", "a"), ("b", "b"), ("a", "b"), ("a", "tie")]):
        votes.add("anna", place, first, left_is="a")
        votes.add("anna", place, again, "repeat", left_is="b")
    votes.add("ben", 50, "a", "repeat")  # what he said at first is undone
    for place, (said, seed) in enumerate([("a", "a"), ("b", "a"), ("tie", "a")]):
        votes.add("anna", place, said, "gold", self_label=seed)
    anna = votes.person("anna")
    assert (anna.with_self.same.value, anna.with_self.same.n) == (0.5, 4)
    assert (anna.with_self.same_side.value, anna.with_self.same_side.n) == (pytest.approx(1 / 3), 3)
    assert (anna.with_seed.value, anna.with_seed.n) == (pytest.approx(1 / 3), 3)
    assert votes.person("ben").with_self.same.n == 0
    assert votes.figures().everybody.with_self == anna.with_self


def test_who_always_chooses_one_side_is_named_and_the_others_are_not(votes):
    for place in range(40):
        votes.add("anna", place, "a", left_is="ab"[place % 2])
        votes.add("ben", place, "ab"[place % 2], left_is="ab"[place % 2])
        votes.add("ben", place, "ab"[place % 2], "repeat", left_is="ba"[place % 2])
    ben = votes.person("ben")
    assert (ben.side.share.value, ben.side.share.n) == (1.0, 40)  # a repeat is no further answer
    said = [alarm.sentence for alarm in warnings(votes.figures()) if alarm.name == "side-of-one"]
    assert len(said) == 1
    assert said[0].startswith("ben seems to favour the left side")


def test_a_person_far_less_consistent_than_the_others_is_named(votes):
    for place in range(40):
        for who in ("anna", "ben", "cleo"):
            votes.add(who, place, "a")
            votes.add(who, place, "b" if who == "cleo" and place % 2 else "a", "repeat")
    said = [alarm for alarm in warnings(votes.figures()) if alarm.name == "inconsistent"]
    assert [alarm.sentence.split()[0] for alarm in said] == ["cleo"]
    assert "50.0 %" in said[0].sentence


def test_erring_alone_is_no_bias_to_length_but_erring_towards_it_is(votes, sets):
    """The seed prefers the shorter one in two of three pairs, so who merely errs chooses the longer one more often than it."""
    seed = sets[1]
    right = np.where(seed.preferred() > 0, "a", "b")
    longer = np.where(
        seed.response_lengths[seed.response_a] > seed.response_lengths[seed.response_b], "a", "b"
    )  # of each pair
    for who in ("anna", "ben"):
        for place in range(N_SEED):
            errs = place % 4 == 0 if who == "anna" else (right[place] != longer[place] and place % 2 == 0)
            said = {"a": "b", "b": "a"}[right[place]] if errs else right[place]
            votes.add(who, place, said, "gold", self_label=str(right[place]))
    anna, ben = votes.person("anna"), votes.person("ben")
    assert anna.errors[0].value == pytest.approx(anna.errors[1].value, abs=0.02)
    assert anna.length.share.value > 1 / 3
    assert (ben.errors[0].value, ben.errors[1].value) == (0.5, 0.0)
    only_ben = figures([row for row in votes.rows if row.annotator == "ben"], *sets)
    only_anna = figures([row for row in votes.rows if row.annotator == "anna"], *sets)
    assert "length" in [alarm.name for alarm in warnings(only_ben)]
    assert "length" not in [alarm.name for alarm in warnings(only_anna)]


def test_skips_ties_flags_and_pace_are_counted(votes):
    votes.add("anna", 0, "tie", active_ms=4_000)
    votes.add("anna", 1, "skip", reason="too long", flagged=True)
    votes.add("anna", 2, "skip")
    votes.add("anna", 3, "a", active_ms=6_000, note="odd")
    found = votes.figures()
    anna = found.people[0]
    assert (anna.n, anna.n_ties, anna.n_skips, anna.n_flagged) == (2, 1, 2, 1)
    assert anna.pace.seconds == 5.0
    assert dict(found.skip_reasons) == {"too long": 1, "no reason given": 1}
    assert [row.id for row in annotators.remarks(votes.rows)] == [4, 2]


# ---- in words


def test_nobody_and_one_person_are_told_so(votes):
    assert in_words(votes.figures()) == "Nobody has answered a pair yet."
    assert warnings(votes.figures()) == []
    votes.add("anna", 0, "a")
    assert in_words(votes.figures()).startswith("One person (anna) has answered so far")
    assert [alarm.name for alarm in warnings(votes.figures())] == []


def test_too_few_pairs_in_common_say_how_many_more(votes):
    votes.add("anna", 0, "a")
    votes.add("ben", 1, "a")
    assert warnings(votes.figures())[0].sentence.startswith("No pair has answers of two people. About 4")
    votes.add("ben", 0, "a")
    assert warnings(votes.figures())[0].sentence.startswith("1 pair has answers of two people.")
    assert annotators.more_needed(votes.person("anna").with_others) > 0


def test_pairs_that_are_gone_break_nothing(votes, sets):
    votes.add("anna", 0, "a", pair="0" * 32)
    votes.add("ben", 0, "b", pair="0" * 32)
    assert votes.figures().observed.n_items == 1
    assert annotators.pairs_of(["0" * 32], *sets) == {}
    first = sets[1].pair_keys[0].decode()
    assert annotators.pairs_of([first], *sets)[first].id == first


def test_sides_hold_each_persons_newest_answer(votes):
    votes.add("anna", 0, "a")
    votes.add("ben", 0, "tie")
    votes.add("anna", 0, "b")
    assert annotators.sides(votes.rows) == {"a": [], "b": ["anna"], "tie": ["ben"]}
