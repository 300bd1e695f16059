"""python -m benchmarks.policy FILE --out DIR: what RL gains with a reward model of ours, and whether a judge confirms it.

On one CPU thread, nothing fetched. A small Llama with a tokeniser of its own learns to write the responses of FILE's train
rows, chosen and rejected alike. Then, over random seeds: the prompt groups are split in halves; a head run on the labels of one
half is the reward model, one on the other half the judge, which never saw a label of the first; what the best of n gains, and
what RLOO gains at which KL, under both.
"""

import argparse
import gzip
import json
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.simulate import scratch
from ser_backend.cli import main as command
from ser_backend.policy import gain
from ser_backend.policy.folder import PolicyFolder
from ser_backend.policy.loop import run
from ser_backend.policy.settings import PolicySettings
from ser_backend.report import versions
from ser_backend.store import Store

VOCABULARY = 2_048
SMALL = {  # transformers' names
    "model_type": "llama", "hidden_size": 192, "intermediate_size": 576, "num_hidden_layers": 3, "num_attention_heads": 6,
    "num_key_value_heads": 6, "max_position_embeddings": 512, "tie_word_embeddings": True,
}  # fmt: skip
COMMON = {
    "lora_rank": 0, "threads": 1, "precision": "float32", "max_prompt_tokens": 160, "max_new_tokens": 64, "batch_size": 32,
    "checkpoint_steps": 50,
}  # fmt: skip


def rows_of(file: Path) -> list[dict[str, Any]]:
    """Train rows; the test part is not read."""
    data = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    return [row for row in map(json.loads, data.decode().splitlines()) if row.get("split", "train") == "train"]


