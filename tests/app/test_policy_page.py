"""The page Policy on fabricated folders: nothing here trains, and nothing loads torch."""

import subprocess
import sys
import time

import pytest
from fabricate import APP, figures, texts
from fabricate_policy import HOSTILE, a_step, begin, estimate, finish
from streamlit.testing.v1 import AppTest

from ser_backend.policy import queue
from ser_backend.policy.folder import PolicyFolder
from ser_backend.policy.settings import PolicySettings
from ser_backend.records import ACTIVE, Status, User
from ser_backend.resources import Meter

TABS = ["Step by step", "Before and after", "Responses", "Settings", "The model", "Resources", "Log"]


@pytest.fixture
def settings(finished, tmp_path):
    """Against the finished run; the language model is a folder that would open."""
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text("{}")
    (base / "model.safetensors").write_bytes(b"")
    return PolicySettings(base_model=str(base), prompts="pool", reward_models=f"run:{finished.id}", judge="", steps=200)


@pytest.fixture
def open_policy(store):
    """The page of one policy, with one of its tabs open."""

    def opened(name, tab="", **also):
        page = AppTest.from_file(str(APP / "frame.py"), default_timeout=30)
        watched = any(job.status in ACTIVE and job.best_of is None for job in store.jobs(policy=name))
        page.query_params["policy"] = name
        if tab:
            page.session_state[f"policy-{name}-{watched}"] = tab
        for key, value in also.items():
            page.session_state[key] = value
        page = page.switch_page("views/policy.py").run()
        assert not page.exception
        return page

    return opened


def button(page, label):
    return next(found for found in page.button if found.label == label)


def labels(page):
    return [found.label for found in page.button]


def charts(page):
    return "".join(figures(page))


def bodies(page):
    return "".join(getattr(found.proto, "body", "") for found in page.get("html"))


# ---- none


def test_without_a_reward_model_the_page_leads_to_train(open_page):
    page = open_page("policy")
    assert "no run has made one yet" in texts(page)
    assert "No policy yet." in texts(page)


def test_the_form_says_what_it_will_do_and_offers_both_ways(open_page, finished):
    page = open_page("policy")
    said = texts(page)
    assert "Name the language model to begin with." in said
    assert "200 steps of 8 prompts with 4 responses each, 6,400 responses in all" in said
    assert "Without a judge nothing tells" in said
    assert labels(page)[-2:] == ["Estimate the gain (best of n)", "Train"]
    assert [found.label for found in page.selectbox][:2] == ["Method", "Preset"]
    assert page.multiselect[0].value == [f"run:{finished.id}"]


def test_neither_the_page_nor_what_it_reads_loads_torch():
    code = (
        f"import sys; sys.path.insert(0, {str(APP)!r}); from steering import begin, files, known, now, result, steps; "
    )
    code += "print(sorted({'torch', 'transformers', 'trl'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.stdout.strip() == "[]", found.stderr


def test_bad_input_is_said_in_a_sentence_and_queues_nothing(open_page, store, finished):
    page = open_page("policy")
    page = button(page, "Train").click().run()
    assert "No base model is named." in texts(page)
    page.text_input(key="policy-begin-base").set_value("/nowhere/model")
    page = page.run()
    assert "it is not a folder" in texts(page)
    page.text_input(key="policy-begin-base").set_value("some/model")
    page.text_input(key="policy-begin-name").set_value("../x")
    page = button(page, "Train").click().run()
    assert "cannot name a policy" in texts(page)
    page.text_input(key="policy-begin-name").set_value("x")
    page.selectbox(key="policy-begin-judge").set_value(f"run:{finished.id}")
    page = button(page, "Estimate the gain (best of n)").click().run()
    assert "must be one that is not trained against" in texts(page)
    assert store.policies() == []


