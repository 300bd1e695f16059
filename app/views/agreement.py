"""Agreement: do people agree with one another, with the model and with themselves, and what sways them."""

import math
import tempfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import charts
import components
import state
import streamlit as st

from ser_backend import annotators, review, votes_file
from ser_backend.agreement import Agreement
from ser_backend.annotators import CLOSE, ENOUGH, MOST_COUPLES, MOST_DOMAINS, Domain, Figures, Person
from ser_backend.desk_figures import SURE, Bias
from ser_backend.pairs import PairSet
from ser_backend.records import Interval, Pair, Review, Run
from ser_backend.review import Answers
from ser_backend.store import Store

QUESTION = "How well do people agree?"
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
NAME_WIDTH = 140  # pixels
LONGEST_OF_TWO = 12  # letters of a name beside an axis, where two stand
MOST_DOTS = 40  # people or couples in the figure, those with most answers
MOST_PAIRS = 10  # shown with their texts
LONGEST = 600  # characters of a text shown here
MEASURES = {
    "others": (
        "One another",
        "How often each annotator answers as another person does",
        "share of pairs answered alike",
    ),
    "couples": ("Two by two", "How far every two people agree beyond chance", "Cohen's kappa (0 = chance, 1 = always)"),
    "model": ("The model", "How often each annotator and the model agree", "share of random pairs"),
    "label": ("Self-labels", "How often each annotator agrees with a self-label", "share of checked self-labels"),
    "self": ("Themselves", "How often each annotator repeats an answer", "share of pairs shown twice"),
    "seed": ("The seed", "How often each annotator agrees with the seed", "share of gold pairs"),
    "left": ("Left side", "How often each annotator chooses the left response", "share of decided answers"),
    "longer": ("Longer one", "How often each annotator chooses the longer response", "share of decided answers"),
}
LINES = {
    "couples": (0.0, "chance"),
    "model": (0.5, "guessing"),
    "label": (0.5, "guessing"),
    "left": (0.5, "no favourite side"),
    "longer": (0.5, "no favourite length"),
}
FORMATS = {
    **dict.fromkeys(("Krippendorff's alpha", "Cohen's kappa", "low", "high"), "%.2f"),
    "answers an hour": "%.0f",
    **dict.fromkeys(("answered alike, %", "by chance, %", "seconds a pair"), "%.1f"),
}


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
        _summary(found)
        _cards(found)
        _picture(found)
        _tables(found)
        _apart(answers, pool, seed, apart)
        _remarks(answers, pool, seed)
        _downloads(store, run)


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


# ---- the answer in words


def _summary(found: Figures) -> None:
    everybody = found.everybody
    counts = [components.count(everybody.n, "answer"), components.count(everybody.n_skips, "skip")]
    if everybody.n_flagged:
        counts.append(components.count(everybody.n_flagged, "flag"))
    st.markdown(f"**{components.plain(annotators.in_words(found))}**")
    st.caption(f"{', '.join(counts)} of {components.count(len(found.people), 'person', 'people')}.")
    components.alarm_list(annotators.warnings(found))


def _cards(found: Figures) -> None:
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


# ---- by annotator, by two, by domain


def _picture(found: Figures) -> None:
    dots = {name: _dots(found, name) for name in MEASURES}
    known = [name for name in MEASURES if any(dot[4] for dot in dots[name])]
    if not known:
        return
    with st.container(border=True):
        name = st.segmented_control(
            "Measure",
            known,
            default=known[0],
            required=True,
            format_func=lambda name: MEASURES[name][0],
            key="measure",
            label_visibility="collapsed",
        )
        _, title, axis = MEASURES[name]
        figure = charts.agreement(
            title, axis, dots[name][:MOST_DOTS], ENOUGH, LINES.get(name), percent=name != "couples"
        )
        st.plotly_chart(figure, config=charts.CONFIG, key=f"agreement-{name}")
        words = []
        if name == "couples" and found.n_couples > len(found.couples):
            words.append(
                f"{found.n_couples:,} couples have a pair in common; the {len(found.couples):,} with {ENOUGH} or more "
                f"(at most {MOST_COUPLES}) have a figure."
            )
        if sum(bool(dot[4]) for dot in dots[name]) > MOST_DOTS:
            words.append(f"Drawn are the {MOST_DOTS} with most answers; the table holds all.")
        if words:
            st.caption(" ".join(words))


