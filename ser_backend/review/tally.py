"""What the desk reads from the answers at every vote, kept up by looking at the new ones only.

With ten thousand answers, counting them anew at each vote would be most of what a person waits for. Says the same as
the functions of answers.py do; knows no leases and no models. Safe to share between threads.
"""

import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ser_backend.pairs import PairSet
from ser_backend.records import AT_RANDOM, PRIVATE, SIGN, Review
from ser_backend.review.answers import Answers, audits, counts_more, settled

Place = Mapping[str, np.ndarray]  # queue -> by row of its set, the place in the queue's order; -1 where not in it


class Tally:
    def __init__(self, answers: Answers, pool: PairSet, seed: PairSet, place: Place) -> None:
        self.answers, self.pool, self.seed, self.place = answers, pool, seed, place
        self._lock = threading.RLock()
        self._forget()

    def _forget(self) -> None:
        self._rows: list[Review] = []  # of the answers counted so far
        self._mine: defaultdict[str, list[Review]] = defaultdict(list)
        self._times: defaultdict[int, int] = defaultdict(int)  # row of the pool -> answers that take a place
        self._times_seed: defaultdict[int, int] = defaultdict(int)
        self._own: defaultdict[str, tuple[set[int], set[int]]] = defaultdict(lambda: (set(), set()))
        self._answered: defaultdict[str, set[int]] = defaultdict(set)  # queue -> rows of its set
        self._from: dict[tuple[str, ...], Counter[str]] = {}  # sources -> answers each has had
        self._kinds: Counter[tuple[int, str]] = Counter()  # row of the pool, its answer's queue if drawn at random
        self._same: dict[str, list[Review]] = {}  # as of_pair
        self._at: dict[str, int] = {}  # pair -> how many pairs had an answer before it had one
        self._apart: dict[str, bool] = {}  # pairs to adjudicate -> whether there is a majority
        self._said = np.zeros(self.pool.n_pairs, np.int8), np.zeros(self.seed.n_pairs, np.int8)
        self._audits: dict[int, Review] = {}  # by row of the pool; never changed, but for another

    # ---- what it says

    def mine(self, annotator: str) -> Sequence[Review]:
        """This person's standing answers, skips among them, oldest first."""
        with self._fresh():
            return self._mine.get(annotator, ())[:]

    def taken(self, annotator: str, overlap: int, of_seed: bool) -> "Taken":
        with self._fresh():
            return Taken(
                self._times_seed if of_seed else self._times,
                overlap,
                self._own.get(annotator, (set(), set()))[of_seed],
            )

    def answered(self, queue: str) -> int:
        """Pairs of the queue that have an answer (skips are none)."""
        with self._fresh():
            return len(self._answered[queue])

    def answered_from(self, sources: Iterable[str]) -> Counter[str]:
        """How many answers each source has had; one about a pair on several lists for where it comes first."""
        with self._fresh():
            key = tuple(sources)
            if key not in self._from:
                self._from[key] = Counter()
                for (row, drawn), n in self._kinds.items():
                    self._count_from(key, row, drawn, n)
            return self._from[key].copy()

    def targeted(self) -> list[int]:
        """Rows of the pool with an answer that was not drawn at random."""
        with self._fresh():
            return [row for row, drawn in self._kinds if not drawn]

    def disagreements(self) -> list[str]:
        """As answers.disagreements."""
        with self._fresh():
            return sorted(self._apart, key=lambda pair: (self._apart[pair], self._at[pair]))

    def n_disagreements(self) -> int:
        with self._fresh():
            return len(self._apart)

    def said(self) -> tuple[np.ndarray, np.ndarray]:
        """int8, one per pair of the pool and of the seed: +1 a, -1 b, 2 tie, 0 no answer or no majority."""
        with self._fresh():
            return self._said[0].copy(), self._said[1].copy()

    def audits(self) -> dict[int, Review]:
        """As answers.audits, by row of the pool. The same object until there is another one."""
        with self._fresh():
            return self._audits

    # ---- keeping up

    def _fresh(self) -> threading.RLock:
        """The lock, to be held while reading, after taking in what is new."""
        with self._lock:
            rows, standing = self.answers.refresh().both
            if rows is self._rows:
                return self._lock
            new = rows[len(self._rows) :]
            if any(
                row.supersedes is not None or not row.blind for row in new
            ):  # what was counted may not stand any more
                self._forget()
                new = standing
                checked = audits(rows)
            else:
                checked = [row for row in new if row.queue in AT_RANDOM and row.self_label]
            now: dict[int, Review] = {}
            for row, at in zip(checked, self.pool.rows_of([row.pair for row in checked]), strict=True):
                if at is not None and counts_more(row, now.get(at, self._audits.get(at))):
                    now[at] = row
            if now:
                self._audits = self._audits | now
            ids = [row.pair for row in new]
            for row, at, at_seed in zip(new, self.pool.rows_of(ids), self.seed.rows_of(ids), strict=True):
                self._add(row, at, at_seed)
            self._rows = rows
        return self._lock

    def _add(self, row: Review, at: int | None, at_seed: int | None) -> None:
        self._mine[row.annotator].append(row)
        if row.queue in PRIVATE:
            return
        own = self._own[row.annotator]
        if at is not None:
            own[0].add(at)
        if at_seed is not None:
            own[1].add(at_seed)
        if row.verdict == "skip":
            return
        if at is not None:
            self._times[at] += 1
            drawn = row.queue if row.queue in AT_RANDOM else ""
            self._kinds[at, drawn] += 1
            for sources in self._from:
                self._count_from(sources, at, drawn, 1)
        if at_seed is not None:
            self._times_seed[at_seed] += 1
        for queue, places in self.place.items():
            found = at_seed if queue == "seed" else at
            if (row.queue == "seed") == (queue == "seed") and found is not None and places[found] >= 0:
                self._answered[queue].add(found)
        same = self._same.setdefault(row.pair, [])
        self._at.setdefault(row.pair, len(self._at))
        same.append(row)
        stands = settled(same)
        for said, found in zip(self._said, (at, at_seed), strict=True):
            if found is not None:
                said[found] = SIGN[stands.preferred] if stands and stands.preferred else 0
        self._apart.pop(row.pair, None)
        if len({r.preferred for r in same}) > 1 and not any(r.queue == "adjudicate" for r in same):
            self._apart[row.pair] = stands is not None

    def _count_from(self, sources: tuple[str, ...], row: int, drawn: str, n: int) -> None:
        if drawn:
            if drawn in sources and self.place[drawn][row] >= 0:
                self._from[sources][drawn] += n
            return
        places = {name: self.place[name][row] for name in sources if name not in AT_RANDOM}
        listed = {name: place for name, place in places.items() if place >= 0}
        if listed:
            self._from[sources][min(listed, key=listed.__getitem__)] += n


class Taken:
    """Rows of a set that are not to be handed to a person: those with all their answers, and the person's own."""

    def __init__(self, times: Mapping[int, int], overlap: int, own: set[int]) -> None:
        self.times, self.overlap, self.own = times, overlap, own

    def __contains__(self, row: int) -> bool:
        return self.times.get(row, 0) >= self.overlap or row in self.own
