"""Policies from the first prompt to the saved model, on a tiny random model; no reward model but functions of the text."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny

from ser_backend.errors import NotFound, SerError
from ser_backend.policy import folder as folders
from ser_backend.policy import training
from ser_backend.policy.folder import COMPLETE, PolicyFolder
from ser_backend.policy.loop import run
from ser_backend.policy.settings import PolicySettings
from ser_backend.policy.telling import told
from ser_backend.policy.writer import open_writer, plain_start
from ser_backend.resources import Meter
from ser_backend.reward_model import Rewarder

pytest.importorskip("trl")
pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning"),
]


def opener(name, threads=0):
    """A reward model whose reward is the share of the letter it is named after; of "same" it is always 1."""

    def read(responses):
        if name == "nan":
            rewards = [np.nan if row else 0.0 for row in range(len(responses))]
        elif name == "broken":
            raise ValueError("shapes (3,) and (4,)\nnot aligned")
        elif name == "same":
            rewards = [1.0] * len(responses)
        else:
            rewards = [10 * r.text.count(name) / (1 + len(r.text)) for r in responses]
        yield np.arange(len(responses)), np.array(rewards)

    return Rewarder(name, name, read)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny.build("llama", tmp_path_factory.mktemp("base") / "model")


@pytest.fixture
def file(tmp_path):
    words = [*tiny.PLAIN, *tiny.GOOD]
    rows = [{"prompt": f"what is {w}", "chosen": f"the {w} is clear", "rejected": f"a mess of {w}"} for w in words]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def settings(base, file):
    return PolicySettings(
        base_model=base, prompts=file, reward_models="e", steps=3, prompts_per_step=2, samples_per_prompt=4, lora_rank=0,
        max_new_tokens=8, max_prompt_tokens=40, heldout_prompts=4, threads=1, checkpoint_steps=2, learning_rate=1e-3,
    )  # fmt: skip


def played(store, settings, name="p", opener=opener):
    telling = run(store, settings, PolicyFolder.of(name), opener)
    events = []
    while True:
        try:
            events.append(next(telling))
        except StopIteration as done:
            return events, done.value


def kinds(events):
    return [kind for kind, _ in events]


def figures_of(name):
    """What of the steps does not depend on the clock."""
    return [{k: v for k, v in facts.items() if k != "seconds"} for facts in PolicyFolder.of(name).steps()]


@pytest.mark.parametrize(
    ("method", "rank", "sft"),
    [("rloo", 0, 0), ("rloo", 4, 2), ("grpo", 4, 0), ("dpo", 0, 0), ("dpo", 4, 0), ("sft", 0, 0)],
)
def test_every_method_trains_and_leaves_a_model_that_others_load(store, settings, file, base, method, rank, sft):
    import torch
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoModelForCausalLM, AutoTokenizer

    events, facts = played(
        store,
        settings.changed(
            {
                "method": method,
                "lora_rank": rank,
                "sft_steps": sft,
                "examples": file,
                "judge": "a",
                "reward_models": "e,t",
            }
        ),
    )
    steps = [f for kind, f in events if kind == "step_finished" and f["stage"] == "checkpoints"]
    assert [f["step"] for f in steps] == [1, 2, 3]
    assert [f["when"] for kind, f in events if kind == "heldout_measured"] == ["before", "after"]
    folder = PolicyFolder.of("p").path
    adapter = rank and not sft  # on a start of our own it is merged
    kind = AutoPeftModelForCausalLM if adapter else AutoModelForCausalLM
    model = kind.from_pretrained(folder / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    ids = tokenizer("what is it", return_tensors="pt")["input_ids"]
    begin = AutoModelForCausalLM.from_pretrained(base)(ids).logits
    assert not torch.allclose(model(ids).logits, begin, atol=1e-4)
    assert facts["before"]["kl"]["mean"] == pytest.approx(0, abs=1e-5)
    assert facts["after"]["kl"]["mean"] > 1e-6
    if method in ("rloo", "grpo"):
        assert set(steps[0]["members"]) == {"e", "t"}
        assert steps[0]["judge"]["n"] == steps[0]["reward"]["n"] == 8
        assert steps[0]["kl"]["mean"] == pytest.approx(0, abs=1e-5)
        assert steps[2]["kl"]["mean"] > 1e-6
    else:
        assert "reward" not in steps[0]
    card = (folder / "model" / "README.md").read_text()
    assert all(sentence in card for sentence in facts["sentences"])
    assert facts["changes"]["judge"]["prompts"] == 4
    assert not (folder / "checkpoints").exists()
    assert played(store, settings.changed({**facts["settings"]}))[1] == facts  # a finished one is not trained again


def test_rloo_raises_the_reward(store, settings):
    _, facts = played(
        store,
        settings.changed(
            {
                "steps": 30,
                "prompts_per_step": 8,
                "beta": 0.0,
                "learning_rate": 3e-3,
                "heldout_samples": 8,
                "batch_size": 32,
            }
        ),
    )
    change = facts["changes"]["members"]["e"]
    assert change["low"] > 0, change
    assert facts["after"]["kl"]["mean"] > 0.3
    assert "No judge was named" in " ".join(facts["sentences"])


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_the_trainer_sees_the_same_kl_as_we_do_although_it_pads_on_the_left(store, settings, tmp_path, kind):
    """Prompts of different lengths; a model with learnt positions would otherwise be trained on other probabilities."""
    model = tiny.build(kind, tmp_path / "model")
    _, _ = played(store, settings.changed({"base_model": model, "learning_rate": 3e-3}))
    for step in PolicyFolder.of("p").steps():
        ours = step["kl_sampled"]["mean"] / step["length"]
        assert step["trainer_kl"] == pytest.approx(ours, abs=2e-5)
    assert abs(step["trainer_kl"]) > 1e-3


@pytest.mark.parametrize("rank", [0, 4])
def test_what_authors_say_of_sampling_bends_no_response_and_stays_with_the_model(store, settings, tmp_path, rank):
    """Qwen2.5 comes with a repetition penalty, which `generate` would take from the model's folder, in training, too."""
    places = [tiny.build("llama", tmp_path / name) for name in ("plain", "with")]
    manner = {
        "repetition_penalty": 5.0,
        "no_repeat_ngram_size": 1,
        "min_p": 0.9,
        "do_sample": True,
        "suppress_tokens": [5],
    }
    own = Path(places[1]) / "generation_config.json"
    own.write_text(json.dumps(json.loads(own.read_text()) | manner))
    for name, place in zip("ab", places, strict=True):
        played(store, settings.changed({"base_model": place, "lora_rank": rank}), name)
    assert figures_of("a") == figures_of("b")
    after = [PolicyFolder.of(name).json("after") for name in "ab"]
    assert after[0] == after[1]
    saved = PolicyFolder.of("b").path / "model" / "generation_config.json"
    assert saved.exists() is not bool(rank)  # an adapter takes that of its base
    if not rank:
        assert manner.items() <= json.loads(saved.read_text()).items()


