"""The page with the process it asks replaced; the process itself is tested in tests/backend/test_scorer.py."""

import charts
import numpy as np
import pytest
import words
from fabricate import a_round, end, figures, texts, write_rounds

from ser_backend.attribution import Effects, levels
from ser_backend.errors import SerError
from ser_backend.records import Status, User
from ser_backend.run_folder import RunFolder
from ser_backend.scorer import choice, client
from ser_backend.scorer.comparing import compared


@pytest.fixture(autouse=True)
def asked(monkeypatch):
    """What was asked; answers are made from the length of a response."""
    found = []

    def ask(store, models, prompt, responses):
        store.require("see_rewards")
        found.append((list(models), prompt, list(responses)))
        arms = np.array([[len(text) / 10 + fold / 50 for fold in range(6)] for text in responses])
        told = compared(arms).as_dict()
        read = [{"tokens": 9, "prompt_cut": len(t) > 99, "response_cut": len(t) > 199} for t in responses]
        return [{"model": name, **told, "read": read, "kind": "head", "max_length": 64, "notes": []} for name in models]

    monkeypatch.setattr(client, "ask", ask)
    monkeypatch.setattr(client, "ensure_scorer", lambda: pytest.fail("a process was to be started"))
    return found


def pressed(page, label):
    page = next(button for button in page.button if button.label == label).click().run()
    assert not page.exception
    return page


def test_the_model_is_loaded_while_one_writes_and_nothing_is_asked_before_something_is_written(
    open_page, finished, no_scorer, asked
):
    page = open_page("playground")
    assert no_scorer == [f"run:{finished.id}"]
    ask = next(button for button in page.button if button.label == "Ask the model")
    assert ask.disabled
    page = page.text_area(key="playground-pane-0").set_value("One.").run()
    assert not next(button for button in page.button if button.label == "Ask the model").disabled
    assert no_scorer == [f"run:{finished.id}"], "begun once"
    page = pressed(page, "Ask the model")
    assert "Write two responses at least" in texts(page)
    assert asked == []


def filled(page, *responses, prompt="What?"):
    for place in range(2, len(responses)):
        page = pressed(page, "Add a response")
        assert page.text_area[place + 1].label == f"Response {place + 1}"
    page.text_area[0].set_value(prompt)
    for place, text in enumerate(responses):
        page.text_area[place + 1].set_value(text)
    return page.run()


def test_without_runs_the_page_leads_to_train(open_page):
    page = open_page("playground")
    assert "There is no run yet" in texts(page)
    assert not page.text_area


def test_a_run_without_a_round_leads_to_watch(open_page, failed):
    assert "no finished round yet" in texts(open_page("playground"))


def test_the_model_in_force_is_asked_and_its_answer_put_into_words(open_page, finished, asked):
    page = pressed(filled(open_page("playground"), "x" * 10, "y" * 20), "Ask the model")
    assert asked == [([f"run:{finished.id}"], "What?", ["x" * 10, "y" * 20])]
    said = texts(page)
    assert "Response 2 is the best" in said
    assert "1.00 ± 0.00 ahead of response 1: preferred to it with probability 73 %" in said  # sigmoid(1)
    assert "arbitrary offset" in said
    assert "Plackett" not in said  # of two there is nothing to add
    table = page.dataframe[0].value
    assert list(table["rank"]) == [2, 1]
    assert list(table["characters"]) == [10, 20]
    assert len(figures(page)) == 1


def test_of_three_there_is_a_table_of_probabilities_and_a_softmax(open_page, finished):
    page = pressed(filled(open_page("playground"), "x" * 10, "y" * 20, "z" * 5), "Ask the model")
    assert "Plackett and Luce" in texts(page)
    assert len(figures(page)) == 2
    shares = page.dataframe[0].value["best of all, %"]
    assert sum(shares) == pytest.approx(100)


def test_nothing_is_asked_about_a_single_response(open_page, finished, asked):
    page = pressed(filled(open_page("playground"), "only one", " "), "Ask the model")
    assert "two responses at least" in texts(page)
    assert not asked


def test_panes_come_and_go_and_an_answer_to_older_texts_says_so(open_page, finished):
    page = filled(open_page("playground"), *["abcdefgh"[: n + 1] for n in range(8)])
    labels = {button.label: button for button in page.button}
    assert labels["Add a response"].disabled
    page = pressed(pressed(page, "Ask the model"), "Remove the last")
    assert len(page.text_area) == 8
    assert "this is the answer to what stood there before" in texts(page)


