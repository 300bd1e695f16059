"""The form of the import: what values mean, what is filled in, what is warned of, and a file that outlives a reload."""

import json

import pytest
from fabricate import APP, rows, texts
from streamlit.testing.v1 import AppTest

from ser_backend import home
from ser_backend.pairs import PairSet


def button(page, label):
    return next(found for found in page.button if found.label == label)


def box(page, label):
    return next(found for found in page.selectbox if found.label.startswith(label))


def upload(page, name, content):
    page.file_uploader[0].set_value((name, "\n".join(json.dumps(row) for row in content).encode(), "application/json"))
    page = page.run()
    assert not page.exception
    return page


def odd(values, question="question"):
    return [
        {question: f"Why {i}?", "x": f"first {i}", "y": f"second {i}", "winner": v} for i, v in enumerate(values)
    ]  # fmt: skip


def mapped(page):
    for label, column in (("Response A", "x"), ("Response B", "y")):
        box(page, label).set_value(column)
    page = page.run()
    assert not page.exception
    return page


def winners(dataset):
    found = PairSet.open(dataset.id)
    ends = zip(found.pairs(range(found.n_pairs)), found.preferred().tolist(), strict=True)
    said = [{1: pair.response_a.text, -1: pair.response_b.text, 0: "tie"}[label] for pair, label in ends]
    return [text.split()[0] for text in said]


def test_nought_and_one_are_asked_for_before_the_import(open_page, store):
    page = mapped(upload(open_page("data"), "odd.jsonl", odd([0, 1, 1])))
    assert button(page, "Import as seed").disabled
    assert button(page, "Import as seed").help == "Say what “1” and “0” mean."
    assert "Counted in all 3 rows." in texts(page)
    asked = [found for found in page.selectbox if "row" in found.label]
    assert [(found.label, found.value) for found in asked] == [("1 :gray[· 2 rows]", None), ("0 :gray[· 1 row]", None)]
    asked[0].set_value("b")
    page = page.run()
    assert button(page, "Import as seed").help == "Say what “0” means."
    box(page, "0 ").set_value("a")
    page = page.run()
    assert "first 0" in texts(page)
    page = button(page, "Import as seed").click().run()
    assert not page.exception
    (found,) = store.datasets()
    assert winners(found) == ["first", "second", "second"]
    assert found.lineage["mapping"]["values"] == {"0": "a", "1": "b"}


def test_values_that_speak_for_themselves_ask_nothing_and_can_be_said_otherwise(open_page, store):
    page = mapped(upload(open_page("data"), "odd.jsonl", odd(["1", "2", "tie"])))
    assert not button(page, "Import as seed").disabled
    assert [box(page, value).value for value in ("1 ", "2 ", "tie ")] == ["a", "b", "tie"]
    box(page, "tie ").set_value("leave_out")
    page = button(page.run(), "Import as seed").click().run()
    (found,) = store.datasets()
    assert (winners(found), found.n_problems) == (["first", "second"], 1)


def test_a_column_of_many_values_is_called_no_preference(open_page):
    page = mapped(upload(open_page("data"), "odd.jsonl", odd([f"0.{i}1" for i in range(30)])))
    assert "holds many values that name no response" in texts(page)
    assert button(page, "Import as seed").disabled


def test_the_prompt_is_filled_in_where_only_one_column_can_be_it(open_page):
    page = upload(open_page("data"), "odd.jsonl", odd(["a"], "Question"))
    assert (box(page, "Prompt").value, box(page, "Which is preferred").value) == ("Question", "winner")
    both = [{**row, "context": "x"} for row in odd(["a"])]
    page = upload(open_page("data"), "both.jsonl", both)
    assert box(page, "Prompt").value == "(none)"


def test_what_was_said_once_is_filled_in_for_a_file_of_the_same_name(open_page, store):
    page = mapped(upload(open_page("data"), "odd.jsonl", odd([0, 1])))
    for value, meaning in (("0 ", "b"), ("1 ", "a")):
        box(page, value).set_value(meaning)
    button(page.run(), "Import as seed").click().run()
    page = upload(open_page("data"), "odd.jsonl", odd([0, 1, 0]))
    assert "filled in as for odd" in texts(page)
    assert (box(page, "0 ").value, box(page, "1 ").value) == ("b", "a")
    button(page, "Import as seed").click().run()
    assert winners(store.datasets()[0] if store.datasets()[0].n_pairs == 3 else store.datasets()[1])[:2] == [
        "second",
        "first",
    ]


