"""A file of responses on Playground: given to the process that holds the model, watched, taken home. A part of that page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bench_result
import charts
import components
import state
import streamlit as st
import who
from picture import show_figure

from ser_backend.errors import SerError
from ser_backend.scorer import client
from ser_backend.scorer.choice import Choice
from ser_backend.store import Store

EVERY_S = 1.0
SCORE, BEST, BENCH = "Score a file", "Best of n", "RewardBench file"
OFFSET = (
    "A reward has an arbitrary offset: only the difference between responses to one prompt means anything. The probability "
    "that one is preferred to another is read off that difference (Bradley and Terry)."
)
FILES = {
    SCORE: (
        "score",
        "Score the file",
        "Rows with prompt and response, or pairs in any format that Data imports. You get the same rows with their rewards.",
    ),
    BEST: (
        "best_of",
        "Find the best",
        "Rows with a prompt and a list of responses, or several rows with the same prompt. You get the best response of each.",
    ),
    BENCH: (
        "rewardbench",
        "Measure the model",
        "The file of RewardBench 1 or 2 as its authors publish it; fetch it yourself. You get accuracy by subset and section.",
    ),
}
BEST_HELP = (
    "The gain is in the judging model's own reward, which best-of-n climbs: it does not say that people would agree. Each "
    "point is the mean over all subsets of n responses, against one response taken at random; the interval is a bootstrap over "
    "prompts."
)


def draw(store: Store, what: str, found: Sequence[Choice], action: "st.delta_generator.DeltaGenerator") -> None:
    draft = state.session().playground
    kind, button, says = FILES[what]
    st.markdown(says)
    labels = {one.name: one.label for one in found}
    left, right = st.columns(2)
    with left:
        model = st.selectbox("Model", list(labels), format_func=labels.__getitem__)
        path = st.text_input("Path of a file on this server", placeholder="or upload one").strip()
    with right:
        upload = st.file_uploader("A file: CSV, JSON, JSONL or Parquet", key=f"playground-file-{kind}")
    told = _told(store, draft)
    under_way = bool(told and told["state"] == "running")
    with action:
        pressed = st.button(button, type="primary", icon=":material/play_arrow:", disabled=under_way)
    if pressed:
        draft.file = ""
        if upload is None and not path:
            st.info("Upload a file, or give the path of one.", icon=":material/info:")
            return
        with st.spinner("Starting."):
            source = str(client.keep_upload(store, upload.name, upload.getbuffer())) if upload is not None else path
            draft.file = client.begin_file(store, kind, model, source)
        st.rerun()
    if told and told["what"] == kind:
        st.fragment(_progress, run_every=EVERY_S if under_way else None)(store, under_way)


def _told(store: Store, draft: state.AtPlayground) -> dict[str, Any] | None:
    if not draft.file:
        return None
    try:
        return client.look_at_file(store, draft.file)
    except SerError as error:
        draft.file = ""
        st.warning(components.plain(str(error)), icon=":material/warning:")
        return None


def _progress(store: Store, was_under_way: bool) -> None:
    who.keep_up(store)
    draft = state.session().playground
    told = _told(store, draft)
    if told is None:
        return
    if told["state"] == "running":
        share = told["done"] / told["total"] if told["total"] else 0.0
        text = (
            f"{told['done']:,} of {told['total']:,} texts"
            if told["total"]
            else "Loading the model and reading the file."
        )
        st.progress(min(1.0, share), text)
        if st.button("Stop", icon=":material/stop_circle:", key="stop-file"):
            client.stop_file(store, draft.file)
        return
    if was_under_way:
        st.rerun()  # the whole page once more: other buttons, no timer
    if told["state"] != "done":
        show = st.info if told["state"] == "stopped" else st.error
        show(components.plain(told["said"]))
        return
    if told["what"] == "rewardbench":
        bench_result.draw(told)
    else:
        _result(told)


def _result(told: dict[str, Any]) -> None:
    found, out = told["found"], Path(told["out"])
    bad = f" {components.count(found['problems'], 'row')} could not be used." if found["problems"] else ""
    done = found.get("in_words") or f"Rewards for {components.count(found['rows'], 'row')}."
    st.success(components.plain(done + bad), icon=":material/check_circle:")
    st.download_button(
        "Download the result",
        out.read_bytes,
        file_name=f"{told['what'].replace('_', '-')}.jsonl",
        mime="application/jsonl",
        icon=":material/download:",
        on_click="ignore",
        disabled=not out.exists(),
    )
    for note in found["notes"]:
        st.caption(components.plain(note))
    if "curve" in found:
        keys = ("n", "kl", "gain", "low", "high", "prompts")
        points = [tuple(point[key] for key in keys) for point in found["curve"]]
        show_figure(charts.best_of(points), "best-of")
        st.caption(BEST_HELP)
    else:
        st.caption(OFFSET)