def test_an_estimate_reads_no_examples_where_prompts_are_named(store, settings, file, tmp_path):
    """As the training of a method that samples does: what is wrong with them is no reason to end."""
    from ser_backend.policy import gain

    *_, last = gain.estimate(store, settings.changed({"examples": "gone"}), 4, tmp_path / "out", opener)
    assert last == ("rewards_given", {"responses": 16})


def test_it_ends_when_it_is_too_far_from_the_start(store, settings):
    events, facts = played(store, settings.changed({"steps": 40, "learning_rate": 1e-2, "max_kl": 0.5}))
    assert facts["steps"] < 40
    assert "max_kl is 0.5" in facts["ended_because"]
    assert "alarm_raised" in kinds(events)
    assert f"It ended after {facts['steps']} of 40 steps" in facts["sentences"][-1]


# ---- stop, kill, memory


def test_one_that_is_stopped_and_one_that_is_killed_go_on_as_if_they_had_not_been(store, settings, tmp_path):
    settings = settings.changed({"steps": 5, "lora_rank": 4, "beta": 0.1})
    _, whole = played(store, settings, "whole")

    telling = run(store, settings, PolicyFolder.of("stopped"), opener)
    for kind, facts in telling:
        if kind == "step_finished" and facts["step"] == 3:
            break
    telling.close()
    assert PolicyFolder.of("stopped").checkpoint().name == "checkpoint-3"
    events, facts = played(store, settings, "stopped")
    assert kinds(events)[0] == "policy_resumed"
    assert [f["step"] for kind, f in events if kind == "step_finished"] == [4, 5]
    assert figures_of("stopped") == figures_of("whole")
    assert facts["after"] == whole["after"]

    code = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_policy_training import PolicyFolder, PolicySettings, opener, run