@pytest.mark.parametrize(("label", "best_of"), [("Train", None), ("Estimate the gain (best of n)", 64)])
def test_one_is_queued_and_looked_at(open_page, store, settings, finished, label, best_of):
    page = open_page("policy")
    page.text_input(key="policy-begin-base").set_value(settings.base_model)
    page = page.run()
    page.number_input(key=f"policy-begin-{page.selectbox(key='policy-begin-preset').value}-steps").set_value(7)
    page = button(page, label).click().run()
    assert not page.exception
    (policy,) = store.policies()
    assert (policy.name, policy.best_of, policy.status) == ("policy-1", best_of, Status.QUEUED)
    assert policy.settings["steps"] == 7
    assert policy.settings["prompts"] == "pool"
    assert policy.settings["reward_models"] == f"run:{finished.id}"
    said = texts(page)
    assert "Number 1 in the queue." in said
    assert "1 policy, 1 of them under way." in said
    page = button(page, "Stop").click().run()
    assert store.policy("policy-1").status == Status.STOPPED
    assert "Train" in labels(page)


def test_resources_tell_what_training_took(open_policy, store, settings, finished):
    finish("far", settings)
    assert "No worker left figures" in texts(open_policy("far", "Resources"))
    Meter(PolicyFolder.of("far").path).look()
    page = open_policy("far", "Resources")
    assert "At most" in texts(page)
    assert "Processor cores busy" in charts(page)


def test_methods_that_learn_from_examples_ask_for_them(open_page, store, settings, finished):
    page = open_page("policy")
    assert "Examples" not in [found.label for found in page.selectbox]
    page.text_input(key="policy-begin-base").set_value(settings.base_model)
    page.selectbox(key="policy-begin-method").set_value("dpo")
    page = page.run()
    examples = page.selectbox(key="policy-begin-examples")
    assert examples.value == f"run:{finished.id}"
    assert not any(found.label == "`samples_per_prompt`" for found in page.number_input)
    examples.set_value("seed")
    page = button(page, "Train").click().run()
    assert store.policies()[0].settings["examples"] == "seed"
    assert store.policies()[0].settings["method"] == "dpo"


def test_what_is_estimated_already_is_told_before_it_is_begun(open_page, settings):
    from ser_backend.cost import machine

    preset = "gpu" if machine.this_machine().gpu_gib else "laptop"
    from ser_backend.policy.settings import PRESETS

    begun = PolicySettings().changed(
        {**PRESETS[preset][1], **{n: getattr(settings, n) for n in ("base_model", "prompts", "reward_models")}}
    )
    estimate(PolicyFolder.of("other"), begun)
    page = open_page("policy")
    page.text_input(key="policy-begin-base").set_value(settings.base_model)
    page = page.run()
    assert "Best of n is estimated already" in texts(page)
    assert "Best of 8 gains +1.04." in texts(page)


# ---- one


def test_a_finished_policy_answers_first(open_policy, store, settings, finished):
    folder = finish("first", settings)
    estimate(folder, settings)
    page = open_policy("first")
    said = texts(page)
    assert f"{finished.name}: it changed." in said
    assert finished.id not in said.split("it changed")[0]
    assert "Best of 8 gains +1.04." in said
    assert "Trained at the command line." in said
    drawn = charts(page)
    for title in (
        "What the reward model gains",
        "Distance from the start model",
        "Ends by itself",
        "Entropy",
        "Length",
    ):
        assert title in drawn
    assert "first (RLOO)" in drawn
    assert "No judge was named." in drawn
    assert labels(page)[-2:] == ["Estimate again", "New policy"]
    assert [tab.label for tab in page.tabs] == TABS
    assert "\\*star\\*" in "".join(found.value for found in page.caption)


def test_figures_before_and_after_stand_with_their_paired_changes(open_policy, settings):
    finish("first", settings.changed({"judge": "exports/other"}))
    table = open_policy("first", "Before and after").dataframe[0].value
    by = {row[""]: row for row in table.to_dict("records")}
    assert len(by) == 7
    assert "n = 6)" in by["judge: exports/other"]["change"]
    assert by["KL to the start model, nats"]["before"] == "0.00"
    assert by["ends by itself"]["before"] == "100.0 %"
    assert by["ends by itself"]["change"].startswith("+0.0 points (")
    assert by["entropy, nats a token"]["change"] == ""


