"""Self-evolved reward learning as a generator of facts: what is done is told, what is told is past.

Knows no database, no page and no process: it reads pair sets, writes a run folder, yields `Told`. Closing the generator
stops it; what a finished round left on disk is where the next call goes on.
"""

import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from ser_backend.config import RunConfig
from ser_backend.evolution.rounds import Rounds
from ser_backend.evolution.run_data import RunData
from ser_backend.evolution.state import Played
from ser_backend.learners import learner_for
from ser_backend.records import Checks, Preferred, Round
from ser_backend.run_folder import RunFolder
from ser_backend.selection.choosing import chooser_for

HumanLabels = Callable[[], Mapping[str, Preferred]]  # reviewed pool pairs: pair id -> what the person said
ChecksSoFar = Callable[[], Checks]


class Told(NamedTuple):
    kind: str
    round: int | None
    payload: dict[str, Any]
    finished: Round | None = None  # with kind "round_finished"


def self_evolve(
    config: RunConfig,
    data: RunData,
    folder: RunFolder,
    human_labels: HumanLabels,
    n_rounds: int,
    checks: ChecksSoFar = Checks,
) -> Generator[Told, None, None]:
    """Run until `n_rounds` rounds after round 0 are finished in all, or a reason to stop is met.

    Resumes after the last finished round in `folder`. Ends with Told("run_finished", payload stopped_because, best_round).
    Raises SerError when something the user can change is in the way.
    """
    config = config.settled()
    a, b = data.ends("pool")  # lengths are written down so that no page has to go through the texts for them
    longer_by = (data.lengths[a] - data.lengths[b]).astype(np.int32)
    rows = {"seed_rows": data.seed_rows, "heldout_rows": data.heldout_rows, "pool_open": data.pool_open}
    rows["pool_longer_by"] = longer_by
    folder.write_arrays("data", rows)
    folder.write_json("data", {"counts": data.counts, "notes": data.notes})
    yield Told("data_prepared", None, {"counts": data.counts, "notes": list(data.notes)})
    learner = learner_for(config, data, folder)
    chooser = chooser_for(config, data, folder, learner)
    for preparing in (learner.prepare(), chooser.prepare()):
        with closing(preparing) as telling:
            for kind, payload in telling:
                yield Told(kind, None, payload)
    rounds = Rounds(config, data, learner, chooser)

    finished = folder.finished()
    state = rounds.restore(folder, finished[-1]) if finished else None
    if finished:
        yield Told("run_resumed", finished[-1], {"message": f"Going on after round {finished[-1]}."})
    reason = f"All {n_rounds} rounds are done." if n_rounds <= config.rounds else f"The extra round {n_rounds} is done."
    for index in range(len(finished), n_rounds + 1):
        labels = human_labels()
        if state and (words := rounds.said_last(state, labels)):
            reason = words
            break
        yield Told("round_started", index, {})
        started = time.perf_counter()
        played: Played | str | None = None
        with closing(rounds.play(index, state, labels, checks()) if state else rounds.play_seed(labels)) as playing:
            while played is None:
                try:
                    kind, payload = next(playing)
                except StopIteration as done:
                    played = done.value
                else:
                    yield Told(kind, index, payload)
        if isinstance(played, str):
            reason = played
            break
        facts = replace(played.facts, seconds=time.perf_counter() - started)
        folder.write_round(facts, played.arrays, played.picture)
        state = played.state
        learner.forget(keep=(state.chain.model, state.force.model, state.control))
        yield Told("round_finished", index, {}, facts)
    assert state is not None
    for kind, payload in learner.examine(state.force.model):
        yield Told(kind, None, payload)
    yield Told("run_finished", None, {"stopped_because": reason, "best_round": state.force.round})
