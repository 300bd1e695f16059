import pytest
from fabricate import KEPT, N_POOL, a_round, certified, end, texts, write_rounds

from ser_backend import alarms, jobs, review
from ser_backend.checks import as_dicts, check
from ser_backend.config import RunConfig
from ser_backend.records import Status
from ser_backend.report import NOTHING_SHARED
from ser_backend.review import Desk, vote
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


# ---- a calibrated run


@pytest.fixture
def calibrated(store, sets):
    """A run that ended after rounds with these details."""

    def make(*rounds, **changed):
        told = [a_round(0), *(a_round(i, details=facts, **changed) for i, facts in enumerate(rounds, start=1))]
        return end(store, sets, Status.SUCCEEDED, told, method="calibrated")

    return make


def titles(page):
    return "".join(found.proto.spec for found in page.get("plotly_chart"))


def columns(page):
    return list(next(found.value for found in page.dataframe).columns)


def test_a_calibrated_run_shows_its_own_pictures_and_what_it_claims(open_page, calibrated):
    calibrated(certified(), certified(flips=0.012, temperature=1.4))
    page = open_page("watch")
    said = texts(page)
    assert f"{KEPT} of {N_POOL} open pairs are labelled; with 95 % confidence at least 80 % of these labels are" in said
    assert "Temperature 1.40 (round before: 1.60) makes it less sure: calibration error 9.0 % before, 3.1 %" in said
    assert "Of the labels kept in this round and before, 1.2 % turned round." in said
    assert "judged on 200 of people's labels" in said
    assert "looked at" not in said
    assert len(page.get("plotly_chart")) == 6
    for title in ("Calibration error 3.1 %", "How sure the teacher is", "How right the kept labels are"):
        assert title in titles(page)
    assert "What the model thinks of the two responses" not in titles(page)
    assert {"certified", "flips"} < set(columns(page))


def test_a_column_that_no_round_knows_is_left_out(open_page, finished):
    assert not {"certified", "flips"} & set(columns(open_page("watch")))


def test_a_calibrated_round_that_kept_nothing_says_why(open_page, calibrated):
    refused = certified()["certificate"] | {"threshold": None, "why": "nothing is kept: 20 pairs cannot show 80 %"}
    calibrated(certified(certificate=refused, claimed_precision=None, certificates={}), n_kept=0)
    page = open_page("watch")
    assert f"None of {N_POOL} open pairs is labelled: 20 pairs cannot show 80 %." in texts(page)
    assert "How right the kept labels are" not in titles(page)


def test_where_no_prompt_has_two_labels_the_page_says_what_that_means(open_page, calibrated):
    calibrated(certified())
    assert NOTHING_SHARED not in texts(open_page("watch"))
    calibrated(certified(shared_prompts=0))
    assert NOTHING_SHARED in texts(open_page("watch"))


def test_audits_enter_the_claim_and_raise_an_alarm(open_page, store, calibrated, monkeypatch):
    monkeypatch.setattr(review.votes, "FASTEST_S", 0.0)
    monkeypatch.setattr(alarms, "FEWEST_AUDITS", 10)
    run = calibrated(certified())
    for _ in range(10):
        shown = Desk(store, run.id).next("anna", "audit")
        vote(store, shown, "right" if shown.self_label == shown.left_is else "left")
    said = texts(open_page("watch"))
    assert "Audited so far: 0 of 10 right, 0.0 % (0.0 to 30.8)." in said
    assert "The claim does not hold on this pool." in said


def test_alarms_stand_near_the_top_and_are_folded_when_they_are_many(open_page, store, sets):
    off = {"model_round": 1, "model_is_control": False, "reward_mean": 0.9}
    end(store, sets, Status.SUCCEEDED, [a_round(0), a_round(1, details=off)])
    page = open_page("watch")
    assert ":material/warning:] The mean reward is +0.90" in texts(page)
    assert not any("alarm" in label for label in expanders(page))
    seed = a_round(0, n_human=900, details={"model_round": 0, "model_is_control": False, "reward_spread": 2.0})
    domains = {"cooking": [900, 500], "travel": [90, 0]}
    off |= {"reward_spread": 0.1, "longer_seed": 0.5, "longer_kept": 0.9, "domains": domains}
    end(store, sets, Status.SUCCEEDED, [seed, a_round(1, details=off, n_kept=500)])
    card = expanders(open_page("watch"))["4 alarms: look before you go on"]
    assert len(card.markdown) == 4


def test_what_another_rule_kept_is_told_in_its_own_words(open_page, store, sets):
    naive = a_round(1, details={"model_round": 1, "model_is_control": False, "stage": "all"})
    end(store, sets, Status.SUCCEEDED, [a_round(0), naive], method="naive")
    said = texts(open_page("watch"))
    assert f"kept {KEPT}: every pair in which the model prefers one response." in said
