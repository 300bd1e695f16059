"""Data: bring pairs in, and know them. Which pairs do you have, what do they mean for training, what changed since?"""

import tempfile
from contextlib import suppress
from pathlib import Path

import components
import guide
import state
import streamlit as st
from shelf import kin, statistics
from shelf.wizard import kind_in_words, kind_table, wizard

from ser_backend import ingest, pairs, versions
from ser_backend.errors import NotFound, SerError
from ser_backend.records import ROLES, Dataset
from ser_backend.store import Store
from ser_backend.versions import Family

MUCH = 0.1  # of the rows turned away: more is no success
SHOWN = 8  # families drawn before the rest is asked for
ALL = "all_sets"
REMOVED, REFUSED = "removed_set", "refused_removal"  # what came of the last press of Remove it


def page() -> None:
    store = components.open_store()
    session = state.session()
    known = store.datasets()
    with components.head("Which pairs do you have?", _line(known)):
        if known:
            lacking = [role for role in ("seed", "pool") if not any(d.role == role for d in known)]
            why = f"A run needs a seed and a pool; import the {lacking[0]} first." if lacking else None
            if st.button("Go to Train", type="primary", icon=":material/arrow_forward:", disabled=bool(why), help=why):
                st.switch_page("views/train.py")
        elif st.button("Try the sample", type="primary", icon=":material/bolt:", help=guide.SAMPLE_HELP):
            guide.try_the_sample(store)
    guide.strip(store, "data")
    if session.imported:
        _outcome(session)
    wizard(store, known)
    if known:
        with components.errors_in_words():
            _list(store, known)
            kin.shared(known)
            kin.merge(store)
        if not any(d.lineage.get("file") == "sample-pool.jsonl" for d in known):
            st.button(
                "Try the sample", icon=":material/bolt:", help=guide.SAMPLE_HELP, on_click=_import_sample_again
            )  # fmt: skip


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


def _import_sample_again() -> None:
    with components.errors_in_words():
        state.session().imported = [
            ingest.import_source(components.open_store(), guide.SAMPLES / f"sample-{role}.jsonl", role)
            for role in ROLES
        ]


def _outcome(session: state.Session) -> None:
    """What the last import brought, shown until the next action on another page."""
    for found in session.imported:
        n = components.count(found.dataset.n_pairs, "pair")
        word = "Already there" if found.already_there else "Imported"
        if not found.already_there and found.dataset.lineage.get("made_by") == versions.MADE_HERE:
            word = "Made"
        name = components.plain(found.dataset.name)
        lines = [f"**{word}: {name}** ({components.ROLE_NAMES[found.dataset.role].lower()}, {n})"]
        lines += [components.plain(note) for note in found.notes]
        lost = found.dataset.n_problems > MUCH * (found.dataset.n_pairs + found.dataset.n_problems)
        show = st.info if found.already_there else st.warning if lost else st.success
        show("  \n".join(lines), icon=f":material/{'warning' if show == st.warning else 'check_circle'}:")
        for warning in found.warnings:
            st.warning(components.plain(warning), icon=":material/warning:")
    session.imported = []


# ---- what is there


def _list(store: Store, known: list[Dataset]) -> None:
    st.subheader("Imported", anchor=False)
    families = versions.families(known)
    if len(families) > SHOWN:
        wanted = st.text_input("Find a set", placeholder="Part of a name", icon=":material/search:").strip().casefold()
        if wanted:
            families = [f for f in families if any(wanted in d.name.casefold() for d in f.versions)]
            if not families:
                st.caption("No set has that in its name.")
    everything = st.session_state.get(ALL, False)
    for family in families if everything else families[:SHOWN]:
        with st.container(border=True):
            _family(store, family)
    if len(families) > SHOWN and not everything:
        st.button(f"Show {len(families) - SHOWN:,} more", on_click=_show_all, icon=":material/expand_more:")


def _show_all() -> None:
    st.session_state[ALL] = True


