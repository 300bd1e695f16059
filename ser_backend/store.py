"""Every SQL statement of the product. Small facts that change live here; big columns live in files.

SQLite in WAL mode by default ($SER_HOME/ser.db), any SQLAlchemy URL otherwise. One transaction per fact.
Old databases are migrated on opening (ser_backend/migrations).
"""

import fcntl
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, OperationalError

from ser_backend import home
from ser_backend.errors import NotFound, SerError, StaleVote
from ser_backend.records import ACTIVE, Dataset, Event, Job, Review, Round, Run, Status, round_from

BUSY_TIMEOUT_S = 30
DatabaseTrouble = sa.exc.SQLAlchemyError  # what may come out of any call here: a locked, full or vanished database
MIGRATIONS = Path(__file__).parent / "migrations"

metadata = sa.MetaData()
datasets = sa.Table(
    "datasets",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("name", sa.String, nullable=False, unique=True),
    sa.Column("role", sa.String, nullable=False),
    sa.Column("n_pairs", sa.Integer, nullable=False),
    sa.Column("n_responses", sa.Integer, nullable=False),
    sa.Column("n_groups", sa.Integer, nullable=False),
    sa.Column("n_ties", sa.Integer, nullable=False),
    sa.Column("n_problems", sa.Integer, nullable=False),
    sa.Column("created_at", sa.String, nullable=False),
    sa.Column("lineage", sa.JSON, nullable=False),
)
runs = sa.Table(
    "runs",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("name", sa.String, nullable=False),
    sa.Column("config", sa.JSON, nullable=False),
    sa.Column("seed", sa.ForeignKey("datasets.id"), nullable=False),
    sa.Column("pool", sa.ForeignKey("datasets.id"), nullable=False),
    sa.Column("heldout", sa.ForeignKey("datasets.id")),
    sa.Column("created_at", sa.String, nullable=False),
    sa.Column("stopped_because", sa.String),
    sa.Column("best_round", sa.Integer),
)
rounds = sa.Table(
    "rounds",
    metadata,
    sa.Column("run", sa.ForeignKey("runs.id"), primary_key=True),
    sa.Column("index", sa.Integer, primary_key=True),
    sa.Column("facts", sa.JSON, nullable=False),
)
jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("run", sa.ForeignKey("runs.id"), nullable=False, index=True),
    sa.Column("rounds", sa.Integer, nullable=False),
    sa.Column("status", sa.String, nullable=False, index=True),
    sa.Column("slot", sa.String),
    sa.Column("pid", sa.Integer),
    sa.Column("pid_started", sa.Float),
    sa.Column("heartbeat", sa.Float),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("error", sa.String),
    sa.Column("created_at", sa.String, nullable=False),
    sa.Column("started_at", sa.String),
    sa.Column("finished_at", sa.String),
)
events = sa.Table(
    "events",
    metadata,
    sa.Column("run", sa.ForeignKey("runs.id"), primary_key=True),
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("kind", sa.String, nullable=False),
    sa.Column("round", sa.Integer),
    sa.Column("at", sa.String, nullable=False),
    sa.Column("payload", sa.JSON, nullable=False),
)
reviews = sa.Table(
    "reviews",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("run", sa.ForeignKey("runs.id"), nullable=False, index=True),
    sa.Column("pair", sa.String, nullable=False),
    sa.Column("annotator", sa.String, nullable=False),
    sa.Column("queue", sa.String, nullable=False),
    sa.Column("verdict", sa.String, nullable=False),
    sa.Column("left_is", sa.String, nullable=False),
    sa.Column("round", sa.Integer, nullable=False),
    sa.Column("margin", sa.Float, nullable=False),
    sa.Column("self_label", sa.String),
    sa.Column("reason", sa.String, nullable=False),
    sa.Column("shown_at", sa.Float, nullable=False),
    sa.Column("answered_at", sa.Float, nullable=False),
    sa.Column("token", sa.String, nullable=False, unique=True),
    sa.Column("supersedes", sa.ForeignKey("reviews.id"), unique=True),
)


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class Store:
    """Handle on the database; safe to share between threads."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        self.reader = engine.execution_options(isolation_level="AUTOCOMMIT")

    @classmethod
    def open(cls, url: str | None = None) -> "Store":
        """Open and migrate. url: SQLAlchemy URL; default $SER_DATABASE, else the SQLite file in the data folder.

        Raises SerError when the database cannot be opened or is newer than this program.
        """
        given = url or os.environ.get("SER_DATABASE")
        try:
            address = sa.make_url(given) if given else sa.URL.create("sqlite", database=str(home.home() / "ser.db"))
            is_file = address.get_backend_name() == "sqlite"
            engine = sa.create_engine(address, connect_args={"timeout": BUSY_TIMEOUT_S} if is_file else {})
        except (sa.exc.ArgumentError, ImportError) as error:
            raise SerError(
                f"The database address {given!r} cannot be used ({error}). Give one like sqlite:////folder/ser.db."
            ) from None
        if engine.dialect.name == "sqlite":
            sa.event.listen(engine, "connect", _sqlite_settings)
            sa.event.listen(engine, "begin", _sqlite_begin)
        try:
            with (home.home() / "migrate.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                _migrate(engine)
        except (OperationalError, sa.exc.DatabaseError) as error:
            raise SerError(
                f"The database {engine.url.render_as_string()} could not be opened: {error.orig}. "
                "Check that the folder is writable, the disk is not full and the file is SER Studio's own."
            ) from None
        return cls(engine)

    # ---- data sets

    def add_dataset(self, dataset: Dataset) -> None:
        """Raises SerError when the name is taken."""
        try:
            with self.engine.begin() as tx:
                tx.execute(datasets.insert().values(**asdict(dataset)))
        except IntegrityError:
            raise SerError(f"There is a data set named {dataset.name!r} already. Give this one another name.") from None

    def datasets(self, role: str | None = None) -> list[Dataset]:
        """Newest first."""
        query = sa.select(datasets).order_by(datasets.c.created_at.desc(), datasets.c.name)
        if role:
            query = query.where(datasets.c.role == role)
        with self.reader.connect() as db:
            return [Dataset(**row._mapping) for row in db.execute(query)]

    def dataset(self, id_or_name: str) -> Dataset:
        query = sa.select(datasets).where((datasets.c.id == id_or_name) | (datasets.c.name == id_or_name))
        with self.reader.connect() as db:
            row = db.execute(query).first()
        if row is None:
            known = ", ".join(d.name for d in self.datasets()) or "none yet"
            raise NotFound(f"There is no data set {id_or_name!r}. Imported so far: {known}.")
        return Dataset(**row._mapping)

    def remove_dataset(self, dataset_id: str) -> None:
        """Raises SerError when a run uses it."""
        used = sa.select(runs.c.name).where(
            sa.or_(*(c == dataset_id for c in (runs.c.seed, runs.c.pool, runs.c.heldout)))
        )
        with self.engine.begin() as tx:
            if row := tx.execute(used).first():
                raise SerError(f"This data set is used by the run {row.name!r}, so it is kept.")
            tx.execute(datasets.delete().where(datasets.c.id == dataset_id))

    # ---- runs

    def add_run(
        self, run_id: str, name: str, config: dict[str, Any], seed: str, pool: str, heldout: str | None, n_rounds: int
    ) -> Job:
        """A run and its first job, in one transaction."""
        with self.engine.begin() as tx:
            tx.execute(
                runs.insert().values(
                    id=run_id, name=name, config=config, seed=seed, pool=pool, heldout=heldout, created_at=now()
                )
            )
            return _enqueue(tx, run_id, n_rounds)

    def runs(self) -> list[Run]:
        """Newest first."""
        with self.reader.connect() as db:
            return [_run(row) for row in db.execute(_RUNS.order_by(runs.c.created_at.desc(), runs.c.id))]

    def run(self, id_or_name: str) -> Run:
        """By id, else by name, else by the beginning of an id. Raises NotFound, also when several runs are meant."""
        ways = (
            runs.c.id == id_or_name,
            runs.c.name == id_or_name,
            runs.c.id.startswith(id_or_name, autoescape=True) if id_or_name else sa.false(),
        )
        with self.reader.connect() as db:
            found = (db.execute(_RUNS.where(way).order_by(runs.c.created_at.desc())).all() for way in ways)
            rows = next((rows for rows in found if rows), [])
        if len(rows) > 1:
            ids = ", ".join(f"{row.id} ({row.created_at[:16]})" for row in rows)
            raise NotFound(f"{id_or_name!r} may be one of {len(rows)} runs: {ids}. Give the id.")
        row = rows[0] if rows else None
        if row is None:
            raise NotFound(f"There is no run {id_or_name!r}. `python -m ser_backend runs` lists the runs.")
        return _run(row)

    def note_outcome(self, run_id: str, stopped_because: str | None, best_round: int | None) -> None:
        with self.engine.begin() as tx:
            tx.execute(
                runs.update().where(runs.c.id == run_id).values(stopped_because=stopped_because, best_round=best_round)
            )

    # ---- rounds

    def put_round(self, run_id: str, round_: Round) -> None:
        """Add or replace; finishing the same round twice (after a kill) leaves one row."""
        facts = asdict(round_)
        with self.engine.begin() as tx:
            tx.execute(rounds.delete().where(rounds.c.run == run_id, rounds.c.index == round_.index))
            tx.execute(rounds.insert().values(run=run_id, index=round_.index, facts=facts))

    def rounds(self, run_id: str) -> list[Round]:
        query = sa.select(rounds.c.facts).where(rounds.c.run == run_id).order_by(rounds.c.index)
        with self.reader.connect() as db:
            return [round_from(row.facts) for row in db.execute(query)]

    # ---- jobs

    def add_job(self, run_id: str, n_rounds: int) -> Job:
        """Queue a run up to `n_rounds` rounds in all. Raises SerError when it has a job that is not finished."""
        with self.engine.begin() as tx:
            active = sa.select(jobs.c.id).where(jobs.c.run == run_id, jobs.c.status.in_(ACTIVE))
            if tx.execute(active).first():
                raise SerError("This run is queued or running already. Wait until it has finished, or stop it first.")
            return _enqueue(tx, run_id, n_rounds)

    def job(self, job_id: int) -> Job:
        with self.reader.connect() as db:
            row = db.execute(sa.select(jobs).where(jobs.c.id == job_id)).first()
        if row is None:
            raise NotFound(f"There is no job {job_id}.")
        return _job(row)

    def jobs(self, *statuses: Status, run: str | None = None) -> list[Job]:
        """Oldest first."""
        query = sa.select(jobs).order_by(jobs.c.id)
        if statuses:
            query = query.where(jobs.c.status.in_(statuses))
        if run:
            query = query.where(jobs.c.run == run)
        with self.reader.connect() as db:
            return [_job(row) for row in db.execute(query)]

    def claim_job(self, slot: str) -> Job | None:
        """The oldest queued job, now running in `slot`; None when none waits or the slot is taken."""
        taken = sa.select(jobs.c.id).where(jobs.c.slot == slot, jobs.c.status.in_((Status.RUNNING, Status.STOPPING)))
        oldest = (
            sa.select(jobs.c.id).where(jobs.c.status == Status.QUEUED).order_by(jobs.c.id).limit(1).scalar_subquery()
        )
        claim = (
            jobs.update()
            .where(jobs.c.id == oldest, jobs.c.status == Status.QUEUED, ~taken.exists())
            .values(
                status=Status.RUNNING, slot=slot, started_at=now(), heartbeat=time.time(), attempts=jobs.c.attempts + 1
            )
            .returning(jobs)
        )
        with self.engine.begin() as tx:
            row = tx.execute(claim).first()
        return _job(row) if row else None

    def set_process(self, job_id: int, pid: int, started: float) -> None:
        with self.engine.begin() as tx:
            tx.execute(jobs.update().where(jobs.c.id == job_id).values(pid=pid, pid_started=started))

    def count_attempts_anew(self, job_id: int) -> None:
        """A round was finished: what interrupts the job from here on is a first interruption again."""
        with self.engine.begin() as tx:
            tx.execute(jobs.update().where(jobs.c.id == job_id).values(attempts=1))

    def beat(self, job_id: int) -> None:
        with self.engine.begin() as tx:
            tx.execute(jobs.update().where(jobs.c.id == job_id).values(heartbeat=time.time()))

    def request_stop(self, run_id: str) -> Status | None:
        """Ask the run's job to stop; a queued one stops at once. Returns its new status, None if none was active."""
        with self.engine.begin() as tx:
            for before, after in ((Status.QUEUED, Status.STOPPED), (Status.RUNNING, Status.STOPPING)):
                values = {"status": after} | ({"finished_at": now()} if after == Status.STOPPED else {})
                done = tx.execute(jobs.update().where(jobs.c.run == run_id, jobs.c.status == before).values(**values))
                if done.rowcount:
                    return after
        return None

    def finish_job(self, job_id: int, status: Status, error: str | None = None) -> None:
        """End a job; one that has ended already is left as it is."""
        with self.engine.begin() as tx:
            tx.execute(
                jobs.update()
                .where(jobs.c.id == job_id, jobs.c.status.in_((Status.RUNNING, Status.STOPPING)))
                .values(status=status, error=error, finished_at=now(), slot=None)
            )

    def requeue_job(self, job_id: int) -> None:
        """An interrupted job waits for its turn again; the next start resumes from the last finished round."""
        with self.engine.begin() as tx:
            tx.execute(
                jobs.update()
                .where(jobs.c.id == job_id, jobs.c.status == Status.RUNNING)
                .values(status=Status.QUEUED, slot=None, pid=None, pid_started=None)
            )

    def queue_position(self, run_id: str) -> int | None:
        """1 = next to start; None when the run does not wait."""
        waiting = [job.run for job in self.jobs(Status.QUEUED)]
        return waiting.index(run_id) + 1 if run_id in waiting else None

    # ---- events

    def append_event(
        self, run_id: str, kind: str, round_: int | None = None, payload: dict[str, Any] | None = None
    ) -> int:
        """Returns the event's seq, which counts from 1 within a run."""
        for attempt in range(5):
            try:
                with self.engine.begin() as tx:
                    seq = 1 + (
                        tx.execute(sa.select(sa.func.max(events.c.seq)).where(events.c.run == run_id)).scalar() or 0
                    )
                    tx.execute(
                        events.insert().values(
                            run=run_id, seq=seq, kind=kind, round=round_, at=now(), payload=payload or {}
                        )
                    )
                    return int(seq)
            except IntegrityError:  # the supervisor and the worker wrote at the same moment
                time.sleep(0.01 * (attempt + 1))
        raise SerError(f"An event of run {run_id} could not be written: too many writers. Start the run again.")

    def events(self, run_id: str, after: int = 0, kinds: Iterable[str] = (), last: int | None = None) -> list[Event]:
        """Events with seq > after, oldest first; `last` keeps the newest so many."""
        query = sa.select(events).where(events.c.run == run_id, events.c.seq > after)
        if kinds := tuple(kinds):
            query = query.where(events.c.kind.in_(kinds))
        query = query.order_by(events.c.seq.desc() if last else events.c.seq)
        if last:
            query = query.limit(last)
        with self.reader.connect() as db:
            found = [Event(**row._mapping) for row in db.execute(query)]
        return found[::-1] if last else found

    # ---- reviews

    def add_review(self, **facts: Any) -> Review:
        """Append one answer. Raises StaleVote when its pair or its presentation has been answered, or undone, already."""
        run, pair = facts["run"], facts["pair"]
        with self.engine.begin() as tx:
            if tx.execute(sa.select(reviews.c.id).where(reviews.c.token == facts["token"])).first():
                raise StaleVote("This showing of the pair was answered already, so nothing was changed.")
            gone = sa.select(reviews.c.supersedes).where(reviews.c.run == run, reviews.c.supersedes.is_not(None))
            query = sa.select(reviews).where(reviews.c.run == run, reviews.c.pair == pair, reviews.c.id.not_in(gone))
            standing = [row for row in tx.execute(query) if row.verdict not in ("undo", "skip")]
            if facts["verdict"] == "undo":
                if not any(row.id == facts["supersedes"] for row in tx.execute(query)):
                    raise StaleVote("That answer was undone already, so nothing was changed.")
            elif standing:
                raise StaleVote(
                    f"{standing[0].annotator} answered this pair in the meantime, so this vote was not counted. "
                    "The next pair is shown."
                )
            row = tx.execute(reviews.insert().values(**facts).returning(reviews)).one()
        return Review(**row._mapping)

    def reviews(self, run_id: str, annotator: str | None = None) -> list[Review]:
        """Every row as written, oldest first."""
        query = sa.select(reviews).where(reviews.c.run == run_id).order_by(reviews.c.id)
        if annotator is not None:
            query = query.where(reviews.c.annotator == annotator)
        with self.reader.connect() as db:
            return [Review(**row._mapping) for row in db.execute(query)]


