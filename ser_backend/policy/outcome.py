"""What came of a policy, as a page shows it: figures before and after, responses side by side, gains at their KL.

Reads the small files of policies' folders (folder.py). Loads no torch.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ser_backend.policy import figures
from ser_backend.policy.folder import PolicyFolder
from ser_backend.policy.settings import PolicySettings
from ser_backend.policy.shaping import Start, combined, normalised

# settings by which two estimates, or an estimate and a training, are of the same thing
SAME = (
    *("base_model", "prompts", "reward_models", "judge", "combine", "normalise", "heldout_prompts", "sft_steps"),
    *("max_prompt_tokens", "max_new_tokens", "temperature", "random_seed", "precision"),
)
OTHER_START = (
    "This best of n is of the base model before its supervised start; the policy's KL counts from after it, so the policy is "
    "not drawn here. Estimate again, now that the supervised start is there."
)
OTHER_PROMPTS = (
    "This best of n was estimated on other held-out prompts than the policy was measured on: what holds them has changed in "
    "between. So the policy is not drawn here. Estimate again, or train again under another name."
)
PAIRED = {"kl": "KL to the start model, nats", "length": "length, tokens", "ended": "ends by itself"}


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of responses to held-out prompts, before and after."""

    what: str
    before: float
    after: float
    change: Mapping[str, Any] | None  # figures.difference, paired by prompt; None where no response has it by itself
    kind: str = ""  # "reward", "judge", or the name of the figure


@dataclass(frozen=True, slots=True)
class Written:
    """Responses to one prompt."""

    prompt: str
    before: tuple[Mapping[str, Any], ...]  # response, rewards, judge
    after: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Reached:
    """Where a trained policy is, on the axes of best of n. Intervals of 95 %."""

    name: str
    method: str
    kl: tuple[float, float, float]  # value, low, high; nats
    reward: tuple[float, float, float]  # gained, in the units of the estimate
    judge: tuple[float, float, float] | None
    prompts: int


def rows(policy: Mapping[str, Any], before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Row]:
    """policy, before, after: of the files of these names."""
    then, now, changes = before["figures"], after["figures"], policy["changes"]
    found = []
    for name, change in changes["members"].items():
        found.append(Row(name, then["members"][name]["mean"], now["members"][name]["mean"], change, "reward"))
    if changes["judge"]:
        judge = policy["settings"]["judge"]
        found.append(Row(judge, then["judge"]["mean"], now["judge"]["mean"], changes["judge"], "judge"))
    for name, what in PAIRED.items():
        change = None
        if name in before["each"] and name in after["each"]:
            change = _change(before["each"], after["each"], *(np.array(one["each"][name]) for one in (before, after)))
        found.append(Row(what, _mean(then[name]), _mean(now[name]), change, name))
    for name, what in (("distinct", "two-word sequences that differ"), ("entropy", "entropy, nats a token")):
        found.append(Row(what, then[name], now[name], None, name))
    return found


def _mean(figure: Any) -> float:
    return float(figure["mean"] if isinstance(figure, Mapping) else figure)


def _change(before: Mapping[str, Any], after: Mapping[str, Any], first: np.ndarray, last: np.ndarray) -> dict[str, Any]:
    return figures.difference(last, first, np.array(after["place"]), np.array(before["place"]))


def written(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> list[Written]:
    """The responses that were kept to be read, by prompt; of one that is not there yet none."""
    found: dict[str, tuple[list, list]] = defaultdict(lambda: ([], []))
    for place, facts in enumerate((before, after)):
        for sample in (facts or {"samples": []})["samples"]:
            found[sample["prompt"]][place].append(sample)
    return [Written(prompt, tuple(then), tuple(now)) for prompt, (then, now) in found.items()]


# ---- at the same KL


def same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether best of n of the one is what the other has to beat."""
    names = (*SAME, *(("examples",) if not one.get("prompts") or one.get("sft_steps") else ()))
    return all(one.get(name) == other.get(name) for name in names)


def incomparable(gain: Mapping[str, Any], policy: Mapping[str, Any]) -> str:
    """Why a finished policy has no place on the axes of an estimate with the same settings; "" where it has.

    policy: what its file holds.
    """
    settings = policy["settings"]
    if bool(gain.get("supervised")) != (bool(settings["sft_steps"]) and settings["method"] != "sft"):
        return OTHER_START
    asked = policy.get("data", {}).get("heldout_id")
    if asked and gain.get("heldout_id", asked) != asked:  # files of earlier versions do not say
        return OTHER_PROMPTS
    return ""


def reached(folder: PolicyFolder, gain: Mapping[str, Any]) -> Reached | None:
    """None before the policy is finished, and where it climbed nothing."""
    policy, before, after = (folder.json(name) for name in ("policy", "before", "after"))
    if policy is None or before is None or after is None or not policy["changes"]["members"]:
        return None
    settings = PolicySettings(**{k: v for k, v in policy["settings"].items() if k in PolicySettings().as_dict()})
    start = Start.of_json(gain["start"])  # the estimate's own units, so that both lie on one axis

    def joined(facts: Mapping[str, Any]) -> np.ndarray:
        raw = np.array(facts["each"]["rewards"], float).reshape(len(facts["each"]["place"]), -1)
        return combined(normalised(raw, start, settings), settings)

    change = _change(before["each"], after["each"], joined(before), joined(after))
    kl = after["figures"]["kl"]
    if change["mean"] is None:
        return None
    return Reached(
        folder.name,
        settings.method,
        _with_error(kl),
        _triple(change),
        _triple(policy["changes"]["judge"]) if policy["changes"]["judge"] else None,
        change["prompts"],
    )


def _with_error(figure: Mapping[str, Any]) -> tuple[float, float, float]:
    value, se = figure["mean"], figure["se"]
    half = float(figures.student(figure["prompts"] - 1)) * se if se is not None else float("nan")
    return value, max(0.0, value - half), value + half


def _triple(change: Mapping[str, Any]) -> tuple[float, float, float]:
    mean, low, high = (float("nan") if change[name] is None else change[name] for name in ("mean", "low", "high"))
    return mean, low, high
