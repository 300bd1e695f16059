"""Which pairs a person should see next, their answers, and what the answers say about the self-labels.

Learn: pairs without a self-label in force, the least sure (smallest |margin|) first. Audit: the self-labels in force, in an
order fixed by a hash. Mixed, where a round left lists of pairs by reason (acquisition.py): so much of each as the mix says,
audits among them. Seed: labels of the seed, the most suspicious first (seed_audit.py).

Whoever answers audits always gets the first pair of that order that is open, so the answered beginning of it is a uniform
sample of all of them, also after a round has added more; only that beginning enters the estimate of precision. Answers are
blind: nothing of the model is shown before the vote. Each answer is committed before the next pair is chosen.
"""

import hashlib
import secrets
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ser_backend.calibration import clopper_pearson
from ser_backend.errors import SerError, StaleVote, TooFast
from ser_backend.pairs import PairSet
from ser_backend.records import AT_RANDOM, SIGN, Checks, Interval, Pair, Preferred, Queue, Response, Review, Verdict
from ser_backend.run_folder import RunFolder
from ser_backend.store import Store, in_force

Asked = Queue | Literal["mixed"]
Mix = Mapping[str, float]  # source of pairs -> share; shares need not add up to 1
MIX: Mix = {"sample": 0.25, "audit": 0.15, "informative": 0.3, "unsure": 0.2, "suspect": 0.1}
WHY = {
    "audit": "a random check of the self-labels",
    "sample": "drawn at random from the whole pool, to judge the teacher by",
    "informative": "its answer settles most about other pairs",
    "unsure": "one of the half that the teacher is less sure of",
    "suspect": "the student contradicts the label it was given",
    "learn": "the model can hardly tell the two apart",
    "seed": "a model that did not see this label is surest that it is wrong",
}
QUEUE_OF: Mapping[str, Queue] = {
    "audit": "audit",
    "sample": "sample",
    "seed": "seed",
}  # source -> the queue an answer is filed under
FASTEST_S = 0.3  # answers sooner than this after the pair was shown come from a held key, not from reading


@dataclass(frozen=True, slots=True)
class Presentation:
    """One showing of one pair to one person; `token` names the showing, so that it is answered at most once."""

    token: str
    run: str
    annotator: str
    queue: Queue
    asked: Asked  # the queue it was asked for from
    why: str  # this pair, in words; says nothing of the model's choice
    pair: Pair
    left_is: Literal["a", "b"]
    round: int
    margin: float
    self_label: Literal["a", "b"] | None  # the label the pair has: kept by the run, or the seed's
    shown_at: float

    @property
    def left(self) -> Response:
        return self.pair.response_a if self.left_is == "a" else self.pair.response_b

    @property
    def right(self) -> Response:
        return self.pair.response_b if self.left_is == "a" else self.pair.response_a


@dataclass(frozen=True, slots=True)
class Precision:
    """What the audits say: share of self-labels in force a person agrees with, exact 95 % interval (Clopper-Pearson)."""

    total: Interval
    by_round: dict[int, Interval]  # by the round that kept the label; all audits
    ties: int  # audits answered "tie" or "both bad": not counted as right or wrong
    skips: int
    n_kept: int  # self-labels the audits are drawn from
    n_waiting: int  # audits not in `total` yet: newer self-labels before them in the order have to be checked first


@dataclass(frozen=True, slots=True)
class Pending:
    """Answers the last finished round did not use yet."""

    decided: int
    ties: int
    withdrawn: int  # answers the last round used and that were undone since