def test_responses_stand_side_by_side_and_are_inert(open_policy, settings):
    finish("first", settings)
    shown = bodies(open_policy("first", "Responses"))
    assert "&lt;b&gt;bold&lt;/b&gt; $x$ :smile: *star* U+202Eold 0?" in shown
    assert "<b>bold" not in shown
    assert "\u202e" not in shown
    assert shown.count(">Before · reward") == shown.count(">After · reward") == 2


def test_the_other_tabs_say_what_was_asked_and_where_the_model_lies(open_policy, settings):
    folder = finish("first", settings)
    assert str(folder.path / "model") in [found.value for found in open_policy("first", "The model").code]
    (folder.path / "model" / "adapter_config.json").write_text("{}")
    assert "AutoPeftModelForCausalLM" in open_policy("first", "The model").code[1].value
    table = open_policy("first", "Settings").dataframe[0].value
    assert dict(zip(table["setting"], table["value"], strict=True))["steps"] == "200"
    assert "No worker of the queue has written anything." in texts(open_policy("first", "Log"))
    folder.log().write_text("12:00:00 job_started\n")
    assert "job_started" in texts(open_policy("first", "Log"))


@pytest.mark.parametrize(("method", "shown"), [("dpo", ["Loss", "Pairs of a step", "Margin"]), ("sft", ["Loss"])])
def test_methods_without_rewards_show_their_losses(open_policy, settings, method, shown):
    begin("cheap", settings.changed({"method": method, "examples": "seed"}), 12)
    drawn = charts(open_policy("cheap"))
    assert all(title in drawn for title in shown)
    assert "Entropy" not in drawn
    assert ("Margin" in drawn) == (method == "dpo")


# ---- under way, stopped, failed


def test_a_policy_under_way_shows_its_pace_alarms_and_curves(open_policy, store, settings):
    folder = begin("live", settings, 1_200)
    queue.train(store, "live", settings, detached=False)
    job = store.claim_job("cpu")
    store.beat(job.id)
    folder.note("step_finished", a_step(50, settings))
    folder.write("alarms", {"length": f"Responses have become longer: {HOSTILE}"})
    page = open_policy("live")
    said = texts(page)
    assert "Training" in said
    progress = page.get("progress")[0].proto
    assert progress.text == "Step 50 of 200; 2.0 s each, about 5 min left"
    assert progress.value == 25
    assert "Responses have become longer" in said
    assert "\\*star\\*" in "".join(found.value for found in page.warning)
    drawn = charts(page)
    assert "a point is the mean of 3" in drawn
    assert "the policy went on from its newest checkpoint" not in said
    assert "Step by step" not in [tab.label for tab in page.tabs]  # they are drawn above, again and again
    assert labels(page)[-1] == "Stop"
    button(page, "Stop").click().run()
    assert store.policy("live").status == Status.STOPPING
    page = open_policy("live")
    assert "a checkpoint is kept" in page.get("progress")[0].proto.text
    assert button(page, "Stop").disabled


def test_a_silent_worker_and_one_that_was_interrupted_are_told(open_policy, store, settings):
    begin("live", settings, 3)
    queue.train(store, "live", settings, detached=False)
    store.requeue_job(store.claim_job("cpu").id)
    job = store.claim_job("cpu")
    with store.engine.begin() as tx:
        from ser_backend.store.tables import jobs

        tx.execute(jobs.update().where(jobs.c.id == job.id).values(heartbeat=time.time() - 120))
    said = texts(open_policy("live"))
    assert "The worker has said nothing for 2 min." in said
    assert "the policy went on from its newest checkpoint" in said


