"""What every test has: a data folder of its own."""

import os
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # torch processes with two threads each on two cores slow each other down
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(tryfirst=True)  # before the plugin reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Two processes share the tests. Those that drive a browser stay in one, one after the other, and begin first."""
    for item in items:
        if item.get_closest_marker("e2e"):
            item.add_marker(pytest.mark.xdist_group("browser"))
    items.sort(key=lambda item: item.get_closest_marker("e2e") is None)


@pytest.fixture(autouse=True)
def ser_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path / "ser_home"
    monkeypatch.setenv("SER_HOME", str(folder))
    monkeypatch.delenv("SER_DATABASE", raising=False)
    # a text is read once in a session: what a feature is depends on the text and the model alone
    monkeypatch.setenv("SER_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    return folder
