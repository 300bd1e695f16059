"""Policies in the queue: check, train, estimate, stop, resume, and what is known of each. For pages and the command line.

Loads no torch: what costs time is done by a worker (driven/policy.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ser_backend import jobs
from ser_backend.errors import NotFound, SerError
from ser_backend.policy import folder as folders
from ser_backend.policy.folder import PolicyFolder
from ser_backend.policy.prompts import RUN, is_file
from ser_backend.policy.settings import ONLINE, PolicySettings
from ser_backend.records import ACTIVE, Job, Run, Status
from ser_backend.reward_model import model_folder
from ser_backend.scorer import choice
from ser_backend.store import Store
from ser_backend.transformer import bases

MOST_N = 256
USUAL_N = 64


@dataclass(frozen=True, slots=True)
class Known:
    """A policy that was queued, or trained at the command line."""

    name: str
    settings: Mapping[str, Any]
    status: Status | None  # of its newest job; None where it has none
    error: str | None
    best_of: int | None  # the newest job estimates this
    begun: bool  # its training
    finished: bool

    @property
    def is_active(self) -> bool:
        return self.status in ACTIVE

    @property
    def estimates(self) -> bool:
        """The newest job is no training."""
        return self.best_of is not None


def known(store: Store) -> list[Known]:
    """Newest first. Raises Forbidden."""
    store.require("see_rewards")
    queued = {policy.name: policy for policy in store.policies()}
    found = [_known(folder, queued.pop(folder.name, None)) for folder in folders.policies()]
    fresh = [_known(PolicyFolder.of(name), policy) for name, policy in queued.items()]  # not begun yet
    return [*fresh, *found]


def look(store: Store, name: str) -> Known:
    """Raises NotFound, Forbidden."""
    store.require("see_rewards")
    folder = PolicyFolder.of(name)
    try:
        return _known(folder, store.policy(name))
    except NotFound:
        if folder.json("settings") is None:
            folders.existing(name)  # says which there are
        return _known(folder, None)


def _known(folder: PolicyFolder, row: Any) -> Known:
    begun = folder.json("settings")
    return Known(
        folder.name,
        begun if begun is not None else row.settings,
        row.status if row else None,
        row.error if row else None,
        row.best_of if row else None,
        begun is not None,
        (folder.path / "policy.json").exists(),
    )


# ---- what can be seen to be wrong before anything is loaded


def check(store: Store, settings: PolicySettings) -> None:
    """Raises SerError, in a sentence, where the training could not begin. Models are not opened."""
    settings.validate()
    _check_base(settings.base_model)
    if settings.judge in settings.members:
        raise SerError(
            f"{settings.judge} is a reward model to climb and the judge. The judge must be one that is not trained against."
        )
    for name in (*settings.members, *([settings.judge] if settings.judge else [])):
        if name.startswith(RUN):
            choice.resolve(name)
        else:
            _check_reward_model(name)
    if settings.prompts:
        if settings.prompts.startswith(RUN):
            store.run(settings.prompts.removeprefix(RUN))
        elif not is_file(settings.prompts):
            store.dataset(settings.prompts)
    if settings.examples and (settings.method not in ONLINE or settings.sft_steps or not settings.prompts):
        if settings.examples.startswith(RUN):
            store.run(settings.examples.removeprefix(RUN))
        elif not is_file(settings.examples) and (found := store.dataset(settings.examples)).role == "pool":
            raise SerError(
                f"The set {found.name!r} is a pool, and its pairs carry no labels to learn from. Give a labelled set, or "
                "run:ID for the labels of a run."
            )


def _check_reward_model(name: str) -> None:
    """Whatever `score` takes; a hub id is not looked at, and a head has its base model elsewhere."""
    try:
        exists = Path(name).expanduser().exists()
    except (OSError, ValueError, RuntimeError):  # no folder's name
        bases.check_local(name)
        return
    if not exists and not name.startswith((".", "/", "~")) and name.count("/") == 1:
        return
    folder = model_folder(name)
    config = next((c for c in ("adapter_config.json", "config.json") if (folder / c).exists()), "")
    if config and not (folder / "head.safetensors").exists():
        bases.checked_folder(folder, config)


@bases.for_writing()
def _check_base(name: str) -> None:
    """A plain model, an adapter, or the folder of a policy that has one of them (writer.plain_start)."""
    path = Path(name).expanduser()
    path = path / "model" if (path / "model").is_dir() and not (path / "config.json").exists() else path
    if (path / "adapter_config.json").exists():
        bases.checked_folder(path, "adapter_config.json")
    else:
        bases.check_local(str(path) if path.is_dir() else name)
    if name == bases.BUNDLED:
        raise SerError(
            "The bundled model reads texts and writes none, so it cannot be a policy. Give a causal language model: a Hugging "
            "Face name or a folder."
        )


def judge_notes(store: Store, settings: PolicySettings) -> list[str]:
    """What the judge cannot tell, as far as it is known before."""
    if not settings.members:
        return []
    if not settings.judge:
        return [
            "Without a judge nothing tells whether the reward gained is more than the reward model's own taste. Train one on "
            "other labels, with a run of its own."
        ]
    judge, members = _run_of(store, settings.judge), [_run_of(store, name) for name in settings.members]
    if judge and any(one and one.seed == judge.seed for one in members):
        return [
            "The judge learnt from the same seed as a reward model, so it shares what is wrong with these labels. One of "
            "other people's labels tells more."
        ]
    return []


def _run_of(store: Store, name: str) -> Run | None:
    if not name.startswith(RUN):
        return None
    try:
        return store.run(name.removeprefix(RUN).partition(":")[0])
    except NotFound:
        return None


# ---- jobs


def train(store: Store, name: str, settings: PolicySettings, detached: bool = True) -> Job:
    """Queue its training. Raises SerError, Forbidden. detached: as jobs.submit."""
    return _queue(store, name, settings, None, detached)


def estimate(store: Store, name: str, settings: PolicySettings, n: int = USUAL_N, detached: bool = True) -> Job:
    """Queue what the best of n responses gains. Raises SerError, Forbidden."""
    if not 2 <= n <= MOST_N:
        raise SerError(f"n is {n}; it must be from 2 to {MOST_N}.")
    if not settings.members:
        raise SerError("The best of n is picked by a reward, and no reward model is named. Give reward_models.")
    return _queue(store, name, settings, n, detached)


def _queue(store: Store, name: str, settings: PolicySettings, best_of: int | None, detached: bool) -> Job:
    store.require("start")
    folder = PolicyFolder.of(name)
    check(store, settings)
    folder.check_same(settings.as_dict())
    if best_of is None and (folder.path / "policy.json").exists():
        raise SerError(f"The policy {name!r} is trained already. Choose another name to train one more.")
    job = store.add_policy_job(name, settings.as_dict(), best_of)
    if detached:
        jobs.ensure_supervisor()
    return job


def resume(store: Store, name: str, detached: bool = True) -> Job:
    """Queue what its newest job had left to do. Raises SerError, NotFound, Forbidden."""
    found = look(store, name)
    settings = PolicySettings().changed(found.settings)
    if found.estimates and found.status == Status.SUCCEEDED and not found.finished:
        return _queue(store, name, settings, None, detached)  # what comes after the estimate
    return _queue(store, name, settings, found.best_of, detached)


def stop(store: Store, name: str) -> Status | None:
    """Ask its job to stop; the newest checkpoint stays. The job's new status, None where none was active. Raises
    NotFound, Forbidden."""
    look(store, name)
    return store.request_policy_stop(name)


def free_name(store: Store, begin: str = "policy") -> str:
    """One that no policy has yet."""
    taken = {policy.name for policy in store.policies()} | {folder.name for folder in folders.policies()}
    return next(name for n in range(1, len(taken) + 2) if (name := f"{begin}-{n}") not in taken)
