"""The language model: opened, asked for responses, measured against the model it began with. Knows no rewards.

A prompt is put as the tokeniser's chat template says, where there is one: a conversation message by message (turns.py), a
system message within the user's first where the template refuses or drops it, a conversation that the template refuses as one
message. Else it is the prompt and a blank line. Reward models read the prompt as one text either way.
"""

import inspect
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ser_backend.errors import SerError, is_out_of_memory
from ser_backend.policy.divergence import of_logits
from ser_backend.policy.settings import PolicySettings
from ser_backend.policy.turns import Messages, alone, messages, without_system
from ser_backend.transformer.bases import base_folder, for_writing, in_words, tokenizer_of

AT_ONCE = 64  # responses sampled together
LOGITS = {"cpu": 1 << 26, "cuda": 1 << 28}  # numbers of two models' predictions in memory together
ABSOLUTE = ("gpt2", "gpt_neo", "gpt_bigcode")
CAUSAL = ("ForCausalLM", "LMHeadModel")
MERGED_FROM = "merged_from.txt"  # in a merged start: which adapter it was
PROBE = "ser-studio-probe"  # a system message that no template writes by itself
# before a template that can make its model think aloud (Qwen3): unless told to it does not, for thoughts would be rewarded as
# the response. In the template, not in each call: sampling, trl's trainers and whoever loads the saved model put prompts alike.
NO_THINKING = "{%- if enable_thinking is not defined %}{%- set enable_thinking = false %}{%- endif %}"


@dataclass(frozen=True, slots=True)
class Sample:
    place: int  # of its prompt
    ids: list[int]  # of the response, its end token with it
    text: str
    ended: bool


