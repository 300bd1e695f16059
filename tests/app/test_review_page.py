import json
import re
import time
from dataclasses import replace

import desk as at_desk
import numpy as np
import pytest
import reading.desk
from fabricate import KEPT, N_POOL, texts

from ser_backend import review
from ser_backend.pairs import PairSet
from ser_backend.records import Status
from ser_backend.review import Desk
from ser_backend.run_folder import RunFolder
from ser_backend.store import in_force


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """AppTest is faster than any reader."""
    monkeypatch.setattr(review.votes, "FASTEST_S", 0.0)


def sent(page):
    """What the browser gets of the desk."""
    (component,) = page.get("bidi_component")
    return json.loads(component.proto.json)


def send(page, store, run, kind="vote", **entry):
    """What the browser sends for a key, and the drawing after it; AppTest itself cannot speak for a component."""
    entry = {"id": f"{time.monotonic_ns()}", "kind": kind, "seen_ms": 2_000, **entry}
    at_desk.take(page.session_state["ser"].desk, store, review.Desk(store, run.id), "me", [entry])
    return page.run()


def press(page, store, run, verdict, **more):
    if verdict == "undo":
        return send(page, store, run, "undo")
    return send(page, store, run, token=sent(page)["pairs"][0]["token"], verdict=verdict, **more)


def pair_on(page):
    return sent(page)["pairs"][0]["view"]


def test_without_runs_the_page_leads_to_train(open_page):
    assert "no run whose pairs could be reviewed" in texts(open_page("review"))


def test_a_run_without_a_round_leads_to_watch(open_page, failed):
    assert "no finished round yet" in texts(open_page("review"))


def test_nothing_of_the_model_goes_to_the_browser_before_the_vote(open_page, finished):
    page = open_page("review")
    said = sent(page)
    assert set(said["pairs"][0]) == {"token", "size", "most", "view"}
    assert (said["last"], said["changeable"]) == ("", None)
    assert "margin" not in json.dumps(said)


@pytest.mark.parametrize("verdict", ["left", "right", "tie", "both_good", "both_bad", "skip"])
def test_a_vote_reaches_the_store_and_the_next_pair_is_there(open_page, store, finished, verdict):
    page = open_page("review")
    before = sent(page)["pairs"]
    page = press(
        page, store, finished, verdict, strength=2, note="hm", flagged=True, reason="cannot tell", active_ms=1500
    )
    assert not page.exception
    (answer,) = store.reviews(finished.id)
    assert (answer.verdict, answer.annotator, answer.queue) == (verdict, "me", "learn")
    assert answer.strength == (2 if verdict in ("left", "right") else None)
    assert (answer.flagged, answer.note, answer.active_ms, answer.blind) == (True, "hm", 1500, True)
    assert [pair["token"] for pair in sent(page)["pairs"]][:3] == [pair["token"] for pair in before[1:]]
    assert len(sent(page)["pairs"]) == at_desk.AHEAD
    assert sent(page)["last"].startswith(at_desk.IN_WORDS[verdict].capitalize())


def test_the_least_sure_pair_comes_first(open_page, store, finished):
    press(open_page("review"), store, finished, "left")
    margins = [abs(-2 + 4 * i / (N_POOL - 1)) for i in range(KEPT, N_POOL)]
    assert abs(store.reviews(finished.id)[0].margin) == pytest.approx(min(margins), abs=1e-6)


def test_undo_brings_the_pair_back_as_the_first(open_page, store, finished):
    page = open_page("review")
    before = pair_on(page)
    page = press(press(page, store, finished, "left"), store, finished, "undo")
    assert not in_force(store.reviews(finished.id))
    assert "Undone: left is better" in sent(page)["last"]
    assert sent(page)["front"] == sent(page)["pairs"][0]["token"]
    assert pair_on(page) == before


def test_a_changed_mind_is_kept_beside_the_blind_answer(open_page, store, finished):
    page = press(open_page("review"), store, finished, "left")
    assert sent(page)["changeable"] is not None
    page = send(page, store, finished, "change", of=sent(page)["changeable"])
    first, second = store.reviews(finished.id)
    assert (second.verdict, second.blind, second.supersedes) == ("right", False, first.id)
    assert first.blind
    assert "Changed to: right is better" in sent(page)["last"]


