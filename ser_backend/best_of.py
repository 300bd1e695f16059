"""Best of n: of several responses to a prompt keep the one with the highest reward, and what that would gain by n.

A prompt with N responses tells what the best of n <= N of them would get on average: the mean of the maximum over all subsets
of n, computed exactly from the sorted rewards. Best-of-n sampling moves the answers away from the model that wrote them by a
KL divergence of at most log n - (n - 1) / n nats, exactly so where no two rewards tie. The gain is in the judging model's
own reward, which is what best-of-n climbs: it says nothing of whether people would agree.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ser_backend import home
from ser_backend.errors import SerError
from ser_backend.ingest import read_texts
from ser_backend.ingest.readers import open_source
from ser_backend.records import Problem, Response
from ser_backend.reward_model import Rewarder, open_model

DRAWS = 1_000
FEWEST_PROMPTS = 2  # behind a point of the curve
LISTS = ("responses", "completions", "answers", "outputs", "samples", "candidates")
LIST_PROMPTS = ("prompt", "question", "instruction", "query", "input")
LOOKED_AT = 20  # rows that tell the columns
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Point:
    """The best of n against one response taken at random, in the judging model's reward."""

    n: int
    kl: float  # nats
    gain: float
    low: float  # 95 % interval, prompts drawn anew
    high: float
    prompts: int  # with n responses or more


@dataclass(frozen=True, slots=True)
class Best:
    rows: int  # prompts with a best response
    problems: int
    responses: int
    mean: float  # of all responses, prompts counted alike
    best: float
    curve: tuple[Point, ...]
    notes: tuple[str, ...]

    def in_words(self) -> str:
        found = (
            f"{self.rows:,} prompts with {self.responses:,} responses: the mean reward rises from {self.mean:+.3f} to "
            f"{self.best:+.3f} when the best of each prompt's responses is taken."
        )
        if len(self.curve) > 1:
            last = self.curve[-1]
            found += (
                f" Best of {last.n}: {last.gain:+.3f} ({last.low:+.3f} to {last.high:+.3f}, n = {last.prompts:,} prompts) "
                f"at KL {last.kl:.2f} nats."
            )
        return found


class Samples(NamedTuple):
    """Responses to one prompt."""

    row: int  # of the first
    prompt: str
    responses: tuple[str, ...]


# ---- the figures


def kl(n: int) -> float:
    """Nats between the best of n and one response, for rewards without ties (Stiennon et al. 2020, appendix G.3)."""
    return math.log(n) - (n - 1) / n


def expected_best(rewards: np.ndarray) -> np.ndarray:
    """Mean of the maximum over all subsets of n responses, for n = 1 .. N: (N,). rewards: (N,) of one prompt.

    Of the subsets of n, C(i - 1, n - 1) have the i-th smallest reward as their largest. Unbiased for n fresh responses.
    """
    ordered = np.sort(np.asarray(rewards, float))
    size = len(ordered)
    found = np.empty(size)
    share = np.full(size, 1 / size)  # C(i - 1, n - 1) / C(size, n) for n = 1
    for n in range(1, size + 1):
        found[n - 1] = share @ ordered
        # from n to n + 1 both grow by simple factors, so that nothing overflows
        share = share * (np.arange(size) - n + 1).clip(min=0) / n * (n + 1) / max(1, size - n)
    return found


def curve(rewards: Sequence[np.ndarray], draws: int = DRAWS, random_seed: int = 0) -> tuple[Point, ...]:
    """rewards: of each prompt's responses. A point for every n that FEWEST_PROMPTS prompts reach.

    The gain of a prompt is against the mean of its own responses, so that prompts that end early do not bend the curve by
    being easy or hard; they do leave it, and `prompts` says how many are left.
    """
    gains = [expected_best(found) - np.mean(found) for found in rewards if len(found)]
    random = np.random.default_rng(random_seed)
    points = []
    for n in range(1, max((len(gain) for gain in gains), default=0) + 1):
        mine = np.array([gain[n - 1] for gain in gains if len(gain) >= n])
        if len(mine) < FEWEST_PROMPTS:
            break
        low, high = _interval(mine, draws, random) if n > 1 else (0.0, 0.0)
        value = float(mine.mean()) if n > 1 else 0.0
        points.append(Point(n, kl(n), value, low, high, len(mine)))
    return tuple(points)


