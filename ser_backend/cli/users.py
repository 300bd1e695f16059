"""The users of a team."""

import argparse
import sys
from getpass import getpass

from ser_backend import team
from ser_backend.errors import SerError
from ser_backend.records import USER_ROLES, User
from ser_backend.store import Store


def add(everything: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    users = everything.add_parser("users", help="list, add and change the users of a team")
    users.set_defaults(act=_users)
    commands = users.add_subparsers(metavar="COMMAND", help="default: list the users")
    add = commands.add_parser("add", help="add a user; asks for the password")
    add.add_argument("name", metavar="NAME")
    add.add_argument("--role", required=True, choices=USER_ROLES)
    add.add_argument(
        "--email", default="", help="by which a sign-in elsewhere knows the user; then no password is needed"
    )
    add.add_argument("--password-stdin", action="store_true", help="read the password from the standard input")
    add.set_defaults(act=_add_user)
    change = commands.add_parser("change", help="change a user; what is not given stays")
    change.add_argument("name", metavar="NAME")
    change.add_argument("--role", choices=USER_ROLES)
    switch = change.add_mutually_exclusive_group()
    switch.add_argument("--activate", dest="active", action="store_true", default=None, help="let the user in again")
    switch.add_argument(
        "--deactivate", dest="active", action="store_false", default=None, help="keep the user out; answers stay"
    )
    change.add_argument("--password", action="store_true", help="ask for a new password; ends the user's sessions")
    change.add_argument("--password-stdin", action="store_true", help="read it from the standard input")
    change.set_defaults(act=_change_user)
    refusals = commands.add_parser("refusals", help="who was kept from doing what, newest first")
    refusals.set_defaults(act=_refusals)


def _users(_: argparse.Namespace) -> int:
    for user in Store.open().users():
        print(
            f"{user.role:10} {user.name}{f' <{user.email}>' if user.email else ''}{'' if user.active else ', not active'}"
        )
    return 0


def _add_user(chosen: argparse.Namespace) -> int:
    store = Store.open()
    password = _password(chosen.password_stdin, may_be_none=bool(chosen.email))
    made = store.add_user(User(chosen.name, chosen.role, chosen.email, True, ""), password)
    print(f"{made.name} is {team.WITH_ARTICLE[made.role]} now.")
    if not any(user.role == "owner" and user.active for user in store.users()):
        print("Nobody is an owner yet, so nobody can manage users on the page. Add one.", file=sys.stderr)
    return 0


def _change_user(chosen: argparse.Namespace) -> int:
    store = Store.open()
    name = store.user_named(chosen.name).name
    password = _password(chosen.password_stdin) if chosen.password or chosen.password_stdin else None
    made = store.change_user(name, chosen.role, chosen.active, password)
    print(f"{made.name}: {made.role}, {'active' if made.active else 'not active'}")
    return 0


def _refusals(_: argparse.Namespace) -> int:
    for refusal in Store.open().refusals():
        print(f"{refusal.at[:16]}  {refusal.act:12} {refusal.sentence}")
    return 0


def _password(from_stdin: bool, may_be_none: bool = False) -> str | None:
    """Asked for twice; None for none, where there may be none. Raises SerError when the two differ."""
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    password = getpass(f"Password{' (empty for none)' if may_be_none else ''}: ")
    if not password and may_be_none:
        return None
    if getpass("Once more: ") != password:
        raise SerError("The two passwords differ, so nothing was changed. Try again.")
    return password
