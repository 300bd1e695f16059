"""One folder a policy: $SER_HOME/policies/NAME. Small facts as JSON, one line a step, checkpoints, the model.

settings.json, asked.json   what it is, and what it is asked (drawn once)
start/                      the model it begins with, where that is not a plain one elsewhere (adapter, supervised start)
start.json, before.json, after.json, steps.jsonl, alarms.json
responses_before.json, responses_after.json   one response to each held-out prompt, for people to compare
checkpoints/, sft/          what a stopped training goes on from; removed at the end
model/                      model or adapter, tokeniser, README.md
policy.json                 written last: the policy is finished
gain.json, gain_samples.jsonl   what best of n gains (gain.py)
worker.log, now.json        what a worker of the queue printed; what it is at
"""

import fcntl
import json
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ser_backend import home
from ser_backend.errors import NotFound, SerError
from ser_backend.policy.settings import describe

COMPLETE = "complete.json"  # in a checkpoint: all of it was written
RESPONSES = "responses_{}"  # with "before" or "after": what people compare; older folders have none
LAST = 8_192  # bytes at the end of steps.jsonl that hold a step or more
# what may lie there before the training begins
BEFORE = {"base", "gain.json", "gain_samples.jsonl", "worker.log", "now.json", "resources.json", ".lock"}
BEGUN = BEFORE | {"settings.json", "asked.json"}  # what one leaves that failed before it had done anything


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
        """Whether the policy was begun before, with the same settings. Raises SerError when it was with others, and has got
        anywhere: settings with which it could not begin bind nobody."""
        if self.check_same(settings):
            return True
        (self.path / "asked.json").unlink(missing_ok=True)
        self.write("settings", dict(settings))
        return False

    def check_same(self, settings: Mapping[str, Any]) -> bool:
        """As `begin`, which writes the settings down where there are none."""
        before = self.json("settings")
        if before is None:
            if self._lies_there() - BEFORE:
                raise SerError(f"{self.path} exists already and is not a policy's folder. Choose another name.")
            return False
        # a setting that is newer than the policy stood at its default
        before = {name: entry["default"] for name, entry in describe().items()} | before
        other = [name for name, value in settings.items() if before.get(name) != value]
        if other and not self._lies_there() - BEGUN:
            return False
        if other:
            shown = ", ".join(f"{name} was {before.get(name)!r}" for name in other[:3])
            raise SerError(
                f"There is a policy {self.name!r} with other settings ({shown}). Choose another name, or the same settings."
            )
        return True

    def _lies_there(self) -> set[str]:
        """Names in the folder; half-written files are nobody's, for the worker's meter may be writing one just now."""
        there = {path.name for path in self.path.iterdir()} if self.path.exists() else set()
        return {name for name in there if not name.startswith(home.HALF_WRITTEN)}

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

    def log(self) -> Path:
        """Everything that workers of the queue print."""
        return self.path / "worker.log"

    def note(self, kind: str, facts: Mapping[str, Any]) -> None:
        """What is under way."""
        self.write("now", {"kind": kind, "facts": dict(facts), "at": time.time()})

    @contextmanager
    def held(self) -> Iterator[None]:
        """While one process works here no other may. Raises SerError when one does."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise SerError(
                    f"Another process is at work on the policy {self.name!r}. Wait until it has ended, or stop it."
                ) from None
            yield

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

    def newest_steps(self) -> list[dict[str, Any]]:
        """The last of them, without reading the others."""
        path = self.path / "steps.jsonl"
        if not path.exists():
            return []
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LAST))
            lines = file.read().decode("utf-8", "replace").splitlines()
        found = []
        for line in lines:
            try:
                facts = json.loads(line)
            except ValueError:  # its beginning was not read, or its end not written
                continue
            if isinstance(facts, dict):
                found.append(facts)
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
    """Those whose training was begun, newest first."""
    return _with("settings.json")


def estimated() -> list[PolicyFolder]:
    """Those of which it is known what best of n gains, newest first."""
    return _with("gain.json")


def _with(name: str) -> list[PolicyFolder]:
    found = [PolicyFolder(path.parent) for path in (home.home() / "policies").glob(f"*/{name}")]
    return sorted(found, key=lambda folder: -(folder.path / name).stat().st_mtime)


def existing(name: str) -> PolicyFolder:
    """Raises NotFound."""
    folder = PolicyFolder.of(name)
    if folder.json("settings") is None:
        known = ", ".join(found.name for found in policies()) or "none yet"
        raise NotFound(f"There is no policy {name!r}. So far: {known}.")
    return folder
