import json
import sqlite3
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from ser_backend.errors import NotFound, SerError, StaleVote
from ser_backend.records import Dataset, Interval, Round, Status
from ser_backend.store import Store, in_force


def dataset(name: str, role: str = "seed") -> Dataset:
    return Dataset(f"id-{name}", name, role, 10, 20, 5, 1, 0, f"2026-01-0{len(name) % 9 + 1}", {"file": "x"})  # type: ignore[arg-type]


ROUND = Round(
    index=1,
    n_train=10,
    n_human=4,
    n_pool=100,
    n_kept=6,
    n_kept_status_1=4,
    n_kept_status_2=2,
    heldout=Interval(0.7, 0.6, 0.8, 50),
    control=None,
    difference=(0.1, -0.1, 0.3),
    crossfit=None,
    promoted="new",
    why="kept",
    seconds=1.5,
    details={"l2": 3.0},
)


@pytest.fixture
def run(store: Store) -> str:
    store.add_dataset(dataset("s"))
    store.add_dataset(dataset("p", "pool"))
    store.add_run("r1", "one", {"rounds": 3}, "id-s", "id-p", None, 3)
    return "r1"


def vote(
    store: Store,
    run: str,
    pair: str,
    token: str,
    verdict: str = "left",
    supersedes: int | None = None,
    who: str = "anna",
):
    return store.add_review(
        run=run, pair=pair, annotator=who, queue="learn", verdict=verdict, left_is="b", round=0, margin=0.5,
        self_label=None, reason="", shown_at=1.0, answered_at=2.0, token=token, supersedes=supersedes,
    )  # fmt: skip


def test_facts_come_back_as_they_went_in(store: Store, run: str) -> None:
    assert store.dataset("s") == dataset("s")
    assert store.dataset("id-p").role == "pool"
    store.put_round(run, ROUND)
    store.put_round(run, replace(ROUND, n_kept=7))
    assert store.rounds(run) == [replace(ROUND, n_kept=7)]
    store.note_outcome(run, "done", 1)
    assert (store.run("one").stopped_because, store.run("r").best_round) == ("done", 1)
    with pytest.raises(NotFound, match="no run 'x'"):
        store.run("x")
    with pytest.raises(SerError, match="named 's' already"):
        store.add_dataset(replace(dataset("s"), id="other"))


def test_a_run_is_named_by_id_then_name_then_beginning_and_never_by_guess(store: Store, run: str) -> None:
    for run_id, name in (("5bcdef", "x"), ("5bffff", "x"), ("aa", "5")):
        store.add_run(run_id, name, {}, "id-s", "id-p", None, 3)
    assert store.run("5").id == "aa"
    assert store.run("5bc").id == "5bcdef"
    for ambiguous in ("x", "5b"):
        with pytest.raises(NotFound, match="may be one of 2 runs: 5b"):
            store.run(ambiguous)


def test_odd_folder_names_are_only_folder_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a?b=1", "a%41", "a b#c"):
        monkeypatch.setenv("SER_HOME", str(tmp_path / name))
        Store.open()
        assert (tmp_path / name / "ser.db").exists()


def test_a_data_set_in_use_is_kept(store: Store, run: str) -> None:
    with pytest.raises(SerError, match="used by the run 'one'"):
        store.remove_dataset("id-s")
    assert len(store.datasets()) == 2


def test_a_job_is_claimed_once_however_many_ask(store: Store, run: str) -> None:
    for number in range(2, 22):
        store.add_run(f"r{number}", f"run {number}", {}, "id-s", "id-p", None, 3)
    claimed: list[int] = []

    def ask(slot: str) -> None:
        own = Store.open()
        for _ in range(30):
            if job := own.claim_job(slot):
                claimed.append(job.id)
                own.finish_job(job.id, Status.SUCCEEDED)

    threads = [threading.Thread(target=ask, args=(f"gpu:{n}",)) for n in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert sorted(claimed) == list(range(1, 22))


def test_a_taken_slot_gives_no_job(store: Store, run: str) -> None:
    store.add_run("r2", "two", {}, "id-s", "id-p", None, 3)
    assert store.claim_job("cpu").run == "r1"
    assert store.claim_job("cpu") is None
    assert store.claim_job("gpu:0").run == "r2"


def test_events_are_numbered_without_gaps_by_many_writers(store: Store, run: str) -> None:
    def write() -> None:
        own = Store.open()
        for _ in range(50):
            own.append_event(run, "encoding_progressed", None, {"done": 1})

    threads = [threading.Thread(target=write) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert [event.seq for event in store.events(run)] == list(range(1, 201))
    assert [event.seq for event in store.events(run, after=190)] == list(range(191, 201))
    assert [event.seq for event in store.events(run, last=3)] == [198, 199, 200]


def test_one_pair_takes_one_answer_until_it_is_undone(store: Store, run: str) -> None:
    first = vote(store, run, "p1", "t1")
    with pytest.raises(StaleVote, match="answered already"):
        vote(store, run, "p2", "t1")
    with pytest.raises(StaleVote, match="anna answered this pair in the meantime"):
        vote(store, run, "p1", "t2", who="ben")
    vote(store, run, "p1", "undo-1", "undo", first.id)
    with pytest.raises(StaleVote, match="undone already"):
        vote(store, run, "p1", "undo-2", "undo", first.id)
    again = vote(store, run, "p1", "t3", "right", who="ben")
    assert in_force(store.reviews(run)) == [again]
    assert again.preferred == "a"  # right, and left was b
    assert len(store.reviews(run)) == 3


def test_racing_votes_on_one_pair_leave_one(store: Store, run: str) -> None:
    outcomes: list[str] = []

    def race(number: int) -> None:
        try:
            vote(Store.open(), run, "p", f"t{number}", who=f"w{number}")
            outcomes.append("counted")
        except StaleVote:
            outcomes.append("refused")

    threads = [threading.Thread(target=race, args=(n,)) for n in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert sorted(outcomes) == ["counted"] + ["refused"] * 7
    assert len(in_force(store.reviews(run))) == 1


def test_an_old_database_is_migrated_and_a_newer_one_refused(ser_home: Path, store: Store, run: str) -> None:
    file = ser_home / "ser.db"
    with sqlite3.connect(file) as db:
        assert db.execute("select version_num from alembic_version").fetchone() == ("0001",)
        db.execute("update alembic_version set version_num = '9999'")
    with pytest.raises(SerError, match=r"newer SER Studio \(schema 9999\)"):
        Store.open()
    with sqlite3.connect(file) as db:
        db.execute("update alembic_version set version_num = '0001'")
    assert Store.open().run("r1").name == "one"


def test_the_migrations_make_the_tables_the_code_uses(store: Store) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    from ser_backend.store import metadata

    with store.engine.connect() as db:
        assert compare_metadata(MigrationContext.configure(db), metadata) == []


def test_a_file_that_is_no_database_is_refused_in_words(ser_home: Path) -> None:
    ser_home.mkdir()
    (ser_home / "ser.db").write_text(json.dumps({"not": "a database"}) * 100)
    with pytest.raises(SerError, match="could not be opened"):
        Store.open()
