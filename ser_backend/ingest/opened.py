"""A source with its first rows, and what its columns and the values of its preference column mean.

Knows layouts (shapes) and values (preferences); stores nothing.
"""

import json
from collections.abc import Iterator, Sequence
from collections.abc import Mapping as Given
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from ser_backend import pairs
from ser_backend.errors import SerError
from ser_backend.ingest.messages import SURROGATE
from ser_backend.ingest.preferences import MOST_COUNTED, Meaning, Values, judged, plainly, word_of
from ser_backend.ingest.readers import Source, open_source
from ser_backend.ingest.rows import Broken, Item
from ser_backend.ingest.shapes import (
    Extracted,
    Mapping,
    Reason,
    check_mapping,
    extract,
    likely,
    list_of,
    recognise,
    unlabelled_raw,
)
from ser_backend.records import Dataset, Problem, Role

LOOKED_AT = 200  # rows from which the columns are learnt and the preview is taken
VALUES_FROM = 10_000  # rows from which the values of the preference column are learnt: a second of reading at most
USES = ("prompt", "response_a", "response_b", "chosen", "rejected", "preferred", "group", "domain")
HOW_TO_MAP = (
    "Say which columns hold the prompt and the two responses, and which says what is preferred: on the page Data under "
    "Columns, on the command line (import, run, profile) with --map, such as --map prompt=X --map response_a=Y --map "
    "response_b=Z --map preferred=W."
)


@dataclass(frozen=True, slots=True)
class Opened:
    source: Source
    beginning: list[Item]
    columns: list[str]
    rest: Iterator[Item]  # what follows the beginning, in a source that cannot be read twice

    def again(self, columns: Sequence[str] | None = None) -> Iterator[Item]:
        """All rows from the first; columns as in Source.rows."""
        return chain(self.beginning, self.rest) if self.source.hub else self.source.rows(columns)


def open_rows(path: str | Path) -> Opened:
    """Raises SerError when the source cannot be read."""
    source = open_source(path)
    rows = source.rows()
    beginning = list(islice(rows, LOOKED_AT))
    names = dict.fromkeys(name for _, _, values in beginning if isinstance(values, dict) for name in values)
    return Opened(source, beginning, [name for name in names if name], rows)


def settle(opened: Opened, given: Mapping | None, labelled: bool) -> tuple[Mapping | None, Values | None]:
    """The mapping, given or recognised, with the numbers that were understood; None where the layout is not known. And what the
    preference column holds; None where there is none, or labels do not matter. Raises SerError when `given` does not fit."""
    if given is None:
        mapping = recognise(opened.columns)
    else:
        check_mapping(given, opened.columns)
        mapping = given
    if mapping is None or mapping.shape != "ab" or mapping.preferred is None or not labelled:
        return mapping, None
    values = _values(opened, mapping)
    return replace(mapping, values=tuple(sorted({**values.numbers, **dict(mapping.values)}.items()))), values


def _values(opened: Opened, mapping: Mapping) -> Values:
    """From the first rows. Whole texts of responses are understood row by row and not counted."""
    seen: dict[str, tuple[str, int]] = {}
    by_text = n = 0
    rows = iter(opened.beginning) if opened.source.hub else opened.source.rows(mapping.columns())
    complete = False
    with suppress(SerError):  # further on in the file: the import will say so
        for _, _, values in islice(rows, VALUES_FROM):
            n += 1
            if not isinstance(values, dict):
                continue
            value = values.get(mapping.preferred or "")
            if not (word := word_of(value)) or SURROGATE.search(word):  # the latter is turned away with its row
                continue
            if plainly(word, mapping.first, mapping.second) is None and _is_a_text(values, str(value).strip(), mapping):
                by_text += 1
            elif word in seen or len(seen) < MOST_COUNTED:
                shown, count = seen.get(word, (value.strip() if isinstance(value, str) else word, 0))
                seen[word] = shown, count + 1
        complete = next(iter(rows), None) is None
    said: dict[str, Meaning] = dict(mapping.values)  # type: ignore[arg-type]  # checked in check_mapping
    found = sorted(
        judged(seen, said, mapping.first, mapping.second, by_text > 0), key=lambda value: (-value.n, value.word)
    )  # fmt: skip
    understood = by_text + sum(value.n for value in found if value.meaning)
    return Values(mapping.preferred or "", tuple(found), n, complete, understood)


