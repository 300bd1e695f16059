"""A trained reward model as a folder: load, reward, save. Knows nothing of runs, stores or labels.

Folder: head.safetensors (weight, bias), reward_model.json (which base model, what its features are), base/ (the frozen
base model and its tokeniser, unless left out), README.md (the card, written by export).
reward(prompt, response) = weight . features(prompt, response) + bias.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ser_backend.errors import NotFound, SerError
from ser_backend.records import Response

KIND = "ser-studio linear reward head"
BASE_FILES = ("*.json", "*.txt", "*.safetensors", "*.model")


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
            "features": "mean over tokens of every hidden layer, over the whole text and over the response alone, float16",
            "width": len(self.weight),
        }
        (folder / "reward_model.json").write_text(json.dumps(facts, indent=1))
        if with_base_model:
            self._copy_base(folder / "base")

    def _copy_base(self, target: Path) -> None:
        from ser_backend.bases import BUNDLED, bundled_folder

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

    def rewards(self, responses: Sequence[Response], threads: int = 0) -> Iterator[tuple[int, np.ndarray | None]]:
        """Yield (done, None) while texts are read, and last (n, rewards of shape (n,))."""
        from ser_backend.features import Backbone

        base = self.folder / "base" if self.folder and (self.folder / "base").is_dir() else None
        backbone = Backbone.load(str(base) if base else self.base_model, self.max_length, threads)
        if backbone.fingerprint != self.fingerprint:
            raise SerError(
                f"The base model {backbone.name!r} is not the one this head was trained on (fingerprint "
                f"{backbone.fingerprint}, expected {self.fingerprint}). Use the base model the card names."
            )
        result = np.empty(len(responses))
        done = 0
        for rows, features in backbone.encode(responses):
            result[rows] = features.astype(np.float64) @ self.weight + self.bias
            done += len(rows)
            yield done, None
        yield len(responses), result
