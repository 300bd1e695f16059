from fabricate import a_round, end, texts, write_rounds

from ser_backend import jobs
from ser_backend.checks import as_dicts, check
from ser_backend.config import RunConfig
from ser_backend.records import Status
from ser_backend.run_folder import RunFolder


def labels(page):
    return [found.label for found in page.button]


def test_without_runs_the_page_leads_to_train(open_page):
    page = open_page("watch")
    assert "There is no run yet." in texts(page)


def test_a_finished_run_is_drawn_and_put_into_words(open_page, finished):
    page = open_page("watch")
    said = texts(page)
    assert "finished" in said
    assert f"Accuracy now: {a_round(1).heldout}" in said
    assert "No clear effect" in said  # the interval of the difference includes 0
    assert "A note on the data." in said
    assert len(page.get("plotly_chart")) == 5
    assert labels(page) == ["Review pairs", "Retrain", "Export"]


def test_self_labels_that_hurt_are_called_so(open_page, store, sets):
    end(store, sets, Status.SUCCEEDED, [a_round(0), a_round(1, difference=(-0.05, -0.08, -0.02))])
    assert "Self-labels hurt" in texts(open_page("watch"))


def test_a_failed_run_shows_its_sentence_and_can_be_resumed(open_page, store, failed):
    page = open_page("watch")
    assert failed.error in texts(page)
    assert not page.get("plotly_chart")
    assert labels(page) == ["Resume"]
    page = page.button[0].click().run()
    assert store.run(failed.id).status == Status.QUEUED
    assert "Number 1 in the queue" in texts(page)


def test_a_running_run_tells_its_progress_and_can_be_stopped(open_page, store, sets):
    run = jobs.submit(store, RunConfig(), sets["seed"].id, sets["pool"].id, None, "r", False)
    store.claim_job("cpu")
    store.append_event(run.id, "job_started", None, {})
    store.append_event(run.id, "encoding_progressed", None, {"done": 10, "total": 100, "computed": 10})
    page = open_page("watch")
    assert "Reading texts: 10 of 100" in page.get("progress")[0].proto.text
    write_rounds(store, run, [a_round(0)])
    store.append_event(run.id, "round_started", 1, {})
    page = open_page("watch")
    assert "Round 1: 1 of 4" in page.get("progress")[0].proto.text
    page.button[0].click().run()
    assert store.run(run.id).status == Status.STOPPING


def test_retrain_queues_one_more_round(open_page, store, finished):
    page = open_page("watch")
    next(b for b in page.button if b.label == "Retrain").click().run()
    assert [job.rounds for job in store.jobs(run=finished.id)] == [1, 2]


def expanders(page):
    return {found.label: found for found in page.expander}


def test_the_doctors_card_says_what_is_wrong_and_what_to_do(open_page, finished):
    assert not any("Doctor" in label for label in expanders(open_page("watch")))
    folder = RunFolder.of(finished.id)
    before = [check("pad-is-not-end", "ok", "Padding is '[PAD]', the end is '[SEP]'.")]
    folder.write_json("doctor", {"before": as_dicts(before)})
    page = open_page("watch")
    assert expanders(page)["Doctor: 1 check, all fine"].icon == ":material/check_circle:"
    after = [
        check("rewards-finite", "ok", "All of 8 rewards are finite."),
        check("special-strings", "warning", "2 of 9 texts hold a special token, for example '<|end|>'."),
        check("responses-whole", "failed", "3 of 9 texts lose the end of their response."),
        check("reloads-the-same", "skipped", "There is no memory for a second copy of the model."),
    ]
    folder.write_json("doctor", {"before": as_dicts(before), "after": as_dicts(after)})
    card = expanders(open_page("watch"))["Doctor: 4 checks: 1 failed, 1 warning (1 skipped)"]
    assert card.icon == ":material/error:"
    said = [found.value.replace("\\", "") for found in card.markdown]
    order = ["Before training", "[:material/check_circle: fine]", "After training", "[:material/error: failed]"]
    order += ["[:material/warning: warning]", "[:material/check_circle: fine]", "[:material/remove: skipped]"]
    assert len(said) == len(order)
    assert all(part in line for part, line in zip(order, said, strict=True))
    assert "'<|end|>'" in said[4]
    assert [found.value.startswith("What to do: ") for found in card.caption] == [True, True]


def test_a_doctors_file_of_another_version_breaks_nothing(open_page, finished):
    RunFolder.of(finished.id).write_json("doctor", {"later": 3, "after": [{"name": "x", "outcome": "ok"}, "?"]})
    assert "Doctor: 1 check, all fine" in expanders(open_page("watch"))
