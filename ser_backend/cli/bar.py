"""A progress bar on standard error; where that is not a terminal, a line every ten seconds."""

import shutil
import sys
import time

SAY_S = 10.0


class Bar:
    """A progress bar on standard error; where that is not a terminal, a line every ten seconds."""

    def __init__(self, title: str) -> None:
        self.title, self.shown = title, False
        self.started = self.said = time.monotonic()

    def show(self, done: int, total: int, title: str = "") -> None:
        if title and title != self.title:
            self.clear()
            self.title, self.started = title, time.monotonic()
        if sys.stderr.isatty() and total:
            width = max(10, min(30, shutil.get_terminal_size().columns - len(self.title) - 30))
            filled = width * done // total
            left = (time.monotonic() - self.started) * (total - done) / done if done else 0
            bar = "#" * filled + "." * (width - filled)
            sys.stderr.write(f"\r  {self.title} [{bar}] {done:,}/{total:,}, {left:.0f} s left ")
            sys.stderr.flush()
            self.shown = True
        elif total and time.monotonic() - self.said > SAY_S:
            self.said = time.monotonic()
            print(f"  {self.title}: {done:,} of {total:,}", file=sys.stderr)

    def clear(self) -> None:
        if self.shown:
            sys.stderr.write("\r\033[K")
            self.shown = False

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()
