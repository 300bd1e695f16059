"""The Compare page: none, one, two, many runs, one that failed, and runs measured on different held-out sets."""

import numpy as np
import pytest
import sqlalchemy as sa
from fabricate import a_round, end, figures, rows, texts, write_jsonl, write_rounds

from ser_backend import ingest, jobs
from ser_backend.compare import comparison
from ser_backend.compare.comparison_tables import MOST
from ser_backend.config import RunConfig
from ser_backend.errors import Forbidden
from ser_backend.metrics import accuracy
from ser_backend.pairs import PairSet
from ser_backend.records import Status, User
from ser_backend.run_folder import RunFolder


@pytest.fixture
def measured(store, sets):
    """A run that gets so many of the ten held-out pairs right, as its rewards say."""

    def make(name, n_right, project="", **settings):
        run = end(store, sets, Status.SUCCEEDED, [], **settings)
        preferred = PairSet.open(sets["heldout"].id).preferred()
        margin = np.where(np.arange(10) < n_right, preferred, -preferred).astype(np.float32)
        found = accuracy(margin, preferred)
        round_ = a_round(0, heldout=found, control=found, difference=(0.0, 0.0, 0.0))
        write_rounds(store, run, [round_])
        folder = RunFolder.of(run.id)
        kept = folder.round_arrays(0)
        folder.write_round(round_, {**kept, "heldout_margin": margin, "heldout_margin_control": margin}, None)
        store.move_run(run.id, project)
        return store.run(run.id)

    return make


def pick(page, *runs):
    page.multiselect(key="compare-runs").set_value([run.id for run in runs])
    page = page.run()
    assert not page.exception
    return page


def compared(open_page, *runs):
    """The page with these runs picked."""
    return pick(open_page("compare"), *runs)


def tables(page):
    return [list(frame.value.columns) for frame in page.dataframe]


def test_without_runs_and_with_one_the_page_leads_to_train(open_page, store, sets):
    assert "There is no run yet." in texts(open_page("compare"))
    end(store, sets, Status.SUCCEEDED, [a_round(0)])
    page = open_page("compare")
    assert "to compare takes two" in texts(page)
    assert not figures(page)


def test_two_runs_are_compared_pair_by_pair(open_page, measured):
    one, other = measured("one", 9), measured("other", 2, tau_delta=0.5)
    page = compared(open_page, one, other)
    said = texts(page)
    assert "B (my run) is worse than A (my run): -70.0 points (" in said
    assert "on 10 held-out pairs" in said
    assert len(figures(page)) == 4
    assert "minus A" in tables(page)[0]
    settings = page.dataframe[1].value
    assert settings.to_numpy().tolist() == [["tau_delta", "0.3", "0.5"]]
    assert "One change at a time" in texts(page)
    assert page.dataframe[3].value.iloc[0, 0] == "tau_delta: 0.3 -> 0.5"
    assert [b.label for b in page.get("download_button")] == ["CSV", "LaTeX", "Markdown"] * 3
    assert [b.label for b in page.button] == ["Download figure", "Try a variant"]


def test_at_first_the_newest_runs_of_one_held_out_set_are_picked_and_the_others_named(
    open_page, store, sets, measured, tmp_path
):
    old = [measured(f"run {i}", 5 + i) for i in range(3)]
    newer = measured("elsewhere", 6)
    other = ingest.import_source(store, write_jsonl(tmp_path / "o.jsonl", rows(12, "other")), "heldout").dataset
    with store.engine.begin() as to:
        to.execute(sa.text("update runs set heldout = :to where id = :id"), {"to": other.id, "id": newer.id})
    page = open_page("compare")
    assert page.multiselect(key="compare-runs").value == [run.id for run in old]
    assert "Left out: 1 run measured on another" in texts(page)
    assert "not all measured on the same held-out set" not in texts(page)
    page = pick(page, old[0], newer)
    assert "not all measured on the same held-out set" in texts(page)
    assert "Left out" not in texts(page)


def test_noise_is_called_so_with_the_pairs_it_would_take(open_page, measured):
    page = compared(open_page, measured("one", 7), measured("other", 6))
    said = texts(page)
    assert "cannot be told apart" in said
    assert "That is within noise." in said
    assert "held-out pairs" in said.split("would take about")[1]
    assert "Nothing: they have the same settings" in said


