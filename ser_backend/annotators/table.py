"""A run's answers as columns: who said what of which pair, beside what others, the model and the seed said of it.

Answers as they were given before anything of the model was shown. Costs what the answers are many, not the pool.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ser_backend.desk_figures import TIE
from ser_backend.pairs import PairSet
from ser_backend.records import AT_RANDOM, PRIVATE, Pair, Queue, Review
from ser_backend.review import blind
from ser_backend.store import in_force

CATEGORY = {"a": 0, "b": 1, "tie": TIE, None: -1}
SHARED: tuple[Queue, ...] = ("learn", "audit", "sample", "seed")  # queues whose pairs several people may answer


@dataclass(frozen=True, slots=True)
class Table:
    """Answers as first given, skips among them, oldest first; arrays of shape (n,)."""

    person: np.ndarray  # number
    pair: np.ndarray  # number
    group: np.ndarray  # of pairs, number
    domain: np.ndarray  # number
    queue: np.ndarray  # names
    said: np.ndarray  # 0 a, 1 b, 2 tie, -1 nothing
    left: np.ndarray  # 1 the left was chosen, 0 the right, nan no side, or the same person's second answer to the pair
    longer: np.ndarray  # the same for the longer response; nan also where both are of one length
    gold: np.ndarray  # in the queue "gold": what the seed says, as `said`; elsewhere -1
    gold_longer: np.ndarray  # 1 the seed says the longer response, 0 the shorter, nan elsewhere
    other: np.ndarray  # 1 the first other person said the same, 0 something else, nan nobody else answered
    before: np.ndarray  # in the queue "repeat": what this person said the first time, as `said`; elsewhere -1
    model: np.ndarray  # 1 the margin agrees, 0 it does not, nan not asked at random, no margin or no side
    label: np.ndarray  # the same for the self-label
    at: np.ndarray  # seconds since the epoch
    active_ms: np.ndarray  # nan where not known
    skipped: np.ndarray
    flagged: np.ndarray
    changed: np.ndarray  # 1 towards the model, -1 away from it, 0 neither, nan not changed


def table_of(rows: Sequence[Review], names: Sequence[str], pool: PairSet, seed: PairSet) -> tuple[Table, list[str]]:
    """And the names of the domains."""
    # Place by place about the same answer, in the order of the first ones: to change one's mind makes one no later.
    found = sorted(zip(in_force(rows), blind(rows), strict=True), key=lambda one: one[1].id)
    last, given = [now for now, _ in found], [first for _, first in found]
    number = {name: place for place, name in enumerate(names)}
    ids = list(dict.fromkeys(row.pair for row in given))
    place = {pair: i for i, pair in enumerate(ids)}
    group_of, domain_of, domains, longer_of = _pair_facts(ids, pool, seed)
    pair = np.array([place[row.pair] for row in given], np.int64)
    person = np.array([number[row.annotator] for row in given], np.int64)
    queue = np.array([row.queue for row in given], object)
    said = np.array([CATEGORY[row.preferred] for row in given], np.int64)
    chosen = [row.verdict if row.queue not in ("repeat", "adjudicate") else "" for row in given]
    sided = np.array([{"left": 1.0, "right": 0.0}.get(verdict, math.nan) for verdict in chosen])
    longer_is = longer_of[pair] if len(pair) else np.empty(0)
    gold = np.array([CATEGORY[row.self_label] if row.queue == "gold" else -1 for row in given], np.int64)
    model, label = _with_model(rows, given)
    return Table(
        person=person,
        pair=pair,
        group=group_of[pair] if len(pair) else pair,
        domain=domain_of[pair] if len(pair) else pair,
        queue=queue,
        said=said,
        left=sided,
        longer=np.where(np.isnan(sided), math.nan, _is(said, longer_is)),
        gold=gold,
        gold_longer=_is(gold, longer_is),
        other=_same_as_another(person, pair, np.isin(queue, SHARED) & (said >= 0), said),
        before=_before(given, said),
        model=model,
        label=label,
        at=np.array([row.answered_at for row in given]),
        active_ms=np.array([math.nan if row.active_ms is None else row.active_ms for row in given]),
        skipped=np.array([row.verdict == "skip" for row in last], bool),
        flagged=np.array([row.flagged for row in last], bool),
        changed=np.array([_moved(first, now) for first, now in zip(given, last, strict=True)]),
    ), domains


def _pair_facts(
    ids: Sequence[str], pool: PairSet, seed: PairSet
) -> tuple[np.ndarray, np.ndarray, list[str], np.ndarray]:
    """Group and domain of each pair as numbers, the domains' names, and which response is longer: 0 a, 1 b, nan neither."""
    groups = np.zeros(len(ids), np.uint64)
    names = [""] * len(ids)
    longer = np.full(len(ids), math.nan)
    for source, places, rows in _found(ids, pool, seed):
        groups[places] = source.group_keys[rows]
        for place, pair in zip(places, source.pairs(rows), strict=True):
            names[place] = pair.domain
            by = len(pair.response_b.text) - len(pair.response_a.text)
            longer[place] = float(by > 0) if by else math.nan
    domains = sorted(set(names))
    number = {name: place for place, name in enumerate(domains)}
    return (
        np.unique(groups, return_inverse=True)[1],
        np.array([number[name] for name in names], np.int64),
        domains,
        longer,
    )


