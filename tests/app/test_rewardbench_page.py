"""The RewardBench part of Playground, with the process it asks replaced; the engine makes figures of rewards given here."""

import json

import charts
import numpy as np
import pytest
from fabricate import figures, texts

from ser_backend import rewardbench
from ser_backend.reward_model import Rewarder
from ser_backend.rewardbench.evaluation import as_json
from ser_backend.rewardbench.published import WEIGHTS
from ser_backend.scorer import client

EVIL = "<b>x</b> *y* $z$"


def judge():
    """Rewards the number a text ends with."""

    def read(responses):
        yield np.arange(len(responses)), np.array([float(r.text.split()[-1]) for r in responses])

    return Rewarder("judge", "judge", read)


def bench(tmp_path, rows):
    path = tmp_path / "bench.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rewardbench.evaluate(judge(), str(path))


def row(subset, chosen=1, rejected=0):
    return {"prompt": "p", "subset": subset, "chosen": f"a longer one {chosen}", "rejected": f"b {rejected}"}


@pytest.fixture
def opened(open_page, finished, monkeypatch, tmp_path):
    """The page while a file is in this state."""

    def made(**told):
        begun = []
        facts = {
            "what": "rewardbench",
            "state": "running",
            "done": 0,
            "total": 0,
            "said": "",
            "found": {},
            "out": "/none",
        }
        monkeypatch.setattr(client, "ensure_scorer", lambda: pytest.fail("a process was to be started"))
        monkeypatch.setattr(client, "begin_file", lambda store, *asked: begun.append(asked) or "f1")
        monkeypatch.setattr(client, "look_at_file", lambda store, name: facts | told)
        page = open_page("playground")
        page.get("button_group")[0].set_value("RewardBench file")
        page = page.run()
        page.text_input[0].set_value("/data/bench.parquet")
        page = next(button for button in page.button if button.label == "Measure the model").click().run()
        assert not page.exception
        assert begun == [("rewardbench", f"run:{finished.id}", "/data/bench.parquet")]
        return page

    return made


def test_it_tells_how_far_it_is(opened):
    assert "30 of 120 texts" in opened(done=30, total=120).get("progress")[0].proto.text


def test_one_that_failed_says_why(opened):
    assert (
        "no RewardBench file"
        in opened(state="failed", said="x is no RewardBench file: it has no subset.").error[0].value
    )


def test_without_a_file_nothing_begins(open_page, finished, monkeypatch):
    monkeypatch.setattr(client, "begin_file", lambda *_: pytest.fail("begun"))
    page = open_page("playground")
    page.get("button_group")[0].set_value("RewardBench file")
    page = page.run()
    page = next(button for button in page.button if button.label == "Measure the model").click().run()
    assert "Upload a file" in texts(page)


def test_the_outcome_is_in_words_drawn_and_taken_home(opened, tmp_path):
    rows = [row(name) for name in WEIGHTS] + [row("math-prm", 0, 1), row(EVIL), {"prompt": "p", "subset": "x"}]
    found = bench(tmp_path, rows)
    (tmp_path / "out.json").write_text("{}")
    page = opened(state="done", found=json.loads(json.dumps(as_json(found))), out=str(tmp_path / "out.json"))
    said = texts(page)
    # three sections are whole, and Reasoning is (984 / 2 + 6 * 164) / 1968
    assert "RewardBench 1: 93.8 %" in said.replace("\\", "")
    assert "the mean of the four sections. 1 row could not be used" in said
    assert "always to take the longer response reaches" in said
    assert [expander.label for expander in page.expander][-3:] == [
        "Sections", "Subsets", "Rows that could not be used (1)",
    ]  # fmt: skip
    assert not any("<b>x" in element.value.replace("\\<", "") for element in (*page.markdown, *page.caption))
    labels = [button.proto.label for button in page.get("download_button")]
    assert labels == ["CSV", "LaTeX", "Markdown", "All figures (JSON)"]
    assert len(figures(page)) == 1


# ---- the figure


def test_the_figure_shows_intervals_chance_and_length_and_escapes_names(tmp_path):
    figure = charts.rewardbench(bench(tmp_path, [row("math-prm"), row("math-prm", 0, 1), row("hep-go"), row(EVIL)]))
    chance, length, model = figure.data
    assert list(figure.layout.yaxis.ticktext) == [
        "All rows alike", "Reasoning", "&lt;b&gt;x&lt;/b&gt; *y* $z$", "math-prm", "hep-go",
    ]  # fmt: skip
    assert set(chance.x) == {0.5}
    assert list(length.x) == [1.0] * 5  # the chosen one is always longer
    at = list(figure.layout.yaxis.ticktext).index("math-prm")
    assert model.x[at] == 0.5
    assert model.error_x.array[at] > 0
    assert len(set(model.y)) == 5
    assert len({trace.marker.symbol for trace in figure.data}) == 3  # not told apart by colour alone


def test_ties_has_no_chance_level(tmp_path):
    lists = {"chosen": ["a 2", "b 2"], "rejected": ["c 1"]}
    rows = [{"id": "tied:1", "prompt": "p", "subset": "Ties", **lists}]
    rows.append({"id": "ref:1", "prompt": "p", "subset": "Ties", "chosen": ["a 2"], "rejected": ["c 1"]})
    figure = charts.rewardbench(bench(tmp_path, rows))
    assert len(figure.data[0].x) == 0
    assert list(figure.layout.yaxis.ticktext) == ["Ties"]
    lonely = charts.rewardbench(bench(tmp_path, rows[:1]))
    assert lonely.layout.annotations[0].text == "Nothing in this file has a figure."
