"""What is agreed about a run's reviews: how many people answer each pair, and what they go by."""

import sqlalchemy as sa

from ser_backend.errors import NotFound, SerError
from ser_backend.records import Guidelines
from ser_backend.store.handle import Handle, lock_run
from ser_backend.store.tables import guidelines, now, runs

MOST_OVERLAP = 10


class Agreements(Handle):
    def overlap(self, run_id: str) -> int:
        """People to answer each pair. Raises NotFound."""
        with self.reader.connect() as db:
            found = db.execute(sa.select(runs.c.overlap).where(runs.c.id == run_id)).scalar()
        if found is None:
            raise NotFound(f"There is no run {run_id!r}. `python -m ser_backend runs` lists the runs.")
        return int(found)

    def set_overlap(self, run_id: str, n: int) -> None:
        """Raises SerError when n is not 1 to 10, Forbidden."""
        self.require("guidelines")
        if not 1 <= n <= MOST_OVERLAP:
            raise SerError(f"{n} people were to answer each pair. Give a number from 1 to {MOST_OVERLAP}.")
        with self.engine.begin() as tx:
            lock_run(tx, run_id)
            tx.execute(runs.update().where(runs.c.id == run_id).values(overlap=n))

    def guidelines(self, run_id: str) -> list[Guidelines]:
        """Every version, oldest first; the last is in force."""
        query = sa.select(guidelines).where(guidelines.c.run == run_id).order_by(guidelines.c.version)
        with self.reader.connect() as db:
            return [Guidelines(**row._mapping) for row in db.execute(query)]

    def add_guidelines(self, run_id: str, text: str, author: str) -> Guidelines:
        """The next version. Raises Forbidden."""
        self.require("guidelines", author)
        with self.engine.begin() as tx:
            lock_run(tx, run_id)
            newest = tx.execute(sa.select(sa.func.max(guidelines.c.version)).where(guidelines.c.run == run_id)).scalar()
            made = Guidelines(run_id, 1 + (newest or 0), text, author, now())
            tx.execute(
                guidelines.insert().values(
                    run=made.run, version=made.version, text=made.text, author=made.author, at=made.at
                )
            )
        return made
