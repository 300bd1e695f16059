"""The import: source, columns, look, import. What has been chosen stays until it is imported, whatever goes wrong meanwhile."""

import shutil
import time
from pathlib import Path

import components
import state
import streamlit as st

from ser_backend import home, ingest, pairs, profile, versions
from ser_backend.errors import NotFound, SerError
from ser_backend.ingest import Inspection, Mapping
from ser_backend.records import ROLES, Dataset, Role
from ser_backend.store import Store

SUFFIXES = ["jsonl", "json", "ndjson", "csv", "tsv", "parquet", "arrow", "gz"]
ABANDONED_S = 24 * 3600  # an upload that was never imported is removed after a day
LAYOUTS = {
    "chosen_rejected": "one column holds the preferred response, another the other",
    "ab": "two columns hold the responses; a third says which is preferred",
}
NONE = "(none)"
STEPS = ("Source", "Columns", "Look", "Import")
STEPS_STYLE = """<style>
.ser-wizard { display: flex; gap: .4rem; list-style: none; margin: 0 !important; padding: 0 !important; }
.ser-wizard li { flex: 1 1 0; min-width: 0; margin: 0 !important; padding: .35rem 0 0; font-size: .85rem; opacity: .7;
  border-top: 3px solid color-mix(in srgb, currentColor 22%, transparent); white-space: nowrap; }
.ser-wizard li.done { border-color: #119D76; opacity: .85; }
.ser-wizard li.now { border-color: var(--st-primary-color, #6D66F0); font-weight: 600; opacity: 1; }
</style>"""


def wizard(store: Store, known: list[Dataset]) -> None:
    session = state.session()
    with st.container(border=True):
        st.subheader("Import", anchor=False)
        steps = st.empty()
        first, second = st.columns(2)
        with first:
            role: Role = st.segmented_control(
                "These pairs are",
                ROLES,
                default="seed",
                required=True,
                format_func=components.ROLE_NAMES.__getitem__,
                key=state.ROLE,
            )
            st.caption(components.ROLE_HELP[role])
        with second:
            way = st.segmented_control(
                "They come from", ["a file", "a path or hub name"], default="a file", required=True
            )
        if way == "a file":
            uploaded = st.file_uploader(
                "File", type=SUFFIXES, key=f"{state.UPLOAD}-{session.uploads}", label_visibility="collapsed"
            )
            path = str(_keep(uploaded)) if uploaded else ""
        else:
            path = st.text_input(
                "Path or hub name",
                placeholder="/data/pairs.jsonl, a folder, or trl-lib/ultrafeedback_binarized",
                help="A file or folder on the machine that serves this page, or the name of a Hugging Face data set.",
            ).strip()
        at = 0
        if path:
            with components.errors_in_words():
                at = _look(store, known, path, role)
        steps.html(_steps(at))


def _steps(at: int) -> str:
    """at: the step that waits for the user."""
    items = []
    for number, name in enumerate(STEPS):
        kind, mark = (
            ("done", "✓") if number < at else ("now", str(number + 1)) if number == at else ("", str(number + 1))
        )
        current = ' aria-current="step"' if number == at else ""
        items.append(f'<li class="{kind}"{current}>{mark} {name}</li>')
    return f'{STEPS_STYLE}<ol class="ser-wizard">{"".join(items)}</ol>'


def _keep(uploaded: "st.typing.UploadedFile") -> Path:
    """The uploaded bytes as a file of the same name, since its suffix says what it is."""
    folder = home.cache_dir() / "uploads"
    for old in folder.glob("*"):
        if time.time() - old.stat().st_mtime > ABANDONED_S:
            shutil.rmtree(old, ignore_errors=True)
    path = folder / uploaded.file_id / (Path(uploaded.name).name or "upload")
    if not path.exists():
        with home.atomic_file(path) as temporary, temporary.open("wb") as out:
            shutil.copyfileobj(uploaded, out)
    return path


@st.cache_data(show_spinner=False, max_entries=16, ttl=600)
def _inspected(path: str, stamp: float, mapping: Mapping | None, role: Role) -> Inspection:
    """stamp: when the file was changed, so that another under the same name is looked at anew."""
    return ingest.inspect(path, mapping=mapping, role=role)


