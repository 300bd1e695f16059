import json
import math
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from ser_backend.errors import NotFound, SerError, StaleVote
from ser_backend.records import Dataset, Interval, Lease, Queue, Review, Round, Status
from ser_backend.store import Store, in_force
from ser_backend.store.reviews import LOOKED_AT


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> str:
    return request.param


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
    queue: str = "learn",
    **more: object,
) -> Review:
    return store.add_review(
        run=run, pair=pair, annotator=who, queue=queue, verdict=verdict, left_is="b", round=0, margin=0.5,
        self_label=None, reason="", shown_at=1.0, answered_at=2.0, token=token, supersedes=supersedes, **more,
    )  # fmt: skip


def a_lease(pair: str, token: str = "", queue: Queue = "learn", lasts: float = 60.0) -> Lease:
    now = time.time()
    return Lease(
        token or f"t-{pair}", "r1", pair, "anna", queue, "mixed", "why", "a", 1, 0.5, None, "m1", now, now + lasts
    )


def pairs_of(leases: list[Lease]) -> list[str]:
    return [lease.pair for lease in leases]


def together(n: int, act: Callable[[int], None]) -> None:
    """n threads at once; what goes wrong in one goes wrong here."""
    wrong: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            act(number)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(n)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    if wrong:
        raise wrong[0]


def test_facts_come_back_as_they_went_in(store: Store, run: str) -> None:
    assert store.dataset("s") == dataset("s")
    assert store.dataset("id-p").role == "pool"
    store.put_round(run, ROUND)
    store.put_round(run, replace(ROUND, n_kept=7))
    assert store.rounds(run) == [replace(ROUND, n_kept=7)]
    store.put_round(
        run, replace(ROUND, index=2, heldout=Interval(math.nan, 0.0, 1.0, 0), details={"said": "\ud800 \0"})
    )
    unknown = store.rounds(run)[1]
    assert math.isnan(unknown.heldout.value)
    assert unknown.details == {"said": "\ud800 \0"}
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

    together(4, lambda number: ask(f"gpu:{number}"))
    assert sorted(claimed) == list(range(1, 22))


def test_a_taken_slot_gives_no_job(store: Store, run: str) -> None:
    store.add_run("r2", "two", {}, "id-s", "id-p", None, 3)
    assert store.claim_job("cpu").run == "r1"
    assert store.claim_job("cpu") is None
    assert store.claim_job("gpu:0").run == "r2"


def test_events_are_numbered_without_gaps_by_many_writers(store: Store, run: str) -> None:
    def write(_: int) -> None:
        own = Store.open()
        for _ in range(50):
            own.append_event(run, "encoding_progressed", None, {"done": 1})

    together(4, write)
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

    together(8, race)
    assert sorted(outcomes) == ["counted"] + ["refused"] * 7
    assert len(in_force(store.reviews(run))) == 1


def test_a_newer_database_is_refused(store: Store, run: str) -> None:
    version = sa.text("update alembic_version set version_num = '9999'")
    with store.engine.begin() as tx:
        tx.execute(version)
    with pytest.raises(SerError, match=r"newer SER Studio \(schema 9999\)"):
        Store.open()


FIRST_ROWS = (
    "insert into datasets values ('id-s', 's', 'seed', 10, 20, 5, 1, 0, '2026-01-01', '{\"file\": \"x\"}')",
    "insert into datasets values ('id-p', 'p', 'pool', 10, 20, 5, 1, 0, '2026-01-01', '{}')",
    "insert into runs values ('r1', 'one', '{\"rounds\": 3}', 'id-s', 'id-p', null, '2026-01-01', 'done', 1)",
    """insert into jobs (run, rounds, status, attempts, created_at) values ('r1', 3, 'succeeded', 1, '2026-01-01')""",
    "insert into events values ('r1', 1, 'job_started', null, '2026-01-01', '{\"job\": 1}')",
    """insert into reviews (run, pair, annotator, queue, verdict, left_is, round, margin, reason, shown_at, answered_at,
       token, supersedes) values ('r1', 'p1', 'anna', 'learn', 'left', 'a', 1, 0.5, 'r', 1.0, 2.0, 't1', null),
       ('r1', 'p1', 'anna', 'learn', 'undo', 'a', 1, 0.5, 'r', 1.0, 3.0, 'undo-1', 1),
       ('r1', 'p1', 'ben', 'learn', 'right', 'a', 1, 0.5, '', 1.0, 4.0, 't2', null)""",
)


