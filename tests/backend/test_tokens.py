"""Tokens of a response: what plain use of the tokeniser gives, one start, one end, prompt lost before response."""

from typing import Any

import numpy as np
import pytest
import tiny
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ser_backend.records import Response
from ser_backend.transformer import tokens
from ser_backend.transformer.tokens import Ends

TOKENIZERS = {kind: tiny.tokeniser(kind) for kind in tiny.KINDS}
ENDS = {kind: Ends.of(TOKENIZERS[kind], wants_end=kind in tiny.DECODERS) for kind in tiny.KINDS}
kinds = pytest.mark.parametrize("kind", tiny.KINDS)

PIECES = [
    *("clear", "helpful ", " the", "\n", "\n\n", "\t", " ", "  ", "don't", "e\u0301", "é", "ﬁ", "İ", "ß", "Σ"),
    *(
        "你好",
        "日本語",
        "שלום",
        "مرحبا",
        "\u202e",
        "\u200d",
        "👩‍👩‍👧",
        "😀",
        "\ufeff",
        "\x00",
        "\x07",
        "\x1b",
        "\x85",
        "\u2028",
        "\uffff",
    ),
    *("▁", "Ġ", "##", "<0x41>", "[MASK]", "[UNK]", "<unk>"),
]
SPECIAL = ["[CLS]", "[SEP]", "[PAD]", "<s>", "</s>", "<pad>", "<|endoftext|>", "<|im_end|>", "<|begin_of_text|>"]
SPECIAL += ["<|end_of_text|>", "<|reserved_special_token_0|>"]
plain = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=12).map("".join),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
)
odd = st.lists(st.one_of(plain, st.sampled_from(SPECIAL)), max_size=6).map("".join)


def response(prompt: str, text: str) -> Response:
    return Response("r", prompt, text)


def ids(kind: str, prompt: str, text: str, max_length: int = 100_000) -> list[int]:
    table = tokens.tokenise(TOKENIZERS[kind], [response(prompt, text)], max_length, ENDS[kind])
    return table.text(0).tolist()


def as_others_would(kind: str, text: str) -> list[int]:
    """One call of the tokeniser; the end token after it for a decoder."""
    tokenizer = TOKENIZERS[kind]
    return tokenizer(text)["input_ids"] + ([tokenizer.eos_token_id] if kind in tiny.DECODERS else [])


@kinds
@settings(max_examples=30, deadline=None)
@given(prompt=plain, text=plain)
def test_a_text_is_tokenised_as_one_plain_call_would(kind: str, prompt: str, text: str) -> None:
    whole = prompt + "\n\n" + text if prompt else text
    assert ids(kind, prompt, text) == as_others_would(kind, whole)


@kinds
@settings(max_examples=30, deadline=None)
@given(prompt=odd, text=odd)
@example(prompt="[SEP]</s><|im_end|><|endoftext|>", text="")
@example(prompt="[CLS]", text="[SEP]")
def test_special_tokens_in_a_text_stay_but_start_and_end_are_not_doubled(kind: str, prompt: str, text: str) -> None:
    whole = as_others_would(kind, prompt + "\n\n" + text if prompt else text)
    start, end = ENDS[kind].start, ENDS[kind].end
    inside = whole[len(start) : len(whole) - len(end)]
    if start and inside[: len(start)] == start:
        inside = inside[len(start) :]
    if end and inside[-len(end) :] == end:
        inside = inside[: -len(end)]
    assert ids(kind, prompt, text) == start + inside + end


@kinds
@pytest.mark.parametrize("prompt", ["", "what is it"])
def test_a_text_that_brings_its_own_start_and_end_has_one_of_each(kind: str, prompt: str) -> None:
    tokenizer, ends = TOKENIZERS[kind], ENDS[kind]
    first, last = ("".join(tokenizer.convert_ids_to_tokens(part)) for part in (ends.start, ends.end))
    brought = (
        ids(kind, first + prompt, "clear answer" + last) if prompt else ids(kind, "", first + "clear answer" + last)
    )
    special = {*ends.start, *ends.end}
    assert [t for t in brought if t in special] == ends.start + ends.end
    assert brought[len(brought) - len(ends.end) :] == ends.end


