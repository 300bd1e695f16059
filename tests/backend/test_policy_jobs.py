"""Policies in the queue: real workers in processes of their own, stopped and killed as they would be."""

import json
import time
from collections import deque
from pathlib import Path

import pytest
import tiny
from overseen import disturb, drive, gone, overseer

from ser_backend import jobs, supervisor
from ser_backend.errors import NotFound, SerError
from ser_backend.policy import loop, queue
from ser_backend.policy.folder import PolicyFolder
from ser_backend.policy.settings import PolicySettings
from ser_backend.records import ACTIVE, Status

pytest.importorskip("trl")
pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning"),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny.build("llama", tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(scope="module")
def rewards(tmp_path_factory):
    """Two reward models as folders."""
    folder = tmp_path_factory.mktemp("rewards")
    return [tiny.build("llama", folder / name, head=True, seed=seed) for seed, name in ((1, "one"), (2, "two"))]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"what is {word}"}) + "\n" for word in (*tiny.PLAIN, *tiny.GOOD)))
    return str(path)


@pytest.fixture
def settings(base, rewards, file):
    return PolicySettings(
        base_model=base, prompts=file, reward_models=rewards[0], judge=rewards[1], steps=5, prompts_per_step=2,
        samples_per_prompt=4, lora_rank=0, max_new_tokens=8, max_prompt_tokens=40, heldout_prompts=4, threads=1,
        checkpoint_steps=2, learning_rate=1e-3,
    )  # fmt: skip


@pytest.fixture
def boss(store):
    with overseer(store) as made:
        made.reserve_after = float("inf")  # one started before a sabotage would know nothing of it
        yield made


def sabotage(monkeypatch: pytest.MonkeyPatch, folder: Path, code: str) -> None:
    """Have every worker run `code` when it has finished step n."""
    disturb(monkeypatch, folder, "ser_backend.policy.folder:PolicyFolder.add_step", "args[0]['step']", code, after=True)


def ended(store, name):
    return lambda: store.policy(name).status not in ACTIVE


def train(store, boss, name, settings):
    queue.train(store, name, settings, detached=False)
    drive(boss, ended(store, name))
    assert store.policy(name).error is None
    assert store.policy(name).status == Status.SUCCEEDED


def undisturbed(store, name, settings):
    """Without a worker, which takes as long to begin as all of it."""
    deque(loop.run(store, settings, PolicyFolder.of(name)), maxlen=0)


def weights(name):
    from safetensors.torch import load_file

    return load_file(PolicyFolder.of(name).path / "model" / "model.safetensors")


def steps(name):
    return [{k: v for k, v in facts.items() if k != "seconds"} for facts in PolicyFolder.of(name).steps()]


def same(one, other):
    import torch

    mine, theirs = weights(one), weights(other)
    assert steps(one) == steps(other)
    return mine.keys() == theirs.keys() and all(torch.equal(mine[key], theirs[key]) for key in mine)


def test_stop_frees_everything_and_resume_ends_as_if_nothing_had_been(store, boss, settings, tmp_path, monkeypatch):
    undisturbed(store, "calm", settings)
    sabotage(monkeypatch, tmp_path / "slow", "n == 2 and first and time.sleep(4)")
    queue.train(store, "stopped", settings, detached=False)
    drive(boss, lambda: len(PolicyFolder.of("stopped").steps()) == 2)
    (job,) = store.jobs(policy="stopped")
    assert queue.stop(store, "stopped") == Status.STOPPING
    drive(boss, ended(store, "stopped"))
    assert store.policy("stopped").status == Status.STOPPED
    drive(boss, lambda: not boss.watched)
    assert gone(job.pid)
    assert store.job(job.id).slot is None
    assert PolicyFolder.of("stopped").checkpoint().name in ("checkpoint-2", "checkpoint-3")
    assert len(steps("stopped")) < 5
    assert not queue.look(store, "stopped").finished

    queue.resume(store, "stopped", detached=False)
    drive(boss, ended(store, "stopped"))
    assert store.policy("stopped").status == Status.SUCCEEDED
    assert same("calm", "stopped")