def test_an_entry_that_comes_twice_counts_once(open_page, store, finished):
    page = open_page("review")
    token = sent(page)["pairs"][0]["token"]
    for _ in range(2):
        page = send(page, store, finished, id="the same", token=token, verdict="left")
    page = send(page, store, finished, id="its receipt was lost", token=token, verdict="left")
    assert not sent(page)["trouble"]
    page = send(page, store, finished, id="another tab", token=token, verdict="right")
    assert sent(page)["trouble"]
    assert "in another tab (left is better)" in sent(page)["last"]
    assert len(store.reviews(finished.id)) == 1


@pytest.mark.parametrize("nonsense", [{"kind": "vote"}, {"kind": "vote", "verdict": "undo"}, {"kind": "what"}, {}])
def test_an_entry_that_makes_no_sense_changes_nothing(open_page, store, finished, nonsense):
    page = open_page("review")
    page = send(page, store, finished, **{"kind": "", "seen_ms": "soon", "token": None, **nonsense})
    assert not page.exception
    assert store.reviews(finished.id) == []


def test_a_vote_for_a_pair_that_somebody_else_has_by_now_changes_nothing(open_page, store, finished):
    page = open_page("review")
    shown = page.session_state["ser"].desk.showings[sent(page)["pairs"][0]["token"]]
    store.release(finished.id, "me")  # as an expired lease is
    review.vote(store, review.Desk(store, finished.id).next("ben", "learn"), "right")
    page = send(page, store, finished, token=shown.token, verdict="left")
    assert [answer.verdict for answer in store.reviews(finished.id)] == ["right"]
    assert "ben answered this pair in the meantime" in sent(page)["last"]
    assert sent(page)["trouble"]


def test_a_key_that_comes_too_fast_is_not_counted(open_page, store, finished, monkeypatch):
    page = open_page("review")
    before = pair_on(page)
    monkeypatch.setattr(review.votes, "FASTEST_S", 60.0)
    page = press(page, store, finished, "left")
    assert not store.reviews(finished.id)
    assert pair_on(page) == before
    assert "was not counted" in sent(page)["last"]


def test_only_audits_tell_the_precision(open_page, store, finished):
    page = press(open_page("review"), store, finished, "left")
    assert "12 self-labels in force, none of them checked yet." in texts(page)
    page = page.segmented_control(key="queue").set_value("audit").run()
    page = press(page, store, finished, "left")
    assert "self-labels they checked" in texts(page)
    assert "n = 1)" in texts(page)
    assert "The self-label of round 1 says" in sent(page)["last"]


def test_a_reload_goes_on_where_the_store_is(open_page, store, finished):
    page = press(open_page("review"), store, finished, "left")
    again = open_page("review")
    assert pair_on(again) == pair_on(page)
    assert "1 answer so far, by everybody" in texts(again)
    assert "1 answer of yours" in sent(again)["progress"]


def test_the_counts_above_and_below_are_of_one_kind(open_page, store, finished):
    """A skip is an answer in neither, a tie a check in both, and what may lag says when it was counted."""
    page = open_page("review").segmented_control(key="queue").set_value("audit").run()
    for verdict in ("left", "tie", "skip", "right"):
        page = press(page, store, finished, verdict)
    said = texts(open_page("review"))
    assert "3 answers of yours" in sent(page)["progress"]
    assert "3 answers so far, by everybody" in said
    found = Desk(store, finished.id).precision()
    assert (found.answered, found.ties, found.skips, found.total.n) == (3, 1, 1, 2)
    options = page.segmented_control(key="queue").options
    assert f"Random check (3 of {found.n_kept})" in options
    assert f"of {found.total.n} self-labels they checked" in said
    assert f"drawn at random from {found.n_kept}" in said
    assert re.search(r"As of \d\d:\d\d:\d\d; counted again every \d+ s", said)


