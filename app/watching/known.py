"""What Watch shows of a run, kept for all sessions as long as it stays the same: by round, and by the newest answer."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import streamlit as st

from ser_backend import audit_groups, buckets, labels_table, report
from ser_backend.pairs import PairSet
from ser_backend.records import Interval, Round
from ser_backend.review import Answers
from ser_backend.run_folder import RunFolder
from ser_backend.store import Store


def stamp(folder: RunFolder) -> tuple[int, int]:
    """Changes when a round is finished, or played once more: how many there are, and when the newest was written."""
    finished = folder.finished()
    return (len(finished), _written(folder.round_path(finished[-1]))) if finished else (0, 0)


def rounds(folder: RunFolder) -> list[Round]:
    """From the folder, where a round appears whole. Raises SerError."""
    return _rounds(str(folder.path), stamp(folder))


@st.cache_resource(show_spinner=False, max_entries=32)
def _rounds(path: str, at: tuple[int, int]) -> list[Round]:
    return list(RunFolder(Path(path)).rounds())


@st.cache_resource(show_spinner=False, max_entries=4)
def pool(dataset_id: str) -> PairSet:
    return PairSet.open(dataset_id)


@st.cache_resource(show_spinner=False, max_entries=8)
def _answers(run_id: str, _store: Store) -> Answers:
    return Answers(_store, run_id)


def answers(store: Store, run_id: str) -> Answers:
    """Up to date; only what is new is read. store: one that acts for nobody in particular, for it is kept."""
    return _answers(run_id, store).refresh()


def newest(answered: Answers) -> int:
    return answered.rows[-1].id if answered.rows else 0


def audited(run_id: str, answered: Answers) -> Mapping[int, Interval]:
    return _audited(run_id, newest(answered), answered)


@st.cache_resource(show_spinner=False, max_entries=8)
def _audited(run_id: str, at: int, _answered: Answers) -> Mapping[int, Interval]:
    return report.audited_of(_answered.rows)


@st.cache_resource(show_spinner=False, max_entries=3)
def labels(run_id: str, index: int, at: tuple[int, int], _store: Store) -> labels_table.Labels:
    """20 bytes a pair."""
    return labels_table.of_round(_store, run_id, index)


@st.cache_resource(show_spinner=False, max_entries=6)
def order(
    run_id: str,
    index: int,
    at: tuple[int, int],
    answered: int,
    wanted: labels_table.Filter,
    by: labels_table.Order,
    _labels: labels_table.Labels,
    _checks: labels_table.Checked,
) -> np.ndarray:
    """Rows of the pool that pass a filter. answered: id of the newest answer."""
    return labels_table.rows_of(_labels, wanted, by, _checks)


@st.cache_resource(show_spinner=False, max_entries=8)
def checked(run_id: str, at: int, _answered: Answers, _pool: PairSet) -> labels_table.Checked:
    return labels_table.checked(_answered.rows, _pool)


@st.cache_resource(show_spinner=False, max_entries=8)
def audited_by_group(
    run_id: str, at: int, _answered: Answers, _pool: PairSet, _labels: labels_table.Labels
) -> Mapping[int, audit_groups.Groups]:
    found = _labels
    longer_by = found.longer_by * found.label  # of a over b: the label's sign twice is none
    return audit_groups.audited_by_group(_answered.rows, _pool, longer_by, found.domain, found.domains)


@st.cache_resource(show_spinner=False, max_entries=8)
def truth(run_id: str, _store: Store) -> buckets.Truth:
    return buckets.truth(_store, run_id)


@st.cache_resource(show_spinner=False, max_entries=32)
def heldout(
    run_id: str, index: int, at: tuple[int, int], control: bool, _round: Round, _truth: buckets.Truth
) -> buckets.Heldout | None:
    return buckets.of_round(_round, run_id, _truth, control)


def _written(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:  # replaced this moment
        return 0
