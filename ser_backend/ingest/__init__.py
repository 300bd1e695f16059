"""A source (file, folder, hub data set) -> a stored data set and the list of rows that could not be used.

The only package that knows foreign column names (shapes) and file formats (readers). A labelled role keeps the labels
of its source; a pool drops them here, at the door: they are written nowhere, and nothing written depends on them.
"""

import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from ser_backend import pairs
from ser_backend.errors import SerError
from ser_backend.ingest.keeping import Catalogue, Imported, descent, keep, named, stem
from ser_backend.ingest.readers import Broken, Item, Source, open_source
from ser_backend.ingest.shapes import (
    Extracted,
    Mapping,
    Reason,
    check_mapping,
    describe,
    extract,
    list_of,
    recognise,
    recognise_single,
    unlabelled_raw,
)
from ser_backend.pairs import PairWriter, ProblemKind
from ser_backend.records import ROLES, Dataset, Preferred, Problem, Role, pair_id, response_id

__all__ = [
    "Extracted",
    "Imported",
    "Inspection",
    "Mapping",
    "Preview",
    "descent",
    "import_source",
    "inspect",
    "keep",
    "named",
    "read_pairs",
    "read_texts",
]

LOOKED_AT = 200  # rows from which the columns are learnt and the preview is taken
FIRST_PROBLEMS = 5
PROGRESS_ROWS = 5_000


@dataclass(frozen=True, slots=True)
class Preview:
    """A pair as it would be stored; a and b are those of the stored pair."""

    row: int
    prompt: str
    response_a: str
    response_b: str
    preferred: Preferred | None  # None in a pool
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


@runtime_checkable
class Guarded(Protocol):
    """A catalogue that people with different roles use."""

    def require(self, act: Literal["import"]) -> None: ...


