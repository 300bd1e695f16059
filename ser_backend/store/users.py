"""Users, their sessions, and what they were refused. Passwords and tokens are kept as digests only (ser_backend/team.py)."""

import math
import secrets
import time

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from ser_backend import team
from ser_backend.errors import NotFound, SerError
from ser_backend.records import USER_ROLES, Refusal, User, UserRole
from ser_backend.store.handle import Handle, key_of, user_from
from ser_backend.store.tables import attempts, now, refusals, sessions, users

SESSION_S = 30 * 24 * 3600
TRIES, TRIES_IN_S = 10, 15 * 60


class Users(Handle):
    def has_users(self) -> bool:
        with self.reader.connect() as db:
            return db.execute(sa.select(users.c.key).limit(1)).first() is not None

    def users(self) -> list[User]:
        """By name. Raises Forbidden."""
        self.require("users")
        with self.reader.connect() as db:
            return [user_from(row) for row in db.execute(sa.select(users).order_by(users.c.key))]

    def user_named(self, name: str) -> User:
        """Raises NotFound."""
        with self.reader.connect() as db:
            row = db.execute(sa.select(users).where(users.c.key == key_of(name))).first()
        if row is None:
            raise NotFound(f"There is no user {name!r}. `python -m ser_backend users` lists the users.")
        return user_from(row)

    def user_by_email(self, email: str) -> User | None:
        """Active or not; None when nobody has it."""
        with self.reader.connect() as db:
            row = db.execute(sa.select(users).where(users.c.email == email.strip().lower())).first()
        return user_from(row) if row else None

    def add_user(self, user: User, password: str | None) -> User:
        """password None: signs in by e-mail only. Raises SerError when name, e-mail or password cannot be had, Forbidden."""
        self.require("users")
        name, email = team.checked_name(user.name), user.email.strip().lower()
        if user.role not in USER_ROLES:
            raise SerError(f"There is no role {user.role!r}. Choose one of {', '.join(USER_ROLES)}.")
        kept = team.hashed(password) if password is not None else None
        row = {"key": key_of(name), "name": name, "role": user.role, "email": email or None, "active": user.active}
        try:
            with self.engine.begin() as tx:
                values = row | {"password": kept, "created_at": user.created_at or now()}
                return user_from(tx.execute(users.insert().values(**values).returning(users)).one())
        except IntegrityError:
            also = f", or one with the e-mail {email}" if email else ""
            raise SerError(f"There is a user {name!r} already{also}. Give another name or e-mail.") from None

    def change_user(
        self, name: str, role: UserRole | None = None, active: bool | None = None, password: str | None = None
    ) -> User:
        """What is None stays. A new password, or an account that is switched off, ends the user's sessions.

        Raises NotFound; SerError when no active owner would be left, or the password cannot be had; Forbidden.
        """
        self.require("users")
        key = key_of(self.user_named(name).name)
        if role is not None and role not in USER_ROLES:
            raise SerError(f"There is no role {role!r}. Choose one of {', '.join(USER_ROLES)}.")
        changed = {"role": role, "active": active, "password": team.hashed(password) if password is not None else None}
        changed = {column: value for column, value in changed.items() if value is not None}
        with self.engine.begin() as tx:
            owners = sa.select(users.c.key).where(users.c.role == "owner", users.c.active).order_by(users.c.key)
            left = [row.key for row in tx.execute(owners.with_for_update())]
            if left == [key] and (changed.get("role", "owner") != "owner" or changed.get("active") is False):
                raise SerError(
                    f"{name!r} is the only active owner, so this account stays one. Make another owner first."
                )
            if changed:
                tx.execute(users.update().where(users.c.key == key).values(**changed))
            if "password" in changed or active is False:
                tx.execute(sessions.delete().where(sessions.c.user == key))
            return user_from(tx.execute(sa.select(users).where(users.c.key == key)).one())

    # ---- sessions

    def sign_in(self, name: str, password: str) -> tuple[User, str]:
        """The user, and a secret token for `signed_in`. Raises SerError: wrong, switched off, or tried too often."""
        key = key_of(name)
        with self.engine.begin() as tx:
            tx.execute(attempts.delete().where(attempts.c.at <= time.time() - TRIES_IN_S))
            tried = tx.execute(sa.select(attempts.c.at).where(attempts.c.user == key).order_by(attempts.c.at)).all()
            if len(tried) >= TRIES:
                wait = math.ceil((tried[-TRIES].at + TRIES_IN_S - time.time()) / 60)
                raise SerError(
                    f"Signing in as {name!r} failed {len(tried)} times, so it is paused. Try again in {wait} min."
                )
            # counted before the password is looked at, so that many tries at once are no way around
            tx.execute(attempts.insert().values(user=key, at=time.time()))
        with self.reader.connect() as db:
            row = db.execute(sa.select(users).where(users.c.key == key)).first()
        if not team.matches(password, row.password if row else None) or row is None:
            raise SerError("The name or the password is not right. Check both, or ask an owner for a new password.")
        with self.engine.begin() as tx:
            tx.execute(attempts.delete().where(attempts.c.user == key))
            row = tx.execute(sa.select(users).where(users.c.key == key).with_for_update()).one()
            if not row.active:
                raise SerError(f"The account {row.name!r} is not active. Ask an owner to activate it.")
            tx.execute(sessions.delete().where(sessions.c.expires_at <= time.time()))
            token = _new_session(tx, key)
        return user_from(row), token

    def change_own_password(self, password: str, new: str) -> str:
        """The user whom the handle acts for says both. Ends their sessions, here and elsewhere; returns the token of a new one.

        Raises SerError: the old one is wrong or tried too often, or the new one cannot be had.
        """
        if self.user is None:
            raise SerError("Nobody is signed in, so there is no password to change.")
        kept = team.hashed(new)
        user, _ = self.sign_in(self.user.name, password)
        key = key_of(user.name)
        with self.engine.begin() as tx:
            tx.execute(users.update().where(users.c.key == key).values(password=kept))
            tx.execute(sessions.delete().where(sessions.c.user == key))
            return _new_session(tx, key)

    def signed_in(self, token: str) -> User | None:
        """Whose token it is; None when it is nobody's, has expired, or the account is switched off."""
        query = sa.select(users).join(sessions, sessions.c.user == users.c.key).where(
            sessions.c.token_digest == team.token_digest(token), sessions.c.expires_at > time.time(), users.c.active
        )  # fmt: skip
        with self.reader.connect() as db:
            row = db.execute(query).first()
        return user_from(row) if row else None

    def sign_out(self, token: str) -> None:
        with self.engine.begin() as tx:
            tx.execute(sessions.delete().where(sessions.c.token_digest == team.token_digest(token)))

    # ---- refusals

    def refusals(self, last: int = 200) -> list[Refusal]:
        """Newest first. Raises Forbidden."""
        self.require("users")
        query = sa.select(refusals.c.at, refusals.c.user, refusals.c.act, refusals.c.sentence)
        with self.reader.connect() as db:
            return [Refusal(**r._mapping) for r in db.execute(query.order_by(refusals.c.id.desc()).limit(last))]


def _new_session(tx: sa.Connection, key: str) -> str:
    """Its secret token, of which the store keeps a digest."""
    token = secrets.token_urlsafe(32)
    digest, until = team.token_digest(token), time.time() + SESSION_S
    tx.execute(sessions.insert().values(token_digest=digest, user=key, expires_at=until))
    return token
