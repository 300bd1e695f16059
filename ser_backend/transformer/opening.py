"""A classifier's parts as they are opened: weights with one output, a padding token, room for texts, adapters."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ser_backend.errors import SerError
from ser_backend.transformer.bases import BUNDLED, in_words, tokenizer_of
from ser_backend.transformer.heads import HEADS, below_head, inner
from ser_backend.transformer.tokens import Ends

NEW_PAD = "<|pad|>"
LORA_ALPHA = 4  # times the rank, as in the paper's code (r = 8, alpha = 32)


def usable_precision(wanted: str, fit: str, device: str) -> str:
    """ "auto" in words the device understands. Raises SerError when it cannot compute in what was asked for."""
    import torch

    if wanted == "auto":
        return "bfloat16" if device == "cuda" and torch.cuda.is_bf16_supported() else "float32"
    if wanted == "bfloat16" and device == "cuda" and not torch.cuda.is_bf16_supported():
        raise SerError(
            f"precision is bfloat16, but {torch.cuda.get_device_name()} cannot compute in it. Use precision=float32."
        )
    if wanted == "4bit":
        from importlib.util import find_spec

        if fit != "lora":
            raise SerError("precision is 4bit, which only fit=lora can train. Use fit=lora, or another precision.")
        if device == "cpu":
            raise SerError("precision is 4bit, which needs a CUDA GPU; none was found. Use precision=auto.")
        if find_spec("bitsandbytes") is None:
            raise SerError("precision is 4bit, which needs the package bitsandbytes. Run pip install -e '.[qlora]'.")
    return wanted


def from_pretrained(
    folder: str, name: str, fit: str, precision: str, random_seed: int, tokenizer_folder: str | None = None
) -> tuple[Any, Any, bool, list[str], list[str]]:
    """Tokeniser, model with one output, whether its head is new, all arrays that are random, notes. Raises SerError."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    notes: list[str] = []
    # Left to itself, transformers asks at the terminal whether a repository's code may run; it may not.
    options: dict[str, Any] = {"num_labels": 1, "use_safetensors": True, "trust_remote_code": False}
    options["dtype"] = torch.bfloat16 if precision == "bfloat16" and fit == "lora" else torch.float32
    if precision == "4bit":
        from transformers import BitsAndBytesConfig

        options["dtype"] = torch.bfloat16
        options["device_map"] = {"": 0}
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=torch.bfloat16,
            bnb_4bit_use_double_quant=True,
            llm_int8_skip_modules=list(HEADS),
        )
    with in_words(name):
        tokenizer = tokenizer_of(tokenizer_folder or folder)
        labels = getattr(AutoConfig.from_pretrained(folder, trust_remote_code=False), "num_labels", 1)
        torch.manual_seed(random_seed)  # a new head is the same in every run with this seed
        model, info = AutoModelForSequenceClassification.from_pretrained(
            folder, ignore_mismatched_sizes=True, output_loading_info=True, **options
        )
        model.get_input_embeddings()  # CANINE has no table of them, and says so here
    # So that a text-classification pipeline gives the reward as it is; that of a classifier of several labels, kept with one
    # output, could not even be loaded again.
    model.config.problem_type = "regression"
    if name != BUNDLED and not Path(folder).is_relative_to(Path(name).expanduser()):
        model.name_or_path = name  # a hub name, read from its cached copy: an adapter must name the hub's
    mismatched = {entry[0] if isinstance(entry, tuple) else entry for entry in info.get("mismatched_keys") or ()}
    random = {*info["missing_keys"], *mismatched}
    body = below_head(random, model)
    made = random - {*body}  # the head, and a layer before it that DistilBERT and ModernBERT have
    if body:
        if len(body) > len(model.state_dict()) // 10:
            raise SerError(
                f"{name!r} lacks {len(body)} of the model's {len(model.state_dict())} weight arrays (for example "
                f"{body[0]}), so most of it would be random. Give a folder that holds the whole model."
            )
        notes.append(f"{len(body)} weight arrays were not in {name!r} and start random (for example {body[0]}).")
    if made and mismatched & made:
        notes.append(f"The model's head had {labels} outputs; it was replaced by a reward head with one.")
    return tokenizer, model, bool(made), sorted(random), notes