def test_what_the_model_could_not_read_is_warned_of(open_page, finished):
    page = pressed(filled(open_page("playground"), "x" * 120, "y" * 250), "Ask the model")
    said = [warning.value for warning in page.warning]
    assert len(said) == 2
    assert "With response 1 the text is longer than the 64 tokens" in said[0]
    assert "Response 2 is longer than the 64 tokens" in said[1]


def test_texts_of_a_person_stay_texts(open_page, finished, monkeypatch):
    evil = "<img src=x onerror=alert(1)> *bold* $x$ [a](http://evil.example)"
    effects = Effects("occlusion", (evil,), (0.5,), 1.0, 0.5)
    monkeypatch.setattr(client, "explain", lambda *_: effects)
    page = pressed(filled(open_page("playground"), evil, "y"), "Ask the model")
    page = pressed(page, "Show which words matter")
    shown = [element.proto.body for element in page.get("html")]
    assert any("&lt;img src=x" in body for body in shown)
    assert not any("<img" in body for body in shown)
    assert not any("evil.example" in element.value for element in page.markdown)


def test_one_model_that_cannot_answer_does_not_hide_the_others(open_page, finished, monkeypatch):
    good = client.ask

    def ask(store, models, prompt, responses):
        return [*good(store, models, prompt, responses), {"model": "run:x:seed", "error": "It is gone."}]

    monkeypatch.setattr(client, "ask", ask)
    page = pressed(filled(open_page("playground"), "x", "yy"), "Ask the model")
    assert [error.value.replace("\\", "") for error in page.error] == ["run:x:seed: It is gone."]
    assert page.dataframe


def test_a_process_that_cannot_start_is_told_in_words_and_one_can_ask_again(open_page, finished, monkeypatch, asked):
    good = client.ask

    def fails(*_):
        raise SerError("The scoring process could not start: no memory. Mend that, then ask again.")

    monkeypatch.setattr(client, "ask", fails)
    page = pressed(filled(open_page("playground"), "x", "yy"), "Ask the model")
    assert "could not start" in page.error[0].value
    assert page.text_area[1].value == "x"  # nothing that was written is lost
    monkeypatch.setattr(client, "ask", good)
    page = pressed(page, "Ask the model")
    assert not page.error
    assert len(asked) == 1


def test_models_that_differ_can_be_asked_side_by_side(open_page, store, finished, asked):
    folder = RunFolder.of(finished.id)
    assert [one.label for one in choice.choices(store, finished.id)] == ["in use (round 1, the same as the seed model)"]
    moved = folder.round_arrays(1) | {"weights": np.full((6, 4), 2.0), "control": np.ones((6, 4))}
    folder.write_round(a_round(1), moved, None)
    assert [one.label for one in choice.choices(store, finished.id)] == ["in use (round 1)", "seed model", "control"]
    page = open_page("playground")
    names = [f"run:{finished.id}", f"run:{finished.id}:seed", f"run:{finished.id}:control"]
    page.get("button_group")[1].set_value(names)
    page = pressed(filled(page.run(), "x" * 10, "y" * 20), "Ask the model")
    assert asked[0][0] == names
    assert list(page.dataframe[0].value["model"]) == ["in use (round 1)"] * 2 + ["seed model"] * 2 + ["control"] * 2


def test_another_runs_answer_is_not_shown_under_this_one(open_page, store, sets, finished):
    other = end(store, sets, Status.SUCCEEDED, [a_round(0)])
    page = open_page("playground")
    page.selectbox[0].set_value(finished.id).run()
    page = pressed(filled(page, "x", "yy"), "Ask the model")
    assert page.dataframe
    page.selectbox[0].set_value(other.id).run()
    assert not page.dataframe
    assert page.text_area[1].value == "x"


@pytest.mark.parametrize("of", ["pool", "held-out set"])
def test_a_random_pair_fills_the_panes_as_it_stands(open_page, finished, of):
    page = pressed(filled(open_page("playground"), "a", "b", "c"), f"Try a random pair ({of})")
    assert len(page.text_area) == 3
    assert "question" in page.text_area[0].value
    assert "<b>Bad</b>" in page.text_area[1].value + page.text_area[2].value
    said = texts(page)
    assert ("People preferred response" in said) == (of != "pool")


def test_annotators_do_not_get_in(open_page, store, finished, monkeypatch):
    import who

    store.add_user(User("Ada", "owner", "", True, ""), "long enough")
    ben = store.add_user(User("Ben", "annotator", "", True, ""), "long enough")
    monkeypatch.setattr(who, "_by_token", lambda store: ben)
    page = open_page("playground")
    assert not page.text_area
    assert "annotator" in texts(page)


