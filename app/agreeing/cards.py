"""How people agree in words and figures: the summary, and a card for each question."""

import components
import streamlit as st

from ser_backend import annotators
from ser_backend.annotators import CLOSE, Figures, Person
from ser_backend.desk_figures import SURE, Bias
from ser_backend.records import Interval

AT_RANDOM_ONLY = (
    "With the model and with self-labels, only pairs drawn at random count: random checks and random pairs. The others were "
    "shown because the model doubted them, and would make it look worse than it is."
)
ALPHA_HELP = (
    "Krippendorff's alpha over pairs that two people or more answered: 1 is full agreement, 0 is what chance alone would give. "
    "Fleiss' kappa asks the same with another idea of chance; the two differ where answers are few."
)
MODEL_HELP = "Share of decided answers whose side has the higher reward. Each pair counts once."
LABEL_HELP = "Share of the randomly checked self-labels that people agreed with. Each pair counts once."
SELF_HELP = "Share of the pairs shown again later, with the sides swapped, that got the same answer."
SEED_HELP = (
    "Share of gold pairs, which come unmarked among the others, that were answered as the seed says; a tie is wrong."
)
SIDE_HELP = "The sides are drawn by a coin, so that left should be chosen half the time."
LONGER_HELP = (
    "No bias in itself: the longer response may be the better one. On gold pairs, length sways people so far as they err more "
    "often where the shorter one is right than where the longer one is."
)
CHANGED_HELP = (
    "Answers changed after the model's choice was shown. Every figure here counts them as they were at first."
)
CARD_WIDTH = 257  # four in a row


def summary(found: Figures) -> None:
    everybody = found.everybody
    counts = [components.count(everybody.n, "answer"), components.count(everybody.n_skips, "skip")]
    if everybody.n_flagged:
        counts.append(components.count(everybody.n_flagged, "flag"))
    st.markdown(f"**{components.plain(annotators.in_words(found))}**")
    st.caption(f"{', '.join(counts)} of {components.count(len(found.people), 'person', 'people')}.")
    components.alarm_list(annotators.warnings(found))


def cards(found: Figures) -> None:
    everybody, several = found.everybody, len(found.people) > 1
    repeated, moved = everybody.with_self, everybody.changed
    with st.container(horizontal=True, key="cards"):
        if several:
            kappa = f"Fleiss' kappa {found.fleiss}" if found.observed.n_items else ""
            _card("With one another", ALPHA_HELP, f"alpha {found.alpha}", kappa)
        by_label = f"Self-labelled pairs {found.labelled}, others {found.unlabelled}" if everybody.with_model.n else ""
        _card("With the model", MODEL_HELP, str(everybody.with_model), by_label)
        _card("With the self-labels", LABEL_HELP, str(everybody.with_label), _more(everybody.with_label))
        side = f"Side kept, preference turned: {repeated.same_side}" if repeated.same_side.n else ""
        _card("With themselves", SELF_HELP, str(repeated.same), side)
        _card("With the seed", SEED_HELP, str(everybody.with_seed), _more(everybody.with_seed))
        _card("Left or right", SIDE_HELP, f"left {everybody.side.share}", _side(everybody.side))
        _card("Longer or shorter", LONGER_HELP, f"longer {everybody.length.share}", _length(everybody))
        where = (
            f"{moved.towards:,} towards it, {moved.away:,} away from it, {moved.neither:,} neither" if moved.n else ""
        )
        _card("Changed minds", CHANGED_HELP, f"{moved.n:,} of {everybody.n:,} answers", where)
    if everybody.with_model.n:
        st.caption(AT_RANDOM_ONLY)


def _card(title: str, help: str, value: str, line: str) -> None:
    with st.container(border=True, width=CARD_WIDTH, height="stretch", gap="small"):
        st.markdown(f"**{title}**", help=help)
        st.markdown(_unbroken(value))
        if line:
            st.caption(_unbroken(f"{line}."))


def _unbroken(words: str) -> str:
    """A number keeps its name and its unit on its line."""
    return components.plain(words.replace("n = ", "n\u00a0=\u00a0").replace(" %", "\u00a0%"))


def _side(side: Bias) -> str:
    if not side.share.n:
        return ""
    found = "Further from one half than chance explains" if side.p_value < SURE else "Chance explains that"
    few = "" if side.share.n >= side.n_needed else f"; {side.n_needed:,} answers find a bias of 10 points"
    return f"{found} (p = {side.p_value:.2g}){few}"


def _length(everybody: Person) -> str:
    for_longer, against = everybody.errors
    return f"Wrong where the shorter is right {for_longer}, where the longer is {against}" if for_longer.n else ""


def _more(share: Interval) -> str:
    more = annotators.more_needed(share)
    return f"About {more:,} more answers make it known to ±{100 * CLOSE:.0f} points" if more and share.n else ""
