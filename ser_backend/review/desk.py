"""Which pairs a person should see next, and what the answers say about the self-labels.

Learn: pairs without a self-label in force, the least sure (smallest |margin|) first. Audit: the self-labels in force, in an
order fixed by a hash. Mixed, where a round left lists of pairs by reason (acquisition.py): so much of each as the mix says,
audits among them. Seed: labels of the seed, the most suspicious first (seed_audit.py). Adjudicate: pairs on which people
disagree. Two kinds judge the person and not the pair, and come between the others of a mix: gold, seed pairs that have an
answer, and repeats, pairs the same person answered, with the sides swapped.

Whoever answers audits always gets the first pair of that order that has a place left, so the answered beginning of it is a
uniform sample of all of them, also after a round has added more; only that beginning enters the estimate of precision.

Pairs are handed out by lease (store/reviews.py): reserved for one person for LEASE_S, so that `overlap` people answer each
pair, never more, and a reload, another tab or a restart of the server go on at the same pair.
"""

import hashlib
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import numpy as np

from ser_backend.errors import SerError
from ser_backend.pairs import PairSet
from ser_backend.records import PRIVATE, Asked, Lease, Queue, Review
from ser_backend.review import order
from ser_backend.review.answers import Answers, of_pair
from ser_backend.review.precision import Precision, precision
from ser_backend.review.tally import Tally
from ser_backend.review.votes import Presentation
from ser_backend.run_folder import RunFolder
from ser_backend.store import Store