def test_kill_9_is_resumed_by_the_queue_and_ends_with_the_same_weights(store, boss, settings, tmp_path, monkeypatch):
    undisturbed(store, "calm", settings)
    sabotage(monkeypatch, tmp_path / "kill", "n == 3 and first and os.kill(os.getpid(), signal.SIGKILL)")
    train(store, boss, "killed", settings)
    log = PolicyFolder.of("killed").log().read_text()
    assert "the policy goes on from its newest checkpoint" in log
    assert log.count("job_started") == 2
    assert "policy_resumed" in log
    assert same("calm", "killed")
    assert len(store.jobs(policy="killed")) == 1


def test_one_that_dies_again_and_again_fails_with_a_sentence(store, boss, settings, tmp_path, monkeypatch):
    sabotage(monkeypatch, tmp_path / "kill", "os.kill(os.getpid(), signal.SIGKILL)")
    monkeypatch.setattr(supervisor, "MOST_ATTEMPTS", 2)
    queue.train(store, "p", settings, detached=False)
    drive(boss, ended(store, "p"))
    assert store.policy("p").status == Status.FAILED
    assert "ended unexpectedly 2 times without a checkpoint in between" in store.policy("p").error
    assert store.jobs(policy="p")[0].slot is None


def test_a_checkpoint_makes_the_next_death_a_first_one(store, boss, settings, tmp_path, monkeypatch):
    sabotage(monkeypatch, tmp_path / "kill", "first and n in (2, 3) and os.kill(os.getpid(), signal.SIGKILL)")
    monkeypatch.setattr(supervisor, "MOST_ATTEMPTS", 2)
    train(store, boss, "p", settings.changed({"checkpoint_steps": 1}))
    assert PolicyFolder.of("p").log().read_text().count("job_interrupted") == 2  # as often as would end it in a row


def test_a_stuck_step_is_killed_when_its_patience_is_over(store, boss, settings, tmp_path, monkeypatch):
    sabotage(monkeypatch, tmp_path / "stuck", "n == 1 and time.sleep(99)")
    monkeypatch.setattr(supervisor, "TERM_AFTER_S", 0.3)
    monkeypatch.setattr(supervisor, "KILL_AFTER_S", 0.8)
    queue.train(store, "p", settings, detached=False)
    drive(boss, lambda: len(PolicyFolder.of("p").steps()) == 1)
    pid = store.jobs(policy="p")[0].pid
    queue.stop(store, "p")
    drive(boss, ended(store, "p"))
    assert store.policy("p").status == Status.STOPPED
    assert gone(pid)


def test_what_best_of_n_gains_is_a_job_and_stays_with_the_policy(store, boss, settings):
    queue.estimate(store, "p", settings, 8, detached=False)
    drive(boss, ended(store, "p"))
    policy = store.policy("p")
    assert (policy.status, policy.best_of, policy.error) == (Status.SUCCEEDED, 8, None)
    found = PolicyFolder.of("p").json("gain")
    assert [point["n"] for point in found["points"]] == [1, 2, 4, 8]
    assert found["n"] == 8
    assert found["points"][-1]["judge"] is not None
    lines = (PolicyFolder.of("p").path / "gain_samples.jsonl").read_text().splitlines()
    assert len(lines) == 4 * 8
    look = queue.look(store, "p")
    assert (look.begun, look.finished, look.estimates) == (False, False, True)
    queue.resume(store, "p", detached=False)  # after the estimate comes the training
    drive(boss, ended(store, "p"))
    assert queue.look(store, "p").finished
    assert PolicyFolder.of("p").json("gain") == found


def test_a_reward_model_that_is_none_ends_the_job_with_its_sentence(store, boss, settings, base):
    queue.train(store, "p", settings.changed({"reward_models": base}), detached=False)
    drive(boss, ended(store, "p"))
    assert store.policy("p").status == Status.FAILED
    assert "\n" not in store.policy("p").error
    assert "Traceback" not in store.policy("p").error


# ---- without a worker


def test_runs_and_policies_wait_in_one_queue(store, settings, sets, config):
    queue.train(store, "first", settings, detached=False)
    run = jobs.submit(store, config, sets["seed"].id, sets["pool"].id, None, "run", detached=False)
    queue.estimate(store, "second", settings, detached=False)
    places = [store.queue_position(policy="first"), store.queue_position(run.id), store.queue_position(policy="second")]
    assert places == [1, 2, 3]
    assert len(jobs.active(store)) == 3
    assert store.claim_job("cpu").policy == "first"
    assert store.claim_job("cpu") is None  # the slot is taken, whoever holds it
    assert queue.stop(store, "second") == Status.STOPPED
    assert store.queue_position(run.id) == 1
    assert [job.run for job in store.jobs(run=run.id)] == [run.id]
    with pytest.raises(SerError, match="'first' is queued or running already"):
        queue.train(store, "first", settings, detached=False)


