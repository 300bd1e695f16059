"""What every test has: a data folder of its own."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def ser_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path / "ser_home"
    monkeypatch.setenv("SER_HOME", str(folder))
    monkeypatch.delenv("SER_DATABASE", raising=False)
    # a text is read once in a session: what a feature is depends on the text and the model alone
    monkeypatch.setenv("SER_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    return folder
