"""Data: bring pairs in. Which pairs do you have, what of them can be used, and what was turned away and why."""

import shutil
import time
from pathlib import Path

import components
import state
import streamlit as st

from ser_backend import home, ingest, pairs
from ser_backend.ingest import Inspection, Mapping
from ser_backend.records import ROLES, Dataset, Role
from ser_backend.store import Store

SAMPLES = home.ROOT / "data" / "samples"
SUFFIXES = ["jsonl", "json", "ndjson", "csv", "tsv", "parquet", "arrow", "gz"]
ABANDONED_S = 24 * 3600  # an upload that was never imported is removed after a day
LAYOUTS = {
    "chosen_rejected": "one column holds the preferred response, another the other",
    "ab": "two columns hold the responses; a third says which is preferred",
}
NONE = "(none)"


def page() -> None:
    store = components.open_store()
    session = state.session()
    known = store.datasets()
    with components.head("Which pairs do you have?", _line(known)):
        if known:
            if st.button("Go to Train", type="primary", icon=":material/arrow_forward:"):
                st.switch_page("views/train.py")
        elif st.button("Try the sample", type="primary", icon=":material/bolt:", help=_sample_help()):
            _import_sample(store)
    if session.imported:
        _outcome(session)
    _bring_in(store)
    if known:
        _list(store, known)
        if not any(d.lineage.get("file") == "sample-pool.jsonl" for d in known):
            st.button("Try the sample", icon=":material/bolt:", help=_sample_help(), on_click=_import_sample_again)


def _line(known: list[Dataset]) -> str:
    if not known:
        return "No pairs yet. Import a **seed** with preferences and a **pool** without, or try the sample that comes along."
    parts = []
    for role in ROLES:
        mine = [d for d in known if d.role == role]
        name = components.ROLE_NAMES[role].lower()
        parts.append(
            f"{sum(d.n_pairs for d in mine):,} {name} pairs in {components.count(len(mine), 'set')}"
            if mine
            else f"no {name} set"
        )
    return " · ".join(parts)


# ---- the sample


def _sample_help() -> str:
    return "820 small pairs we wrote: a seed of 120, a pool of 500 and a held-out set of 200."


def _import_sample(store: Store) -> None:
    session = state.session()
    with st.spinner("Importing the sample ..."), components.errors_in_words():
        done = [ingest.import_source(store, SAMPLES / f"sample-{role}.jsonl", role) for role in ROLES]
        session.chosen = {role: found.dataset.id for role, found in zip(ROLES, done, strict=True)}
        st.switch_page("views/train.py")


def _import_sample_again() -> None:
    with components.errors_in_words():
        state.session().imported = [
            ingest.import_source(components.open_store(), SAMPLES / f"sample-{role}.jsonl", role) for role in ROLES
        ]


# ---- import


def _bring_in(store: Store) -> None:
    session = state.session()
    with st.container(border=True):
        st.subheader("Import", anchor=False)
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
        if path:
            with components.errors_in_words():
                _look(store, path, role)


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


def _look(store: Store, path: str, role: Role) -> None:
    """What the source looks like, the columns to map, the first pairs, and the button that imports it."""
    found = ingest.inspect(path, role=role)
    st.markdown(f"**{components.plain(found.name)}** · {found.format} · {components.plain(found.shape)}")
    mapping = _map(found, path, role)
    if mapping is None:
        return
    if mapping != found.mapping:
        found = ingest.inspect(path, mapping=mapping, role=role)
    _preview(found)
    if role != "pool" and not found.has_labels:
        st.warning(
            "Nothing here says which response is preferred, and a "
            f"{components.ROLE_NAMES[role].lower()} set needs that. Map the column that says it, or import this as a pool.",
            icon=":material/warning:",
        )
        return
    left, right = st.columns([6, 4], vertical_alignment="bottom")
    name = left.text_input("Name", placeholder=Path(found.name).name, help="What this data set will be called here.")
    with right.container(horizontal=True, horizontal_alignment="right"):
        label = f"Import as {components.ROLE_NAMES[role].lower()}"
        if st.button(label, type="primary", icon=":material/download_done:"):
            _import(store, path, role, name.strip() or None, mapping)


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


def _preview(found: Inspection) -> None:
    if found.problems:
        with st.expander(
            f"Problems among the first rows ({len(found.problems)} shown)",
            expanded=not found.preview,
            icon=":material/report:",
        ):
            components.problem_table(found.problems)
    if not found.preview:
        st.warning("None of the first rows can be used.", icon=":material/warning:")
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


def _import(store: Store, path: str, role: Role, name: str | None, mapping: Mapping) -> None:
    session = state.session()
    bar = st.progress(0.0, "Reading ...")

    def progress(done: int, size: int) -> None:
        bar.progress(
            min(1.0, done / size) if size else 0.0, f"Reading: {done / size:.0%}" if size else f"Reading: {done:,}"
        )

    found = ingest.import_source(store, path, role, name=name, mapping=mapping, progress=progress)
    bar.empty()
    session.imported = [found]
    session.chosen[role] = found.dataset.id
    session.uploads += 1
    if Path(path).parent.parent == home.cache_dir() / "uploads":
        shutil.rmtree(Path(path).parent, ignore_errors=True)
    st.rerun()


def _outcome(session: state.Session) -> None:
    """What the last import brought, shown until the next action on another page."""
    for found in session.imported:
        n = components.count(found.dataset.n_pairs, "pair")
        word = "Already there" if found.already_there else "Imported"
        name = components.plain(found.dataset.name)
        lines = [f"**{word}: {name}** ({components.ROLE_NAMES[found.dataset.role].lower()}, {n})"]
        lines += [components.plain(note) for note in found.notes]
        (st.info if found.already_there else st.success)("  \n".join(lines), icon=":material/check_circle:")
    session.imported = []


# ---- what is there


def _list(store: Store, known: list[Dataset]) -> None:
    st.subheader("Imported", anchor=False)
    for dataset in known:
        with st.container(border=True):
            left, right = st.columns([7, 3], vertical_alignment="center")
            facts = [
                components.count(dataset.n_pairs, "pair"),
                components.count(dataset.n_responses, "distinct response"),
                components.count(dataset.n_groups, "prompt group"),
                *([components.count(dataset.n_ties, "tie")] if dataset.n_ties else []),
                *([components.count(dataset.n_problems, "row") + " turned away"] if dataset.n_problems else []),
            ]
            origin = f"from {components.plain(dataset.lineage.get('file', ''))}, {components.when(dataset.created_at)}"
            left.markdown(
                f"**{components.plain(dataset.name)}** :gray-badge[{components.ROLE_NAMES[dataset.role]}] :gray[{origin}]  \n"
                + " · ".join(facts)
            )
            with right.container(horizontal=True, horizontal_alignment="right"):
                st.button(
                    "Remove",
                    icon=":material/delete:",
                    type="tertiary",
                    key=f"remove-{dataset.id}",
                    on_click=_remove,
                    args=(dataset.id,),
                )
            if dataset.n_problems:
                label = f"{components.count(dataset.n_problems, 'row')} turned away: which and why"
                with st.expander(label, icon=":material/report:"):
                    components.problems_of(dataset, key=f"problems-{dataset.id}")


def _remove(dataset_id: str) -> None:
    with components.errors_in_words():
        components.open_store().remove_dataset(dataset_id)
        pairs.delete(dataset_id)


page()