def _stamp(path: str) -> float:
    try:
        return Path(path).expanduser().stat().st_mtime
    except (OSError, ValueError, RuntimeError):
        return 0.0  # a hub name, or nothing: ingest says which


def _look(store: Store, known: list[Dataset], path: str, role: Role) -> int:
    """What the source looks like, the columns to map, the first pairs, and the button that imports it. Returns the step."""
    found = _inspected(path, _stamp(path), None, role)
    st.markdown(f"**{components.plain(found.name)}** · {found.format} · {components.plain(found.shape)}")
    mapping = _map(found, path, role)
    if mapping is None:
        return 1
    if mapping != found.mapping:
        found = _inspected(path, _stamp(path), mapping, role)
    _preview(found)
    if role != "pool" and not found.has_labels:
        st.warning(
            "Nothing here says which response is preferred, and a "
            f"{components.ROLE_NAMES[role].lower()} set needs that. Map the column that says it, or import this as a pool.",
            icon=":material/warning:",
        )
        return 1
    if not found.preview:
        return 2
    left, middle, right = st.columns([4, 4, 3], vertical_alignment="bottom")
    name = left.text_input("Name", placeholder=Path(found.name).name, help="What this data set will be called here.")
    newest = {family.newest.id: family.newest for family in versions.families([d for d in known if d.role == role])}
    parent = middle.selectbox(
        "A newer version of",
        [None, *newest],
        format_func=lambda id_: newest[id_].name if id_ else "nothing: a set of its own",
        help="The two are then listed together, with what changed between them. The older one stays as it is.",
        disabled=not newest,
    )
    with right.container(horizontal=True, horizontal_alignment="right"):
        label = f"Import as {components.ROLE_NAMES[role].lower()}"
        if st.button(label, type="primary", icon=":material/download_done:"):
            _import(store, path, role, name.strip() or None, mapping, newest.get(parent or ""))
    return 3


# ---- columns


def _map(found: Inspection, path: str, role: Role) -> Mapping | None:
    """The mapping: recognised and open to change, or asked for."""
    known = found.mapping
    if known is None:
        st.warning("The layout is not one we know. Say which column holds what.", icon=":material/help:")
        st.dataframe(found.examples, hide_index=True)
    with st.expander("Columns", expanded=known is None, icon=":material/view_column:"):
        key = f"map-{path}-{role}-"

        def column(label: str, value: str | None, optional: bool = True, help: str | None = None) -> str | None:
            options = [NONE, *found.columns] if optional else found.columns
            extra = [value] if value and value not in options else []  # "instruction + input"
            options = [*options, *extra]
            index = options.index(value) if value in options else 0 if optional else None
            chosen = st.selectbox(label, options, index, key=key + label, help=help, placeholder="Choose a column")
            return None if chosen == NONE else chosen

        shape = st.radio(
            "Layout",
            list(LAYOUTS),
            index=list(LAYOUTS).index(known.shape) if known else 1,
            format_func=LAYOUTS.__getitem__,
            key=key + "layout",
            help="A pool needs no column that says which is preferred.",
        )
        by_name = shape == "chosen_rejected"
        left, middle, right = st.columns(3)
        with left:
            first = column("Preferred response" if by_name else "Response 1", known and known.first, optional=False)
            prompt = column(
                "Prompt", known and known.prompt, help="Without one, the prompt is what both responses begin with."
            )
        with middle:
            second = column("Other response" if by_name else "Response 2", known and known.second, optional=False)
            group = column(
                "Group", known and known.group, help="Rows of one group are never split between training and measuring."
            )
        with right:
            preferred = None if by_name else column("Which is preferred", known and known.preferred)
            domain = column("Domain", known and known.domain, help="A topic, for reports by topic.")
    if not first or not second:
        st.caption("Choose the two columns that hold the responses to see the first pairs.")
        return None
    return Mapping(shape, prompt, first, second, preferred, group, domain)


# ---- look


