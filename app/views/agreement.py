"""Agreement: do people agree with one another, with the model and with themselves, and what sways them."""

import components
import state
import streamlit as st
from agreeing import cards, tables, votes

from ser_backend import annotators, review
from ser_backend.annotators import Figures
from ser_backend.pairs import PairSet
from ser_backend.review import Answers
from ser_backend.store import Store

QUESTION = "How well do people agree?"


def page() -> None:
    store = components.open_store()
    action = components.head(QUESTION, "What the answers of all people say, taken together.")
    run = components.run_picker(store)
    if run is None:
        components.nothing_yet("There is no run yet, so nobody can have answered.", "views/train.py", "Start one")
        return
    with components.errors_in_words():
        store.require("see_rewards")
        answers, pool, seed = _answers_of(run.id, components.any_store())
        answers.refresh()
        if not answers.rows:
            components.nothing_yet("Nobody has answered a pair of this run yet.", "views/review.py", "Review pairs")
            return
        found = _figures(run.id, answers.rows[-1].id, answers, pool, seed)
        apart = review.disagreements(answers.standing)
        with action:
            _settle(store, len(apart))
        cards.summary(found)
        cards.cards(found)
        tables.picture(found)
        tables.tables(found)
        votes.apart(answers, pool, seed, apart)
        votes.remarks(answers, pool, seed)
        votes.downloads(store, run)


@st.cache_resource(show_spinner=False, max_entries=8)
def _answers_of(run_id: str, _store: Store) -> tuple[Answers, PairSet, PairSet]:
    """For all sessions: what is kept in memory is the same for everybody."""
    run = _store.run(run_id)
    return Answers(_store, run_id), PairSet.open(run.pool), PairSet.open(run.seed)


@st.cache_resource(show_spinner=False, max_entries=8)
def _figures(run_id: str, newest: int, _answers: Answers, _pool: PairSet, _seed: PairSet) -> Figures:
    return annotators.figures(_answers.rows, _pool, _seed)


def _settle(store: Store, n: int) -> None:
    if n and store.may("adjudicate"):
        label = f"Settle {components.count(n, 'disagreement')}"
        if st.button(
            label, type="primary", icon=":material/gavel:", help="Your answer to a pair is the one that counts."
        ):
            st.session_state[state.QUEUE] = "adjudicate"
            st.switch_page("views/review.py")


page()