def test_what_is_known_of_policies_comes_from_the_queue_and_from_the_folders(store, settings):
    assert queue.known(store) == []
    assert queue.free_name(store) == "policy-1"
    PolicyFolder.of("by-hand").begin(settings.as_dict())
    time.sleep(0.01)
    queue.train(store, "policy-1", settings, detached=False)
    assert [found.name for found in queue.known(store)] == ["policy-1", "by-hand"]
    assert queue.look(store, "by-hand").status is None
    assert queue.look(store, "by-hand").begun
    assert queue.free_name(store) == "policy-2"
    with pytest.raises(NotFound, match="no policy 'nobody'"):
        queue.look(store, "nobody")
    queue.resume(store, "by-hand", detached=False)  # one that was begun at the command line goes on in the queue
    assert queue.look(store, "by-hand").status == Status.QUEUED


def test_an_estimate_binds_nobody_to_its_settings_but_a_training_does(store, settings):
    queue.estimate(store, "p", settings, detached=False)
    queue.stop(store, "p")
    queue.train(store, "p", settings.changed({"steps": 7}), detached=False)
    assert store.policy("p").settings["steps"] == 7
    queue.stop(store, "p")
    PolicyFolder.of("p").begin(settings.changed({"steps": 7}).as_dict())
    PolicyFolder.of("p").write("start", {})
    with pytest.raises(SerError, match=r"other settings .steps was 7"):
        queue.train(store, "p", settings, detached=False)
    assert store.policy("p").settings["steps"] == 7
    PolicyFolder.of("p").write("policy", {"sentences": []})
    with pytest.raises(SerError, match="trained already"):
        queue.train(store, "p", settings.changed({"steps": 7}), detached=False)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"base_model": "/nowhere/model"}, "it is not a folder"),
        ({"base_model": "bundled"}, "reads texts and writes none"),
        ({"base_model": ""}, "No base model is named"),
        ({"reward_models": "run:nothing"}, "has no finished round"),
        ({"reward_models": "/nowhere/reward"}, "there is no such folder"),
        ({"reward_models": "nonsense"}, "there is no such folder"),
        ({"reward_models": "/" + "x" * 5_000}, "it is not a folder"),
        ({"judge": "x", "reward_models": "x"}, "must be one that is not trained against"),
        ({"prompts": "nothing"}, "There is no data set 'nothing'"),
        ({"prompts": "/nowhere.jsonl"}, "There is no file"),
        ({"method": "dpo"}, "dpo learns from examples"),
        ({"method": "dpo", "examples": "run:nothing"}, "There is no run 'nothing'"),
        ({"method": "sft", "examples": "pool"}, "is a pool, and its pairs carry no labels"),
    ],
)
def test_what_can_be_seen_to_be_wrong_is_said_before_it_is_queued(store, settings, sets, changes, said):
    with pytest.raises(SerError, match=said) as found:
        queue.train(store, "p", settings.changed(changes), detached=False)
    assert "\n" not in str(found.value)
    assert store.policies() == []


def test_the_folder_of_an_exported_head_is_a_reward_model(store, settings, tmp_path, base, rewards):
    """It has a head and a note, and no config.json; its base model lies below it or elsewhere."""
    folder = tmp_path / "export" / "reward_model"
    folder.mkdir(parents=True)
    (folder / "head.safetensors").write_bytes(b"")
    for name in (folder, folder.parent):
        queue.check(store, settings.changed({"reward_models": f"{name},{rewards[0]}"}))
    (folder / "head.safetensors").unlink()
    with pytest.raises(SerError, match="is not a reward model folder"):
        queue.check(store, settings.changed({"reward_models": str(folder)}))
    (folder / "config.json").write_text("{}")
    (folder / "model.bin").write_bytes(b"")
    with pytest.raises(SerError, match="a pickle file"):
        queue.check(store, settings.changed({"judge": str(folder)}))


