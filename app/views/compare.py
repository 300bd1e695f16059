"""Compare: which of several runs is better, by how much, how sure that is, and what they did differently."""

from collections.abc import Sequence

import charts
import components
import figure_file
import state
import streamlit as st
from picture import show_figure

from ser_backend import table_file
from ser_backend.compare import comparison, comparison_tables, paired
from ser_backend.compare.comparison import Outcome
from ser_backend.compare.comparison_tables import MOST, name_of
from ser_backend.compare.paired import Difference
from ser_backend.records import Run
from ser_backend.run_folder import RunFolder
from ser_backend.store import Store
from ser_backend.table_file import Table

QUESTION = "Which run is better?"
ALL, NONE = "All projects", "No project"
FEW = 3  # comparisons; of more, how many pairs would tell is in the table alone
AT_FIRST = 3  # the newest runs with a finished round
OLD_S = 60  # audits come in without a sign of their own
PICK_HELP = f"Up to {MOST} at a time. Each gets a letter, which it keeps in every figure and table below."
REFERENCE_HELP = "The run that the others are held against."
FILES = {"CSV": (".csv", "text/csv"), "LaTeX": (".tex", "text/x-tex"), "Markdown": (".md", "text/markdown")}


def page() -> None:
    store = components.open_store()
    with components.errors_in_words():
        store.require("see_rewards")
        runs = store.runs()
        measured = sum(1 for run in runs if _n_finished(run))
        line = f"{components.count(len(runs), 'run')}, {measured} with a finished round." if runs else "No runs yet."
        action = components.head(QUESTION, line)
        if len(runs) < 2:
            said = "There is no run yet." if not runs else "There is one run, and to compare takes two."
            components.nothing_yet(said, "views/train.py", "Start one" if not runs else "Start another")
            return
        picked = _pick(runs)
        if len(picked) < 2:
            components.nothing_yet("Pick two runs or more above.")
            return
        outcomes = [_outcome(run.id, _as_of(run), components.any_store()) for run in picked]
        reference = _reference(outcomes)
        found = paired.adjusted([None if i == reference else _held(one, outcomes[reference])
                                 for i, one in enumerate(outcomes)])  # fmt: skip
        figures = _figures(outcomes, found, reference)
        with action:
            _actions(store, outcomes[reference].run, figures)
        _summary(outcomes, found, reference)
        _charts(figures)
        _tables(outcomes, found, reference)


# ---- which runs


def _n_finished(run: Run) -> int:
    return len(RunFolder.of(run.id).finished())


def _as_of(run: Run) -> str:
    return f"{run.status} {run.name} {run.project} {_n_finished(run)}"


@st.cache_resource(show_spinner=False, max_entries=64, ttl=OLD_S)
def _outcome(run_id: str, as_of: str, _store: Store) -> Outcome:
    """For all sessions; whoever sees it was asked for their role before."""
    return comparison.outcome(_store, run_id)


def _held(one: Outcome, reference: Outcome) -> Difference | None:
    return _difference((one.run.id, len(one.rounds)), (reference.run.id, len(reference.rounds)), one, reference)


@st.cache_resource(show_spinner="Comparing pair by pair.", max_entries=512)
def _difference(
    one: tuple[str, int], reference: tuple[str, int], _one: Outcome, _reference: Outcome
) -> Difference | None:
    return comparison.difference(_one, _reference)


def _pick(runs: Sequence[Run]) -> list[Run]:
    """In the order picked."""
    by_id, session = {run.id: run for run in runs}, state.session()
    if not session.compared:
        wanted = [run for run in st.query_params.get("runs", "").split(",") if run in by_id]
        session.compared = (wanted or [run.id for run in _at_first(runs)][::-1])[:MOST]
    chosen = [run for run in session.compared if run in by_id]
    projects = sorted({run.project for run in runs if run.project}, key=str.casefold)
    offered = list(by_id)
    left, right = st.columns([3, 1]) if projects else (st.container(), None)
    if right:
        project = right.selectbox("Project", [ALL, *projects, NONE], key="compare-project")
        wanted_project = "" if project == NONE else project
        offered = [run for run in by_id if project == ALL or by_id[run].project == wanted_project or run in chosen]

    def label(run_id: str) -> str:
        run = by_id[run_id]
        return f"{run.name} · {components.when(run.created_at)} · {run_id}"

    if "compare-runs" not in st.session_state:
        st.session_state["compare-runs"] = chosen
    left.multiselect(
        "Runs", offered, format_func=label, max_selections=MOST, key="compare-runs", help=PICK_HELP, on_change=_keep
    )
    session.compared = st.session_state["compare-runs"]
    if session.compared:
        st.query_params["runs"] = ",".join(session.compared)
        _left_out([by_id[run] for run in session.compared], [by_id[run] for run in offered])
    return [by_id[run] for run in session.compared]


def _at_first(runs: Sequence[Run]) -> list[Run]:
    """The newest that were measured on one held-out set: that of the newest run, or the newest set that two runs share."""
    measured = [run for run in runs if _n_finished(run)]
    by_set: dict[str, list[Run]] = {}
    for run in measured:
        by_set.setdefault(comparison.heldout_of(run), []).append(run)
    return next((mine for mine in by_set.values() if len(mine) > 1), measured)[:AT_FIRST]


def _left_out(picked: Sequence[Run], offered: Sequence[Run]) -> None:
    """Which of the runs that could be picked would not be on the same scale."""
    sets = {comparison.heldout_of(run) for run in picked}
    others = sum(1 for run in offered if comparison.heldout_of(run) not in sets and _n_finished(run))
    if len(sets) == 1 and others:
        of = f"{components.count(others, 'run')} measured on {'another' if others == 1 else 'other'}"
        st.caption(
            f"These were measured on one held-out set. Left out: {of}; pick {'it' if others == 1 else 'them'} above."
        )


