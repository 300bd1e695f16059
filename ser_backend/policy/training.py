"""trl's trainers, told step by step: RLOO, GRPO, DPO and SFT with our reward function, callback, stop and resume.

A step is the same however memory forces it to be cut: prompts come in an order drawn beforehand, gradients add up over
`batch_size` responses at a time, and running out of memory halves that and goes on from the newest checkpoint.
"""

import gc
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ser_backend import home
from ser_backend.errors import SerError, is_out_of_memory
from ser_backend.policy import figures
from ser_backend.policy.folder import COMPLETE, PolicyFolder
from ser_backend.policy.members import Members
from ser_backend.policy.prompts import Example, order_of
from ser_backend.policy.settings import ONLINE, PolicySettings
from ser_backend.policy.shaping import Start, shaped
from ser_backend.policy.telling import Tell
from ser_backend.policy.writer import Writer, heed_padding

WARMUP = 10  # steps until the learning rate is reached
KEPT = 2  # newest checkpoints
Judge = Callable[[list[dict[str, Any]]], str]  # the steps so far -> why the training is to end, or ""


@dataclass
class Trained:
    writer: Writer
    steps: int
    stopped: bool  # on request; the newest checkpoint is where it goes on
    because: str = ""  # why it ended early


@dataclass
class Rewarding:
    """The reward function that trl calls with the responses it sampled; what it saw waits here for the step's end."""

    members: Members
    start: Start
    settings: PolicySettings
    writer: Writer
    seen: list[dict[str, Any]] = field(default_factory=list)
    __name__ = "reward"

    def __call__(
        self, *, completions: list[Any], completion_ids: list[list[int]], text: list[str], place: list[int], **_: Any
    ) -> list[float]:
        texts = [one if isinstance(one, str) else one[0]["content"] for one in completions]
        raw = self.members.rewards(text, texts)
        ends = set(self.writer.ends)
        tokens = np.array([len(ids) for ids in completion_ids])
        ended = np.array([bool(ids) and ids[-1] in ends for ids in completion_ids])
        found = shaped(raw, tokens, ended, self.start, self.settings)
        told = self.writer.measured(self.writer.prompt_ids(text), completion_ids, self.settings.temperature)
        facts = {"raw": raw, "shaped": found, "tokens": tokens, "ended": ended, "place": np.array(place), **told}
        if (judged := self.members.judged(text, texts)) is not None:
            facts["judged"] = judged
        self.seen.append(facts | {"texts": np.array(texts, object)})
        return found.tolist()

    def step(self) -> dict[str, Any]:
        """Figures of what was sampled since the last step."""
        keys = self.seen[0]
        joined = {key: np.concatenate([facts[key] for facts in self.seen]) for key in keys}
        self.seen.clear()
        found = figures.responses(
            joined["raw"], self.members.names, joined.get("judged"), joined["place"], list(joined["texts"]),
            joined["tokens"], joined["ended"], joined["kl"], joined["sampled_kl"], joined["entropy"],
        )  # fmt: skip
        return found | {"shaped": figures.mean(joined["shaped"], joined["place"])}


def train(
    writer: Callable[[], Writer],
    settings: PolicySettings,
    folder: PolicyFolder,
    tell: Tell,
    *,
    stage: str = "checkpoints",
    prompts: Sequence[str] = (),
    examples: Sequence[Example] = (),
    members: Members | None = None,
    start: Start | None = None,
    judge: Judge = lambda steps: "",
) -> Trained:
    """Blocks until the last step, or until `tell` says to stop. writer: opens the model anew, for each attempt.

    Raises SerError when memory runs out with one response at a time, and what the reward models raise.
    """
    size = largest(settings.batch, settings.samples_per_prompt if settings.method in ONLINE else 1, settings.batch_size)
    while True:
        model = writer()
        try:
            return _attempt(model, size, settings, folder, tell, stage, prompts, examples, members, start, judge)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            group = settings.samples_per_prompt if settings.method in ONLINE else 1
            smaller = largest(settings.batch, group, size // 2)
            if smaller == size or not smaller:
                raise SerError(
                    "Memory ran out with one response at a time. Lower max_prompt_tokens or max_new_tokens, use LoRA "
                    "(lora_rank above 0) or a smaller base model."
                ) from None
            size = smaller
        del model
        _free()
        tell("batch_halved", {"batch_size": size})


def largest(total: int, group: int, most: int) -> int:
    """The largest number of responses at a time, at most `most`, that divides a step into whole groups or a group into
    equal parts; 0 when there is none."""
    fitting = [d for d in range(1, min(most, total) + 1) if total % d == 0 and (d % group == 0 or group % d == 0)]
    return max(fitting, default=0)


def _attempt(
    writer: Writer,
    size: int,
    settings: PolicySettings,
    folder: PolicyFolder,
    tell: Tell,
    stage: str,
    prompts: Sequence[str],
    examples: Sequence[Example],
    members: Members | None,
    start: Start | None,
    judge: Judge,
) -> Trained:
    import datasets
    from transformers import PrinterCallback, TrainerCallback

    datasets.disable_progress_bars()
    checkpoint = folder.checkpoint(stage)
    begun = int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0
    steps = [facts for facts in folder.keep_steps(begun) if facts["stage"] == stage] if stage == "checkpoints" else []
    rewarding = None
    if settings.method in ONLINE:
        assert members is not None
        assert start is not None
        rewarding = Rewarding(members, start, settings, writer)
    trainer = _trainer(writer, size, settings, folder.path / stage, prompts, examples, rewarding)
    writer.model = trainer.accelerator.unwrap_model(trainer.model)
    if getattr(trainer, "ref_model", None) is not None:
        writer.reference = trainer.accelerator.unwrap_model(trainer.ref_model)
        heed_padding(writer.reference)
    outcome = Trained(writer, begun, False, judge(steps))

    class Telling(TrainerCallback):
        began = time.perf_counter()

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.began = time.perf_counter()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> Any:
            if not logs or "loss" not in logs:
                return control
            facts = {"step": state.global_step, "of": settings.steps, "stage": stage, "loss": _number(logs["loss"])}
            facts["seconds"] = round(time.perf_counter() - self.began, 3)
            for ours, theirs in (
                ("accuracy", "rewards/accuracies"),
                ("margin", "rewards/margins"),
                ("norm", "grad_norm"),
                ("trainer_kl", "kl"),  # a token; noisy
            ):
                if theirs in logs:
                    facts[ours] = _number(logs[theirs])
            if rewarding:
                facts |= rewarding.step()
            if facts["loss"] is None:
                raise SerError(
                    f"The loss of step {state.global_step} is no number. Lower learning_rate, or use precision=float32. The "
                    "newest checkpoint is kept."
                )
            if stage == "checkpoints":
                folder.add_step(facts)
            steps.append(facts)
            outcome.steps = state.global_step
            outcome.stopped = tell("step_finished", facts)
            outcome.because = judge(steps)
            if outcome.stopped or outcome.because:
                control.should_save = control.should_training_stop = True
            return control

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            path = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            (path / COMPLETE).write_text(json.dumps({"step": state.global_step}))
            if not outcome.stopped:
                tell("checkpoint_saved", {"step": state.global_step, "stage": stage})

    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Telling())
    if begun < settings.steps and not outcome.because:
        try:
            with home.disk_full_in_words(folder.path):
                trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        finally:
            folder.checkpoint(stage)  # removes one that was not written to its end: it may be what fills the disk
    elif checkpoint:
        trainer._load_from_checkpoint(str(checkpoint))
    if outcome.stopped and outcome.steps >= settings.steps:
        outcome.stopped = False  # asked for after the last step: there is nothing left to do
    trainer.optimizer = trainer.lr_scheduler = None
    return outcome


