"""A trained reward model: opened whatever its kind, asked for rewards. Knows nothing of runs, stores or labels.

A transformer with a reward head, or an adapter for one, is classifier.py's; the linear head on frozen features is here.
Its folder: head.safetensors (weight, bias), reward_model.json (which base model, what its features are), base/ (the frozen
base model and its tokeniser, unless left out), README.md (the card, written by export).
reward(prompt, response) = weight . features(prompt, response) + bias.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ser_backend.errors import NotFound, SerError
from ser_backend.records import Response

if TYPE_CHECKING:
    from ser_backend.transformer.features import Backbone

KIND = "ser-studio linear reward head"
BASE_FILES = ("*.json", "*.txt", "*.safetensors", "*.model")
MODEL_FILES = (*BASE_FILES, "*.jinja")  # of a transformer; what else lies in its folder is not needed to load it


@dataclass(frozen=True)
class HeadModel:
    weight: np.ndarray  # float64 (width,)
    bias: float
    base_model: str
    fingerprint: str
    max_length: int
    folder: Path | None = None

    @classmethod
    def from_components(
        cls, weights: np.ndarray, mean: np.ndarray, directions: np.ndarray, encoder: dict[str, Any]
    ) -> "HeadModel":
        """weights (k,) on principal components (features - mean) @ directions, folded into one weight per feature."""
        weight = directions.astype(np.float64) @ weights
        return cls(weight, float(-mean.astype(np.float64) @ weight), **encoder)

    @classmethod
    def load(cls, folder: Path) -> "HeadModel":
        """Raises NotFound or SerError when the folder is not a reward model of this kind."""
        try:
            facts = json.loads((folder / "reward_model.json").read_text())
            arrays = load_file(folder / "head.safetensors")
            if not isinstance(facts, dict):
                raise ValueError("reward_model.json holds no object")
        except (OSError, ValueError, SafetensorError) as error:
            raise NotFound(
                f"{folder} is not a reward model folder ({error}). Give the reward_model folder that an export wrote."
            ) from None
        if facts.get("kind") != KIND:
            raise SerError(f"{folder} holds a model of kind {facts.get('kind')!r}; {KIND!r} was expected.")
        try:
            encoder = {name: facts[name] for name in ("base_model", "fingerprint", "max_length")}
            return cls(arrays["weight"], float(arrays["bias"][0]), **encoder, folder=folder)
        except (KeyError, IndexError) as error:
            raise SerError(
                f"The reward model in {folder} is incomplete: {error} is missing. Export it again."
            ) from None

    def save(self, folder: Path, with_base_model: bool) -> None:
        """Write into an existing folder. with_base_model: copy the base model's files, so the folder stands alone."""
        save_file({"weight": self.weight, "bias": np.array([self.bias])}, folder / "head.safetensors")
        facts = {
            "kind": KIND,
            "base_model": self.base_model,
            "fingerprint": self.fingerprint,
            "max_length": self.max_length,
            "features": "mean over tokens of every hidden layer, over the whole text and over the response alone",
            "width": len(self.weight),
        }
        (folder / "reward_model.json").write_text(json.dumps(facts, indent=1))
        if with_base_model:
            self._copy_base(folder / "base")

    def _copy_base(self, target: Path) -> None:
        from ser_backend.transformer.bases import BUNDLED, bundled_folder

        source = bundled_folder() if self.base_model == BUNDLED else Path(self.base_model)
        if not source.is_dir():
            from huggingface_hub import snapshot_download
            from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

            try:
                source = Path(snapshot_download(self.base_model, local_files_only=True))
            except (LocalEntryNotFoundError, HfHubHTTPError, ValueError):
                raise SerError(
                    f"The files of {self.base_model!r} are not on this machine any more, so they cannot be copied. "
                    "Export without the base model; it will be fetched by name when the reward model is loaded."
                ) from None
        target.mkdir()
        for pattern in BASE_FILES:
            for file in source.glob(pattern):
                shutil.copyfile(file, target / file.name)

    def backbone(self, threads: int = 0) -> "Backbone":
        """The base model it was trained on. Raises SerError when that cannot be had, or is another one."""
        from ser_backend.transformer.features import Backbone

        base = self.folder / "base" if self.folder and (self.folder / "base").is_dir() else None
        backbone = Backbone.load(str(base) if base else self.base_model, self.max_length, threads)
        if backbone.fingerprint != self.fingerprint:
            raise SerError(
                f"The base model {backbone.name!r} is not the one this head was trained on (fingerprint "
                f"{backbone.fingerprint}, expected {self.fingerprint}). Use the base model the card names."
            )
        return backbone

    def rewards(self, responses: Sequence[Response], threads: int = 0) -> Iterator[tuple[int, np.ndarray | None]]:
        """Yield (done, None) while texts are read, and last (n, rewards of shape (n,)). No reward is kept."""
        result = np.empty(len(responses))
        done = 0
        for rows, found in self.read(self.backbone(threads), responses):
            result[rows] = found
            done += len(rows)
            yield done, None
        yield len(responses), result

    def read(self, backbone: "Backbone", responses: Sequence[Response]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (rows, rewards float64). Features that a run left in the cache are not computed again; none is added."""
        from ser_backend.transformer.features import cached

        found, rest = cached(backbone, responses)
        for rows, features in found:
            yield rows, self._of(features)
        for rows, features in backbone.encode([responses[row] for row in rest]) if len(rest) else ():
            yield rest[rows], self._of(features)

    def _of(self, features: np.ndarray) -> np.ndarray:
        rewards: np.ndarray = features.astype(np.float64) @ self.weight + self.bias
        return rewards


@dataclass(frozen=True)
class Rewarder:
    """Any reward model, seen from outside: texts in, rewards out. What it once read on this machine is cached."""

    kind: ClassVar[str] = "rewards"
    dtype: ClassVar[type[np.floating]] = np.float32
    width: ClassVar[int] = 1

    name: str
    fingerprint: str  # the same only where the rewards are the same
    read: Callable[[Sequence[Response]], Iterator[tuple[np.ndarray, np.ndarray]]]  # (rows, rewards (len(rows),))
    notes: tuple[str, ...] = ()  # what to know about its rewards, in sentences

    def encode(self, responses: Sequence[Response]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for rows, found in self.read(responses):
            yield rows, found.astype(np.float32)[:, None]

    def rewards(self, responses: Sequence[Response]) -> Iterator[tuple[int, np.ndarray | None]]:
        """Yield (done, None) while texts are read, and last (n, rewards float32 (n,))."""
        from ser_backend.transformer.features import fill_cache

        keys = [_text_key(response) for response in responses]
        for step in fill_cache(self, keys, lambda rows: [responses[row] for row in rows]):
            yield step.done, None
        yield len(keys), step.cache.read(keys)[:, 0]


def open_model(name: str, threads: int = 0) -> Rewarder:
    """A head folder, a transformer or adapter folder, an export that holds one, or a hub id of a model with one output.

    Raises NotFound or SerError with a sentence when it is none of these.
    """
    folder = model_folder(name)
    if (folder / "head.safetensors").exists():
        head = HeadModel.load(folder)
        backbone = head.backbone(threads)
        digest = hashlib.blake2b(head.weight.tobytes() + repr(head.bias).encode(), digest_size=10)
        return Rewarder(
            name, f"{head.fingerprint}-{digest.hexdigest()}", lambda responses: head.read(backbone, responses)
        )
    from ser_backend.transformer.classifier import Classifier

    model = Classifier.open(folder, threads=threads)
    notes = list(model.notes)
    if not (folder / "reward_model.json").exists():
        notes.append(
            "This model was not trained here: it reads prompt + blank line + response, without a chat template. Where it was "
            "trained on another text form, its rewards mean less."
        )
    return Rewarder(
        name,
        f"{model.fingerprint}-{model.precision}-{model.device}",
        lambda responses: model.rewards(model.tokenise(responses)),
        tuple(notes),
    )


def model_folder(name: str) -> Path:
    """Where the files of a reward model lie; a hub id's are fetched. Raises NotFound or SerError."""
    from ser_backend.transformer.bases import base_folder, in_words

    path = Path(name).expanduser()
    if path.is_dir():
        inside = path / "reward_model"
        found = inside if inside.is_dir() and not (path / "config.json").exists() else path
        kinds = ("head.safetensors", "adapter_config.json", "config.json")
        if not any((found / kind).exists() for kind in kinds):
            raise NotFound(
                f"{found} is not a reward model folder (it holds none of {', '.join(kinds)}). Give the reward_model folder "
                "that an export wrote, or any model folder with a reward head."
            )
        return found
    if path.exists() or name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise NotFound(
            f"{name} is not a reward model folder: there is no such folder. Give the reward_model folder that an export wrote, "
            "any model folder with a reward head, or the hub id of such a model."
        )
    if (copy := base_folder(name)) != name:  # the hub does not answer; says in words where there is no copy either
        return Path(copy)
    from huggingface_hub import snapshot_download

    with in_words(name):
        return Path(snapshot_download(name, allow_patterns=list(MODEL_FILES), ignore_patterns=["*/*"]))


def _text_key(response: Response) -> bytes:
    """Of the text as it is read, to the last blank: a response's id forgives outer white space, a tokeniser does not."""
    text = json.dumps([response.prompt, response.text])  # ASCII, also for a lone surrogate
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest().encode()
