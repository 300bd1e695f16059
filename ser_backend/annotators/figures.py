"""The figures of a run's annotators.

Everybody's figures count each pair once, by its first answer: what several people say of one pair is not independent. Shares
have exact intervals, coefficients bootstrap ones over pair groups.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ser_backend.agreement import Agreement, cohen, fleiss, krippendorff, observed
from ser_backend.annotators.table import SHARED, Table, first_of_each, table_of
from ser_backend.calibration import clopper_pearson
from ser_backend.desk_figures import (
    TIE,
    Bias,
    Consistency,
    LengthBias,
    Pace,
    gold_accuracy,
    length_bias,
    pace,
    position_bias,
    self_consistency,
)
from ser_backend.pairs import PairSet
from ser_backend.records import Interval, Review
from ser_backend.store import in_force

ENOUGH = 20  # from so many answers, or pairs that two people answered, a domain and every two people have their figures
MOST_COUPLES, MOST_DOMAINS = 200, 30  # that have a figure of their own, those with most answers first
EVERYBODY = "everybody"


@dataclass(frozen=True, slots=True)
class Changed:
    """Answers changed after the model's choice was shown, by where they went. A tie lies between the two responses."""

    towards: int = 0
    away: int = 0
    neither: int = 0  # another strength or kind of tie, or a pair of which the model was not asked

    @property
    def n(self) -> int:
        return self.towards + self.away + self.neither


@dataclass(frozen=True, slots=True)
class Person:
    """One person's answers, or everybody's."""

    name: str
    n: int  # answers in all queues, ties among them
    n_ties: int
    n_skips: int
    n_flagged: int
    with_others: Interval  # share of pairs answered as the first other person to answer them did
    with_model: Interval  # share of random pairs on which the margin has the sign of the answer
    with_label: Interval  # share of randomly checked self-labels agreed with
    with_self: Consistency
    with_seed: Interval  # share of gold pairs answered as the seed says
    side: Bias
    length: LengthBias
    errors: tuple[
        Interval, Interval
    ]  # share of gold pairs answered wrongly where the longer one is wrong, and is right
    pace: Pace | None  # None for everybody
    changed: Changed


@dataclass(frozen=True, slots=True)
class Domain:
    """None where there are fewer than ENOUGH answers to say."""

    name: str  # "" where the source names none
    n: int  # answers
    alpha: Agreement | None
    observed: Agreement | None
    with_model: Interval | None
    with_label: Interval | None


@dataclass(frozen=True, slots=True)
class Figures:
    everybody: Person
    people: tuple[Person, ...]  # those with most answers first
    alpha: Agreement
    fleiss: Agreement
    observed: Agreement
    couples: tuple[tuple[str, str, Agreement], ...]  # Cohen's kappa of two people with ENOUGH pairs in common
    n_couples: int  # all that have a pair in common
    domains: tuple[Domain, ...]  # none where there is but one
    labelled: Interval  # agreement with the margin on self-labelled pairs ...
    unlabelled: Interval  # ... and on the others
    skip_reasons: tuple[tuple[str, int], ...]  # most frequent first


def figures(rows: Sequence[Review], pool: PairSet, seed: PairSet) -> Figures:
    """rows: every row of a run. pool, seed: its pairs."""
    standing = in_force(rows)
    names = sorted({row.annotator for row in standing})
    table, domains = table_of(rows, names, pool, seed)
    people = [_person(name, table, table.person == number) for number, name in enumerate(names)]
    ratings, groups, domain_of = _ratings(table, len(names))
    couples, n_couples = _couples(ratings, names, groups)
    labelled, asked = ~np.isnan(table.label), ~np.isnan(table.model)
    return Figures(
        everybody=_everybody(table),
        people=tuple(sorted(people, key=lambda person: (-person.n, person.name))),
        alpha=krippendorff(ratings, groups),
        fleiss=fleiss(ratings, groups),
        observed=observed(ratings, groups),
        couples=tuple(couples),
        n_couples=n_couples,
        domains=tuple(_domains(table, domains, ratings, groups, domain_of)),
        labelled=_share(_once(table, table.model, asked & labelled)),
        unlabelled=_share(_once(table, table.model, asked & ~labelled)),
        skip_reasons=tuple(
            Counter(row.reason or "no reason given" for row in standing if row.verdict == "skip").most_common()
        ),
    )


# ---- figures of people


def _person(name: str, table: Table, mine: np.ndarray) -> Person:
    answered = mine & (table.said >= 0)
    gold = mine & (table.gold >= 0)
    return Person(
        name=name,
        n=int(answered.sum()),
        n_ties=int((table.said[mine] == TIE).sum()),
        n_skips=int(table.skipped[mine].sum()),
        n_flagged=int(table.flagged[mine].sum()),
        with_others=_share(table.other[mine]),
        with_model=_share(table.model[mine]),
        with_label=_share(table.label[mine]),
        with_self=self_consistency(table.before[mine], table.said[mine]),
        with_seed=gold_accuracy(table.said[gold], table.gold[gold]),
        side=position_bias(table.left[mine]),
        length=_length(table, mine),
        errors=_errors(table, gold),
        pace=pace(table.at[answered], table.active_ms[answered]),
        changed=_changed(table.changed[mine]),
    )


