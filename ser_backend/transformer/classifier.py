"""A transformer with one reward output (AutoModelForSequenceClassification): load, reward, save.

fit=full trains all of it, fit=lora adapters beside a frozen body (Hu et al. 2022, through peft) and the reward head. The
body may be bfloat16, the head and what follows it are float32. What is saved loads with plain transformers or peft.
Knows nothing of runs, stores or labels; how it is trained is the business of fine_tune.
"""

import copy
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ser_backend.errors import SerError, is_out_of_memory
from ser_backend.records import Response
from ser_backend.transformer import shared_prompt, tokens
from ser_backend.transformer.bases import base_folder, checked_folder, fingerprint_of, in_words
from ser_backend.transformer.cores import SideBySide
from ser_backend.transformer.heads import (
    below_head,
    end_trouble,
    inner,
    is_decoder,
    keep_head_exact,
    reads_end_token,
    saved_arrays,
)
from ser_backend.transformer.opening import from_pretrained, give_pad, usable_precision, with_lora, within
from ser_backend.transformer.packed import packed
from ser_backend.transformer.shared_prompt import Batch
from ser_backend.transformer.tokens import Ends, Rows, TokenTable

Fit = Literal["lora", "full"]
TOKENS_AT_ONCE = {"cpu": 1_024, "cuda": 32_768}  # a batch of scoring, padding included
FEWEST_TOKENS, BATCHES = 512, 16  # on CPU, few texts in smaller batches, so that no core waits long for the last one