def test_what_stands_around_a_text() -> None:
    def named(kind: str) -> tuple[list[str], list[str]]:
        name = TOKENIZERS[kind].convert_ids_to_tokens
        return name(ENDS[kind].start), name(ENDS[kind].end)

    assert {kind: named(kind) for kind in tiny.KINDS} == {
        "bert": (["[CLS]"], ["[SEP]"]),
        "distilbert": (["[CLS]"], ["[SEP]"]),
        "roberta": (["<s>"], ["</s>"]),
        "modernbert": (["[CLS]"], ["[SEP]"]),
        "llama": (["<s>"], ["</s>"]),
        "llama3": (["<|begin_of_text|>"], ["<|end_of_text|>"]),
        "qwen2": ([], ["<|im_end|>"]),
        "gpt2": ([], ["<|endoftext|>"]),
        "t5": ([], ["</s>"]),
        "bart": (["<s>"], ["</s>"]),
    }


def test_a_tokeniser_that_sets_its_own_end_is_left_to_it() -> None:
    tokenizer = tiny.tokeniser("llama")
    tokenizer.add_eos_token = True
    tokenizer.update_post_processor()
    assert Ends.of(tokenizer, wants_end=True) == Ends([1], [2])


@pytest.mark.parametrize(
    ("template", "start", "end"),
    [
        ("$A <|end|>", [], ["<|end|>"]),  # Qwen3-Embedding: not the end token that the tokeniser names
        ("<|a|> <|b|> $A", ["<|a|>", "<|b|>"], ["<|eos|>"]),  # GLM: two tokens before a text
        ("<|a|> $A <|end|> <|b|>", ["<|a|>"], ["<|end|>", "<|b|>"]),
        ("$A", [], ["<|eos|>"]),
    ],
)
def test_what_stands_before_a_text_is_told_from_what_stands_behind_it(
    template: str, start: list[str], end: list[str]
) -> None:
    tokenizer = tiny._plain_bytes(("<|a|>", "<|b|>", "<|end|>", "<|eos|>"), template, {"eos_token": "<|eos|>"})
    found = Ends.of(tokenizer, wants_end=True)
    assert (found.start, found.end) == tuple(tokenizer.convert_tokens_to_ids(tokens) for tokens in (start, end))
    text = Response("", "what is it", "a clear answer")
    plain = tokenizer(tokens.rendered(text))["input_ids"]
    table = tokens.tokenise(tokenizer, [text], 999, found)
    assert table.text(0).tolist() == plain + (found.end if end == ["<|eos|>"] else [])


def test_what_stands_around_a_text_is_guessed_where_no_word_is_known() -> None:
    tokenizer = TOKENIZERS["bert"]

    class Deaf:
        bos_token_id, eos_token_id = tokenizer.cls_token_id, tokenizer.sep_token_id

        def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
            return tokenizer("", add_special_tokens=add_special_tokens)

    assert Ends.of(Deaf(), wants_end=False) == ENDS["bert"]


@kinds
@settings(max_examples=30, deadline=None)
@given(prompt=plain, text=plain, max_length=st.integers(6, 60))
def test_an_over_long_text_loses_prompt_from_the_left_then_the_end_of_the_response(
    kind: str, prompt: str, text: str, max_length: int
) -> None:
    tokenizer, ends = TOKENIZERS[kind], ENDS[kind]
    table = tokens.tokenise(tokenizer, [response(prompt, text)], 100_000, ends)
    whole, begin = table.text(0).tolist(), int(table.begins[0])
    left, right = whole[len(ends.start) : begin], whole[begin : len(whole) - len(ends.end)]
    room = max_length - len(ends.start) - len(ends.end)
    kept = right[:room]
    rest = left[len(left) - min(len(left), room - len(kept)) :]

    short = tokens.tokenise(tokenizer, [response(prompt, text)], max_length, ends)
    assert short.text(0).tolist() == ends.start + rest + kept + ends.end
    assert short.begins[0] == len(ends.start) + len(rest)
    assert short.cuts.responses == (len(right) > room)
    assert short.cuts.prompts == (len(rest) < len(left))
    assert short.lengths[0] == min(len(whole), max_length)


