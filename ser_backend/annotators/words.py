"""What the figures of annotators say in words, what to be warned of, and which answers to look at."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import numpy as np

from ser_backend.alarms import Alarm
from ser_backend.annotators.figures import Figures, Person
from ser_backend.calibration import clopper_pearson, so_few_wrong
from ser_backend.desk_figures import SURE, audits_needed
from ser_backend.records import Interval, Review

CLOSE = 0.05  # half width of an interval that is narrow enough
MUCH = 0.1  # a person so far below the others is named, if chance does not explain it
Side = Literal["a", "b", "tie"]


def in_words(found: Figures) -> str:
    """How far people agree, in one or two sentences."""
    if not found.everybody.n:
        return "Nobody has answered a pair yet."
    if len(found.people) == 1:
        return (
            f"One person ({found.people[0].name}) has answered so far, so nothing is known of how far people agree. What "
            "one person's answers tell of themselves is below."
        )
    if not found.observed.n_items:
        return "No pair has answers of two people, so nothing is known of how far people agree."
    if math.isnan(found.alpha.value):
        return found.alpha.in_words()
    return (
        f"Two answers to one pair are the same in {found.observed}. Krippendorff's alpha, where 0 is chance and 1 is full "
        f"agreement, is {found.alpha.value:.2f} ({found.alpha.low:.2f} to {found.alpha.high:.2f})."
    )


def more_needed(share: Interval) -> int:
    """How many more answers until the share is known to CLOSE."""
    return audits_needed(round(share.value * share.n) if share.n else 0, share.n, CLOSE)


def warnings(found: Figures) -> list[Alarm]:
    """What one should know before trusting the answers, in sentences; those about all first."""
    return [*_about_all(found), *_about_people(found.people)]


def _about_all(found: Figures) -> Iterator[Alarm]:
    n = found.observed.n_items
    if len(found.people) > 1:
        agreed = 0.0 if not n else found.observed.agreed
        more = audits_needed(round(agreed * n), n, CLOSE)
        if more:
            yield Alarm(
                "few-pairs",
                f"{'No pair has' if not n else f'{n:,} pairs have' if n > 1 else '1 pair has'} answers of two people. About "
                f"{more:,} more make it known to ±{100 * CLOSE:.0f} points how often they agree. How many people answer a pair "
                "is set on Review, under Team.",
            )
    everybody = found.everybody
    if everybody.side.p_value < SURE and len(found.people) > 1:
        yield Alarm("side", f"{everybody.side.in_words()} Ask people to read both responses before they decide.")
    for_longer, against = everybody.errors
    if for_longer.n and against.n and _fewer(against, for_longer) < SURE / 2:
        yield Alarm(
            "length",
            f"Length seems to sway the answers: where the seed prefers the shorter response, people chose the longer one in "
            f"{for_longer}; where it prefers the longer, they chose the shorter one in {against}. The model will learn that "
            "from them.",
        )


def _fewer(one: Interval, other: Interval) -> float:
    """Probability that the first share is so much the smaller by chance (Fisher's exact test, one-sided)."""
    k, j = (np.array([round(share.value * share.n)]) for share in (one, other))
    return float(so_few_wrong(k, np.array([one.n]), j, np.array([other.n]))[0])


def _about_people(people: Sequence[Person]) -> Iterator[Alarm]:
    for person, p_value in zip(people, _holm([person.side.p_value for person in people]), strict=True):
        if p_value < SURE:
            where = "left" if person.side.share.value > 0.5 else "right"
            yield Alarm(
                "side-of-one",
                f"{person.name} seems to favour the {where} side: the left response was chosen in {person.side.share} "
                f"(p = {p_value:.2g}, corrected for {len(people)} people).",
            )
    kinds: tuple[tuple[str, list[Interval], str], ...] = (
        ("inconsistent", [p.with_self.same for p in people], "gave the same answer to a pair shown again in"),
        ("against-seed", [p.with_seed for p in people], "agrees with the seed's labels in"),
        ("alone", [p.with_others for p in people], "answers as another person does in"),
    )
    for name, shares, words in kinds:
        right = np.array([round(share.value * share.n) if share.n else 0 for share in shares])
        n = np.array([share.n for share in shares])
        others_right, others = right.sum() - right, n.sum() - n
        p_values = _holm(so_few_wrong(right, n, others_right, others).tolist())
        for place, p_value in enumerate(p_values):
            if not (n[place] and others[place]) or p_value >= SURE:
                continue
            rest = clopper_pearson(int(others_right[place]), int(others[place]))
            if rest.value - shares[place].value >= MUCH:
                yield Alarm(
                    name,
                    f"{people[place].name} {words} {shares[place]}, the others in {rest}. Look at these answers, or talk "
                    "about the guidelines.",
                )


def _holm(p_values: Sequence[float]) -> list[float]:
    """Corrected for being many (Holm 1979, Scandinavian Journal of Statistics 6, 65-70)."""
    order = np.argsort(p_values, kind="stable")
    raised = np.maximum.accumulate(np.asarray(p_values, float)[order] * np.arange(len(order), 0, -1))
    found = np.empty(len(order))
    found[order] = np.minimum(raised, 1.0)
    return found.tolist()


def remarks(standing: Iterable[Review]) -> list[Review]:
    """Answers that were flagged or have a note, newest first. standing: in force."""
    return [row for row in standing if row.flagged or row.note][::-1]


def sides(same: Iterable[Review]) -> dict[Side, list[str]]:
    """Who said what of one pair, one answer a person, the newest."""
    newest = {row.annotator: row.preferred for row in same if row.preferred}
    found: dict[Side, list[str]] = {"a": [], "b": [], "tie": []}
    for name, said in newest.items():
        found[said].append(name)
    return found
