"""python -m benchmarks.team_votes: many annotators at once, some of whom vanish; is every vote there, once, where it belongs?

Each annotator is a process that takes pairs from the desk and answers them in the store, as the pages do. Now and then one
votes again because the receipt was lost, leaves for longer than its leases live, or is killed with SIGKILL and comes
back. A vote whose call returned is written to the annotator's journal; at the end journals and store are compared. With
--pages the annotators are browsers on one real server instead, that reload and lose the network.
"""

import argparse
import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import desk_run, real_page
from ser_backend import review
from ser_backend.errors import SerError, StaleVote
from ser_backend.pairs import PairSet
from ser_backend.records import PRIVATE, Run
from ser_backend.review import Desk
from ser_backend.store import Store, in_force

AHEAD = 4  # pairs handed out at once, as to a browser
LEASE_S = 3.0  # fifteen minutes in life
AGAIN, AWAY, SKIP = 0.1, 0.005, 0.02  # chances at each vote: of sending it twice, of staying away, of a skip
LAST_SHARE = 0.9  # of the votes, after which nobody is killed any more
KEYS = {"1": "left", "2": "right", "3": "tie", "4": "both_good", "0": "both_bad"}
RELOAD, OFFLINE = 0.02, 0.02  # chances at each key of a page
OFFLINE_S = 1.5


def team_run(store: Store, n_pairs: int, overlap: int) -> Run:
    run = desk_run.finished_run(store, desk_run.texts(n_pairs, (5, 20)), desk_run.texts(100, (5, 20), random_seed=1))
    store.set_overlap(run.id, overlap)
    return run


# ---- annotators that are processes


def annotate(
    home: str, url: str | None, run_id: str, name: str, random_seed: int, journal: str, lease_s: float
) -> None:
    """Answer pairs until there have been none for a while."""
    os.environ["SER_HOME"] = home
    review.desk.LEASE_S, review.desk.RENEW_S = lease_s, lease_s / 6
    store, chance = Store.open(url), random.Random(random_seed)
    desk, idle_since = Desk(store, run_id), time.monotonic()
    with Path(journal).open("a", buffering=1) as told:  # each line goes to the system at once: SIGKILL takes none back
        while time.monotonic() < idle_since + 2 * lease_s + 1:
            began = time.perf_counter()
            shown = desk.hand_out(name, "mixed", n=AHEAD)
            handed = time.perf_counter() - began
            if not shown:
                time.sleep(0.1)
                continue
            idle_since = time.monotonic()
            if chance.random() < AWAY:
                time.sleep(1.5 * lease_s)  # what is answered afterwards may be somebody else's by now
            verdict = "skip" if chance.random() < SKIP else chance.choice(list(KEYS.values()))
            began = time.perf_counter()
            try:
                row = review.vote(store, shown[0], verdict, seen_ms=1000)
            except StaleVote:
                told.write(json.dumps({"refused": shown[0].token}) + "\n")
                continue
            took = time.perf_counter() - began
            told.write(
                json.dumps({"token": row.token, "verdict": verdict, "vote_s": took, "hand_out_s": handed}) + "\n"
            )
            if chance.random() < AGAIN:
                try:
                    review.vote(store, shown[0], "tie", seen_ms=1000)
                    told.write(json.dumps({"doubled": row.token}) + "\n")
                except StaleVote:
                    told.write(json.dumps({"again": row.token}) + "\n")


def played(
    store: Store,
    run: Run,
    url: str | None,
    people: int,
    votes: int,
    lease_s: float = LEASE_S,
    kill_every_s: float = 1.0,
) -> dict[str, Any]:
    """Let the team answer the whole pool."""
    home, chance = os.environ["SER_HOME"], random.Random(0)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ser_backend.review", "alembic.command", "sqlalchemy.dialects.sqlite"])
    with tempfile.TemporaryDirectory() as folder:
        journals = [str(Path(folder) / f"{i}.jsonl") for i in range(people)]
        starts = [0] * people

        def start(i: int) -> Any:
            starts[i] += 1
            arguments = (home, url, run.id, f"person {i}", 1000 * i + starts[i], journals[i], lease_s)
            process = context.Process(target=annotate, args=arguments)
            process.start()
            return process

        began, killed = time.monotonic(), 0
        processes = [start(i) for i in range(people)]
        while any(process.is_alive() for process in processes):
            time.sleep(chance.uniform(0.5, 1.5) * kill_every_s)
            if len(store.reviews(run.id)) < LAST_SHARE * votes:
                i = chance.randrange(people)
                if processes[i].is_alive():
                    processes[i].kill()
                    processes[i].join()
                    killed += 1
                    processes[i] = start(i)
        written = [Path(path).read_text() for path in journals if Path(path).exists()]
        told = [json.loads(line) for text in written for line in text.splitlines()]
        failed = [process.exitcode for process in processes if process.exitcode]
    returned = {line["token"]: line["verdict"] for line in told if "token" in line}
    rows = store.reviews(run.id)
    seconds = rows[-1].answered_at - rows[0].answered_at
    return checked(store, run, returned) | {
        "failed_processes": len(failed),
        "counted_twice": sum("doubled" in line for line in told),
        "unfinished": _unfinished(store, run),
        "sent_again": sum("again" in line for line in told),
        "refused": sum("refused" in line for line in told),
        "killed": killed,
        "seconds": time.monotonic() - began,
        "votes_per_second": len(rows) / seconds if seconds else 0.0,
        "vote_ms": _spread([1000 * line["vote_s"] for line in told if "vote_s" in line]),
        "hand_out_ms": _spread([1000 * line["hand_out_s"] for line in told if "hand_out_s" in line]),
    }


