"""Review: answer pairs by keyboard, see how right the self-labels are, retrain."""

import math
import time
from datetime import datetime

import charts
import components
import desk as at_desk
import duel
import guide
import numpy as np
import state
import streamlit as st
import who
from picture import show_figure

from ser_backend import checked, jobs, review
from ser_backend.desk_figures import anytime_interval, goal_in_words, pace
from ser_backend.errors import SerError
from ser_backend.records import Asked, Run
from ser_backend.review import Desk, Mix, Presentation
from ser_backend.run_folder import RunFolder
from ser_backend.store import DatabaseTrouble, Store

QUEUES: dict[Asked, str] = {
    "mixed": "Recommended",
    "learn": "Least sure",
    "audit": "Random check",
    "seed": "Seed",
    "adjudicate": "Disagreements",
}
QUEUE_HELP = (
    "Recommended: a mix of pairs that teach most and of random checks. "
    "Least sure: of the pairs left, those the model is least sure of. "
    "Random check: a random sample of the self-labels; your answers say how many of them are right. "
    "Seed: labels you brought that look wrong; your answer replaces them in the next round. "
    "Disagreements: pairs that people answered differently; your answer settles them."
)
SOURCES = {
    "sample": (
        "Random pairs",
        "From the whole pool. They judge the teacher, so that more labels can be certified, and the self-labels.",
    ),
    "audit": ("Random checks", "Say how right the self-labels are; the only ones that enter that figure."),
    "informative": ("Settle most", "Their answers together leave the teacher least unsure about all other pairs."),
    "unsure": ("Less sure half", "Random pairs among those of which the teacher is less sure."),
    "suspect": ("Suspects", "Self-labels that the model trained on them contradicts."),
    "gold": ("Known pairs", "From the seed: how far an annotator agrees with it. They teach the model nothing."),
    "repeat": ("Repeats", "Pairs a person answered before, sides swapped: how far they agree with themselves."),
}
LINE = "Your answers teach the model and check its self-labels."
DEFAULT_ANNOTATOR = "me"
WAITING = "The pairs that are left are on other people's desks. One that nobody answers comes free within 15 minutes."
LAYING_OUT = "Laying out the pairs. With a million of them that takes a second or two, once a round."
SILENT = "The database did not answer. What you answered is kept in this window and sent again."
MANY_SKIPS = 0.05  # of the checks; with a tenth of them skipped for being hard the interval is wrong too often
FIGURES_S = 8  # how often the figures below the desk are drawn again


def page() -> None:
    store = components.open_store()
    of_models = duel.is_chosen()
    with components.head("Which response is better?", duel.LINE if of_models else LINE):
        duel.choice()
    first, second = st.columns([7, 3])
    if of_models:
        with first:
            policy = duel.picker()
        with second:
            annotator = _annotator(store)
        duel.desk(store, policy, annotator)
        return
    with first:
        run = components.run_picker(store)
    if run is None:
        components.nothing_yet("There is no run whose pairs could be reviewed.", "views/train.py", "Start one")
        return
    with second:
        annotator = _annotator(store)
    finished = RunFolder.of(run.id).finished()
    if not finished:
        components.nothing_yet(
            "This run has no finished round yet. Its seed model must be trained before there is a queue.",
            "views/watch.py",
            "Watch it",
        )
        return
    desk = _desk(run.id, finished[-1], components.any_store())
    _at_the_desk(store, desk, run, annotator)
    _figures(store, desk, run.id)


@st.cache_resource(show_spinner=LAYING_OUT, max_entries=8)
def _desk(run_id: str, newest_round: int, _store: Store) -> Desk:
    """One for all sessions: what it reads is the same for everybody, and what it writes goes through the person's store."""
    return Desk(_store, run_id)


def _annotator(store: Store) -> str:
    if store.user:
        st.markdown(f":material/person: {components.plain(store.user.name)}")
        return store.user.name
    session = state.session()
    if state.ANNOTATOR not in st.session_state:
        known = session.annotator or st.query_params.get("annotator", "") or DEFAULT_ANNOTATOR
        st.session_state[state.ANNOTATOR] = known
    name = st.text_input(
        "Your name", key=state.ANNOTATOR, max_chars=40, label_visibility="collapsed", icon=":material/person:"
    )
    session.annotator = (name or "").strip() or DEFAULT_ANNOTATOR
    st.query_params["annotator"] = session.annotator
    return session.annotator


# ---- the desk: an answer draws only this again


