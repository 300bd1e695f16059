"""Rewards as a policy is trained on them: pure functions of what the reward models said. numpy only.

In this order: each reward model in standard deviations of the start model's rewards; several joined; what length explains
taken out; clipped; penalties for no end and for length taken off, which the clip must not swallow.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ser_backend.errors import SerError
from ser_backend.policy.settings import PolicySettings


@dataclass(frozen=True, slots=True)
class Start:
    """What the start model's responses to training prompts were like, before training."""

    names: tuple[str, ...]  # of the reward models
    mean: tuple[float, ...]
    sd: tuple[float, ...]
    length: float  # mean tokens of a response
    slope: float  # of the joined reward over length, tokens, among responses to the same prompt
    n: int  # responses

    def as_json(self) -> dict[str, Any]:
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def of_json(cls, facts: dict[str, Any]) -> "Start":
        return cls(**{**facts, **{key: tuple(facts[key]) for key in ("names", "mean", "sd")}})


def measure_start(
    names: tuple[str, ...], rewards: np.ndarray, lengths: np.ndarray, prompts: np.ndarray, settings: PolicySettings
) -> Start:
    """rewards (n, members), lengths (n,) in tokens, prompts (n,): number of the prompt each response answers.

    Raises SerError when a reward model says the same of all responses: it can teach nothing.
    """
    sd = rewards.std(0, ddof=1) if len(rewards) > 1 else np.zeros(rewards.shape[1])
    for name, spread in zip(names, sd, strict=True):
        if not spread > 1e-9:
            raise SerError(
                f"{name} gives all {len(rewards):,} responses of the start model the same reward, so nothing can be climbed. "
                "Check that the start model writes different texts, or choose another reward model."
            )
    facts = Start(names, tuple(rewards.mean(0).tolist()), tuple(sd.tolist()), float(lengths.mean()), 0.0, len(rewards))
    joined = combined(normalised(rewards, facts, settings), settings)
    return Start(facts.names, facts.mean, facts.sd, facts.length, within_slope(joined, lengths, prompts), facts.n)


def within_slope(values: np.ndarray, lengths: np.ndarray, prompts: np.ndarray) -> float:
    """Least squares slope of values over lengths, both less their prompt's mean; 0 where lengths do not differ."""
    _, which = np.unique(prompts, return_inverse=True)
    counts = np.bincount(which)

    def centred(x: np.ndarray) -> np.ndarray:
        return x - (np.bincount(which, x) / counts)[which]

    x, y = centred(np.asarray(lengths, float)), centred(np.asarray(values, float))
    return float(x @ y / (x @ x)) if x @ x > 0 else 0.0


def normalised(rewards: np.ndarray, start: Start, settings: PolicySettings) -> np.ndarray:
    """(n, members) -> (n, members)."""
    if settings.normalise == "off":
        return rewards
    return (rewards - np.array(start.mean)) / np.array(start.sd)


def combined(rewards: np.ndarray, settings: PolicySettings) -> np.ndarray:
    """(n, members) -> (n,)."""
    return rewards.min(1) if settings.combine == "worst" else rewards.mean(1)


def shaped(
    rewards: np.ndarray, lengths: np.ndarray, ended: np.ndarray, start: Start, settings: PolicySettings
) -> np.ndarray:
    """What the policy is trained on: (n,). rewards (n, members) raw; lengths in tokens; ended: with an end token."""
    found = combined(normalised(rewards, start, settings), settings)
    beyond = np.asarray(lengths, float) - start.length
    if settings.length == "regress":
        found = found - start.slope * beyond
    if settings.clip:
        found = found.clip(-settings.clip, settings.clip)
    found = found - settings.no_end_penalty * ~np.asarray(ended, bool)
    if settings.length == "penalty":
        found = found - settings.length_weight * beyond.clip(min=0)
    return found
