"""Rejected rows by kind of problem: what is wrong, and how often. Knows how the sentences are built, not what they mean."""

import json
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass

from ser_backend import home
from ser_backend.errors import SerError
from ser_backend.pairs.folder import export_problems
from ser_backend.records import Problem

KINDS_FILE = "problem_kinds.json"  # beside problems.jsonl, so that a million rejected rows are read once
FILE = re.compile(
    r"^[^\n]{1,255}?\.(?:csv|tsv|jsonl?|ndjson|parquet|arrow)(?:\.gz)?: "
)  # where a source has several files
QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
POSITION = re.compile(r": line \d+ column \d+ \(char \d+\)")  # within one line of JSON, of no use for many
NUMBER = re.compile(r"(?<!UTF-)\d[\d,]*")


@dataclass(frozen=True, slots=True)
class ProblemKind:
    field: str
    message: str  # "…" stands where a value stood, "N" where a number did
    n: int
    first_row: int


def kinds_of(problems: Iterable[Problem]) -> list[ProblemKind]:
    """The most frequent first. Reads each problem once and keeps one entry a kind."""
    found: dict[tuple[str, str], list[int]] = {}
    for problem in problems:
        entry = found.setdefault((problem.field, _without_values(problem.message)), [0, problem.row])
        entry[0] += 1
        entry[1] = min(entry[1], problem.row)
    kinds = [ProblemKind(field, message, n, row) for (field, message), (n, row) in found.items()]
    return sorted(kinds, key=lambda kind: (-kind.n, kind.first_row))


def problem_kinds(dataset_id: str) -> list[ProblemKind]:
    """Of a stored data set; counted once."""
    path = export_problems(dataset_id)
    kept = path.with_name(KINDS_FILE)
    with suppress(OSError, ValueError, TypeError):
        return [ProblemKind(**kind) for kind in json.loads(kept.read_text("utf-8"))]
    with path.open(encoding="utf-8") as lines:
        found = kinds_of(Problem(**json.loads(line)) for line in lines)
    with (
        suppress(OSError, SerError),
        home.atomic_file(kept) as temporary,
    ):  # a folder that cannot be written: count again
        temporary.write_text(json.dumps([asdict(kind) for kind in found], ensure_ascii=False), "utf-8")
    return found


def _without_values(message: str) -> str:
    return NUMBER.sub("N", POSITION.sub("", QUOTED.sub("…", FILE.sub("", message))))
