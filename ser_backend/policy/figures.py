"""One step of a policy in numbers, and what they warn of, in words. numpy only; knows no model and no file."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

WINDOW = 10  # steps that are compared, at the beginning and at the end
LEAST = 5  # fewer say nothing
SURE = 2.0  # standard errors
WRONG = 0.05  # share of trainings in which a judge that stays where it is may be taken for one that goes down
REPEATS = 0.7  # of the start's distinct two-word sequences
DRIFT = 0.5  # share of the start's length
WORD = re.compile(r"\w+|[^\w\s]")

Step = Mapping[str, Any]


def student(freedom: Any) -> Any:
    """Standard errors on either side of a mean in its 95 % interval, by Student's t; NaN without a degree of freedom."""
    from scipy.special import stdtrit  # scipy.stats would add half a second to the opening of a page

    return stdtrit(freedom, 0.975)


def mean(values: np.ndarray, prompts: np.ndarray) -> dict[str, float | int | None]:
    """Mean with its standard error; responses to one prompt are alike, so the prompts are what is drawn. n: responses."""
    values = np.asarray(values, float)
    _, which = np.unique(prompts, return_inverse=True)
    by_prompt = np.bincount(which, values) / np.bincount(which)
    k = len(by_prompt)
    se = float(by_prompt.std(ddof=1) / np.sqrt(k)) if k > 1 else None
    return {"mean": float(by_prompt.mean()), "se": se, "n": len(values), "prompts": k}


def difference(after: np.ndarray, before: np.ndarray, p_after: np.ndarray, p_before: np.ndarray) -> dict[str, Any]:
    """After less before, prompt by prompt, for prompts that both have; 95 % interval by Student's t."""

    def by_prompt(values: np.ndarray, prompts: np.ndarray) -> dict[int, float]:
        return {int(p): float(np.mean(values[prompts == p])) for p in np.unique(prompts)}

    one, other = by_prompt(np.asarray(after, float), p_after), by_prompt(np.asarray(before, float), p_before)
    found = np.array([one[p] - other[p] for p in one if p in other])
    if len(found) < 2:
        return {"mean": float(found.mean()) if len(found) else None, "low": None, "high": None, "prompts": len(found)}
    half = float(student(len(found) - 1) * found.std(ddof=1) / np.sqrt(len(found)))
    value = float(found.mean())
    return {"mean": value, "low": value - half, "high": value + half, "prompts": len(found)}


def distinct(texts: Sequence[str], n: int = 2) -> float:
    """Mean over texts of the share of a text's n-word sequences that are different; 1 for texts too short to repeat."""
    shares = []
    for text in texts:
        words = WORD.findall(text.lower())
        found = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
        shares.append(len(set(found)) / len(found) if found else 1.0)
    return float(np.mean(shares)) if shares else 1.0


def responses(
    raw: np.ndarray,
    names: Sequence[str],
    judged: np.ndarray | None,
    prompts: np.ndarray,
    texts: Sequence[str],
    tokens: np.ndarray,
    ended: np.ndarray,
    kl: np.ndarray,
    sampled_kl: np.ndarray,
    entropy: np.ndarray,
) -> dict[str, Any]:
    """Figures of n responses. raw (n, members); kl, sampled_kl and entropy: nats of the whole response."""
    return {
        "reward": mean(raw.mean(1), prompts) if raw.shape[1] else None,
        "members": {name: mean(raw[:, place], prompts) for place, name in enumerate(names)},
        "judge": mean(judged, prompts) if judged is not None else None,
        "kl": mean(kl, prompts),
        "kl_sampled": mean(sampled_kl, prompts),
        "entropy": float(entropy.sum() / max(1, tokens.sum())),  # nats a token
        "length": float(tokens.mean()),
        "ended": float(np.mean(ended)),
        "distinct": distinct(texts),
        "empty": float(np.mean([not text.strip() for text in texts])),
    }


def alarms(steps: Sequence[Step], start_length: float, start_distinct: float, max_kl: float) -> dict[str, str]:
    """Kind -> sentence, of what the steps so far warn of. steps: as `responses` made them, the newest last."""
    found: dict[str, str] = {}
    if len(steps) >= 2 * LEAST:
        size = min(WINDOW, len(steps) // 2)
        up = _change([s["shaped"]["mean"] for s in steps], size)
        watchers = {"the judge": [s["judge"]["mean"] for s in steps if s["judge"]]}
        for name in steps[-1]["members"] if len(steps[-1]["members"]) > 1 else ():
            watchers[f"the reward model {name}"] = [s["members"][name]["mean"] for s in steps]
        far = _far(len(steps), size)
        for who, values in watchers.items():
            if len(values) == len(steps) and up[1] > SURE and (down := _change(values, size))[1] < -far:
                found[f"overoptimised:{who}"] = (
                    f"The reward rises ({up[0]:+.2f} from the first {size} steps to the last) while {who} goes down "
                    f"({down[0]:+.2f}): the policy has found what the reward model likes and others do not. Take an earlier "
                    "checkpoint, or raise beta."
                )
    recent = steps[-LEAST:]
    if len(recent) == LEAST:
        distinct_now = float(np.mean([s["distinct"] for s in recent]))
        if distinct_now < REPEATS * start_distinct:
            found["repetition"] = (
                f"Responses repeat themselves: {distinct_now:.0%} of their two-word sequences differ, {start_distinct:.0%} at "
                "the start. Stop, and raise beta or lower the learning rate."
            )
        length = float(np.mean([s["length"] for s in recent]))
        if abs(length - start_length) > DRIFT * start_length:
            way = "longer" if length > start_length else "shorter"
            found["length"] = (
                f"Responses have become {way}: {length:.0f} tokens, {start_length:.0f} at the start. If that is not wanted, "
                "use length=penalty or length=regress."
            )
    if max_kl and (now := over_limit(steps, max_kl)):
        found["kl"] = (
            f"The policy is {now:.1f} nats a response from the start model; max_kl is {max_kl:g}. The training ends here."
        )
    return found


def _far(looks: int, size: int) -> float:
    """Standard errors beyond which two means of `size` steps differ, for who looked after every step so far (Bonferroni).

    At two standard errors 40 % of trainings of 200 steps whose judge did not change rang.
    """
    from scipy.special import stdtrit

    return float(stdtrit(2 * size - 2, 1 - WRONG / max(1, looks - size)))


def over_limit(steps: Sequence[Step], max_kl: float, window: int = 3) -> float:
    """Mean KL of the last steps where it is above the limit, else 0."""
    now = float(np.mean([s["kl"]["mean"] for s in steps[-window:]])) if len(steps) >= window else 0.0
    return now if now > max_kl else 0.0


def _change(values: Sequence[float], size: int) -> tuple[float, float]:
    """Mean of the last `size` less that of the first, and the same in standard errors."""
    first, last = np.array(values[:size], float), np.array(values[-size:], float)
    difference = float(last.mean() - first.mean())
    se = float(np.sqrt((first.var(ddof=1) + last.var(ddof=1)) / size))
    return difference, difference / se if se > 0 else np.sign(difference) * np.inf
