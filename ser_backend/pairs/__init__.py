"""Imported pairs: one folder of memory-mapped Arrow files per data set, found by the hash of its content.

Knows texts, groups and (in a seed or held-out set) labels. Knows neither the file formats the pairs came from nor the
database. A pool's folder has no label file, and nothing in it depends on which response its source preferred.
"""

from ser_backend.pairs.folder import (
    Overlap,
    PairSet,
    delete,
    export_problems,
    group_key,
    overlap,
    problems,
    smaller_is_a,
)
from ser_backend.pairs.kinds import ProblemKind, kinds_of, problem_kinds
from ser_backend.pairs.writer import RAW_CHARS, PairWriter, printable

__all__ = [
    "RAW_CHARS",
    "Overlap",
    "PairSet",
    "PairWriter",
    "ProblemKind",
    "delete",
    "export_problems",
    "group_key",
    "kinds_of",
    "overlap",
    "printable",
    "problem_kinds",
    "problems",
    "smaller_is_a",
]
