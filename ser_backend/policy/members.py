"""The reward models of a policy's training, and the judge: texts in, rewards out; trouble in one sentence.

Unlike files, sampled responses are read once and never again, so nothing is kept in the cache.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ser_backend.errors import SerError, is_out_of_memory
from ser_backend.reward_model import Rewarder


@dataclass(frozen=True)
class Members:
    climbed: tuple[Rewarder, ...]
    judge: Rewarder | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(member.name for member in self.climbed)

    @property
    def notes(self) -> list[str]:
        return [f"{one.name}: {note}" for one in (*self.climbed, self.judge) if one for note in one.notes]

    def rewards(self, prompts: Sequence[str], texts: Sequence[str]) -> np.ndarray:
        """(n, members). Raises SerError when a reward is not a number, or a model fails."""
        found = [_ask(member, prompts, texts) for member in self.climbed]
        return np.stack(found, 1) if found else np.empty((len(texts), 0))

    def check_judge(self, raw: np.ndarray, judged: np.ndarray | None) -> None:
        """Raises SerError when the judge says what a reward model says (as the models of two rounds of a run may)."""
        for name, column in zip(self.names, raw.T, strict=True):
            if judged is not None and np.allclose(column, judged, rtol=1e-5, atol=1e-6):
                raise SerError(
                    f"The judge says of every response what the reward model {name} says: they are the same model, so it can "
                    "confirm nothing. Name a judge that learnt from other labels."
                )

    def judged(self, prompts: Sequence[str], texts: Sequence[str]) -> np.ndarray | None:
        return _ask(self.judge, prompts, texts) if self.judge else None


def open_members(
    names: Sequence[str], judge: str, threads: int, opener: Callable[[str, int], Rewarder] | None = None
) -> Members:
    """Raises NotFound or SerError, in a sentence, when one of them cannot be opened."""
    from ser_backend.scorer.model import rewarder

    opener = opener or rewarder
    if judge and judge in names:
        raise SerError(
            f"{judge} is a reward model to climb and the judge. The judge must be one that is not trained against."
        )
    return Members(tuple(opener(name, threads) for name in names), opener(judge, threads) if judge else None)


def _ask(member: Rewarder, prompts: Sequence[str], texts: Sequence[str]) -> np.ndarray:
    from ser_backend.scorer.model import clean

    found = np.full(len(texts), np.nan)
    try:
        for rows, rewards in member.read([clean(prompt, text) for prompt, text in zip(prompts, texts, strict=True)]):
            found[rows] = rewards
    except SerError:
        raise
    except (RuntimeError, ValueError, OSError, IndexError, KeyError) as error:
        if is_out_of_memory(error):
            raise
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise SerError(
            f"The reward model {member.name} failed on sampled responses ({said}). Check it with `doctor`."
        ) from error
    if not np.isfinite(found).all():
        bad = int((~np.isfinite(found)).sum())
        raise SerError(
            f"The reward model {member.name} gave {bad:,} of {len(found):,} sampled responses no finite reward (NaN), "
            "so the policy cannot be trained on it. Check it with `doctor`, or use precision=float32 for it."
        )
    return found
