"""scorer.json of a data folder: where the resident process listens and the token it takes; readable by its owner alone.

Standard library only: a page reads it.
"""

import fcntl
import json
import os
import secrets
from pathlib import Path
from typing import Any

from ser_backend import home


def lock_file() -> Path:
    return home.home() / "scorer.lock"


def log_file() -> Path:
    return home.home() / "scorer.log"


def is_held() -> bool:
    """Whether a resident process lives."""
    with lock_file().open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def write(port: int, token: str) -> None:
    _write({"pid": os.getpid(), "port": port, "token": token})


def last_words(said: str) -> None:
    """Why it could not go on."""
    _write({"pid": os.getpid(), "said": said})


def forget() -> None:
    _path().unlink(missing_ok=True)


def read() -> dict[str, Any]:
    try:
        found = json.loads(_path().read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _path() -> Path:
    return home.home() / "scorer.json"


def _write(facts: dict[str, Any]) -> None:
    temporary = _path().with_name(f".scorer.{secrets.token_hex(4)}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as file:
        json.dump(facts, file)
    os.replace(temporary, _path())
