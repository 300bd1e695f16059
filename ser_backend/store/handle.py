"""The way to the database: opening, migrating, and in whose name one writes."""

import fcntl
import os
from pathlib import Path
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from ser_backend import home, team
from ser_backend.errors import Forbidden, NotFound, SerError
from ser_backend.records import Act, User
from ser_backend.store.tables import now, refusals, runs, users

BUSY_TIMEOUT_S = 30
DatabaseTrouble = sa.exc.SQLAlchemyError  # what may come out of any call here: a locked, full or vanished database
MIGRATIONS = Path(__file__).parent.parent / "migrations"
MIGRATING = 0x5E2  # key of PostgreSQL's advisory lock


class Handle:
    """Handle on the database; safe to share between threads. As opened it acts for nobody in particular, who may do all."""

    def __init__(self, engine: sa.Engine, user: User | None = None) -> None:
        self.engine, self.user = engine, user
        self.reader = engine.execution_options(isolation_level="AUTOCOMMIT")

    @classmethod
    def open(cls, url: str | None = None) -> Self:
        """Open and migrate. url: SQLAlchemy URL; default $SER_DATABASE, else the SQLite file in the data folder.

        Raises SerError when the database cannot be opened or is newer than this program.
        """
        given = url or os.environ.get("SER_DATABASE")
        try:
            address = sa.make_url(given) if given else sa.URL.create("sqlite", database=str(home.home() / "ser.db"))
            if address.drivername in ("postgresql", "postgres"):
                address = address.set(drivername="postgresql+psycopg")
            is_file = address.get_backend_name() == "sqlite"
            engine = sa.create_engine(
                address,
                connect_args={"timeout": BUSY_TIMEOUT_S} if is_file else {},
                pool_pre_ping=not is_file,
                hide_parameters=True,  # an error's text may reach a page, and they hold what annotators may not see
            )
        except sa.exc.ArgumentError as error:
            raise SerError(
                f"The database address {given!r} cannot be used ({error}). Give one like sqlite:////folder/ser.db "
                "or postgresql://user@server/name."
            ) from None
        except ImportError as error:
            raise SerError(
                f"The database {address.render_as_string()} needs a package that is not installed ({error.name}). "
                'Install it: pip install "psycopg[binary]" for PostgreSQL.'
            ) from None
        if is_file:
            sa.event.listen(engine, "connect", _sqlite_settings)
            sa.event.listen(engine, "begin", _sqlite_begin)
        try:
            with (home.home() / "migrate.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                _migrate(engine)
        except (OperationalError, sa.exc.DatabaseError) as error:
            check = (
                "Check that the folder is writable, the disk is not full and the file is SER Studio's own."
                if is_file
                else "Check that the server runs, and that the address, the user and the password are right."
            )
            raise SerError(
                f"The database {engine.url.render_as_string()} could not be opened: {error.orig}. {check}"
            ) from None
        return cls(engine)

    def acting(self, user: User | None) -> Self:
        """A handle on the same database that may do what this user may; None: everything."""
        return type(self)(self.engine, user)

    def may(self, act: Act) -> bool:
        """Whether to offer it at all, by the user as at signing in; `require` asks anew."""
        return team.may(self.user, act)

    def require(self, act: Act, name: str | None = None) -> None:
        """Raises Forbidden, and writes it down, when the user acted for may not do that. name: in whose name it is done.

        The role that counts is the one the user has now, not the one of the moment of signing in.
        """
        if self.user is None:
            return
        with self.reader.connect() as db:
            row = db.execute(sa.select(users).where(users.c.key == key_of(self.user.name))).first()
        if row is None:
            sentence = f"There is no user {self.user.name!r} any more. Sign in again, or ask an owner for an account."
        elif not team.may(user := user_from(row), act):
            sentence = team.refusal(user, act)
        elif name is not None and name != user.name:
            sentence = team.not_yourself(user, name)
        else:
            return
        with self.engine.begin() as tx:
            tx.execute(refusals.insert().values(at=now(), user=self.user.name, act=act, sentence=sentence))
        raise Forbidden(sentence)


def key_of(name: str) -> str:
    """What tells users apart: Anna, anna and ANNA are one."""
    return " ".join(name.split()).casefold()[: 2 * team.LONGEST_NAME]


def user_from(row: Any) -> User:
    return User(row.name, row.role, row.email or "", row.active, row.created_at)


def lock_run(tx: sa.Connection, run_id: str) -> None:
    """Whoever else wants this of the same run waits until the transaction has ended. Raises NotFound.

    On SQLite a transaction has the whole database to itself (_sqlite_begin), and this only looks the run up.
    """
    # key_share: writers of rows that merely refer to the run need not wait
    if not tx.execute(sa.select(runs.c.id).where(runs.c.id == run_id).with_for_update(key_share=True)).first():
        raise NotFound(f"There is no run {run_id!r}. `python -m ser_backend runs` lists the runs.")


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
        if engine.dialect.name == "postgresql":  # programs on other machines know nothing of our lock file
            db.execute(sa.select(sa.func.pg_advisory_xact_lock(MIGRATING)))
        config.attributes["connection"] = db
        command.upgrade(config, "head")