def test_responses_are_called_as_in_the_source_and_a_pools_are_not(open_page):
    page = mapped(upload(open_page("data"), "odd.jsonl", odd(["b"])))
    assert "Response A · x<" in texts(page)
    assert "Response B · y · preferred" in texts(page)
    box_ = next(one for one in page.segmented_control if one.label == "These pairs are")
    page = mapped(box_.set_value("pool").run())
    assert "Response A · x<" not in texts(page)
    assert "One response" in texts(page)


def test_a_pool_with_labels_is_warned_of_before_and_after(open_page, store):
    page = open_page("data")
    page = next(one for one in page.segmented_control if one.label == "These pairs are").set_value("pool").run()
    page = upload(page, "mine.jsonl", rows(5, "x"))
    assert any("A pool keeps no labels" in one.value for one in page.warning)
    page = button(page, "Import as pool").click().run()
    assert any("so they were dropped and stored nowhere" in one.value for one in page.warning)


def test_a_seed_inside_the_heldout_set_is_a_warning_not_a_success(open_page, store, sets):
    page = upload(open_page("data"), "mine.jsonl", rows(10, "heldout"))
    page = button(page, "Import as seed").click().run()
    assert any("All 10 pairs of this seed" in one.value for one in page.warning)
    assert not any("All 10 pairs" in one.value for one in page.success)


@pytest.mark.parametrize(("n_bad", "box"), [(1, "success"), (4, "warning")])
def test_an_import_that_turned_many_rows_away_is_no_success(open_page, n_bad, box):
    bad = {"prompt": "p", "chosen": "", "rejected": "r"}
    page = upload(open_page("data"), "mine.jsonl", [*rows(10, "x"), *[bad] * n_bad])
    page = button(page, "Import as seed").click().run()
    assert any("Imported: mine" in one.value.replace("**", "") for one in page.get(box))


def test_train_waits_for_a_seed_and_a_pool(open_page, store):
    page = upload(open_page("data"), "mine.jsonl", rows(10, "x"))
    page = button(page, "Import as seed").click().run()
    assert button(page, "Go to Train").disabled
    assert "import the pool first" in button(page, "Go to Train").help


# ---- a file that waits


def reloaded(page):
    """The same address in a new session, as a browser asks for it after a reload."""
    fresh = AppTest.from_file(str(APP / "frame.py"), default_timeout=30)
    fresh.query_params["upload"] = page.query_params["upload"]
    fresh = fresh.switch_page("views/data.py").run()
    assert not fresh.exception
    return fresh


def test_a_reload_keeps_the_file_its_role_and_its_columns(open_page, store):
    page = open_page("data")
    page = next(one for one in page.segmented_control if one.label == "These pairs are").set_value("heldout").run()
    page = mapped(upload(page, "odd.jsonl", odd([0, 1])))
    for value, meaning in (("0 ", "b"), ("1 ", "a")):
        box(page, value).set_value(meaning)
    page = reloaded(page.run())
    assert not page.file_uploader
    assert "odd.jsonl" in texts(page)
    assert (box(page, "Response A").value, box(page, "0 ").value) == ("x", "b")
    page = button(page, "Import as held-out").click().run()
    assert not page.exception
    (found,) = store.datasets()
    assert (found.role, winners(found)) == ("heldout", ["second", "first"])
    assert not list((home.home() / "uploads").glob("*"))
    assert page.file_uploader


def test_another_file_can_be_taken_and_the_kept_one_goes(open_page):
    page = reloaded(upload(open_page("data"), "mine.jsonl", rows(5, "x")))
    page = button(page, "Use another file").click().run()
    assert page.file_uploader
    assert not list((home.home() / "uploads").glob("*"))


@pytest.mark.parametrize("token", ["none", "../../etc", "x" * 500, ""])
def test_an_address_that_names_no_kept_file_shows_the_uploader(open_page, token):
    page = upload(open_page("data"), "mine.jsonl", rows(5, "x"))
    page.query_params["upload"] = token
    page = reloaded(page)
    assert page.file_uploader
    assert ("not kept any more" in texts(page)) == bool(token)


def test_a_file_that_somebody_else_uploaded_is_not_given_out(open_page):
    page = upload(open_page("data"), "mine.jsonl", rows(5, "x"))
    (facts,) = (home.home() / "uploads").glob("*/.chosen.json")
    facts.write_text(json.dumps(json.loads(facts.read_text()) | {"user": "Ada"}))
    assert reloaded(page).file_uploader
