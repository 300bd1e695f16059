"""python -m ser_backend.worker JOB: drive the loop for one claimed job; write events and rounds, beat, heed the stop flag.

Started by the supervisor as the leader of a session of its own. Ends with the job's row telling how it ended.
With --wait instead of a job: import what a run needs, then wait for the order (one JSON line on the standard input).
"""

import faulthandler
import fcntl
import importlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

import psutil

from ser_backend import notify
from ser_backend.config import RunConfig
from ser_backend.errors import SerError
from ser_backend.home import disk_full_in_words, home
from ser_backend.loop import Told, self_evolve
from ser_backend.pairs import PairSet
from ser_backend.records import Job, Round, Status
from ser_backend.report import audited, write_report
from ser_backend.resources import Meter
from ser_backend.review import checks, human_labels
from ser_backend.run_data import prepare
from ser_backend.run_folder import RunFolder
from ser_backend.store import Store
from ser_backend.trackers import PATIENCE_S, Tracking

BEAT_S = 2.0
MOST_TRIES = 10
NEEDED_LATER = ("alembic.command", "scipy.optimize", "scipy.sparse.csgraph", "sklearn.utils.extmath", "threadpoolctl")
STOPPED_PATIENCE_S = 5.0  # for a tracker; the supervisor's is ten seconds
PROGRESS_S = 0.5  # progress events at most this often


class Stopped(Exception):
    """The stop flag was found, or SIGTERM came."""


