"""Every vote of a run as a file: each row as it was written, undone and changed ones among them.

Names, reasons and notes come from people, and a spreadsheet takes a cell that begins with = + - or @ for a formula. So in a
CSV file such a cell gets an apostrophe before it; the JSONL file holds every text exactly.
"""

import csv
import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

from ser_backend import home
from ser_backend.errors import SerError
from ser_backend.records import Review
from ser_backend.store import Store

# OWASP, CSV Injection. Full-width signs: East Asian versions of Excel read them as the ASCII ones. After ; and a tab or the
# end of a line: a program that takes these for the end of a cell whatever the quotes say sees a cell begin there.
FORMULA = re.compile(r"^(?=[=+\-@\t\r\n＝＋－＠])|(?<=[;\t\r\n])(?=[=+\-@＝＋－＠])")
COLUMNS = (*(field.name for field in fields(Review)), "preferred")


def write_votes(store: Store, run_id: str, path: Path) -> None:
    """By the suffix of `path`: .csv or .jsonl. Raises Forbidden."""
    store.require("export")
    if path.suffix not in (".csv", ".jsonl"):
        raise SerError(f"{path.name} ends in neither .csv nor .jsonl, so its format is unknown. Choose one of the two.")
    rows = store.reviews(store.run(run_id).id)
    with home.atomic_file(path) as temporary:
        if path.suffix == ".jsonl":
            with temporary.open("w", encoding="utf-8") as file:
                for row in rows:
                    # a lone surrogate or U+2028 in a note must not break the file for other readers
                    file.write(json.dumps(_facts(row), ensure_ascii=True) + "\n")
            return
        # -sig: without the mark Excel takes UTF-8 for the local code page
        with temporary.open("w", encoding="utf-8-sig", errors="backslashreplace", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, quoting=csv.QUOTE_NONNUMERIC)
            writer.writeheader()
            for row in rows:
                writer.writerow({name: defused(value) for name, value in _facts(row).items()})


def defused(value: Any) -> Any:
    """A text that no spreadsheet takes for a formula: an apostrophe stands where one would begin. Numbers stay numbers."""
    return FORMULA.sub("'", value) if isinstance(value, str) else value


def _facts(row: Review) -> dict[str, Any]:
    return {name: getattr(row, name) for name in COLUMNS}
