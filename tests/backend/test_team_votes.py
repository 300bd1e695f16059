"""Several people at once, of whom some send a vote twice, stay away or are killed: every vote is there once."""

import os

import pytest

from benchmarks import team_votes
from ser_backend.store import Store


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> str:
    return request.param


def test_no_vote_is_lost_or_counts_twice(store: Store) -> None:
    run = team_votes.team_run(store, 150, overlap=2)
    found = team_votes.played(store, run, os.environ.get("SER_DATABASE"), people=4, votes=300, lease_s=1.0)
    assert not team_votes.wrong(found)
    assert found["finished"] == 150
    assert found["sent_again"] > 0
