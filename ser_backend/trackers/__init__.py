"""Figures of a run sent to a tracker, round by round, beside the work and never in its way.

A thread of its own sends them. A tracker that is not installed, cannot be reached or fails ends that thread with one sentence,
and the run goes on. What was sent is in RUN/tracker.json, so that a resumed run sends what is missing and nothing twice.
"""

import os
import queue
import re
import threading
from collections.abc import Callable, Iterable, Mapping

from ser_backend.records import Interval, Round, Run
from ser_backend.run_folder import RunFolder
from ser_backend.trackers.figures import of_audits, of_round
from ser_backend.trackers.kinds import KINDS, PACKAGES, Axis, Tracker

SENT = "tracker"  # name of the JSON file
PATIENCE_S = 20.0  # for what is left to send when the job ends
MOST_WAITING = 10_000  # figures; of more, steps are left out
LONGEST = 200  # characters of a tracker's own words
SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|PASSWD", re.I)
MISSING = "What is missing is sent when the run is resumed or retrained."


class Tracking:
    """tell: is given the sentence when something is wrong, at most once."""

    def __init__(self, run: Run, folder: RunFolder, tell: Callable[[str], None]) -> None:
        self.kind = str(run.config.get("track", "none"))
        self.run, self.folder, self.tell = run, folder, tell
        self.hangs = False  # whether the thread still runs after `close`
        self._waiting: queue.Queue[tuple[Axis, int, dict[str, float]] | bool] = queue.Queue(MOST_WAITING)
        self._thread: threading.Thread | None = None
        self._given_up = self.kind not in KINDS
        self._told = False

    @property
    def is_on(self) -> bool:
        return not self._given_up

    def rounds(self, rounds: Iterable[Round], audited: Mapping[int, Interval]) -> None:
        """Finished rounds, and audits of any round; those sent before are not sent again."""
        for round_ in rounds:
            self._put("round", round_.index, of_round(round_))
        for index, found in audited.items():
            self._put("round", index, of_audits(found))

    def step(self, x: int, figures: Mapping[str, float]) -> None:
        """A step of training, counted over all rounds."""
        self._put("step", x, dict(figures))

    def close(self, well: bool, patience_s: float = PATIENCE_S) -> None:
        """Wait for what is left to send, but not for long."""
        if self._thread is None:
            return
        if not self._given_up:
            self._waiting.put(well)
        self._thread.join(patience_s)
        self.hangs = self._thread.is_alive()
        if self.hangs:
            self._say(f"The tracker {self.kind} did not take all figures within {patience_s:.0f} s. {MISSING}")

    # ---- the thread

    def _put(self, axis: Axis, x: int, figures: dict[str, float]) -> None:
        if self._given_up or not figures:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._send, name="tracker", daemon=True)
            self._thread.start()
        if axis == "round" or self._waiting.qsize() < MOST_WAITING // 2:
            self._waiting.put((axis, x, figures))

    def _send(self) -> None:
        try:
            tracker: Tracker = KINDS[self.kind](self.run.id, self.run.name, self.run.config, self.folder.path)
            sent = self.folder.json(SENT) or {}
            sent = sent["rounds"] if sent.get("kind") == self.kind else {}
            while not isinstance(waiting := self._waiting.get(), bool):
                axis, x, figures = waiting
                if axis == "step":
                    tracker.log(axis, x, figures)
                    continue
                known = sent.setdefault(str(x), {})
                new = {name: value for name, value in figures.items() if known.get(name) != value}
                if new:
                    tracker.log(axis, x, new)
                    known |= new
                    self.folder.write_json(SENT, {"kind": self.kind, "rounds": sent})
            tracker.end(waiting)
        except ModuleNotFoundError as error:
            self._give_up(_not_installed(self.kind, error))
        except (Exception, SystemExit) as error:  # whatever a tracker does, the run goes on
            self._give_up(_failed(self.kind, error))

    def _give_up(self, sentence: str) -> None:
        self._given_up = True
        self._say(sentence)

    def _say(self, sentence: str) -> None:
        if not self._told:
            self._told = True
            self.tell(sentence)


def _not_installed(kind: str, error: ModuleNotFoundError) -> str:
    if error.name != PACKAGES[kind]:
        return _failed(kind, error)
    how = f'pip install -e ".[{kind}]"' if kind != "tensorboard" else "pip install tensorboardX"
    return (
        f"track={kind} needs the package {PACKAGES[kind]}, which is not installed, so nothing is sent. Install it: {how}. "
        f"{MISSING}"
    )


def _failed(kind: str, error: BaseException) -> str:
    said = without_secrets(" ".join(f"{type(error).__name__}: {error}".split())).rstrip(".")
    said = said if len(said) <= LONGEST else f"{said[:LONGEST]} …"
    return f"The tracker {kind} failed, so nothing more is sent to it; the run goes on. It said: {said}. {MISSING}"


def without_secrets(text: str) -> str:
    """A tracker's words may hold its address with a password, or its key; the event log is no place for them."""
    text = re.sub(r"(//)[^/\s@]+@", r"\1…@", text)
    for name, value in os.environ.items():
        if SECRET.search(name) and len(value) >= 6:
            text = text.replace(value, "…")
    return text