def give_pad(model: Any, tokenizer: Any) -> list[str]:
    """A padding token that is not the end token: with pad = end the model cannot see whether an answer ended.

    A spare token of the vocabulary where there is one, else one more embedding row. Returns notes.
    """
    notes = []
    pad, end, fixed = tokenizer.pad_token_id, tokenizer.eos_token_id, _id_before_positions(model)
    added = Ends.of(tokenizer, wants_end=False)  # Qwen3-Embedding ends a text with another token than its eos_token
    if pad is None or pad in (end, *added.end):
        why = "had no padding token" if pad is None else "used its end token as padding"
        unknown = tokenizer.unk_token_id if tokenizer.unk_token_id == end else None
        taken = {end, tokenizer.bos_token_id, unknown, *added.start, *added.end}
        spare = [t for t in _spare_tokens(tokenizer) if tokenizer.convert_tokens_to_ids(t) not in taken]
        if fixed is not None and (token := tokenizer.convert_ids_to_tokens(fixed)) and fixed != end:
            tokenizer.pad_token = token
        elif spare:
            tokenizer.pad_token = spare[0]
        else:
            tokenizer.add_special_tokens({"pad_token": NEW_PAD})
        notes.append(f"The model {why}; {tokenizer.pad_token!r} is used, so that padding and the end stay apart.")
    if tokenizer.pad_token_id >= model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    for config in {id(c): c for c in (model.config, model.config.get_text_config())}.values():
        config.pad_token_id = tokenizer.pad_token_id if fixed is None else fixed
        config.use_cache = False  # keys and values are for writing text; a reward is read once
    return notes


def _spare_tokens(tokenizer: Any) -> list[str]:
    """Special tokens that exist to be used for something."""
    named = [t for t in (getattr(tokenizer, "all_special_tokens", None) or []) if "pad" in t.lower()]
    added = [str(t) for t in tokenizer.get_added_vocab()]
    reserved = [t for t in added if "pad" in t.lower() or "reserved_special" in t or "unused" in t]
    return sorted({*named, *reserved}, key=lambda t: ("pad" not in t.lower(), t))


def positions_of(model: Any) -> int | None:
    """Tokens the model can read, None where it sets no limit (RoBERTa kinds start counting at their padding id + 1)."""
    config = getattr(model.config, "text_config", None) or model.config
    positions = getattr(config, "max_position_embeddings", None)
    if not positions:
        return None
    before = _id_before_positions(model)
    return int(positions) - (0 if before is None else before + 1)


def _id_before_positions(model: Any) -> int | None:
    """RoBERTa and MPNet kinds count positions from their padding id + 1, and would from another one when loaded again."""
    table = next((m for name, m in inner(model).named_modules() if name.endswith("position_embeddings")), None)
    return getattr(table, "padding_idx", None)


def within(model: Any, max_length: int, notes: list[str]) -> int:
    """max_length, lowered to what the model can read."""
    positions = positions_of(model)
    if not positions:
        return max_length
    if positions < max_length:
        notes.append(f"max_length {max_length:,} is beyond the model's {positions:,} positions; {positions:,} is used.")
    return min(positions, max_length)


def with_lora(model: Any, rank: int, dropout: float, quantised: bool, random: Sequence[str], random_seed: int) -> Any:
    """random: arrays that are in no file. Whoever loads the adapter could not have them, so they learn and are saved whole."""
    import torch
    from peft import LoraConfig, TaskType, get_peft_model, prepare_model_for_kbit_training

    if quantised:
        model = prepare_model_for_kbit_training(model)
    torch.manual_seed(random_seed)
    # peft takes everything whose name ends like a head's for one (DistilBERT's pre_classifier), and knows not the one of T5
    # and BART, which has two layers
    heads = {
        name for name, _ in model.named_modules() if name.endswith(HEADS) or name.startswith("classification_head.")
    }
    whole = {name.rpartition(".")[0] for name in random if name.split(".")[0] not in heads}
    return get_peft_model(
        model,
        LoraConfig(
            # SEQ_CLS: the head is trained, saved and loaded with the adapter
            task_type=TaskType.SEQ_CLS,
            r=rank,
            lora_alpha=LORA_ALPHA * rank,
            lora_dropout=dropout,
            target_modules="all-linear",
            exclude_modules=sorted(heads | whole),
            modules_to_save=sorted(whole | (heads & {"classification_head"})) or None,
        ),
    )