def _dots(found: Figures, name: str) -> list[tuple[str, float, float, float, int]]:
    if name == "couples":
        known = [
            (f"{_short(a)} and {_short(b)}", kappa) for a, b, kappa in found.couples if not math.isnan(kappa.value)
        ]
        return [(couple, kappa.value, kappa.low, kappa.high, kappa.n_items) for couple, kappa in known]
    shares = [(person.name, _shares(person)[name]) for person in found.people]
    return [(who, share.value, share.low, share.high, share.n) for who, share in shares]


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_OF_TWO else f"{name[: LONGEST_OF_TWO - 1]}…"


def _shares(person: Person) -> dict[str, Interval]:
    return {
        "others": person.with_others,
        "model": person.with_model,
        "label": person.with_label,
        "self": person.with_self.same,
        "seed": person.with_seed,
        "left": person.side.share,
        "longer": person.length.share,
    }


def _tables(found: Figures) -> None:
    st.subheader("By annotator", anchor=False)
    _table([_row(person) for person in found.people])
    if found.domains:
        st.subheader("By domain", anchor=False)
        _table([_domain_row(domain) for domain in found.domains])
        st.caption(
            f"Empty or left out where fewer than {ENOUGH} answers say so; of domains, the {MOST_DOMAINS} with most answers."
        )
    if found.couples:
        with st.expander("Every two people", icon=":material/table_rows:"):
            _table([_couple_row(*couple) for couple in found.couples])
    if found.skip_reasons:
        with st.expander(f"Why pairs were skipped ({found.everybody.n_skips:,})", icon=":material/skip_next:"):
            _table([{"reason": votes_file.defused(reason), "skips": n} for reason, n in found.skip_reasons])


def _table(rows: Sequence[dict[str, object]]) -> None:
    """Without columns that are empty; the first stays where it is when one scrolls."""
    known = [name for name in rows[0] if any(row[name] not in (None, "") for row in rows)]
    columns = {name: st.column_config.NumberColumn(format=kind) for name, kind in FORMATS.items()}
    columns[next(iter(rows[0]))] = st.column_config.Column(pinned=True, width=NAME_WIDTH)
    shown = [{name: row[name] for name in known} for row in rows]
    st.dataframe(shown, hide_index=True, column_config=columns, placeholder="")


def _row(person: Person) -> dict[str, object]:
    pace = person.pace
    return {
        "annotator": votes_file.defused(person.name),
        "answers": person.n,
        **{MEASURES[name][0].lower(): _sortable(share) for name, share in _shares(person).items()},
        "ties": person.n_ties,
        "skips": person.n_skips,
        "flags": person.n_flagged,
        "changed towards the model": person.changed.towards,
        "away from it": person.changed.away,
        "seconds a pair": _known(pace.seconds) if pace else None,
        "answers an hour": _known(pace.per_hour) if pace else None,
    }


def _domain_row(domain: Domain) -> dict[str, object]:
    return {
        "domain": votes_file.defused(domain.name) or "(none named)",
        "answers": domain.n,
        "Krippendorff's alpha": domain.alpha and _known(domain.alpha.value),
        "low": domain.alpha and _known(domain.alpha.low),
        "high": domain.alpha and _known(domain.alpha.high),
        "answered alike": _sortable(domain.observed),
        "the model": _sortable(domain.with_model),
        "self-labels": _sortable(domain.with_label),
    }