def _found(ids: Sequence[str], pool: PairSet, seed: PairSet) -> Iterator[tuple[PairSet, list[int], list[int]]]:
    """Where the pairs are: set, places among ids, rows of the set."""
    left = list(range(len(ids)))
    for source in (pool, seed):
        if not left:
            return
        known = list(zip(left, source.rows_of([ids[place] for place in left]), strict=True))
        left = [place for place, row in known if row is None]
        here = [(place, row) for place, row in known if row is not None]
        if here:
            yield source, [place for place, _ in here], [row for _, row in here]


def _is(said: np.ndarray, which: np.ndarray) -> np.ndarray:
    """1 where `said` is that response, 0 where it is the other one, nan where it is neither or which is nan."""
    decided = (said >= 0) & (said < TIE) & ~np.isnan(which)
    return np.where(decided, (said == which).astype(float), math.nan)


def _same_as_another(person: np.ndarray, pair: np.ndarray, counts: np.ndarray, said: np.ndarray) -> np.ndarray:
    """Against the first other person who answered the pair: one comparison a person and pair, so that they are independent."""
    found = np.full(len(said), math.nan)
    rows = first_of_each(np.flatnonzero(counts), person, pair)
    _, first, number = np.unique(pair[rows], return_index=True, return_inverse=True)
    rest = np.setdiff1d(np.arange(len(rows)), first)
    _, second = np.unique(number[rest], return_index=True)
    then = np.full(len(first), -1)
    then[number[rest[second]]] = rest[second]
    other = np.where(np.isin(np.arange(len(rows)), first), then[number], first[number])
    both = other >= 0
    found[rows[both]] = said[rows[both]] == said[rows[other[both]]]
    return found


def first_of_each(rows: np.ndarray, person: np.ndarray, pair: np.ndarray) -> np.ndarray:
    """Of these rows the first of each person and pair, ascending."""
    key = person[rows] * (int(pair.max(initial=0)) + 1) + pair[rows]
    return rows[np.sort(np.unique(key, return_index=True)[1])]


def _before(given: Sequence[Review], said: np.ndarray) -> np.ndarray:
    first: dict[tuple[str, str], int] = {}
    found = np.full(len(given), -1)
    for place, row in enumerate(given):
        key = row.annotator, row.pair
        if row.queue == "repeat":
            found[place] = first.get(key, -1)
        elif row.queue not in PRIVATE and said[place] >= 0:
            first.setdefault(key, int(said[place]))
    return found


def _with_model(rows: Sequence[Review], given: Sequence[Review]) -> tuple[np.ndarray, np.ndarray]:
    """Whether each answer at random agrees with the margin, and with the self-label.

    What was answered anew after an undo, or after a skip, was answered by somebody who may have seen the model's choice;
    so the first thing ever said counts, and nothing where that was a skip.
    """
    first: dict[tuple[str, str], Review] = {}
    for row in rows:
        if row.verdict != "undo" and row.queue not in PRIVATE:
            first.setdefault((row.annotator, row.pair), row)
    model, label = np.full(len(given), math.nan), np.full(len(given), math.nan)
    for place, row in enumerate(given):
        if row.queue not in AT_RANDOM or row.preferred is None:
            continue
        said = first[row.annotator, row.pair]
        if said.queue in AT_RANDOM and said.preferred in ("a", "b"):
            if said.margin:
                model[place] = (said.margin > 0) == (said.preferred == "a")
            if said.self_label:
                label[place] = said.self_label == said.preferred
    return model, label


def _moved(first: Review, now: Review) -> float:
    if now.blind:
        return math.nan
    if not now.margin or now.queue in ("seed", "gold", "adjudicate"):  # the model's choice is not what was shown there
        return 0.0
    place = {"a": 1, "tie": 0, "b": -1, None: 0}
    return float(np.sign((place[now.preferred] - place[first.preferred]) * now.margin))


def pairs_of(ids: Sequence[str], pool: PairSet, seed: PairSet) -> dict[str, Pair]:
    """With their texts; those that neither set has are left out."""
    return {
        ids[place]: pair
        for source, places, rows in _found(ids, pool, seed)
        for place, pair in zip(places, source.pairs(rows), strict=True)
    }