@dataclass
class Writer:
    model: Any  # transformers or peft
    tokenizer: Any
    device: str
    bf16: bool  # computes in bfloat16
    manner: Any = None  # the generation config of the model's authors; it samples without, see plainly
    reference: Any = None  # the start model; None: it is the model without its adapters

    @property
    def chat(self) -> bool:
        return self.tokenizer.chat_template is not None

    @property
    def ends(self) -> list[int]:
        """Ids that end a response."""
        found = self.model.generation_config.eos_token_id
        ids = [] if found is None else [found] if isinstance(found, int) else list(found)
        return list(dict.fromkeys([*ids, self.tokenizer.eos_token_id]))

    def asked(self, prompt: str) -> Any:
        """A prompt as trl's data sets hold it."""
        if not self.chat:
            return f"{prompt}\n\n"
        found = messages(prompt)
        if found[0]["role"] == "system" and not self.heeds_system:
            found = without_system(found)
        return found if len(found) == 1 or self._put(found) else alone(prompt)

    @cached_property
    def heeds_system(self) -> bool:
        """Whether the chat template takes a system message, and does not drop it."""
        return PROBE in self._put([{"role": "system", "content": PROBE}, *alone("Hello")])

    def _put(self, found: Messages) -> str:
        """The text the template makes of it; "" where it refuses (roles that must alternate, no system message)."""
        from jinja2 import TemplateError

        try:
            return str(self.tokenizer.apply_chat_template(found, add_generation_prompt=True, tokenize=False))
        except (TemplateError, TypeError, ValueError):
            return ""

    def answered(self, text: str) -> Any:
        return [{"role": "assistant", "content": text}] if self.chat else text

    def prompt_ids(self, prompts: Sequence[str]) -> list[list[int]]:
        if not prompts:
            return []
        if self.chat:
            found = self.tokenizer.apply_chat_template(
                [self.asked(prompt) for prompt in prompts], add_generation_prompt=True, tokenize=True, return_dict=True
            )["input_ids"]
        else:
            found = self.tokenizer([self.asked(prompt) for prompt in prompts])["input_ids"]
        return [list(ids) for ids in found]

    # ---- sampling

    def samples(self, prompts: Sequence[str], each: int, settings: PolicySettings, seed: int) -> Iterator[Sample]:
        """`each` responses to each prompt, in order. Other random choices are not disturbed."""
        import torch

        rows = [(place, ids) for place, ids in enumerate(self.prompt_ids(prompts)) for _ in range(each)]
        devices = [torch.cuda.current_device()] if self.device == "cuda" else []
        at_once = AT_ONCE
        begin = 0
        while begin < len(rows):
            part = rows[begin : begin + at_once]
            try:
                with torch.random.fork_rng(devices):
                    torch.manual_seed(hash((seed, begin)) & 0x7FFFFFFF)
                    found = self._written([ids for _, ids in part], settings)
            except RuntimeError as error:
                if not is_out_of_memory(error) or at_once == 1:
                    raise
                at_once = max(1, at_once // 2)
                self._free()
                continue
            begin += len(part)
            ends = set(self.ends)
            for (place, _), ids in zip(part, found, strict=True):
                text = self.tokenizer.decode(ids, skip_special_tokens=True)
                yield Sample(place, ids, text, bool(ids) and ids[-1] in ends)

    def _written(self, prompts: list[list[int]], settings: PolicySettings) -> list[list[int]]:
        import torch
        from transformers import GenerationConfig

        longest = max(map(len, prompts))
        pad = self.tokenizer.pad_token_id
        ids = torch.tensor([[pad] * (longest - len(row)) + row for row in prompts], device=self.device)
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in prompts], device=self.device)
        how = GenerationConfig(
            max_new_tokens=settings.max_new_tokens, do_sample=True, temperature=settings.temperature, top_k=0, top_p=1.0,
            pad_token_id=pad, eos_token_id=self.ends, bos_token_id=self.tokenizer.bos_token_id,
        )  # fmt: skip
        with torch.no_grad(), self.computing(), self.evaluating():
            found = self.model.generate(input_ids=ids, attention_mask=mask, generation_config=how)[:, longest:].tolist()
        return [upto_end(row, self.ends) for row in found]

    # ---- measuring

    def measured(
        self, prompts: Sequence[list[int]], responses: Sequence[list[int]], temperature: float
    ) -> dict[str, np.ndarray]:
        """kl, sampled_kl and entropy of each response, in nats: (n,) each. See divergence."""
        import torch

        found = {name: np.zeros(len(responses)) for name in ("kl", "sampled_kl", "entropy")}
        vocabulary = int(self.model.get_input_embeddings().weight.shape[0])
        order = sorted(range(len(responses)), key=lambda row: len(responses[row]) + len(prompts[row]))
        room = LOGITS[self.device]
        while order:
            longest = 1
            part: list[int] = []
            while order and (
                not part or (len(part) + 1) * max(longest, len(responses[order[-1]])) * vocabulary * 2 <= room
            ):
                part.append(order.pop())
                longest = max(longest, len(responses[part[-1]]))
            try:
                with torch.no_grad(), self.evaluating():
                    told = self._compared([prompts[row] for row in part], [responses[row] for row in part], temperature)
            except RuntimeError as error:
                if not is_out_of_memory(error) or len(part) == 1:
                    raise
                order += reversed(part)
                room = len(part) // 2 * longest * vocabulary * 2
                self._free()
                continue
            for name, values in zip(("kl", "sampled_kl", "entropy"), told, strict=True):
                found[name][part] = values.cpu().numpy()
        return found

    def _compared(self, prompts: list[list[int]], responses: list[list[int]], temperature: float) -> Any:
        """Left padding for prompts, right for responses: all responses begin at one column."""
        import torch

        wide, long = max(map(len, prompts)), max(1, max(map(len, responses)))
        pad = self.tokenizer.pad_token_id
        rows = [
            [pad] * (wide - len(p)) + p + r + [pad] * (long - len(r)) for p, r in zip(prompts, responses, strict=True)
        ]
        seen = [
            [0] * (wide - len(p)) + [1] * (len(p) + len(r)) + [0] * (long - len(r))
            for p, r in zip(prompts, responses, strict=True)
        ]
        ids, mask = torch.tensor(rows, device=self.device), torch.tensor(seen, device=self.device)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        given = {"input_ids": ids, "attention_mask": mask, "use_cache": False}
        if reads_positions(self.model):
            given["position_ids"] = positions

        def logits(model: Any) -> Any:
            with self.computing():
                return model(**given, logits_to_keep=long + 1).logits[:, :-1] / temperature

        policy = logits(self.model)
        if self.reference is not None:
            start = logits(self.reference)
        elif hasattr(self.model, "disable_adapter"):
            with self.model.disable_adapter():
                start = logits(self.model)
        else:
            raise RuntimeError("there is no start model to compare with")  # a KL of 0 would be a lie
        return of_logits(policy, start, ids[:, wide:], mask[:, wide:])

    # ---- state

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        before = self.model.training
        self.model.eval()
        try:
            yield
        finally:
            self.model.train(before)

    def computing(self) -> Any:
        import torch

        return torch.autocast(self.device, torch.bfloat16) if self.bf16 else nullcontext()

    def _free(self) -> None:
        import gc

        import torch

        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()


def reads_positions(model: Any) -> bool:
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return "position_ids" in inspect.signature(type(base).forward).parameters


