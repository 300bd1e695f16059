"""Review: a person's eye where the model is least sure (learn), and on a random sample of what it kept (audit).

Blind until voted: nothing of the model is shown before the answer, which is committed before the next pair appears.
"""

import time

import components
import state
import streamlit as st

from ser_backend import jobs, review
from ser_backend.errors import SerError, StaleVote, TooFast
from ser_backend.records import Run, Verdict
from ser_backend.review import Asked, Desk, Mix, Presentation
from ser_backend.run_folder import RunFolder
from ser_backend.store import Store, in_force

QUEUES: dict[Asked, str] = {"mixed": "Recommended", "learn": "Least sure", "audit": "Random check", "seed": "Seed"}
QUEUE_HELP = (
    "Recommended: a mix of pairs that teach most and of random checks. "
    "Least sure: pairs the model can hardly tell apart. "
    "Random check: a random sample of the self-labels; your answers say how many of them are right. "
    "Seed: labels you brought that look wrong; your answer replaces them in the next round."
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
}
BUTTONS: tuple[tuple[Verdict, str, str, str], ...] = (
    ("left", "Left is better", "1", ":material/arrow_back:"),
    ("right", "Right is better", "2", ":material/arrow_forward:"),
    ("tie", "Tie", "3", ":material/equal:"),
    ("both_bad", "Both bad", "0", ":material/thumb_down:"),
    ("skip", "Skip", "S", ":material/skip_next:"),
)
ANSWERS: dict[Verdict, str] = {
    "left": "left is better",
    "right": "right is better",
    "tie": "tie",
    "both_bad": "both bad",
    "skip": "skipped",
    "undo": "undone",
}
DEFAULT_ANNOTATOR = "me"
UNDECIDED = 0.05  # of reward; sigmoid gives it less than 51.3 %


def page() -> None:
    store = components.open_store()
    components.head("Which response is better?", "Your answers teach the model and check its self-labels.")
    first, second = st.columns([7, 3])
    with first:
        run = components.run_picker(store)
    if run is None:
        components.nothing_yet("There is no run whose pairs could be reviewed.", "views/train.py", "Start one")
        return
    with second:
        annotator = _annotator()
    finished = RunFolder.of(run.id).finished()
    if not finished:
        components.nothing_yet(
            "This run has no finished round yet. Its seed model must be trained before there is a queue.",
            "views/watch.py",
            "Watch it",
        )
        return
    desk = _desk(run.id, finished[-1], store)
    _at_the_desk(store, desk, run, annotator)


@st.cache_resource(show_spinner=False, max_entries=8)
def _desk(run_id: str, newest_round: int, _store: Store) -> Desk:
    return Desk(_store, run_id)


def _annotator() -> str:
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


# ---- the desk: a vote draws only this again


@st.fragment
def _at_the_desk(store: Store, desk: Desk, run: Run, annotator: str) -> None:
    session = state.session()
    queues = [name for name in QUEUES if (name != "mixed" or desk.mixes) and (name != "seed" or desk.size("seed"))]
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
        mix = _mix(desk) if queue == "mixed" else review.MIX
    shown = _shown(session, desk, annotator, queue, mix)
    if shown is None:
        _end_of(desk, queue)
    else:
        if queue == "mixed":
            st.caption(f"Why this pair: {shown.why}.")
        st.html(
            components.pair_html(
                shown.pair.response_a.prompt, shown.left.text, shown.right.text, ("Left", "Right"), "desk"
            )
        )
    _buttons(shown, run.id, annotator)
    _previous(session)
    _figures(store, desk, run.id)


def _called(desk: Desk, queue: Asked) -> str:
    if queue == "mixed":
        return QUEUES[queue]
    return f"{QUEUES[queue]} ({desk.answered(queue):,} of {desk.size(queue):,})"


def _mix(desk: Desk) -> Mix:
    """Shares of the sources, to be changed; only those that have pairs."""
    mix = {}
    with st.popover("Mix", icon=":material/tune:"):
        st.caption("How often each kind of pair comes; only the ratio counts.")
        for name, (label, help) in SOURCES.items():
            value = round(100 * review.MIX[name])
            at = st.slider(f"{label} ({desk.size(name):,})", 0, 100, value, 5, key=f"mix-{name}", help=help)
            mix[name] = at / 100
    return mix if any(mix.values()) else review.MIX


def _shown(session: state.Session, desk: Desk, annotator: str, queue: Asked, mix: Mix) -> Presentation | None:
    """The pair on the desk; another one when the person, the queue or the run is another."""
    now = session.showing
    if now is None or (now.run, now.annotator, now.asked) != (desk.run.id, annotator, queue):
        session.showing = desk.next(annotator, queue, mix)
    return session.showing


