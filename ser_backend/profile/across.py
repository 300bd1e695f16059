"""What a seed, a pool and a held-out set share, by pair and by prompt or group; what a run does about it.

Two stored sets never change, so what they share is counted once and kept. The rules are those of run_data.prepare.
"""

import json
from contextlib import suppress
from dataclasses import asdict, dataclass

import numpy as np

from ser_backend import home, pairs
from ser_backend.errors import SerError
from ser_backend.pairs import PairSet
from ser_backend.records import ROLES, Role


@dataclass(frozen=True, slots=True)
class Shared:
    """Pairs of one set that another set knows as well."""

    n_pairs: int  # of the one set
    same_pair: int
    same_group: int  # of the same group or prompt, the same pairs among them


@dataclass(frozen=True, slots=True)
class Across:
    cells: dict[tuple[Role, Role], Shared]  # (of, in)

    @property
    def warnings(self) -> list[str]:
        """A sentence for each way in which the one could flatter the other, and what the run does about it."""
        found = []
        if (cell := self.cells.get(("seed", "heldout"))) and cell.same_group:
            found.append(
                f"{cell.same_group:,} of {cell.n_pairs:,} seed pairs are in the held-out set ({cell.same_pair:,}) or share a "
                "prompt or group with it. A model that trained on them would look better than it is, so a run does not "
                "train on them. To use their labels, take a held-out set of other prompts."
            )
        if (cell := self.cells.get(("pool", "heldout"))) and cell.same_group:
            found.append(
                f"{cell.same_group:,} of {cell.n_pairs:,} pool pairs are in the held-out set ({cell.same_pair:,}) or share a "
                "prompt or group with it. A run neither labels them itself nor trains on them, since that would flatter the "
                "accuracy."
            )
        if (cell := self.cells.get(("pool", "seed"))) and cell.same_pair:
            found.append(
                f"{cell.same_pair:,} of {cell.n_pairs:,} pool pairs are in the seed as well. They keep the label they have "
                "there and are not labelled again."
            )
        return found

    @property
    def carried(self) -> str:
        """How far the seed's labels reach into the pool; "" when it is not known."""
        cell = self.cells.get(("pool", "seed"))
        if cell is None:
            return ""
        near = cell.same_group - cell.same_pair
        if not near:
            return (
                "No open pool pair shares a prompt or group with the seed, so the calibrated teacher cannot carry seed labels "
                "over to the pool; reviews of pool pairs can."
            )
        return (
            f"{near:,} of {cell.n_pairs:,} pool pairs ({100 * near / cell.n_pairs:.1f} %) share a prompt or group with the "
            "seed: there the calibrated teacher can carry labels over."
        )


def across(sets: dict[Role, str]) -> Across:
    """sets: role -> data set id. Every set against every other. Raises NotFound."""
    chosen = [(role, sets[role]) for role in ROLES if role in sets]
    return Across({(of, within): _shared(a, b) for of, a in chosen for within, b in chosen if of != within})


def _shared(one: str, other: str) -> Shared:
    path = home.cache_dir() / "overlaps" / f"{one}-{other}.json"
    with suppress(OSError, ValueError, TypeError):
        return Shared(**json.loads(path.read_text("utf-8")))
    mine = PairSet.open(one)
    both = pairs.overlap(mine, PairSet.open(other))
    near = np.union1d(both.same_content, both.same_group)
    found = Shared(mine.n_pairs, len(both.same_content), len(near))
    with suppress(OSError, SerError), home.atomic_file(path) as temporary:
        temporary.write_text(json.dumps(asdict(found)), "utf-8")
    return found