from ser_backend.store import Store
for kind, facts in run(Store.open(), PolicySettings(**{settings.as_dict()!r}), PolicyFolder.of("killed"), opener):
    if kind == "step_finished" and facts["step"] == 4:
        os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    assert len(PolicyFolder.of("killed").steps()) == 4
    events, facts = played(store, settings, "killed")
    assert [f["step"] for kind, f in events if kind == "step_finished"] == [3, 4, 5]  # from the checkpoint of step 2
    assert figures_of("killed") == figures_of("whole")
    assert facts["after"] == whole["after"]


def test_a_disk_that_fills_up_under_a_checkpoint_is_said_and_none_of_it_stays(store, settings, monkeypatch):
    import torch

    settings = settings.changed({"steps": 4})
    played(store, settings, "whole")

    def full(what, path, *_, **__):
        if "checkpoint-4" in str(path):
            raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 2762240 vs 2762132")
        return save(what, path)

    save = torch.save
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(SerError, match="is full; nothing was changed there"):
        played(store, settings)
    checkpoints = PolicyFolder.of("p").path / "checkpoints"
    assert [path.name for path in checkpoints.glob("checkpoint-*")] == ["checkpoint-2"]
    monkeypatch.setattr(torch, "save", save)
    played(store, settings)
    assert figures_of("p") == figures_of("whole")


def test_running_out_of_memory_halves_what_is_done_at_a_time_and_not_the_step(store, settings):
    import torch

    asked = []

    def scarce(name, threads):
        honest = opener(name)

        def read(responses):
            asked.append(len(responses))
            if asked.count(8) == 3 and 4 not in asked:  # the held-out prompts, a step, the second step
                raise torch.OutOfMemoryError("CUDA out of memory")
            yield from honest.read(responses)

        return Rewarder(name, name, read)

    settings = settings.changed({"batch_size": 8, "checkpoint_steps": 1})
    events, facts = played(store, settings, opener=scarce)
    assert ("batch_halved", {"batch_size": 4}) in events
    assert [f["step"] for f in PolicyFolder.of("p").steps()] == [1, 2, 3]
    assert {f["reward"]["n"] for f in PolicyFolder.of("p").steps()} == {8}
    assert facts["steps"] == 3
    assert 4 in asked  # less is sampled at a time, too


@pytest.mark.parametrize("rank", [0, 4])
def test_one_that_ends_between_its_last_step_and_its_model_is_not_trained_again(store, settings, rank):
    settings = settings.changed({"lora_rank": rank})
    _, whole = played(store, settings, "whole")
    telling = run(store, settings, PolicyFolder.of("cut"), opener)
    for kind, facts in telling:
        if kind == "checkpoint_saved" and facts["step"] == 3:
            break
    telling.close()
    folder = PolicyFolder.of("cut")
    (folder.path / "after.json").unlink()
    events, facts = played(store, settings, "cut")
    assert "step_finished" not in kinds(events)
    assert facts["after"] == whole["after"]
    assert facts["steps"] == 3


