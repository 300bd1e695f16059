"""Which run is better? How runs ended, and differences between them on the held-out pairs they were measured on.

Runs that measured the same held-out pairs are compared pair by pair, others of one set as two samples, and of those measured on
different sets it is only said how far apart they are (paired.py). Reads held-out arrays only, never the pool's: a run on a
million pairs costs no more than a small one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from safetensors import SafetensorError

from ser_backend import metrics
from ser_backend.calibration import clopper_pearson
from ser_backend.compare.config_difference import Asked
from ser_backend.compare.paired import Difference, adjusted, in_words, paired, unpaired
from ser_backend.errors import NotFound
from ser_backend.pairs import PairSet
from ser_backend.records import Interval, Round, Run
from ser_backend.report import accuracy_now, audited, in_force, n_self_labels
from ser_backend.run_folder import RunFolder
from ser_backend.store import Store

FEWEST_SHARED = 30  # pairs that two runs must both have held out to be compared on these alone


@dataclass(frozen=True)
class Measured:
    """The held-out pairs of a run and what its end model makes of them, ordered by pair id; all of shape (n,)."""

    keys: np.ndarray  # S32, pair ids
    right: np.ndarray  # float: 1 right, 0 wrong, 0.5 no preference
    preferred: np.ndarray  # int8
    groups: np.ndarray  # uint64


@dataclass(frozen=True)
class Outcome:
    """How a run ended, or stands now. Accuracies are None before the first round."""

    run: Run
    rounds: tuple[Round, ...]
    asked: Asked
    heldout: str  # id of the set its held-out pairs come from
    end: Interval | None = None
    end_is: str = ""
    seed: Interval | None = None
    control: Interval | None = None  # after the last round: as many steps, no self-labels
    gain: tuple[float, float, float] | None = None  # end minus its control
    spent: tuple[int, ...] = ()  # human labels used up to each round
    n_self: int = 0  # self-labels in force
    n_open: int = 0
    claimed: float | None = None  # share of them right by the model's own confidence
    audited: Interval | None = None  # ... and by people's random checks
    seconds: float = 0.0
    measured: Measured | None = None

    @property
    def human_labels(self) -> int:
        return self.spent[-1] if self.spent else 0

    @property
    def coverage(self) -> float | None:
        return self.n_self / self.n_open if self.n_open else None


# ---- one run


def heldout_of(run: Run) -> str:
    """Id of the set that its held-out pairs come from."""
    return run.heldout or run.seed


def outcome(store: Store, run_id: str) -> Outcome:
    """Raises NotFound, Forbidden."""
    store.require("see_rewards")
    run = store.run(run_id)
    rounds = store.rounds(run.id)
    sets = {role: store.dataset(id).name for role, id in _sets(run).items()}
    heldout = heldout_of(run)
    if not rounds:
        return Outcome(run, (), Asked.of(run.config, sets), heldout)
    model, is_control = in_force(rounds)
    end = accuracy_now(rounds)
    last, folder = rounds[-1], RunFolder.of(run.id)
    counts = (folder.json("data") or {}).get("counts", {})
    seed_labels = counts.get("seed_trained", rounds[0].n_human)
    claimed, checked = _precision(rounds, audited(store, run.id))
    n_self = n_self_labels(rounds)
    return Outcome(
        run=run,
        rounds=tuple(rounds),
        asked=Asked.of(run.config, sets, last.details.get("n_reviews", 0)),
        heldout=heldout,
        end=end,
        end_is=f"control of round {model.index}"
        if is_control
        else f"round {model.index}"
        if model.index
        else "seed model",
        seed=rounds[0].heldout,
        control=last.control if len(rounds) > 1 else None,
        gain=model.difference if model.index and not is_control else None,
        spent=tuple(seed_labels + round_.details.get("n_reviews", 0) for round_ in rounds),
        n_self=n_self,
        n_open=counts.get("pool_open", rounds[0].n_pool),
        claimed=claimed if n_self else None,
        audited=checked,
        seconds=sum(round_.seconds for round_ in rounds),
        measured=_measured(folder, model.index, is_control, heldout),
    )


def asked(store: Store, run_id: str) -> Asked:
    """What the run was asked, without what came of it. Raises NotFound, Forbidden."""
    store.require("see_rewards")
    run, rounds = store.run(run_id), store.rounds(run_id)
    sets = {role: store.dataset(id).name for role, id in _sets(run).items()}
    return Asked.of(run.config, sets, rounds[-1].details.get("n_reviews", 0) if rounds else 0)


def _sets(run: Run) -> dict[str, str]:
    return {"seed": run.seed, "pool": run.pool, **({"heldout": run.heldout} if run.heldout else {})}


def _precision(rounds: Sequence[Round], audits: Mapping[int, Interval]) -> tuple[float | None, Interval | None]:
    """Of the self-labels in force: where the whole pool is labelled anew they are the last round's, else all rounds' that held
    up add up."""
    relabelled = "certificate" in rounds[-1].details
    kept = [rounds[-1]] if relabelled else [round_ for round_ in rounds if round_.promoted == "new"]
    claims = [
        (r.n_kept, r.details["claimed_precision"]) for r in kept if r.details.get("claimed_precision") is not None
    ]
    total = sum(n for n, _ in claims)
    claimed = sum(n * share for n, share in claims) / total if total else None
    # an audit carries the round whose labels were checked; of labels that add up, all count
    mine = [audits[r.index] for r in rounds if r.index in audits and (r in kept or not relabelled)]
    n = sum(found.n for found in mine)
    if not n:
        return claimed, None
    return claimed, clopper_pearson(round(sum(found.value * found.n for found in mine)), n)


def _measured(folder: RunFolder, index: int, is_control: bool, heldout: str) -> Measured | None:
    """None where a run of an earlier version kept no rewards of its held-out pairs."""
    name = "heldout_margin_control" if is_control else "heldout_margin"
    try:
        margin = folder.round_arrays(index, name)[name]
        rows = folder.arrays("data", "heldout_rows")["heldout_rows"]
        pairs = PairSet.open(heldout)
    except (SafetensorError, NotFound):
        return None
    if len(rows) != len(margin) or (len(rows) and rows.max() >= pairs.n_pairs):
        return None
    keys = pairs.pair_keys[rows]
    order = np.argsort(keys)
    preferred = pairs.preferred()[rows]
    right = metrics.correct(margin, preferred)
    return Measured(keys[order], right[order], preferred[order], pairs.group_keys[rows][order])


# ---- two runs


def difference(one: Outcome, reference: Outcome) -> Difference | None:
    """None where one of them has no finished round. The p-value is not yet shared with other comparisons."""
    if not (one.end and reference.end and one.end.n and reference.end.n):
        return None
    if one.measured and reference.measured:
        mine, theirs = _shared(one.measured, reference.measured)
        whole = len(mine) == len(one.measured.keys) == len(reference.measured.keys)
        if whole or len(mine) >= FEWEST_SHARED:
            new, old = one.measured.right[mine], reference.measured.right[theirs]
            groups = reference.measured.groups[theirs]
            return paired(new, old, groups, "paired" if whole else "shared")
    if one.heldout != reference.heldout:
        return unpaired(one.end, reference.end, "apart")
    return unpaired(one.end, reference.end, "unpaired" if one.measured and reference.measured else "unstored")


def differences(outcomes: Sequence[Outcome], reference: int = 0) -> list[Difference | None]:
    """Each against the reference, whose own is None, with p-values that allow for their number."""
    return adjusted(
        [None if i == reference else difference(one, outcomes[reference]) for i, one in enumerate(outcomes)]
    )


def _shared(one: Measured, other: Measured) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the pairs that both held out and of which the labels agree."""
    _, mine, theirs = np.intersect1d(one.keys, other.keys, return_indices=True)
    same = one.preferred[mine] == other.preferred[theirs]
    return mine[same], theirs[same]


def as_json(outcomes: Sequence[Outcome], found: Sequence[Difference | None], reference: int) -> dict[str, Any]:
    """Everything the page says, for programs."""
    return {
        "reference": outcomes[reference].run.id,
        "runs": [_run_as_json(one) for one in outcomes],
        "differences": [
            None
            if one is None
            else {
                "run": outcomes[i].run.id,
                **{
                    name: getattr(one, name)
                    for name in ("value", "low", "high", "p", "p_holm", "n", "n_groups", "kind")
                },
                "is_clear": one.is_clear,
                "pairs_needed_for_a_point": one.pairs_needed(0.01),
                "in_words": in_words(one, outcomes[i].run.id, outcomes[reference].run.id, sum(map(bool, found))),
            }
            for i, one in enumerate(found)
        ],
    }


def _run_as_json(one: Outcome) -> dict[str, Any]:
    def interval(found: Interval | None) -> dict[str, Any] | None:
        return None if found is None else {"value": found.value, "low": found.low, "high": found.high, "n": found.n}

    return {
        "run": one.run.id,
        "name": one.run.name,
        "project": one.run.project,
        "status": str(one.run.status),
        "end": interval(one.end),
        "end_is": one.end_is,
        "seed": interval(one.seed),
        "control": interval(one.control),
        "end_minus_control": one.gain and list(one.gain),
        "human_labels": one.human_labels,
        "self_labels": one.n_self,
        "coverage": one.coverage,
        "precision_claimed": one.claimed,
        "precision_audited": interval(one.audited),
        "seconds": one.seconds,
        "accuracy_by_round": [interval(round_.heldout) for round_ in one.rounds],
        "config": dict(one.asked.settings),
        "data": dict(one.asked.data),
        "answers": one.asked.answers,
    }
