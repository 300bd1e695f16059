"""Who may do what, and how a password is kept. Knows no database: the store asks here, and writes down what was refused."""

import functools
import hashlib
import hmac
import secrets
from collections.abc import Mapping

from ser_backend.errors import SerError
from ser_backend.records import USER_ROLES, Act, User, UserRole

MAY: Mapping[Act, tuple[UserRole, ...]] = {
    "review": ("owner", "engineer", "annotator"),
    "import": ("owner", "engineer"),
    "start": ("owner", "engineer"),
    "stop": ("owner", "engineer"),
    "adjudicate": ("owner", "engineer"),
    "see_rewards": ("owner", "engineer"),
    "export": ("owner", "engineer"),
    "guidelines": ("owner", "engineer"),
    "delete": ("owner", "engineer"),
    "users": ("owner",),
}
IN_WORDS: Mapping[Act, str] = {
    "review": "answer pairs",
    "import": "import data",
    "start": "start or estimate runs",
    "stop": "stop runs",
    "adjudicate": "settle pairs on which people disagree",
    "see_rewards": "see what the model thinks",
    "export": "export labels and models",
    "guidelines": "set the guidelines and the number of answers a pair needs",
    "delete": "remove data sets",
    "users": "manage users",
}
WITH_ARTICLE: Mapping[UserRole, str] = {"owner": "an owner", "engineer": "an engineer", "annotator": "an annotator"}

SHORTEST_PASSWORD, LONGEST_PASSWORD = 8, 200
LONGEST_NAME = 80
SCRYPT = {"n": 2**14, "r": 8, "p": 5}  # 16 MiB; OWASP's password storage cheat sheet, 2024


def may(user: User | None, act: Act) -> bool:
    """None, nobody in particular, may do everything: one person's own installation, the command line, the worker."""
    return user is None or (user.active and user.role in MAY[act])


def refusal(user: User, act: Act) -> str:
    """Why not, in a sentence."""
    if not user.active:
        return f"The account {user.name!r} is not active, so it may not {IN_WORDS[act]}. Ask an owner to activate it."
    able = " or ".join(WITH_ARTICLE[role] for role in USER_ROLES if role in MAY[act])
    return (
        f"{user.name!r} is {WITH_ARTICLE[user.role]}, and to {IN_WORDS[act]} one has to be {able}. "
        "Ask one of them to do it, or an owner for another role."
    )


def not_yourself(user: User, name: str) -> str:
    """Why not in another's name, in a sentence."""
    return f"{user.name!r} is signed in, and this was to be done in the name of {name!r}. Sign in as {name!r} for that."


def checked_name(name: str) -> str:
    """The name as it is kept. Raises SerError."""
    name = " ".join(name.split())
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise SerError(
            f"{name[:LONGEST_NAME]!r} cannot be a user's name. Give 1 to {LONGEST_NAME} printable characters."
        )
    return name


def hashed(password: str) -> str:
    """scrypt$n$r$p$salt$hash. Raises SerError when the password is too short or too long."""
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise SerError(
            f"The password has {len(password)} characters. Give one of {SHORTEST_PASSWORD} to {LONGEST_PASSWORD}."
        )
    salt = secrets.token_bytes(16)
    return "$".join(["scrypt", *(str(SCRYPT[name]) for name in "nrp"), salt.hex(), _scrypt(password, salt, **SCRYPT)])


def matches(password: str, kept: str | None) -> bool:
    """Takes as long for a user without a password, and for one who does not exist, as for a wrong password."""
    _, n, r, p, salt, digest = (kept or _nobody()).split("$")
    found = _scrypt(password[:LONGEST_PASSWORD], bytes.fromhex(salt), int(n), int(r), int(p))
    return hmac.compare_digest(found, digest) and kept is not None


@functools.cache
def _nobody() -> str:
    return hashed(secrets.token_hex(16))


def _scrypt(password: str, salt: bytes, n: int, r: int, p: int) -> str:
    data = password.encode("utf-8", "surrogatepass")
    return hashlib.scrypt(data, salt=salt, n=n, r=r, p=p, maxmem=256 * r * (n + p + 2)).hex()


def token_digest(token: str) -> str:
    """What is kept of a session's token: whoever reads the database cannot sign in by it."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
