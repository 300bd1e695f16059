"""What every test has: a data folder of its own."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def ser_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "ser_home"
    monkeypatch.setenv("SER_HOME", str(folder))
    monkeypatch.delenv("SER_DATABASE", raising=False)
    return folder
