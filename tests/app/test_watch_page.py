import json

import numpy as np
import pytest
from fabricate import APP, KEPT, N_POOL, a_round, certified, end, figures, texts, write_rounds
from streamlit.testing.v1 import AppTest

from ser_backend import alarms, jobs, labels_table, notify, review
from ser_backend.config import RunConfig
from ser_backend.health.checks import as_dicts, check
from ser_backend.pairs import PairSet
from ser_backend.records import Interval, Status, User
from ser_backend.report import NOTHING_SHARED
from ser_backend.resources import Meter
from ser_backend.review import Desk, vote
from ser_backend.run_folder import RunFolder

FIGURES = "Every round in figures"
ADDRESS = ["Call this address", "Try it", "Call nobody"]


@pytest.fixture
def open_tab(store):
    """The page with one of its tabs open, as a browser would ask for it. Of the newest run."""

    def opened(tab, **also):
        page = AppTest.from_file(str(APP / "frame.py"), default_timeout=30)
        has_rounds = bool(RunFolder.of(store.runs()[0].id).finished())
        page.session_state[f"behind-{has_rounds}"] = tab
        for key, value in also.items():
            page.session_state[key] = value
        page = page.switch_page("views/watch.py").run()
        assert not page.exception
        return page

    return opened


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
    assert len(figures(page)) == 6
    assert labels(page) == ["Review pairs", "Retrain", "Export", *ADDRESS]


def test_self_labels_that_hurt_are_called_so(open_page, store, sets):
    end(store, sets, Status.SUCCEEDED, [a_round(0), a_round(1, difference=(-0.05, -0.08, -0.02))])
    assert "Self-labels hurt" in texts(open_page("watch"))


def test_a_failed_run_shows_its_sentence_and_can_be_resumed(open_page, store, failed):
    page = open_page("watch")
    assert failed.error in texts(page)
    assert not figures(page)
    assert labels(page) == ["Resume", *ADDRESS]
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
    assert not expanders(page)["Doctor: 1 check, all fine"].proto.expanded
    after = [
        check("rewards-finite", "ok", "All of 8 rewards are finite."),
        check("special-strings", "warning", "2 of 9 texts hold a special token, for example '<|end|>'."),
        check("responses-whole", "failed", "3 of 9 texts lose the end of their response."),
        check("reloads-the-same", "skipped", "There is no memory for a second copy of the model."),
    ]
    folder.write_json("doctor", {"before": as_dicts(before), "after": as_dicts(after)})
    card = expanders(open_page("watch"))["Doctor: 5 checks: 1 failed, 1 warning, 2 fine, 1 skipped"]
    assert card.icon == ":material/error:"
    assert card.proto.expanded, "what failed is not looked for"
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
    return "".join(figures(page))


def columns(page):
    return list(next(found.value for found in page.dataframe).columns)


def test_a_calibrated_run_shows_its_own_pictures_and_what_it_claims(open_page, open_tab, calibrated):
    calibrated(certified(), certified(flips=0.012, temperature=1.4))
    page = open_page("watch")
    said = texts(page)
    assert f"{KEPT} of {N_POOL} open pairs are labelled; with 95 % confidence at least 80 % of these labels are" in said
    assert "Temperature 1.40 (round before: 1.60) makes it less sure: calibration error 9.0 % before, 3.1 %" in said
    assert "Of the labels kept in this round and before, 1.2 % turned round." in said
    assert "judged on 200 of people's labels" in said
    assert "looked at" not in said
    assert len(figures(page)) == 7
    for title in ("Calibration error 3.1 %", "How sure the teacher is", "How right the kept labels are"):
        assert title in titles(page)
    assert "What the model thinks of the two responses" not in titles(page)
    assert {"certified", "flips"} < set(columns(open_tab(FIGURES)))


def test_a_column_that_no_round_knows_is_left_out(open_tab, finished):
    assert not {"certified", "flips"} & set(columns(open_tab(FIGURES)))


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
    assert "Of this round's labels checked at random: 0 of 10 right, 0.0 % (0.0 to 30.8)." in said
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


# ---- what stands behind the answer


def frames(page):
    return [found.value for found in page.dataframe]


def real_arrays(run, index, **more):
    """Adds to a fabricated round what only newer versions leave."""
    folder = RunFolder.of(run.id)
    facts = list(folder.rounds())[index]
    folder.write_round(facts, folder.round_arrays(index) | more, folder.picture(index))


def test_rules_that_read_no_word_stand_beside_the_accuracy(open_page, finished):
    said = texts(open_page("watch"))
    # in the sets of these tests the preferred response is always the shorter of the two
    assert "preferring the shorter response: 100.0 % (72.2 to 100.0)" in said
    assert "The model does not beat a rule that reads no word: preferring the shorter response" in said
    assert "the majority:" in said