def _couple_row(one: str, other: str, kappa: Agreement) -> dict[str, object]:
    return {
        "one": votes_file.defused(one),
        "other": votes_file.defused(other),
        "Cohen's kappa": _known(kappa.value),
        "low": _known(kappa.low),
        "high": _known(kappa.high),
        "answered alike, %": 100 * kappa.agreed,
        "by chance, %": 100 * kappa.by_chance,
        "pairs": kappa.n_items,
    }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _sortable(share: Interval | Agreement | None) -> str:
    """Its words, set so that the order of letters is that of the values."""
    words = str(share) if share else ""
    return " " * (len("100.0") - words.index(" ")) + words if "%" in words else ""


# ---- pairs to look at


def _apart(answers: Answers, pool: PairSet, seed: PairSet, apart: Sequence[str]) -> None:
    if not apart:
        return
    said = review.of_pair(answers.standing)
    with st.expander(f"Where people disagree ({components.count(len(apart), 'pair')})", icon=":material/call_split:"):
        shown = apart[:MOST_PAIRS]
        if len(apart) > len(shown):
            st.caption(f"The first {len(shown):,} of {len(apart):,}, those without a majority first.")
        pairs = annotators.pairs_of(shown, pool, seed)
        for pair in shown:
            if pair in pairs:
                sides = annotators.sides(said[pair])
                _pair(pairs[pair], _by(sides["a"]), _by(sides["b"]))
                if sides["tie"]:
                    st.caption(f"tie: {components.plain(', '.join(sides['tie']))}")


def _remarks(answers: Answers, pool: PairSet, seed: PairSet) -> None:
    found = annotators.remarks(answers.standing)
    if not found:
        return
    with st.expander(f"Flags and notes ({components.count(len(found), 'answer')})", icon=":material/flag:"):
        shown = found[:MOST_PAIRS]
        if len(found) > len(shown):
            st.caption(f"The newest {len(shown):,}; the files below hold all.")
        pairs = annotators.pairs_of(list(dict.fromkeys(row.pair for row in shown)), pool, seed)
        for row in shown:
            st.markdown(_remark(row))
            if row.pair in pairs:
                better = {"a": "left", "b": "right"}.get(row.preferred or "", "")
                _pair(pairs[row.pair], "", "", better)


def _remark(row: Review) -> str:
    at = datetime.fromtimestamp(row.answered_at).strftime("%d %b %H:%M")
    said = {"a": "a is better", "b": "b is better", "tie": "tie"}.get(row.preferred or "", "skipped")
    flag = ":orange[:material/flag: flagged] · " if row.flagged else ""
    note = f": {components.plain(' '.join(row.note.split()))}" if row.note else ""
    return f"{flag}**{components.plain(row.annotator)}**, {at}, {said}{note}"


def _by(names: Sequence[str]) -> str:
    return f" · {', '.join(names)}" if names else ""


def _pair(pair: Pair, by_a: str, by_b: str, better: str = "") -> None:
    a, b = pair.response_a, pair.response_b
    names = (f"Response a{by_a}", f"Response b{by_b}")
    st.html(components.pair_html(_cut(a.prompt), _cut(a.text), _cut(b.text), names, "card", better))


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


# ---- taken home


def _downloads(store: Store, run: Run) -> None:
    if not store.may("export"):
        return
    st.markdown("**All votes**")
    st.caption(
        "Every row as it was written, undone and changed ones too, with times, reasons, notes, and the model and guidelines in "
        "force. JSONL is exact. In CSV a text that a spreadsheet would take for a formula has an apostrophe before it."
    )
    with st.container(horizontal=True):
        for suffix, label, kind in ((".csv", "CSV", "text/csv"), (".jsonl", "JSONL", "application/jsonl")):
            st.download_button(
                label,
                lambda suffix=suffix: _votes(components.open_store(), run.id, suffix),  # of who is signed in then
                file_name=f"votes-{run.id}{suffix}",
                mime=kind,
                icon=":material/download:",
                on_click="ignore",
                key=f"votes{suffix}",
            )


def _votes(store: Store, run_id: str, suffix: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"votes{suffix}"
        votes_file.write_votes(store, run_id, path)
        return path.read_bytes()


page()