@pytest.mark.parametrize(
    ("kind", "facts", "words"),
    [
        ("responses_sampled", {"done": 16, "total": 64}, "16 of 64 responses sampled"),
        ("heldout_measured", {"when": "before"}, "The first step."),
        ("heldout_measured", {"when": "after"}, "Saving the model."),
        ("batch_halved", {"batch_size": 4}, "Memory ran out; 4 responses at a time"),
        ("prompts_gathered", {}, "Opening the reward models."),
        ("something_of_a_later_version", {}, "Under way."),
        ("step_finished", {"step": 2, "of": 8, "stage": "sft", "seconds": 1.0}, "Supervised start: step 2 of 8"),
    ],
)
def test_what_is_under_way_is_put_into_words(open_policy, store, settings, kind, facts, words):
    queue.estimate(store, "p", settings, detached=False)
    store.claim_job("cpu")
    PolicyFolder.of("p").note(kind, facts)
    assert words in open_policy("p").get("progress")[0].proto.text.replace("\\", "")


def test_a_stopped_one_can_be_resumed_and_a_failed_one_says_why(open_policy, store, settings):
    begin("p", settings, 40)
    queue.train(store, "p", settings, detached=False)
    job = store.claim_job("cpu")
    store.finish_job(job.id, Status.FAILED, f"The reward model {HOSTILE} failed.")
    page = open_policy("p")
    assert "The reward model" in page.error[0].value
    assert "\\*star\\*" in page.error[0].value
    assert "40 of 200 steps are done." in texts(page)
    page = button(page, "Resume").click().run()
    assert store.policy("p").status == Status.QUEUED
    assert len(store.jobs(policy="p")) == 2
    assert "Number 1 in the queue." in texts(page)


def test_after_an_estimate_the_training_is_offered(open_policy, store, settings):
    queue.estimate(store, "p", settings, detached=False)
    job = store.claim_job("cpu")
    estimate(PolicyFolder.of("p"), settings)
    store.finish_job(job.id, Status.SUCCEEDED)
    page = open_policy("p")
    assert labels(page)[-2:] == ["Train", "Estimate again"]
    assert "Best of 8 gains +1.04." in texts(page)
    assert "first (RLOO)" not in charts(page)
    button(page, "Train").click().run()
    assert store.policy("p").best_of is None
    assert store.policy("p").status == Status.QUEUED


# ---- many, and others


def test_of_many_the_newest_is_shown_and_another_can_be_picked(open_page, open_policy, store, settings):
    for name in ("one", "two", "three"):
        estimate(finish(name, settings), settings)
        time.sleep(0.01)
    page = open_page("policy")
    assert "3 policies, none under way." in texts(page)
    picker = next(found for found in page.selectbox if found.label == "Policy")
    assert picker.value == "three"
    assert picker.options[-1] == "A new policy"
    assert all(f"{name} (RLOO)" in charts(page) for name in ("one", "two", "three"))
    page = picker.set_value("one").run()
    assert next(found for found in page.selectbox if found.label == "Policy").value == "one"
    page = button(page, "New policy").click().run()
    assert "What this will do" in texts(page)


def test_a_damaged_folder_is_said_in_a_sentence(open_policy, settings):
    folder = finish("first", settings)
    (folder.path / "policy.json").write_text("{")
    assert "is damaged" in texts(open_policy("first"))


def test_those_who_only_answer_do_not_open_the_page(open_page, store, settings, monkeypatch):
    import who

    store.add_user(User("Ada", "owner", "", True, ""), "a long password")
    store.add_user(User("Ann", "annotator", "", True, ""), "a long password")
    _, token = store.sign_in("Ann", "a long password")
    monkeypatch.setattr(who, "cookie", lambda: token)
    page = open_page("policy")
    assert "What this will do" not in texts(page)
    assert "start or estimate runs" in texts(page)


def test_the_queue_on_train_names_policies_too(open_page, store, settings):
    queue.train(store, "waiting", settings, detached=False)
    page = open_page("train")
    said = texts(page)
    assert "Policy waiting" in said
    assert "1 job running or waiting." in said
    page = button(page, "Watch").click().run()
    assert "Number 1 in the queue." in texts(page)
