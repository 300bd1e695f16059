"""Checks of the paths that a command is to write, before its work and not after it."""

import os
from pathlib import Path

from ser_backend.errors import SerError


def check_out(out: Path | None) -> None:
    """Before the work, not after it."""
    if out and not os.access(next(p for p in (out, *out.absolute().parents) if p.exists()), os.W_OK):
        raise SerError(f"{out} cannot be written to. Give a folder in a place that is yours.")
    if out and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SerError(f"{out} exists already and is not an empty folder. Give a folder that does not exist yet.")
