import errno
import os
import stat
from pathlib import Path

import pytest

from ser_backend import home
from ser_backend.errors import SerError


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 250)
    with home.atomic_file(path) as temporary:
        temporary.write_text("one")
    with pytest.raises(RuntimeError), home.atomic_file(path) as temporary:
        temporary.write_text("two")
        raise RuntimeError
    assert path.read_text() == "one"
    assert os.listdir(tmp_path) == [path.name]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError("(sqlite3.OperationalError) database or disk is full"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 2762240 vs 2762132"),
        RuntimeError("PytorchStreamWriter failed writing file data/3: file write failed"),
    ],
)
def test_a_full_disk_is_said_in_words_whoever_says_it(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(SerError, match="is full"), home.atomic_folder(tmp_path / "new"):
        raise error
    assert os.listdir(tmp_path) == []


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), home.disk_full_in_words(tmp_path):
        raise PermissionError
    with pytest.raises(RuntimeError, match="Reader"), home.disk_full_in_words(tmp_path):
        raise RuntimeError("PytorchStreamReader failed reading zip archive: failed finding central directory")