def inspect(path: str | Path, *, mapping: Mapping | None = None, role: Role = "seed", preview: int = 5) -> Inspection:
    """Reads the first rows only. Raises SerError when the source cannot be read or the mapping does not fit it."""
    source = open_source(path)
    beginning = list(islice(source.rows(), LOOKED_AT))
    columns = _columns(beginning)
    mapping = _mapping(mapping, columns)
    objects = [values for _, _, values in beginning if isinstance(values, dict)]
    labelled = role != "pool" and mapping is not None and mapping.has_labels
    previews: list[Preview] = []
    found: list[Problem] = []
    for file, row, values in beginning:
        if mapping is None and isinstance(values, dict):
            continue
        outcome = _pair_or_problem(values, mapping, labelled, row, file if len(source.files) > 1 else "")
        if isinstance(outcome, Problem):
            found.append(outcome)
        elif len(previews) < preview:
            previews.append(_preview(outcome, row, labelled))
    return Inspection(
        name=source.name,
        format=source.format,
        columns=columns,
        mapping=mapping,
        shape=describe(mapping, objects[0] if objects else None) if mapping else "a layout that is not known",
        has_labels=mapping is not None and mapping.has_labels,
        preview=previews,
        problems=found[:FIRST_PROBLEMS],
        kinds=pairs.kinds_of(found),
        n_rows=len(beginning),
        examples=[{_shown(name): _shown(value) for name, value in values.items()} for values in objects[:preview]],
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
    source = open_source(path)
    rows = source.rows()
    beginning = list(islice(rows, LOOKED_AT))
    columns = _columns(beginning)
    mapping = _mapping(mapping, columns)
    if not beginning:
        raise SerError(f"{source.name} has no rows. Give a source with at least one pair.")
    if mapping is None:
        if not columns:
            _refuse_all(source, _as_problem(beginning[0], role))
        raise SerError(
            f"The layout of {source.name} is not known: it has {list_of(columns)}. "
            "Say which columns hold the prompt and the two responses, and which says what is preferred."
        )
    if role != "pool" and not mapping.has_labels:
        kind = "seed" if role == "seed" else "held-out"
        raise SerError(
            f"{source.name} says nowhere which response is preferred, and a {kind} set needs that. "
            "Map the column that says it, or import the source as a pool."
        )
    notes: list[str] = []
    if role == "pool" and mapping.has_labels:
        notes.append("The source has labels; a pool keeps none, so they were dropped and stored nowhere.")
    if source.format in ("Parquet", "Arrow"):
        beginning, rows = [], source.rows(mapping.columns())
    with PairWriter(role) as writer:
        _read_all(source, beginning, rows, mapping, writer, progress)
        lineage = _lineage(source, mapping, role) | descent(parent)
        if not writer.finish(stem(name or source.name), lineage).n_pairs:
            _refuse_all(source, writer.first_problem)
        found = keep(store, writer)
    return replace(found, notes=[*found.notes, *notes] if found.already_there else [*notes, *found.notes])


def _read_all(
    source: Source,
    beginning: Sequence[Item],
    rest: Iterator[Item],
    mapping: Mapping,
    writer: PairWriter,
    progress: Callable[[int, int, int], None] | None,
) -> None:
    labelled = writer.role != "pool"
    several = len(source.files) > 1
    n = 0
    queue = deque(beginning)
    while True:
        item = queue.popleft() if queue else next(rest, None)
        if item is None:
            break
        file, row, values = item
        found = _pair_or_problem(values, mapping, labelled, row, file if several else "")
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


def _pair_or_problem(
    values: dict[str, Any] | Broken, mapping: Mapping | None, labelled: bool, row: int, file: str
) -> Extracted | Problem:
    """file: named in the message where a source has several. Not labelled: nothing here depends on the labels."""
    where = f"{file}: " if file else ""
    if isinstance(values, Broken):
        if not labelled:
            return Problem(row, "", where + values.message)
        return Problem(row, "", f"{where}{values.message} {values.detail}".rstrip(), values.raw[: pairs.RAW_CHARS])
    assert mapping is not None
    found = extract(values, mapping, labelled)
    if isinstance(found, Reason):
        raw = json.dumps(values, ensure_ascii=False, default=str) if labelled else unlabelled_raw(values, mapping)
        return Problem(row, found.field, where + found.message, raw[: pairs.RAW_CHARS])
    return found


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


def _columns(beginning: Sequence[Item]) -> list[str]:
    names = dict.fromkeys(name for _, _, values in beginning if isinstance(values, dict) for name in values)
    return [name for name in names if name]


def _mapping(given: Mapping | None, columns: list[str]) -> Mapping | None:
    if given is None:
        return recognise(columns)
    check_mapping(given, columns)
    return given


def _preview(found: Extracted, row: int, labelled: bool) -> Preview:
    first, second = response_id(found.prompt, found.first), response_id(found.prompt, found.second)
    first_is_a = (first < second) == pairs.smaller_is_a(pair_id(first, second))
    a, b = (found.first, found.second) if first_is_a else (found.second, found.first)
    preferred: Preferred | None = None
    if labelled:
        sign = found.preferred if first_is_a else -found.preferred
        preferred = "a" if sign > 0 else "b" if sign < 0 else "tie"
    return Preview(row, found.prompt, a, b, preferred, found.group or found.prompt, found.domain)


def _lineage(source: Source, mapping: Mapping, role: Role) -> dict[str, Any]:
    if role == "pool":
        first, second = sorted((mapping.first, mapping.second))
        mapping = replace(mapping, shape="ab", first=first, second=second, preferred=None)
    return {
        "file": source.name,
        "sha256": source.sha256(),
        "format": source.format,
        "mapping": asdict(mapping),
    }


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text.encode("utf-8", "backslashreplace").decode()[:200]


def read_texts(path: str | Path) -> Iterator[tuple[int, str, dict[str, str]] | Problem]:
    """(row, prompt, {what it is: text}) for every row of a source, in its order; for files to be given rewards.

    A pair gives two texts ("chosen", "rejected", or "response_a", "response_b"), a row with a column named response (or
    completion, answer, output, text) gives one. Raises SerError when neither is found.
    """
    source = open_source(path)
    rows = source.rows()
    beginning = list(islice(rows, LOOKED_AT))
    columns = _columns(beginning)
    mapping = recognise(columns)
    single = recognise_single(columns)
    if mapping is None and single is None:
        raise SerError(
            f"{source.name} has {list_of(columns) or 'no columns'}; needed are a pair (prompt, chosen, rejected, or "
            "response_a, response_b), or prompt and response. Rename the columns."
        )
    names = ("chosen", "rejected") if mapping and mapping.shape == "chosen_rejected" else ("response_a", "response_b")
    if mapping is not None:
        mapping = replace(mapping, shape="chosen_rejected", preferred=None)  # the order of the columns, and no label
    for file, row, values in chain(beginning, rows):
        if mapping is not None:
            found = _pair_or_problem(values, mapping, True, row, file if len(source.files) > 1 else "")
            if isinstance(found, Problem):
                yield found
            else:
                yield row, found.prompt, dict(zip(names, (found.first, found.second), strict=True))
        elif isinstance(values, Broken):
            yield Problem(row, "", values.message)
        else:
            assert single is not None
            prompt, text = (values.get(name) if name else "" for name in single)
            if isinstance(prompt, str) and isinstance(text, str) and text.strip():
                yield row, prompt, {"response": text}
            else:
                yield Problem(row, single[1], "The prompt and the response must be texts, and the response not empty.")


def read_pairs(path: str | Path) -> Iterator[Extracted | Problem]:
    """Every row of a source of labelled pairs, in its order; nothing is stored.

    Raises SerError when the source cannot be read, its layout is not known, or it has no labels.
    """
    source = open_source(path)
    rows = source.rows()
    beginning = list(islice(rows, LOOKED_AT))
    columns = _columns(beginning)
    mapping = recognise(columns)
    if mapping is None or not mapping.has_labels:
        raise SerError(
            f"{source.name} has {list_of(columns) or 'no columns'}; needed are labelled pairs (prompt, chosen, rejected, or "
            "response_a, response_b and preferred). Rename the columns, or give another file."
        )
    for file, row, values in chain(beginning, rows):
        yield _pair_or_problem(values, mapping, True, row, file if len(source.files) > 1 else "")
