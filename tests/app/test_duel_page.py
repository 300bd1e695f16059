"""The A/B of a policy on Review: what the browser is told and what not, votes, undo, the result's card."""

import json
import time

import desk as at_desk
import duel_folder
import pytest
import reading
from duel import voting
from duel.result import opened
from duel.voting import take
from fabricate import figures, texts

from ser_backend import duel, review
from ser_backend.records import User

HIDDEN = ("trained", "start", "left_is", "reward", "margin", "judge")


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """AppTest is faster than any reader."""
    monkeypatch.setattr(review.votes, "FASTEST_S", 0.0)


@pytest.fixture
def policy(store):
    return duel_folder.finished_policy()


def sent(page):
    """What the browser gets of the desk."""
    (component,) = page.get("bidi_component")
    return json.loads(component.proto.json)


def chosen(page):
    """The page with the A/B on it."""
    return page.segmented_control(key="reviewed").set_value("A/B of a policy").run()


def press(page, store, verdict, who="me", name="first", **more):
    """What the browser sends for a key, and the drawing after it."""
    kind = {"kind": "undo"} if verdict == "undo" else {"kind": "vote", "verdict": verdict}
    if verdict != "undo":
        kind["token"] = sent(page)["pairs"][0]["token"]
    entry = {"id": f"{time.monotonic_ns()}", "seen_ms": 2_000, **kind, **more}
    take(page.session_state["ser"].duel, duel.DuelDesk(store, duel.Duel(name)), who, [entry])
    return page.run()


def test_a_policy_trained_anew_under_its_name_shows_what_it_writes_now(ser_home, monkeypatch):
    def texts():
        return set(opened("first").by_id)  # a pair's id is made of its texts

    duel_folder.finished_policy(n=12)
    before = texts()
    duel_folder.finished_policy(n=13)
    assert texts() != before
    monkeypatch.setenv("SER_HOME", str(ser_home / "another"))
    duel_folder.finished_policy(n=12)
    assert texts() == before


def test_without_a_policy_the_page_is_as_it_was(open_page, finished):
    page = open_page("review")
    assert not page.get("button_group") or all(group.key != "reviewed" for group in page.get("button_group"))
    assert sent(page)["verdicts"] is None
    assert sent(page)["key"].startswith(finished.id)


def test_a_policy_alone_can_be_compared_without_any_run(open_page, store, policy):
    page = open_page("review")
    assert "no run whose pairs could be reviewed" in texts(page)
    page = chosen(page)
    assert not page.exception
    assert sent(page)["verdicts"] == ["left", "right", "tie", "skip"]
    assert len(sent(page)["pairs"]) == 4
    assert page.query_params["policy"] == "first"


def test_the_address_names_the_policy(store, policy):
    from fabricate import APP
    from streamlit.testing.v1 import AppTest

    duel_folder.finished_policy("newer", n=3)
    page = AppTest.from_file(str(APP / "frame.py"), default_timeout=30)
    page.query_params["policy"] = "first"
    page = page.switch_page("views/review.py").run()
    assert not page.exception
    assert sent(page)["key"] == "duel/first/me"
    page = page.selectbox(key="versus").set_value("newer").run()
    assert sent(page)["key"] == "duel/newer/me"
    assert "3 prompts done" in sent(page)["progress"]


def test_nothing_of_who_wrote_what_goes_to_the_browser(open_page, store, policy):
    """A pair is sent as what two texts look like, beside a random token; so it is the same whichever model wrote which."""
    page = chosen(open_page("review"))
    for _ in range(3):
        page = press(page, store, "left")
        assert sent(page)["last"] == "Left is better."
        found = json.dumps(sent(page))
        assert not any(word in found.lower() for word in HIDDEN)
        showings = page.session_state["ser"].duel.showings
        for told in sent(page)["pairs"]:
            assert set(told) == {"token", "size", "most", "view"}
            pair = showings[told["token"]].pair
            sides = (pair.start, pair.trained) if pair.left_is == "start" else (pair.trained, pair.start)
            assert told["view"] == json.loads(json.dumps(at_desk._bare(reading.view(pair.prompt, *sides))))
            assert pair.id not in found
    rest = {name: value for name, value in sent(page).items() if name not in ("pairs", "done", "last", "progress")}
    assert rest == {
        "key": "duel/first/me", "trouble": False, "changeable": None, "front": "", "empty": voting.END, "guidelines": None,
        "verdicts": ["left", "right", "tie", "skip"], "hint": voting.HINT,
    }  # fmt: skip


def test_votes_undo_and_skip_reach_the_store(open_page, store, policy):
    page = chosen(open_page("review"))
    before = [pair["token"] for pair in sent(page)["pairs"]]
    page = press(page, store, "right", note="hm", flagged=True, strength=2)
    (row,) = store.duel_votes("first")
    assert (row.verdict, row.annotator, row.note, row.flagged) == ("right", "me", "hm", True)
    assert [pair["token"] for pair in sent(page)["pairs"]][:3] == before[1:]
    assert sent(page)["progress"] == "1 answer of yours · 1 of 12 prompts done"
    page = press(page, store, "skip", reason="cannot tell")
    page = press(page, store, "undo")
    assert sent(page)["last"] == "Undone: skipped."
    assert sent(page)["pairs"][0]["token"] == sent(page)["front"]
    page = press(page, store, "undo")
    assert sent(page)["last"] == "Undone: right is better."
    page = press(page, store, "undo")
    assert "no answer of yours" in sent(page)["last"]
    assert page.session_state["ser"].duel.trouble is False


