"""One folder a policy: $SER_HOME/policies/NAME. Small facts as JSON, one line a step, checkpoints, the model.

settings.json, asked.json   what it is, and what it is asked (drawn once)
start/                      the model it begins with, where that is not a plain one elsewhere (adapter, supervised start)
start.json, before.json, after.json, steps.jsonl, alarms.json
checkpoints/, sft/          what a stopped training goes on from; removed at the end
model/                      model or adapter, tokeniser, README.md
policy.json                 written last: the policy is finished
"""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ser_backend import home
from ser_backend.errors import NotFound, SerError

COMPLETE = "complete.json"  # in a checkpoint: all of it was written


class PolicyFolder:
    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def of(cls, name: str) -> "PolicyFolder":
        """Raises SerError when the name cannot be a folder's."""
        if not re.fullmatch(r"\w[\w.-]{0,79}", name):
            raise SerError(
                f"{name!r} cannot name a policy: letters, digits, - _ and . are allowed, at most 80 of them."
            )
        return cls(home.home() / "policies" / name)

    @property
    def name(self) -> str:
        return self.path.name

    def begin(self, settings: Mapping[str, Any]) -> bool:
        """Whether the policy was begun before, with the same settings. Raises SerError when it was with others."""
        before = self.json("settings")
        if before is None:
            if self.path.exists() and any(self.path.iterdir()):
                raise SerError(f"{self.path} exists already and is not a policy's folder. Choose another name.")
            self.write("settings", dict(settings))
            return False
        other = [name for name, value in settings.items() if before.get(name) != value]
        if other:
            shown = ", ".join(f"{name} was {before.get(name)!r}" for name in other[:3])
            raise SerError(
                f"There is a policy {self.name!r} with other settings ({shown}). Choose another name, or the same settings."
            )
        return True

    def json(self, name: str) -> Any:
        """None when there is no such file."""
        path = self.path / f"{name}.json"
        if not path.exists():
            return None
        try:
            return json.loads(path.read_text("utf-8"))
        except ValueError as error:
            raise SerError(f"{path} is damaged ({error}). Remove the policy's folder and train it again.") from None

    def write(self, name: str, facts: Any) -> None:
        with home.atomic_file(self.path / f"{name}.json") as temporary:
            temporary.write_text(json.dumps(facts, ensure_ascii=True), "utf-8")

    # ---- steps

    def steps(self) -> list[dict[str, Any]]:
        """A line that a crash cut off ends them."""
        found: list[dict[str, Any]] = []
        path = self.path / "steps.jsonl"
        for line in path.read_text("utf-8").splitlines() if path.exists() else ():
            try:
                found.append(json.loads(line))
            except ValueError:
                break
        return found

    def add_step(self, facts: Mapping[str, Any]) -> None:
        with (self.path / "steps.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(facts) + "\n")

    def keep_steps(self, until: int) -> list[dict[str, Any]]:
        """Those up to the step a checkpoint was made at; later ones are taken again."""
        kept = [facts for facts in self.steps() if facts["step"] <= until]
        with home.atomic_file(self.path / "steps.jsonl") as temporary:
            temporary.write_text("".join(json.dumps(facts) + "\n" for facts in kept), "utf-8")
        return kept

    # ---- checkpoints

    def checkpoint(self, stage: str = "checkpoints") -> Path | None:
        """The newest complete one; half-written ones are removed."""
        newest, most = None, -1
        for path in (self.path / stage).glob("checkpoint-*"):
            if not (path / COMPLETE).exists():
                shutil.rmtree(path, ignore_errors=True)
            elif (step := int(path.name.rpartition("-")[2])) > most:
                newest, most = path, step
        return newest

    def forget(self, stage: str) -> None:
        shutil.rmtree(self.path / stage, ignore_errors=True)


def policies() -> list[PolicyFolder]:
    """Newest first."""
    found = [PolicyFolder(path.parent) for path in (home.home() / "policies").glob("*/settings.json")]
    return sorted(found, key=lambda folder: -(folder.path / "settings.json").stat().st_mtime)


def existing(name: str) -> PolicyFolder:
    """Raises NotFound."""
    folder = PolicyFolder.of(name)
    if folder.json("settings") is None:
        known = ", ".join(found.name for found in policies()) or "none yet"
        raise NotFound(f"There is no policy {name!r}. So far: {known}.")
    return folder