def test_a_database_of_the_first_schema_keeps_its_rows(
    ser_home: Path, database: str, request: pytest.FixtureRequest
) -> None:
    from alembic import command
    from alembic.config import Config

    from ser_backend.store.handle import MIGRATIONS

    ser_home.mkdir()
    address = f"sqlite:///{ser_home / 'ser.db'}"
    if database == "postgresql":
        address = request.getfixturevalue("postgresql").replace("postgresql:", "postgresql+psycopg:")
    engine = sa.create_engine(address)
    with engine.begin() as db:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = db
        command.upgrade(config, "0001")
        for statement in FIRST_ROWS:
            db.execute(sa.text(statement.replace(": ", "\\: ")))
    engine.dispose()

    store = Store.open()
    assert (store.run("r1").name, store.run("r1").config, store.run("r1").status) == ("one", {"rounds": 3}, "succeeded")
    assert store.dataset("s").lineage == {"file": "x"}
    assert store.events("r1")[0].payload == {"job": 1}
    assert [(r.id, r.annotator, r.verdict, r.supersedes) for r in store.reviews("r1")] == [
        (1, "anna", "left", None),
        (2, "anna", "undo", 1),
        (3, "ben", "right", None),
    ]
    old = store.reviews("r1")[2]
    assert (old.strength, old.flagged, old.note, old.blind, old.active_ms) == (None, False, "", True, None)
    assert (old.guidelines, old.model, store.overlap("r1")) == (0, "", 1)
    assert vote(store, "r1", "p2", "t3").id == 4
    store.engine.dispose()


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


def test_an_address_that_cannot_be_used_is_refused_in_words() -> None:
    with pytest.raises(SerError, match="cannot be used"):
        Store.open("nonsense")
    pytest.importorskip("psycopg")
    with pytest.raises(SerError, match="Check that the server runs") as refused:
        Store.open("postgresql://me:secret@/x?host=/nowhere")
    assert "secret" not in str(refused.value)


def test_a_run_is_filed_under_a_project(store: Store, run: str) -> None:
    assert store.run(run).project == ""
    store.move_run(run, "helpfulness")
    store.add_run("r2", "two", {}, "id-s", "id-p", None, 1, "safety")
    assert {found.id: found.project for found in store.runs()} == {"r1": "helpfulness", "r2": "safety"}


def test_a_setting_is_kept_until_it_is_emptied(store: Store) -> None:
    assert store.setting("webhook") == ""
    store.change_setting("webhook", "https://one.example/x")
    store.change_setting("webhook", "https://two.example/y")
    assert store.setting("webhook") == "https://two.example/y"
    store.change_setting("webhook", "")
    assert store.setting("webhook") == ""


# ---- answers and places of a team


def test_what_an_answer_says_comes_back(store: Store, run: str) -> None:
    more = {
        "strength": 2,
        "flagged": True,
        "note": "ñ",
        "blind": False,
        "active_ms": 900,
        "guidelines": 3,
        "model": "m1",
    }
    stored = vote(store, run, "p1", "t1", "both_good", **more)
    assert store.reviews(run) == [stored]
    assert {name: getattr(stored, name) for name in more} == more
    assert stored.preferred == "tie"


def test_a_pair_takes_as_many_people_as_it_has_places(store: Store, run: str) -> None:
    vote(store, run, "p", "t1", overlap=2)
    with pytest.raises(StaleVote, match="anna answered this pair in the meantime, so this vote was not counted"):
        vote(store, run, "p", "t2", overlap=2)
    vote(store, run, "p", "t3", who="ben", overlap=2)
    with pytest.raises(StaleVote, match="ben answered"):
        vote(store, run, "p", "t4", who="cleo", overlap=2)
    vote(store, run, "p", "t5", "skip", who="cleo", overlap=3)
    vote(store, run, "p", "t6", who="dan", overlap=3)


def test_a_person_may_change_their_mind_about_an_answer_that_stands(store: Store, run: str) -> None:
    first = vote(store, run, "p", "t1", "left")
    second = vote(store, run, "p", "t2", "right", first.id)
    assert in_force(store.reviews(run)) == [second]
    with pytest.raises(StaleVote, match="changed or undone already"):
        vote(store, run, "p", "t3", "tie", first.id)
    for verdict in ("tie", "undo"):
        with pytest.raises(StaleVote, match="changed or undone already"):
            vote(store, run, "p", f"t4-{verdict}", verdict, second.id, who="ben")
    with pytest.raises(StaleVote, match="changed or undone already"):
        vote(store, run, "another pair", "t5", "tie", second.id)
    vote(store, run, "p", "undo", "undo", second.id)
    assert in_force(store.reviews(run)) == []
    skipped = vote(store, run, "p", "t6", "skip")
    vote(store, run, "p", "t7", who="ben")
    with pytest.raises(StaleVote, match="ben answered"):  # a skip holds no place that its change could go on holding
        vote(store, run, "p", "t8", "left", skipped.id)