def test_the_table_shows_what_a_round_kept_and_what_it_left(open_tab, finished):
    page = open_tab("What it kept")
    assert f"{KEPT} pairs." in texts(page)
    (table,) = frames(page)
    assert len(table) == KEPT
    assert set(table["status"]) == {"in force"}
    assert list(table["sure"]) == sorted(table["sure"], reverse=True)
    assert all(prompt.startswith("pool question") for prompt in table["prompt"])
    page = open_tab("What it kept", **{f"statuses-{finished.id}-1": ["left"]})
    (table,) = frames(page)
    assert set(table["status"]) == {"left"}
    assert len(table) == N_POOL - KEPT
    assert "Select a row" in texts(page)


def test_the_table_says_when_nothing_passes(open_tab, finished):
    page = open_tab("What it kept", **{f"flipped-{finished.id}": True, f"statuses-{finished.id}-1": ["in force"]})
    assert "No pair of this round passes these filters." in texts(page)


def test_the_seed_model_labels_nothing_yet(open_tab, store, sets):
    end(store, sets, Status.SUCCEEDED, [a_round(0)])
    (table,) = frames(open_tab("What it kept"))
    assert set(table["status"]) == {"left"}
    assert "The first self-labelling round is not finished yet." in texts(open_tab("How it chose"))


def test_a_pair_in_full_is_inert_and_tells_its_history(open_tab, store, finished, monkeypatch):
    desk = Desk(store, finished.id)
    monkeypatch.setattr(review.votes, "FASTEST_S", 0.0)
    shown = desk.next("an<b>na", "audit")
    vote(store, shown, "left")
    (row,) = desk.pool.rows_of([shown.pair.id])
    labels = labels_table.of_round(store, finished.id, 1)
    checks = labels_table.checked(store.reviews(finished.id), desk.pool)
    order = labels_table.rows_of(labels, labels_table.Filter(statuses=("in force",)), "surest", checks)
    wanted = hash((labels_table.Filter(statuses=("in force",)), "surest"))
    place = order.tolist().index(row)
    key = f"labels-{finished.id}-1-0-{wanted}"
    page = open_tab("What it kept", **{key: {"selection": {"rows": [place], "columns": [], "cells": []}}})
    bodies = "".join(getattr(e.proto, "body", "") for e in page.get("html"))
    assert "&lt;b&gt;Bad&lt;/b&gt; $" in bodies
    said = texts(page)
    assert "an<b>na, " in said.replace("**", "")
    assert "the self-label of round 1" in said
    history = frames(page)[1]
    assert list(history["round"]) == [0, 1]
    assert list(history["status"]) == ["left", "in force"]


def test_the_table_can_be_taken_home_by_those_who_may(open_tab, finished):
    buttons = [found.proto.label for found in open_tab("What it kept").get("download_button")]
    assert buttons == [f"Download {KEPT} rows as CSV"]


def test_where_the_model_is_wrong_is_shown_by_part(open_tab, store, sets):
    run = end(store, sets, Status.SUCCEEDED, [a_round(0), a_round(1)])
    page = open_tab("Where it is wrong")
    assert "This round left no margins of the held-out pairs" in texts(page)
    margin = np.where(PairSet.open(sets["heldout"].id).preferred() > 0, 1.0, -1.0).astype(np.float32)
    margin[:4] *= -2
    real_arrays(run, 1, heldout_margin=margin, heldout_margin_control=margin)
    page = open_tab("Where it is wrong")
    said = texts(page)
    assert f"Model of round 1: {Interval(0.6, 0.3126738, 0.8318197, 10)}" in said
    assert "Brier score" in said
    assert "By how sure the model is" in titles(page)
    table = frames(page)[0]
    assert set(table["by"]) == {"|margin|", "better response"}


def test_calibration_offset_and_scale_stand_by_round(open_tab, calibrated):
    calibrated(certified(reward_mean=0.25, reward_spread=1.5))
    facts = frames(open_tab(FIGURES))[1]
    assert facts["calibration error"].iloc[1] == "9.0 % → 3.1 % (n = 200)"
    assert facts["Brier score"].iloc[1] == "0.200 → 0.200 (n = 200)"
    assert (facts["reward offset"].iloc[1], facts["reward scale"].iloc[1]) == ("+0.25", "1.50")
    assert facts["temperature"].iloc[1] == "1.60"


def test_random_checks_stand_by_group(open_tab, store, calibrated, monkeypatch):
    monkeypatch.setattr(review.votes, "FASTEST_S", 0.0)
    run = calibrated(certified())
    for _ in range(4):
        shown = Desk(store, run.id).next("anna", "audit")
        vote(store, shown, "left" if shown.self_label == shown.left_is else "right")
    groups = frames(open_tab(FIGURES))[2]
    by = dict(zip(groups["labels"], groups["right"], strict=True))
    assert by["all"].startswith("100.0 %")
    assert by["all"].endswith("n = 4)")
    n = [int(words.rsplit("= ", 1)[1][:-1]) for name, words in by.items() if name.startswith("prefers")]
    assert sum(n) == 4