Mix = Mapping[str, float]  # source of pairs -> share; shares need not add up to 1
MIX: Mix = {
    "sample": 0.24,
    "audit": 0.14,
    "informative": 0.28,
    "unsure": 0.18,
    "suspect": 0.1,
    "gold": 0.03,
    "repeat": 0.03,
}
WHY = {
    "audit": "a random check of the self-labels",
    "sample": "drawn at random from the whole pool, to judge the teacher by",
    "informative": "its answer settles most about other pairs",
    "unsure": "one of the half that the teacher is less sure of",
    "suspect": "the student contradicts the label it was given",
    "learn": "of the pairs left, it is one of those the model is least sure of",
    "seed": "a model that did not see this label is surest that it is wrong",
    "gold": "a pair of the seed, to see how far you agree with it",
    "repeat": "you answered it before, with the sides the other way round",
    "adjudicate": "people disagree on it",
}
QUEUE_OF: Mapping[str, Queue] = {  # source -> the queue an answer is filed under; "learn" for others
    name: name for name in ("audit", "sample", "seed", "gold", "repeat", "adjudicate")
}
ARRAYS = (
    *("reward_a", "reward_b", "human", "kept_round", "preferred", "corrected", "queue_seed"),
    *(f"queue_{name}" for name in MIX),  # which of these lists there are depends on the method
)
OF_THE_SEED = ("seed", "gold")  # sources whose pairs are the seed's
LEASE_S = 900.0
RENEW_S = 120.0  # a lease is renewed when it is older
REPEAT_AFTER = 20  # answers of one's own that lie between a pair and its repeat
SPARE = 24  # more candidates than asked for: some may be reserved for others


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
        self.answers = Answers(store, run_id)
        arrays = folder.force_arrays(self.round, *ARRAYS)
        self.margin = arrays["reward_a"] - arrays["reward_b"]
        self.used = arrays["human"]
        self.details = list(folder.rounds())[-1].details
        self.model = (
            f"{'control of ' if self.details.get('model_is_control') else ''}round {self.details['model_round']}"
        )
        self.kept_in, self.self_label = arrays["kept_round"].copy(), arrays["preferred"].copy()
        # An audited pair has a human label since; it stays in the population its answer speaks about, as long as labels of
        # the round that kept it are in force. A pair answered in the other queue is no self-label any more.
        in_use = self._in_use = set(np.unique(self.kept_in[self.kept_in > 0]).tolist())
        known = [same[0] for same in of_pair(self.answers.refresh().standing).values()]
        for review, row in zip(known, self.pool.rows_of([r.pair for r in known]), strict=True):
            if row is not None and review.queue == "learn":
                self.kept_in[row] = 0
            elif row is not None and review.self_label and review.round in in_use:
                self.kept_in[row], self.self_label[row] = review.round, 1 if review.self_label == "a" else -1
        is_open = self.is_open = folder.arrays("data", "pool_open")["pool_open"]
        learn = np.flatnonzero(is_open & (self.kept_in == 0)).astype(np.int32)
        shuffled = order.of_pool(folder, self.pool, run_id)
        self._order: dict[str, np.ndarray] = {
            "learn": learn[np.argsort(np.abs(self.margin[learn]), kind="stable")],
            "audit": shuffled[self.kept_in[shuffled] > 0],
        }
        if "queue_informative" in arrays:
            # The audits' order, so that answers to the sample about kept pairs are the beginning of that queue as well.
            self._order["sample"] = shuffled[is_open[shuffled]]
        for name in MIX:
            if f"queue_{name}" in arrays:
                rows = arrays[f"queue_{name}"]
                self._order[name] = rows[is_open[rows]]
        self._order["seed"] = arrays.get("queue_seed", np.empty(0, np.int64))  # rows of the seed set
        doubtful = self._order["seed"][: (len(self._order["seed"]) + 1) // 2]
        self._gold = np.setdiff1d(np.flatnonzero(self.seed_said), doubtful)  # a label that may be wrong is no gold
        self.corrected = arrays.get("corrected")
        self._place: dict[str, np.ndarray] = {}  # row of its set -> place in the queue's order, -1 where not in it
        for name, rows in self._order.items():
            self._place[name] = np.full(self._set(name).n_pairs, -1, np.int32)
            self._place[name][rows] = np.arange(len(rows))
        self.tally = Tally(self.answers, self.pool, self.seed, self._place)
        self._precise: tuple[Mapping[int, Review], list[int], Precision] | None = None  # what it was found from, and it

    def _set(self, source: str) -> PairSet:
        return self.seed if source in OF_THE_SEED else self.pool

    @property
    def n_kept(self) -> int:
        return len(self._order["audit"])

    @property
    def mixes(self) -> bool:
        """Whether the round left lists of pairs by reason."""
        return "informative" in self._order

    def size(self, queue: str) -> int:
        if queue == "adjudicate":
            return self.tally.n_disagreements()
        if queue in PRIVATE:
            return len(self._gold) if queue == "gold" else 0
        return len(self._order[queue])

    def answered(self, queue: str) -> int:
        """How many pairs of the queue have an answer (skips are none)."""
        return self.tally.answered(queue)

    # ---- handing out

    def next(self, annotator: str, asked: Asked, mix: Mix = MIX) -> Presentation | None:
        """The pair this person should answer now; None at the queue's end. Raises Forbidden."""
        return next(iter(self.hand_out(annotator, asked, mix)), None)

    def hand_out(
        self, annotator: str, asked: Asked, mix: Mix = MIX, n: int = 1, store: Store | None = None, front: str = ""
    ) -> list[Presentation]:
        """The next n pairs for this person, reserved; those reserved before come first, of them the one with the token
        `front`. Raises Forbidden.

        A queue's pairs come in its order, but for those that `overlap` people have answered or hold and those this person
        answered or skipped. Mixed: of the source that is furthest behind its share of the answers; one at its end is passed
        over. store: acts for the person; the desk's own is used without it.
        """
        store = store or self.store
        held = store.leases(self.run.id, annotator)
        keep = [lease for lease in held if lease.asked == asked and lease.model == self.model]
        if dropped := [lease.token for lease in held if lease not in keep]:
            store.release(self.run.id, annotator, dropped)
        now = time.time()
        if keep and min(lease.expires_at for lease in keep) < now + LEASE_S - RENEW_S:
            store.renew(self.run.id, annotator, now + LEASE_S)
        if len(keep) < n:
            overlap = store.overlap(self.run.id)
            others = len(store.leases(self.run.id)) if overlap > 1 or len(held) < n else 0
            wanted = islice(self._wanted(annotator, asked, mix, overlap, keep), n + others + SPARE)
            keep += store.lease(self.run.id, annotator, list(wanted), n - len(keep), overlap)
        keep.sort(key=lambda lease: lease.token != front)
        return [self._presented(lease) for lease in keep[:n]]

    def give_back(self, annotator: str, store: Store | None = None) -> None:
        """What was handed out ahead of the pair being read: another mix begins with the next one."""
        store = store or self.store
        ahead = [lease.token for lease in store.leases(self.run.id, annotator)[1:]]
        if ahead:
            store.release(self.run.id, annotator, ahead)

    def handed_out(self, annotator: str, token: str) -> Presentation | None:
        """A showing by its token, as long as its lease lives: after a restart of the server nothing else knows it."""
        leases = self.store.leases(self.run.id, annotator)
        return next((self._presented(lease) for lease in leases if lease.token == token), None)

    def hand_out_again(
        self, annotator: str, undone: Review, asked: Asked, store: Store | None = None
    ) -> Presentation | None:
        """The pair of an answer that was undone, to the same person; None when somebody else has it by now."""
        of_seed = undone.queue in OF_THE_SEED
        row = (self.seed if of_seed else self.pool).rows_of([undone.pair])[0]
        if row is None:
            return None
        store = store or self.store
        lease = self._lease(row, undone.pair, annotator, undone.queue, asked, undone.left_is, of_seed)
        taken = store.lease(self.run.id, annotator, [lease], 1, store.overlap(self.run.id))
        return self._presented(taken[0]) if taken else None

    def _wanted(self, annotator: str, asked: Asked, mix: Mix, overlap: int, held: Sequence[Lease]) -> Iterator[Lease]:
        """Pairs to be handed out, best first. Who else holds one is the store's to know."""
        if asked == "adjudicate":
            apart = self.tally.disagreements()
            for pair, row in (found := self._rows(self.pool, apart)).items():
                yield self._lease(row, pair, annotator, "adjudicate", asked)
            rest = [pair for pair in apart if pair not in found]
            for pair, row in self._rows(self.seed, rest).items():
                yield self._lease(row, pair, annotator, "adjudicate", asked, of_seed=True)
            return

        def rows_of(source: str) -> Iterator[int]:
            of_seed = source in OF_THE_SEED
            taken = self.tally.taken(annotator, overlap, of_seed)
            in_hand = set(self._rows(self.seed if of_seed else self.pool, [lease.pair for lease in held]).values())
            return (row for row in _each(self._order[source]) if row not in taken and row not in in_hand)

        if asked != "mixed":
            for row in rows_of(asked):
                yield self._lease(row, None, annotator, asked, asked)
            return
        yield from self._judging(annotator, mix, self.tally.mine(annotator), held)
        sources = [name for name in mix if mix[name] > 0 and name in self._order]
        done = self.tally.answered_from(sources)
        done.update(source for lease in held if (source := _source_of(lease)) in sources)
        left = {name: rows_of(name) for name in sources}
        gone: set[str] = set()
        total = sum(mix[name] for name in sources)
        while len(gone) < len(sources):
            behind = {name: done[name] - mix[name] / total * (done.total() + 1) for name in sources if name not in gone}
            name = min(behind, key=behind.__getitem__)
            first = next(left[name], None)
            if first is None:
                gone.add(name)
                continue
            done[name] += 1
            yield self._lease(first, None, annotator, name, asked)

    @staticmethod
    def _rows(pairs: PairSet, ids: Sequence[str]) -> dict[str, int]:
        return {pair: row for pair, row in zip(ids, pairs.rows_of(ids), strict=True) if row is not None}

    def _judging(self, annotator: str, mix: Mix, mine: Sequence[Review], held: Sequence[Lease]) -> Iterator[Lease]:
        """A gold pair or a repeat, when this person is due one: by their own answers, not the team's."""
        answered = [r for r in mine if r.verdict not in ("skip", "undo")]
        for kind in PRIVATE:
            had = {r.pair for r in mine if r.queue == kind} | {lease.pair for lease in held}
            share = mix.get(kind, 0.0) / max(1e-9, sum(mix.values()))
            if any(lease.queue == kind for lease in held) or share * len(answered) < 1 + sum(
                r.queue == kind for r in mine
            ):
                continue
            if kind == "gold" and len(self._gold):
                keys = self.seed.pair_keys
                gold = order.by_hash(self._gold, keys, f"{self.run.id}/{annotator}")
                fresh = (row for row in gold.tolist() if keys[row].decode() not in had)
                for row in islice(fresh, 1):
                    yield self._lease(row, None, annotator, "gold", "mixed")
            elif kind == "repeat":
                earlier = [r for r in answered[:-REPEAT_AFTER] if r.blind and r.queue not in (*PRIVATE, "seed")]
                for review in islice((r for r in earlier if r.pair not in had and r.preferred != "tie"), 1):
                    if (row := self.pool.rows_of([review.pair])[0]) is not None:
                        swapped: Literal["a", "b"] = "b" if review.left_is == "a" else "a"
                        yield self._lease(row, review.pair, annotator, "repeat", "mixed", left_is=swapped)

    def _lease(
        self,
        row: int,
        pair: str | None,
        annotator: str,
        source: str,
        asked: Asked,
        left_is: Literal["a", "b"] | None = None,
        of_seed: bool = False,
    ) -> Lease:
        is_seed = of_seed or source in OF_THE_SEED
        pair = pair or (self.seed if is_seed else self.pool).pair_keys[row].decode()
        digest = hashlib.blake2b(f"{self.run.id}/{pair}/{annotator}".encode(), digest_size=1).digest()
        label: Literal["a", "b"] | None = None
        kept_in, margin = self.round, 0.0
        if is_seed:
            label = None if not self.seed_said[row] else "a" if self.seed_said[row] > 0 else "b"
        else:
            kept_in, margin = int(self.kept_in[row] or self.round), float(self.margin[row])
            if self.kept_in[row]:
                label = "a" if self.self_label[row] > 0 else "b"
        now = time.time()
        return Lease(
            token=secrets.token_hex(8),
            run=self.run.id,
            pair=pair,
            annotator=annotator,
            queue=QUEUE_OF.get(source, "learn"),
            asked=asked,
            why=WHY[source],
            left_is=left_is or ("a" if digest[0] & 1 else "b"),
            round=kept_in,
            margin=margin,
            self_label=label,
            model=self.model,
            leased_at=now,
            expires_at=now + LEASE_S,
        )

    def _presented(self, lease: Lease) -> Presentation:
        source = self.seed if lease.queue in OF_THE_SEED else self.pool
        row = source.rows_of([lease.pair])[0]
        if row is None:  # an adjudicated pair of the seed
            source = self.seed
            row = source.rows_of([lease.pair])[0]
        assert row is not None
        return Presentation(lease, source.pairs([row])[0])

    # ---- what the answers say

    def precision(self) -> Precision:
        known = self.tally.audits(), self.tally.targeted()
        if self._precise is None or known[0] is not self._precise[0] or known[1] != self._precise[1]:
            found = precision(*known, self._place["audit"], self.n_kept, self._in_use)
            self._precise = (*known, found)
        return self._precise[2]

    def pending(self) -> Pending:
        """What "retrain now" would add to what the last round knew."""
        said, seed_said = self.tally.said()
        now = np.where(self.is_open, said, np.int8(0))
        if self.corrected is not None:
            rows = RunFolder.of(self.run.id).arrays("data", "seed_rows")["seed_rows"]
            now, self_used = np.concatenate([now, seed_said[rows]]), np.concatenate([self.used, self.corrected])
        else:
            self_used = self.used
        new = (now != 0) & (now != self_used)
        return Pending(
            decided=int((new & (now != 2)).sum()),
            ties=int((new & (now == 2)).sum()),
            withdrawn=int(((now == 0) & (self_used != 0)).sum()),
        )


def _source_of(lease: Lease) -> str:
    return next(name for name, why in WHY.items() if why == lease.why)


def _each(rows: np.ndarray, block: int = 1_024) -> Iterator[int]:
    """The rows as integers, made as they are asked for: an order may hold a million of which four are wanted."""
    for begin in range(0, len(rows), block):
        yield from rows[begin : begin + block].tolist()