def _preview(found: Inspection) -> None:
    if found.kinds:
        n = sum(kind.n for kind in found.kinds)
        label = f"{n:,} of the first {found.n_rows:,} rows cannot be used: {kind_in_words(found.kinds[0])}"
        with st.expander(components.plain(label), expanded=not found.preview, icon=":material/report:"):
            kind_table(found.kinds)
            st.caption(f"The first {len(found.problems):,} of them, as they stand in the source:")
            components.problem_table(found.problems)
    if not found.preview:
        st.warning(
            "None of the first rows can be used. Map other columns, or mend the source.", icon=":material/warning:"
        )
        return
    st.markdown(f"**The first {components.count(len(found.preview), 'pair')}, as they will be stored**")
    for tab, pair in zip(st.tabs([f"Row {p.row}" for p in found.preview]), found.preview, strict=True):
        better = {"a": "left", "b": "right"}.get(pair.preferred or "", "")
        names = tuple(
            f"Response {side}"
            + (" · preferred" if pair.preferred == side else " · tie" if pair.preferred == "tie" else "")
            for side in "ab"
        )
        tab.html(components.pair_html(pair.prompt, pair.response_a, pair.response_b, names, "card", better))


def kind_in_words(kind: pairs.ProblemKind) -> str:
    """'312 rows: response: The response is empty.'"""
    return f"{components.count(kind.n, 'row')}: {kind.field + ': ' if kind.field else ''}{kind.message}"


def kind_table(kinds: list[pairs.ProblemKind]) -> None:
    st.dataframe(
        [{"rows": k.n, "field": k.field, "problem": k.message, "first in row": k.first_row} for k in kinds],
        hide_index=True,
        column_config={
            "rows": st.column_config.NumberColumn(width=70, format="localized"),
            "field": st.column_config.TextColumn(width=130),
            "problem": st.column_config.TextColumn(width="large"),
            "first in row": st.column_config.NumberColumn(width=90, format="%d"),
        },
    )


# ---- import


def _import(store: Store, path: str, role: Role, name: str | None, mapping: Mapping, parent: Dataset | None) -> None:
    session = state.session()
    bar = st.progress(0.0, "Reading ...")
    begun = time.monotonic()

    def progress(done: int, size: int, rows: int) -> None:
        bar.progress(min(1.0, done / size) if size else 0.0, reading(done, size, rows, time.monotonic() - begun))

    try:
        found = ingest.import_source(
            store, path, role, name=name, mapping=mapping, progress=progress, parent=parent
        )  # fmt: skip
    except (SerError, OSError) as error:
        bar.empty()
        said = (
            str(error) if isinstance(error, SerError) else f"The source could not be read ({error.strerror or error})."
        )
        kept = "Nothing was stored. Your file, columns and name are still here: change what is wrong and try again."
        st.error(components.plain(f"{said} {kept}"), icon=":material/error:")
        return
    bar.progress(1.0, "Stored. Counting what is in it ...")
    count_after(store, found.dataset)
    bar.empty()
    session.imported = [found]
    session.chosen[role] = found.dataset.id
    session.uploads += 1
    if Path(path).parent.parent == home.cache_dir() / "uploads":
        shutil.rmtree(Path(path).parent, ignore_errors=True)
    st.rerun()


def count_after(store: Store, dataset: Dataset) -> None:
    """What the page will show of a new set at once, so that it opens without waiting."""
    try:
        pairs.problem_kinds(dataset.id)
        if dataset.n_pairs <= profile.AT_ONCE:
            profile.profile(dataset.id)
        newest: dict[Role, str] = {}
        for other in store.datasets():  # newest first
            newest.setdefault(other.role, other.id)
        profile.across(newest | {dataset.role: dataset.id})
    except (NotFound, OSError):  # removed meanwhile: then there is nothing to show
        return


def reading(done: int, size: int, rows: int, seconds: float) -> str:
    """'43 % · 120,000 rows · 21,300 a second · 25 s left'."""
    parts = [f"Reading: {done / size:.0%}" if size else "Reading", components.count(rows, "row")]
    if seconds > 1:
        parts.append(f"{rows / seconds:,.0f} a second")
        if size and done:
            parts.append(f"{components.duration(seconds * max(size - done, 0) / done)} left")
    return " · ".join(parts)