class Desk:
    """The review desk of one run as of its last finished round. Cheap to keep, rebuilt when a round finishes."""

    def __init__(self, store: Store, run_id: str) -> None:
        """Raises SerError when the run has no finished round yet."""
        self.store, self.run = store, store.run(run_id)
        folder = RunFolder.of(run_id)
        finished = folder.finished()
        if not finished:
            raise SerError(
                f"The run {self.run.name!r} has no finished round yet, so there is nothing to review. "
                "Wait for its seed model (round 0)."
            )
        self.round = finished[-1]
        self.pool, self.seed = PairSet.open(self.run.pool), PairSet.open(self.run.seed)
        self.seed_said = self.seed.preferred()
        arrays = folder.round_arrays(self.round)  # all: which lists of pairs there are depends on the method
        self.margin = arrays["reward_a"] - arrays["reward_b"]
        self.used = arrays["human"]
        self.details = list(folder.rounds())[-1].details
        self.kept_in, self.self_label = arrays["kept_round"][0].copy(), arrays["preferred"][0].copy()
        # An audited pair has a human label since; it stays in the population its answer speaks about, as long as labels of
        # the round that kept it are in force. A pair answered in the other queue is no self-label any more.
        in_use = set(np.unique(self.kept_in[self.kept_in > 0]).tolist())
        standing = [review for review in in_force(store.reviews(run_id)) if review.verdict != "skip"]
        for review, row in zip(standing, self.pool.rows_of([r.pair for r in standing]), strict=True):
            if row is not None and review.queue == "learn":
                self.kept_in[row] = 0
            elif row is not None and review.self_label and review.round in in_use:
                self.kept_in[row], self.self_label[row] = review.round, 1 if review.self_label == "a" else -1
        is_open = self.is_open = folder.arrays("data", "pool_open")["pool_open"]
        learn = np.flatnonzero(is_open & (self.kept_in == 0))
        self._order: dict[str, np.ndarray] = {
            "learn": learn[np.argsort(np.abs(self.margin[learn]), kind="stable")],
            "audit": _hash_order(np.flatnonzero(self.kept_in > 0), self.pool.pair_keys, run_id),
        }
        if "queue_informative" in arrays:
            # The audits' order, so that answers to the sample about kept pairs are the beginning of that queue as well.
            self._order["sample"] = _hash_order(np.flatnonzero(is_open), self.pool.pair_keys, run_id)
        for name in MIX:
            if f"queue_{name}" in arrays:
                rows = arrays[f"queue_{name}"]
                self._order[name] = rows[is_open[rows]]
        self._order["seed"] = arrays.get("queue_seed", np.empty(0, np.int64))  # rows of the seed set
        self.corrected = arrays.get("corrected")
        self._place: dict[
            str, np.ndarray
        ] = {}  # row of its set -> place in the queue's order, -1 where it is not in it
        for name, order in self._order.items():
            self._place[name] = np.full(self._set(name).n_pairs, -1, np.int64)
            self._place[name][order] = np.arange(len(order))

    def _set(self, queue: str) -> PairSet:
        return self.seed if queue == "seed" else self.pool

    @property
    def n_kept(self) -> int:
        return len(self._order["audit"])

    @property
    def mixes(self) -> bool:
        """Whether the round left lists of pairs by reason."""
        return "informative" in self._order

    def size(self, queue: str) -> int:
        return len(self._order[queue])

    def answered(self, queue: str) -> int:
        """How many pairs of the queue have an answer (skips are none)."""
        return len(self._by_place(queue, [r for r in self._standing() if r.verdict != "skip"]))

    def _standing(self) -> list[Review]:
        return in_force(self.store.reviews(self.run.id))

    def _by_place(self, queue: str, reviews: Sequence[Review]) -> dict[int, Review]:
        """Place in the queue -> its newest review. Costs what the reviews are many, not the pool."""
        reviews = [review for review in reviews if (review.queue == "seed") == (queue == "seed")]
        rows = self._set(queue).rows_of([review.pair for review in reviews])
        places = (-1 if row is None else int(self._place[queue][row]) for row in rows)
        return {place: review for place, review in zip(places, reviews, strict=True) if place >= 0}

    def next(self, annotator: str, asked: Asked, mix: Mix = MIX) -> Presentation | None:
        """The first pair of the queue that nobody has answered and this person has not skipped; None at its end. Mixed: of the
        source that is furthest behind its share of the answers; one at its end is passed over."""
        mine = [r for r in self._standing() if r.verdict != "skip" or r.annotator == annotator]
        names: Sequence[str] = [asked]
        if asked == "mixed":
            sources = [name for name in mix if mix[name] > 0 and name in self._order]
            done = self._answered_from(sources, [r for r in mine if r.verdict != "skip"])
            wanted = {name: mix[name] / sum(mix[n] for n in sources) * (sum(done.values()) + 1) for name in sources}
            names = sorted(sources, key=lambda name: done[name] - wanted[name])
        for name in names:
            first = _first_gap(self._by_place(name, mine))
            if first < self.size(name):
                return self._present(int(self._order[name][first]), annotator, name, asked)
        return None

    def _answered_from(self, sources: Sequence[str], reviews: Sequence[Review]) -> Counter[str]:
        """How many answers each source has had; one about a pair on several lists for where it comes first."""
        done: Counter[str] = Counter()
        for review, row in zip(reviews, self.pool.rows_of([review.pair for review in reviews]), strict=True):
            names = [review.queue] if review.queue in AT_RANDOM else [n for n in sources if n not in AT_RANDOM]
            if row is not None:
                places = {name: self._place[name][row] for name in names if name in sources}
                done.update(sorted((name for name in places if places[name] >= 0), key=places.__getitem__)[:1])
        return done

    def _present(self, row: int, annotator: str, source: str, asked: Asked) -> Presentation:
        pair = self._set(source).pairs([row])[0]
        digest = hashlib.blake2b(f"{self.run.id}/{pair.id}/{annotator}".encode(), digest_size=1).digest()
        audited: Literal["a", "b"] | None = None
        kept_in, margin, queue = self.round, 0.0, QUEUE_OF.get(source, "learn")
        if source == "seed":
            audited = "a" if self.seed_said[row] > 0 else "b"
        else:
            kept_in, margin = int(self.kept_in[row] or self.round), float(self.margin[row])
            if self.kept_in[row]:
                audited = "a" if self.self_label[row] > 0 else "b"
        return Presentation(
            token=secrets.token_hex(8),
            run=self.run.id,
            annotator=annotator,
            queue=queue,
            asked=asked,
            why=WHY[source],
            pair=pair,
            left_is="a" if digest[0] & 1 else "b",
            round=kept_in,
            margin=margin,
            self_label=audited,
            shown_at=time.time(),
        )

    def precision(self) -> Precision:
        audited = [review for review in self._standing() if review.queue in AT_RANDOM and review.self_label]
        audited.sort(key=lambda review: review.verdict != "skip")  # an answer counts, also when somebody else skipped
        by_place = self._by_place("audit", audited)
        beginning = [by_place[place] for place in range(_first_gap(by_place))]
        audits = list(by_place.values())
        right: Counter[int] = Counter()
        judged: Counter[int] = Counter()
        for review in audits:
            if review.preferred in ("a", "b"):
                judged[review.round] += 1
                right[review.round] += review.preferred == review.self_label
        decided = [review for review in beginning if review.preferred in ("a", "b")]
        return Precision(
            total=clopper_pearson(sum(r.preferred == r.self_label for r in decided), len(decided)),
            by_round={index: clopper_pearson(right[index], n) for index, n in sorted(judged.items())},
            ties=sum(review.preferred == "tie" for review in audits),
            skips=sum(review.verdict == "skip" for review in audits),
            n_kept=self.n_kept,
            n_waiting=judged.total() - len(decided),
        )

    def pending(self) -> Pending:
        """What "retrain now" would add to what the last round knew."""
        answers = human_labels(self.store, self.run.id)
        now = np.where(self.is_open, self._said(self.pool, answers), np.int8(0))
        if self.corrected is not None:
            rows = RunFolder.of(self.run.id).arrays("data", "seed_rows")["seed_rows"]
            seed_now = self._said(self.seed, answers)[rows]
            now, self_used = np.concatenate([now, seed_now]), np.concatenate([self.used, self.corrected])
        else:
            self_used = self.used
        new = (now != 0) & (now != self_used)
        return Pending(
            decided=int((new & (now != 2)).sum()),
            ties=int((new & (now == 2)).sum()),
            withdrawn=int(((now == 0) & (self_used != 0)).sum()),
        )

    @staticmethod
    def _said(pairs: PairSet, answers: Mapping[str, Preferred]) -> np.ndarray:
        """int8, one per pair: +1 a, -1 b, 2 tie, 0 no answer."""
        found = np.zeros(pairs.n_pairs, np.int8)
        for row, said in zip(pairs.rows_of(list(answers)), answers.values(), strict=True):
            if row is not None:
                found[row] = SIGN[said]
        return found


