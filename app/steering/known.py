"""What Policy shows of a policy's folder, kept for all sessions as long as the files stay as they are."""

from pathlib import Path
from typing import Any

import streamlit as st

from ser_backend.policy import folder as folders
from ser_backend.policy import outcome
from ser_backend.policy.curves import Steps
from ser_backend.policy.folder import PolicyFolder
from ser_backend.policy.outcome import Reached
from ser_backend.store import Store

MOST_BESIDE = 6  # policies drawn beside best of n


def stamp(folder: PolicyFolder, *names: str) -> tuple[int, ...]:
    """Changes when one of these files does."""
    return tuple(_written(folder.path / f"{name}.json") for name in names)


def json(folder: PolicyFolder, name: str) -> Any:
    """None when there is no such file. Raises SerError."""
    return _json(str(folder.path), name, stamp(folder, name))


@st.cache_resource(show_spinner=False, max_entries=64)
def _json(path: str, name: str, at: tuple[int, ...]) -> Any:
    return PolicyFolder(Path(path)).json(name)


@st.cache_resource(show_spinner=False, max_entries=8)
def _steps(path: str) -> Steps:
    return Steps(Path(path))


def steps(folder: PolicyFolder) -> Steps:
    """Up to date; only what is new is read."""
    return _steps(str(folder.path)).refresh()


def gain(folder: PolicyFolder, settings: Any) -> Any:
    """What is known of best of n for these settings: the policy's own estimate, else that of another policy of the same
    start, prompts and reward models. None where nobody estimated it."""
    for one in (folder, *folders.estimated()):
        found = json(one, "gain")
        if found is not None and outcome.same(found["settings"], settings):
            return found
    return None


def beside(folder: PolicyFolder, found: Any) -> list[Reached]:
    """Where this policy is, and where others are that the same best of n has to be beaten by; it first."""
    told = []
    for one in dict.fromkeys([folder.path, *(other.path for other in folders.policies())]):
        here = PolicyFolder(one)
        policy = json(here, "policy")
        if policy is None or not outcome.same(found["settings"], policy["settings"]):
            continue
        if not outcome.incomparable(found, policy):
            at = stamp(here, "policy", "before", "after")
            told += [reached] if (reached := _reached(str(one), at, tuple(found["start"]["sd"]), found)) else []
        if len(told) == MOST_BESIDE:
            break
    return told


@st.cache_resource(show_spinner=False, max_entries=64)
def _reached(path: str, at: tuple[int, ...], unit: tuple[float, ...], _gain: Any) -> Reached | None:
    return outcome.reached(PolicyFolder(Path(path)), _gain)


def labels(store: Store) -> dict[str, str]:
    """Name of a reward model -> what people call it. Runs only; others are called as they are."""
    return {f"run:{run.id}": run.name for run in store.runs()}


def _written(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
