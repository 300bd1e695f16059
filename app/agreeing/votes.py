"""Answers themselves: pairs on which people disagree, flags and notes, and all votes as a file."""

import tempfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import components
import streamlit as st

from ser_backend import annotators, review, votes_file
from ser_backend.pairs import PairSet
from ser_backend.records import Pair, Review, Run
from ser_backend.review import Answers
from ser_backend.store import Store

MOST_PAIRS = 10  # shown with their texts
LONGEST = 600  # characters of a text shown here


def apart(answers: Answers, pool: PairSet, seed: PairSet, apart: Sequence[str]) -> None:
    if not apart:
        return
    said = review.of_pair(answers.standing)
    with st.expander(f"Where people disagree ({components.count(len(apart), 'pair')})", icon=":material/call_split:"):
        shown = apart[:MOST_PAIRS]
        if len(apart) > len(shown):
            st.caption(f"The first {len(shown):,} of {len(apart):,}, those without a majority first.")
        pairs = annotators.pairs_of(shown, pool, seed)
        for pair in shown:
            if pair in pairs:
                sides = annotators.sides(said[pair])
                _pair(pairs[pair], _by(sides["a"]), _by(sides["b"]))
                if sides["tie"]:
                    st.caption(f"tie: {components.plain(', '.join(sides['tie']))}")


def remarks(answers: Answers, pool: PairSet, seed: PairSet) -> None:
    found = annotators.remarks(answers.standing)
    if not found:
        return
    with st.expander(f"Flags and notes ({components.count(len(found), 'answer')})", icon=":material/flag:"):
        shown = found[:MOST_PAIRS]
        if len(found) > len(shown):
            st.caption(f"The newest {len(shown):,}; the files below hold all.")
        pairs = annotators.pairs_of(list(dict.fromkeys(row.pair for row in shown)), pool, seed)
        for row in shown:
            st.markdown(_remark(row))
            if row.pair in pairs:
                better = {"a": "left", "b": "right"}.get(row.preferred or "", "")
                _pair(pairs[row.pair], "", "", better)


def _remark(row: Review) -> str:
    at = datetime.fromtimestamp(row.answered_at).strftime("%d %b %H:%M")
    said = {"a": "a is better", "b": "b is better", "tie": "tie"}.get(row.preferred or "", "skipped")
    flag = ":orange[:material/flag: flagged] · " if row.flagged else ""
    note = f": {components.plain(' '.join(row.note.split()))}" if row.note else ""
    return f"{flag}**{components.plain(row.annotator)}**, {at}, {said}{note}"


def _by(names: Sequence[str]) -> str:
    return f" · {', '.join(names)}" if names else ""


def _pair(pair: Pair, by_a: str, by_b: str, better: str = "") -> None:
    a, b = pair.response_a, pair.response_b
    names = (f"Response a{by_a}", f"Response b{by_b}")
    st.html(components.pair_html(_cut(a.prompt), _cut(a.text), _cut(b.text), names, "card", better))


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def downloads(store: Store, run: Run) -> None:
    if not store.may("export"):
        return
    st.markdown("**All votes**")
    st.caption(
        "Every row as it was written, undone and changed ones too, with times, reasons, notes, and the model and guidelines in "
        "force. JSONL is exact. In CSV a text that a spreadsheet would take for a formula has an apostrophe before it."
    )
    with st.container(horizontal=True):
        for suffix, label, kind in ((".csv", "CSV", "text/csv"), (".jsonl", "JSONL", "application/jsonl")):
            st.download_button(
                label,
                lambda suffix=suffix: _votes(components.open_store(), run.id, suffix),  # of who is signed in then
                file_name=f"votes-{run.id}{suffix}",
                mime=kind,
                icon=":material/download:",
                on_click="ignore",
                key=f"votes{suffix}",
            )


def _votes(store: Store, run_id: str, suffix: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"votes{suffix}"
        votes_file.write_votes(store, run_id, path)
        return path.read_bytes()