def _everybody(table: Table) -> Person:
    """Each pair once, but for the side: which one is left is drawn for each person anew."""
    everyone = _person(EVERYBODY, table, np.ones(len(table.pair), bool))
    repeats = _firsts(table, (table.before >= 0) & (table.said >= 0))
    gold = _firsts(table, (table.gold >= 0) & (table.said >= 0))
    decided = np.zeros(len(table.pair), bool)
    for queues in (SHARED, ("gold",)):  # gold apart: a pair of the seed may be in both
        decided[_firsts(table, ~np.isnan(table.longer) & np.isin(table.queue, queues))] = True
    return replace(
        everyone,
        with_others=_share(_once(table, table.other)),
        with_model=_share(_once(table, table.model)),
        with_label=_share(_once(table, table.label)),
        with_self=self_consistency(table.before[repeats], table.said[repeats]),
        with_seed=gold_accuracy(table.said[gold], table.gold[gold]),
        length=_length(table, decided),
        errors=_errors(table, gold),
        pace=None,
    )


def _share(values: np.ndarray) -> Interval:
    """Of 1 among 0 and 1; nan is left out."""
    known = values[~np.isnan(values)]
    return clopper_pearson(int(known.sum()), len(known))


def _firsts(table: Table, where: np.ndarray) -> np.ndarray:
    """Rows that are the first of their pair among these."""
    rows = np.flatnonzero(where)
    return rows[np.unique(table.pair[rows], return_index=True)[1]]


def _once(table: Table, values: np.ndarray, where: np.ndarray | None = None) -> np.ndarray:
    """The first value that is known of each pair."""
    known = ~np.isnan(values)
    return values[_firsts(table, known if where is None else known & where)]


def _length(table: Table, mine: np.ndarray) -> LengthBias:
    longer, gold = table.longer[mine], table.gold_longer[mine]
    has_gold = bool((~np.isnan(longer) & ~np.isnan(gold)).any())
    return length_bias(longer, gold if has_gold else None, table.group[mine])


def _errors(table: Table, gold: np.ndarray) -> tuple[Interval, Interval]:
    """By whether the longer response is the wrong one or the right one.

    LengthBias compares shares chosen, and these differ from the seed's for a person who merely errs, if the seed prefers one
    length; errors of both kinds are equally frequent unless length sways the person.
    """
    wrong = np.abs(table.longer - table.gold_longer)[gold]
    right_is_longer = table.gold_longer[gold]
    return _share(wrong[right_is_longer == 0]), _share(wrong[right_is_longer == 1])


def _changed(moves: np.ndarray) -> Changed:
    return Changed(int((moves == 1).sum()), int((moves == -1).sum()), int((moves == 0).sum()))


# ---- figures of people with one another


def _ratings(table: Table, n_people: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Answers to pairs that two people or more answered, shape (n_items, n_people); group and domain of each pair."""
    rows = np.flatnonzero(np.isin(table.queue, SHARED) & (table.said >= 0))
    rows = first_of_each(rows, table.person, table.pair)
    pairs, first, item, times = np.unique(table.pair[rows], return_index=True, return_inverse=True, return_counts=True)
    ratings = np.full((len(pairs), n_people), -1)
    ratings[item, table.person[rows]] = table.said[rows]
    several = times > 1
    return ratings[several], table.group[rows[first]][several], table.domain[rows[first]][several]


def _couples(
    ratings: np.ndarray, names: Sequence[str], groups: np.ndarray
) -> tuple[list[tuple[str, str, Agreement]], int]:
    """Not agreement.by_pair_of_people: a hundred people make 4,950 couples, few of which have much in common."""
    answered = (ratings >= 0).astype(np.float32)
    common = np.triu(answered.T @ answered, 1)
    one, other = np.nonzero(common >= ENOUGH)
    order = np.argsort(-common[one, other], kind="stable")[:MOST_COUPLES]
    found = [(int(i), int(j)) for i, j in zip(one[order], other[order], strict=True)]
    couples = [(names[i], names[j], cohen(ratings[:, i], ratings[:, j], groups)) for i, j in found]
    return couples, int((common > 0).sum())


def _domains(
    table: Table, names: Sequence[str], ratings: np.ndarray, groups: np.ndarray, domain_of: np.ndarray
) -> Iterator[Domain]:
    counts = np.bincount(table.domain[table.said >= 0], minlength=len(names))
    if (counts > 0).sum() < 2:
        return
    for number in np.argsort(-counts, kind="stable")[:MOST_DOMAINS].tolist():
        inside, both = table.domain == number, domain_of == number
        enough = int(both.sum()) >= ENOUGH
        if not counts[number]:
            return
        yield Domain(
            names[number],
            int(counts[number]),
            krippendorff(ratings[both], groups[both]) if enough else None,
            observed(ratings[both], groups[both]) if enough else None,
            _if_enough(_share(_once(table, table.model, inside))),
            _if_enough(_share(_once(table, table.label, inside))),
        )


def _if_enough(share: Interval) -> Interval | None:
    return share if share.n >= ENOUGH else None
