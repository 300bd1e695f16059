"""A finished set is published and listed, once and under a free name. Knows pairs and the list of sets; no file formats."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ser_backend import pairs
from ser_backend.errors import NotFound
from ser_backend.pairs import PairSet, PairWriter
from ser_backend.records import Dataset

LONGEST_NAME = 120


@dataclass(frozen=True, slots=True)
class Imported:
    dataset: Dataset
    already_there: bool  # the same pairs in the same role had been imported before; that data set is returned
    notes: list[str]  # sentences for the user


class Catalogue(Protocol):
    """What ingest needs of the store."""

    def add_dataset(self, dataset: Dataset) -> None: ...
    def datasets(self) -> list[Dataset]: ...


def descent(parent: Dataset | None) -> dict[str, Any]:
    """What the lineage of a newer version says of where it comes from; the ids of all versions before it, the oldest first."""
    if parent is None:
        return {}
    before = [*parent.lineage.get("ancestors", []), parent.id]
    return {"parent": parent.id, "parent_name": parent.name, "ancestors": before}


def keep(store: Catalogue, writer: PairWriter) -> Imported:
    """Publish and list what the writer holds, under a free name; or find that the same is stored already."""
    dataset, known, notes = writer.dataset, list(store.datasets()), []
    there = next((old for old in known if old.id == dataset.id), None)
    if there is not None:
        if not _has_files(there.id):
            writer.rename(there.name)
            writer.publish()
        said = f"The same pairs are stored already, in the same role, as {there.name!r}; nothing was added."
        return Imported(there, True, [said])
    if (free := _free_name(dataset.name, {old.name for old in known})) != dataset.name:
        notes.append(f"The name {dataset.name!r} was taken, so this data set is called {free!r}.")
        dataset = writer.rename(free)
    writer.publish()
    try:
        store.add_dataset(dataset)
    except BaseException:
        if not any(old.id == dataset.id for old in store.datasets()):  # another import of the same may have won
            pairs.delete(dataset.id)
        raise
    notes += _said_of(dataset) + _overlaps(dataset, known)
    return Imported(dataset, False, notes)


def stem(name: str) -> str:
    """hh.jsonl.gz -> hh; the name given by the user, or that of a hub set, has no such suffix."""
    name = named(name)
    path = Path(name)
    while path.suffix.lower() in (".gz", ".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet", ".arrow"):
        path = Path(path.stem)
    return str(path).strip() or name


def named(name: str) -> str:
    """A data set's name as it is kept."""
    return (
        "".join(c for c in name.encode("utf-8", "replace").decode() if c.isprintable())[:LONGEST_NAME].strip()
        or "pairs"
    )


def _free_name(name: str, taken: set[str]) -> str:
    free, n = name, 1
    while free in taken:
        n += 1
        free = f"{name} ({n})"
    return free


def _has_files(dataset_id: str) -> bool:
    try:
        PairSet.open(dataset_id)
    except NotFound:
        return False
    return True


def _said_of(dataset: Dataset) -> list[str]:
    notes = []
    if dataset.n_problems:
        rows = "1 row was" if dataset.n_problems == 1 else f"{dataset.n_problems:,} rows were"
        notes.append(f"{rows} left out; the problem list says which and why.")
    if dataset.n_ties:
        notes.append(f"{dataset.n_ties:,} of {dataset.n_pairs:,} pairs are ties.")
    return notes


def _overlaps(dataset: Dataset, known: Sequence[Dataset]) -> list[str]:
    """A sentence for each stored set that shares pairs or groups with this one."""
    new, notes = PairSet.open(dataset.id), []
    for old in known:
        try:
            shared = pairs.overlap(new, PairSet.open(old.id))
        except NotFound:
            continue
        same, group = len(shared.same_content), len(shared.same_group)
        if same or group:
            notes.append(
                f"{same:,} of {dataset.n_pairs:,} pairs are also in {old.name!r} ({old.role}), "
                f"and {group:,} belong to a prompt or group that is there as well."
            )
    return notes
