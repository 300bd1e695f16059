"""Responses -> token ids for a reward model that reads one text, and the batches they are read in.

The text of a response is prompt + blank line + response (+ the end token, for models whose tokeniser sets none): what any
other program has to build to get the same reward. An over-long text loses prompt from its left first; a response that is
too long by itself loses its end, and both are counted. Knows no model and no reward.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ser_backend.errors import UnknownToken
from ser_backend.records import Response

Rows = Sequence[int] | np.ndarray

SEPARATOR = "\n\n"
WORD = "a"  # one that nearly every tokeniser knows
CHUNK = 2_048  # texts given to the tokeniser at a time
HALF_CHARACTER = re.compile("[\ud800-\udfff]")  # a lone surrogate, which JSON may hold and no tokeniser takes


@dataclass
class Cuts:
    """How many texts did not fit; an over-long text loses prompt from its left first."""

    prompts: int = 0
    responses: int = 0


@dataclass
class Ends:
    """What the tokeniser puts around a text, and the end token it leaves out."""

    start: list[int]
    end: list[int]
    once: bool = False  # a text that brings its own end token loses it, wherever it stands

    @classmethod
    def of(cls, tokenizer: Any, wants_end: bool, once: bool = False) -> "Ends":
        """wants_end: append the end token where the tokeniser adds none (decoders: the reward is read off the last token)."""
        start, end = _around_a_word(tokenizer) or _around_nothing(tokenizer)
        if wants_end and not end and tokenizer.eos_token_id is not None:
            end = [tokenizer.eos_token_id]
        return cls(start, end, once)


def _around_a_word(tokenizer: Any) -> tuple[list[int], list[int]] | None:
    """None where the word cannot be told from what stands around it, because the tokeniser does not know it."""
    word, whole = (tokenizer(WORD, add_special_tokens=special)["input_ids"] for special in (False, True))
    found = [place for place in range(len(whole)) if word and whole[place : place + len(word)] == word]
    return (whole[: found[0]], whole[found[0] + len(word) :]) if len(found) == 1 else None


def _around_nothing(tokenizer: Any) -> tuple[list[int], list[int]]:
    """A guess: what stands around no text is not parted into start and end."""
    empty = tokenizer("", add_special_tokens=True)["input_ids"]
    if empty and empty[-1] == tokenizer.eos_token_id and empty[-1] != tokenizer.bos_token_id:
        return empty[:-1], empty[-1:]
    doubled = set(empty) == {tokenizer.bos_token_id}  # the doctor says so; the end is not among them
    if len(empty) < 2 or doubled:
        return empty, []
    return empty[:1], empty[-1:]


@dataclass
class TokenTable:
    """Token ids of n texts, one after the other: text i is ids[starts[i]:starts[i + 1]]; its response begins at begins[i]."""

    ids: np.ndarray  # int32
    starts: np.ndarray  # int64 (n + 1,)
    begins: np.ndarray  # int32 (n,), counted from the text's first token
    cuts: Cuts = field(default_factory=Cuts)

    def __len__(self) -> int:
        return len(self.begins)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each text, int64 (n,)."""
        return np.diff(self.starts)

    @classmethod
    def joined(cls, parts: Sequence["TokenTable"]) -> "TokenTable":
        """The texts of all parts, in order."""
        starts = np.concatenate([[0], np.cumsum(np.concatenate([part.lengths for part in parts]))])
        cuts = Cuts(sum(part.cuts.prompts for part in parts), sum(part.cuts.responses for part in parts))
        ids, begins = (np.concatenate([getattr(part, name) for part in parts]) for name in ("ids", "begins"))
        return cls(ids, starts, begins, cuts)

    def text(self, row: int) -> np.ndarray:
        return self.ids[self.starts[row] : self.starts[row + 1]]

    def padded(self, rows: Rows, pad: int) -> tuple[np.ndarray, np.ndarray]:
        """ids and mask, int64 (len(rows), longest), padded on the right."""
        rows = np.asarray(rows)
        lengths = self.lengths[rows]
        ids = np.full((len(rows), int(lengths.max())), pad, np.int64)
        for place, row in enumerate(rows):
            ids[place, : lengths[place]] = self.text(row)
        return ids, (np.arange(ids.shape[1]) < lengths[:, None]).astype(np.int64)


