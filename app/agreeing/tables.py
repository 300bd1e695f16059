"""Annotators, couples of them and domains: in a picture, and in tables."""

import math
from collections.abc import Sequence

import charts
import streamlit as st
from picture import show_figure

from ser_backend import votes_file
from ser_backend.agreement import Agreement
from ser_backend.annotators import ENOUGH, MOST_COUPLES, MOST_DOMAINS, Domain, Figures, Person
from ser_backend.records import Interval

NAME_WIDTH = 140  # pixels
LONGEST_OF_TWO = 12  # letters of a name beside an axis, where two stand
MOST_DOTS = 40  # people or couples in the figure, those with most answers
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


def picture(found: Figures) -> None:
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
        show_figure(figure, f"agreement-{name}")
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


def tables(found: Figures) -> None:
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
