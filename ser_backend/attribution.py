"""Which words of a response matter: what the reward loses when a piece of the text is left out (occlusion).

effect of a piece = reward of the whole response - reward of the response without it; above 0 the piece raises the reward. The
effects of the pieces need not add up to anything: two pieces that say the same are each no loss. Knows no model: whoever
asks rewards the texts of `Occlusion.texts`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ser_backend.errors import SerError
from ser_backend.records import Response

MOST_PIECES = 60
FEWEST_PIECES = 8
SECONDS = 2.5  # for all texts together
WORD = re.compile(r"\S+\s*")


@dataclass(frozen=True, slots=True)
class Occlusion:
    """A response cut into pieces, one after the other without a gap."""

    response: Response
    pieces: tuple[tuple[int, int], ...]  # begin and end in the response's text

    @classmethod
    def of(cls, response: Response, most: int = MOST_PIECES) -> "Occlusion":
        """Words, or stretches of several words where there are more than `most`. Raises SerError for an empty response."""
        found = pieces(response.text, most)
        if not found:
            raise SerError("The response is empty, so it has no words to look at. Write one.")
        return cls(response, found)

    def texts(self) -> list[Response]:
        """The response, the empty response, then the response without each piece."""
        prompt, text = self.response.prompt, self.response.text
        without = [Response("", prompt, text[:begin] + text[end:]) for begin, end in self.pieces]
        return [self.response, Response("", prompt, ""), *without]

    def effects(self, rewards: np.ndarray) -> "Effects":
        """rewards: of `texts()`, (2 + pieces,)."""
        whole, nothing = float(rewards[0]), float(rewards[1])
        text = self.response.text
        parts = tuple(text[begin:end] for begin, end in self.pieces)
        return Effects("occlusion", parts, tuple(float(whole - reward) for reward in rewards[2:]), whole, nothing)


@dataclass(frozen=True, slots=True)
class Effects:
    """What each piece of a response does to its reward."""

    how: str  # "occlusion" or "gradient"
    pieces: tuple[str, ...]  # together the whole response
    effect: tuple[float, ...]
    reward: float
    baseline: float  # reward of the empty response to the same prompt

    @property
    def total(self) -> float:
        return float(sum(self.effect))

    def in_words(self) -> str:
        if self.how == "gradient":
            return (
                f"Gradient x input: how the reward would change at first if a piece's word vectors shrank. The effects sum to "
                f"{self.total:+.3f}; the reward is {self.reward:+.3f}, that of an empty response {self.baseline:+.3f}. They "
                "are a first approximation, and need not add up to the difference."
            )
        return (
            "Occlusion: what the reward loses when a piece is left out and the rest stays. The effects sum to "
            f"{self.total:+.3f}; the reward is {self.reward:+.3f}, that of an empty response {self.baseline:+.3f}. They need "
            f"not add up to the difference ({self.reward - self.baseline:+.3f}): what two pieces both say counts for neither."
        )


def pieces(text: str, most: int = MOST_PIECES) -> tuple[tuple[int, int], ...]:
    """Begin and end of at most `most` stretches of whole words, of nearly equal length in characters."""
    words = [match.span() for match in WORD.finditer(text)]
    if not words:
        return ()
    words[0] = (0, words[0][1])  # blanks before the first word
    if len(words) <= most:
        return tuple(words)
    size = len(text) / most
    found: list[tuple[int, int]] = []
    begin = 0
    for place, (_, end) in enumerate(words):
        left = len(words) - place - 1
        if end >= size * (len(found) + 1) or left == 0:
            found.append((begin, end))
            begin = end
    return tuple(found)


def most_pieces(tokens: int, tokens_per_second: float) -> int:
    """So many that all texts are read in about SECONDS. tokens: of the whole text."""
    return max(FEWEST_PIECES, min(MOST_PIECES, int(SECONDS * tokens_per_second / max(1, tokens)) - 2))


def levels(effect: Sequence[float], n: int = 4) -> list[int]:
    """-n .. n for each effect, as a share of the largest; 0 for less than half a level."""
    largest = max((abs(value) for value in effect), default=0.0)
    if largest <= 0:
        return [0] * len(effect)
    return [int(np.sign(value) * round(n * abs(value) / largest)) for value in effect]
