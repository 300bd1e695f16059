"""Policy: begin one, watch it, and see whether the reward model led it to better responses.

The answer stands on top; what it rests on lies in tabs, of which only the open one is drawn.
"""

from collections.abc import Sequence

import components
import duel
import resource_use
import state
import streamlit as st
from steering import begin, files, known, now, result, steps

from ser_backend.policy import queue
from ser_backend.policy.folder import PolicyFolder
from ser_backend.policy.queue import Known
from ser_backend.policy.settings import PolicySettings
from ser_backend.records import Status
from ser_backend.store import Store

QUESTION = "Does the reward model lead a language model to better responses?"
NEW = "A new policy"
STEPS, FIGURES, RESPONSES, SETTINGS, MODEL, MACHINE, LOG = TABS = (
    "Step by step",
    "Before and after",
    "Responses",
    "Settings",
    "The model",
    "Resources",
    "Log",
)


def page() -> None:
    store = components.open_store()
    with components.errors_in_words():
        found = queue.known(store)
        action = components.head(QUESTION, _line(found))
        picked = _picker(found) if found else None
        if picked is None:
            begin.draw(store, action)
        else:
            _policy(store, picked, action)


def _line(found: Sequence[Known]) -> str:
    if not found:
        return "No policy yet. A policy is a language model that is trained with a reward model."
    n = sum(policy.is_active for policy in found)
    under_way = f"{n} of them under way" if n else "none under way"
    return f"{components.count(len(found), 'policy', 'policies')}, {under_way}."


def _picker(found: Sequence[Known]) -> Known | None:
    """The policy this session looks at; ?policy=... in the address names it too. None for a new one."""
    by_name = {policy.name: policy for policy in found}
    session = state.session()
    wanted = session.policy or st.query_params.get("policy", "") or found[0].name
    st.session_state[state.POLICY_PICKER] = wanted if wanted in (*by_name, NEW) else found[0].name

    def label(name: str) -> str:
        policy = by_name.get(name)
        return f"{name} · {policy.settings['method'].upper()} · {policy.settings['base_model']}" if policy else name

    session.policy = st.selectbox(
        "Policy",
        [*by_name, NEW],
        format_func=label,
        key=state.POLICY_PICKER,
        label_visibility="collapsed",
        on_change=lambda: setattr(state.session(), "policy", st.session_state[state.POLICY_PICKER]),
    )
    st.query_params["policy"] = session.policy
    return by_name.get(session.policy)


# ---- one policy


def _policy(store: Store, found: Known, action: "st.delta_generator.DeltaGenerator") -> None:
    folder = PolicyFolder.of(found.name)
    with action:
        _actions(store, found, folder)
    active = found.is_active
    watched = active and not found.estimates
    st.fragment(now.draw, run_every=now.EVERY_S if active else None)(found.name, now.stamp(found), watched)
    labels = known.labels(store)
    result.answer(folder, labels)
    if not result.gain(folder, found.settings) and not active:
        st.caption("What best of n gains is not estimated; it is what training has to beat.")
    duel.strip(store, folder)
    names = [name for name in TABS if name != STEPS or not watched]  # else they are drawn above, again and again
    tabs = dict(zip(names, st.tabs(names, on_change="rerun", key=f"policy-{found.name}-{watched}"), strict=True))
    opened = next((name for name, tab in tabs.items() if tab.open), names[0])
    with tabs[opened]:
        if opened == STEPS:
            steps.draw(folder, found.settings, labels)
        elif opened == FIGURES:
            result.figures(folder, labels)
        elif opened == RESPONSES:
            result.responses(folder, labels)
        elif opened == SETTINGS:
            files.settings(found.settings)
        elif opened == MODEL:
            files.model(folder)
        elif opened == MACHINE:
            resource_use.draw(folder.path, active)
        else:
            components.log_end(folder.log(), "No worker of the queue has written anything.")


def _actions(store: Store, found: Known, folder: PolicyFolder) -> None:
    """What can be done now, the most likely first."""
    if found.is_active:
        help = (
            "What is trained so far stays, and it can be resumed." if not found.estimates else "Nothing of it is kept."
        )
        stopping = found.status == Status.STOPPING
        if st.button("Stop", icon=":material/stop_circle:", help=help, disabled=stopping):
            queue.stop(store, found.name)
            st.rerun()
        return
    settings = PolicySettings().changed(found.settings)
    if not found.finished:
        label = "Resume" if found.begun else "Train"
        if st.button(label, type="primary", icon=":material/play_arrow:"):
            with components.errors_in_words():
                begin.begin(store, found.name, settings, estimate=False)
    if settings.members and st.button(
        "Estimate again" if known.json(folder, "gain") else "Estimate the gain (best of n)",
        icon=":material/query_stats:",
        help=begin.ESTIMATE_HELP,
    ):
        with components.errors_in_words():
            begin.begin(store, found.name, settings, estimate=True)
    if found.finished and st.button("New policy", icon=":material/add:"):
        state.session().policy = NEW
        st.rerun()


page()