def heed_padding(model: Any) -> None:
    """Of a model that learnt an embedding for each position (GPT-2): count positions from the first token that is not padding.

    Trainers read prompts padded on the left and leave positions to the model, which would count the padding; turning
    (rotary) positions do not mind.
    """
    if model.config.model_type not in ABSOLUTE:
        return

    def add(_: Any, args: Any, given: dict[str, Any]) -> Any:
        mask = given.get("attention_mask")
        if (
            given.get("position_ids") is None
            and given.get("past_key_values") is None
            and mask is not None
            and mask.ndim == 2
        ):
            given["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)
        return args, given

    model.register_forward_pre_hook(add, with_kwargs=True)


@for_writing()
def open_writer(folder: str, settings: PolicySettings) -> Writer:
    """Opened to be trained: plain weights; adapters are the trainer's to add. Raises SerError in a sentence."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if settings.threads:
        torch.set_num_threads(settings.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    bf16 = settings.precision == "bfloat16" or (
        settings.precision == "auto" and device == "cuda" and torch.cuda.is_bf16_supported()
    )
    path = base_folder(folder)
    with in_words(folder):
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    named = (config.architectures or ["nothing"])[0]
    encoder = getattr(config, "is_decoder", None) is False and named.startswith(
        ("Bert", "Roberta", "XLMRoberta", "Electra")
    )
    if not named.endswith(CAUSAL) or encoder:
        raise SerError(
            f"{folder} is no causal language model (its config.json names {named}), so it cannot write responses. Give a model "
            "that ends in ForCausalLM or LMHeadModel."
        )
    with in_words(folder):
        tokenizer = tokenizer_of(path)
        model: Any = AutoModelForCausalLM.from_pretrained(
            path, dtype=torch.bfloat16 if bf16 and settings.lora_rank else torch.float32, use_safetensors=True,
            trust_remote_code=False,
        )  # fmt: skip
    if tokenizer.eos_token_id is None:
        raise SerError(
            f"The tokeniser of {folder} has no end token, so no response could end. Choose another base model."
        )
    unthinking(tokenizer)
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    _check_room(model.config, settings, folder)
    model.generation_config.pad_token_id = model.config.pad_token_id = tokenizer.pad_token_id
    manner = plainly(model)
    heed_padding(model)
    return Writer(model.to(device), tokenizer, device, bf16, manner)


def plainly(model: Any) -> Any:
    """Of its generation config leave the special tokens only, and return it as it was.

    `generate` fills in from there whatever it was not told, also for trl: a repetition penalty (Qwen2.5) or a list of tokens
    to suppress would have responses sampled from another distribution than the one that is trained and whose KL is measured.
    """
    from transformers import GenerationConfig

    manner = model.generation_config
    model.generation_config = GenerationConfig(
        bos_token_id=manner.bos_token_id, eos_token_id=manner.eos_token_id, pad_token_id=manner.pad_token_id
    )
    return manner


def unthinking(tokenizer: Any) -> None:
    template = tokenizer.chat_template
    if isinstance(template, str) and "enable_thinking" in template and not template.startswith(NO_THINKING):
        tokenizer.chat_template = NO_THINKING + template


def _check_room(config: Any, settings: PolicySettings, folder: str) -> None:
    positions = getattr(config, "max_position_embeddings", None)
    wanted = settings.max_prompt_tokens + settings.max_new_tokens
    if positions and wanted > positions:
        raise SerError(
            f"{folder} reads {positions:,} tokens, and max_prompt_tokens + max_new_tokens is {wanted:,}. Lower one of them."
        )


@for_writing()
def plain_start(base: str, target: Path) -> str:
    """The name of a plain model for `base`: itself, or where it is a LoRA adapter's folder, what is merged into `target`."""
    path = Path(base).expanduser()
    if path.is_dir() and (path / "model" / "config.json").exists() | (path / "model" / "adapter_config.json").exists():
        path = path / "model"  # a policy's folder
        base = str(path)
    if not (path.is_dir() and (path / "adapter_config.json").exists()):
        return base
    note, from_ = target / MERGED_FROM, _identity(path)
    if not note.exists() or note.read_text("utf-8") != from_:
        import torch
        from peft import AutoPeftModelForCausalLM

        from ser_backend import home

        with in_words(base):
            below = str(json.loads((path / "adapter_config.json").read_text("utf-8")).get("base_model_name_or_path"))
            if Path(below).is_absolute() and not Path(below).is_dir():
                raise SerError(
                    f"{base} is an adapter of {below}, which is not there. Put that model back, or choose another base."
                )
            found = AutoPeftModelForCausalLM.from_pretrained(path, dtype=torch.float32).merge_and_unload()
            tokenizer = tokenizer_of(str(path))
        shutil.rmtree(target, ignore_errors=True)
        with home.atomic_folder(target) as temporary:
            found.save_pretrained(temporary)
            tokenizer.save_pretrained(temporary)
            (temporary / MERGED_FROM).write_text(from_, "utf-8")
    return str(target)


def _identity(adapter: Path) -> str:
    """Another one, or the same trained anew, is merged anew."""
    written = [file.stat().st_mtime_ns for file in sorted(adapter.glob("adapter_*"))]
    return f"{adapter.resolve()} {written}"


def upto_end(ids: list[int], ends: Sequence[int]) -> list[int]:
    """Up to the first end token, that with it."""
    for place, token in enumerate(ids):
        if token in ends:
            return ids[: place + 1]
    return ids