def test_checks_of_labels_that_a_round_took_away_are_told_apart(open_page, store, finished):
    page = open_page("review").segmented_control(key="queue").set_value("audit").run()
    page = press(page, store, finished, "left")
    folder = RunFolder.of(finished.id)
    arrays = folder.round_arrays(1)
    (row,) = PairSet.open(finished.pool).rows_of([store.reviews(finished.id)[0].pair])
    arrays["kept_round"] = np.where(arrays["kept_round"] > 0, 2, 0).astype(np.int16)  # labelled anew in round 2
    arrays["kept_round"][:, row], arrays["human"][row] = 0, 1
    folder.write_round(replace(next(r for r in folder.rounds() if r.index == 1), index=2), arrays, None)
    said = texts(open_page("review"))
    assert (
        "self-labels in force, none of them checked yet. Checks of earlier rounds were of labels no longer in force"
        in said
    )
    assert re.search(r"\(round 1: [01] of 1 right\)", said)


def test_retrain_says_what_it_will_use_and_queues_a_round(open_page, store, finished):
    page = press(press(open_page("review"), store, finished, "left"), store, finished, "tie")
    assert "1 new preference, 1 new tie" in texts(page)
    page = page.button(key="retrain").click().run()
    assert store.run(finished.id).status == Status.QUEUED
    assert "Is it getting better?" in texts(page)
    assert "under way" in texts(open_page("review"))


def test_show_more_unfolds_both_sides(open_page, store, finished, monkeypatch):
    monkeypatch.setattr(at_desk, "FOLDED", (5, 1_000))
    monkeypatch.setattr(reading.desk, "WINDOW", 0)
    at_desk._view.clear()
    page = open_page("review")
    pair = sent(page)["pairs"][0]
    assert pair["view"]["left"]["hidden"] > 0
    page = send(page, store, finished, "more", of=pair["token"])
    again = sent(page)["pairs"][0]
    assert (again["token"], again["size"]) == (pair["token"], 1)
    assert (again["view"]["left"]["hidden"], again["view"]["right"]["hidden"]) == (0, 0)


def test_the_least_sure_pairs_left_are_not_said_to_be_unclear(open_page, store, finished):
    """Where the model is sure of every pair left, "hardly tells them apart" would contradict "99% sure"."""
    page = press(open_page("review"), store, finished, "left")
    assert sent(page)["last"].endswith(
        "Shown because: of the pairs left, it is one of those the model is least sure of."
    )


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


def test_a_calibrated_run_begins_with_the_recommended_mix_and_says_why_after_each_pair(open_page, store, finished):
    with_queues(store, finished)
    page = open_page("review")
    assert page.segmented_control(key="queue").value == "mixed"
    for _ in range(8):
        page = press(page, store, finished, "left")
        assert "Shown because:" in sent(page)["last"]
    assert not page.exception
    assert {r.queue for r in store.reviews(finished.id)} == {"learn", "audit", "sample"}


def test_the_mix_can_be_changed(open_page, store, finished):
    with_queues(store, finished)
    page = open_page("review")
    for name in ("sample", "audit", "unsure", "suspect", "gold", "repeat"):
        page = page.slider(key=f"mix-{name}").set_value(0).run()
    page = press(page, store, finished, "left")
    page = press(page, store, finished, "left")
    assert "settles most" in sent(page)["last"]
    assert store.reviews(finished.id)[-1].queue == "learn"


def test_seed_labels_that_look_wrong_are_shown_and_what_they_say_comes_after_the_vote(open_page, store, finished):
    audit = {"share": None, "in_words": "Look at the 3 most suspicious first."}
    with_queues(store, finished, seed_audit=audit, learning_curve={"in_words": "The next 100 bring +0.6 points."})
    page = open_page("review")
    said = texts(page)
    assert "Look at the 3 most suspicious first." in said
    assert "The next 100 bring +0.6 points." in said
    page = page.segmented_control(key="queue").set_value("seed").run()
    page = press(page, store, finished, "left")
    assert "The seed's label says" in sent(page)["last"]
    assert store.reviews(finished.id)[-1].queue == "seed"


def test_while_all_pairs_are_on_other_desks_the_page_waits_and_is_drawn_once(open_page, store, finished):
    desk = review.Desk(store, finished.id)
    desk.hand_out("ben", "learn", n=N_POOL)
    desk.hand_out("cleo", "audit", n=N_POOL)
    page = open_page("review")
    assert "other people's desks" in sent(page)["empty"]
    assert page.session_state["ser"].desk.waits
