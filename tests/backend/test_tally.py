"""What the desk keeps up from vote to vote is what counting everything anew would say."""

import random
from collections import Counter

import numpy as np
import pytest

from benchmarks import desk_run
from ser_backend import review
from ser_backend.errors import StaleVote
from ser_backend.records import AT_RANDOM, PRIVATE, SIGN, Run
from ser_backend.review import Desk
from ser_backend.review.answers import audits, disagreements, settled_by_pair
from ser_backend.store import Store, in_force

SOURCES = ("sample", "audit", "informative", "unsure", "suspect")


@pytest.fixture
def run(store: Store) -> Run:
    made = desk_run.finished_run(store, desk_run.texts(60, (3, 6)), desk_run.texts(30, (3, 6), random_seed=1))
    store.set_overlap(made.id, 2)
    return made


@pytest.mark.parametrize("seed", range(3))
def test_every_count_is_that_of_all_answers(store: Store, run: Run, seed: int) -> None:
    chance = random.Random(seed)
    desk = Desk(store, run.id)
    for _ in range(150):
        who = chance.choice(("ada", "ben", "cem"))
        if chance.random() < 0.1:
            review.undo(store, run.id, who)
        elif chance.random() < 0.1 and (mine := desk.tally.mine(who)):
            if mine[-1].verdict in ("left", "right"):
                review.change_mind(store, mine[-1], chance.choice(("left", "right", "tie")))
        else:
            asked = chance.choice(("mixed", "mixed", "learn", "audit", "seed", "adjudicate"))
            if shown := desk.hand_out(who, asked, n=2):
                verdict = chance.choice(("left", "left", "right", "tie", "skip"))
                try:
                    review.vote(store, shown[0], verdict, seen_ms=1000)
                except StaleVote:  # one's own answer in another queue
                    continue
        if chance.random() < 0.3:
            check(desk, store)
    check(desk, store)


def check(desk: Desk, store: Store) -> None:
    rows = store.reviews(desk.run.id)
    standing = in_force(rows)
    counted = [r for r in standing if r.verdict != "skip" and r.queue not in PRIVATE]
    pool, seed = ({p: i for i, p in enumerate(k.decode() for k in s.pair_keys)} for s in (desk.pool, desk.seed))
    tally = desk.tally
    assert tally.disagreements() == disagreements(standing)
    assert tally.n_disagreements() == len(disagreements(standing))
    assert tally.audits() == {pool[r.pair]: r for r in audits(rows)}
    for who in ("ada", "ben", "cem", "nobody"):
        assert list(tally.mine(who)) == [r for r in standing if r.annotator == who]
        own = {r.pair for r in standing if r.annotator == who and r.queue not in PRIVATE}
        times = Counter(r.pair for r in counted)
        for of_seed, rows_of in ((False, pool), (True, seed)):
            taken = tally.taken(who, 2, of_seed)
            assert {p for p, row in rows_of.items() if row in taken} == {
                p for p in rows_of if times[p] >= 2 or p in own
            }
    for queue, place in desk._place.items():
        of_queue = {r.pair for r in counted if (r.queue == "seed") == (queue == "seed")}
        rows_of = seed if queue == "seed" else pool
        assert tally.answered(queue) == sum(p in rows_of and place[rows_of[p]] >= 0 for p in of_queue)
    for found, rows_of in zip(tally.said(), (pool, seed), strict=True):
        said = np.zeros(len(rows_of), np.int8)
        for pair, row in settled_by_pair(standing).items():
            if pair in rows_of:
                said[rows_of[pair]] = SIGN[row.preferred]
        assert (found == said).all()
    for sources in (SOURCES, SOURCES[2:], ("suspect", "sample")):
        done: Counter[str] = Counter()
        for r in counted:
            if r.queue in AT_RANDOM:
                done[r.queue] += r.queue in sources and r.pair in pool and desk._place[r.queue][pool[r.pair]] >= 0
            elif r.pair in pool:
                places = [(desk._place[name][pool[r.pair]], name) for name in sources if name not in AT_RANDOM]
                if listed := [(place, at, name) for at, (place, name) in enumerate(places) if place >= 0]:
                    done[min(listed)[2]] += 1
        assert +tally.answered_from(sources) == +done
