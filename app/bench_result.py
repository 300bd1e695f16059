"""What came of a RewardBench file on Playground: the outcome in words, a figure, tables to take home. A part of that page."""

from pathlib import Path
from typing import Any

import charts
import components
import streamlit as st
from picture import show_figure

from ser_backend import rewardbench, table_file
from ser_backend.rewardbench.evaluation import of_json
from ser_backend.rewardbench.tables import LENGTH, TEXT_FORM

FILES = {
    "CSV": (".csv", "text/csv"),
    "LaTeX": (".tex", "text/plain"),
    "Markdown": (".md", "text/markdown"),
}


def draw(told: dict[str, Any]) -> None:
    found = of_json(told["found"])
    outcome, *limits = rewardbench.sentences(found)
    st.success(components.plain(outcome), icon=":material/check_circle:")
    if limits:
        st.caption("\n".join(f"- {components.plain(line)}" for line in limits))
    show_figure(charts.rewardbench(found), "rewardbench")
    made = rewardbench.tables(found)
    for table in made:
        with st.expander(table.title, icon=":material/table:"):
            st.dataframe(table.shown(), hide_index=True)
    if found.problems:
        with st.expander(f"Rows that could not be used ({found.n_problems:,})", icon=":material/warning:"):
            st.dataframe(
                [{"row": row, "problem": table_file.text(sentence)} for row, sentence in found.problems],
                hide_index=True,
            )
    st.caption(components.plain(f"{LENGTH} {TEXT_FORM}"))
    with st.container(horizontal=True):
        for label, (suffix, kind) in FILES.items():
            # a sheet that programs read holds one table: the subsets have everything by name
            given = made if suffix != ".csv" else [table for table in made if table.title == "Subsets"]
            _button(label, table_file.as_bytes(given, suffix), suffix, kind)
        out = Path(told["out"])
        _button("All figures (JSON)", out.read_bytes() if out.exists() else b"", ".json", "application/json")


def _button(label: str, content: bytes, suffix: str, kind: str) -> None:
    st.download_button(
        label,
        content,
        file_name=f"rewardbench{suffix}",
        mime=kind,
        icon=":material/download:",
        on_click="ignore",
        disabled=not content,
        key=f"rewardbench{suffix}",
    )
