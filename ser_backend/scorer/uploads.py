"""Where files lie that somebody sent, and what came of them: scorer/ of the data folder, named by chance, for a day."""

import re
import secrets
import time
from pathlib import Path

from ser_backend import home

KEPT_S = 24 * 3600.0


def results() -> Path:
    return _own("scorer")


def waiting() -> Path:
    return _own("scorer/uploads")


def keep(name: str, data: bytes | memoryview) -> Path:
    """Where a file that somebody sent waits until it is read; of its name only the suffix is kept."""
    sweep()
    found = re.search(r"(\.[A-Za-z0-9]{1,8}){1,2}$", name)
    path = waiting() / f"{secrets.token_hex(8)}{found.group() if found else ''}"
    with home.disk_full_in_words(path.parent):
        path.write_bytes(data)
    return path


def sweep() -> None:
    """Remove what is older than a day."""
    for path in (*results().iterdir(), *waiting().iterdir()):
        if path.is_file() and time.time() - path.stat().st_mtime > KEPT_S:
            path.unlink(missing_ok=True)


def _own(name: str) -> Path:
    path = home.home() / name
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path