# ---- files


def choose(page, what):
    group = page.get("button_group")[0]
    group.set_value(what)
    return page.run()


@pytest.fixture
def file_of(open_page, finished, monkeypatch):
    """The page while a file is in this state."""

    def opened(button, **told):
        facts = {"what": "score", "state": "running", "done": 0, "total": 0, "said": "", "found": {}, "out": "/none"}
        begun = []
        monkeypatch.setattr(client, "begin_file", lambda store, *asked: begun.append(asked) or "f1")
        monkeypatch.setattr(client, "look_at_file", lambda store, name: facts | told)
        page = choose(open_page("playground"), button)
        page.text_input[0].set_value("/data/x.jsonl")
        label = "Find the best" if button == "Best of n" else "Score the file"
        page = next(found for found in page.button if found.label == label).click().run()
        assert not page.exception
        assert [asked[0] for asked in begun] == ["best_of" if button == "Best of n" else "score"]
        assert begun[0][2] == "/data/x.jsonl"
        return page

    return opened


def test_a_file_under_way_tells_how_far_it_is(file_of):
    page = file_of("Score a file", done=30, total=120)
    assert "30 of 120 texts" in page.get("progress")[0].proto.text


def test_a_file_that_failed_says_why(file_of):
    page = file_of("Score a file", state="failed", said="There is no such file.")
    assert "There is no such file." in page.error[0].value


def test_a_scored_file_can_be_taken_home(file_of, tmp_path):
    (tmp_path / "out.jsonl").write_text("{}\n")
    found = {"rows": 3, "problems": 1, "notes": ["A note."]}
    page = file_of("Score a file", state="done", found=found, out=str(tmp_path / "out.jsonl"))
    assert "Rewards for 3 rows. 1 row could not be used." in texts(page)
    assert page.get("download_button")


def test_best_of_n_is_drawn_with_its_kl(file_of, tmp_path):
    (tmp_path / "out.jsonl").write_text("{}\n")
    curve = [{"n": n, "kl": n - 1.0, "gain": n - 1.0, "low": 0.0, "high": n, "prompts": 9} for n in (1, 2, 3)]
    found = {"rows": 9, "problems": 0, "notes": [], "in_words": "It rises.", "curve": curve}
    page = file_of("Best of n", what="best_of", state="done", found=found, out=str(tmp_path / "out.jsonl"))
    assert "It rises." in texts(page)
    (drawn,) = figures(page)
    assert "KL 2.00 nats, n = 9 prompts" in drawn


def test_a_file_whose_process_is_gone_says_so(file_of, monkeypatch):
    def gone(*_):
        raise SerError("The scoring process is not there any more, and what it was doing is lost. Begin again.")

    page = file_of("Score a file")
    monkeypatch.setattr(client, "look_at_file", gone)
    page = page.run()
    assert "Begin again" in page.warning[0].value


# ---- figures


def test_figures_say_why_they_are_empty_and_escape_names():
    assert "No model" in charts.margins([], []).layout.annotations[0].text
    assert charts.preferences(["a"], [[0.5]]).layout.annotations
    assert charts.best_of([(1, 0.0, 0.0, 0.0, 0.0, 3)]).layout.annotations
    figure = charts.margins(["<b>x</b>", "y"], [("m", [-1.0, 0.0], [0.2, 0.0])])
    assert figure.layout.yaxis.ticktext[0] == "&lt;b&gt;x&lt;/b&gt;"
    assert list(figure.data[0].error_x.array) == [0.2, 0.0]


def test_words_are_told_by_line_and_width_and_not_by_colour_alone():
    shown = words.marked(("good ", "<i>bad</i>"), (0.4, -0.2), levels((0.4, -0.2)))
    assert '<span class="ser-up4" title="+0.400">good</span> ' in shown
    assert '<span class="ser-down2" title="-0.200">&lt;i&gt;bad&lt;/i&gt;</span>' in shown
    assert "underline solid" in shown
    assert "underline wavy" in shown
    assert "+0.40" in shown


def test_a_round_that_is_added_meanwhile_is_the_one_asked(store, finished):
    name = choice.choices(store, finished.id)[0].name
    before = choice.resolve(name).stamp
    folder = RunFolder.of(finished.id)
    moved = folder.round_arrays(1) | {"weights": np.full((6, 4), 3.0)}
    write_rounds(store, finished, [])
    folder.write_round(a_round(2), moved, None)
    assert choice.resolve(name).stamp != before