def test_memory_that_is_never_enough_is_said_in_a_sentence(store, settings):
    import torch

    def none(name, threads):
        honest, calls = opener(name), []

        def read(responses):
            calls.append(1)
            if len(calls) > 2:  # the start and the held-out prompts
                raise torch.OutOfMemoryError("CUDA out of memory")
            yield from honest.read(responses)

        return Rewarder(name, name, read)

    with pytest.raises(SerError, match="Memory ran out with one response at a time"):
        played(store, settings.changed({"batch_size": 2}), opener=none)


@pytest.mark.parametrize(
    ("total", "group", "most", "found"),
    [(32, 4, 8, 8), (32, 4, 7, 4), (32, 4, 3, 2), (30, 5, 8, 5), (30, 5, 4, 1), (8, 1, 5, 4), (8, 4, 0, 0)],
)
def test_a_step_is_cut_into_whole_groups_or_equal_parts_of_one(total, group, most, found):
    assert training.largest(total, group, most) == found


def test_a_checkpoint_that_was_not_finished_does_not_count(tmp_path):
    folder = PolicyFolder(tmp_path)
    for step, whole in ((9, True), (10, True), (11, False)):
        path = tmp_path / "checkpoints" / f"checkpoint-{step}"
        path.mkdir(parents=True)
        if whole:
            (path / COMPLETE).write_text("{}")
    assert folder.checkpoint().name == "checkpoint-10"
    assert not (tmp_path / "checkpoints" / "checkpoint-11").exists()
    (tmp_path / "steps.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert folder.keep_steps(1) == folder.steps() == [{"step": 1}]


def test_work_waits_for_its_listener_and_hears_that_it_left():
    done = []

    def work(tell):
        for number in range(10):
            done.append(number)
            if tell("counted", {"n": number}):
                return "stopped"
        return "finished"

    telling = told(work)
    assert next(telling) == ("counted", {"n": 0})
    assert next(telling) == ("counted", {"n": 1})
    telling.close()
    assert done == [0, 1]


# ---- what is wrong, in a sentence


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"reward_models": "nan"}, "The reward model nan gave .* no finite reward"),
        ({"reward_models": "broken"}, r"The reward model broken failed on sampled responses \(shapes"),
        ({"reward_models": "same"}, "same gives all .* the same reward"),
        ({"judge": "e"}, "The judge must be one that is not trained against"),
        ({"base_model": "/nowhere/model"}, "it is not a folder"),
        ({"base_model": ""}, "No base model is named"),
        ({"reward_models": ""}, "no reward model is named"),
        ({"prompts": ""}, "No prompts are named"),
        ({"prompts": "/nowhere/prompts.jsonl"}, "There is no file"),
        ({"method": "dpo"}, "dpo learns from examples"),
        ({"max_new_tokens": 500}, "reads 160 tokens"),
        ({"max_prompt_tokens": 1}, "All prompts are longer than 1 tokens"),
        ({"steps": 0}, "steps is 0; it must be from 1"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(store, settings, changes, said):
    with pytest.raises(SerError, match=said) as found:
        played(store, settings.changed(changes))
    assert "\n" not in str(found.value)


def test_a_judge_that_is_a_reward_model_under_another_name_is_refused(store, settings):
    def twins(name, threads):
        return Rewarder(name, name, opener("e").read)

    with pytest.raises(SerError, match="they are the same model"):
        played(store, settings.changed({"judge": "f"}), opener=twins)


def test_a_model_that_writes_no_text_is_refused(store, settings, tmp_path):
    encoder = tiny.build("bert", tmp_path / "bert")
    with pytest.raises(SerError, match=r"is no causal language model .*BertModel"):
        played(store, settings.changed({"base_model": encoder}))
    reward = tiny.build("llama", tmp_path / "reward", head=True)
    with pytest.raises(SerError, match="LlamaForSequenceClassification"):
        played(store, settings.changed({"base_model": reward}), "q")


def test_a_reward_model_that_breaks_later_stops_the_training_with_its_sentence(store, settings):
    def breaks(name, threads):
        honest, calls = opener(name), []

        def read(responses):
            calls.append(1)
            if len(calls) > 4:
                raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
            yield from honest.read(responses)

        return Rewarder(name, name, read)

    with pytest.raises(SerError, match=r"The reward model e failed .*mat1 and mat2"):
        played(store, settings, opener=breaks)
    _, facts = played(store, settings)  # with a reward model that works it goes on
    assert facts["steps"] == 3


def test_a_setting_newer_than_the_policy_stood_at_its_default(store, settings, ser_home):
    folder = PolicyFolder.of("old")
    folder.begin({name: value for name, value in settings.as_dict().items() if name != "clip"})
    folder.write("start", {})
    assert folder.check_same(settings.as_dict())
    with pytest.raises(SerError, match=r"clip was 5\.0"):
        folder.check_same(settings.changed({"clip": 1}).as_dict())


def test_a_policy_begins_while_its_worker_writes_beside_it(settings, ser_home, monkeypatch):
    """The worker's meter writes from a thread of its own, at any moment."""
    folder, begun = PolicyFolder.of("p"), []
    folder.path.mkdir(parents=True)
    replace = os.replace

    def at_that_moment(source, target):
        begun.append((Path(source).name, folder.check_same(settings.as_dict())))
        replace(source, target)

    monkeypatch.setattr(os, "replace", at_that_moment)
    Meter(folder.path).look()
    folder.write("now", {})
    assert [found for _, found in begun] == [False, False]
    assert all((folder.path / name).exists() for name in ("resources.json", "now.json"))
    (folder.path / "somebody's.txt").touch()
    with pytest.raises(SerError, match="is not a policy's folder"):
        folder.check_same(settings.as_dict())


def test_settings_that_could_not_begin_bind_nobody(store, settings, tmp_path):
    (tmp_path / "empty").mkdir()
    other = tmp_path / "other.jsonl"
    other.write_text("".join(json.dumps({"prompt": f"why {word}"}) + "\n" for word in (*tiny.PLAIN, *tiny.GOOD)))
    with pytest.raises(SerError, match="Give a causal language model: a Hugging Face name, or a folder") as error:
        played(store, settings.changed({"base_model": str(tmp_path / "empty"), "prompts": str(other)}))
    assert "bundled" not in str(error.value)
    _, facts = played(store, settings)
    assert facts["steps"] == 3
    assert all(prompt.startswith("what") for prompt in PolicyFolder.of("p").json("asked")["train"])


def test_another_adapter_is_merged_anew(store, settings, tmp_path):
    import torch

    adapters = []
    for seed in (1, 2):
        played(store, settings.changed({"lora_rank": 4, "random_seed": seed}), f"a{seed}")
        adapters.append(str(PolicyFolder.of(f"a{seed}").path / "model"))
    merged = []
    for adapter in (*adapters, adapters[0]):
        folder = plain_start(adapter, tmp_path / "base")
        merged.append(open_writer(folder, settings).model.state_dict())
    same = [all(torch.equal(one[k], merged[0][k]) for k in one) for one in merged]
    assert same == [True, False, True]
    facts = json.loads((Path(adapters[1]) / "adapter_config.json").read_text())
    facts["base_model_name_or_path"] = "/nowhere/model"
    (Path(adapters[1]) / "adapter_config.json").write_text(json.dumps(facts))
    with pytest.raises(SerError, match="is an adapter of /nowhere/model, which is not there"):
        plain_start(adapters[1], tmp_path / "base")


def test_the_same_name_with_other_settings_is_refused(store, settings):
    PolicyFolder.of("p").begin(settings.as_dict())
    PolicyFolder.of("p").write("start", {})
    with pytest.raises(SerError, match=r"other settings .steps was 3"):
        played(store, settings.changed({"steps": 4}))
    with pytest.raises(SerError, match="cannot name a policy"):
        PolicyFolder.of("../p")
    with pytest.raises(NotFound, match="So far: p"):
        folders.existing("q")