@dataclass
class Classifier:
    """One reward per text. Everything a caller needs to know about the tokeniser is in `ends` and `pad`."""

    name: str  # as the user gave it: "bundled", a hub id or a folder
    model: Any
    tokenizer: Any
    max_length: int
    device: str
    precision: str  # of the body: "float32", "bfloat16", "4bit"
    fit: Fit
    ends: Ends
    new_head: bool  # the head is random: made here, not found in the weights, and not trained yet
    notes: list[str] = field(default_factory=list)  # what was done to the model on loading, in sentences
    missing: list[str] = field(default_factory=list)  # weight arrays of the body that were not found and start random
    known: int = 0  # tokens, by number, that have weights of their own, padding left out; 0: not looked at
    budget: int = 0  # tokens a scoring batch; halved on out-of-memory
    _longest_row: int | None = field(default=None, init=False, repr=False)  # None: not measured yet

    @classmethod
    def load(
        cls,
        name: str,
        *,
        max_length: int = 512,
        fit: Fit = "full",
        lora_rank: int = 8,
        lora_dropout: float = 0.0,
        precision: str = "auto",
        threads: int = 0,
        random_seed: int = 0,
    ) -> "Classifier":
        """A base model with a reward head, ready to be trained: by hub id, folder or "bundled".

        A head with one output that the weights bring along is kept; any other head is made anew from `random_seed`.
        Raises SerError with a sentence when the model cannot be had or the device cannot compute in `precision`.
        """
        import torch

        if threads:
            torch.set_num_threads(threads)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        precision = usable_precision(precision, fit, device)
        tokenizer, model, new_head, random, notes = from_pretrained(
            base_folder(name), name, fit, precision, random_seed
        )
        known = _embeddings(model)
        pad_notes = give_pad(model, tokenizer)
        max_length = within(model, max_length, notes)
        if precision != "4bit":
            model.to(device)
        if fit == "lora":
            model = with_lora(model, lora_rank, lora_dropout, precision == "4bit", random, random_seed)
        made = cls._ready(name, model, tokenizer, max_length, device, precision, fit, new_head, notes + pad_notes)
        made.missing, made.known = below_head(random, model), known
        return made

    @classmethod
    def open(cls, folder: Path, *, precision: str = "auto", threads: int = 0, trainable: bool = False) -> "Classifier":
        """What `save` wrote, or any sequence-classification model with one output, with or without a peft adapter.

        Raises SerError when the folder holds no such model; a head that is not in the weights is refused.
        """
        import torch

        if threads:
            torch.set_num_threads(threads)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        is_adapter = (folder / "adapter_config.json").exists()
        facts = _read_json(folder / "reward_model.json")
        precision = usable_precision(precision, "lora" if is_adapter else "full", device)
        if is_adapter:
            from peft import PeftModel

            checked_folder(folder, "adapter_config.json")
            base = str(_read_json(folder / "adapter_config.json").get("base_model_name_or_path") or "")
            name = str(facts.get("base_model") or base)
            if not name:
                raise SerError(
                    f"The adapter_config.json in {folder} names no base model, or cannot be read. Save the adapter again, or "
                    "give the folder of a whole model."
                )
            tokenizer, model, new_head, random, notes = from_pretrained(
                base_folder(name), name, "lora", precision, 0, str(folder)
            )
            random = sorted({*random} - saved_arrays(folder))
            if new_head and len(below_head(random, model)) < len(random):
                raise SerError(
                    f"The adapter in {folder} was saved without its reward head, so its rewards would be random. Save it "
                    "again with task_type SEQ_CLS (which saves the head too), or train again."
                )
            brought = any("embed" in name or "wte" in name for name in saved_arrays(folder))  # with the adapter
            known = 0 if brought else _embeddings(model)
            give_pad(model, tokenizer)
            if precision != "4bit":
                model.to(device)
            with in_words(str(folder)):
                model = PeftModel.from_pretrained(model, folder, torch_device=device, is_trainable=trainable)
            fit: Fit = "lora"
        else:
            checked_folder(folder)
            tokenizer, model, new_head, random, notes = from_pretrained(str(folder), str(folder), "full", precision, 0)
            if new_head:
                several = any("outputs" in note for note in notes)
                found = "a classifier with several outputs, none of which is known to be the reward"
                raise SerError(
                    f"{folder} holds {found if several else 'a model without a reward head, so its rewards would be random'}. "
                    "Give a folder that holds a trained reward model (one output), or train one on this base model."
                )
            known = _embeddings(model)
            give_pad(model, tokenizer)
            model.to(device)
            fit, name = "full", str(facts.get("base_model") or folder)
        limit = int(facts.get("max_length") or min(tokenizer.model_max_length, 131_072))
        length = within(model, limit, notes)
        made = cls._ready(name, model, tokenizer, length, device, precision, fit, False, notes)
        made.missing, made.known = below_head(random, model), known
        return made

    @classmethod
    def _ready(
        cls,
        name: str,
        model: Any,
        tokenizer: Any,
        max_length: int,
        device: str,
        precision: str,
        fit: Fit,
        new_head: bool,
        notes: list[str],
    ) -> "Classifier":
        keep_head_exact(model)
        model.eval()
        once = reads_end_token(model)
        ends = Ends.of(tokenizer, wants_end=is_decoder(model) or once, once=once)
        if once and (trouble := end_trouble(model, ends.end)):
            raise SerError(f"{name!r} {trouble}")
        made = cls(name, model, tokenizer, max_length, device, precision, fit, ends, new_head, notes)
        made.budget = TOKENS_AT_ONCE[device]
        return made

    # ---- rewards

    @property
    def pad(self) -> int:
        return int(self.tokenizer.pad_token_id)

    @property
    def fingerprint(self) -> str:
        """Names weights, tokeniser and length: the key under which rewards are cached."""
        return fingerprint_of(self.model, self.tokenizer, self.max_length)

    def tokenise(self, responses: Sequence[Response]) -> TokenTable:
        """Raises UnknownToken."""
        table = tokens.tokenise(self.tokenizer, responses, self.max_length, self.ends)
        if self.known:
            tokens.require_known(table.ids, self.known, self.tokenizer, self.name)
        return table

    def forward(self, table: TokenTable, rows: Rows) -> Any:
        """Rewards of some texts as one padded batch: float32 tensor (len(rows),), with gradient where that is on."""
        import torch

        ids, mask = table.padded(rows, self.pad)
        full = bool(mask.all())
        with self._autocast():
            found = self.model(
                input_ids=torch.from_numpy(ids).to(self.device),
                attention_mask=None if full else torch.from_numpy(mask).to(self.device),
            )
        return found.logits[:, 0].float()

    @property
    def longest_row(self) -> int:
        """Tokens of the longest row in which texts can share their prompt, 0 where this model cannot read such rows."""
        if self._longest_row is None:
            self._longest_row = 0
            if is_decoder(self.model):
                with self._autocast():
                    self._longest_row = shared_prompt.longest_row(
                        inner(self.model), self.forward, self.pad, self.device, self.precision
                    )
        return self._longest_row

    def read(self, table: TokenTable, batch: Batch) -> Any:
        """Rewards of the batch's texts, as `forward` gives them; what they share, as planned, is read once."""
        if not batch.bundles:
            return self.forward(table, batch.texts)
        with self._autocast():
            return shared_prompt.rewards(inner(self.model), table, batch.bundles, self.pad, self.device)

    def rewards(self, table: TokenTable, rows: Rows | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (rows, rewards float32) batch by batch, the largest first, until every row has its reward.

        On CPU every core takes a batch of its own (cores.py) and multiplies by packed weights (packed.py). Decoders read a
        prompt once for several responses (shared_prompt.py). Raises SerError when one text alone does not fit in memory, or
        a reward is not finite.
        """
        import torch

        wanted = np.arange(len(table)) if rows is None else np.asarray(rows)
        if not len(wanted):
            return
        lengths = table.lengths[wanted]
        fair = max(FEWEST_TOKENS, int(lengths.sum()) // BATCHES)
        budget = min(self.budget, fair) if self.device == "cpu" else self.budget
        most = min(shared_prompt.TIMES * self.budget, self.longest_row) if len(wanted) > 1 else 0
        waiting = shared_prompt.plan(table, wanted, budget, most)
        self.model.eval()
        shortest = wanted[[int(lengths.argmin())]]

        def one(batch: Batch) -> np.ndarray | None:
            """None: it did not fit."""
            try:
                with torch.inference_mode():
                    return self.read(table, batch).cpu().numpy()
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
            return None

        with ExitStack() as stack:
            if self.device == "cpu" and self.precision == "float32":
                stack.enter_context(packed(self.model, lambda: self.forward(table, shortest)))
            cores = stack.enter_context(SideBySide(self.device))
            while waiting:
                share, waiting = waiting[: 4 * cores.workers], waiting[4 * cores.workers :]
                for batch, found in zip(share, cores.map(one, share), strict=True):
                    if found is None:
                        waiting = self._smaller(table, batch.texts) + waiting
                        continue
                    if not np.isfinite(found).all():
                        raise SerError(
                            f"The reward model gave a reward that is not finite (NaN or infinity) for text {batch.texts[0]}. "
                            "Its weights are damaged, or it needs another number format (precision)."
                        )
                    yield batch.texts, found

    def _smaller(self, table: TokenTable, texts: np.ndarray) -> list[Batch]:
        """Two batches in place of one that did not fit; a prompt that was read once for all is now read with every text."""
        longest = int(table.lengths[texts].max())
        if len(texts) == 1:
            raise SerError(
                f"One text of {longest:,} tokens does not fit in memory with {self.name!r}. "
                "Lower max_length or choose a smaller base model."
            )
        if self.device == "cuda":
            import torch

            torch.cuda.empty_cache()
        self.budget = max(longest, self.budget // 2)
        half = len(texts) // 2
        return [Batch.apart(table, part) for part in (texts[:half], texts[half:])]

    def encode(self, responses: Sequence[Response]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (rows, rewards float32 (len(rows), 1)): what features.fill_cache asks of an encoder."""
        for rows, found in self.rewards(self.tokenise(responses)):
            yield rows, found[:, None]

    def _autocast(self) -> Any:
        import torch

        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device, torch.bfloat16)

    # ---- the trained part

    def trainable(self) -> dict[str, Any]:
        """Name -> parameter that training moves."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def save(self, folder: Path, merged: bool = False) -> None:
        """Write into an existing folder: all weights (fit=full, or merged), or the adapter and the head (fit=lora).

        merged: the adapter is added to a copy of the weights; this model stays as it is.
        """
        merged = merged and self.fit == "lora"
        # peft would save a whole embedding for the sake of a padding token, whose row no reward depends on
        also = {} if merged or self.fit == "full" else {"save_embedding_layers": False}
        (self._merged(copy.deepcopy(self.model)) if merged else self.model).save_pretrained(folder, **also)
        self._save_beside(folder, merged)

    def save_merged_for_good(self, folder: Path) -> None:
        """As save(merged=True), without holding the weights twice: afterwards this model must not be used any more."""
        self._merged(self.model).save_pretrained(folder)
        self._save_beside(folder, True)

    def _merged(self, model: Any) -> Any:
        if self.precision == "4bit":
            raise SerError(
                "The adapter cannot be merged while its base model is loaded in 4 bits. Open the folder with "
                "precision=float32, then save it merged."
            )
        return model.float().merge_and_unload()

    def _save_beside(self, folder: Path, merged: bool) -> None:
        """The tokeniser, and how a text is made for it."""
        self.tokenizer.model_max_length = self.max_length
        # Whoever truncates elsewhere loses prompt first, too; and GPT-2 kinds count positions from the left.
        for name, side in (("truncation_side", "left"), ("padding_side", "right")):
            setattr(self.tokenizer, name, side)
            self.tokenizer.init_kwargs[name] = side  # only what is named there is saved
        self.tokenizer.save_pretrained(folder)
        end = self.end_to_add
        facts = {
            "kind": "ser-studio fine-tuned reward model",
            "base_model": self.name,
            "fit": self.fit,
            "merged": merged,
            "max_length": self.max_length,
            "precision": self.precision,
            "text": "prompt + blank line + response" + (" + end token" if end else ""),
            "end_token": end,
        }
        (folder / "reward_model.json").write_text(json.dumps(facts, indent=1))

    @property
    def end_to_add(self) -> str:
        """The end token whoever builds a text elsewhere has to add, because the tokeniser does not; else empty."""
        added = Ends.of(self.tokenizer, wants_end=False).end
        return str(self.tokenizer.eos_token) if self.ends.end and not added else ""


def _embeddings(model: Any) -> int:
    return int(model.get_input_embeddings().weight.shape[0])


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