def _is_a_text(values: dict[str, Any], text: str, mapping: Mapping) -> bool:
    """Whether it is the whole text of just one of the two responses."""
    found = extract(values, replace(mapping, shape="chosen_rejected", preferred=None, values=()), True)
    return isinstance(found, Extracted) and text in (found.first.strip(), found.second.strip())


def mapped(path: str | Path, role: Role, columns: Given[str, str], values: Given[str, str]) -> Mapping:
    """The mapping that somebody names in part: the rest is recognised. columns: one of USES -> column, "" for none.

    values: as they stand -> meaning. A pool needs no preference, so what is said of one is left aside there. Raises SerError.
    """
    opened = open_rows(path)
    if unknown := [use for use in columns if use not in USES]:
        raise SerError(f"There is nothing called {unknown[0]!r} to map. Map one of {', '.join(USES)}.")
    base = recognise(opened.columns)
    named = dict(columns)
    by_name = "chosen" in named or "rejected" in named
    if by_name and ({"response_a", "response_b", "preferred"} & set(named)):
        raise SerError(
            "chosen and rejected say which response is preferred, so response_a, response_b and preferred have no place "
            "beside them. Map the one or the other."
        )
    by_letter = "response_a" in named or "response_b" in named
    shape = "chosen_rejected" if by_name else "ab" if by_letter or base is None else base.shape
    if base and base.shape == shape:
        known = {"prompt": base.prompt, "preferred": base.preferred, "group": base.group, "domain": base.domain}
        responses = (base.first, base.second)
    else:
        known, responses = dict(likely(opened.columns)), ("", "")
        for use in [use for use, column in known.items() if column in named.values()]:
            del known[use]
    ends = ("chosen", "rejected") if shape == "chosen_rejected" else ("response_a", "response_b")
    first, second = (named.get(use, column) for use, column in zip(ends, responses, strict=True))
    if not first or not second:
        raise SerError(
            f"The layout of {opened.source.name} is not known: it has {list_of(opened.columns)}. {HOW_TO_MAP}"
        )
    rest = {use: named.get(use, known.get(use)) or None for use in ("prompt", "preferred", "group", "domain")}
    said = tuple(sorted((word_of(value), meaning) for value, meaning in values.items()))
    if role == "pool":
        rest["preferred"], said = None, ()
    if shape == "chosen_rejected":
        rest["preferred"] = None
    mapping = Mapping(shape, rest["prompt"], first, second, rest["preferred"], rest["group"], rest["domain"], said)
    check_mapping(mapping, opened.columns)
    return mapping


def remembered(
    known: Sequence[Dataset], name: str, columns: Sequence[str], role: Role, parent: Dataset | None = None
) -> tuple[Mapping, Dataset] | None:
    """How the parent's source was read, or else one of this name: the newest set whose mapped columns are all here."""
    same_name = [one for one in known if one.lineage.get("file") == name]
    newest = sorted(same_name, key=lambda one: one.created_at, reverse=True)
    for dataset in [parent, *newest] if parent else newest:
        facts = dataset.lineage.get("mapping")
        with suppress(SerError, TypeError, AttributeError):  # written by another version, or made of answers
            mapping = Mapping(**{**facts, "values": tuple(sorted(facts.get("values", {}).items()))})  # type: ignore[dict-item,union-attr]
            check_mapping(mapping, columns)
            if role == "pool" or mapping.has_labels:
                return mapping, dataset
    return None


def unlabelled(mapping: Mapping) -> Mapping:
    """What of a mapping a pool may know: nothing of it depends on which response is preferred."""
    first, second = sorted((mapping.first, mapping.second))
    return replace(mapping, shape="ab", first=first, second=second, preferred=None, values=())


def same_reading(one: Mapping, other: Mapping, role: Role) -> bool:
    return unlabelled(one) == unlabelled(other) if role == "pool" else one == other


def pair_or_problem(
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