def in_force(rows: Sequence[Review]) -> list[Review]:
    """The answers that count: neither undone nor undos."""
    gone = {row.supersedes for row in rows if row.supersedes is not None}
    return [row for row in rows if row.id not in gone and row.verdict != "undo"]


_newest = sa.select(sa.func.max(jobs.c.id)).where(jobs.c.run == runs.c.id).correlate(runs).scalar_subquery()
_RUNS = sa.select(runs, jobs.c.status, jobs.c.error).join(jobs, jobs.c.id == _newest)


def _run(row: Any) -> Run:
    return Run(**{**row._mapping, "status": Status(row.status)})


def _job(row: Any) -> Job:
    return Job(**{**row._mapping, "status": Status(row.status)})


def _enqueue(tx: sa.Connection, run_id: str, n_rounds: int) -> Job:
    values = {"run": run_id, "rounds": n_rounds, "status": Status.QUEUED, "attempts": 0, "created_at": now()}
    return _job(tx.execute(jobs.insert().values(**values).returning(jobs)).one())


def _sqlite_settings(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # sqlite3 must not begin transactions of its own; _sqlite_begin does
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _sqlite_begin(connection: sa.Connection) -> None:
    # A transaction that reads and then writes must hold the write lock from its start: upgrading a read lock fails at
    # once with "database is locked" instead of waiting for the busy timeout.
    if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _migrate(engine: sa.Engine) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    script = ScriptDirectory.from_config(config)
    with engine.connect() as db:
        current = MigrationContext.configure(db).get_current_revision()
    if current == script.get_current_head():
        return
    if current is not None and current not in {revision.revision for revision in script.walk_revisions()}:
        raise SerError(
            f"The database was written by a newer SER Studio (schema {current}). "
            "Install that version again, or point SER_HOME at another folder."
        )
    with engine.begin() as db:
        config.attributes["connection"] = db
        command.upgrade(config, "head")