def _keep() -> None:
    state.session().compared = st.session_state["compare-runs"]


def _reference(outcomes: Sequence[Outcome]) -> int:
    """The first, unless another is chosen."""
    if len(outcomes) == 2:
        return 0
    names = {one.run.id: f"{name_of(i)}  {one.run.name}" for i, one in enumerate(outcomes)}
    if st.session_state.get("compare-reference") not in names:
        st.session_state.pop("compare-reference", None)
    picked = st.selectbox(
        "Against", list(names), format_func=names.__getitem__, key="compare-reference", help=REFERENCE_HELP
    )
    return list(names).index(picked)


def _actions(store: Store, reference: Run, figures: dict[str, object]) -> None:
    if st.button("Download figure", icon=":material/image:", help="As SVG or PNG, made by this browser."):
        figure_file.ask(figures)
    if store.may("start") and st.button(
        "Try a variant",
        type="primary",
        icon=":material/fork_right:",
        help="Opens Train with the settings and data of the run that the others are held against.",
    ):
        state.session().begin = reference.id
        st.switch_page("views/train.py")


# ---- the answer in words


def _summary(outcomes: Sequence[Outcome], found: Sequence[Difference | None], reference: int) -> None:
    n = sum(map(bool, found))
    names = [f"{name_of(i)} ({one.run.name})" for i, one in enumerate(outcomes)]
    with st.container(border=True, gap="small"):
        for place, one in enumerate(found):
            if place != reference:
                words = paired.in_words(one, names[place], names[reference], n, brief=n > FEW)
                icon = ":material/drag_handle:" if not one or not one.is_clear else ""
                icon = icon or (":material/trending_up:" if one and one.value > 0 else ":material/trending_down:")
                st.markdown(f"{icon} {components.plain(words)}")
    several = (
        f" {n} comparisons with one run share the 5 %: p-values are Holm's, and a difference is called clear only where they, "
        "too, say so."
        if n > 1
        else ""
    )
    st.caption(components.plain(comparison_tables.ONE_SEED + several))
    for place, outcome in enumerate(outcomes):
        if not outcome.rounds:
            why = outcome.run.error or f"It is {components.STATUS[outcome.run.status][0]}."
            st.warning(
                components.plain(f"{names[place]} has no finished round, so only its settings are compared. {why}"),
                icon=":material/hourglass_empty:",
            )
    if len({outcome.heldout for outcome in outcomes}) > 1:
        st.info(
            "These runs were not all measured on the same held-out set, so their accuracies are not on one scale: an easier "
            "set gives a higher one. Give runs the same held-out set to compare them pair by pair.",
            icon=":material/info:",
        )


# ---- figures


def _figures(outcomes: Sequence[Outcome], found: Sequence[Difference | None], reference: int) -> dict[str, object]:
    return {
        "Accuracy by round": charts.by_round(outcomes),
        "Difference": charts.against(outcomes, found, reference),
        "At the end": charts.at_the_end(outcomes),
        "Accuracy by human labels": charts.by_labels(outcomes),
    }


def _charts(figures: dict[str, object]) -> None:
    with st.container(key="charts"):
        shown = list(figures.items())
        for two in (shown[:2], shown[2:]):
            for column, (name, figure) in zip(st.columns(2), two, strict=True):
                show_figure(figure, f"compare {name}", column)


# ---- tables


def _tables(outcomes: Sequence[Outcome], found: Sequence[Difference | None], reference: int) -> None:
    st.subheader("How they ended", anchor=False)
    _table(comparison_tables.runs(outcomes, found, reference), "runs", outcomes)
    st.caption(
        "Seconds are those of all rounds; reading texts for the first time is not among them. Coverage: self-labels in force, "
        "of all pool pairs that may have one. Precision claimed: how many of them are right by the model's own confidence; "
        "checked: by people's random checks. Pairs to see 1 point: as many held-out pairs would show a true "
        "difference of 1 point to the reference four times in five, with the scatter seen here."
    )
    st.subheader("What they did differently", anchor=False)
    differ = comparison_tables.settings(outcomes)
    if differ.rows:
        _table(differ, "settings", outcomes)
    else:
        st.markdown("Nothing: they have the same settings, data and number of answers.")
    with st.expander("What is the same", icon=":material/equal:"):
        st.dataframe(
            [{"setting": name, "value": value} for name, value in comparison_tables.same(outcomes)], hide_index=True
        )
    one_change = comparison_tables.ablation(outcomes, found, reference)
    if one_change.rows:
        st.subheader("One change at a time", anchor=False)
        st.caption(f"Runs that differ from {name_of(reference)} in one setting, set of data or number of answers only.")
        _table(one_change, "ablation", outcomes)


def _table(table: Table, name: str, outcomes: Sequence[Outcome]) -> None:
    st.dataframe(table.shown(), hide_index=True, column_config={"": st.column_config.Column(pinned=True, width=40)})
    ids = "-".join(one.run.id for one in outcomes[:2])
    with st.container(horizontal=True):
        for label, (suffix, kind) in FILES.items():
            st.download_button(
                label,
                table_file.as_bytes([table], suffix),
                file_name=f"compare-{name}-{ids}{suffix}",
                mime=kind,
                icon=":material/download:",
                on_click="ignore",
                key=f"{name}{suffix}",
            )


page()