def test_the_command_line_takes_runs_by_their_names(store, settings, sets, config, monkeypatch):
    """As serve and best-of do; what is kept is the id, so the same command goes on after another run took the name."""
    from ser_backend.cli import main

    runs = {
        name: jobs.submit(store, config, sets["seed"].id, sets["pool"].id, None, name, False) for name in ("a", "b")
    }
    asked = []
    monkeypatch.setattr(queue, "train", lambda store, name, settings: asked.append(settings))
    given = ["--base-model", settings.base_model, "--prompts", settings.prompts]
    assert (
        main(["policy", "train", "--name", "p", "--queue", *given, "--reward-models", "run:a", "--judge", "run:b:seed"])
        == 0
    )
    assert asked[0].reward_models == f"run:{runs['a'].id}"
    assert asked[0].judge == f"run:{runs['b'].id}:seed"


def test_two_processes_never_work_on_one_policy(store, settings):
    folder = PolicyFolder.of("p")
    with folder.held(), pytest.raises(SerError, match="Another process is at work on the policy 'p'"), folder.held():
        pass
    with folder.held():
        pass


def test_an_annotator_may_neither_start_nor_stop_nor_see(store, settings):
    from ser_backend.errors import Forbidden
    from ser_backend.records import User

    store.add_user(User("Ada", "owner", "", True, ""), "a long password")
    store.add_user(User("Ann", "annotator", "", True, ""), "a long password")
    hers = store.acting(User("Ann", "annotator", "", True, ""))
    for act in (
        lambda: queue.train(hers, "p", settings, detached=False),
        lambda: queue.estimate(hers, "p", settings, detached=False),
        lambda: queue.known(hers),
        lambda: queue.stop(hers, "p"),
        lambda: hers.request_policy_stop("p"),
    ):
        with pytest.raises(Forbidden):
            act()
    assert store.policies() == []


def test_a_judge_of_the_same_labels_is_told(store, settings, sets, config):
    runs = [jobs.submit(store, config, sets["seed"].id, sets["pool"].id, None, name, False) for name in ("a", "b")]
    mine, judge = (f"run:{run.id}" for run in runs)
    assert "Without a judge" in queue.judge_notes(store, settings.changed({"reward_models": mine, "judge": ""}))[0]
    (note,) = queue.judge_notes(store, settings.changed({"reward_models": mine, "judge": judge}))
    assert "learnt from the same seed" in note
    assert queue.judge_notes(store, settings) == []  # of folders nothing is known


def test_the_command_line_queues_stops_resumes_and_lists(store, settings, capsys, monkeypatch):
    from ser_backend.cli import main

    monkeypatch.setattr(jobs, "ensure_supervisor", lambda: None)
    asked = [
        "--base-model",
        settings.base_model,
        "--reward-models",
        settings.reward_models,
        "--prompts",
        settings.prompts,
    ]
    assert main(["policy", "train", "--name", "p", "--queue", "--steps", "7", *asked]) == 0
    assert "Policy p is queued, number 1." in capsys.readouterr().out
    assert store.policy("p").settings["steps"] == 7
    assert main(["policy", "best-of", "--name", "q", "--n", "8", *asked]) == 0
    assert store.policy("q").best_of == 8
    assert main(["policy", "stop", "p"]) == 0
    assert "is asked to stop" in capsys.readouterr().out
    assert main(["policy", "resume", "p"]) == 0
    assert store.policy("p").status == Status.QUEUED
    assert main(["policy"]) == 0
    listed = capsys.readouterr().out
    assert "0 of 7 steps; queued" in listed
    assert "best of n: queued" in listed
    assert main(["policy", "resume", "nobody"]) == 1
    assert "There is no policy 'nobody'" in capsys.readouterr().err


def test_an_end_is_told_to_whoever_wants_to_be_told(store, monkeypatch):
    from ser_backend import notify

    told = []
    monkeypatch.setattr(notify, "deliver", lambda url, body: told.append(body) or "")
    notify.after_policy(store, "p", Status.SUCCEEDED, "It changed.")
    assert told == []
    notify.change(store, "https://hooks.example.org/x")
    notify.after_policy(store, "p", Status.SUCCEEDED, "It changed.")
    notify.after_policy(store, "<p>", Status.FAILED, "Memory ran out.")
    assert [body["sentence"] for body in told] == [
        "The policy p has finished. It changed.",
        "The policy <p> has failed. Memory ran out.",
    ]
    assert [body["kind"] for body in told] == ["ended", "failed"]
    assert "&lt;p&gt;" in told[1]["text"]
