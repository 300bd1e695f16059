"""Settings of the whole installation, such as whom to call when a run ends. Values are text; what they mean is the reader's."""

import sqlalchemy as sa

from ser_backend.store.handle import Handle
from ser_backend.store.tables import settings


class Settings(Handle):
    def setting(self, name: str) -> str:
        """ "" where it is not set."""
        with self.reader.connect() as db:
            return db.execute(sa.select(settings.c.value).where(settings.c.name == name)).scalar() or ""

    def change_setting(self, name: str, value: str) -> None:
        """Raises Forbidden: an owner's to do."""
        self.require("users")
        with self.engine.begin() as tx:
            tx.execute(settings.delete().where(settings.c.name == name))
            if value:
                tx.execute(settings.insert().values(name=name, value=value))