@kinds
def test_the_response_begins_where_it_says(kind: str) -> None:
    pairs = [
        ("what is it", "clear answer"),
        ("", "clear"),
        ("what", ""),
        ("naïve 😀", "日本語 on it"),
        ("what ", " the"),
    ]
    table = tokens.tokenise(TOKENIZERS[kind], [response(*pair) for pair in pairs], 200, ENDS[kind])
    for row, (prompt, text) in enumerate(pairs):
        after = TOKENIZERS[kind].decode(table.text(row)[table.begins[row] :].tolist(), skip_special_tokens=True)
        before = TOKENIZERS[kind].decode(table.text(row)[: table.begins[row]].tolist(), skip_special_tokens=True)
        if kind in ("bert", "distilbert"):  # lower case, no accents, and what they cannot read is gone
            assert after == {"日本語 on it": "on it"}.get(text, text.strip())
        else:
            assert after.strip() == text.strip()
            assert before.strip() == prompt.strip()


def test_texts_longer_than_one_call_takes_and_very_long_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "CHUNK", 3)
    answers = [response(f"what {i}", "clear " * (i * i)) for i in range(11)] + [response("how " * 30_000, "warm")]
    table = tokens.tokenise(TOKENIZERS["qwen2"], answers, 64, ENDS["qwen2"])
    assert len(table) == 12
    for row, one in enumerate(answers):
        assert table.text(row).tolist() == ids("qwen2", one.prompt, one.text, 64)
    assert table.lengths.max() == 64
    assert tokens.tokenise(TOKENIZERS["qwen2"], [], 64, ENDS["qwen2"]).starts.tolist() == [0]


@kinds
def test_half_of_a_character_is_read_as_an_unknown_one(kind: str) -> None:
    """A lone surrogate, as JSON allows it, is no text; it must not stop a run."""
    assert ids(kind, "what \ud83d", "clear \udc00") == ids(kind, "what \ufffd", "clear \ufffd")


def test_a_tokeniser_without_offsets_reads_the_two_parts_apart() -> None:
    class Slow:
        is_fast = False
        bos_token_id = None
        eos_token_id = 0

        def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
            return {"input_ids": [ord(letter) for letter in text]}

    table = tokens.tokenise(Slow(), [response("ab", "cd"), response("", "e")], 10, Ends([], [0]))
    assert table.text(0).tolist() == [97, 98, 10, 10, 99, 100, 0]
    assert table.begins.tolist() == [4, 0]
    assert table.text(1).tolist() == [101, 0]


@settings(deadline=None)
@given(lengths=st.lists(st.integers(1, 50), max_size=60), budget=st.integers(1, 200))
def test_batches_hold_every_row_once_within_the_budget(lengths: list[int], budget: int) -> None:
    found = tokens.batches(lengths, budget)
    assert sorted(row for batch in found for row in batch) == list(range(len(lengths)))
    for batch in found:
        assert len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= budget
    longest = [lengths[batch[0]] for batch in found]
    assert longest == sorted(longest, reverse=True)


def test_padding_stands_on_the_right_and_is_masked() -> None:
    table = tokens.TokenTable(np.arange(6, dtype=np.int32), np.array([0, 1, 4, 6]), np.zeros(3, np.int32))
    padded, mask = table.padded([1, 0, 2], 9)
    assert padded.tolist() == [[1, 2, 3], [0, 9, 9], [4, 5, 9]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0], [1, 1, 0]]