def test_the_funnel_shows_the_steps_that_a_round_wrote_down(open_page, calibrated):
    calibrated(certified(funnel={"confident": 30, "certified": 20, "audited": 15}))
    page = open_page("watch")
    funnel = next(found for found in figures(page) if "From the pool" in found)
    for step in ("pool", "open", "confident", "certified", "left after checks", "kept"):
        assert f">{step}</text>" in funnel
    assert "none is checked by a person yet" in texts(page)


def test_checks_of_an_earlier_round_are_told_as_such(open_page, store, calibrated, monkeypatch):
    """Round 2 labelled the pool anew: its labels are unchecked, which does not say that nobody has checked any."""
    monkeypatch.setattr(review.votes, "FASTEST_S", 0.0)
    run = calibrated(certified(), certified())
    for _ in range(3):
        shown = Desk(store, run.id).next("anna", "audit")
        assert shown.round == 1
        vote(store, shown, "left" if shown.self_label == shown.left_is else "right")
    said = texts(open_page("watch"))
    assert (
        f"Of the {KEPT} labels kept in this round, none is checked by a person yet. Checks of earlier rounds were of labels no "
        "longer in force (round 1: 3 of 3 right)."
    ) in said
    assert "Of this round's labels none is checked yet." in said


def test_resources_tell_what_a_run_took(open_tab, finished):
    assert "No worker left figures" in texts(open_tab("Resources"))
    meter = Meter(RunFolder.of(finished.id).path)
    meter.look()
    page = open_tab("Resources")
    assert "At most" in texts(page)
    assert "GPU memory" not in texts(page)
    assert "Processor cores busy" in titles(page)


def test_a_failed_run_has_its_log(open_tab, store, failed):
    RunFolder.of(failed.id).path.mkdir(parents=True, exist_ok=True)
    RunFolder.of(failed.id).log().write_text("12:00:00 job_started\n")
    assert "job_started" in texts(open_tab("Log"))


def test_an_owner_sets_and_ends_the_address_to_call(open_page, store, finished):
    page = open_page("watch")
    assert "Nobody is called yet." in texts(page)
    page.text_input[0].set_value("ftp://example.org")
    page = next(b for b in page.button if b.label == ADDRESS[0]).click().run()
    assert "begins with neither" in texts(page)
    page.text_input[0].set_value("https://hooks.example.org/secret")
    page = next(b for b in page.button if b.label == ADDRESS[0]).click().run()
    assert store.setting(notify.SETTING) == "https://hooks.example.org/secret"
    said = texts(open_page("watch"))
    assert "**hooks.example.org** is called." in said
    assert "secret" not in said
    page = open_page("watch")
    next(b for b in page.button if b.label == ADDRESS[2]).click().run()
    assert store.setting(notify.SETTING) == ""


def test_an_engineer_is_not_asked_whom_to_call(open_page, store, finished, monkeypatch):
    import who

    store.add_user(User("Ada", "owner", "", True, ""), "a long password")
    store.add_user(User("Eve", "engineer", "", True, ""), "a long password")
    _, token = store.sign_in("Eve", "a long password")
    monkeypatch.setattr(who, "cookie", lambda: token)
    page = open_page("watch")
    assert f"Accuracy now: {a_round(1).heldout}" in texts(page)
    assert not any(label in labels(page) for label in ADDRESS)


def test_the_browser_is_told_when_a_run_ends(open_page, store, sets):
    run = jobs.submit(store, RunConfig(), sets["seed"].id, sets["pool"].id, None, "r", False)
    store.claim_job("cpu")
    page = open_page("watch")
    assert told_browser(page) == {"run": run.id, "active": True, "title": "", "body": ""}
    write_rounds(store, run, [a_round(0), a_round(1)])
    store.finish_job(store.jobs(run=run.id)[-1].id, Status.SUCCEEDED)
    said = told_browser(open_page("watch"))
    assert (said["active"], said["title"]) == (False, "r has finished")
    assert said["body"] == f"Accuracy now: {a_round(1).heldout}. {KEPT} random checks of its self-labels to be done."


def told_browser(page):
    protos = [found.proto for found in page.get("bidi_component")]
    found = [json.loads(proto.json) for proto in protos if proto.component_name == "ser_told"]
    assert len(found) == 1
    return found[0]


def test_many_rounds_are_one_page(open_page, store, sets):
    end(store, sets, Status.SUCCEEDED, [a_round(i) for i in range(20)])
    page = open_page("watch")
    assert "Round 19" in texts(page)
    assert len(figures(page)) == 6