def tokenise(tokenizer: Any, responses: Sequence[Response], max_length: int, ends: Ends) -> TokenTable:
    """Each text once. Raises nothing; what was cut is counted in the table."""
    cuts = Cuts()
    flat: list[np.ndarray] = []
    begins: list[int] = []
    room = max_length - len(ends.start) - len(ends.end)
    for first in range(0, len(responses), CHUNK):
        for prompt, text in _split(tokenizer, responses[first : first + CHUNK]):
            if ends.once:
                prompt, text = ([token for token in part if token not in ends.end] for part in (prompt, text))
            front = prompt or text
            if front[: len(ends.start)] == ends.start:  # a text that brings its own start token must not have two
                del front[: len(ends.start)]
            back = text or prompt
            if ends.end and back[-len(ends.end) :] == ends.end:
                del back[-len(ends.end) :]
            if len(text) > room:
                cuts.responses += 1
                text = text[:room]
            if len(prompt) > room - len(text):
                cuts.prompts += 1
                prompt = prompt[len(prompt) - (room - len(text)) :]
            flat.append(np.array(ends.start + prompt + text + ends.end or [0], np.int32))
            begins.append(len(ends.start) + len(prompt))
    starts = np.concatenate([[0], np.cumsum([len(ids) for ids in flat], dtype=np.int64)])
    ids = np.concatenate(flat) if flat else np.empty(0, np.int32)
    return TokenTable(ids, starts, np.array(begins, np.int32), cuts)


def require_known(ids: np.ndarray, known: int, tokenizer: Any, name: str) -> None:
    """Raises UnknownToken where a token, padding left out, is beyond the `known` ones of the model of that name."""
    strange = ids[(ids >= known) & (ids != tokenizer.pad_token_id)]
    if len(strange):
        raise UnknownToken(
            f"A text holds the token {tokenizer.convert_ids_to_tokens(int(strange[0]))!r}, for which {name!r} has no weights: "
            f"its tokeniser has {len(tokenizer):,} tokens, the model {known:,}. Put the model's own tokeniser into its folder, "
            "or choose another model."
        )


def rendered(response: Response) -> str:
    """The text a reward model reads, without the tokens its tokeniser adds."""
    text = response.prompt + SEPARATOR + response.text if response.prompt else response.text
    return HALF_CHARACTER.sub("\ufffd", text)


def _split(tokenizer: Any, responses: Sequence[Response]) -> Iterator[tuple[list[int], list[int]]]:
    """Ids of prompt and of response, as the whole text is tokenised: words never fall apart at the seam."""
    heads = [len(response.prompt + SEPARATOR) if response.prompt else 0 for response in responses]
    if not tokenizer.is_fast:  # tells no offsets; the two parts are tokenised apart
        for response, head in zip(responses, heads, strict=True):
            whole = rendered(response)
            parts = (whole[:head], whole[head:])
            prompt, text = (tokenizer(part, add_special_tokens=False, verbose=False)["input_ids"] for part in parts)
            yield prompt, text
        return
    found = tokenizer(
        [rendered(response) for response in responses],
        add_special_tokens=False,
        return_offsets_mapping=True,
        return_attention_mask=False,
        verbose=False,
    )
    for ids, offsets, head in zip(found["input_ids"], found["offset_mapping"], heads, strict=True):
        # the first token that reaches into the response; one that spans the seam counts as response
        begin = next((place for place, (_, end) in enumerate(offsets) if end > head), len(ids)) if head else 0
        yield ids[:begin], ids[begin:]


def batches(lengths: Rows, budget: int) -> list[list[int]]:
    """Indices grouped so that rows x longest <= budget, the longest first (memory trouble shows at once)."""
    found: list[list[int]] = []
    lengths = np.asarray(lengths)
    longest = 0
    for index in np.lexsort((np.arange(len(lengths)), -lengths)).tolist():
        if found and (len(found[-1]) + 1) * longest <= budget:
            found[-1].append(index)
        else:
            found.append([index])
            longest = int(lengths[index])
    return found
