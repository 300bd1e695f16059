"""A small table of figures, as text for a person's paper, page or spreadsheet: CSV, LaTeX, Markdown.

In CSV a figure with its interval takes a column for each of its numbers, all of them shares from 0 to 1 and in full; in the
others it is one cell, in words. What people typed (names of runs and data sets) becomes neither markup nor a formula.
"""

import csv as csv_files
import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ser_backend import home
from ser_backend.errors import SerError
from ser_backend.records import Interval
from ser_backend.votes_file import defused


@dataclass(frozen=True, slots=True)
class Points:
    """A difference of shares with its interval; shown in percentage points."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "not known"
        value, low, high = (_signed(100 * x) for x in (self.value, self.low, self.high))
        return f"{value} ({low} to {high})"


@dataclass(frozen=True, slots=True)
class Percent:
    """A share without an interval."""

    value: float

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} %"


Cell = str | int | float | Interval | Points | Percent | None
PARTS: Mapping[type, tuple[str, ...]] = {Interval: ("value", "low", "high", "n"), Points: ("value", "low", "high")}


@dataclass(frozen=True, slots=True)
class Table:
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()  # sentences without which the figures mislead

    def known(self) -> "Table":
        """Without the columns in which no row has anything."""
        kept = [i for i in range(len(self.columns)) if any(row[i] not in (None, "") for row in self.rows)]
        rows = tuple(tuple(row[i] for i in kept) for row in self.rows)
        return Table(self.title, tuple(self.columns[i] for i in kept), rows, self.notes)

    def shown(self) -> list[dict[str, str]]:
        """Rows in words, for a page; what a spreadsheet would take for a formula is defused."""
        return [
            {
                name: str(defused(cell)) if isinstance(cell, str) else text(cell)
                for name, cell in zip(self.columns, row, strict=True)
            }
            for row in self.rows
        ]


def text(cell: Cell) -> str:
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    if isinstance(cell, float):
        return f"{cell:.3g}"
    return f"{cell:,}" if isinstance(cell, int) else str(cell)


def csv(table: Table) -> str:
    out = io.StringIO()
    kinds = [next((kind for kind in PARTS if any(isinstance(row[i], kind) for row in table.rows)), None)
             for i in range(len(table.columns))]  # fmt: skip
    head: list[str] = []
    for name, kind in zip(table.columns, kinds, strict=True):
        head += [name, *(f"{name} {part}" for part in PARTS[kind][1:])] if kind else [name]
    writer = csv_files.writer(out, quoting=csv_files.QUOTE_NONNUMERIC)
    writer.writerow(defused(name) for name in head)
    for row in table.rows:
        cells: list[object] = []
        for cell, kind in zip(row, kinds, strict=True):
            cells += _numbers(cell, PARTS[kind]) if kind else [cell.value if isinstance(cell, Percent) else cell]
        writer.writerow("" if cell is None else defused(cell) for cell in cells)
    return out.getvalue()


def _numbers(cell: Cell, parts: Sequence[str]) -> list[object]:
    if isinstance(cell, Interval | Points):
        return [getattr(cell, part) for part in parts]
    return ["" if cell is None else text(cell), *[""] * (len(parts) - 1)]


def markdown(table: Table) -> str:
    lines = [_row(table.columns, " | ", "| ", " |", _markdown), "|" + "---|" * len(table.columns)]
    lines += [_row(row, " | ", "| ", " |", _markdown) for row in table.rows]
    return "\n".join([f"**{_markdown(table.title)}**", "", *lines, *_after(table, "\n", _markdown)]) + "\n"


def latex(table: Table) -> str:
    """A tabular of booktabs, with its caption and notes as comments to be used or not."""
    columns = "l" * len(table.columns)
    lines = [
        "% \\usepackage{booktabs}",
        f"% {_latex(table.title)}",
        f"\\begin{{tabular}}{{{columns}}}",
        "\\toprule",
        _row(table.columns, " & ", "", " \\\\", _latex),
        "\\midrule",
        *(_row(row, " & ", "", " \\\\", _latex) for row in table.rows),
        "\\bottomrule",
        "\\end{tabular}",
    ]
    return "\n".join([*lines, *_after(table, "% ", _latex)]) + "\n"


FORMATS: Mapping[str, Callable[[Table], str]] = {".csv": csv, ".md": markdown, ".tex": latex}


def as_bytes(tables: Sequence[Table], suffix: str) -> bytes:
    """The tables one after another. Raises SerError when the format is unknown."""
    if suffix not in FORMATS:
        known = ", ".join(FORMATS)
        raise SerError(f"A table cannot be written as {suffix or 'a file without a suffix'!r}. Choose one of {known}.")
    parts = "\n".join(FORMATS[suffix](table) for table in tables)
    # -sig: without the mark Excel takes UTF-8 for the local code page
    return parts.encode("utf-8-sig" if suffix == ".csv" else "utf-8", "backslashreplace")


def write(tables: Sequence[Table], path: Path, suffix: str = "") -> None:
    """By the suffix of `path`, unless one is given. Raises SerError."""
    content = as_bytes(tables, suffix or path.suffix)
    with home.atomic_file(path) as temporary:
        temporary.write_bytes(content)


def _row(cells: Sequence[Cell], between: str, begin: str, end: str, escaped: Callable[[str], str]) -> str:
    return begin + between.join(escaped(text(cell)) for cell in cells) + end


def _after(table: Table, before: str, escaped: Callable[[str], str]) -> list[str]:
    return [before + escaped(note) for note in table.notes]


def _signed(value: float) -> str:
    return f"{value:+.1f}" if round(value, 1) else "0.0"


def _in_a_line(words: str) -> str:
    """Without line ends and other characters that are no text."""
    return "".join(c if c.isprintable() else " " for c in words)


def _markdown(words: str) -> str:
    return re.sub(r"([\\`*_\[\]<>$~#|])", r"\\\1", _in_a_line(words).replace("&", "&amp;"))


LATEX = {
    "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "<": "\\textless{}",
    ">": "\\textgreater{}", "|": "\\textbar{}", **{c: f"\\{c}" for c in "&%$#_{}"},
}  # fmt: skip


def _latex(words: str) -> str:
    escaped = "".join(LATEX.get(c, c) for c in _in_a_line(words))
    # a hyphen would stand for a minus; a cell that begins with [ would be read as the option of the row end before it
    return re.sub(r"^\[", "{[}", re.sub(r"(?<![\w.)])-(?=\d)", "$-$", escaped))
