"""python -m benchmarks.dashboard: is every page fast, and the server small, over a pool of a million pairs?

A data folder made up once (benchmarks/large_home.py), the real server, headless Chromium. A page can be read when Streamlit
says that its script has ended and its title stands there; it is ready when every figure is drawn, on Review a pair lies on the
desk, and the browser has time to draw a frame. The clock is the page's own. Each page is opened in three ways: for the first
time since the server started, from the link in the open app, and in a new tab. In a new tab figures are pictures, and become
plotly's on a click: how long that takes is measured on Watch.
Last, a run under way tells two events a second: what does the open Watch page cost the server?
"""

import argparse
import fcntl
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks import large_home, real_page
from benchmarks.large_home import Size
from ser_backend import home
from ser_backend.errors import SerError

TITLES = {
    "home": "What needs you?",
    "data": "Which pairs do you have?",
    "train": "What should the model learn from?",
    "watch": "Is it getting better?",
    "review": "Which response is better?",
    "export": "What do you take home?",
    "compare": "Which run is better?",
    "playground": "What does the model think?",
    "policy": "Does the reward model lead a language model to better responses?",
    "agreement": "How well do people agree?",
    "users": "Who may do what?",
}  # in the order of the menu
FOLDED = ("compare", "playground", "policy", "agreement", "users")
GOAL_S, GOAL_MB, GOAL_CORE, GOAL_PAIRS = 1.5, 1_000, 0.10, 20_000
SETTLE_S = 3.0  # a page that polls is let poll a little before its cost is taken
READY = """([title, began]) => {
  const app = document.querySelector("[data-testid=stApp]");
  const heads = [...document.querySelectorAll("h1")].map((head) => head.textContent);
  if (app?.dataset.testScriptState !== "notRunning" || !heads.includes(title)) return false;
  if (document.querySelector("[data-stale=true]")) return false;
  if (window.told?.began !== began) window.told = { began, at: performance.now() };
  if (document.querySelector("[data-testid=stSkeleton]")) return false;
  const parts = [...document.querySelectorAll("[data-testid=stBidiComponentIsolated]")].map((part) => part.shadowRoot);
  const hasPair = parts.some((part) => part?.querySelector(".desk:not([data-token=''])"));
  if (title === "Which response is better?" && !hasPair) return false;
  const charts = [...document.querySelectorAll("[data-testid=stPlotlyChart]")].filter((chart) => chart.offsetParent);
  if (charts.some((chart) => !chart.querySelector(".main-svg"))) return false;
  const pictures = parts.map((part) => part?.querySelector("#picture")).filter((place) => place?.offsetParent);
  if (pictures.some((place) => !place.firstChild)) return false;
  return [window.told.at - began, performance.now() - began];
}"""
CLICK = """() => {
  window.pressed = performance.now();
  const parts = [...document.querySelectorAll("[data-testid=stBidiComponentIsolated]")].map((part) => part.shadowRoot);
  parts.map((part) => part?.querySelector("#picture")).find((place) => place?.offsetParent).click();
}"""
PLOTLYS = """() => {
  const charts = [...document.querySelectorAll("[data-testid=stPlotlyChart]")].filter((chart) => chart.offsetParent);
  if (!charts.length || charts.some((chart) => !chart.querySelector(".main-svg"))) return false;
  return performance.now() - window.pressed;
}"""