def test_the_same_entry_twice_is_one_vote_and_no_other_answer_is_taken(open_page, store, policy):
    page = chosen(open_page("review"))
    at, bench, token = (
        page.session_state["ser"].duel,
        duel.DuelDesk(store, duel.Duel("first")),
        sent(page)["pairs"][0]["token"],
    )
    entry = {"id": "x", "kind": "vote", "token": token, "verdict": "left", "seen_ms": 900}
    take(at, bench, "me", [entry, entry])
    take(at, bench, "me", [{**entry, "id": "y"}])  # the receipt was lost with a reload
    assert (at.last, at.trouble) == ("Left is better.", False)
    take(at, bench, "me", [{**entry, "id": "z", "verdict": "right"}])
    assert "in another tab (left is better)" in at.last
    take(at, bench, "me", [{**entry, "id": "w", "verdict": "both_good"}])
    assert "an answer that is none" in at.last
    assert [row.verdict for row in store.duel_votes("first")] == ["left"]


def test_the_result_is_folded_until_asked_for(open_page, store, policy):
    page = press(chosen(open_page("review")), store, "tie")
    assert "wins" not in texts(page)
    page = page.toggle(key="result-first").set_value(True).run()
    assert not page.exception
    assert "Not settled yet: the trained model wins 50.0 %" in texts(page)
    assert "1 vote of 1 person on 1 prompt of 12" in texts(page)
    assert figures(page)


def test_an_annotator_votes_and_sees_no_result(open_page, store, policy, monkeypatch):
    import who

    anna = store.add_user(User("anna", "annotator", "", True, ""), None)
    monkeypatch.setattr(who, "_by_token", lambda store: anna)
    page = chosen(open_page("review"))
    assert not page.toggle
    page = press(page, store.acting(anna), "left", who="anna")
    assert [row.annotator for row in store.duel_votes("first")] == ["anna"]
    assert not page.exception


def test_the_number_of_people_is_set_on_the_page(open_page, store, policy):
    page = chosen(open_page("review"))
    page.number_input(key="versus-overlap-first-1").set_value(2).run()
    assert store.duel_overlap("first") == 2


def test_the_end_and_pairs_on_other_desks_are_told(open_page, store):
    duel_folder.finished_policy("small", n=2)
    page = chosen(open_page("review"))
    for _ in range(2):
        page = press(page, store, "left", name="small")
    assert "You have come to the end" in sent(page)["empty"]
    duel_folder.finished_policy("other", n=2)
    duel.DuelDesk(store, duel.Duel("other")).hand_out("ben", 2)
    page = page.run().selectbox(key="versus").set_value("other").run()
    assert "other people's desks" in sent(page)["empty"]


def test_hostile_texts_are_text(open_page, store):
    from ser_backend.policy.folder import RESPONSES

    folder = duel_folder.finished_policy("bad", n=1)
    for when, text in (("before", "<script>alert(1)</script>"), ("after", "![x](http://x) $a$ **b**")):
        folder.write(
            RESPONSES.format(when),
            {"responses": [{"prompt": "<b>p</b>", "response": text, "rewards": [0.0], "judge": 0.0}]},
        )
    page = press(chosen(open_page("review")), store, "left", name="bad")
    assert not page.exception
    page = page.toggle(key="result-bad").set_value(True).run()
    assert "<script>" not in texts(page)


# ---- the card on the policy's page


def strip(store, folder):
    """The card alone, as the page of policies mounts it."""
    from streamlit.testing.v1 import AppTest

    def script(name):
        import components
        import duel

        from ser_backend.policy.folder import PolicyFolder

        duel.strip(components.open_store(), PolicyFolder.of(name))

    page = AppTest.from_function(script, kwargs={"name": folder.name}, default_timeout=30)
    return page


def test_the_card_tells_nothing_votes_and_many(store, policy, monkeypatch):
    import streamlit as st

    led = []
    monkeypatch.setattr(st, "page_link", lambda page, **more: led.append((page, more["query_params"])))
    page = strip(store, policy).run()
    assert not page.exception
    assert "Nobody has compared the two yet." in texts(page)
    assert led == [("views/review.py", {"policy": "first"})]
    bench = duel.DuelDesk(store, duel.Duel("first"))
    while shown := bench.hand_out("anna"):
        bench.vote(shown[0], "left" if shown[0].left_is == "trained" else "right", seen_ms=900)
    page = page.run()
    assert not page.exception
    assert "People prefer the trained model" in texts(page)
    assert "12 votes of 1 person on 12 prompts of 12" in texts(page)
    assert "reward model run" in texts(page)


def test_there_is_no_card_for_a_policy_that_is_not_trained(store):
    from ser_backend.policy.folder import PolicyFolder

    page = strip(store, PolicyFolder.of("none")).run()
    assert not page.exception
    assert texts(page).strip() == ""


def test_the_chart_names_everybody_and_says_when_it_is_empty():
    import charts

    from ser_backend.records import Interval

    assert "Nobody has compared" in charts.win_rates([]).layout.annotations[0].text
    figure = charts.win_rates(
        [("people", "people", Interval(0.6, 0.5, 0.7, 90)), ("<b>r</b>", "reward", Interval(0.8, 0.7, 0.9, 90))]
    )
    assert figure.layout.yaxis.ticktext == ("people", "&lt;b&gt;r&lt;/b&gt;")
    people = figure.data[0]
    assert (people.x[0], people.error_x.array[0], people.error_x.arrayminus[0]) == pytest.approx((0.6, 0.1, 0.1))
    assert len({trace.marker.symbol for trace in figure.data[:2]}) == 2