def _family(store: Store, family: Family) -> None:
    several = len(family.versions) > 1
    dataset = family.newest
    if several:
        by_id = {one.id: one for one in family.versions}
        number = {one.id: len(family.versions) - k for k, one in enumerate(family.versions)}
        chosen = st.selectbox(
            "Version",
            list(by_id),
            format_func=lambda id_: f"Version {number[id_]}: {by_id[id_].name}",
            key=f"version-{family.id}-{len(by_id)}",
            label_visibility="collapsed",
        )
        dataset = by_id[chosen]
    left, right = st.columns([7, 3], vertical_alignment="center")
    facts = [
        components.count(dataset.n_pairs, "pair"),
        components.count(dataset.n_responses, "distinct response"),
        components.count(dataset.n_groups, "prompt group"),
        *([components.count(dataset.n_ties, "tie")] if dataset.n_ties else []),
        *([components.count(dataset.n_problems, "row") + " turned away"] if dataset.n_problems else []),
    ]
    badge = f":gray-badge[{components.ROLE_NAMES[dataset.role]}] {statistics.badge(dataset)}"
    lines = [f"**{components.plain(dataset.name)}** {badge} :gray[{kin.origin(dataset)}]", " · ".join(facts)]
    if told := kin.added(dataset):
        lines.append(f"{told}.")
    left.markdown("  \n".join(lines))
    with right.container(horizontal=True, horizontal_alignment="right"):
        if store.may("export") and dataset.lineage.get("made_by") == versions.MADE_HERE:
            st.download_button(
                "Download",
                lambda: _as_file(store, dataset.id),
                file_name=f"{dataset.name}.jsonl",
                mime="application/jsonl",
                icon=":material/download:",
                type="tertiary",
                on_click="ignore",
                key=f"download-{dataset.id}",
                help="JSON lines that any installation imports as the same set.",
            )
        if st.button("Remove", icon=":material/delete:", type="tertiary", key=f"remove-{dataset.id}"):
            _ask_to_remove(store, dataset)
    try:
        statistics.statistics(dataset)
        if dataset.n_problems:
            _problems(dataset)
    except NotFound as error:
        st.error(components.plain(str(error)), icon=":material/error:")
    if several or dataset.lineage.get("parent"):
        kin.history(family)


def _problems(dataset: Dataset) -> None:
    label = f"{components.count(dataset.n_problems, 'row')} turned away: which and why"
    with st.expander(label, icon=":material/report:", key=f"rejected-{dataset.id}", on_change="rerun") as opened:
        if opened.open:
            kinds = pairs.problem_kinds(dataset.id)
            st.markdown(f"Most often: {components.plain(kind_in_words(kinds[0]))}")
            kind_table(kinds)
            components.problems_of(dataset, key=f"problems-{dataset.id}")


def _as_file(store: Store, dataset_id: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "set.jsonl"
        versions.write(store, dataset_id, path)
        return path.read_bytes()


@st.dialog("Remove this data set?")
def _ask_to_remove(store: Store, dataset: Dataset) -> None:
    if st.session_state.pop(REMOVED, "") == dataset.id:
        st.rerun()
    users = [run.name for run in store.runs() if dataset.id in (run.seed, run.pool, run.heldout)]
    role, n = components.ROLE_NAMES[dataset.role].lower(), components.count(dataset.n_pairs, "pair")
    st.markdown(f"**{components.plain(dataset.name)}** ({role}, {n})")
    if users:
        named = ", ".join(users[:3]) + (f" and {len(users) - 3:,} more" if users[3:] else "")
        st.warning(
            components.plain(f"It is used by {components.count(len(users), 'run')} ({named}), so it is kept."),
            icon=":material/lock:",
        )
    elif refused := st.session_state.pop(REFUSED, ""):
        st.error(components.plain(refused), icon=":material/error:")
    else:
        st.markdown(
            "Its pairs, its statistics and the list of rows turned away are deleted here. The file that it came from is not "
            "touched."
        )
    with st.container(horizontal=True, horizontal_alignment="right"):
        if st.button("Keep it", key="keep-it"):
            st.rerun()
        st.button(
            "Remove it",
            type="primary",
            icon=":material/delete:",
            key="remove-it",
            disabled=bool(users),
            help="A set that a run uses stays." if users else None,
            on_click=_remove,
            args=(dataset.id,),
        )


def _remove(dataset_id: str) -> None:
    """What speaks against it is told in the dialog that asked: a run may have begun meanwhile."""
    try:
        components.open_store().remove_dataset(dataset_id)
        with suppress(NotFound):  # its files were gone already
            pairs.delete(dataset_id)
        st.session_state[REMOVED] = dataset_id
    except SerError as error:
        st.session_state[REFUSED] = str(error)


page()