def vote(store: Store, shown: Presentation, verdict: Verdict, reason: str = "") -> Review:
    """Commit an answer. Raises StaleVote (answered in the meantime) or TooFast; then nothing is changed."""
    if verdict == "undo":
        raise SerError("An undo is not a vote; use review.undo.")
    answered_at = time.time()
    if answered_at - shown.shown_at < FASTEST_S:
        raise TooFast(f"That key came within {FASTEST_S:g} s of the pair, so it was not counted.")
    return store.add_review(
        run=shown.run,
        pair=shown.pair.id,
        annotator=shown.annotator,
        queue=shown.queue,
        verdict=verdict,
        left_is=shown.left_is,
        round=shown.round,
        margin=shown.margin,
        self_label=shown.self_label,
        reason=reason,
        shown_at=shown.shown_at,
        answered_at=answered_at,
        token=shown.token,
        supersedes=None,
    )


def undo(store: Store, run_id: str, annotator: str) -> Review | None:
    """Withdraw this person's newest answer that stands; returns it, or None when there is none."""
    standing = [review for review in in_force(store.reviews(run_id)) if review.annotator == annotator]
    if not standing:
        return None
    last = standing[-1]
    facts = {name: getattr(last, name) for name in Review.__dataclass_fields__ if name != "id"}
    try:
        store.add_review(
            **facts | {"verdict": "undo", "token": f"undo-{last.id}", "supersedes": last.id, "answered_at": time.time()}
        )
    except StaleVote:
        return undo(store, run_id, annotator)  # another tab withdrew that one; the one before it is meant now
    return last


