from dataclasses import replace

import pytest
from fabricate import KEPT, a_round, end, texts, write_rounds

from ser_backend import jobs
from ser_backend.config import RunConfig
from ser_backend.errors import SerError
from ser_backend.records import Status
from ser_backend.run_folder import RunFolder
from ser_backend.shipping import export


def test_without_runs_the_page_leads_to_train(open_page):
    assert "nothing to export" in texts(open_page("export"))


def test_a_run_without_a_round_leads_to_watch(open_page, failed):
    page = open_page("export")
    assert "no finished round yet" in texts(page)
    assert not page.get("download_button")


def opened(page, fold, run):
    """The fold is opened: its content is drawn only then."""
    page.session_state[f"{fold}-{run.id}"] = True
    return page.run()


def test_a_finished_run_offers_labels_model_and_card(open_page, store, finished):
    page = open_page("export")
    assert export.summary(store, finished.id) == {"human": 30, "review": 0, "self": KEPT, "ties": 0, "held_out": 0}
    assert f"{30 + KEPT} preferences in all" in texts(page)
    offered = {found.proto.label for found in page.get("download_button")}
    assert offered == {"Download everything", "JSONL", "Parquet", "Reward model folder", "Report (HTML)"}
    assert f'# Reward model of the run "my run" ({finished.id})' in texts(opened(page, "card", finished))


def test_the_page_warns_of_what_the_run_did_not_show(open_page, finished):
    assert "No clear effect" in texts(open_page("export"))


def test_of_many_runs_the_one_chosen_is_offered_and_texts_only_when_asked_for(open_page, store, sets, finished):
    other = end(store, sets, Status.SUCCEEDED, [a_round(0), a_round(1), a_round(2)])
    page = open_page("export")
    for run in (finished, other):
        page.selectbox[0].set_value(run.id).run()
        assert not page.exception
        assert f'# Reward model of the run "my run" ({run.id})' in texts(opened(page, "card", run))
    assert not page.toggle(key="report-texts").value


def test_the_page_makes_no_report_before_it_is_asked_for(open_page, finished, monkeypatch):
    import html_report

    monkeypatch.setattr(html_report, "made", lambda *_: pytest.fail("made while the page was drawn"))
    assert "Report (HTML)" in {found.proto.label for found in open_page("export").get("download_button")}


def test_seed_pairs_held_out_are_not_called_ties(open_page, store, sets):
    run = jobs.submit(store, RunConfig(rounds=1), sets["seed"].id, sets["pool"].id, None, "no held-out set", False)
    write_rounds(store, run, [a_round(0)])
    said = texts(open_page("export"))
    assert "10 seed pairs left out" in said
    assert "ties left out" not in said


def test_the_page_says_what_kind_of_model_leaves_and_how_to_distil_it(open_page, finished):
    page = open_page("export")
    assert "linear reward head" in texts(page)
    assert not page.code  # what draws it takes longer to load than the page
    said = texts(opened(page, "distil", finished))
    assert f"python -m ser_backend export {finished.id} --out DIR --distil" in said
    assert "Done before" not in said
    RunFolder.of(finished.id).write_json("distilled/distil", {"sentence": "Distilling costs 1.0 points."})
    assert "Done before: Distilling costs 1.0 points." in texts(page.run())


@pytest.mark.parametrize(("fit", "switch"), [("lora", ["Merge into the base model"]), ("full", [])])
def test_a_fine_tuned_run_is_offered_as_a_plain_model(open_page, store, sets, fit, switch):
    run = jobs.submit(
        store, RunConfig(rounds=1, fit=fit), sets["seed"].id, sets["pool"].id, sets["heldout"].id, fit, False
    )
    found = a_round(0)
    write_rounds(store, run, [replace(found, details=found.details | {"model_folder": "models/000-student"})])
    facts = {"base_model": "bundled", "fit": fit, "max_length": 512, "precision": "float32", "end_token": ""}
    RunFolder.of(run.id).write_json("models/000-student/reward_model", facts)
    if fit == "lora":
        RunFolder.of(run.id).write_json("models/000-student/adapter_config", {})
    page = opened(open_page("export"), "card", run)
    assert "loads with plain transformers" in texts(page)
    assert [found.label for found in page.toggle if found.key != "report-texts"] == switch
    assert "AutoModelForSequenceClassification" in texts(page)
    if switch:
        page.toggle[0].set_value(False).run()
        assert "AutoPeftModelForSequenceClassification" in texts(page)


def test_why_a_download_failed_is_said_after_a_reload(open_page, store, finished, monkeypatch):
    def broken(*_, **__):
        raise SerError("The disk is full of kittens.")

    monkeypatch.setattr(export, "write", broken)
    with pytest.raises(SerError):
        export.bundle(store, finished.id)
    assert "full of kittens" in texts(open_page("export"))
    monkeypatch.undo()


def test_a_model_folder_that_is_gone_is_a_sentence(open_page, store, sets):
    run = jobs.submit(store, RunConfig(rounds=1), sets["seed"].id, sets["pool"].id, sets["heldout"].id, "gone", False)
    found = a_round(0)
    write_rounds(store, run, [replace(found, details=found.details | {"model_folder": "models/000-student"})])
    assert "is missing" in texts(open_page("export"))
