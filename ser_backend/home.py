"""Where things live on disk, and how a file is written so that a crash never leaves half of it.

Knows paths only; what is inside a folder is the business of pairs, features and run_folder.
"""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ser_backend.errors import SerError

ROOT = Path(__file__).resolve().parent.parent
HALF_WRITTEN = ".new."  # begins the name of what is being written, or was when the machine went down
# said without an error number: by safetensors, by SQLite, and (the last two) by torch.save
DISK_FULL = ("No space left on device", "database or disk is full", "PytorchStreamWriter failed", "unexpected pos")


def home() -> Path:
    """The data folder: $SER_HOME, else data/ of this project. Created on first use."""
    path = Path(os.environ.get("SER_HOME") or ROOT / "data").expanduser().resolve()
    path.mkdir(parents=True, exist_ok=True)
    return path


def datasets_dir() -> Path:
    return _sub("datasets")


def runs_dir() -> Path:
    return _sub("runs")


def cache_dir() -> Path:
    """What can be computed again: $SER_CACHE, else cache/ in the data folder."""
    path = Path(os.environ.get("SER_CACHE") or home() / "cache").expanduser().resolve()
    path.mkdir(parents=True, exist_ok=True)
    return path


def _sub(name: str) -> Path:
    path = home() / name
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is synced and renamed into place, on failure removed.

    Raises SerError with a sentence when the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=HALF_WRITTEN)
    os.close(handle)
    temporary = Path(name)
    temporary.chmod(0o644)  # mkstemp gives 0600, which a team that shares the folder could not read
    try:
        with disk_full_in_words(path.parent):
            yield temporary
            _sync(temporary)
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on success it takes the name `path`, on failure it is removed.

    A folder already at `path` is replaced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=HALF_WRITTEN))
    os.chmod(temporary, 0o755)  # mkdtemp gives 0700, which a team that shares the folder could not read
    try:
        with disk_full_in_words(path.parent):
            yield temporary
            for file in temporary.rglob("*"):
                if file.is_file():
                    _sync(file)
            if path.exists():
                shutil.rmtree(path)
            os.replace(temporary, path)
            _sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def disk_full_in_words(where: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        if full or any(words in str(error) for words in DISK_FULL):
            raise SerError(
                f"The disk that holds {where} is full; nothing was changed there. "
                "Free some space (or point SER_HOME at a larger disk) and try again."
            ) from error
        raise


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
