"""A language model trained against reward models: policy train; what best of n says it could gain: policy best-of."""

import argparse
import json
import signal
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

from ser_backend.cli import duel
from ser_backend.cli.bar import Bar
from ser_backend.cli.serving import named
from ser_backend.errors import SerError
from ser_backend.policy.settings import PRESETS, PolicySettings, describe
from ser_backend.records import Status
from ser_backend.store import Store

MOST_N = 256


def add(everything: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    policy = everything.add_parser("policy", help="train a language model with a reward model, on trl")
    policy.set_defaults(act=_policies)
    commands = policy.add_subparsers(metavar="COMMAND", help="default: list the policies")
    train = commands.add_parser("train", help="train one; the same command goes on where it was stopped or killed")
    train.add_argument("--name", required=True, help="of the policy, and of its folder below policies/")
    train.add_argument("--queue", action="store_true", help="queue it and return; the page Policy shows how it goes")
    _settings(train, online=False)
    train.set_defaults(act=_train)
    gain = commands.add_parser(
        "best-of", help="what the best of n responses of the start model gains, before any training"
    )
    gain.add_argument("--n", type=int, default=64, help="responses sampled to each prompt (default: 64)")
    where = gain.add_mutually_exclusive_group(required=True)
    where.add_argument("--out", type=Path, metavar="DIR", help="new folder for best_of.json and the responses")
    where.add_argument("--name", help="queue it instead; the result stays in the folder of the policy of this name")
    _settings(gain, online=True)
    gain.set_defaults(act=_best_of)
    duel.add(commands)
    for command, act, help in (
        ("stop", _stop, "ask a queued policy's job to stop; its newest checkpoint stays"),
        ("resume", _resume, "queue what a stopped or failed policy had left to do"),
    ):
        one = commands.add_parser(command, help=help)
        one.add_argument("name", metavar="NAME")
        one.set_defaults(act=act)


def _settings(command: argparse.ArgumentParser, online: bool) -> None:
    """A flag a setting. online: those that sampling and rewarding need."""
    command.add_argument(
        "--preset", choices=tuple(PRESETS), help="; ".join(f"{k}: {about}" for k, (about, _) in PRESETS.items())
    )
    training = {"method", "sft_steps", "lora_rank", "steps", "prompts_per_step", "samples_per_prompt", "learning_rate"}
    training |= {"beta", "max_kl", "batch_size", "checkpoint_steps", "heldout_samples", "clip", "no_end_penalty"}
    training |= {"length", "length_weight"}
    for name, entry in describe().items():
        if online and name in training:
            continue
        given: dict[str, Any] = {"help": entry["help"].replace("%", "%%"), "metavar": "X", "dest": f"set_{name}"}
        if entry["among"]:
            given |= {"choices": entry["among"], "metavar": None}
        command.add_argument(f"--{name.replace('_', '-')}", **given)


def _chosen(chosen: argparse.Namespace) -> PolicySettings:
    given = {k.removeprefix("set_"): v for k, v in vars(chosen).items() if k.startswith("set_") and v is not None}
    preset = PRESETS[chosen.preset][1] if chosen.preset else {}
    settings = PolicySettings().changed({**preset, **given})
    members = ",".join(named(name) for name in settings.members)
    return settings.changed({"reward_models": members, "judge": named(settings.judge)})


def _policies(_: argparse.Namespace) -> int:
    from ser_backend.policy import queue
    from ser_backend.policy.folder import PolicyFolder

    store = Store.open()
    for found in queue.known(store):
        folder, settings = PolicyFolder.of(found.name), found.settings
        if found.finished:
            state = f"finished: {folder.json('policy')['sentences'][0]}"
        else:
            done = max((facts["step"] for facts in folder.newest_steps()), default=0)
            state = f"{done:,} of {settings['steps']:,} steps"
        if found.is_active or found.status == Status.FAILED:
            state += f"; {'best of n: ' if found.estimates else ''}{found.status}"
        print(f"{found.name:20} {settings['method']:5} {settings['base_model']}: {state}")
    return 0


def _queued(store: Store, name: str) -> int:
    place = store.queue_position(policy=name)
    print(f"Policy {name} is queued{f', number {place}' if place else ''}. Stop it with: policy stop {name}")
    return 0


def _stop(chosen: argparse.Namespace) -> int:
    from ser_backend.policy import queue

    status = queue.stop(Store.open(), chosen.name)
    print(f"Policy {chosen.name} {'is asked to stop' if status else 'was not active'}.")
    return 0


def _resume(chosen: argparse.Namespace) -> int:
    from ser_backend.policy import queue

    store = Store.open()
    queue.resume(store, chosen.name)
    return _queued(store, chosen.name)


def _train(chosen: argparse.Namespace) -> int:
    """Ctrl+C is heard between two steps, and a checkpoint kept."""
    from ser_backend.policy import queue
    from ser_backend.policy.folder import PolicyFolder
    from ser_backend.policy.loop import run

    settings = _chosen(chosen).validate()
    if chosen.queue:
        store = Store.open()
        queue.train(store, chosen.name, settings)
        return _queued(store, chosen.name)
    folder = PolicyFolder.of(chosen.name)
    queue.check(Store.open(), settings)  # before the reward models are opened, which takes a while
    stop = threading.Event()
    before = signal.signal(signal.SIGINT, lambda *_: stop.set())
    bar = Bar("Training")
    try:
        with closing(run(Store.open(), settings, folder)) as telling:
            while True:
                kind, facts = next(telling)
                if kind == "step_finished":
                    bar.show(facts["step"], facts["of"], "Supervised start" if facts["stage"] == "sft" else "Training")
                elif line := _in_words(kind, facts):
                    bar.clear()
                    print(line, flush=True)
                if stop.is_set():
                    bar.clear()
                    telling.close()
                    print("The same command goes on where this one was.", file=sys.stderr)
                    raise KeyboardInterrupt
    except StopIteration as done:
        bar.clear()
        for sentence in done.value["sentences"]:
            print(sentence)
        print(f"{folder.path / 'model'}")
        return 0
    finally:
        bar.clear()
        signal.signal(signal.SIGINT, before)


def _in_words(kind: str, facts: dict[str, Any]) -> str:
    if kind == "heldout_measured":
        told = [f"KL {facts['kl']['mean']:.2f} nats", f"{facts['length']:.0f} tokens"]
        for who, found in (("reward", facts["reward"]), ("judge", facts["judge"])):
            if found:
                se = f" (standard error {found['se']:.3f})" if found["se"] is not None else ""
                told.insert(0, f"{who} {found['mean']:+.3f}{se}")
        return f"Held-out prompts {facts['when']} training: {', '.join(told)}."
    if kind == "batch_halved":
        return f"Memory ran out; {facts['batch_size']} responses at a time from here on. The step stays the same."
    if kind == "policy_resumed":
        return "Going on where this policy was."
    if kind == "prompts_left_out":
        return f"{facts['too_long']:,} prompts are longer than max_prompt_tokens and left out."
    if kind == "reward_models_opened":
        return "\n".join(facts["notes"])
    if kind == "alarm_raised":
        return f"WARNING, step {facts['step']}: {facts['sentence']}"
    return facts["sentence"] if kind == "prompts_gathered" else ""


def _best_of(chosen: argparse.Namespace) -> int:
    from ser_backend.policy import gain, queue

    settings = _chosen(chosen)
    if not 2 <= chosen.n <= MOST_N:
        raise SerError(f"--n is {chosen.n}; it must be from 2 to {MOST_N}.")
    if chosen.name:
        store = Store.open()
        queue.estimate(store, chosen.name, settings, chosen.n)
        return _queued(store, chosen.name)
    if chosen.out.exists():
        raise SerError(f"{chosen.out} exists already. Give a folder that does not exist yet.")
    queue.check(Store.open(), settings)
    bar = Bar("Sampling")
    telling = gain.estimate(Store.open(), settings, chosen.n, chosen.out)
    try:
        while True:
            kind, facts = next(telling)
            if kind == "responses_sampled":
                bar.show(facts["done"], facts["total"])
    except StopIteration as done:
        found = done.value
    finally:
        bar.clear()
    chosen.out.mkdir(parents=True, exist_ok=True)
    samples = found.pop("samples")
    (chosen.out / "best_of.json").write_text(json.dumps(found, indent=1), "utf-8")
    with (chosen.out / "samples.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(sample) + "\n" for sample in samples)
    print("    n  KL, nats  reward (95 %)            judge (95 %)")
    for point in found["points"]:
        reward = f"{point['reward']:+.3f} ({point['low']:+.3f} to {point['high']:+.3f})"
        judge = ""
        if point["judge"] is not None:
            judge = f"{point['judge']:+.3f} ({point['judge_low']:+.3f} to {point['judge_high']:+.3f})"
        print(f"{point['n']:5}  {point['kl']:8.2f}  {reward:24} {judge}".rstrip())
    for sentence in (*found["sentences"], *found["notes"]):
        print(sentence)
    return 0
