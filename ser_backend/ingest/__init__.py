"""A source (file, folder, hub data set) -> a stored data set and the list of rows that could not be used.

The only package that knows foreign column names (shapes) and file formats (readers). A labelled role keeps the labels
of its source; a pool drops them here, at the door: they are written nowhere, and nothing written depends on them.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from ser_backend import pairs
from ser_backend.errors import SerError
from ser_backend.ingest.keeping import Catalogue, Imported, descent, keep, named, stem
from ser_backend.ingest.messages import SURROGATE
from ser_backend.ingest.opened import (
    HOW_TO_MAP,
    USES,
    Opened,
    mapped,
    open_rows,
    pair_or_problem,
    remembered,
    same_reading,
    settle,
    unlabelled,
)
from ser_backend.ingest.preferences import MEANINGS, MOST_ASKED, Meaning, Value, Values, ask, told
from ser_backend.ingest.readers import Source
from ser_backend.ingest.rows import Item
from ser_backend.ingest.shapes import Extracted, Mapping, describe, likely, list_of
from ser_backend.ingest.texts import SINGLE, read_pairs, read_texts
from ser_backend.pairs import PairWriter, ProblemKind
from ser_backend.records import ROLES, Dataset, Preferred, Problem, Role

__all__ = [
    "MEANINGS",
    "MOST_ASKED",
    "SINGLE",
    "USES",
    "Extracted",
    "Imported",
    "Inspection",
    "Mapping",
    "Meaning",
    "Preview",
    "Value",
    "Values",
    "descent",
    "import_source",
    "inspect",
    "keep",
    "mapped",
    "named",
    "read_pairs",
    "read_texts",
    "remembered",
    "same_reading",
]

FIRST_PROBLEMS = 5
PROGRESS_ROWS = 5_000


@dataclass(frozen=True, slots=True)
class Preview:
    """A pair as its source has it: a is the first response there. Which is stored as a is drawn, pair by pair."""

    row: int
    prompt: str
    response_a: str
    response_b: str
    preferred: Preferred | None  # None in a pool, whose a and b are in the order of their texts
    group: str
    domain: str


@dataclass(frozen=True, slots=True)
class Inspection:
    """What the beginning of a source looks like."""

    name: str
    format: str
    columns: list[str]
    mapping: Mapping | None  # None: the layout is not known, the user has to map columns
    shape: str  # the layout in words
    has_labels: bool
    preview: list[Preview]
    problems: list[Problem]  # the first few
    kinds: list[ProblemKind]  # of all problems among the rows looked at, the most frequent first
    n_rows: int  # looked at
    examples: list[dict[str, str]]  # the first rows as they stand, values cut, to map columns by
    values: Values | None = None  # what the preference column holds; None where there is none, and for a pool
    likely: dict[str, str] = field(default_factory=dict)  # what single columns seem to be where the layout is not known


@runtime_checkable
class Guarded(Protocol):
    """A catalogue that people with different roles use."""

    def require(self, act: Literal["import"]) -> None: ...


def inspect(path: str | Path, *, mapping: Mapping | None = None, role: Role = "seed", preview: int = 5) -> Inspection:
    """Reads the first rows only. Raises SerError when the source cannot be read or the mapping does not fit it."""
    opened = open_rows(path)
    source, beginning, columns = opened.source, opened.beginning, opened.columns
    settled, values = settle(opened, mapping, role != "pool")
    objects = [values for _, _, values in beginning if isinstance(values, dict)]
    labelled = role != "pool" and settled is not None and settled.has_labels
    previews: list[Preview] = []
    found: list[Problem] = []
    for file, row, facts in beginning:
        if settled is None and isinstance(facts, dict):
            continue
        outcome = pair_or_problem(facts, settled, labelled, row, file if len(source.files) > 1 else "")
        if isinstance(outcome, Problem):
            found.append(pairs.printable(outcome))
        elif len(previews) < preview:
            previews.append(_preview(outcome, row, labelled))
    return Inspection(
        name=source.name,
        format=source.format,
        columns=[name for name in columns if not SURROGATE.search(name)],  # no other can be mapped, nor shown
        mapping=mapping or (settled and replace(settled, values=())),
        shape=describe(settled, objects[0] if objects else None) if settled else "a layout that is not known",
        has_labels=settled is not None and settled.has_labels,
        preview=previews,
        problems=found[:FIRST_PROBLEMS],
        kinds=pairs.kinds_of(found),
        n_rows=len(beginning),
        examples=[{_shown(name): _shown(value) for name, value in facts.items()} for facts in objects[:preview]],
        values=values,
        likely=likely(columns),
    )


def import_source(
    store: Catalogue,
    path: str | Path,
    role: Role,
    *,
    name: str | None = None,
    mapping: Mapping | None = None,
    progress: Callable[[int, int, int], None] | None = None,
    parent: Dataset | None = None,
) -> Imported:
    """Read a source to its end and store its pairs.

    name: of the data set; the file's without suffix when None. progress(done, size, rows) is called now and then; done and
    size are bytes of text files or rows of tables (size 0: unknown). parent: the set of the same role that this is a newer
    version of. Raises SerError, and leaves nothing behind, when the source cannot be read, has no usable row, or has no
    labels although the role needs them; Forbidden.
    """
    if isinstance(store, Guarded):
        store.require("import")
    if role not in ROLES:
        raise SerError(f"There is no role {role!r}. Choose one of {', '.join(ROLES)}.")
    if parent is not None and parent.role != role:
        raise SerError(
            f"{parent.name!r} is a {parent.role} set, so a {role} set cannot be a newer version of it. "
            "Import it in the same role, or as a set of its own."
        )
    opened = open_rows(path)
    source, beginning, columns = opened.source, opened.beginning, opened.columns
    if not beginning:
        raise SerError(f"{source.name} has no rows. Give a source with at least one pair.")
    notes: list[str] = []
    labelled = role != "pool"
    before = remembered(store.datasets(), source.name, columns, role, parent) if mapping is None else None
    mapping, values = settle(opened, mapping, labelled)
    if before:
        once, then = settle(opened, before[0], labelled)
        assert once is not None
        if mapping is None or not same_reading(mapping, once, role):
            mapping, values = once, then
            notes.append(f"Its columns are read as those of {before[1].name!r} were.")
    if mapping is None:
        if not columns:
            _refuse_all(source, _as_problem(beginning[0], role))
        single = " Columns may be separated by commas, semicolons, tabs or |." if len(columns) == 1 else ""
        raise SerError(f"The layout of {source.name} is not known: it has {list_of(columns)}.{single} {HOW_TO_MAP}")
    if role != "pool" and not mapping.has_labels:
        kind = "seed" if role == "seed" else "held-out"
        raise SerError(
            f"{source.name} says nowhere which response is preferred, and a {kind} set needs that. "
            "Map the column that says it, or import the source as a pool."
        )
    if values and values.blocking:
        raise SerError(ask(values, mapping.first, mapping.second, source.name))
    if values and (said := told(values, mapping.first, mapping.second)):
        notes.append(said)
    warnings: list[str] = []
    if role == "pool" and mapping.has_labels:
        warnings.append(
            "The source has labels; a pool keeps none, so they were dropped and stored nowhere. To learn from them or to "
            "measure by them, import the source as a seed or a held-out set."
        )
    with PairWriter(role) as writer:
        _read_all(opened, mapping, writer, progress)
        lineage = _lineage(source, mapping, role) | descent(parent)
        if not writer.finish(stem(name or source.name), lineage).n_pairs:
            _refuse_all(source, writer.first_problem)
        found = keep(store, writer)
    notes = [*found.notes, *notes] if found.already_there else [*notes, *found.notes]
    return replace(found, notes=notes, warnings=[*warnings, *found.warnings])


def _read_all(
    opened: Opened, mapping: Mapping, writer: PairWriter, progress: Callable[[int, int, int], None] | None
) -> None:
    source, labelled = opened.source, writer.role != "pool"
    several = len(source.files) > 1
    n = 0
    for file, row, values in opened.again(mapping.columns()):
        found = pair_or_problem(values, mapping, labelled, row, file if several else "")
        if isinstance(found, Problem):
            writer.reject(found)
        else:
            writer.add(
                found.prompt,
                found.first,
                found.second,
                found.preferred,
                row=row,
                source=f"{file}:{row}",
                group=found.group,
                domain=found.domain,
            )
        n += 1
        if progress and n % PROGRESS_ROWS == 0:
            progress(source.done, source.size, n)
    if progress:
        progress(source.done, source.size, n)


def _as_problem(item: Item, role: Role) -> Problem | None:
    _, row, values = item
    if isinstance(values, dict):
        return Problem(row, "", "The row has no fields.")
    return Problem(row, "", values.message if role == "pool" else f"{values.message} {values.detail}".rstrip())


def _refuse_all(source: Source, first: Problem | None) -> None:
    why = (
        f" The first problem is in row {first.row}{f', {first.field}' if first.field else ''}: {first.message}"
        if first
        else ""
    )
    raise SerError(f"No row of {source.name} can be used, so nothing was imported.{why}")


def _preview(found: Extracted, row: int, labelled: bool) -> Preview:
    preferred: Preferred | None = None
    if labelled:
        preferred = "a" if found.preferred > 0 else "b" if found.preferred < 0 else "tie"
    return Preview(row, found.prompt, found.first, found.second, preferred, found.group or found.prompt, found.domain)


def _lineage(source: Source, mapping: Mapping, role: Role) -> dict[str, Any]:
    if role == "pool":
        mapping = unlabelled(mapping)
    facts = asdict(mapping)
    if said := dict(facts.pop("values")):
        facts["values"] = said
    return {
        "file": source.name,
        "sha256": source.sha256(),
        "format": source.format,
        "mapping": facts,
    }


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text.encode("utf-8", "backslashreplace").decode()[:200]
