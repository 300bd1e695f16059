"""A real supervisor with real workers, driven by hand, and ways to disturb what a worker does."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from ser_backend.store import Store
from ser_backend.supervisor import Supervisor

PATIENCE_S = 240  # a busy machine takes a minute to start a worker


@contextmanager
def overseer(store: Store) -> Iterator[Supervisor]:
    made = Supervisor(store)
    made.slots = ["cpu"]
    try:
        yield made
    finally:
        for child in [*made.children.values(), *([made.reserve] if made.reserve else [])]:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def drive(boss: Supervisor, until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not until():
        assert time.monotonic() < deadline, f"the job did not get there: {boss.store.jobs()}"
        boss.step()
        time.sleep(0.05)


def gone(pid: int) -> bool:
    """Dead within two seconds; a zombie that nobody collected counts as dead."""
    for _ in range(40):
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.05)
    return False


def disturb(
    monkeypatch: pytest.MonkeyPatch, folder: Path, place: str, numbered: str, code: str, *, after: bool = False
) -> None:
    """Have every worker run `code` before (or after) each call of a method, which is still made.

    place: "module:Class.method". numbered: its number, as an expression of `args`; `code` sees it as `n`, and `first` is true
    the first time that n came.
    """
    module, _, method = place.partition(":")
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        f"""
import importlib.abc, os, signal, sys, time

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "{module}":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        run = spec.loader.exec_module
        def exec_module(module):
            run(module)
            honest = module.{method}
            def disturbed(self, *args):
                n = {numbered}
                flag = {str(folder / "seen")!r} + str(n)
                first = not os.path.exists(flag)
                open(flag, "w").close()
                found = honest(self, *args) if {after} else None
                {code}
                return found if {after} else honest(self, *args)
            module.{method} = disturbed
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Finder())
"""
    )
    monkeypatch.setenv("PYTHONPATH", str(folder))
