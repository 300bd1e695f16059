"""Imported data sets; their pairs are files (ser_backend/pairs)."""

from dataclasses import asdict

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from ser_backend.errors import NotFound, SerError
from ser_backend.records import Dataset
from ser_backend.store.handle import Handle
from ser_backend.store.tables import datasets, runs


class Datasets(Handle):
    def add_dataset(self, dataset: Dataset) -> None:
        """Raises SerError when the name is taken, Forbidden."""
        self.require("import")
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
        """Raises SerError when a run uses it, Forbidden."""
        self.require("delete")
        used = sa.select(runs.c.name).where(
            sa.or_(*(c == dataset_id for c in (runs.c.seed, runs.c.pool, runs.c.heldout)))
        )
        try:
            with self.engine.begin() as tx:
                if row := tx.execute(used).first():
                    raise SerError(f"This data set is used by the run {row.name!r}, so it is kept.")
                tx.execute(datasets.delete().where(datasets.c.id == dataset_id))
        except IntegrityError:  # PostgreSQL: a run was submitted in the same moment
            raise SerError("This data set is used by a run that was just started, so it is kept.") from None
