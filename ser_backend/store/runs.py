"""Runs, their finished rounds and what they tell."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from ser_backend.errors import NotFound
from ser_backend.records import Event, Job, Round, Run, Status, round_from
from ser_backend.store.handle import Handle, lock_run
from ser_backend.store.jobs import enqueue
from ser_backend.store.tables import events, jobs, now, rounds, runs


class Runs(Handle):
    def add_run(
        self,
        run_id: str,
        name: str,
        config: dict[str, Any],
        seed: str,
        pool: str,
        heldout: str | None,
        n_rounds: int,
        project: str = "",
    ) -> Job:
        """A run and its first job, in one transaction. Raises Forbidden."""
        self.require("start")
        with self.engine.begin() as tx:
            tx.execute(
                runs.insert().values(
                    id=run_id,
                    name=name,
                    config=config,
                    seed=seed,
                    pool=pool,
                    heldout=heldout,
                    created_at=now(),
                    project=project,
                )
            )
            return enqueue(tx, run_id, n_rounds)

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

    def move_run(self, run_id: str, project: str) -> None:
        """File the run under another project, "" for none. Raises Forbidden."""
        self.require("start")
        with self.engine.begin() as tx:
            tx.execute(runs.update().where(runs.c.id == run_id).values(project=project))

    def note_outcome(self, run_id: str, stopped_because: str | None, best_round: int | None) -> None:
        with self.engine.begin() as tx:
            tx.execute(
                runs.update().where(runs.c.id == run_id).values(stopped_because=stopped_because, best_round=best_round)
            )

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

    def append_event(
        self, run_id: str, kind: str, round_: int | None = None, payload: dict[str, Any] | None = None
    ) -> int:
        """Returns the event's seq, which counts from 1 within a run."""
        with self.engine.begin() as tx:
            lock_run(tx, run_id)
            last = tx.execute(sa.select(sa.func.max(events.c.seq)).where(events.c.run == run_id)).scalar()
            facts = {"run": run_id, "kind": kind, "round": round_, "at": now(), "payload": payload or {}}
            return tx.execute(events.insert().values(seq=1 + (last or 0), **facts).returning(events.c.seq)).scalar_one()

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


_newest = sa.select(sa.func.max(jobs.c.id)).where(jobs.c.run == runs.c.id).correlate(runs).scalar_subquery()
_RUNS = sa.select(*(column for column in runs.c if column is not runs.c.overlap), jobs.c.status, jobs.c.error).join(
    jobs, jobs.c.id == _newest
)


def _run(row: Any) -> Run:
    return Run(**{**row._mapping, "status": Status(row.status)})