def test_gold_pairs_and_repeats_take_no_place_and_each_is_answered_once_a_person(store: Store, run: str) -> None:
    for number, who in enumerate(("anna", "ben", "cleo")):
        assert store.lease(run, who, [a_lease("p", f"g{number}", "gold")], 1, 1)
        vote(store, run, "p", f"g{number}", who=who, queue="gold")
        assert not store.lease(run, who, [a_lease("p", f"again{number}", "gold")], 1, 1)
        with pytest.raises(StaleVote, match=f"{who} answered"):
            vote(store, run, "p", f"g{number}-2", who=who, queue="gold")
    assert store.lease(run, "dan", [a_lease("p", "l")], 1, 1)
    vote(store, run, "p", "l", who="dan")
    assert store.lease(run, "dan", [a_lease("p", "again", "repeat")], 1, 1)
    vote(store, run, "p", "again", who="dan", queue="repeat")
    assert len(in_force(store.reviews(run))) == 5


def test_a_pair_is_adjudicated_once(store: Store, run: str) -> None:
    vote(store, run, "p", "t1")
    vote(store, run, "p", "t2", who="ben", overlap=2)
    assert store.lease(run, "anna", [a_lease("p", "a1", "adjudicate")], 1, 2)
    assert not store.lease(run, "cleo", [a_lease("p", "a2", "adjudicate")], 1, 2)
    with pytest.raises(StaleVote, match="anna was given this pair"):
        vote(store, run, "p", "a2", who="cleo", queue="adjudicate", overlap=2)
    vote(store, run, "p", "a1", queue="adjudicate", overlap=2)
    for who in ("anna", "cleo"):
        assert not store.lease(run, who, [a_lease("p", "a3", "adjudicate")], 1, 2)
        with pytest.raises(StaleVote, match="anna answered"):
            vote(store, run, "p", f"a3-{who}", who=who, queue="adjudicate", overlap=2)
    assert not store.leases(run)


def test_places_are_reserved_in_order_for_one_person_each(store: Store, run: str) -> None:
    wanted = [a_lease(f"p{number}") for number in range(300)]
    for number in (0, 1, 150):
        vote(store, run, f"p{number}", f"v{number}", "skip" if number == 1 else "left")
    mine = store.lease(run, "anna", wanted, 4, 1)
    assert pairs_of(mine) == ["p2", "p3", "p4", "p5"]
    assert store.leases(run) == store.leases(run, "anna") == mine
    assert store.leases(run, "ben") == []
    anew = [replace(lease, token=f"ben-{lease.token}") for lease in wanted]
    assert pairs_of(store.lease(run, "ben", anew, 3, 1)) == ["p1", "p6", "p7"]
    assert pairs_of(store.lease(run, "cleo", [replace(lease, token=f"c-{lease.token}") for lease in wanted], 3, 2)) == [
        *("p0", "p1", "p2"),
    ]
    assert store.lease(run, "anna", [replace(wanted[2], token="x")], 1, 5) == []
    store.release(run, "anna", [mine[0].token])
    assert pairs_of(store.leases(run, "anna")) == ["p3", "p4", "p5"]
    store.release(run, "anna")
    assert store.leases(run, "anna") == []
    assert len(store.leases(run)) == 6
    long = [replace(lease, token=f"d-{lease.token}") for lease in wanted]
    assert len(store.lease(run, "dan", long, 500, 1)) == 300 - len(
        {"p0", "p150"} | {"p1", "p6", "p7"} | {"p0", "p1", "p2"}
    )


def test_an_answer_gives_its_place_back_and_no_vote_takes_one_that_is_reserved(store: Store, run: str) -> None:
    (lease,) = store.lease(run, "anna", [a_lease("p", "t1")], 1, 1)
    with pytest.raises(StaleVote, match="anna was given this pair in the meantime"):
        vote(store, run, "p", "t2", who="ben")
    vote(store, run, "p", lease.token)
    assert store.leases(run) == []
    with pytest.raises(StaleVote, match="answered already"):
        vote(store, run, "p", lease.token)


