"""What is worth knowing of many runs at a glance, counted in the database: nobody reads all answers to count them.

What the counts mean is said where people's answers are read (ser_backend/review/answers.py); these agree with it.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from ser_backend.records import AT_RANDOM, PRIVATE, Review
from ser_backend.store.handle import Handle
from ser_backend.store.tables import reviews, rounds, runs

_later = reviews.alias("later")
_stands = (reviews.c.verdict != "undo") & ~sa.exists().where(_later.c.supersedes == reviews.c.id)
_is_a = (reviews.c.verdict == "left") == (reviews.c.left_is == "a")
_says = sa.case(  # as Review.preferred
    (reviews.c.verdict.in_(("tie", "both_good", "both_bad")), "tie"),
    (reviews.c.verdict.in_(("left", "right")), sa.case((_is_a, "a"), else_="b")),
)


class Glances(Handle):
    def projects(self) -> list[str]:
        """Names that runs are filed under, in the order of the alphabet."""
        query = sa.select(runs.c.project).where(runs.c.project != "").distinct()
        with self.reader.connect() as db:
            return sorted(db.execute(query).scalars(), key=str.casefold)

    def newest_rounds(self) -> Mapping[str, int]:
        """Run -> its newest finished round; runs without one are missing."""
        query = sa.select(rounds.c.run, sa.func.max(rounds.c.index)).group_by(rounds.c.run)
        with self.reader.connect() as db:
            return {run: index for run, index in db.execute(query)}

    def newest_reviews(self) -> Mapping[str, tuple[int, float]]:
        """Run -> id and time of the newest row of its answers; runs without one are missing."""
        newest = (
            sa.select(sa.func.max(reviews.c.id)).where(reviews.c.run == runs.c.id).correlate(runs).scalar_subquery()
        )
        query = sa.select(reviews.c.run, reviews.c.id, reviews.c.answered_at).join(runs, reviews.c.id == newest)
        with self.reader.connect() as db:
            return {run: (id, at) for run, id, at in db.execute(query)}

    def n_disagreements(self, run_id: str) -> int:
        """Pairs that people answered differently and nobody settled: as many as review.disagreements lists."""
        says, settled = (
            sa.func.count(sa.distinct(_says)),
            sa.func.sum(sa.case((reviews.c.queue == "adjudicate", 1), else_=0)),
        )
        of_pair = (
            sa.select(reviews.c.pair)
            .where(reviews.c.run == run_id, reviews.c.queue.not_in(PRIVATE), _says.is_not(None), _stands)
            .group_by(reviews.c.pair)
            .having(says > 1, settled == 0)
        )
        with self.reader.connect() as db:
            return db.execute(sa.select(sa.func.count()).select_from(of_pair.subquery())).scalar_one()

    def has_answers(self, run_id: str) -> bool:
        """Whether anybody said anything of a pair and stands by it; skips are nothing."""
        query = sa.select(reviews.c.id).where(reviews.c.run == run_id, _says.is_not(None), _stands).limit(1)
        with self.reader.connect() as db:
            return db.execute(query).first() is not None

    def n_answered(self, run_id: str, *queues: str) -> int:
        """Pairs with an answer in one of these queues, in any where none is named; skips are none."""
        query = sa.select(sa.func.count(sa.distinct(reviews.c.pair))).where(
            reviews.c.run == run_id, _says.is_not(None), _stands
        )
        if queues:
            query = query.where(reviews.c.queue.in_(queues))
        with self.reader.connect() as db:
            return db.execute(query).scalar_one()

    def audit_counts(self, run_id: str) -> Mapping[int, tuple[int, int]]:
        """Round -> how many of the self-labels it kept were found right, and how many were decided: what review.audits
        lists, counted."""
        # What a person says after the reveal is no check; there the first thing they said blind counts, undone or not.
        others = (*PRIVATE, "adjudicate")
        kind = sa.case((reviews.c.queue.in_(others), reviews.c.queue), else_="")
        of_one = (reviews.c.pair, reviews.c.annotator, kind.label("kind"))
        mine = reviews.c.run == run_id
        first = (
            sa.select(*of_one, sa.func.min(reviews.c.id).label("id"))
            .where(mine, reviews.c.blind, reviews.c.verdict != "undo")
            .group_by(*of_one)
            .subquery()
        )
        told = sa.select(*of_one).where(mine, ~reviews.c.blind, _stands).subquery()
        same = (first.c.pair == told.c.pair) & (first.c.annotator == told.c.annotator) & (first.c.kind == told.c.kind)
        counts = sa.or_(
            reviews.c.blind & _stands,
            reviews.c.id.in_(sa.select(first.c.id).join(told, same)),
        )
        decided = (
            sa.select(sa.func.min(reviews.c.id))
            .where(
                mine,
                reviews.c.queue.in_(AT_RANDOM),
                reviews.c.self_label.is_not(None),
                reviews.c.verdict.in_(("left", "right")),
                counts,
            )
            .group_by(reviews.c.pair)
        )
        right = sa.func.sum(sa.case((_says == reviews.c.self_label, 1), else_=0))
        query = sa.select(reviews.c.round, right, sa.func.count()).where(reviews.c.id.in_(decided))
        with self.reader.connect() as db:
            return {round_: (right, n) for round_, right, n in db.execute(query.group_by(reviews.c.round))}

    def n_answered_once(self, run_id: str, since: float) -> int:
        """Pairs about which there is one row only: an answer, given after that time, that says something of the pair."""
        once = sa.select(reviews.c.pair).where(reviews.c.run == run_id).group_by(reviews.c.pair)
        says = sa.func.max(reviews.c.queue).not_in(PRIVATE) & sa.func.max(_says).is_not(None)
        once = once.having(sa.func.count() == 1, sa.func.max(reviews.c.answered_at) > since, says)
        with self.reader.connect() as db:
            return db.execute(sa.select(sa.func.count()).select_from(once.subquery())).scalar_one()

    def reviews_of_touched(self, run_id: str, since: float) -> Mapping[str, Sequence[Review]]:
        """Pair -> every row about it, oldest first, for pairs with several rows of which one was written after that time."""
        touched = sa.select(reviews.c.pair).where(reviews.c.run == run_id).group_by(reviews.c.pair)
        touched = touched.having(sa.func.count() > 1, sa.func.max(reviews.c.answered_at) > since)
        query = sa.select(reviews).where(reviews.c.run == run_id, reviews.c.pair.in_(touched)).order_by(reviews.c.id)
        found: dict[str, list[Review]] = defaultdict(list)
        with self.reader.connect() as db:
            for row in db.execute(query):
                found[row.pair].append(Review(**row._mapping))
        return found
