"""What a run leaves on disk: one folder per run, one folder per finished round, arrays as safetensors.

runs/RUN/data.safetensors     which rows are trained on, held out, open (loop.prepare)
runs/RUN/data.json            the same in counts and sentences
runs/RUN/basis.safetensors    principal components of the features
runs/RUN/round-000/           round.json, arrays.safetensors, picture.json; appears whole or not at all
Readers here never load torch, and read only the arrays they name.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from ser_backend import home
from ser_backend.errors import NotFound, SerError
from ser_backend.records import Round, round_from


class RunFolder:
    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def of(cls, run_id: str) -> "RunFolder":
        return cls(home.runs_dir() / run_id)

    def log(self) -> Path:
        """Everything the run's worker processes print."""
        return self.path / "worker.log"

    # ---- facts of the whole run

    def write_arrays(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        with home.atomic_file(self.path / f"{name}.safetensors") as temporary:
            save_file({key: np.ascontiguousarray(value) for key, value in arrays.items()}, temporary)

    def arrays(self, name: str, *keys: str) -> dict[str, np.ndarray]:
        """The named arrays of a file (all of them when none is named). Raises NotFound."""
        return _read(self.path / f"{name}.safetensors", keys)

    def has(self, name: str) -> bool:
        return (self.path / f"{name}.safetensors").exists()

    def write_json(self, name: str, content: Any) -> None:
        with home.atomic_file(self.path / f"{name}.json") as temporary:
            temporary.write_text(json.dumps(content, ensure_ascii=False, indent=1))

    def json(self, name: str) -> Any:
        """Content of a JSON file, None when there is none (yet)."""
        path = self.path / f"{name}.json"
        return json.loads(path.read_text()) if path.exists() else None

    # ---- rounds

    def round_path(self, index: int) -> Path:
        return self.path / f"round-{index:03d}"

    def finished(self) -> list[int]:
        """Numbers of the finished rounds: 0, 1, ... without a gap."""
        found = sorted(int(path.name[6:]) for path in self.path.glob("round-[0-9]*") if path.is_dir())
        return [index for place, index in enumerate(found) if place == index]

    def write_round(self, facts: Round, arrays: Mapping[str, np.ndarray], picture: Any) -> None:
        with home.atomic_folder(self.round_path(facts.index)) as temporary:
            save_file(
                {key: np.ascontiguousarray(value) for key, value in arrays.items()}, temporary / "arrays.safetensors"
            )
            (temporary / "picture.json").write_text(json.dumps(picture))
            (temporary / "round.json").write_text(json.dumps(asdict(facts), indent=1))

    def rounds(self) -> Iterator[Round]:
        for index in self.finished():
            try:
                yield round_from(json.loads((self.round_path(index) / "round.json").read_text()))
            except (OSError, ValueError, TypeError, KeyError) as error:
                raise SerError(
                    f"{self.round_path(index)} is damaged ({error}). Remove this folder and those of later rounds, then "
                    "resume the run."
                ) from None

    def round_arrays(self, index: int, *keys: str) -> dict[str, np.ndarray]:
        return _read(self.round_path(index) / "arrays.safetensors", keys)

    def force_arrays(self, index: int, *keys: str) -> dict[str, np.ndarray]:
        """Those of the named arrays that the round left; of arrays with a row for each arm, that of the model in force alone.
        Raises NotFound."""
        with safe_open(_there(self.round_path(index) / "arrays.safetensors"), "numpy") as file:
            shapes = {key: file.get_slice(key).get_shape() for key in keys if key in file.keys()}  # noqa: SIM118
            return {
                key: file.get_slice(key)[0:1][0] if len(shape) == 2 else file.get_tensor(key)
                for key, shape in shapes.items()
            }

    def picture(self, index: int) -> Any:
        """Thinned points and histograms of a round's selection, as loop.picture makes them; None when there is none."""
        path = self.round_path(index) / "picture.json"
        return json.loads(path.read_text()) if path.exists() else None


def _read(path: Path, keys: tuple[str, ...]) -> dict[str, np.ndarray]:
    with safe_open(_there(path), "numpy") as file:
        return {key: file.get_tensor(key) for key in (keys or file.keys())}


def _there(path: Path) -> Path:
    if not path.exists():
        raise NotFound(f"{path} is missing. The run has not come that far, or its folder was removed.")
    return path
