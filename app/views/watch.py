"""Watch: is it getting better, is that due to the self-labels, and what is happening right now.

The answer stands on top; what it rests on lies in tabs, of which only the open one is drawn. While a run is active a
small part is drawn again and again (watching.now), the whole page only when a round has finished or the run has ended.
"""

from collections.abc import Mapping
from typing import Literal

import components
import guide
import resource_use
import streamlit as st
from watching import answer, chosen, figures, known, labels, now, told, wrong

from ser_backend import jobs, notify
from ser_backend.alarms import alarms
from ser_backend.records import Interval, Round, Run, Status
from ser_backend.run_folder import RunFolder
from ser_backend.store import Store

CHOSE, KEPT, WRONG, ROUNDS, MACHINE, LOG = TABS = (
    "How it chose",
    "What it kept",
    "Where it is wrong",
    "Every round in figures",
    "Resources",
    "Log",
)


def page() -> None:
    store = components.open_store()
    action = components.head("Is it getting better?", _line(store))
    guide.strip(store, "watch")
    run = components.run_picker(store)
    if run is None:
        components.nothing_yet("There is no run yet.", "views/train.py", "Start one")
        return
    with components.errors_in_words():
        store.require("see_rewards")
        folder, active = RunFolder.of(run.id), components.is_active(run)
        drawn = known.stamp(folder)
        rounds = known.rounds(folder)
        audited = known.audited(run.id, known.answers(components.any_store(), run.id))
        with action:
            told.draw(run, rounds, 0 if active else notify.due(rounds, run.config, audited))
            _actions(store, run)
        st.fragment(now.draw, run_every=now.EVERY_S if active else None)(store, run.id, active, drawn)
        now.estimate(store, run, rounds)
        answer.draw(store, run, rounds, folder)
        components.alarm_list(alarms(rounds, run.config, audited))
        if rounds:
            with st.container(key="charts"):
                answer.pictures(store, run, rounds)
        figures.doctor(folder)
        _behind(store, run, rounds, folder, audited)
        told.webhook(store)


def _line(store: Store) -> str:
    runs = store.runs()
    n = sum(components.is_active(run) for run in runs)
    under_way = f"{n} of them under way" if n else "none under way"
    return f"{components.count(len(runs), 'run')}, {under_way}." if runs else "No runs yet."


def _actions(store: Store, run: Run) -> None:
    """What can be done now, the most likely first; where to go next when the run has ended."""
    if components.is_active(run):
        stopping = run.status == Status.STOPPING
        help = "Finished rounds stay, and the run can be resumed."
        if st.button("Stop", icon=":material/stop_circle:", help=help, disabled=stopping):
            jobs.stop(store, run.id)
            st.rerun()
        return
    has_rounds = bool(RunFolder.of(run.id).finished())
    left = jobs.rounds_left(store, run.id)
    unfinished = run.status != Status.SUCCEEDED and left > 0
    help = f"Goes on after the last finished round: {components.count(left, 'model')} left to train."
    if unfinished and st.button("Resume", type="primary", icon=":material/play_arrow:", help=help):
        jobs.resume(store, run.id)
        st.rerun()
    if not has_rounds:
        return
    kind: Literal["primary", "secondary"] = "secondary" if unfinished else "primary"
    if st.button("Review pairs", type=kind, icon=":material/rate_review:"):
        st.switch_page("views/review.py")
    help = "Queues one more round, which uses every answer given in Review so far."
    if not unfinished and st.button("Retrain", icon=":material/replay:", help=help):
        jobs.retrain(store, run.id)
        st.rerun()
    if st.button("Export", icon=":material/ios_share:"):
        st.switch_page("views/export.py")


def _behind(store: Store, run: Run, rounds: list[Round], folder: RunFolder, audited: Mapping[int, Interval]) -> None:
    """What stands behind the answer; a tab that is not open costs nothing."""
    names = TABS if rounds else (MACHINE, LOG)
    tabs = dict(zip(names, st.tabs(names, on_change="rerun", key=f"behind-{bool(rounds)}"), strict=True))
    opened = next((name for name, tab in tabs.items() if tab.open), names[0])
    with tabs[opened], st.container(key="parts"):
        if opened == CHOSE:
            chosen.draw(run, rounds, folder, audited)
        elif opened == KEPT:
            labels.draw(store, run, rounds)
        elif opened == WRONG:
            wrong.draw(store, run, rounds)
        elif opened == ROUNDS:
            figures.draw(store, run, rounds, audited)
        elif opened == MACHINE:
            resource_use.draw(folder.path, components.is_active(run))
        else:
            components.log_end(folder.log(), "Nothing is written yet.")


page()
