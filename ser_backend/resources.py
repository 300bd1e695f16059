"""What a run takes of the machine while it works: processors, memory, GPU memory, disk.

The worker looks at itself and at what it started, so that nobody has to watch from outside; a page reads the small file it
leaves. Loads no torch: GPU memory is asked of torch only where the worker has loaded it already.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import psutil

from ser_backend import home

NAME = "resources.json"
EVERY_S = 4.0  # between two samples at first
CHILDREN_S = 20.0  # to list children, all processes of the machine are looked through
DISK_S = 30.0
MOST = 360  # samples kept; when there are more, every other one goes and the pause doubles
LATE_S = 15.0  # a file this much older than its pause tells of the past


@dataclass(frozen=True, slots=True)
class Sample:
    at: float  # seconds since the epoch
    cpu: float  # cores busy, of the worker and what it started; may exceed 1
    memory: int  # bytes resident, of all of them; what they share counts each time
    gpu: int  # bytes in use on the worker's GPU, by whomever; 0 where there is none
    disk: int  # bytes of the run's folder
    free: int  # bytes free on its disk


@dataclass(frozen=True, slots=True)
class Use:
    """What has been seen so far of one run, resumed or not."""

    samples: tuple[Sample, ...]  # thinned, oldest first
    peak: Sample  # each figure's own highest, of free the lowest; `at` is the newest
    every: float  # seconds between samples

    @property
    def now(self) -> Sample:
        return self.samples[-1]

    def is_live(self, at: float | None = None) -> bool:
        return (time.time() if at is None else at) - self.now.at < LATE_S + self.every


class Meter:
    """Of the process that makes it. `look` is to be called every now and then; it samples when it is time to."""

    def __init__(self, folder: Path, every: float = EVERY_S) -> None:
        self.folder = folder
        before = read(folder)
        self.every = before.every if before else every
        self.samples = list(before.samples) if before else []
        self.peak = before.peak if before else None
        self.me = psutil.Process()
        self.family: dict[int, psutil.Process] = {self.me.pid: self.me}
        self.busy: dict[int, float] = {}  # CPU seconds of each at the last look
        self.looked = self.listed = self.weighed = float("-inf")
        self.disk = 0

    def look(self) -> None:
        """Raises nothing that a full disk or a vanished process may cause."""
        now = time.monotonic()
        if now - self.looked < self.every:
            return
        with suppress(OSError, psutil.Error):
            self._sample(now)

    def _sample(self, now: float) -> None:
        if now - self.listed >= CHILDREN_S:
            self.listed = now
            children = {child.pid: child for child in self.me.children(recursive=True)}
            self.family = {self.me.pid: self.me} | {pid: self.family.get(pid, one) for pid, one in children.items()}
        if now - self.weighed >= DISK_S:
            self.weighed, self.disk = now, size_of(self.folder)
        busy, memory = {}, 0
        for pid, process in self.family.items():
            with suppress(psutil.Error):
                with process.oneshot():
                    times = process.cpu_times()
                    memory += process.memory_info().rss
                busy[pid] = times.user + times.system
        spent = sum(max(0.0, seconds - self.busy.get(pid, seconds)) for pid, seconds in busy.items())
        is_first, passed = not self.busy, now - self.looked
        self.busy, self.looked = busy, now
        cpu = 0.0 if is_first else spent / max(passed, 1e-3)
        free = shutil.disk_usage(self.folder).free
        self._add(Sample(time.time(), round(cpu, 3), memory, gpu_memory(), self.disk, free))

    def _add(self, sample: Sample) -> None:
        self.samples.append(sample)
        self.peak = highest([self.peak, sample] if self.peak else [sample])
        if len(self.samples) > MOST:
            self.samples = self.samples[::-1][::2][::-1]  # the newest stays
            self.every *= 2
        facts = {"every": self.every, "peak": asdict(self.peak), "samples": [_row(one) for one in self.samples]}
        # Written anew each time and never half; not synced, for after a crash of the machine nobody misses it.
        temporary = self.folder / f"{home.HALF_WRITTEN}{NAME}"
        temporary.write_text(json.dumps(facts))
        os.replace(temporary, self.folder / NAME)


def read(folder: Path) -> Use | None:
    """None where no worker has looked yet, or another version wrote the file."""
    try:
        facts = json.loads((folder / NAME).read_text())
        samples = tuple(Sample(*row) for row in facts["samples"])
        return Use(samples, Sample(**facts["peak"]), float(facts["every"])) if samples else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def highest(samples: Iterable[Sample]) -> Sample:
    told = list(samples)
    return Sample(
        at=max(one.at for one in told),
        cpu=max(one.cpu for one in told),
        memory=max(one.memory for one in told),
        gpu=max(one.gpu for one in told),
        disk=max(one.disk for one in told),
        free=min(one.free for one in told),
    )


def size_of(folder: Path) -> int:
    """Bytes of all files below it; one that vanishes meanwhile counts nothing."""
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(where, name)).st_size
    return total


def gpu_memory() -> int:
    """Of the GPU this process was given, in use by whomever; 0 where torch is not loaded or has not touched one."""
    torch = sys.modules.get("torch")
    with suppress(Exception):  # a driver has errors of its own, and none of them may end a run
        if torch is not None and torch.cuda.is_initialized():
            free, total = torch.cuda.mem_get_info()
            return int(total - free)
    return 0


def _row(sample: Sample) -> list[float]:
    return [getattr(sample, field.name) for field in fields(Sample)]