def measured(
    told: Mapping[str, Any], times: int, poll_s: float, log: Path, views: Sequence[str] = tuple(TITLES)
) -> dict[str, Any]:
    found: dict[str, Any] = {"first_s": {}, "open_s": {}, "tab_s": {}}
    run, live = told["large"][-1], told["live"]
    with ExitStack() as stack:
        stack.enter_context(_no_supervisor())
        stack.enter_context(large_home.at_work(live))
        address, process = stack.enter_context(real_page.server(log))
        server = psutil.Process(process.pid)
        context = stack.enter_context(real_page.browser()).new_context(viewport={"width": 1280, "height": 900})
        context.set_default_timeout(1000 * real_page.PATIENCE_S)
        page = context.new_page()
        page.goto(f"{address}/watch?run={run}")
        found["server_start_s"] = _ready(page, "watch", 0)
        found["idle_mb"] = memory_mb(server.pid)
        for view in views:
            found["first_s"][view] = _followed(page, view, "watch" if view == "home" else "home")
        _wait_for_dry_runs()
        opened: dict[str, list[tuple[float, float]]] = {view: [] for view in views}
        tabs: dict[str, list[tuple[float, float]]] = {view: [] for view in views}
        for _ in range(times):
            for view in views:
                opened[view].append(_followed(page, view, "watch" if view == "home" else "home"))
        page.close()
        for _ in range(times):
            for view in views:
                tab = context.new_page()
                tab.goto(f"{address}/{'' if view == 'home' else view}?run={run}")
                tabs[view].append(_ready(tab, view, 0))
                tab.close()
        found["click_s"] = [_clicked(context, f"{address}/watch?run={run}") for _ in range(times)]
        for other in told["large"]:  # as a team would: every large run reviewed and watched since the server began
            for view in {"watch", "review", "agreement", "export"} & set(views):
                tab = context.new_page()
                tab.goto(f"{address}/{view}?run={other}")
                _ready(tab, view, 0)
                tab.close()
        found["memory_mb"] = memory_mb(server.pid)
        tab = context.new_page()
        tab.goto(f"{address}/watch?run={live}")
        _ready(tab, "watch", 0)
        tab.wait_for_timeout(1000 * SETTLE_S)
        before, began = _seconds(server), time.monotonic()
        tab.wait_for_timeout(1000 * poll_s)
        found["watching"] = {"core": (_seconds(server) - before) / (time.monotonic() - began), "seconds": poll_s}
        found["memory_mb_at_the_end"] = memory_mb(server.pid)
    found["open_s"] = {view: _spread(seconds) for view, seconds in opened.items()}
    found["tab_s"] = {view: _spread(seconds) for view, seconds in tabs.items()}
    return found | {"machine": real_page.machine(), "date": time.strftime("%Y-%m-%d")}


def _spread(times: Sequence[tuple[float, float]]) -> dict[str, Any]:
    readable, ready = np.array(times).T
    spread = {"median": float(np.median(ready)), "worst": float(ready.max())}
    return spread | {"readable": float(np.median(readable)), "readable_worst": float(readable.max()), "all": times}


def _followed(page: Any, view: str, via: str) -> tuple[float, float]:
    """Seconds, as _ready, from the click on the page's link in the menu, coming from another page."""
    if page.locator("h1", has_text=TITLES[view]).count():
        _click(page, via)
        _ready(page, via, 0)
        page.wait_for_timeout(300)  # a person reads before the next click
    _click(page, view)
    return _ready(page, view, None)


def _click(page: Any, view: str) -> None:
    if view in FOLDED:
        page.locator("[data-testid=stTopNavSection]").click()
        link = page.locator("[data-testid=stTopNavDropdownLink]", has_text=view.capitalize()).first
    else:
        link = page.locator("[data-testid=stTopNavLink]", has_text=view.capitalize()).first
    link.wait_for()
    link.evaluate("(link) => { window.began = performance.now(); link.click(); }")


def _ready(page: Any, view: str, began: float | None) -> tuple[float, float]:
    """Seconds until the page could be read and was ready, since that moment of its clock; None: since the last click."""
    since = page.evaluate("window.began") if began is None else began
    found = page.wait_for_function(READY, arg=[TITLES[view], since], polling="raf")
    readable, ready = found.json_value()
    return float(readable) / 1000, float(ready) / 1000


def _clicked(context: Any, address: str) -> float:
    """Seconds from a click on a picture until the figures are plotly's, in a new tab that has not loaded plotly yet."""
    tab = context.new_page()
    tab.goto(address)
    _ready(tab, "watch", 0)
    tab.wait_for_timeout(500)
    tab.evaluate(CLICK)
    seconds = float(tab.wait_for_function(PLOTLYS, polling="raf").json_value()) / 1000
    tab.close()
    return seconds


