"""python -m benchmarks.desk_latency: from a key on the review desk to the next pair painted, in a real browser.

A made-up run of 100,000 pairs of 100 to 300 words a response with 10,000 answers stored, the real server, headless
Chromium. The clock is the page's own: it starts at keydown, before the desk sees the key, and stops at the second animation
frame after the next pair stood there. Once at a person's pace, once as fast as the desk's guard against held keys allows.
`receipt` is from the key until the server has named the vote done; `server` is the processor time of its process.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks import desk_run, real_page
from ser_backend import review
from ser_backend.errors import SerError
from ser_backend.records import Run
from ser_backend.review import Desk
from ser_backend.store import Store

PACES = {"person": (0.5, 0.9), "fast": (0.31, 0.31)}  # seconds between keys, drawn evenly
KEYS = ("1", "2", "1", "2", "Shift+1", "Shift+2", "3", "4", "0")
GOAL_MS = {"median": 120, "p95": 250}
PEOPLE = 10  # who gave the answers that are there before
AT_ONCE = 50
CLOCK = """(() => {
  window.timed = [];
  const store = Storage.prototype.setItem;
  Storage.prototype.setItem = function (name, value) {
    store.call(this, name, value);
    if (name.startsWith("ser-outbox") && value === "[]")
      for (const one of window.timed) one.receipt ??= performance.now() - one.at;
  };
  window.addEventListener("keydown", (event) => {
    if (event.key !== "Shift") window.timed.push({ at: performance.now() });
  }, true);
  window.watchDesk = (desk) => new MutationObserver(() => {
    const now = window.timed.findLast((one) => one.painted === undefined);
    if (!now) return;
    if (!desk.dataset.token) { now.waited = true; return; }
    now.changed ??= performance.now() - now.at;
    requestAnimationFrame(() => requestAnimationFrame(() => { now.painted ??= performance.now() - now.at; }));
  }).observe(desk, { attributes: true, attributeFilter: ["data-token"] });
})()"""


def prepared(n_pairs: int, n_answers: int) -> Run:
    """The run in $SER_HOME, made and answered where that was not done before."""
    store = Store.open()
    if not store.runs():
        _tell(f"making {n_pairs:,} pairs")
        desk_run.finished_run(store, desk_run.texts(n_pairs), desk_run.texts(500, random_seed=1))
    run = store.runs()[0]
    desk, chance, n = Desk(store, run.id), random.Random(0), len(store.reviews(run.id))
    if n < n_answers:
        _tell(f"storing {n_answers - n:,} answers")
    while n < n_answers:
        for person in range(PEOPLE):
            for shown in desk.hand_out(f"person {person}", "mixed", n=AT_ONCE):
                verdict = chance.choice(("left", "right", "left", "right", "left", "right", "tie", "skip"))
                review.vote(store, shown, verdict, seen_ms=4000, active_ms=3500)
                n += 1
    for person in range(PEOPLE):
        store.release(run.id, f"person {person}")
    return run


def measured(page: Any, server: psutil.Process, votes: int, pace: tuple[float, float]) -> dict[str, Any]:
    chance = random.Random(1)
    page.evaluate("window.timed = []")
    before = _seconds(server)
    for _ in range(votes):
        page.wait_for_timeout(1000 * chance.uniform(*pace))
        page.locator(real_page.ON_DESK).wait_for()
        page.keyboard.press(chance.choice(KEYS))
    page.wait_for_timeout(2000)
    used = _seconds(server) - before
    timed = page.evaluate("window.timed")
    counted = [one for one in timed if one.get("painted") is not None]
    return {
        "votes": len(counted),
        "dropped": len(timed) - len(counted),  # sooner than the guard allows: a machine that was late
        "painted_ms": _spread([one["painted"] for one in counted]),
        "receipt_ms": _spread([one["receipt"] for one in counted if one.get("receipt") is not None]),
        "server_ms": 1000 * used / max(1, len(counted)),
        "waited": sum(bool(one.get("waited")) for one in counted),  # no pair was there when the key came
    }


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _spread(values: Sequence[float]) -> dict[str, float]:
    found = np.array(values or [np.nan])
    return {"median": float(np.median(found)), "p95": float(np.quantile(found, 0.95)), "max": float(found.max())}


def run(args: argparse.Namespace) -> dict[str, Any]:
    made = prepared(args.pairs, args.answers)
    found: dict[str, Any] = {"machine": real_page.machine(), "pairs": args.pairs, "answers": args.answers}
    if args.only_prepare:
        return found
    with ExitStack() as stack:
        log = Path(os.environ["SER_HOME"]) / "server.log"
        address, process = stack.enter_context(real_page.server(log))
        server = psutil.Process(process.pid)
        page = stack.enter_context(real_page.browser()).new_page(viewport={"width": 1280, "height": 900})
        page.add_init_script(CLOCK)
        page.set_default_timeout(1000 * real_page.PATIENCE_S)
        began = time.monotonic()
        page.goto(f"{address}/review?run={made.id}&annotator=ada")
        page.locator(real_page.ON_DESK).wait_for()
        found["opened_s"] = time.monotonic() - began
        page.locator(".desk").evaluate("(desk) => window.watchDesk(desk)")
        for name in args.pace:
            found[name] = measured(page, server, args.votes, PACES[name])
            _tell(f"{name}: {json.dumps(found[name])}")
        found["server_mb"] = server.memory_info().rss / 1e6
    return found


def table(found: dict[str, Any]) -> str:
    lines = [
        "| pace | votes | painted, median / 95 % / max (ms) | receipt, median / 95 % (ms) | server (ms a vote) | waited |"
    ]
    lines.append("|" + "---|" * 6)
    for name in PACES:
        if one := found.get(name):
            painted, receipt = one["painted_ms"], one["receipt_ms"]
            lines.append(
                f"| {name} | {one['votes']} | {painted['median']:.0f} / {painted['p95']:.0f} / {painted['max']:.0f} | "
                f"{receipt['median']:.0f} / {receipt['p95']:.0f} | {one['server_ms']:.0f} | {one['waited']} |"
            )
    lines.append(f"\nGoal: median below {GOAL_MS['median']} ms, 95 % below {GOAL_MS['p95']} ms. {found['machine']}.")
    return "\n".join(lines)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.desk_latency", description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--answers", type=int, default=10_000, help="stored before the clock starts")
    parser.add_argument("--votes", type=int, default=200, help="at each pace")
    parser.add_argument("--pace", nargs="+", choices=sorted(PACES), default=list(PACES))
    parser.add_argument("--home", type=Path, help="keep the made-up run here, and use the one that is here")
    parser.add_argument("--only-prepare", action="store_true", help="fill --home and stop")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SER_HOME"] = str(args.home or folder)
        os.environ.pop("SER_DATABASE", None)
        try:
            found = run(args)
        except SerError as error:
            _tell(str(error))
            return 1
    if not args.only_prepare:
        print(table(found))
    print(json.dumps(found, indent=1))
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