def test_what_has_expired_is_handed_out_again(store: Store, run: str) -> None:
    assert store.lease(run, "anna", [a_lease("p", "t1", lasts=0.05)], 1, 1)
    assert store.lease(run, "anna", [a_lease("q", "t2", lasts=60)], 1, 1)
    store.renew(run, "anna", time.time() + 0.05)
    time.sleep(0.06)
    assert store.leases(run) == []
    store.renew(run, "anna", time.time() + 60)  # too late
    assert store.leases(run) == []
    assert store.lease(run, "ben", [a_lease("p", "t3")], 1, 1)
    store.renew(run, "ben", 4e9)
    assert [lease.expires_at for lease in store.leases(run)] == [4e9]
    with pytest.raises(StaleVote, match="ben was given this pair"):
        vote(store, run, "p", "t1")
    vote(store, run, "q", "t2")  # nobody else has its place
    vote(store, run, "p", "t3", who="ben")
    with pytest.raises(StaleVote, match="ben answered"):
        vote(store, run, "p", "t1")


def test_whoever_reads_the_new_answers_only_misses_none(store: Store, run: str) -> None:
    assert store.reviews_after(run, 0) == []
    for number in range(5):
        vote(store, run, f"p{number}", f"t{number}")
    rows = store.reviews(run)
    assert store.reviews_after(run, 0) == rows
    assert store.reviews_after(run, rows[2].id) == rows[3:]


def test_eight_people_at_once_lose_no_answer_and_double_none(store: Store, run: str) -> None:
    """Overlap 2: whatever they do, each pair ends with two standing answers of two people."""
    pairs = [f"p{number}" for number in range(30)]
    accepted: list[Review] = []

    def work(number: int) -> None:
        own, who, chance = Store.open(), f"w{number}", random.Random(number)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            order = chance.sample(pairs, len(pairs))
            lasts = chance.choice((60.0, 60.0, 0.0))  # some leave without a word
            wanted = [a_lease(pair, f"{who}-{chance.random()}", lasts=lasts) for pair in order]
            held = own.lease(run, who, wanted, chance.randint(1, 4), 2)
            for lease in held:
                if chance.random() < 0.2:
                    own.release(run, who, [lease.token])
                    continue
                try:
                    made = vote(own, run, lease.pair, lease.token, who=who, overlap=2)
                except StaleVote:
                    assert lasts == 0.0, "a place that was reserved was taken"
                    continue
                accepted.append(made)
                if chance.random() < 0.2:
                    accepted.append(vote(own, run, lease.pair, f"u{made.id}", "undo", made.id, who, overlap=2))
            if not held:
                standing = [r.pair for r in in_force(own.reviews(run))]
                if len(standing) >= 2 * len(pairs) and not own.leases(run):
                    break
        own.engine.dispose()

    together(8, work)
    people = defaultdict(set)
    standing = in_force(store.reviews(run))
    for review in standing:
        people[review.pair].add(review.annotator)
    assert Counter(review.pair for review in standing) == dict.fromkeys(pairs, 2)
    assert all(len(names) == 2 for names in people.values())
    assert sorted(r.id for r in accepted) == [r.id for r in store.reviews(run)]
    assert store.leases(run) == []


def test_overlap_and_guidelines_of_a_run(store: Store, run: str) -> None:
    assert store.overlap(run) == 1
    store.set_overlap(run, 3)
    assert store.overlap(run) == 3
    for wrong in (0, 11):
        with pytest.raises(SerError, match="from 1 to 10"):
            store.set_overlap(run, wrong)
    with pytest.raises(NotFound):
        store.overlap("x")
    assert store.guidelines(run) == []
    made = [store.add_guidelines(run, text, "anna") for text in ("Prefer the kind one.", "Prefer the true one.")]
    assert store.guidelines(run) == made
    assert [one.version for one in made] == [1, 2]


def test_an_event_of_no_run_is_refused(store: Store) -> None:
    with pytest.raises(NotFound, match="no run 'x'"):
        store.append_event("x", "job_started")


def test_a_pair_on_two_lists_is_handed_out_once(store: Store, run: str) -> None:
    between = [a_lease(f"p{i}") for i in range(LOOKED_AT)]
    wanted = [a_lease("p"), *between, a_lease("p", "again")]
    assert len(store.lease(run, "anna", wanted, len(wanted), 2)) == len(wanted) - 1
