import pytest
from fabricate import KEPT, texts

from ser_backend import export


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
    assert f"# Reward model {finished.id}" in texts(page)


@pytest.mark.parametrize("run", ["finished"])
def test_the_page_warns_of_what_the_run_did_not_show(open_page, request, run):
    request.getfixturevalue(run)
    assert "cannot be told" in texts(open_page("export"))