def _trainer(
    writer: Writer,
    size: int,
    settings: PolicySettings,
    out: Path,
    prompts: Sequence[str],
    examples: Sequence[Example],
    rewarding: Rewarding | None,
) -> Any:
    import trl
    from datasets import Dataset

    cuda = writer.device == "cuda"
    common: dict[str, Any] = dict(
        output_dir=str(out), max_steps=settings.steps, per_device_train_batch_size=size,
        gradient_accumulation_steps=settings.batch // size, learning_rate=settings.learning_rate,
        lr_scheduler_type="constant_with_warmup", warmup_steps=min(WARMUP, settings.steps // 4), logging_steps=1,
        save_strategy="steps", save_steps=settings.checkpoint_steps, save_total_limit=KEPT, bf16=writer.bf16,
        gradient_checkpointing=cuda, report_to=[], disable_tqdm=True, use_cpu=not cuda, seed=settings.random_seed,
        dataloader_pin_memory=cuda, logging_nan_inf_filter=False,
    )  # fmt: skip
    adapters = _adapters(settings) if settings.lora_rank else None
    if settings.method in ONLINE:
        wanted = settings.steps * settings.prompts_per_step
        if len(prompts) < 1:
            raise SerError("No prompt is left to train on. Raise max_prompt_tokens, or give more prompts.")
        order = order_of(len(prompts), wanted, settings.random_seed)
        asked = [writer.asked(prompt) for prompt in prompts]
        data = Dataset.from_dict(
            {
                "prompt": [asked[place] for place in order],
                "text": [prompts[place] for place in order],
                "place": order.tolist(),
            }
        )
        # whole groups at a time are sampled, so that running out of memory makes sampling smaller, too
        common |= dict(
            num_generations=settings.samples_per_prompt, max_completion_length=settings.max_new_tokens,
            temperature=settings.temperature, beta=settings.beta, disable_dropout=True, shuffle_dataset=False,
            steps_per_generation=max(1, settings.samples_per_prompt // size),
        )  # fmt: skip
        online: Any = trl.RLOOTrainer if settings.method == "rloo" else trl.GRPOTrainer
        config: Any = trl.RLOOConfig if settings.method == "rloo" else trl.GRPOConfig
        return online(
            writer.model, rewarding, config(**common), train_dataset=data, processing_class=writer.tokenizer,
            peft_config=adapters,
        )  # fmt: skip
    common["max_length"] = settings.max_prompt_tokens + settings.max_new_tokens
    rows = [{"prompt": writer.asked(e.prompt), "chosen": writer.answered(e.chosen)} for e in examples]
    if settings.method == "dpo":
        data = Dataset.from_list(
            [row | {"rejected": writer.answered(e.rejected)} for row, e in zip(rows, examples, strict=True)]
        )
        return trl.DPOTrainer(
            writer.model, args=trl.DPOConfig(beta=settings.beta, **common), train_dataset=data,
            processing_class=writer.tokenizer, peft_config=adapters,
        )  # fmt: skip
    data = Dataset.from_list([{"prompt": row["prompt"], "completion": row["chosen"]} for row in rows])
    return trl.SFTTrainer(
        writer.model, args=trl.SFTConfig(**common), train_dataset=data, processing_class=writer.tokenizer,
        peft_config=adapters,
    )  # fmt: skip


def _adapters(settings: PolicySettings) -> Any:
    from peft import LoraConfig

    return LoraConfig(
        r=settings.lora_rank, lora_alpha=2 * settings.lora_rank, target_modules="all-linear", task_type="CAUSAL_LM"
    )


def _number(value: Any) -> float | None:
    found = float(value)
    return round(found, 6) if math.isfinite(found) else None


def _free() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
