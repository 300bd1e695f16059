"""Before any training: what the best of n responses of the start model gains, in the reward models' eyes and the judge's.

The best of n is what a policy can reach at a KL of log n - (n - 1) / n nats without learning anything; RL that gains less at
the same KL is not worth its time. The reward picks, the judge says what the pick is worth: where the reward's gain grows and
the judge's does not, a policy would climb the reward model's own taste.
"""

import json
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ser_backend import home
from ser_backend.best_of import FEWEST_PROMPTS, kl
from ser_backend.errors import SerError
from ser_backend.policy import figures
from ser_backend.policy import prompts as asking
from ser_backend.policy.folder import PolicyFolder
from ser_backend.policy.members import open_members
from ser_backend.policy.settings import PolicySettings
from ser_backend.policy.shaping import combined, measure_start, normalised
from ser_backend.policy.telling import Event
from ser_backend.policy.writer import open_writer, plain_start
from ser_backend.store import Store

SHOWN = (1, 2, 4, 8, 16, 32, 64, 128, 256)


@dataclass(frozen=True, slots=True)
class Gain:
    """Of the best of n against one response at random; 95 % intervals over prompts."""

    n: int
    kl: float  # nats
    reward: float  # in standard deviations of the start model's rewards, unless normalise=off
    low: float
    high: float
    prompts: int
    judge: float | None = None  # raw, of the response that the reward picked
    judge_low: float | None = None
    judge_high: float | None = None