def test_many_runs_have_a_reference_and_share_the_five_percent(open_page, measured):
    runs = [measured(f"run {i}", 3 + i % 3) for i in range(MOST)]
    page = compared(open_page, *runs)
    said = texts(page)
    assert f"{MOST - 1} comparisons with one run share the 5 %" in said
    assert said.count("cannot be told apart") + said.count("no difference at all") == MOST - 1
    page = page.selectbox(key="compare-reference").set_value(runs[2].id).run()
    assert not page.exception
    assert "A (my run) and C (my run)" in texts(page)


def test_a_run_that_failed_shows_why_and_its_settings_are_compared(open_page, store, sets, measured):
    failed = end(store, sets, Status.FAILED, [], "The machine ran out of memory.", random_seed=7)
    page = compared(open_page, measured("one", 7), failed)
    said = texts(page)
    assert "B (my run) has no finished round, so only its settings are compared. The machine ran out of memory." in said
    assert ["random_seed", "0", "7"] in page.dataframe[1].value.to_numpy().tolist()
    only = pick(page, failed, end(store, sets, Status.FAILED, [], "Again."))
    assert "None of these runs has a finished round." in "".join(figures(only))


def test_runs_on_different_held_out_sets_are_said_not_to_be_on_one_scale(open_page, store, sets, measured, tmp_path):
    first = measured("one", 7)
    other = ingest.import_source(store, write_jsonl(tmp_path / "h2.jsonl", rows(12, "elsewhere")), "heldout").dataset
    run = jobs.submit(store, RunConfig(rounds=1), sets["seed"].id, sets["pool"].id, other.id, "other", False)
    write_rounds(store, run, [a_round(0)])
    said = texts(compared(open_page, first, run))
    assert "not all measured on the same held-out set" in said
    assert "so which is better is not known" in said


def test_runs_are_offered_by_project(open_page, measured):
    kept = [measured("one", 7, "north"), measured("two", 6, "north"), measured("three", 5, "south")]
    page = open_page("compare")
    assert [run.id for run in kept] == page.multiselect(key="compare-runs").value
    page = pick(page, *kept[:2]).selectbox(key="compare-project").set_value("north").run()
    assert not page.exception
    assert len(page.multiselect(key="compare-runs").options) == 2
    assert "Runs" in [m.label for m in page.multiselect]


def test_a_name_is_neither_markup_nor_a_formula(open_page, store, measured):
    one, other = measured("one", 7), measured("two", 6)
    with store.engine.begin() as tx:
        tx.execute(sa.text("update runs set name = '=1+1 **bold** <b>$x$' where id = :id"), {"id": one.id})
    page = compared(open_page, one, other)
    spoken = [m.value for m in page.markdown if "bold" in m.value]
    assert spoken
    assert all("**bold**" not in value and "<b>" not in value.replace("\\<b", "") for value in spoken)
    assert page.dataframe[0].value["run"][0].startswith("'=1+1")


def test_the_figure_is_asked_for_in_a_dialog_on_white(open_page, measured):
    page = compared(open_page, measured("one", 7), measured("two", 6))
    page = next(b for b in page.button if b.label == "Download figure").click().run()
    assert not page.exception
    assert page.selectbox(key="figure-name").options[0] == "Accuracy by round"
    drawn = page.get("plotly_chart")[-1].proto
    assert '"format": "svg"' in drawn.config
    assert "#FFFFFF" in drawn.spec


def test_a_variant_begins_with_the_reference_on_train(open_page, measured):
    one, other = measured("one", 7, random_seed=3), measured("two", 6)
    page = compared(open_page, one, other)
    page = next(b for b in page.button if b.label == "Try a variant").click().run()
    assert not page.exception
    assert "What should the model learn from?" in texts(page)
    assert page.selectbox(key="begin-run").value == one.id
    assert page.number_input(key=f"setting-run-{one.id}-random_seed").value == 3


def test_an_annotator_is_kept_out(store, measured):
    run = measured("one", 7)
    store.add_user(User("Ada", "owner", "", True, ""), "password1")
    ben = store.acting(store.add_user(User("Ben", "annotator", "", True, ""), "password2"))
    with pytest.raises(Forbidden):
        comparison.outcome(ben, run.id)
