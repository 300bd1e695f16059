from fabricate import KEPT, a_round, texts, write_rounds

from ser_backend import export, jobs
from ser_backend.config import RunConfig


def test_without_runs_the_page_leads_to_train(open_page):
    assert "nothing to export" in texts(open_page("export"))


def test_a_run_without_a_round_leads_to_watch(open_page, failed):
    page = open_page("export")
    assert "no finished round yet" in texts(page)
    assert not page.get("download_button")


def test_a_finished_run_offers_labels_model_and_card(open_page, store, finished):
    page = open_page("export")
    assert export.summary(store, finished.id) == {"human": 30, "review": 0, "self": KEPT, "ties": 0, "held_out": 0}
    assert f"{30 + KEPT} preferences in all" in texts(page)
    offered = {found.proto.label for found in page.get("download_button")}
    assert offered == {"Download everything", "JSONL", "Parquet", "Reward model folder"}
    assert f'# Reward model of the run "my run" ({finished.id})' in texts(page)


def test_the_page_warns_of_what_the_run_did_not_show(open_page, finished):
    assert "No clear effect" in texts(open_page("export"))


def test_seed_pairs_held_out_are_not_called_ties(open_page, store, sets):
    run = jobs.submit(store, RunConfig(rounds=1), sets["seed"].id, sets["pool"].id, None, "no held-out set", False)
    write_rounds(store, run, [a_round(0)])
    said = texts(open_page("export"))
    assert "10 seed pairs left out" in said
    assert "ties left out" not in said.split("# Reward model")[0]  # the page; its card counts ties of its own