@contextmanager
def _no_supervisor() -> Iterator[None]:
    """The run under way is nobody's: a supervisor would find its worker gone in the end and start a real one."""
    with (home.home() / "supervisor.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SerError(f"A supervisor is serving {home.home()}. Stop it, then measure again.") from None
        yield


def _wait_for_dry_runs() -> None:
    """Train has begun one in a process of its own; on a small machine it would be most of what is measured."""
    deadline = time.monotonic() + real_page.PATIENCE_S
    while time.monotonic() < deadline and any(map(_is_dry_run, psutil.process_iter())):
        time.sleep(0.5)


def _is_dry_run(process: psutil.Process) -> bool:
    try:
        return "ser_backend.cost.estimate" in process.cmdline() and process.environ().get("SER_HOME") == str(
            home.home()
        )
    except psutil.Error:
        return False


def memory_mb(pid: int) -> dict[str, float]:
    """Resident now and at most; private: without the pages of files, which the system takes back when it needs them."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    told = {line.split(":")[0]: line.split()[1] for line in lines if line.endswith(" kB")}
    names = {"resident": "VmRSS", "most": "VmHWM", "private": "RssAnon"}
    return {name: float(told[key]) / 1024 for name, key in names.items()}


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def table(told: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    heads = (
        "page",
        "by a link: readable (s)",
        "ready (s)",
        "new tab: readable (s)",
        "ready (s)",
        "first since the start (s)",
    )
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for view in found["open_s"]:
        cells = [view]
        for one in (found["open_s"][view], found["tab_s"][view]):
            cells += [
                f"{one['readable']:.2f} / {one['readable_worst']:.2f}",
                f"{one['median']:.2f} / {one['worst']:.2f}",
            ]
        lines.append(f"| {' | '.join(cells)} | {found['first_s'][view][1]:.2f} |")
    very_first = found["server_start_s"][1]
    lines.append(
        f"\nMedian / worst of each. The very first page of a server that has just started: {very_first:.1f} s."
    )
    lines.append(f"From a click on a picture of Watch to plotly's figures: {np.median(found['click_s']):.1f} s.")
    memory, imported = found["memory_mb_at_the_end"], told["import"].get("pool", {})
    lines.append(
        f"Server: {memory['resident']:.0f} MB resident, {memory['most']:.0f} MB at most, {memory['private']:.0f} MB private. "
        f"Watching a run under way: {100 * found['watching']['core']:.1f} % of a core."
    )
    if imported:
        lines.append(
            f"Import: {imported['pairs_per_s']:,.0f} pairs a second, {imported['peak_mb']:.0f} MB at most "
            f"({imported['before_mb']:.0f} MB before it began)."
        )
    lines.append(
        f"Goal: {GOAL_S} s, {GOAL_MB:,} MB, {GOAL_CORE:.0%} of a core, {GOAL_PAIRS:,} pairs/s. {found['machine']}."
    )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.dashboard", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--data", type=Path, required=True, help="folder of the made-up data, used again when it is there"
    )
    parser.add_argument("--times", type=int, default=5, help="that each page is opened each way")
    parser.add_argument("--poll", type=float, default=30.0, metavar="SECONDS", help="that the run under way is watched")
    parser.add_argument("--only-prepare", action="store_true", help="make the data and stop")
    parser.add_argument("--json", type=Path)
    for one in fields(Size):
        parser.add_argument(f"--{one.name}", type=int, default=one.default)
    args = parser.parse_args(argv)
    os.environ["SER_HOME"] = str(args.data.resolve())
    os.environ.pop("SER_DATABASE", None)
    try:
        told = large_home.made(Size(**{one.name: getattr(args, one.name) for one in fields(Size)}))
        if args.only_prepare:
            return 0
        found = measured(told, args.times, args.poll, home.home() / "dashboard.log")
    except SerError as error:
        print(error, file=sys.stderr)
        return 1
    print(table(told, found))
    if args.json:
        args.json.write_text(json.dumps({"made": told} | found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
