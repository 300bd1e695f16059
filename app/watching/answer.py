"""The answer to the page's question: accuracy now, beside rules that read no word, and whether self-labels had a part in it."""

import charts
import components
import streamlit as st
from picture import show_figure

from ser_backend import buckets, report
from ser_backend.errors import NotFound
from ser_backend.records import Round, Run
from ser_backend.run_folder import RunFolder
from ser_backend.store import Store
from watching import known

OUTCOMES = {
    "better": (st.success, ":material/trending_up:"),
    "open": (st.info, ":material/trending_flat:"),
    "worse": (st.warning, ":material/trending_down:"),
}
RULES_HELP = (
    "A model is worth something as far as it beats rules that read no word. Of two opposite rules the better one is named, "
    "on the same held-out pairs."
)


def draw(store: Store, run: Run, rounds: list[Round], folder: RunFolder) -> None:
    now = report.accuracy_now(rounds)
    if now is None or not rounds:
        return
    rules = rules_of(store, run)
    words = f"**Accuracy now: {now}**"
    if rules:
        by_length, by_side = rules
        words += f" · preferring {by_length.name}: {short(by_length)}"
    st.markdown(words, help=RULES_HELP if rules else None)
    beside = [f"Seed model: {rounds[0].heldout}"] if len(rounds) > 1 else []
    if rules:
        beside.append(f"{by_side.name}, the majority: {short(by_side)}")
    if beside:
        st.caption(components.plain(" · ".join(beside)))
    if rules and now.value <= rules[0].accuracy.value:
        st.warning(
            f"The model does not beat a rule that reads no word: preferring {rules[0].name} is right on {short(rules[0])} "
            "of the same held-out pairs. Before you use it, see what the doctor says and whether these sets belong together.",
            icon=":material/warning:",
        )
    if (kind := components.outcome(rounds)) and (sentence := report.verdict(rounds)):
        show, icon = OUTCOMES[kind]
        show(components.plain(sentence), icon=icon)
    for note in (folder.json("data") or {"notes": []})["notes"]:
        st.caption(components.plain(note))


def short(rule: buckets.Rule) -> str:
    """With its interval; the n is the one beside it."""
    value, low, high = (100 * x for x in (rule.accuracy.value, rule.accuracy.low, rule.accuracy.high))
    return f"{value:.1f} % ({low:.1f} to {high:.1f})"


def rules_of(store: Store, run: Run) -> tuple[buckets.Rule, buckets.Rule] | None:
    """What length and majority alone would get on the held-out pairs; None where there are none."""
    try:
        found = known.truth(run.id, store)
    except NotFound:  # removed since, or not prepared yet
        return None
    if not (found.preferred != 0).any():
        return None
    return buckets.length_rule(found.longer_by, found.preferred), buckets.side_rule(found.preferred)


def pictures(store: Store, run: Run, rounds: list[Round]) -> None:
    """Accuracy by round, and what self-labels added."""
    left, right = st.columns(2)
    figure, rules = charts.accuracy(rounds), rules_of(store, run)
    if rules:
        figure = charts.with_rule(figure, rules[0])
    show_figure(figure, "accuracy", left)
    show_figure(charts.difference(rounds), "difference", right)
    if run.config.get("fit", "head") != "head" and not components.is_active(run):
        show_figure(charts.loss(rounds), "loss")
