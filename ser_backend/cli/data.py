"""Data sets: import, list."""

import argparse
from pathlib import Path

from ser_backend.cli.bar import Bar
from ser_backend.errors import NotFound
from ser_backend.records import ROLES, Dataset, Role
from ser_backend.store import Store


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    add = commands.add_parser("import", help="import a file, folder or Hugging Face data set")
    add.add_argument("file", help="file (.csv .tsv .json .jsonl .parquet, also .gz), folder, or hub name")
    add.add_argument("--role", required=True, choices=ROLES)
    add.add_argument("--name", help="name of the data set (default: the file's)")
    add.set_defaults(act=_import)

    listed = commands.add_parser("datasets", help="list imported data sets")
    listed.set_defaults(act=_datasets)


def _import(chosen: argparse.Namespace) -> int:
    dataset, notes = imported(Store.open(), chosen.file, chosen.role, chosen.name)
    print(f"{dataset.name}: {in_words(dataset)}")
    for note in notes:
        print(f"  {note}")
    return 0


def _datasets(_: argparse.Namespace) -> int:
    for dataset in Store.open().datasets():
        print(f"{dataset.role:8} {dataset.name}: {in_words(dataset)}")
    return 0


def stored(store: Store, source: str, role: Role) -> Dataset:
    """An imported data set by name, or a file that is imported now (or was before)."""
    try:
        return store.dataset(source)
    except NotFound:
        if not Path(source).exists() and "/" not in source and not Path(source).suffix:
            raise
    dataset, notes = imported(store, source, role, None)
    print(f"{dataset.name}: {in_words(dataset)}")
    for note in notes:
        print(f"  {note}")
    return dataset


def imported(store: Store, source: str, role: Role, name: str | None) -> tuple[Dataset, list[str]]:
    from ser_backend.ingest import import_source

    with Bar(f"Importing {Path(source).name}") as bar:
        found = import_source(store, source, role, name=name, progress=bar.show)
    return found.dataset, found.notes


def in_words(dataset: Dataset) -> str:
    return (
        f"{dataset.n_pairs:,} pairs, {dataset.n_responses:,} distinct responses, {dataset.n_groups:,} prompt groups, "
        f"{dataset.n_problems:,} rows left out"
    )
