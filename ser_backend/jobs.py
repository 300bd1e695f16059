"""Submit, stop, resume, retrain: what a page or the command line may ask for. Starts nothing but the supervisor.

A run is described by its row and its job rows; the supervisor (supervisor.py) starts a worker for each job in turn.
"""

import fcntl
import os
import re
import secrets
import subprocess
import sys
from dataclasses import dataclass

from ser_backend import home
from ser_backend.config import RunConfig
from ser_backend.errors import SerError
from ser_backend.pairs import PairSet
from ser_backend.records import ACTIVE, Dataset, Job, Role, Run
from ser_backend.run_data import prepare
from ser_backend.run_folder import RunFolder
from ser_backend.store import Store

LONGEST_NAME = 80


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would use, found without starting it."""

    counts: dict[str, int]
    notes: tuple[str, ...]


def plan(store: Store, config: RunConfig, seed: str, pool: str, heldout: str | None) -> Plan:
    """seed, pool, heldout: data set ids or names. Raises SerError with the reason the run could not start."""
    config.validate()
    found_seed, found_pool, found_heldout = _sets(store, seed, pool, heldout)
    measure = PairSet.open(found_heldout.id) if found_heldout else None
    data = prepare(PairSet.open(found_seed.id), PairSet.open(found_pool.id), measure, config)
    return Plan(data.counts, data.notes)


def submit(
    store: Store,
    config: RunConfig,
    seed: str,
    pool: str,
    heldout: str | None = None,
    name: str = "",
    detached: bool = True,
) -> Run:
    """Check, then queue a new run. detached=False leaves starting the supervisor to the caller (tests, services)."""
    plan(store, config, seed, pool, heldout)
    found_seed, found_pool, found_heldout = _sets(store, seed, pool, heldout)
    run_id = secrets.token_hex(5)
    name = re.sub(r"\s+", " ", name).strip()[:LONGEST_NAME] or f"{found_seed.name} on {found_pool.name}"
    store.add_run(
        run_id,
        name,
        config.as_dict(),
        found_seed.id,
        found_pool.id,
        found_heldout.id if found_heldout else None,
        config.rounds,
    )
    if detached:
        ensure_supervisor()
    return store.run(run_id)


def retrain(store: Store, run_id: str, detached: bool = True) -> Job:
    """Queue one more round, which uses every review given so far. Raises SerError while the run is active."""
    finished = RunFolder.of(run_id).finished()
    job = store.add_job(run_id, finished[-1] + 1 if finished else int(store.run(run_id).config["rounds"]))
    if detached:
        ensure_supervisor()
    return job


def resume(store: Store, run_id: str, detached: bool = True) -> Job:
    """Queue what a stopped or failed run had left to do; it goes on after its last finished round."""
    last = store.jobs(run=run_id)[-1]
    job = store.add_job(run_id, last.rounds)
    if detached:
        ensure_supervisor()
    return job


def rounds_left(store: Store, run_id: str) -> int:
    """Rounds that `resume` would add."""
    finished = RunFolder.of(run_id).finished()
    return store.jobs(run=run_id)[-1].rounds - (finished[-1] if finished else -1)


def stop(store: Store, run_id: str) -> None:
    """Ask the run to stop; finished rounds stay. A run that is not active is left alone."""
    store.request_stop(run_id)


def active(store: Store) -> list[Job]:
    return store.jobs(*ACTIVE)


# ---- the supervisor process


def supervisor_alive() -> bool:
    with (home.home() / "supervisor.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def ensure_supervisor() -> None:
    """Start the supervisor, detached from this process, unless one is there."""
    if supervisor_alive():
        return
    log = (home.home() / "supervisor.log").open("ab")
    subprocess.Popen(
        [sys.executable, "-m", "ser_backend.supervisor", "--when-idle", "exit"],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
        cwd=home.home(),
        env={**os.environ, "SER_HOME": str(home.home())},
    )
    log.close()


def _sets(store: Store, seed: str, pool: str, heldout: str | None) -> tuple[Dataset, Dataset, Dataset | None]:
    def wanted(name: str, role: Role) -> Dataset:
        found = store.dataset(name)
        if found.role != role:
            raise SerError(
                f"The data set {found.name!r} was imported as {found.role}, but it is to serve as {role} here. "
                f"Import its source again with the role {role}."
            )
        return found

    return wanted(seed, "seed"), wanted(pool, "pool"), wanted(heldout, "heldout") if heldout else None