def human_labels(store: Store, run_id: str) -> Mapping[str, Preferred]:
    """Pair id -> what the newest standing answer says; skips say nothing. Ties and "both bad" say tie."""
    labels: dict[str, Preferred] = {}
    for review in in_force(store.reviews(run_id)):
        if review.preferred:
            labels[review.pair] = review.preferred
    return labels


def checks(store: Store, run_id: str) -> Checks:
    """Answers about pairs drawn at random; ties and skips say nothing."""
    drawn = [
        review
        for review in in_force(store.reviews(run_id))
        if review.queue in AT_RANDOM and review.preferred in ("a", "b")
    ]
    return Checks(
        {review.pair: review.preferred == review.self_label for review in drawn if review.self_label},
        frozenset(review.pair for review in drawn if review.queue == "sample"),
    )


def _first_gap(places: Collection[int]) -> int:
    """The smallest of 0, 1, 2, ... that is not among the places."""
    return next(place for place in range(len(places) + 1) if place not in places)


def _hash_order(rows: np.ndarray, keys: np.ndarray, run_id: str) -> np.ndarray:
    """Rows in an order that depends on nothing but the pair ids and the run: any beginning of it is a uniform sample."""
    digests = [hashlib.blake2b(keys[row] + run_id.encode(), digest_size=8).digest() for row in rows]
    return rows[np.argsort(np.array(digests, dtype="S8"), kind="stable")] if len(rows) else rows
