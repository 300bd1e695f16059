"""The large data folder at a tiny size: what is in it, that its worker tells, and that every page gets ready in a browser."""

import json
import shutil
import time

import pytest

from benchmarks import dashboard, large_home
from benchmarks.large_home import Size
from ser_backend import review
from ser_backend.pairs import PairSet
from ser_backend.records import Status
from ser_backend.review import Desk
from ser_backend.store import Store

TINY = Size(pool=240, seed=60, heldout=60, large=1, rounds=1, small=1, events=90, answers=24, policy_steps=40)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory):
    return tmp_path_factory.mktemp("large")


@pytest.fixture
def made(kept, monkeypatch: pytest.MonkeyPatch) -> dict:
    """Made once; each test has the folder to itself, the next one finds it."""
    monkeypatch.setenv("SER_HOME", str(kept))
    monkeypatch.setattr(review.votes, "FASTEST_S", 0.0)
    return large_home.made(TINY)


def test_the_folder_holds_what_was_asked_for_and_is_made_once(made: dict) -> None:
    store = Store.open()
    assert large_home.made(TINY) == made
    runs = store.runs()
    assert sorted(run.status for run in runs) == [Status.RUNNING, Status.SUCCEEDED, Status.SUCCEEDED]
    told = {run.status: len(store.events(run.id)) for run in runs}
    assert 2 * told[Status.SUCCEEDED] + told[Status.RUNNING] >= TINY.events  # the worker may have told of more since
    assert sum(len(store.reviews(run.id)) for run in runs) == TINY.answers
    large = store.run(made["large"][0])
    pool = PairSet.open(large.pool)
    assert (pool.n_pairs, pool.n_responses) == (TINY.pool, TINY.pool * large_home.A_PROMPT // 6)
    assert Desk(store, large.id).n_kept > 0
    assert made["import"]["pool"]["peak_mb"] >= made["import"]["pool"]["before_mb"] > 0


def test_the_worker_tells_of_progress_and_beats_until_it_is_stopped(made: dict) -> None:
    store, live = Store.open(), made["live"]
    before = store.events(live, last=1)[0].seq
    with large_home.at_work(live):
        deadline = time.monotonic() + 30
        while store.events(live, last=1)[0].seq < before + 3 and time.monotonic() < deadline:
            time.sleep(0.1)
    told = store.events(live, after=before)
    assert len(told) >= 3
    assert {event.kind for event in told} == {"training_progressed"}
    assert time.time() - (store.jobs(run=live)[-1].heartbeat or 0) < 30
    time.sleep(1.0)
    assert store.events(live, last=1)[0].seq == told[-1].seq


@pytest.mark.e2e
def test_a_page_gets_ready_in_a_real_browser(made: dict, tmp_path) -> None:
    pytest.importorskip("playwright")
    if not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))):
        pytest.skip("Chromium is not installed here")
    views = ("home", "review")  # all take minutes
    found = dashboard.measured(made, times=1, poll_s=2.0, log=tmp_path / "server.log", views=views)
    for name in ("open_s", "tab_s"):
        assert set(found[name]) == set(views)
        assert all(0 < one["median"] <= one["worst"] for one in found[name].values())
    assert all(0 < one["readable"] <= one["median"] for one in found["open_s"].values())
    assert 0 < found["watching"]["core"] < 1.5
    assert found["memory_mb"]["most"] >= found["memory_mb"]["resident"] > 0
    told = dashboard.table(made, json.loads(json.dumps(found)))
    assert all(f"| {view} |" in told for view in views)