def _interval(values: np.ndarray, draws: int, random: np.random.Generator) -> tuple[float, float]:
    draws = max(200, min(draws, 20_000_000 // len(values)))
    block = max(1, 2_000_000 // len(values))
    means: list[np.ndarray] = []
    for begin in range(0, draws, block):
        picked = random.integers(len(values), size=(min(block, draws - begin), len(values)))
        means.append(values[picked].mean(1))
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    return float(low), float(high)


# ---- a file


def read_samples(path: str | Path) -> Iterator[Samples | Problem]:
    """A row with a prompt and a list of responses is one prompt; of rows with one response (or two) each, those with the same
    prompt are. Raises SerError when the columns are neither."""
    source = open_source(path)
    seen = [values for _, _, values in islice(source.rows(), LOOKED_AT) if isinstance(values, dict)]
    columns = {name.lower(): name for values in reversed(seen) for name in reversed(values) if name}
    column = next((columns[name] for name in LISTS if name in columns), None)
    if column is None:
        yield from _grouped(path)
        return
    prompt_column = next((columns[name] for name in LIST_PROMPTS if name in columns), None)
    for _, row, values in source.rows():
        if not isinstance(values, dict):
            yield Problem(row, "", values.message)
            continue
        prompt, found = values.get(prompt_column) if prompt_column else "", values.get(column)
        if isinstance(found, str):  # a cell of a CSV file
            try:
                found = json.loads(found)
            except ValueError:
                found = None
        texts = found if isinstance(found, list) else []
        if not isinstance(prompt, str) or not texts or not all(isinstance(t, str) and t.strip() for t in texts):
            yield Problem(
                row, column, "The prompt must be a text, and the responses a list of texts that are not empty."
            )
        else:
            yield Samples(row, prompt, tuple(texts))


def _grouped(path: str | Path) -> Iterator[Samples | Problem]:
    by_prompt: dict[str, tuple[int, list[str]]] = {}
    for item in read_texts(path):
        if isinstance(item, Problem):
            yield item
            continue
        row, prompt, texts = item
        by_prompt.setdefault(prompt, (row, []))[1].extend(texts.values())
    for prompt, (row, found) in by_prompt.items():
        yield Samples(row, prompt, tuple(found))


def best_of(model: str | Rewarder, source: str, out: Path, progress: Progress | None = None) -> Best:
    """Write one line a prompt: row, prompt, the best response, its place among the given ones (from 0), its reward, the mean
    reward and n; rows that cannot be used get the key "problem" instead.

    Raises SerError when the model or the file cannot be read, or no row can be used; then `out` is not written.
    """
    opened = open_model(model) if isinstance(model, str) else model
    found = list(read_samples(source))
    samples = [item for item in found if isinstance(item, Samples)]
    problems = [item for item in found if isinstance(item, Problem)]
    if not samples:
        raise SerError(f"No row of {source} can be used: {problems[0].message if problems else 'it is empty'}")
    texts = dict.fromkeys(Response("", item.prompt, text) for item in samples for text in item.responses)
    place = {text: number for number, text in enumerate(texts)}
    for step in opened.rewards(list(texts)):
        if progress:
            progress(step[0], len(texts))
    rewards = step[1]
    assert rewards is not None
    by_prompt = [
        np.array([rewards[place[Response("", item.prompt, text)]] for text in item.responses], float)
        for item in samples
    ]
    lines: list[dict[str, object]] = [{"row": item.row, "problem": item.message} for item in problems]
    for item, mine in zip(samples, by_prompt, strict=True):
        best = int(mine.argmax())  # the first of equals
        lines.append(
            {
                "row": item.row,
                "prompt": item.prompt,
                "response": item.responses[best],
                "place": best,
                "reward": round(float(mine[best]), 6),
                "mean_reward": round(float(mine.mean()), 6),
                "n": len(mine),
            }
        )
    with home.atomic_file(out) as temporary, temporary.open("w", encoding="utf-8") as file:
        for line in sorted(lines, key=lambda line: int(str(line["row"]))):
            file.write(json.dumps(line) + "\n")
    return Best(
        rows=len(samples),
        problems=len(problems),
        responses=sum(len(mine) for mine in by_prompt),
        mean=float(np.mean([mine.mean() for mine in by_prompt])),
        best=float(np.mean([mine.max() for mine in by_prompt])),
        curve=curve(by_prompt),
        notes=opened.notes,
    )