def _buttons(shown: Presentation | None, run_id: str, annotator: str) -> None:
    with st.container(horizontal=True, horizontal_alignment="center", gap="small"):
        for verdict, label, key, icon in BUTTONS:
            st.button(
                label,
                key=f"vote-{verdict}",
                icon=icon,
                shortcut=key,
                type="primary" if verdict in ("left", "right") else "secondary",
                on_click=_vote,
                args=(shown, verdict),
                disabled=shown is None,
            )
        st.button(
            "Undo",
            key="undo",
            icon=":material/undo:",
            shortcut="U",
            type="tertiary",
            on_click=_undo,
            args=(run_id, annotator),
        )


def _vote(shown: Presentation, verdict: Verdict) -> None:
    session = state.session()
    now, before = time.monotonic(), session.key_at
    session.key_at = now
    if now - before < review.FASTEST_S:
        return  # a held key repeats: it answers one pair, however long it is held
    session.message = ""
    try:
        review.vote(components.open_store(), shown, verdict)
    except TooFast:
        return  # a held key: the pair stays
    except StaleVote as error:
        session.message = str(error)
    except SerError as error:
        session.message = str(error)
        return
    else:
        session.answered = (shown, verdict)
    if session.showing is not None and session.showing.token == shown.token:
        session.showing = None


def _undo(run_id: str, annotator: str) -> None:
    session = state.session()
    try:
        last = review.undo(components.open_store(), run_id, annotator)
    except SerError as error:
        session.message = str(error)
        return
    session.answered = None
    if last is None:
        session.message = "There is no answer of yours to undo."
        return
    session.message = f"Undone: {ANSWERS[last.verdict]}. The pair is in its queue again."
    if st.session_state.get(state.QUEUE) != "mixed":
        st.session_state[state.QUEUE] = last.queue
    session.showing = None


def _previous(session: state.Session) -> None:
    """One small line, always there, so that nothing moves."""
    if session.message:
        st.caption(components.plain(session.message))
    elif session.answered:
        st.caption(components.plain(_revealed(*session.answered)))
    else:
        st.caption("What the model thinks is shown after your answer.")


def _revealed(shown: Presentation, verdict: Verdict) -> str:
    said = f"Last pair: {ANSWERS[verdict]}."
    if shown.self_label:
        side = "left" if shown.self_label == shown.left_is else "right"
        kept = "The seed's label says" if shown.queue == "seed" else f"The self-label of round {shown.round} says"
        if verdict in ("left", "right"):
            return f"{said} {kept} {side}: {'you agree' if side == verdict else 'you disagree'}."
        return f"{said} {kept} {side}."
    side = "left" if (shown.margin > 0) == (shown.left_is == "a") else "right"
    if abs(shown.margin) < UNDECIDED:
        return f"{said} The model was undecided."
    return f"{said} The model leant {side}, by {abs(shown.margin):.2f} of reward."


def _end_of(desk: Desk, queue: Asked) -> None:
    with st.container(border=True):
        if queue != "mixed" and not desk.size(queue):
            st.markdown(
                "The model in use has no self-labels, so there is nothing to check."
                if queue == "audit"
                else "Every open pair of the pool was self-labelled; check some of them instead."
            )
        else:
            st.markdown("You have come to the end of this queue.")


# ---- what the answers say


def _figures(store: Store, desk: Desk, run_id: str) -> None:
    left, right = st.columns(2)
    with left.container(border=True, height="stretch"):
        _precision(desk)
    with right.container(border=True, height="stretch"):
        _retrain(store, desk, run_id)
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
        st.markdown(f"{found.n_kept:,} self-labels, none checked yet. Answer pairs of the random check to find out.")
        return
    right = round(found.total.value * found.total.n) if found.total.n else 0
    st.markdown(
        f"People agreed with {right:,} of {found.total.n:,} self-labels they checked: **{found.total}**, drawn at random "
        f"from {found.n_kept:,}."
    )
    extra = [f"round {index}: {interval}" for index, interval in found.by_round.items()]
    if found.ties or found.skips:
        extra.append(
            f"not counted: {components.count(found.ties, 'tie')} or both bad, {components.count(found.skips, 'skip')}"
        )
    if found.n_waiting:
        extra.append(
            f"{components.count(found.n_waiting, 'check')} will count again once the newer self-labels have had their share"
        )
    st.caption("  \n".join(extra))


def _retrain(store: Store, desk: Desk, run_id: str) -> None:
    answers = in_force(store.reviews(run_id))
    pending = desk.pending()
    st.markdown(f"**{components.count(len(answers), 'answer')} so far**")
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
