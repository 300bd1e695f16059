"""The real server as a process and the real page in headless Chromium, for measurements of the desk."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ser_backend import home
from ser_backend.errors import SerError

PATIENCE_S = 120
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
ON_DESK = ".desk:not([data-token=''])"  # once a pair is on it


@contextmanager
def server(log: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Address and process of `streamlit run app/main.py` over $SER_HOME."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", "app/main.py", "--server.headless", "true"]
    command += ["--server.port", str(port), "--server.address", "127.0.0.1", "--server.fileWatcherType", "none"]
    with log.open("ab") as out:
        process = subprocess.Popen(command, cwd=home.ROOT, stdout=out, stderr=out, start_new_session=True)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=2)
                break
            except OSError as error:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise SerError(f"The server did not start; see {log}.") from error
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}", process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def browser() -> Iterator[Any]:
    """Chromium under playwright. Raises SerError where one of them is missing."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise SerError("This measurement needs playwright: pip install -r requirements-dev.txt") from error
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        raise SerError("This measurement needs Chromium. On Debian: apt-get install chromium")
    with sync_playwright() as driver:
        made = driver.chromium.launch(executable_path=found, args=FLAGS)
        yield made
        made.close()


def machine() -> str:
    """What the figures were taken on."""
    model = next((line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "?")
    one, five, _ = os.getloadavg()
    return f"{os.cpu_count()} cores of {model}, load {one:.1f} (1 min) {five:.1f} (5 min)"


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []
