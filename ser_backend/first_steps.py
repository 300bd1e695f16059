"""How far a first-time visitor has come on the way from nothing to an export. Derived from what there is; keeps no state."""

from dataclasses import dataclass

from ser_backend import home
from ser_backend.records import ACTIVE
from ser_backend.store import Store

SETTING, DISMISSED = "first_steps", "dismissed"
IMPORTED, TRAINED, REVIEWED, RETRAINED, EXPORTED = range(1, 6)  # steps in their order


@dataclass(frozen=True, slots=True)
class FirstSteps:
    done: int  # steps: 0 to 4, as the last one ends the way
    run: str | None  # that came farthest
    busy: bool  # it is queued or under way


def first_steps(store: Store) -> FirstSteps | None:
    """None when nobody needs to be led: something was exported, or the way was dismissed."""
    if store.setting(SETTING) == DISMISSED or any(home.runs_dir().glob("*/exports/*.zip")):
        return None
    runs = store.runs()
    if not runs:
        there = {found.role for found in store.datasets()}
        return FirstSteps(IMPORTED if {"seed", "pool"} <= there else 0, None, False)
    rounds, answers = store.newest_rounds(), store.newest_reviews()

    farthest, most = runs[0], -1
    for run in runs:  # newest first, and the newest of those that came as far
        done = IMPORTED
        if run.id in rounds:
            done = TRAINED
            if run.id in answers and store.has_answers(run.id):
                done = RETRAINED if store.rounds(run.id)[-1].details.get("n_reviews") else REVIEWED
        if done > most:
            farthest, most = run, done
        if done == RETRAINED:
            break
    return FirstSteps(most, farthest.id, farthest.status in ACTIVE)


def dismiss(store: Store) -> None:
    """For everybody here. Raises Forbidden: an owner's to do."""
    store.change_setting(SETTING, DISMISSED)