class Worker:
    def __init__(self, store: Store, job: Job) -> None:
        self.store, self.job, self.run = store, job, store.run(job.run)
        self.folder = RunFolder.of(job.run)
        self.stop = threading.Event()
        self._last_progress = 0.0
        self._steps = 0  # of training in the finished rounds
        self.tracking = Tracking(
            self.run, self.folder, lambda said: self._tell("tracking_failed", None, {"message": said})
        )

    def main(self) -> Status:
        """Run the job to its end and return how it ended. Every end is written down; nothing escapes."""
        status, error = Status.FAILED, None
        threading.Thread(target=self._beat, daemon=True).start()
        try:
            with disk_full_in_words(home()), self._slot():
                self._tell("job_started", None, {"job": self.job.id, "pid": os.getpid()})
                self.store.note_outcome(self.run.id, None, self._best_round())
                self._work()
            status = Status.SUCCEEDED
        except Stopped:
            status = Status.STOPPED
            done = self.folder.finished()
            self.store.note_outcome(
                self.run.id, f"Stopped on request{f' after round {done[-1]}' if done else ''}.", self._best_round()
            )
        except SerError as found:
            error = str(found)
        except MemoryError:
            error = "The machine ran out of memory. Close other programs, or use a smaller pool or fewer components."
        except Exception as found:
            traceback.print_exc()
            error = (
                f"An unexpected error ended the run ({type(found).__name__}: {found}). Finished rounds are kept and the "
                f"run can be resumed; the full text is in {self.folder.log()}."
            )
        with suppress(Exception):  # nor may a tracker
            patience = STOPPED_PATIENCE_S if status == Status.STOPPED else PATIENCE_S
            self.tracking.close(status == Status.SUCCEEDED, patience)
        try:
            write_report(self.store, self.run.id)
        except Exception:  # a full disk, or whatever it is, must not hide how the job ended
            traceback.print_exc()
        for _ in range(MOST_TRIES):
            try:
                self._tell("job_ended", None, {"status": status, "error": error})
                self.store.finish_job(self.job.id, status, error)
                notify.after_job(self.store, self.run.id, status, error)
                break
            except Exception:  # a full disk: somebody may free it; if not, the supervisor finds the process gone
                traceback.print_exc()
                time.sleep(BEAT_S)
        return status

    @contextmanager
    def _slot(self) -> Iterator[None]:
        """Hold the slot's file lock: should a supervisor die at the wrong moment, two jobs still never share a slot."""
        with (home() / f"slot-{(self.job.slot or 'cpu').replace(':', '-')}.lock").open("a") as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if self.stop.wait(0.5):
                        raise Stopped from None
            yield

    def _work(self) -> None:
        for round_ in self.folder.rounds():  # a kill may have come between writing a round and telling of it
            self.store.put_round(self.run.id, round_)
            self._track(round_)
        config = RunConfig(**self.run.config).validate()
        heldout = PairSet.open(self.run.heldout) if self.run.heldout else None
        data = prepare(PairSet.open(self.run.seed), PairSet.open(self.run.pool), heldout, config)
        store, run = self.store, self.run.id
        told = self_evolve(
            config,
            data,
            self.folder,
            lambda: human_labels(store, run),
            self.job.rounds,
            lambda: checks(store, run),
        )
        with closing(told):  # a stop, too, writes the features computed so far
            for fact in told:
                self._hear(fact)

    def _hear(self, fact: Told) -> None:
        if fact.finished is not None:
            self.store.put_round(self.run.id, fact.finished)
            self.store.count_attempts_anew(self.job.id)
            self._track(fact.finished)
        if fact.kind == "run_finished":
            self.store.note_outcome(self.run.id, fact.payload["stopped_because"], fact.payload["best_round"])
        if not fact.kind.endswith("_progressed"):
            self._tell(fact.kind, fact.round, fact.payload)
        elif time.monotonic() - self._last_progress > PROGRESS_S or fact.payload["done"] == fact.payload["total"]:
            self._last_progress = time.monotonic()
            self._tell(fact.kind, fact.round, fact.payload)
            if fact.kind == "training_progressed" and fact.payload["of"] == "model":
                figures = {key: value for key, value in fact.payload.items() if key in ("loss", "accuracy")}
                self.tracking.step(self._steps + fact.payload["done"], figures)
        if self.stop.is_set() and fact.kind != "run_finished":
            raise Stopped

    def _track(self, finished: Round) -> None:
        self._steps += finished.details.get("steps", 0)
        if self.tracking.is_on:  # read only then: there may be 100,000 answers
            self.tracking.rounds([finished], audited(self.store, self.run.id))

    def _tell(self, kind: str, round_: int | None, payload: dict) -> None:
        if not kind.endswith("_progressed"):
            where = "" if round_ is None else f" round {round_}"
            print(f"{time.strftime('%H:%M:%S')} {kind}{where} {json.dumps(payload)}", flush=True)
        self.store.append_event(self.run.id, kind, round_, payload)

    def _beat(self) -> None:
        meter = Meter(self.folder.path)
        while True:
            meter.look()
            with suppress(Exception):  # a busy or full disk must not end the work; the next beat tries again
                self.store.beat(self.job.id)
                if self.store.job(self.job.id).status == Status.STOPPING:
                    self.stop.set()
            time.sleep(BEAT_S)

    def _best_round(self) -> int | None:
        done = list(self.folder.rounds())
        return done[-1].details["model_round"] if done else None


def main(job_id: int) -> int:
    faulthandler.enable()
    store = Store.open()
    store.set_process(job_id, os.getpid(), psutil.Process().create_time())
    worker = Worker(store, store.job(job_id))
    signal.signal(signal.SIGTERM, lambda *_: worker.stop.set())
    signal.signal(signal.SIGINT, lambda *_: worker.stop.set())
    code = 0 if worker.main() in (Status.SUCCEEDED, Status.STOPPED) else 1
    if worker.tracking.hangs:  # what a tracker does at the end of a process may take for ever, and the slot is held
        sys.stdout.flush()
        os._exit(code)
    return code


def wait_for_order() -> int | None:
    """The job that the supervisor names, its output and environment set; None when the supervisor has gone."""
    for module in NEEDED_LATER:
        importlib.import_module(module)
    line = sys.stdin.readline()
    if not line:
        return None
    order = json.loads(line)
    os.environ.update(order["environment"])
    with open(order["log"], "ab") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
    return int(order["job"])


if __name__ == "__main__":
    job = wait_for_order() if sys.argv[1] == "--wait" else int(sys.argv[1])
    sys.exit(0 if job is None else main(job))
