"""The reward head of a transformer: where it is, whether a folder has one, and how it stays exact in a bfloat16 body."""

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ser_backend.errors import SerError
from ser_backend.transformer.bases import in_words

HEADS = ("score", "classifier", "classification_head")  # what transformers calls the reward head


def is_decoder(model: Any) -> bool:
    """Reads the reward off the last token that is no padding (GPT-2, Llama, Qwen); encoders read a first token."""
    return "score" in dict(inner(model).named_children())


def reads_end_token(model: Any) -> bool:
    """Reads the reward off the end token, of which every text has to hold exactly one (T5, BART)."""
    return "classification_head" in dict(inner(model).named_children())


def end_trouble(model: Any, end: Sequence[int]) -> str:
    """Why a model that reads its end token cannot be read with a tokeniser that ends a text like this; "" if it can."""
    config = inner(model).config
    if list(end) != [config.eos_token_id]:
        return (
            f"reads the reward off its end token (number {config.eos_token_id}), with which its tokeniser does not end a text. "
            "Put the model's own tokeniser into its folder."
        )
    if getattr(config, "decoder_start_token_id", None) is None:
        return (
            "names no decoder_start_token_id in its config.json, without which its decoder cannot begin. Add it (for T5 it is "
            "the padding token's number), or choose another model."
        )
    return ""


def head_of(model: Any) -> Any:
    """The module that turns hidden states into the reward. Raises SerError for an architecture that hides it."""
    for name in HEADS:
        if (head := getattr(inner(model), name, None)) is not None:
            return head
    raise SerError(
        f"No reward head was found in a model of type {type(inner(model)).__name__} (looked for {', '.join(HEADS)}). "
        "Choose another base model."
    )


def heads_of(model: Any) -> list[Any]:
    """The heads in use: beside an adapter's own one, peft keeps the original, which is not."""
    found = head_of(model)
    return list(found.modules_to_save.values()) if hasattr(found, "modules_to_save") else [found]


def has_head(folder: Path) -> bool:
    """Whether weights of a reward head are among those saved in the folder (a whole model or an adapter)."""
    return any(part in HEADS for key in saved_arrays(folder) for part in key.split("."))


def saved_arrays(folder: Path) -> set[str]:
    """Names, as the model has them, of the weight arrays saved in the folder (a whole model or an adapter)."""
    from safetensors import safe_open

    found: set[str] = set()
    with in_words(str(folder)):
        for path in folder.glob("*.safetensors"):
            with safe_open(path, "numpy") as file:
                found |= {key.removeprefix("base_model.model.") for key in file.keys()}  # noqa: SIM118
    return found


def below_head(names: Iterable[str], model: Any) -> list[str]:
    """Those of the arrays that belong to the body."""
    return sorted(name for name in names if name.startswith(f"{inner(model).base_model_prefix}."))


def keep_head_exact(model: Any) -> None:
    """The head, and whatever else is trained whole beside adapters, in float32, also inside a bfloat16 body.

    bfloat16 moves a reward of .354 by .0006, and small updates of a weight are lost in it.
    """
    from torch.nn import ModuleDict

    beside = (getattr(module, "modules_to_save", None) for module in model.modules())
    also = (part for found in beside if isinstance(found, ModuleDict) for part in found.values())
    for part in {id(part): part for part in [*heads_of(model), *also]}.values():
        part.float()
        part.forward = partial(_exact, forward=part.forward)  # no closure: a copy of the model must use its own head


def _exact(hidden: Any, *rest: Any, forward: Any, **named: Any) -> Any:
    import torch

    with torch.autocast(hidden.device.type, enabled=False):
        return forward(hidden.float(), *rest, **named)


def inner(model: Any) -> Any:
    """The transformers model below a peft wrapper."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