@st.fragment
def _at_the_desk(store: Store, desk: Desk, run: Run, annotator: str) -> None:
    """The desk stays on the page whatever the database does: with it would go the answers that wait in the browser."""
    at = state.session().desk
    at.looked = time.monotonic()
    shown: list[Presentation] = []
    name, progress, empty, guidelines = at.name, "", SILENT, None
    try:
        who.keep_up(store)
        queue, mix = _chosen(store, desk, run)
        if (at.asked, at.mix) != (queue, mix):
            if at.mix is not None:
                desk.give_back(annotator, store)
            at.asked, at.mix = queue, mix
        shown = desk.hand_out(annotator, queue, mix, at_desk.AHEAD, store, at.first)
        versions = store.guidelines(run.id)
        name, guidelines = f"{run.id}/{annotator}/{queue}", versions[-1] if versions else None
        progress = _progress(store, desk, annotator)
        waits = not shown and any(lease.annotator != annotator for lease in store.leases(run.id))
        at.waits = waits
        empty = WAITING if waits else _end_of(desk, queue)
    except SerError as error:
        empty = str(error)
    except DatabaseTrouble:
        at.waits = True
    at_desk.mount(at, shown, name, progress, empty, guidelines, lambda: _take(desk, annotator))


def _take(desk: Desk, annotator: str) -> None:
    at = state.session().desk
    entries = (st.session_state.get("desk") or {}).get("entries") or []
    try:
        at_desk.take(at, components.open_store(), desk, annotator, entries)  # acting for who is signed in now
    except SerError as error:
        at.last, at.trouble = str(error), True
    except DatabaseTrouble:
        at.last, at.trouble = "The database did not answer. Your answer is kept in this window and sent again.", True


def _chosen(store: Store, desk: Desk, run: Run) -> tuple[Asked, Mix]:
    queues = [name for name in QUEUES if _has(store, desk, name)]
    if st.session_state.get(state.QUEUE) not in queues:
        st.session_state[state.QUEUE] = queues[0]
    with st.container(horizontal=True, vertical_alignment="center"):
        queue: Asked = st.segmented_control(
            "Queue",
            queues,
            required=True,
            format_func=lambda name: _called(desk, name),
            key=state.QUEUE,
            help=QUEUE_HELP,
            label_visibility="collapsed",
        )
        mix = _mix(store, desk) if queue == "mixed" else review.MIX
        _agreed(store, run)
    return queue, mix


def _has(store: Store, desk: Desk, queue: Asked) -> bool:
    if queue == "mixed":
        return desk.mixes
    if queue == "adjudicate":
        return store.may("adjudicate") and desk.size("adjudicate") > 0
    return queue != "seed" or desk.size("seed") > 0


def _called(desk: Desk, queue: Asked) -> str:
    if queue == "mixed":
        return QUEUES[queue]
    if queue == "adjudicate":
        return f"{QUEUES[queue]} ({desk.size(queue):,})"
    if queue == "audit":  # the numbers that the figures below go by
        found = desk.precision()
        return f"{QUEUES[queue]} ({found.answered:,} of {found.n_kept:,})"
    return f"{QUEUES[queue]} ({desk.answered(queue):,} of {desk.size(queue):,})"


def _mix(store: Store, desk: Desk) -> Mix:
    """Shares of the sources, to be changed by those who may know which pairs judge them; only sources that have pairs."""
    if not store.may("see_rewards"):
        return review.MIX
    mix = {}
    with st.popover("Mix", icon=":material/tune:"):
        st.caption("How often each kind of pair comes; only the ratio counts.")
        for name, (label, help) in SOURCES.items():
            value = round(100 * review.MIX[name])
            size = "" if name == "repeat" else f" ({desk.size(name):,})"
            at = st.slider(f"{label}{size}", 0, 100, value, 1, key=f"mix-{name}", help=help)
            mix[name] = at / 100
    return mix if any(mix.values()) else review.MIX


def _agreed(store: Store, run: Run) -> None:
    """How many people answer a pair and what they go by; for those who may say so."""
    if not store.may("guidelines"):
        return
    with st.popover("Team", icon=":material/groups:"), components.errors_in_words():
        now = store.overlap(run.id)
        key = f"overlap-{run.id}-{now}"  # another number elsewhere makes another field, so that none writes back an old one
        st.number_input(
            "People to answer each pair",
            1,
            10,
            now,
            key=key,
            help="Never more, never the same twice.",
            on_change=lambda: components.open_store().set_overlap(run.id, int(st.session_state[key])),
        )
        versions = store.guidelines(run.id)
        text = st.text_area(
            f"Guidelines{f', version {versions[-1].version}' if versions else ''}",
            versions[-1].text if versions else "",
            height=180,
            key=f"guidelines-{run.id}-{len(versions)}",
            help="What makes a response the better one. Every answer keeps the version it was given by.",
        )
        if st.button(
            "Save as a new version", disabled=not text.strip() or bool(versions and text == versions[-1].text)
        ):
            store.add_guidelines(run.id, text, store.user.name if store.user else state.session().annotator)
            st.rerun(scope="fragment")


def _progress(store: Store, desk: Desk, annotator: str) -> str:
    """How far one is, how fast, and what is still wanted; one line."""
    mine = [r for r in desk.tally.mine(annotator) if r.verdict != "skip"]
    words = [f"{components.count(len(mine), 'answer')} of yours"]
    if len(mine) > 1:
        active = np.array([math.nan if r.active_ms is None else r.active_ms for r in mine])
        words.append(f"{pace(np.array([r.answered_at for r in mine]), active).seconds:.0f} s a pair")
    precision = desk.precision().total
    if (
        store.may("see_rewards") and desk.n_kept and precision.n
    ):  # it moves with every check, and so tells what it found
        words.append(goal_in_words(round(precision.value * precision.n), precision.n).rstrip("."))
    return " · ".join(words)


