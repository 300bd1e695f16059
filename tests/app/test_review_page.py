import time
from dataclasses import replace

import numpy as np
import pytest
from fabricate import KEPT, N_POOL, texts

from ser_backend import review
from ser_backend.records import Status
from ser_backend.run_folder import RunFolder
from ser_backend.store import in_force


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """AppTest is faster than any reader."""
    monkeypatch.setattr(review, "FASTEST_S", 0.0)


def press(page, verdict):
    return page.button(key=f"vote-{verdict}" if verdict != "undo" else "undo").click().run()


def pair_on(page):
    return next(found.proto.body for found in page.get("html") if found.proto.body.startswith("<div"))


def test_without_runs_the_page_leads_to_train(open_page):
    assert "no run whose pairs could be reviewed" in texts(open_page("review"))


def test_a_run_without_a_round_leads_to_watch(open_page, failed):
    assert "no finished round yet" in texts(open_page("review"))


def test_nothing_of_the_model_is_shown_before_the_vote(open_page, finished):
    said = texts(open_page("review"))
    assert "What the model thinks is shown after your answer." in said
    assert "leant" not in said
    assert "self-label of round" not in said


@pytest.mark.parametrize("verdict", ["left", "right", "tie", "both_bad", "skip"])
def test_a_vote_reaches_the_store_before_the_next_pair_appears(open_page, store, finished, verdict):
    page = open_page("review")
    before = pair_on(page)
    page = press(page, verdict)
    assert not page.exception
    (answer,) = store.reviews(finished.id)
    assert (answer.verdict, answer.annotator, answer.queue) == (verdict, "me", "learn")
    assert pair_on(page) != before
    assert "Last pair:" in texts(page)


def test_the_least_sure_pair_comes_first(open_page, store, finished):
    press(open_page("review"), "left")
    margins = [abs(-2 + 4 * i / (N_POOL - 1)) for i in range(KEPT, N_POOL)]
    assert abs(store.reviews(finished.id)[0].margin) == pytest.approx(min(margins), abs=1e-6)


def test_undo_brings_the_pair_back(open_page, store, finished):
    page = open_page("review")
    before = pair_on(page)
    page = press(press(page, "left"), "undo")
    assert not in_force(store.reviews(finished.id))
    assert "Undone: left is better" in texts(page)
    assert pair_on(page) == before


def test_a_vote_for_a_pair_that_somebody_else_answered_changes_nothing(open_page, store, finished):
    mine, other = open_page("review"), open_page("review")
    press(other, "right")
    mine = press(mine, "left")
    assert [answer.verdict for answer in store.reviews(finished.id)] == ["right"]
    assert "was not counted" in texts(mine)


def test_a_key_that_comes_too_fast_is_quietly_left_out(open_page, store, finished, monkeypatch):
    page = open_page("review")
    before = pair_on(page)
    monkeypatch.setattr(review, "FASTEST_S", 60.0)
    page = press(page, "left")
    assert not store.reviews(finished.id)
    assert pair_on(page) == before
    assert not page.error


def test_only_audits_tell_the_precision(open_page, store, finished):
    page = press(open_page("review"), "left")
    assert "none checked yet" in texts(page)
    page = page.segmented_control(key="queue").set_value("audit").run()
    page = press(page, "left")
    assert "self-labels they checked" in texts(page)
    assert "n = 1)" in texts(page)
    assert "The self-label of round 1 says" in texts(page)


def test_a_reload_goes_on_where_the_store_is(open_page, store, finished):
    page = press(open_page("review"), "left")
    again = open_page("review")
    assert pair_on(again) == pair_on(page)
    assert "1 answer so far" in texts(again)


def test_retrain_says_what_it_will_use_and_queues_a_round(open_page, store, finished):
    page = press(press(open_page("review"), "left"), "tie")
    assert "1 new preference, 1 new tie" in texts(page)
    page = page.button(key="retrain").click().run()
    assert store.run(finished.id).status == Status.QUEUED
    assert "Is it getting better?" in texts(page)
    assert "under way" in texts(open_page("review"))


def test_votes_are_quick(open_page, finished):
    page = open_page("review")
    began = time.perf_counter()
    for _ in range(5):
        page = press(page, "left")
    assert (time.perf_counter() - began) / 5 < 1.0


def with_queues(store, run, **details):
    """Lists of pairs by reason, as a calibrated round leaves them."""
    folder = RunFolder.of(run.id)
    last = folder.finished()[-1]
    arrays = folder.round_arrays(last)
    open_rows = np.arange(KEPT, N_POOL)
    arrays |= {"queue_informative": open_rows[::-1].copy(), "queue_unsure": open_rows.copy()}
    arrays |= {"queue_suspect": np.arange(2), "queue_seed": np.arange(3)}
    (round_,) = (r for r in folder.rounds() if r.index == last)
    folder.write_round(replace(round_, details=round_.details | details), arrays, None)


def test_a_calibrated_run_begins_with_the_recommended_mix_and_says_why_each_pair(open_page, store, finished):
    with_queues(store, finished)
    page = open_page("review")
    assert page.segmented_control(key="queue").value == "mixed"
    assert "Why this pair:" in texts(page)
    for _ in range(8):
        page = press(page, "left")
    assert not page.exception
    assert {r.queue for r in store.reviews(finished.id)} == {"learn", "audit", "sample"}


def test_the_mix_can_be_changed(open_page, store, finished):
    with_queues(store, finished)
    page = open_page("review")
    for name in ("sample", "audit", "unsure", "suspect"):
        page = page.slider(key=f"mix-{name}").set_value(0).run()
    page = press(page, "left")
    page = press(page, "left")
    assert "settles most" in texts(page)
    assert store.reviews(finished.id)[-1].queue == "learn"


def test_seed_labels_that_look_wrong_are_shown_and_what_they_say_comes_after_the_vote(open_page, store, finished):
    audit = {"share": None, "in_words": "Look at the 3 most suspicious first."}
    with_queues(store, finished, seed_audit=audit, learning_curve={"in_words": "The next 100 bring +0.6 points."})
    page = open_page("review")
    said = texts(page)
    assert "Look at the 3 most suspicious first." in said
    assert "The next 100 bring +0.6 points." in said
    page = page.segmented_control(key="queue").set_value("seed").run()
    assert "seed's label says" not in texts(page)
    page = press(page, "left")
    assert "The seed's label says" in texts(page)
    assert store.reviews(finished.id)[-1].queue == "seed"
