"""python -m benchmarks.policy_speed FILE: sampled tokens a second of RLOO by this program, beside trl's trainer alone.

Both train the same model with random weights on the same prompts, step for step with the same settings, and ask the same
reward model; ours also measures the exact KL and the entropy of each step, keeps its figures and saves checkpoints. Each
measurement is a process of its own, and the ways take turns. `--model` chooses the size: "small" suits a CPU; those of
benchmarks.throughput are meant for a GPU (bfloat16 and LoRA there).
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.policy import SMALL, fresh_writer, rows_of, write_rows
from benchmarks.serve import head
from benchmarks.simulate import scratch
from benchmarks.throughput import MODEL_CONFIGS
from ser_backend.errors import SerError
from ser_backend.policy.folder import PolicyFolder
from ser_backend.policy.members import open_members
from ser_backend.policy.settings import PolicySettings
from ser_backend.policy.shaping import Start, shaped
from ser_backend.policy.training import train
from ser_backend.policy.writer import open_writer

MODELS = {
    "small": SMALL,
    **{name: {"model_type": "qwen2", "tie_word_embeddings": True, **facts} for name, facts in MODEL_CONFIGS.items()},
}
WARM_UP = 2  # steps before the clock starts
WAYS = ("trl", "ours")


def settings_of(args: argparse.Namespace, folder: Path) -> PolicySettings:
    return PolicySettings().changed(
        {
            "base_model": str(folder / "model"), "steps": WARM_UP + args.steps, "lora_rank": args.lora_rank,
            "prompts_per_step": args.prompts_per_step, "samples_per_prompt": 4, "batch_size": args.batch_size,
            "max_prompt_tokens": 160, "max_new_tokens": args.new_tokens, "checkpoint_steps": 1_000_000,
            "threads": args.threads, "reward_models": str(folder / "head"), "no_end_penalty": 0.0,
        }
    )  # fmt: skip


def rewards_of(settings: PolicySettings, lengths: list[int]) -> Any:
    """The reward function of both ways, as trl calls it; the tokens it is given are counted into `lengths`."""
    members = open_members(settings.members, "", settings.threads)
    plain = Start(members.names, (0.0,), (1.0,), 1.0, 0.0, 1)

    def reward(*, completions: list[str], completion_ids: list[list[int]], text: list[str], **_: Any) -> list[float]:
        tokens = np.array([len(ids) for ids in completion_ids])
        lengths.extend(tokens.tolist())
        raw = members.rewards(text, completions)
        return shaped(raw, tokens, np.ones(len(tokens), bool), plain, settings).tolist()

    return reward


def by_ours(settings: PolicySettings, prompts: Sequence[str]) -> tuple[list[float], int]:
    """Seconds at which each step ended, and tokens sampled after the warm-up."""
    ends: list[float] = []
    lengths: list[float] = []

    def tell(kind: str, facts: dict[str, Any]) -> bool:
        if kind == "step_finished":
            ends.append(time.perf_counter())
            lengths.append(facts["length"] * facts["reward"]["n"])
        return False

    members = open_members(settings.members, "", settings.threads)
    start = Start(members.names, (0.0,), (1.0,), 1.0, 0.0, 1)
    folder = PolicyFolder.of("speed")
    with folder.held():
        folder.begin(settings.as_dict())
        train(
            lambda: open_writer(settings.base_model, settings), settings, folder, tell, prompts=prompts,
            members=members, start=start,
        )  # fmt: skip
    return ends, round(sum(lengths[WARM_UP:]))


def by_trl(settings: PolicySettings, prompts: Sequence[str]) -> tuple[list[float], int]:
    """As trl's documentation shows RLOO: a data set of prompts, a reward function, `train()`; our settings."""
    import trl
    from datasets import Dataset
    from transformers import PrinterCallback, TrainerCallback

    writer = open_writer(settings.base_model, settings)
    cuda = writer.device == "cuda"
    ends: list[float] = []
    lengths: list[int] = []

    class Clock(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            ends.append(time.perf_counter())

    wanted = settings.steps * settings.prompts_per_step
    asked = [prompts[place % len(prompts)] for place in range(wanted)]
    config = trl.RLOOConfig(
        output_dir=str(Path(settings.base_model).parent / "trl"), max_steps=settings.steps,
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.batch // settings.batch_size, learning_rate=settings.learning_rate,
        lr_scheduler_type="constant", logging_steps=1, save_strategy="no", bf16=writer.bf16,
        gradient_checkpointing=cuda, report_to=[], disable_tqdm=True, use_cpu=not cuda,
        num_generations=settings.samples_per_prompt, max_completion_length=settings.max_new_tokens,
        temperature=settings.temperature, beta=settings.beta, disable_dropout=True, shuffle_dataset=False,
    )  # fmt: skip
    adapters = None
    if settings.lora_rank:
        from peft import LoraConfig

        adapters = LoraConfig(r=settings.lora_rank, target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = trl.RLOOTrainer(
        writer.model, rewards_of(settings, lengths), config, processing_class=writer.tokenizer, peft_config=adapters,
        train_dataset=Dataset.from_dict({"prompt": [f"{text}\n\n" for text in asked], "text": asked}),
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Clock())
    trainer.train()
    return ends, sum(lengths[WARM_UP * settings.batch :])


def one(way: str, args: argparse.Namespace) -> dict[str, float]:
    """Inside the process of one measurement."""
    import resource

    import torch

    folder = Path(args.folder)
    prompts = json.loads((folder / "prompts.json").read_text("utf-8"))
    with scratch():
        ends, tokens = (by_ours if way == "ours" else by_trl)(settings_of(args, folder), prompts)
    seconds = ends[-1] - ends[WARM_UP - 1]
    cuda = torch.cuda.is_available()
    peak = torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"tokens": tokens, "seconds": seconds, "tokens_per_second": tokens / seconds, "peak_bytes": peak}


def prepared(args: argparse.Namespace, folder: Path) -> None:
    rows = rows_of(args.file)
    texts = sorted({row["prompt"] for row in rows})
    (folder / "prompts.json").write_text(json.dumps(texts), "utf-8")
    fresh_writer([f"{row['prompt']}\n\n{row['chosen']}" for row in rows], folder / "model", 0, MODELS[args.model])
    (folder / "head").mkdir()
    head(folder / "head")
    write_rows([{"prompt": text} for text in texts], folder / "prompts.jsonl")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.policy_speed", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--model", choices=sorted(MODELS), default="small")
    parser.add_argument("--steps", type=int, default=8, help="that are timed")
    parser.add_argument("--prompts-per-step", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=32, help="responses differentiated at a time")
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--lora-rank", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="OUT")
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(one(args.one, args)))
        return
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as name:
        prepared(args, Path(name))
        for _ in range(args.turns):
            for way in WAYS:
                given = [*sys.argv[1:], "--one", way, "--folder", name]
                told = subprocess.run(
                    [sys.executable, "-m", "benchmarks.policy_speed", *given], capture_output=True, text=True
                )
                if told.returncode:
                    raise SerError(f"The measurement {way!r} failed: {told.stderr.strip().splitlines()[-1:]}")
                found[way].append(json.loads(told.stdout.strip().splitlines()[-1]))
                print(f"{way}: {found[way][-1]['tokens_per_second']:.0f} tokens/s", file=sys.stderr, flush=True)
    middle = {way: statistics.median(one["tokens_per_second"] for one in found[way]) for way in WAYS}
    result = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "asked": {key: str(value) for key, value in vars(args).items()},
        "tokens_per_second": middle,
        "ratio_to_trl": middle["ours"] / middle["trl"],
        "peak_bytes": {way: max(one["peak_bytes"] for one in found[way]) for way in WAYS},
        "raw": found,
    }
    print(json.dumps({key: value for key, value in result.items() if key != "raw"}, indent=1))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1), "utf-8")


if __name__ == "__main__":
    main()
