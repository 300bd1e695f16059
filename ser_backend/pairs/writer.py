"""Writing a data set's folder, streamed. Knows nothing of file formats; which rows to add is decided in ingest."""

import hashlib
import json
import shutil
import tempfile
import time
from array import array
from dataclasses import asdict, replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ser_backend import home
from ser_backend.pairs.folder import (
    LABELS,
    PAIRS,
    RESPONSES,
    as_integers,
    group_key,
    hex_ids,
    read_table,
    smaller_is_a,
    take_rows,
)
from ser_backend.records import Dataset, Problem, Role, pair_id, response_ids

BATCH_PAIRS, BATCH_CHARS = 8192, 16_000_000  # a record batch ends at whichever comes first
FULL_PROBLEMS, RAW_CHARS = 10_000, 2_000  # problems that keep their raw row, and how much of it
ABANDONED_S = 24 * 3600  # a temporary folder this old belongs to an import that was killed


class PairWriter:
    """Streams pairs to disk; each distinct response and each distinct pair is stored once.

    Use: `with PairWriter("seed") as writer:` then add and reject rows, finish, publish. Until publish nothing is
    visible; leaving the block without it removes everything. Memory: the current batch, and some 250 bytes a pair at its peak.

    The same pair twice: the first row is kept and the later one becomes a problem that names it. The same pair with
    another label is a contradiction: both rows are left out, since nothing says which is right, and so the result does
    not depend on the order of the rows. (A pool has no labels and so no contradictions.)
    """

    def __init__(self, role: Role) -> None:
        self.role: Role = role
        self.n_problems = 0
        self.first_problem: Problem | None = None
        self._buffer: list[tuple[str, str, str, str, str, str, int, str, int, int, str, str, int]] = []
        self._buffer_chars = 0
        self._problems: list[Problem] = []
        self._pair_index, self._response_index = _FirstSeen(), _FirstSeen()
        self._rows = array("q")  # per pair: row of the source
        self._labels = array("b")  # per pair
        self._contradicted: dict[int, int] = {}  # pair -> the source row that first contradicts it
        self._ids: list[np.ndarray] = []  # per batch (n, 2) uint64: pair ids
        self._group_keys: list[np.ndarray] = []
        self._domain_keys: list[np.ndarray] = []
        self._n_responses = 0

    def __enter__(self) -> "PairWriter":
        _remove_abandoned(home.datasets_dir())
        self.folder = Path(tempfile.mkdtemp(dir=home.datasets_dir(), prefix=".import."))
        self._files = {name: pa.OSFile(str(self.folder / f"{name}.arrow"), "wb") for name in ("responses", "pairs")}
        self._responses_out = pa.ipc.new_stream(self._files["responses"], RESPONSES)
        self._pairs_out = pa.ipc.new_stream(self._files["pairs"], PAIRS)
        self._problems_out = (self.folder / "problems.jsonl").open("w", encoding="utf-8", newline="\n")
        return self

    def __exit__(self, *_: object) -> None:
        for file in (*self._files.values(), self._problems_out):
            if not file.closed:
                file.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def add(
        self,
        prompt: str,
        first: str,
        second: str,
        preferred: int,
        *,
        row: int,
        source: str,
        group: str = "",
        domain: str = "",
    ) -> None:
        """One pair as its source has it. preferred: +1 first, -1 second, 0 tie; a pool ignores it.

        group "" means: pairs of one prompt are one group, and a pair without a prompt is a group of its own.
        The texts must be encodable as UTF-8 and differ by more than outer white space.
        """
        first_id, second_id = response_ids(prompt, first, second)
        pair = pair_id(first_id, second_id)
        if (first_id < second_id) == smaller_is_a(pair):
            record = (pair, first_id, second_id, prompt, first, second, preferred)
        else:
            record = (pair, second_id, first_id, prompt, second, first, -preferred)
        if not group and not prompt.strip():
            group = pair
        prompt_key = group_key(prompt if prompt.strip() else pair)
        key = group_key(group) if group else prompt_key
        self._buffer.append((*record, group, key, prompt_key, domain, source, row))
        self._buffer_chars += len(prompt) + len(first) + len(second)
        if len(self._buffer) >= BATCH_PAIRS or self._buffer_chars >= BATCH_CHARS:
            self._flush()

    def reject(self, problem: Problem) -> None:
        """Note a rejected row. The raw row is cut, and left out after the first FULL_PROBLEMS problems."""
        self.n_problems += 1
        raw = problem.raw[:RAW_CHARS] if self.n_problems <= FULL_PROBLEMS else ""
        problem = printable(replace(problem, raw=raw))
        self.first_problem = self.first_problem or problem
        self._problems.append(problem)
        if len(self._problems) >= BATCH_PAIRS:
            self._flush()

    @property
    def n_pairs(self) -> int:
        """Pairs kept so far."""
        return len(self._rows) - len(self._contradicted) + len(self._buffer)

    def finish(self, name: str, lineage: dict[str, Any]) -> Dataset:
        """Close the files and say what they hold. The id follows from role, pairs and their order, labels, groups and
        domains; `unordered` is what it was before the order counted."""
        with home.disk_full_in_words(self.folder):
            self._flush()
            self._pair_index, self._response_index = _FirstSeen(), _FirstSeen()  # half of the memory, needed no more
            self._pairs_out.close()
            self._responses_out.close()
            for file in self._files.values():
                file.close()
            kept = self._leave_out_contradictions()
            self._write_problems()
            self._problems_out.close()
            labels = np.frombuffer(self._labels, dtype=np.int8)[kept]
            if self.role != "pool":
                with pa.OSFile(str(self.folder / "labels.arrow"), "wb") as file, pa.ipc.new_stream(file, LABELS) as out:
                    out.write_batch(pa.record_batch([labels], schema=LABELS))
            group_keys = _concatenate(self._group_keys)[kept]
            content, self.unordered = self._content_ids(kept)
            self.dataset = Dataset(
                id=content,
                name=name,
                role=self.role,
                n_pairs=int(kept.sum()),
                n_responses=self._n_responses,
                n_groups=len(np.unique(group_keys)),
                n_ties=int((labels == 0).sum()) if self.role != "pool" else 0,
                n_problems=self.n_problems,
                created_at=datetime.now(UTC).isoformat(timespec="seconds"),
                lineage=lineage,
            )
            self._write_meta()
        return self.dataset

    def pair_keys(self) -> np.ndarray:
        """As PairSet's, after finish and before publish."""
        return hex_ids(read_table(self.folder / "pairs.arrow").column("id"))

    def response_keys(self) -> np.ndarray:
        return hex_ids(read_table(self.folder / "responses.arrow").column("id"))

    def rename(self, name: str, id: str = "") -> Dataset:
        """After finish, before publish. id: that of a set made by an earlier version, in whose place this is put."""
        self.dataset = replace(self.dataset, name=name, id=id or self.dataset.id)
        self._write_meta()
        return self.dataset

    def publish(self) -> None:
        """Put the finished folder in its place, all of it or nothing."""
        with home.atomic_folder(home.datasets_dir() / self.dataset.id) as folder:
            for file in self.folder.iterdir():
                file.rename(folder / file.name)

    def _write_meta(self) -> None:
        meta = json.dumps(asdict(self.dataset), ensure_ascii=False, indent=1)
        (self.folder / "meta.json").write_text(meta + "\n", encoding="utf-8")

    def _flush(self) -> None:
        with home.disk_full_in_words(self.folder):
            if self._buffer:
                self._write_pairs()
            self._write_problems()

    def _write_pairs(self) -> None:
        columns = list(zip(*self._buffer, strict=True))
        pairs, ids_a, ids_b, prompts, texts_a, texts_b, labels, groups, keys, prompt_keys, domains, sources, rows = (
            columns
        )
        self._buffer.clear()
        self._buffer_chars = 0
        n_before = len(self._rows)
        ids = as_integers("".join(pairs))
        place, new_pairs = self._pair_index.add(ids[:, 0], n_before)
        new = new_pairs.tolist()
        self._rows.extend(rows[i] for i in new)
        self._labels.extend([0] * len(new) if self.role == "pool" else [labels[i] for i in new])
        for i in np.setdiff1d(np.arange(len(pairs)), new_pairs).tolist():
            self._repeated(int(place[i]), labels[i], rows[i], prompts[i], texts_a[i], texts_b[i])
        if not new:
            return
        if len(new) < len(pairs):
            columns = [tuple([column[i] for i in new]) for column in columns]
            pairs, ids_a, ids_b, prompts, texts_a, texts_b, _, groups, keys, prompt_keys, domains, sources, _ = columns
        both = list(chain.from_iterable(zip(ids_a, ids_b, strict=True)))
        response_rows, unseen = self._response_index.add(as_integers("".join(both))[:, 0], self._n_responses)
        new_responses = unseen.tolist()
        self._n_responses += len(new_responses)
        texts = list(chain.from_iterable(zip(texts_a, texts_b, strict=True)))
        stored = [
            [both[i] for i in new_responses],
            [prompts[i // 2] for i in new_responses],
            [texts[i] for i in new_responses],
        ]
        self._responses_out.write_batch(pa.record_batch([pa.array(c, pa.string()) for c in stored], schema=RESPONSES))
        group_keys = np.array(keys, dtype=np.uint64)
        written = [
            pa.array(pairs, pa.string()),
            pa.array(response_rows[0::2].astype(np.int32)),
            pa.array(response_rows[1::2].astype(np.int32)),
            pa.array(groups, pa.string()),
            pa.array(group_keys),
            pa.array(prompt_keys, pa.uint64()),
            pa.array(domains, pa.string()),
            pa.array(sources, pa.string()),
        ]
        self._pairs_out.write_batch(pa.record_batch(written, schema=PAIRS))
        self._ids.append(ids[new_pairs])
        self._group_keys.append(group_keys)
        domain_keys = {domain: group_key(domain) if domain else 0 for domain in set(domains)}
        self._domain_keys.append(np.array([domain_keys[domain] for domain in domains], dtype=np.uint64))

    def _repeated(self, pair: int, label: int, row: int, prompt: str, text_a: str, text_b: str) -> None:
        first = self._rows[pair]
        if self.role == "pool" or label == self._labels[pair]:
            message = f"The same pair as row {first}, which is kept; a pair counts once."
        else:
            self._contradicted.setdefault(pair, row)
            message = (
                f"The same pair as row {first} with another preference; "
                "both rows were left out, since nothing says which is right."
            )
        self.reject(Problem(row, "", message, _raw_pair(prompt, text_a, text_b)))

    def _leave_out_contradictions(self) -> np.ndarray:
        """Rewrite both files without contradicted pairs, as if their rows had never been there. Returns bool (pairs written,):
        which are kept."""
        kept = np.ones(len(self._rows), dtype=bool)
        if not self._contradicted:
            return kept
        left_out = sorted(self._contradicted)
        kept[left_out] = False
        pairs, responses = read_table(self.folder / "pairs.arrow"), read_table(self.folder / "responses.arrow")
        for pair, record in zip(left_out, take_rows(pairs, left_out), strict=True):
            a, b = take_rows(responses, [record["a"], record["b"]])
            message = (
                f"Row {self._contradicted[pair]} holds the same pair with another preference; "
                "both rows were left out, since nothing says which is right."
            )
            self.reject(Problem(self._rows[pair], "", message, _raw_pair(a["prompt"], a["text"], b["text"])))
        both = np.stack([pairs.column(side).to_numpy()[kept] for side in "ab"], axis=1).ravel()
        used, first = np.unique(both, return_index=True)
        order = used[np.argsort(first)]  # of first use, as in a file without the contradictions
        new_row = np.zeros(len(responses), dtype=np.int32)
        new_row[order] = np.arange(len(order), dtype=np.int32)
        self._n_responses = len(order)

        def renumbered(batch: pa.RecordBatch) -> pa.RecordBatch:
            for column in ("a", "b"):
                values = pa.array(new_row[batch.column(column).to_numpy()])
                batch = batch.set_column(batch.schema.get_field_index(column), PAIRS.field(column), values)
            return batch

        _reorder(self.folder / "responses.arrow", responses, order)
        _rewrite(self.folder / "pairs.arrow", kept, renumbered)
        return kept

    def _content_ids(self, kept: np.ndarray) -> tuple[str, str]:
        """Of the rows in their order, and as earlier versions made it, whatever their order.

        What a run keeps is aligned with the rows, so the same pairs in another order are another set; the order of the
        responses follows from it. Groups and domains count: pairs grouped otherwise are split otherwise.
        """
        facts = np.zeros(len(kept), dtype=[("id", "<u8", 2), ("group", "<u8"), ("domain", "<u8"), ("label", "<i8")])
        if len(kept):
            facts["id"] = np.concatenate(self._ids)
        facts["group"], facts["domain"] = _concatenate(self._group_keys), _concatenate(self._domain_keys)
        facts["label"] = np.frombuffer(self._labels, dtype=np.int8)
        if not kept.all():
            facts = facts[kept]
        role = self.role.encode()
        ordered = hashlib.blake2b(role + b"\0in order\0" + facts.tobytes(), digest_size=16).hexdigest()
        facts = facts[np.lexsort((facts["id"][:, 1], facts["id"][:, 0]))]
        return ordered, hashlib.blake2b(role + b"\0" + facts.tobytes(), digest_size=16).hexdigest()

    def _write_problems(self) -> None:
        for problem in sorted(self._problems, key=lambda p: p.row):
            self._problems_out.write(json.dumps(asdict(problem), ensure_ascii=False) + "\n")
        self._problems.clear()


class _FirstSeen:
    """64-bit keys -> the row each was first seen at. Sorted runs that double in size: 16 bytes a key, all in numpy.

    64 of the ids' 128 bits: among 10 million distinct texts two meet by accident with probability 3 in a million.
    """

    def __init__(self) -> None:
        self._runs: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, keys: np.ndarray, first_row: int) -> tuple[np.ndarray, np.ndarray]:
        """keys: uint64 (n,); new ones get first_row, first_row + 1, ... in their order.

        Returns int64 (n,), the row of each key, and int64 (m,), the positions of the m new ones, ascending.
        """
        unique, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        rows = np.full(len(unique), -1, dtype=np.int64)
        for run_keys, run_rows in self._runs:
            places = np.minimum(np.searchsorted(run_keys, unique), len(run_keys) - 1)
            found = run_keys[places] == unique
            rows[found] = run_rows[places[found]]
        unseen = np.flatnonzero(rows < 0)
        unseen = unseen[np.argsort(first[unseen])]
        rows[unseen] = np.arange(first_row, first_row + len(unseen))
        if len(unseen):
            in_order = np.sort(unseen)
            self._runs.append((unique[in_order], rows[in_order]))
        while len(self._runs) > 1 and len(self._runs[-2][0]) <= 2 * len(self._runs[-1][0]):
            merged = [np.concatenate(parts) for parts in zip(self._runs.pop(-2), self._runs.pop(), strict=True)]
            order = np.argsort(merged[0])
            self._runs.append((merged[0][order], merged[1][order]))
        return rows[inverse], first[unseen]


def _reorder(path: Path, table: pa.Table, rows: np.ndarray) -> None:
    new = path.with_suffix(".new")
    with pa.OSFile(str(new), "wb") as sink, pa.ipc.new_stream(sink, RESPONSES) as out:
        for begin in range(0, len(rows), BATCH_PAIRS):
            found = take_rows(table, rows[begin : begin + BATCH_PAIRS])
            out.write_batch(pa.RecordBatch.from_pylist(found, schema=RESPONSES))
    new.replace(path)


def _rewrite(path: Path, kept: np.ndarray, change: Any) -> None:
    new = path.with_suffix(".new")
    with pa.memory_map(str(path)) as source, pa.OSFile(str(new), "wb") as sink:
        reader = pa.ipc.open_stream(source)
        start = 0
        with pa.ipc.new_stream(sink, reader.schema) as out:
            for batch in reader:
                mask = kept[start : start + len(batch)]
                start += len(batch)
                if mask.any():
                    out.write_batch(change(batch.filter(pa.array(mask))))
    new.replace(path)


def _concatenate(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.uint64)


def _raw_pair(prompt: str, text_a: str, text_b: str) -> str:
    """A row for a problem list, in the order a, b, which tells nothing about the label."""
    return json.dumps({"prompt": prompt, "response_a": text_a, "response_b": text_b}, ensure_ascii=False)[:RAW_CHARS]


def printable(problem: Problem) -> Problem:
    """A row rejected for its bytes holds lone surrogates, which no file and no page can."""
    field, message, raw = (
        text.encode("utf-8", "backslashreplace").decode()[:RAW_CHARS]
        for text in (problem.field, problem.message, problem.raw)
    )
    return Problem(problem.row, field, message, raw)


def _remove_abandoned(folder: Path) -> None:
    for path in folder.glob(".*"):
        try:
            if path.is_dir() and time.time() - path.stat().st_mtime > ABANDONED_S:
                shutil.rmtree(path, ignore_errors=True)
        except OSError:
            continue  # another import just finished or removed it
