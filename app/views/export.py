"""Export: leave with a reward model and a preference set that say where every label came from."""

import io
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import charts
import components
import guide
import html_report
import sheet
import streamlit as st
from picture import show_figure

from ser_backend.alarms import alarms
from ser_backend.errors import SerError
from ser_backend.records import Run
from ser_backend.report import audited, warnings
from ser_backend.run_folder import RunFolder
from ser_backend.shipping import export
from ser_backend.store import Store

QUESTION = "What do you take home?"
COLUMNS_HELP = (
    "Columns prompt, chosen and rejected, as trainers such as TRL read them, and beside them where each label came from: "
    "origin (human, review or self), round, confidence, annotator, pair, group and source."
)
REPORT_HELP = (
    "What was run and what came of it: verdict, accuracy beside the control, what was kept and how right it is, answers of "
    "people, settings, cost, and what the figures do not say. Light and dark, and for paper."
)
TEXTS_HELP = (
    f"Off: no text of a pair is in the report. On: it shows {html_report.SAMPLE} self-labels with their prompts and "
    "responses, so mind who reads it."
)
# by what was trained: what the download is, the question that the switch asks, and its tooltip
KINDS = {
    "head": (
        "A linear reward head on the frozen base model. This program loads it; for other libraries, distil it.",
        "Include the base model",
        "With it the folder scores texts on a machine without this program's base model; it is about 90 MB larger.",
    ),
    "lora": (
        "A fine-tuned transformer (LoRA). It loads with plain transformers and trl; without its base model, with peft.",
        "Merge into the base model",
        "On: one plain model, which any library loads. Off: the adapter and the reward head alone, a few MB; whoever loads it "
        "needs the base model too.",
    ),
    "full": ("A fine-tuned transformer (all weights). It loads with plain transformers and trl.", "", ""),
}


def page() -> None:
    store = components.open_store()
    action = components.head(QUESTION, "A reward model with its card, and every label with its origin.")
    guide.strip(store, "export")
    run = components.run_picker(store)
    if run is None:
        components.nothing_yet("There is no run yet, so there is nothing to export.", "views/train.py", "Start one")
        return
    if not RunFolder.of(run.id).finished():
        components.nothing_yet(
            "This run has no finished round yet; its first model is what could be exported.",
            "views/watch.py",
            "Watch it",
        )
        return
    store.require("export")  # what is kept from before was read for somebody else
    counts = _summary(run.id, _as_of(store, run), store)
    if components.is_active(run):
        st.info("The run is under way: an export holds what its last finished round left.", icon=":material/info:")
    with components.errors_in_words():
        if said := export.trouble(run.id):
            st.error(components.plain(f"The last download could not be made: {said}"), icon=":material/error:")
        fit = export.shape(run.id).fit
        _page(store, run, counts, fit, action)


def _as_of(store: Store, run: Run) -> tuple[int, int, str, str]:
    """Changes with the rounds, the answers and the run's own facts; to read a million labels takes longer than to draw them."""
    newest = store.newest_reviews().get(run.id, (0, 0.0))[0]
    return len(RunFolder.of(run.id).finished()), newest, str(run.status), run.name


@st.cache_data(show_spinner=False, max_entries=32)
def _summary(run_id: str, as_of: tuple[int, int, str, str], _store: Store) -> dict[str, int]:
    return export.summary(_store, run_id)


@st.cache_data(show_spinner=False, max_entries=32)
def _card_of(run_id: str, as_of: tuple[int, int, str, str], with_base_model: bool, _store: Store) -> str:
    return export.card(_store, run_id, with_base_model)


@st.cache_data(show_spinner=False, max_entries=32)
def _warnings(run_id: str, as_of: tuple[int, int, str, str], _run: Run, _store: Store) -> list[str]:
    rounds = _store.rounds(run_id)
    notes = (RunFolder.of(run_id).json("data") or {"notes": []})["notes"]
    return warnings(rounds, notes, alarms(rounds, _run.config, audited(_store, run_id)))


def _page(
    store: Store, run: Run, counts: dict[str, int], fit: str, action: "st.delta_generator.DeltaGenerator"
) -> None:
    left, right = st.columns([5, 5], gap="large")
    with left:
        _labels(counts)
    with right:
        with_base_model = _downloads(store, run, fit)
    with action:
        _download(
            "Download everything",
            lambda: export.bundle(store, run.id, with_base_model).read_bytes(),
            f"ser-studio-{run.id}.zip",
            help="One zip: preferences, reward model with its card, and the report.",
            primary=True,
        )
    _distil(run, fit)
    _card(store, run, with_base_model)


def _labels(counts: dict[str, int]) -> None:
    show_figure(charts.origins(counts), "origins")
    total = sum(counts[origin] for origin in charts.ORIGIN_NAMES)
    words = [f"{components.count(total, 'preference')} in all."]
    if counts["ties"]:
        words.append(f"{components.count(counts['ties'], 'tie')} left out: chosen and rejected have no place for them.")
    if counts["held_out"]:
        words.append(f"{components.count(counts['held_out'], 'seed pair')} left out, so that they can go on measuring.")
    st.caption(" ".join(words))


