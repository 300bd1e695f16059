"""A policy's steps as curves: steps.jsonl read as it grows, and thinned to what a picture can show. Loads no torch.

A step's figure is a mean over its prompts with a standard error; where several steps are drawn as one point, it is the mean
of their means. The bars are 95 % intervals by Student's t over prompts.
"""

import json
import threading
from array import array
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ser_backend.policy.figures import student

MOST = 400  # points of a curve
MEMBER = "member:"  # before the name of a reward model, in the name of its curve
NAN = float("nan")


@dataclass(frozen=True, slots=True)
class Curve:
    step: np.ndarray  # middle of the steps behind a point
    value: np.ndarray
    low: np.ndarray  # NaN where no interval is known
    high: np.ndarray
    each: int  # steps behind a point, at most

    @property
    def has_interval(self) -> bool:
        return bool(np.isfinite(self.low).any())


class Steps:
    """The numbers of steps.jsonl. `refresh` reads what was written since; safe to share between threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._forget()

    def _forget(self) -> None:
        self._file, self._read = 0, 0  # which file it is, and bytes of it
        self.step = array("q")
        self._values: dict[str, tuple[array, array]] = defaultdict(self._blank)  # mean and standard error, by step
        self._prompts = array("d")
        self.newest: dict[str, Any] = {}

    def _blank(self) -> tuple[array, array]:
        """Of a figure that the steps before did not have."""
        before = [NAN] * (len(self.step) - 1)
        return array("d", before), array("d", before)

    def refresh(self) -> "Steps":
        """A training that goes on from a checkpoint writes the file anew; then all of it is read again."""
        with self._lock:
            try:
                with (self.path / "steps.jsonl").open("rb") as file:
                    stat = _identity(file)
                    if stat[0] != self._file or stat[1] < self._read:
                        self._forget()
                        self._file = stat[0]
                    file.seek(self._read)
                    for line in file:
                        if not line.endswith(b"\n"):
                            break  # not written to its end yet
                        self._read += len(line)
                        self._take(line)
            except FileNotFoundError:
                self._forget()
        return self

    def _take(self, line: bytes) -> None:
        try:
            facts = json.loads(line)
            self.step.append(int(facts["step"]))
        except (ValueError, KeyError, TypeError):
            return
        told = {name: facts[name] for name in facts if name not in ("members", "step", "of", "stage")}
        told |= {f"{MEMBER}{name}": found for name, found in (facts.get("members") or {}).items()}
        self._prompts.append(float((facts.get("kl") or {}).get("prompts") or NAN))
        for name, found in told.items():
            mean, se = (found.get("mean"), found.get("se")) if isinstance(found, Mapping) else (found, None)
            if isinstance(mean, int | float):
                values, errors = self._values[name]
                values.append(float(mean))
                errors.append(NAN if se is None else float(se))
        for values, errors in self._values.values():
            if len(values) < len(self.step):
                values.append(NAN)
                errors.append(NAN)
        self.newest = facts

    def __len__(self) -> int:
        return len(self.step)

    @property
    def members(self) -> list[str]:
        """Names of the reward models."""
        return [name.removeprefix(MEMBER) for name in self._values if name.startswith(MEMBER)]

    def curve(self, name: str, most: int = MOST) -> Curve | None:
        """None where no step knows the figure."""
        with self._lock:
            if name not in self._values:
                return None
            values, errors = (np.array(found) for found in self._values[name])
            return thinned(np.array(self.step), values, errors, np.array(self._prompts), most)

    def seconds(self, last: int = 20) -> float | None:
        """Mean of the newest steps; None before the first."""
        with self._lock:
            found = np.array(self._values["seconds"][0][-last:]) if "seconds" in self._values else np.empty(0)
        found = found[np.isfinite(found)]
        return float(found.mean()) if len(found) else None


def thinned(step: np.ndarray, value: np.ndarray, se: np.ndarray, prompts: np.ndarray, most: int = MOST) -> Curve:
    """All (n,). Of steps that are drawn as one point the prompts are different draws, so their errors add up as squares."""
    known = np.isfinite(value)
    step, value, se, prompts = (found[known] for found in (step, value, se, prompts))
    each = -(-len(step) // most) or 1
    begins = np.arange(0, len(step), each)
    sizes = np.diff([*begins, len(step)])

    def added(found: np.ndarray) -> np.ndarray:
        return np.add.reduceat(found, begins) if len(found) else found

    mean = added(value) / sizes
    error = np.sqrt(added(se**2)) / sizes
    freedom = added(np.maximum(prompts - 1, 0))
    with np.errstate(invalid="ignore"):
        half = np.where(freedom > 0, student(np.where(freedom > 0, freedom, 1)), NAN) * error
    middle = added(step.astype(float)) / sizes
    return Curve(middle, mean, mean - half, mean + half, each)


def _identity(file: Any) -> tuple[int, int]:
    import os

    stat = os.fstat(file.fileno())
    return stat.st_ino, stat.st_size