def halves(rows: Sequence[dict[str, Any]], seed: int) -> list[list[dict[str, Any]]]:
    """By prompt group, so that neither half has a label about a response of the other."""
    groups = np.random.default_rng([seed, 5]).permutation(sorted({row["group"] for row in rows}))
    first = set(groups[: len(groups) // 2].tolist())
    return [[row for row in rows if (row["group"] in first) is mine] for mine in (True, False)]


def fresh_writer(texts: Sequence[str], folder: Path, seed: int, facts: dict[str, Any] = SMALL) -> None:
    """A model with random weights and a byte-level BPE tokeniser learnt from the texts."""
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    core = ByteLevelBPETokenizer()
    core.train_from_iterator(texts, VOCABULARY, special_tokens=["<end>"], show_progress=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core._tokenizer, eos_token="<end>", pad_token="<end>")
    torch.manual_seed(seed)
    given = {"vocab_size": len(tokenizer), "eos_token_id": 0, "pad_token_id": 0, "bos_token_id": None, **facts}
    AutoModelForCausalLM.from_config(AutoConfig.for_model(**given)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_rows(rows: Sequence[dict[str, Any]], path: Path) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return str(path)


def play(policy: PolicySettings, name: str) -> dict[str, Any]:
    telling = run(Store.open(), policy, PolicyFolder.of(name))
    while True:
        try:
            kind, facts = next(telling)
        except StopIteration as done:
            return done.value
        if kind == "step_finished" and facts["step"] % 25 == 0:
            reward = (
                f", reward {facts['reward']['mean']:+.3f}, KL {facts['kl']['mean']:.2f}" if "reward" in facts else ""
            )
            print(
                f"  {name} step {facts['step']}: loss {facts['loss']:.3f}{reward}, {facts['seconds']:.1f} s", flush=True
            )


def best_of(policy: PolicySettings, n: int, out: Path) -> list[dict[str, Any]]:
    telling = gain.estimate(Store.open(), policy, n, out)
    while True:
        try:
            next(telling)
        except StopIteration as done:
            return done.value["points"]


def start_model(rows: list[dict[str, Any]], place: Path, chosen: argparse.Namespace) -> tuple[str, float, str]:
    """(folder of a model that writes as the rows do, its last loss, file of prompts): one for all seeds."""
    texts = sorted({(row["prompt"], row[end]) for row in rows for end in ("chosen", "rejected")})
    # every response is imitated once, whichever end of a pair it was; sft does not read "rejected"
    others = texts[1:] + texts[:1]
    same = [{"prompt": p, "chosen": t, "rejected": o[1]} for (p, t), o in zip(texts, others, strict=True) if t != o[1]]
    prompts = write_rows([{"prompt": p} for p in sorted({p for p, _ in texts})], place / "prompts.jsonl")
    fresh_writer([f"{prompt}\n\n{text}" for prompt, text in texts], place / "fresh", 0)
    settings = {
        "base_model": str(place / "fresh"), "method": "sft", "examples": write_rows(same, place / "texts.jsonl"),
        "steps": chosen.start_steps, "prompts_per_step": 32, "learning_rate": 2e-3, "heldout_prompts": 8,
    }  # fmt: skip
    play(PolicySettings().changed({**COMMON, "prompts": prompts, **settings}), "start")
    folder = PolicyFolder.of("start")
    return str(folder.path / "model"), folder.steps()[-1]["loss"], prompts


def reward_models(rows: list[dict[str, Any]], seed: int, place: Path) -> list[str]:
    """A head run on the labels of each half."""
    models, parts = [], halves(rows, seed)
    for number, half in enumerate(parts):
        name = f"seed-{seed}-half-{number}"
        source = write_rows(half, place / f"{name}.jsonl")
        pool = write_rows(parts[1 - number], place / f"{name}-pool.jsonl")  # a run wants one; no round reads it
        asked = ["run", "--seed", source, "--pool", pool, "--rounds", "0", "--fit", "head", "--name", name]
        if code := command([*asked, "--set", f"random_seed={seed}", "--set", "threads=1"]):
            raise SystemExit(code)
        models.append(f"run:{Store.open().run(name).id}")
    return models


def play_seed(
    rows: list[dict[str, Any]], seed: int, base: str, prompts: str, place: Path, chosen: argparse.Namespace
) -> dict[str, Any]:
    worked = time.process_time()
    climbed, judge = reward_models(rows, seed, place)
    policy = PolicySettings().changed(
        {**COMMON, "base_model": base, "prompts": prompts, "reward_models": climbed, "judge": judge}
        | {"random_seed": seed, "steps": chosen.steps, "samples_per_prompt": 4, "prompts_per_step": 8}
        | {"learning_rate": chosen.learning_rate, "beta": chosen.beta}
        | {"heldout_prompts": chosen.prompts, "heldout_samples": chosen.samples}
    )
    points = best_of(policy, chosen.n, place / f"gain-{seed}")
    facts = play(policy, f"rloo-{seed}")
    steps = PolicyFolder.of(f"rloo-{seed}").steps()
    keys = ("start", "before", "after", "changes", "steps", "alarms", "sentences", "seconds")
    return {
        "seed": seed,
        "best_of": points,
        "rloo": {key: facts[key] for key in keys},
        "curve": [{key: step[key]["mean"] for key in ("reward", "judge", "kl")} for step in steps],
        "cpu_seconds": round(time.process_time() - worked, 1),
    }


def table(found: Sequence[dict[str, Any]]) -> str:
    """Gains in raw rewards, as each model gives them."""
    lines = ["| seed | way | KL, nats | reward gained | judge gained |", "|---|---|---|---|---|"]
    for one in found:
        scale = one["rloo"]["start"]["sd"][0]
        for point in one["best_of"]:
            if point["n"] in (4, 16, 64):
                reward = "{:+.3f} ({:+.3f} to {:+.3f})".format(
                    *(scale * point[key] for key in ("reward", "low", "high"))
                )
                judge = "{judge:+.3f} ({judge_low:+.3f} to {judge_high:+.3f})".format(**point)
                lines.append(f"| {one['seed']} | best of {point['n']} | {point['kl']:.2f} | {reward} | {judge} |")
        changes = one["rloo"]["changes"]
        cells = [
            "{mean:+.3f} ({low:+.3f} to {high:+.3f})".format(**c)
            for c in (*changes["members"].values(), changes["judge"])
        ]
        kl = one["rloo"]["after"]["kl"]["mean"]
        lines.append(f"| {one['seed']} | RLOO, {one['rloo']['steps']} steps | {kl:.2f} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines)


def played(file: Path, asked: dict[str, str]) -> list[dict[str, Any]]:
    """The seeds an earlier, shorter run with the same settings has finished: the start model is the same again."""
    if not file.exists():
        return []
    earlier = json.loads(file.read_text("utf-8"))
    return earlier["seeds"] if {**earlier["asked"], "seeds": asked["seeds"]} == asked else []


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.policy", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--start-steps", type=int, default=600, help="to learn to write (default: 600, of 32 texts)")
    parser.add_argument("--steps", type=int, default=150, help="of RLOO, of 8 prompts with 4 responses (default: 150)")
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--beta", type=float, default=0.05)
    parser.add_argument("--n", type=int, default=64, help="responses a prompt for best of n")
    parser.add_argument("--prompts", type=int, default=64, help="held out, at most half of all")
    parser.add_argument("--samples", type=int, default=16, help="responses to each held-out prompt, before and after")
    chosen = parser.parse_args()
    rows = rows_of(chosen.file)
    chosen.out.mkdir(parents=True, exist_ok=True)
    asked = {key: str(value) for key, value in vars(chosen).items()}
    found: dict[str, Any] = {
        "asked": asked,
        "versions": versions(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }
    found["seeds"] = played(chosen.out / "policy.json", asked)
    with scratch() as place:
        base, found["start_loss"], prompts = start_model(rows, place, chosen)
        for seed in range(len(found["seeds"]), chosen.seeds):
            found["seeds"].append(play_seed(rows, seed, base, prompts, place, chosen))
            (chosen.out / "policy.json").write_text(json.dumps(found, indent=1), "utf-8")
            (chosen.out / "policy.md").write_text(table(found["seeds"]) + "\n", "utf-8")
    print(table(found["seeds"]))


if __name__ == "__main__":
    main()
