"""Whom to call when a run ends."""

import argparse

from ser_backend import notify
from ser_backend.errors import SerError
from ser_backend.store import Store


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    told = commands.add_parser("notify", help="call a web address when a run ends or its labels want checking")
    told.add_argument("address", metavar="URL|off|test", help="what to call; off: nothing any more; test: try it now")
    told.set_defaults(act=_notify)


def _notify(chosen: argparse.Namespace) -> int:
    store = Store.open()
    if chosen.address == "test":
        url = store.setting(notify.SETTING)
        if not url:
            raise SerError("No address is set, so there is nothing to try. Give one: notify URL.")
        if trouble := notify.deliver(url, notify.a_test()):
            raise SerError(f"The test did not arrive: {trouble}")
        print(f"{notify.shown(url)} took the test.")
        return 0
    url = notify.change(store, "" if chosen.address == "off" else chosen.address)
    print(f"{notify.shown(url)} is called from now on. Try it: notify test." if url else "Nothing is called any more.")
    return 0
