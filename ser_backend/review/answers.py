"""What people's answers to a run's pairs say, taken together: labels, disagreements, checks of self-labels.

A row of the store is never changed. An answer counts unless it was undone or superseded; answers to gold pairs and repeats
judge the person and are no labels. Knows no queues and no models.
"""

import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from ser_backend.records import AT_RANDOM, PRIVATE, Checks, Preferred, Review
from ser_backend.store import Store, in_force


class Answers:
    """All answers of one run, kept up to date by reading only what is new. Safe to share between threads."""

    def __init__(self, store: Store, run_id: str) -> None:
        self.store, self.run = store, run_id
        self.both: tuple[list[Review], list[Review]] = (
            [],
            [],
        )  # every row; those in force, skips among them; oldest first
        self._lock = threading.Lock()

    @property
    def rows(self) -> list[Review]:
        return self.both[0]

    @property
    def standing(self) -> list[Review]:
        return self.both[1]

    def refresh(self) -> "Answers":
        with self._lock:
            new = self.store.reviews_after(self.run, self.rows[-1].id if self.rows else 0)
            if new:
                rows = self.rows + new
                changed = any(row.supersedes is not None for row in new)
                self.both = rows, in_force(rows) if changed else self.standing + new
        return self


def of_pair(rows: Iterable[Review]) -> dict[str, list[Review]]:
    """Pair -> its standing answers that say something of it, oldest first; skips and what only judges the person are out."""
    found: dict[str, list[Review]] = defaultdict(list)
    for row in rows:
        if row.preferred and row.queue not in PRIVATE:
            found[row.pair].append(row)
    return dict(found)


def settled(same: Sequence[Review]) -> Review | None:
    """The answer that stands for all those to one pair: the adjudication if there is one, else the newest of those that more
    than half agree with. None while people disagree."""
    adjudicated = [row for row in same if row.queue == "adjudicate"]
    if adjudicated:
        return adjudicated[-1]
    counts = Counter(row.preferred for row in same)
    most, n = counts.most_common(1)[0]
    return next(row for row in reversed(same) if row.preferred == most) if 2 * n > len(same) else None


def settled_by_pair(rows: Iterable[Review]) -> dict[str, Review]:
    """Pair -> the answer that stands for all of them. rows: in force."""
    found = {pair: settled(same) for pair, same in of_pair(rows).items()}
    return {pair: row for pair, row in found.items() if row is not None}


def disagreements(rows: Iterable[Review]) -> list[str]:
    """Pairs to adjudicate: answers differ and nobody settled them yet; those without a majority first. rows: in force."""
    apart: list[str] = []
    outvoted: list[str] = []
    for pair, same in of_pair(rows).items():
        if len({row.preferred for row in same}) > 1 and not any(row.queue == "adjudicate" for row in same):
            (outvoted if settled(same) else apart).append(pair)
    return apart + outvoted


def blind(rows: Sequence[Review]) -> list[Review]:
    """What was said of each standing answer's pair before anything of the model was shown to that person, oldest first.

    rows: every row of a run. What a person says after the reveal, as a change of mind or in a new answer after an undo, may
    be the model's word and says nothing of how right it is; there the first thing they said counts, undone or not.
    """
    firsts: dict[tuple[str, str, str], Review] = {}
    for row in rows:
        if row.blind and row.verdict != "undo":
            firsts.setdefault((row.pair, row.annotator, _asked_of(row)), row)
    found = (row if row.blind else firsts.get((row.pair, row.annotator, _asked_of(row))) for row in in_force(rows))
    return sorted((row for row in found if row is not None), key=lambda row: row.id)


def _asked_of(row: Review) -> str:
    return row.queue if row.queue in (*PRIVATE, "adjudicate") else ""


def audits(rows: Sequence[Review]) -> list[Review]:
    """One blind answer for every self-label that was checked at random: the first that decides, else a tie, else a skip, so
    that a pair that several people answered counts once. rows: every row of a run."""
    found: dict[str, Review] = {}
    for row in blind(rows):
        if row.queue in AT_RANDOM and row.self_label and counts_more(row, found.get(row.pair)):
            found[row.pair] = row
    return list(found.values())


def counts_more(row: Review, than: Review | None) -> bool:
    return _says(row) > _says(than)


def _says(row: Review | None) -> int:
    if row is None:
        return -1
    return 2 if row.preferred in ("a", "b") else 1 if row.preferred else 0


def human_labels(store: Store, run_id: str) -> Mapping[str, Preferred]:
    """Pair id -> what people say of it; skips say nothing, ties, "both good" and "both bad" say tie."""
    found = settled_by_pair(in_force(store.reviews(run_id)))
    return {pair: row.preferred for pair, row in found.items() if row.preferred}


def checks(store: Store, run_id: str) -> Checks:
    """Answers about pairs drawn at random; ties and skips say nothing."""
    rows = store.reviews(run_id)
    judged = {row.pair: row.preferred == row.self_label for row in audits(rows) if row.preferred in ("a", "b")}
    drawn = (row for row in blind(rows) if row.queue == "sample" and row.preferred in ("a", "b"))
    return Checks(judged, frozenset(row.pair for row in drawn))
