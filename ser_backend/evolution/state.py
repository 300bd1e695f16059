"""What goes from round to round: a model with the self-labels of its arms, the chain and the force, and what a round made."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ser_backend.evolution.people import Said
from ser_backend.learners import Learner, Model
from ser_backend.records import Round


@dataclass(frozen=True)
class Arms:
    """A model and the self-labels its arms were trained on, (arms, n_pool)."""

    model: Model
    kept_round: np.ndarray  # int16: the round that kept the self-label, 0 = none
    preferred: np.ndarray  # int8: the kept self-label, +1 a, -1 b
    confidence: (
        np.ndarray
    )  # float32 (n_pool,): of arm 0's label, kept or not, that it is right; nan where there is none
    round: int  # that trained this model
    is_control: bool = False

    def without(self, answered: np.ndarray) -> "Arms":
        """A person's answer replaces a self-label. answered: bool (n_pool,)."""
        return replace(self, kept_round=np.where(answered, np.int16(0), self.kept_round))

    def arrays(self, prefix: str) -> dict[str, np.ndarray]:
        return self.model.arrays(f"{prefix}weights") | {
            f"{prefix}kept_round": self.kept_round,
            f"{prefix}preferred": self.preferred,
            f"{prefix}confidence": self.confidence,
            f"{prefix}made_in": np.array([self.round, self.is_control]),
        }

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray], prefix: str, learner: Learner) -> "Arms":
        made_in, is_control = arrays[f"{prefix}made_in"].tolist()
        kept_round, preferred = (arrays[prefix + name] for name in ("kept_round", "preferred"))
        nothing = np.full(kept_round.shape[1], np.nan, np.float32)  # runs of earlier versions keep none
        confidence = arrays.get(f"{prefix}confidence", nothing)
        return cls(
            learner.model(arrays, f"{prefix}weights"), kept_round, preferred, confidence, made_in, bool(is_control)
        )


@dataclass(frozen=True)
class State:
    """What one round hands to the next."""

    chain: Arms
    force: Arms
    control: Model
    said: Said
    failed: int  # rounds in a row that were rolled back
    last_words: str = ""  # why the run ends here unless people give new answers; "" when it goes on

    def arrays(self) -> dict[str, np.ndarray]:
        rest = {
            "human": self.said.pool,
            "corrected": self.said.seed,
            "failed": np.array([self.failed]),
            "last_words": np.frombuffer(self.last_words.encode(), np.uint8),
        }
        return self.force.arrays("") | self.chain.arrays("chain_") | self.control.arrays("control") | rest


@dataclass(frozen=True)
class Played:
    state: State
    facts: Round
    arrays: dict[str, np.ndarray]
    picture: dict[str, Any] | None