# ---- what must hold, however they voted


def checked(store: Store, run: Run, returned: dict[str, str]) -> dict[str, Any]:
    """returned: token -> verdict of the votes that were said to be stored."""
    rows = store.reviews(run.id)
    stored = {row.token: row.verdict for row in rows}
    tokens = Counter(row.token for row in rows)
    people, overlap = defaultdict(list), store.overlap(run.id)
    for row in in_force(rows):
        if row.queue not in PRIVATE and row.verdict != "skip":
            people[row.pair].append(row.annotator)
    return {
        "stored": len(rows),
        "lost": sum(stored.get(token) != verdict for token, verdict in returned.items()),
        "doubled": sum(n > 1 for n in tokens.values()),
        "twice_by_one": sum(len(set(names)) < len(names) for names in people.values()),
        "too_many": sum(len(names) > overlap for names in people.values()),
        "finished": sum(len(names) == overlap for names in people.values()),
    }


def _unfinished(store: Store, run: Run) -> int:
    """Pairs of the pool without all their answers."""
    return PairSet.open(run.pool).n_pairs - checked(store, run, {})["finished"]


def wrong(found: dict[str, Any]) -> list[str]:
    """What must not have happened."""
    names = ("lost", "doubled", "counted_twice", "twice_by_one", "too_many", "unfinished", "failed_processes")
    return [f"{name}: {found[name]}" for name in names if found.get(name)]


def _spread(values: Sequence[float]) -> dict[str, float]:
    found = np.array(values or [np.nan])
    return {"median": float(np.median(found)), "p95": float(np.quantile(found, 0.95)), "max": float(found.max())}


# ---- annotators that are browsers


def through_pages(store: Store, run: Run, people: int, seconds: float) -> dict[str, Any]:
    chance, pressed = random.Random(0), {}
    with ExitStack() as stack:
        address, _ = stack.enter_context(real_page.server(Path(os.environ["SER_HOME"]) / "server.log"))
        browser = stack.enter_context(real_page.browser())
        pages = [browser.new_context(viewport={"width": 1280, "height": 900}).new_page() for _ in range(people)]
        for i, page in enumerate(pages):
            page.set_default_timeout(1000 * real_page.PATIENCE_S)
            page.goto(f"{address}/review?run={run.id}&annotator=person%20{i}")
        for page in pages:
            page.locator(real_page.ON_DESK).wait_for()
        began, ready, back = time.monotonic(), [0.0] * people, {}
        while (now := time.monotonic()) < began + seconds:
            for i in [i for i, at in back.items() if at < now]:
                pages[i].context.set_offline(False)
                del back[i]
            i = min(range(people), key=ready.__getitem__)
            if ready[i] > now:
                time.sleep(ready[i] - now)
            key, page = chance.choice(list(KEYS)), pages[i]
            token = page.locator(".desk").get_attribute("data-token")
            if token:
                page.keyboard.press(key)
                if page.locator(".desk").get_attribute("data-token") != token:
                    pressed[token] = KEYS[key]
            if chance.random() < RELOAD and i not in back:
                page.reload()
                page.locator(real_page.ON_DESK).wait_for()
            elif chance.random() < OFFLINE:
                page.context.set_offline(True)
                back[i] = now + OFFLINE_S
            ready[i] = time.monotonic() + chance.uniform(0.35, 0.6)
        took = time.monotonic() - began
        for page in pages:
            page.context.set_offline(False)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and {row.token for row in store.reviews(run.id)} < set(pressed):
            time.sleep(0.2)
    return checked(store, run, pressed) | {"pressed": len(pressed), "votes_per_second": len(pressed) / took}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.team_votes", description=__doc__.split("\n")[0])
    parser.add_argument("--people", type=int, default=20)
    parser.add_argument("--votes", type=int, default=10_000)
    parser.add_argument("--overlap", type=int, default=2, help="people to answer each pair")
    parser.add_argument("--database", help="address of an empty PostgreSQL database; without it SQLite is used")
    parser.add_argument("--pages", type=float, metavar="SECONDS", help="let browsers on one real server vote so long")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    with _home(args.database):
        try:
            store = Store.open()
            run = team_run(store, args.votes // args.overlap, args.overlap)
            if args.pages:
                found = through_pages(store, run, args.people, args.pages)
            else:
                found = played(store, run, args.database, args.people, args.votes)
        except SerError as error:
            print(error, file=sys.stderr)
            return 1
        found["database"], found["machine"] = store.engine.dialect.name, real_page.machine()
    print(json.dumps(found, indent=1))
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))
    for sentence in wrong(found):
        print(f"WRONG: {sentence}", file=sys.stderr)
    return 1 if wrong(found) else 0


@contextmanager
def _home(database: str | None) -> Iterator[None]:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SER_HOME"] = folder
        os.environ.pop("SER_DATABASE", None)
        if database:
            os.environ["SER_DATABASE"] = database
        yield


if __name__ == "__main__":
    sys.exit(main())