def picked(rewards: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Mean value of the response with the highest reward over all subsets of n, for n = 1 .. N: (N,). Both (N,) of one prompt.

    As best_of.expected_best, which is this with values = rewards; equal rewards share their values.
    """
    rewards, values = np.asarray(rewards, float), np.asarray(values, float)
    _, which = np.unique(rewards, return_inverse=True)
    mean = (np.bincount(which, values) / np.bincount(which))[which]  # of ties any may be taken
    ordered = mean[np.argsort(rewards, kind="stable")]
    size = len(ordered)
    found, share = np.empty(size), np.full(size, 1 / size)
    for n in range(1, size + 1):
        found[n - 1] = share @ ordered
        share = share * (np.arange(size) - n + 1).clip(min=0) / n * (n + 1) / max(1, size - n)
    return found


def curve(rewards: Sequence[np.ndarray], judged: Sequence[np.ndarray] | None = None) -> list[Gain]:
    """rewards, judged: of each prompt's responses, the same number for all prompts."""
    if len(rewards) < FEWEST_PROMPTS:
        raise SerError(
            f"{len(rewards)} prompt is too few for an interval; {FEWEST_PROMPTS} or more are needed. Give more prompts."
        )
    gains = np.array([picked(r, r) - np.mean(r) for r in rewards])
    others = (
        np.array([picked(r, j) - np.mean(j) for r, j in zip(rewards, judged, strict=True)])
        if judged is not None
        else None
    )
    found = []
    for n in (n for n in SHOWN if n <= gains.shape[1]):
        mine = _interval(gains[:, n - 1])
        theirs = _interval(others[:, n - 1]) if others is not None else (None, None, None)
        found.append(Gain(n, kl(n), *mine, len(gains), *theirs))
    return found


def estimate(
    store: Store, settings: PolicySettings, n: int, out: Path, opener: Callable[[str, int], Any] | None = None
) -> Generator[Event, None, dict[str, Any]]:
    """Samples n responses to each of settings.heldout_prompts prompts. Raises SerError.

    Returns {points, sentences, notes, start, heldout_id, samples}; start: by what rewards were normalised.
    """
    store.require("see_rewards")
    settings.validate()
    examples = "" if settings.prompts else settings.examples  # whatever is wrong with them, nothing is learnt here
    asked = asking.gather(store, settings.prompts, examples, settings.heldout_prompts, settings.random_seed)
    members = open_members(settings.members, settings.judge, settings.threads, opener)
    writer = open_writer(plain_start(settings.base_model, out / "base"), settings)
    lengths = [len(ids) for ids in writer.prompt_ids(asked.heldout)]
    texts = asking.short_enough(asked.heldout, lengths, settings.max_prompt_tokens)
    made = []
    for sample in writer.samples(texts, n, settings, settings.random_seed):
        made.append(sample)
        if len(made) % 16 == 0 or len(made) == n * len(texts):
            yield "responses_sampled", {"done": len(made), "total": n * len(texts)}
    prompts, written = [texts[s.place] for s in made], [s.text for s in made]
    raw, judged = members.rewards(prompts, written), members.judged(prompts, written)
    members.check_judge(raw, judged)
    places = np.array([s.place for s in made])
    tokens = np.array([len(s.ids) for s in made])
    start = measure_start(members.names, raw, tokens, places, settings)
    reward = combined(normalised(raw, start, settings), settings).reshape(len(texts), n)
    points = curve(list(reward), list(judged.reshape(len(texts), n)) if judged is not None else None)
    yield "rewards_given", {"responses": len(made)}
    ended = float(np.mean([s.ended for s in made]))
    return {
        "points": [asdict(point) for point in points],
        "sentences": in_words(points, settings, float(judged.std(ddof=1)) if judged is not None else None, ended),
        "notes": members.notes,
        "start": start.as_json(),
        "heldout_id": asked.heldout_id,
        "samples": [
            {"prompt": p, "response": w, "rewards": r.tolist()}
            | ({"judge": float(judged[i])} if judged is not None else {})
            for i, (p, w, r) in enumerate(zip(prompts, written, raw, strict=True))
        ],
    }


def estimated(
    store: Store,
    settings: PolicySettings,
    n: int,
    folder: PolicyFolder,
    opener: Callable[[str, int], Any] | None = None,
) -> Generator[Event, None, dict[str, Any]]:
    """As `estimate`, of the model that the policy begins with; the result stays in its folder as gain.json."""
    start = folder.path / "start"  # of a supervised start, once it is trained
    supervised = (start / "config.json").exists()
    with folder.held():
        yield "estimate_started", {"n": n}
        begun = settings.changed({"base_model": str(start)}) if supervised else settings
        found = yield from estimate(store, begun, n, folder.path, opener)
        with home.atomic_file(folder.path / "gain_samples.jsonl") as temporary:
            temporary.write_text("".join(json.dumps(sample) + "\n" for sample in found.pop("samples")), "utf-8")
        found |= {"n": n, "settings": settings.as_dict(), "supervised": supervised}
        folder.write("gain", found)
        yield "gain_estimated", {"sentences": found["sentences"]}
        return found


def in_words(points: Sequence[Gain], settings: PolicySettings, judge_sd: float | None, ended: float) -> list[str]:
    last = points[-1]
    unit = "standard deviations of the start model's rewards" if settings.normalise == "on" else "units of reward"
    found = [
        f"Best of {last.n}, at a KL of {last.kl:.2f} nats, gains {last.reward:+.2f} {unit} ({last.low:+.2f} to "
        f"{last.high:+.2f}, n = {last.prompts:,} prompts): RL should gain more at that KL, or best of {last.n} is cheaper."
    ]
    if last.judge is not None and last.judge_low is not None and last.judge_high is not None:
        sure = (
            "confirms it"
            if last.judge_low > 0
            else "goes the other way"
            if last.judge_high < 0
            else "tells no difference"
        )
        sds = f", {last.judge / judge_sd:+.2f} of its standard deviations" if judge_sd else ""
        found.append(
            f"The judge {sure}: {last.judge:+.3f} ({last.judge_low:+.3f} to {last.judge_high:+.3f}){sds}, for the "
            "responses that the reward picks."
        )
    else:
        found.append("No judge was named, so it is not known what the gain is worth to others than the reward model.")
    if ended < 0.5:
        found.append(
            f"Only {ended:.0%} of the responses end by themselves within {settings.max_new_tokens} tokens. Raise "
            "max_new_tokens, or begin with a supervised start (sft_steps)."
        )
    return found


def _interval(values: np.ndarray) -> tuple[float, float, float]:
    mean = float(values.mean())
    half = float(figures.student(len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return mean, mean - half, mean + half