def _end_of(desk: Desk, queue: Asked) -> str:
    if queue == "audit" and not desk.size(queue):
        return "The model in use has no self-labels, so there is nothing to check."
    if queue == "learn" and not desk.size(queue):
        return "Every open pair of the pool was self-labelled; check some of them instead."
    return "You have come to the end of this queue."


# ---- what the answers say


@st.fragment(run_every=FIGURES_S)
def _figures(store: Store, desk: Desk, run_id: str) -> None:
    with components.errors_in_words():
        who.keep_up(store)
        at = state.session().desk
        may_be_free = at.waits and time.monotonic() - at.looked > FIGURES_S / 2  # not at once, again and again
        if may_be_free or RunFolder.of(run_id).finished()[-1] != desk.round:  # a round is done
            at.waits = False
            st.rerun()
        guide.part(store, "review")  # here, so that it needs no timer of its own
        if not store.may("see_rewards"):
            return
        left, right = st.columns(2)
        with left.container(border=True, height="stretch"):
            _precision(desk)
        with right.container(border=True, height="stretch"):
            _retrain(store, desk, run_id)
        st.caption(f"As of {datetime.now():%H:%M:%S}; counted again every {FIGURES_S} s. The line above is newer.")
        _worth(desk)


def _worth(desk: Desk) -> None:
    """What further labels would bring, and what is wrong with those there are; as of the last round."""
    curve, audit = desk.details.get("learning_curve"), desk.details.get("seed_audit")
    if not (curve or audit):
        return
    with st.container(border=True):
        if curve:
            st.markdown("**How many labels do I need?**")
            st.markdown(components.plain(curve["in_words"]))
            if curve.get("path"):
                show_figure(charts.learning_curve(curve), "learning-curve")
        if audit:
            st.markdown("**Are the seed's labels right?**")
            st.markdown(components.plain(audit["in_words"]))


def _precision(desk: Desk) -> None:
    found = desk.precision()
    st.markdown("**How right are the self-labels?**")
    if not found.n_kept:
        st.markdown("The model in use has no self-labels: no round has held up so far.")
        return
    if not found.by_round:
        none = components.plain(checked.none_yet(found.n_kept, found.earlier))
        st.markdown(f"{none} Answer pairs of the random check to find out.")
        return
    right = round(found.total.value * found.total.n) if found.total.n else 0
    st.markdown(
        f"People agreed with {right:,} of {found.total.n:,} self-labels they checked: **{found.total}**, drawn at random "
        f"from {found.n_kept:,}."
    )
    extra = [f"round {index}: {interval}" for index, interval in found.by_round.items()]
    if found.total.n:
        always = anytime_interval(right, found.total.n)
        extra.insert(
            0, f"{100 * always.low:.1f} to {100 * always.high:.1f} % holds also if you stop when you like the figure"
        )
    if found.ties or found.skips:
        extra.append(
            f"not counted: {components.count(found.ties, 'tie')} or equal, {components.count(found.skips, 'skip')}"
        )
    if found.skips > MANY_SKIPS * (found.skips + found.total.n):
        extra.append("many checks were skipped: those left are the easier ones, so the figure is too good")
    if before := checked.earlier_in_words(found.earlier):
        extra.append(before)
    if found.n_waiting:
        extra.append(
            f"{components.count(found.n_waiting, 'check')} will count again once the newer self-labels have had their share"
        )
    st.caption("  \n".join(extra))


def _retrain(store: Store, desk: Desk, run_id: str) -> None:
    n = sum(r.verdict != "skip" for r in desk.answers.refresh().standing)  # as the line above counts them
    pending = desk.pending()
    st.markdown(f"**{components.count(n, 'answer')} so far, by everybody**")
    new = pending.decided + pending.ties + pending.withdrawn
    if components.is_active(store.run(run_id)):
        st.markdown("The run is under way; what you answer now takes part from its next round on.")
        return
    if new:
        parts = [f"{components.count(pending.decided, 'new preference')}"]
        if pending.ties:
            parts.append(f"{components.count(pending.ties, 'new tie')} (taken out of the self-labels, not trained on)")
        if pending.withdrawn:
            parts.append(f"{components.count(pending.withdrawn, 'answer')} withdrawn")
        st.markdown(f"The next round will use {', '.join(parts)}.")
    else:
        st.markdown("The last round used every answer given so far.")
    if st.button(
        "Retrain now", icon=":material/replay:", key="retrain", help="Queues one more round.", disabled=not new
    ):
        with components.errors_in_words():
            jobs.retrain(store, run_id)
            st.switch_page("views/watch.py")


page()
