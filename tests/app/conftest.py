"""What every test of a page has: a store of its own, no supervisor, no dry run, and pages importable as Streamlit does it."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fabricate import APP, N_POOL, a_round, end, rows, write_jsonl
from streamlit.testing.v1 import AppTest

from ser_backend import ingest, jobs
from ser_backend.records import Dataset, Role, Run, Status
from ser_backend.scorer import client
from ser_backend.store import Store

sys.path.insert(0, str(APP))


@pytest.fixture(autouse=True)
def no_supervisor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "ensure_supervisor", lambda: None)
    monkeypatch.setattr(jobs, "start_dry_run", lambda key: None)


@pytest.fixture(autouse=True)
def no_scorer(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the models that a page would have loaded ahead."""
    begun: list[str] = []
    monkeypatch.setattr(client, "start_process", lambda first="": begun.append(first))
    monkeypatch.setattr(client, "_begun", 0.0)
    return begun


@pytest.fixture(autouse=True)
def no_cookie(monkeypatch: pytest.MonkeyPatch) -> None:
    """AppTest has no browser; what stands there instead of its cookies is not one."""
    import who

    monkeypatch.setattr(who, "cookie", lambda: "")


@pytest.fixture
def store(ser_home: Path) -> Store:
    return Store.open()


@pytest.fixture
def open_page(store: Store) -> Callable[[str], AppTest]:
    """A page as a browser would open it; an exception on it fails the test."""

    def opened(view: str) -> AppTest:
        page = AppTest.from_file(str(APP / "frame.py"), default_timeout=30)
        page = page.switch_page(f"views/{view}.py").run()
        assert not page.exception
        return page

    return opened


@pytest.fixture
def sets(store: Store, tmp_path: Path) -> dict[Role, Dataset]:
    """A seed of 30, a pool of N_POOL, a held-out set of 10."""
    sizes: dict[Role, int] = {"seed": 30, "pool": N_POOL, "heldout": 10}
    return {
        role: ingest.import_source(store, write_jsonl(tmp_path / f"{role}.jsonl", rows(n, role)), role).dataset
        for role, n in sizes.items()
    }


@pytest.fixture
def finished(store: Store, sets: dict[Role, Dataset]) -> Run:
    """A run that ended well after one self-labelling round."""
    return end(store, sets, Status.SUCCEEDED, [a_round(0), a_round(1)])


@pytest.fixture
def failed(store: Store, sets: dict[Role, Dataset]) -> Run:
    """A run that failed before its first round was finished."""
    return end(store, sets, Status.FAILED, [], "The machine ran out of memory. Close other programs.")
