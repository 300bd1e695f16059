"""A policy's job: train it, or estimate what best of n gains. What it tells stays in the policy's folder."""

import json
import os
import time
from collections.abc import Generator
from contextlib import closing
from typing import Any

from ser_backend import notify
from ser_backend.errors import SerError, is_out_of_memory
from ser_backend.policy import gain, loop
from ser_backend.policy.folder import PolicyFolder
from ser_backend.policy.settings import PolicySettings
from ser_backend.policy.telling import Event
from ser_backend.records import Job, Status
from ser_backend.store import Store

EVERY_S = 0.5  # what is under way is noted at most this often
KEPT = {"prompts_gathered", "start_measured", "heldout_measured", "supervised_start_finished", "checkpoint_saved"}


class PolicyWork:
    out_of_memory = (
        "The machine ran out of memory. Close other programs, lower max_prompt_tokens or max_new_tokens, use LoRA "
        "(lora_rank above 0) or a smaller base model."
    )
    hangs = False

    def __init__(self, store: Store, job: Job, name: str) -> None:
        self.store, self.job, self.name = store, job, name
        self.folder = PolicyFolder.of(name)
        self.path = self.folder.path
        self._noted = 0.0

    def begin(self) -> None:
        _print("job_started", {"job": self.job.id, "pid": os.getpid()})
        self.folder.note("job_started", {})

    def steps(self) -> Generator[None, None, None]:
        settings = PolicySettings().changed(self.store.policy(self.name).settings)
        if self.job.best_of is not None:
            telling = gain.estimated(self.store, settings, self.job.best_of, self.folder)
        else:
            telling = loop.run(self.store, settings, self.folder)
        with closing(telling):  # a stop keeps a checkpoint
            for event in _without_memory_errors(telling, self.out_of_memory):
                self._hear(*event)
                if event[0] != "policy_finished":  # asked for after it, there is nothing to stop
                    yield

    def _hear(self, kind: str, facts: dict[str, Any]) -> None:
        if kind in KEPT:  # a killed worker goes on from here
            self.store.count_attempts_anew(self.job.id)
        if kind not in ("step_finished", "responses_sampled"):
            _print(kind, facts)
        if kind == "checkpoint_saved":  # the step is what it goes on with
            return
        if kind not in ("step_finished", "responses_sampled") or time.monotonic() - self._noted > EVERY_S:
            self._noted = time.monotonic()
            self.folder.note(kind, facts)

    # ---- how it ended

    def stopped(self) -> None:
        """The checkpoint says where it goes on."""

    def unexpected(self, error: Exception) -> str:
        return (
            f"An unexpected error ended the policy's job ({type(error).__name__}: {error}). The newest checkpoint is kept "
            f"and it can be resumed; the full text is in {self.folder.log()}."
        )

    def close(self, status: Status) -> None:
        pass

    def tell_end(self, status: Status, error: str | None) -> None:
        _print("job_ended", {"status": status, "error": error})

    def after_end(self, status: Status, error: str | None) -> None:
        said = error
        if status == Status.SUCCEEDED:
            done = self.folder.json("policy" if self.job.best_of is None else "gain")
            said = done["sentences"][0] if done and done["sentences"] else ""
        notify.after_policy(self.store, self.name, status, said or "")


def _print(kind: str, facts: dict[str, Any]) -> None:
    print(f"{time.strftime('%H:%M:%S')} {kind} {json.dumps(facts)}", flush=True)


def _without_memory_errors(telling: Generator[Event, None, Any], sentence: str) -> Generator[Event, None, None]:
    """torch says in many ways that memory ran out. Raises SerError then."""
    try:
        yield from telling
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise SerError(sentence) from error
