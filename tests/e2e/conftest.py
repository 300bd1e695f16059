"""The real server in a process of its own and a real headless Chromium."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from ser_backend import home

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
]


class Server:
    """`streamlit run app/main.py` over this test's data folder."""

    def __init__(self, folder: Path, options: Sequence[str] = ()) -> None:
        self.folder, self.options = folder, options
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        log = (self.folder / "server.log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "streamlit", "run", "app/main.py", "--server.headless", "true"]
            + ["--server.port", str(self.port), "--server.address", "127.0.0.1", "--server.fileWatcherType", "none"]
            + [*self.options],
            cwd=home.ROOT,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"{self.url}/_stcore/health", timeout=2)
                return
            except OSError:
                time.sleep(0.2)
        raise AssertionError((self.folder / "server.log").read_text())

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        os.killpg(self.process.pid, number)
        self.process.wait(20)


@pytest.fixture
def server_options() -> list[str]:
    """More options of `streamlit run`; a test module may have its own."""
    return []


@pytest.fixture
def server(ser_home: Path, tmp_path: Path, server_options: list[str]) -> Iterator[Server]:
    made = Server(tmp_path, server_options)
    yield made
    made.stop(signal.SIGKILL)
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if any(part.startswith("ser_backend.") for part in line):
            try:
                if process.environ().get("SER_HOME") == str(ser_home):
                    process.kill()
            except psutil.Error:
                continue


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine (Debian: apt-get install chromium)")
    with sync_api.sync_playwright() as driver:
        made = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield made
        made.close()


@pytest.fixture
def open_page(browser, server: Server) -> Iterator[Callable]:
    contexts = []

    def make(path: str = "", width: int = 1280, dark: bool = False, haste: int = 1, watch: Callable | None = None):
        """haste: how many times as fast the page's own clock runs. watch: is given the page before it loads anything."""
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if dark else "light",
            accept_downloads=True,
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        if haste > 1:
            page.add_init_script(
                f"const now = performance.now.bind(performance); performance.now = () => {haste} * now();"
            )
        if watch:
            watch(page)
        page.goto(f"{server.url}/{path}")
        page.get_by_role("heading", level=1).wait_for()
        return page

    yield make
    for context in contexts:
        context.close()
