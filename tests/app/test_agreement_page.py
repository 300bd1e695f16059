from itertools import count

import charts
import pytest
import state
from fabricate import APP, KEPT, N_POOL, figures, texts
from streamlit.testing.v1 import AppTest

from ser_backend.pairs import PairSet
from ser_backend.records import User
from ser_backend.review import undo

NUMBER = count()


def answer(store, run, who, place, said, queue="learn", **more):
    """said: a, b, tie or skip, of the pool's pair at that place."""
    left_is = "ab"[(place + len(who)) % 2]
    verdict = said if said in ("tie", "skip") else "left" if said == left_is else "right"
    n = next(NUMBER)
    facts = {"pair": PairSet.open(run.pool).pair_keys[place].decode(), "queue": queue, "left_is": left_is}
    facts |= {"round": 1, "margin": 1.0, "self_label": None, "reason": "", "shown_at": 10.0 * n, "supersedes": None}
    facts |= {"answered_at": 10.0 * n + 5, "token": f"t{n}", **more}
    return store.add_review(overlap=9, run=run.id, annotator=who, verdict=verdict, **facts)


def buttons(page):
    return [found.label for found in page.button]


def downloads(page):
    return [found.proto.label for found in page.get("download_button")]


def expanders(page):
    return {found.label: found for found in page.expander}


def test_without_a_run_or_an_answer_the_page_says_where_to_go(open_page, finished, store):
    page = open_page("agreement")
    assert "Nobody has answered a pair of this run yet." in texts(page)
    assert not figures(page)
    assert buttons(page) == downloads(page) == []


def test_without_a_run_the_page_leads_to_train(open_page):
    assert "nobody can have answered" in texts(open_page("agreement"))


def test_one_persons_answers_tell_of_bias_and_consistency_but_not_of_agreement(open_page, finished, store):
    for place in range(12):
        answer(store, finished, "anna", place, "a", "audit", self_label="ab"[place % 2])
        answer(store, finished, "anna", place, "a", "repeat")
    page = open_page("agreement")
    said = texts(page).replace("\u00a0", " ")
    assert "One person (anna) has answered so far" in said
    assert "With one another" not in said
    assert "100.0 % (73.5 to 100.0, n = 12)" in said  # with the model, and with herself
    assert "50.0 % (21.1 to 78.9, n = 12)" in said  # with the self-labels, and left
    assert "only pairs drawn at random count" in said
    assert page.segmented_control[0].options == ["The model", "Self-labels", "Themselves", "Left side", "Longer one"]
    assert downloads(page) == ["CSV", "JSONL"]
    assert not any(label.startswith("Settle") for label in buttons(page))


@pytest.fixture
def team(finished, store):
    """Three people; of every four pairs they disagree on one."""
    for place in range(N_POOL):
        for who in ("anna", "ben", "=cleo"):
            said = "b" if who == "ben" and place % 4 == 0 else "a"
            label = "a" if place < KEPT else None
            answer(store, finished, who, place, said, "audit" if label else "sample", self_label=label)
    return finished


def test_many_people_are_compared_and_their_disagreements_can_be_settled(open_page, team, store):
    page = open_page("agreement")
    said = texts(page).replace("\u00a0", " ")
    assert "Two answers to one pair are the same in 83.3 %" in said
    assert "With one another" in said
    assert "40 pairs have answers of two people. About" in said
    assert len(figures(page)) == 1
    table = page.dataframe[0].value
    assert sorted(table["annotator"]) == ["'=cleo", "anna", "ben"]
    assert all(share.strip().startswith(("100.0 % (", "75.0 % (")) for share in table["the model"])
    assert sorted(table["the model"])[0].strip().startswith("75.0")  # the order of letters is that of the values
    apart = expanders(page)[f"Where people disagree ({N_POOL // 4} pairs)"]
    shown = "\n".join(getattr(found.proto, "body", "") for found in apart.get("html"))
    assert "Response a · anna, =cleo" in shown
    assert "Response b · ben" in shown
    assert "&lt;b&gt;Bad&lt;/b&gt;" in shown
    page = next(found for found in page.button if found.label.startswith("Settle 10 disagree")).click().run()
    assert not page.exception
    assert page.session_state[state.QUEUE] == "adjudicate"
    assert "Which response is better?" in texts(page)


def test_every_measure_has_its_figure(open_page, team):
    page = open_page("agreement")
    titles = set()
    for measure in ("couples", "model", "label", "left", "longer", "others"):
        page = page.segmented_control[0].set_value(measure).run()
        assert not page.exception
        titles.add(figures(page)[0].partition("</figcaption>")[0])
    assert len(titles) == 6


def test_flags_notes_and_skips_are_listed_as_they_were_written(open_page, finished, store):
    answer(store, finished, "anna", 0, "a", flagged=True, note="*both* are <b>wrong</b>")
    answer(store, finished, "ben", 1, "skip", reason="=too long")
    page = open_page("agreement")
    card = expanders(page)["Flags and notes (1 answer)"]
    assert "*both* are <b>wrong</b>" in card.markdown[0].value.replace("\\", "")
    assert "No pair has answers of two people." in texts(page)
    skips = expanders(page)["Why pairs were skipped (1)"].dataframe[0].value
    assert skips.to_dict("records") == [{"reason": "'=too long", "skips": 1}]


def test_what_was_undone_is_gone_at_the_next_drawing(open_page, team, store):
    page = open_page("agreement")
    assert "120 answers" in texts(page)
    undo(store, team.id, "anna")
    assert "119 answers" in texts(page.run())


def test_annotators_are_told_that_the_page_is_not_for_them(team, store):
    store.add_user(User("olga", "owner", "", True, ""), "a long password")
    store.add_user(User("anna", "annotator", "", True, ""), "a long password")
    for name, allowed in (("anna", False), ("olga", True)):
        page = AppTest.from_file(str(APP / "frame.py"), default_timeout=30).switch_page("views/agreement.py")
        _, token = store.sign_in(name, "a long password")
        page.session_state[state.KEY] = state.Session(token=token)
        page.run()
        assert not page.exception
        assert ("'anna' is an annotator" in texts(page)) is not allowed
        assert bool(figures(page)) is allowed
        assert bool(page.dataframe) is allowed


# ---- the figure


def test_the_figure_holds_every_interval_and_few_answers_are_hollow():
    found = [("anna", 0.8, 0.7, 0.9, 60), ("ben", 0.5, 0.2, 0.8, 8), ("new", float("nan"), 0.0, 1.0, 0)]
    figure = charts.agreement("a title", "a share", found, 20, (0.5, "guessing"))
    many, few = figure.data[:2]
    assert (list(many.x), list(many.y), list(few.x), list(few.y)) == ([0.8], [1], [0.5], [0])
    assert (many.marker.symbol, few.marker.symbol) == ("circle", "circle-open")
    assert many.error_x.array[0] == pytest.approx(0.1)
    assert few.error_x.arrayminus[0] == pytest.approx(0.3)
    assert list(figure.layout.yaxis.ticktext) == ["ben", "anna"]
    assert many.customdata[0][1] == "80.0 % (70.0 to 90.0, n = 60)"
    assert figure.layout.title.text == "a title"
    assert figure.data[2].name == "guessing"


def test_names_are_no_markup_and_two_alike_when_cut_stay_two():
    long = "a" * 40
    figure = charts.agreement("t", "x", [(f"{long}{i}", 0.5, 0.4, 0.6, 30) for i in range(2)], 20)
    assert len(figure.layout.yaxis.tickvals) == 2
    figure = charts.agreement("t", "x", [("<a href='x'>b</a>", 0.5, 0.4, 0.6, 30)], 20)
    assert "<a" not in figure.layout.yaxis.ticktext[0] + figure.data[0].customdata[0][0]


def test_without_answers_the_figure_says_so():
    assert "no answers" in charts.agreement("t", "x", [], 20).layout.annotations[0].text