def _downloads(store: Store, run: Run, fit: str) -> bool:
    """The parts one by one. Returns whether the base model is wanted."""
    what, question, tooltip = KINDS[fit]
    st.markdown("**Preferences**", help=COLUMNS_HELP)
    with st.container(horizontal=True):
        for suffix, label in ((".jsonl", "JSONL"), (".parquet", "Parquet")):
            _download(label, lambda suffix=suffix: _preferences(store, run.id, suffix), f"preferences-{run.id}{suffix}")
    st.markdown("**Reward model**")
    st.caption(what)
    with_base_model = st.toggle(question, value=True, help=tooltip) if question else True
    _download(
        "Reward model folder",
        lambda: _model_folder(export.bundle(store, run.id, with_base_model)),
        f"reward_model-{run.id}.zip",
        help="The folder with its card. Should the download fail, reload the page: it says why.",
    )
    _report(store, run)
    return with_base_model


def _report(store: Store, run: Run) -> None:
    """For whoever reads about the run elsewhere: one file."""
    st.markdown("**Report**", help=REPORT_HELP)
    with_texts = st.toggle("Include texts", key="report-texts", help=TEXTS_HELP)
    _download(
        "Report (HTML)",
        lambda: _report_file(store, run.id, html_report.SAMPLE if with_texts else 0),
        f"report-{run.id}.html",
        help="One file that opens in any browser, without a network. It is made when you press the button.",
    )


def _report_file(store: Store, run_id: str, sample: int) -> bytes:
    """A download cannot tell why it failed; the file itself does."""
    try:
        store.require("export")
        rounds, rows = store.rounds(run_id), store.reviews(run_id)
        as_of = (len(rounds), rows[-1].id if rows else 0, str(store.run(run_id).status))
        return _report_as_of(run_id, as_of, sample, store)
    except SerError as error:
        return sheet.page("Report", "<h1>The report could not be made</h1>", sheet.paragraph(error)).encode()


@st.cache_data(show_spinner=False, max_entries=8)
def _report_as_of(run_id: str, as_of: tuple[int, int, str], sample: int, _store: Store) -> bytes:
    return html_report.made(_store, run_id, sample).encode()


def _download(label: str, make: Callable[[], bytes], name: str, help: str | None = None, primary: bool = False) -> None:
    """The file is made when the button is pressed."""
    st.download_button(
        label,
        make,
        file_name=name,
        icon=":material/download:",
        type="primary" if primary else "secondary",
        on_click="ignore",
        help=help,
        key=f"download-{label}",
    )


def _preferences(store: Store, run_id: str, suffix: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"preferences{suffix}"
        export.write_preferences(store, run_id, path)
        return path.read_bytes()


def _model_folder(bundle: Path) -> bytes:
    """The reward_model folder of the bundle as a zip of its own."""
    out = io.BytesIO()
    with zipfile.ZipFile(bundle) as all_of_it, zipfile.ZipFile(out, "w") as part:
        for name in all_of_it.namelist():
            if "/reward_model/" in name:
                part.writestr(name.split("/", 1)[1], all_of_it.read(name))
    return out.getvalue()


def _distil(run: Run, fit: str) -> None:
    """What the command does; a page starts no training. Code is drawn when it is looked at: it loads more than the page."""
    label = f"Distil into {'a standard' if fit == 'head' else 'another'} model"
    with st.expander(label, icon=":material/science:", key=f"distil-{run.id}", on_change="rerun") as opened:
        if not opened.open:
            return
        why = "so that any library can load it" if fit == "head" else "for example a smaller one"
        st.markdown(
            f"Fine-tune a standard transformers model on this run's labels and on what its model says about the pool, {why}. "
            "It is measured against this run's model on the held-out pairs, and you are told what it costs in accuracy. "
            "Minutes to hours on a CPU; Ctrl+C stops it, and the same command goes on."
        )
        st.code(f"python -m ser_backend export {run.id} --out DIR --distil", language="bash")
        if facts := RunFolder.of(run.id).json("distilled/distil"):
            st.markdown(components.plain(f"Done before: {facts['sentence']}"))


def _card(store: Store, run: Run, with_base_model: bool) -> None:
    as_of = _as_of(store, run)
    if found := _warnings(run.id, as_of, run, store):
        with st.container(border=True):
            st.markdown("**Before you use it**")
            st.markdown("\n".join(f"- {components.plain(sentence)}" for sentence in found))
    with st.expander("Model card", icon=":material/description:", key=f"card-{run.id}", on_change="rerun") as opened:
        if opened.open:
            st.code(_card_of(run.id, as_of, with_base_model, store), language="markdown", wrap_lines=True)


page()
