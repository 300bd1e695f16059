"""The doctor's checks of a reward model and its tokeniser, and of what was saved of it.

Works on anything that reads texts as a Classifier does. Knows no labels: those are pair_checks' business.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ser_backend.errors import SerError, is_out_of_memory
from ser_backend.health.checks import Check, check
from ser_backend.records import Response
from ser_backend.transformer.classifier import Classifier
from ser_backend.transformer.heads import has_head, heads_of, is_decoder
from ser_backend.transformer.opening import positions_of
from ser_backend.transformer.tokens import Ends, Rows, TokenTable, rendered

# Share of the largest reward by which it may move: rounding, by number format. "features": a linear head on float32 ones.
TOLERANCE = {"float32": 1e-4, "features": 1e-4, "bfloat16": 6e-2, "4bit": 6e-2}
EXACT = ("float32", "features")
SERIOUS = 5.0  # times the tolerance: no rounding any more
NOISE = 1e-6  # share of the largest reward that is float32 rounding in one and the same batch
LOOKED_AT = 64  # responses from which the probes are taken
PROBES = 8  # texts that are rewarded again and again
CHANGED = 4  # of them, changed at their end
FEWEST = 4  # with fewer texts of the user's, texts from here are added

QUESTION = "How do I keep basil alive on a kitchen window sill?"
HERE = [
    Response("", prompt, text)
    for prompt, text in (
        (QUESTION, "Water it when the soil feels dry."),
        (QUESTION, "Buy a new one."),
        (
            QUESTION,
            "Give it six hours of light a day, water it from below when the top of the soil is dry, and cut the stems above a "
            "pair of leaves every two weeks, so that it grows wide instead of tall. In winter a lamp helps; cold glass hurts.",
        ),
        ("What is 17 times 6?", "17 times 6 is 102, because 10 times 6 is 60 and 7 times 6 is 42."),
        ("What is 17 times 6?", "It is 96."),
        ("", "A text without a question, of some length, that ends here."),
        ("Write one line about rain.", "Rain, again, and the roof knows every word."),
        ("Write one line about rain.", "I will not do that, and I will not say why, whatever you may think of it."),
    )
]


class Reader(Protocol):
    """What is asked of a model: a Classifier, or one that acts like it."""

    model: Any
    tokenizer: Any
    max_length: int
    precision: str  # a key of TOLERANCE
    ends: Ends
    new_head: bool
    missing: list[str]

    def trainable(self) -> dict[str, Any]: ...
    def tokenise(self, responses: Sequence[Response]) -> TokenTable: ...
    def forward(self, table: TokenTable, rows: Rows) -> Any: ...


def examine_model(model: Reader, responses: Sequence[Response] = (), trained: bool | None = None) -> list[Check]:
    """Checks before or after a training, a few seconds for a small model; nothing of the model is changed.

    responses: some of the user's (a sample is taken); trained: whether it is said to be; None: if it brought its head.
    """
    told = not model.new_head if trained is None else trained
    texts, table = _probes(model, responses)
    return [
        _whole(model),
        _head_in_weights(model, told),
        _weights_finite(model),
        _head_float32(model),
        _pad_is_not_end(model),
        _pad_known(model),
        _start_and_end(model, table),
        _tokens_known(model),
        _same_elsewhere(model, texts, table),
        _length_fits(model),
        *_reward_checks(model, table),
    ]


def examine_saved(model: Classifier, folder: Path, responses: Sequence[Response] = ()) -> list[Check]:
    """What was saved of `model` in `folder`: is the head among it, and are the rewards the same. Loads it a second time."""
    _, table = _probes(model, responses)
    saved = has_head(folder)
    found = (
        "The weights of the reward head are in the folder." if saved else f"{folder} holds no weights of a reward head."
    )
    return [check("head-saved", "ok" if saved else "failed", found), _reloads(model, folder, table)]


def _reloads(model: Classifier, folder: Path, table: TokenTable) -> Check:
    import torch

    rows = np.arange(len(table))
    before = read(model, table, rows)
    try:
        again = Classifier.open(folder, precision=model.precision)
        after = read(again, table, rows)
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return check("reloads-the-same", "skipped", "There is no memory for a second copy of the model.")
    except SerError as error:
        return check("reloads-the-same", "failed", str(error))
    return compared("reloads-the-same", model.precision, before, after, f"Of {len(rows)} rewards of the reloaded model")


def read(model: Reader, table: TokenTable, rows: Rows) -> np.ndarray:
    """Rewards of some texts as one batch, float64; NaN is let pass."""
    import torch

    model.model.eval()
    with torch.no_grad():  # inference mode would leave tensors behind that no later training could use
        return model.forward(table, rows).float().cpu().numpy().astype(np.float64)


def compared(name: str, precision: str, before: np.ndarray, after: np.ndarray, whose: str) -> Check:
    """Two lots of rewards of the same texts."""
    moved = float(np.abs(before - after).max())
    called = "float32" if precision in EXACT else precision
    allowed = TOLERANCE[precision] * max(float(np.abs(before).max()), NOISE)
    found = f"{whose}, the one that moved most did so by {moved:.2g}; rounding in {called} explains {allowed:.2g}."
    if not np.isfinite(moved) or moved > SERIOUS * allowed or (moved > allowed and precision in EXACT):
        return check(name, "failed", found)
    return check(name, "warning" if moved > allowed else "ok", found)


# ---- probes


def _probes(model: Reader, responses: Sequence[Response]) -> tuple[list[Response], TokenTable]:
    """At most PROBES distinct inputs from the shortest to the longest, the user's where there are enough."""
    sample = list(responses[:: max(1, len(responses) // LOOKED_AT)][:LOOKED_AT])
    if len(sample) < FEWEST:
        sample += HERE
    table = model.tokenise(sample)
    distinct = {table.text(row).tobytes(): row for row in range(len(table))}
    rows = sorted(distinct.values(), key=lambda row: int(table.lengths[row]))
    places = np.unique(np.linspace(0, len(rows) - 1, min(PROBES, len(rows))).round().astype(int))
    chosen = [sample[rows[place]] for place in places]
    return chosen, model.tokenise(chosen)


def _table_of(texts: Sequence[Sequence[int] | np.ndarray], begins: Rows | None = None) -> TokenTable:
    starts = np.concatenate([[0], np.cumsum([len(ids) for ids in texts])])
    begins = np.zeros(len(texts), np.int32) if begins is None else np.asarray(begins, np.int32)
    return TokenTable(np.concatenate([np.asarray(ids, np.int32) for ids in texts]), starts, begins)


def _content(model: Reader, table: TokenTable, row: int) -> np.ndarray:
    """A text without what the tokeniser puts around it."""
    ids = table.text(row)
    return ids[len(model.ends.start) : len(ids) - len(model.ends.end)]


def _of_one_length(model: Reader, table: TokenTable) -> TokenTable:
    """The ends of the texts, as long as the shortest."""
    contents = [_content(model, table, row) for row in range(len(table))]
    length = max(1, min(len(ids) for ids in contents))
    framed = [[*model.ends.start, *ids[-length:].tolist(), *model.ends.end] for ids in contents]
    return _table_of([ids if len(ids) else [0] for ids in framed])


def _named(tokenizer: Any, ids: Sequence[int]) -> str:
    return " ".join(f"{tokenizer.convert_ids_to_tokens(int(one))!r}" for one in ids) or "none"


# ---- the model as it stands


def _whole(model: Reader) -> Check:
    if not model.missing:
        return check("loaded-whole", "ok", "Every weight array of the model's body was found.")
    found = f"{len(model.missing)} weight arrays were not found and are random, for example {model.missing[0]}."
    return check("loaded-whole", "warning" if model.new_head else "failed", found)


def _head_in_weights(model: Reader, trained: bool) -> Check:
    if not model.new_head:
        return check("head-in-weights", "ok", "The reward head came with the weights or was trained here.")
    if trained:
        return check(
            "head-in-weights", "failed", "The weights hold no reward head: it was made now, from random numbers."
        )
    return check("head-in-weights", "skipped", "A base model: its reward head is new, and random until it is trained.")


def _weights_finite(model: Reader) -> Check:
    import torch

    named = dict(model.model.named_parameters()) | dict(model.model.named_buffers()) | model.trainable()
    bad = [name for name, array in named.items() if array.is_floating_point() and not bool(torch.isfinite(array).all())]
    if bad:
        found = f"{len(bad)} of {len(named)} weight arrays hold NaN or infinity, for example {bad[0]}."
        return check("weights-finite", "failed", found)
    return check("weights-finite", "ok", f"All numbers of {len(named)} weight arrays are finite.")


def _head_float32(model: Reader) -> Check:
    if model.precision == "features":
        return check("head-float32", "ok", "A linear head, computed in float64.")
    kinds = {str(p.dtype).removeprefix("torch.") for part in heads_of(model.model) for p in part.parameters()}
    if kinds - {"float32", "float64"}:
        return check("head-float32", "failed", f"The head's weights are {' and '.join(sorted(kinds))}.")
    return check("head-float32", "ok", f"The head's weights are float32, the body computes in {model.precision}.")


def _pad_is_not_end(model: Reader) -> Check:
    tokenizer = model.tokenizer
    pad = tokenizer.pad_token_id
    if pad is None:
        if model.precision == "features":
            return check(
                "pad-is-not-end", "skipped", "Padding is left out of the averages, so no token is needed for it."
            )
        return check("pad-is-not-end", "failed", "The tokeniser has no padding token.")
    ends = {tokenizer.eos_token_id, *model.ends.end} - {None}
    found = f"Padding is {_named(tokenizer, [pad])}, the end is {_named(tokenizer, sorted(ends))}."
    return check("pad-is-not-end", "failed" if pad in ends else "ok", found)


def _pad_known(model: Reader) -> Check:
    if model.precision == "features":
        return check("pad-known-to-model", "skipped", "Padding is left out of the averages, by the mask.")
    config = getattr(model.model.config, "text_config", None) or model.model.config
    said, pad = getattr(config, "pad_token_id", None), model.tokenizer.pad_token_id
    if pad is None:
        return check("pad-known-to-model", "skipped", "The tokeniser has no padding token, see above.")
    found = f"Padding is number {pad} for the tokeniser and {said} for the model."
    if said == pad:
        return check("pad-known-to-model", "ok", found)
    return check("pad-known-to-model", "failed" if is_decoder(model.model) else "warning", found)


def _start_and_end(model: Reader, table: TokenTable) -> Check:
    start, end = model.ends.start, model.ends.end
    named = f"start {_named(model.tokenizer, start)}, end {_named(model.tokenizer, end)}"
    if len(set(start)) < len(start) or len(set(end)) < len(end):
        return check("one-start-one-end", "failed", f"The tokeniser doubles what it puts around a text: {named}.")
    wrong = sum(not _once(table.text(row).tolist(), start, end) for row in range(len(table)))
    if wrong:
        found = f"{wrong} of {len(table)} texts do not have one start and one end token ({named})."
        return check("one-start-one-end", "failed", found)
    first, last = ("".join(model.tokenizer.convert_ids_to_tokens(part)) for part in (start, end))
    brought = model.tokenise([Response("", f"{first}Yes", f"it is.{last}"), Response("", "", f"{first}It is.{last}")])
    doubled = sum(not _once(brought.text(row).tolist(), start, end) for row in range(2))
    if doubled and model.precision == "features":
        found = (
            f"Each text has one ({named}); a text that brings its own has two, of which the averages hardly take note."
        )
        return check("one-start-one-end", "ok", found)
    if doubled:
        return check("one-start-one-end", "failed", f"A text that brings its own start or end has it twice ({named}).")
    if not end and model.precision != "features":
        found = f"There is no end token ({named}), so a finished and a cut-off answer look the same."
        return check("one-start-one-end", "warning", found, "Choose a model whose tokeniser has an end token.")
    return check("one-start-one-end", "ok", f"Each text has one, also a text that brings its own: {named}.")


def _once(ids: list[int], start: list[int], end: list[int]) -> bool:
    """start and end stand where they should, and not a second time beside themselves."""
    inside = ids[len(start) : len(ids) - len(end)]
    framed = ids[: len(start)] == start and ids[len(ids) - len(end) :] == end
    doubled = (start and inside[: len(start)] == start) or (end and inside[len(inside) - len(end) :] == end)
    return framed and not doubled


def _tokens_known(model: Reader) -> Check:
    """That texts hold none of the others is seen as they are read, which ends with a sentence."""
    known = getattr(model, "known", 0) or int(model.model.get_input_embeddings().weight.shape[0])
    numbers = {number for number in model.tokenizer.get_vocab().values() if number != model.tokenizer.pad_token_id}
    if beyond := sum(number >= known for number in numbers):
        found = f"The model has weights for {known:,} tokens, its tokeniser knows {beyond:,} more; no text looked at holds one."
        return check("tokens-known", "warning", found)
    return check("tokens-known", "ok", f"The model has weights for each of the tokeniser's {len(numbers):,} tokens.")


def _same_elsewhere(model: Reader, texts: Sequence[Response], table: TokenTable) -> Check:
    if model.precision == "features":
        return check("same-tokens-elsewhere", "skipped", "A linear head is used through this program only.")
    whole = [row for row in range(len(table)) if table.lengths[row] < model.max_length]
    other = 0
    for row in whole:
        plain = model.tokenizer(rendered(texts[row]), verbose=False)["input_ids"]
        if model.ends.end and plain[len(plain) - len(model.ends.end) :] != model.ends.end:
            plain = plain + model.ends.end
        other += plain != table.text(row).tolist()
    if not whole:
        return check("same-tokens-elsewhere", "skipped", "Every text looked at is longer than max_length.")
    found = f"{other} of {len(whole)} texts get other tokens from a plain call with prompt + blank line + response."
    return check("same-tokens-elsewhere", "warning" if other else "ok", found)


def _length_fits(model: Reader) -> Check:
    positions = positions_of(model.model)
    if positions is None:
        return check("max-length-fits", "ok", f"max_length is {model.max_length:,}; the model sets no limit.")
    found = f"max_length is {model.max_length:,}, the model reads {positions:,} tokens."
    return check("max-length-fits", "failed" if model.max_length > positions else "ok", found)


# ---- its rewards

REWARDS = (
    "rewards-finite",
    "rewards-differ",
    "dropout-off",
    "batch-does-not-matter",
    "padding-does-not-matter",
    "end-is-seen",
)


def _reward_checks(model: Reader, table: TokenTable) -> list[Check]:
    if model.max_length > (positions_of(model.model) or model.max_length):
        return [check(name, "skipped", "max_length is beyond the model, see above.") for name in REWARDS]
    if model.tokenizer.pad_token_id is None and model.precision != "features":
        return [check(name, "skipped", "Without a padding token texts cannot be read together.") for name in REWARDS]
    rows = np.arange(len(table))
    trouble = ""
    try:
        alone = np.concatenate([read(model, table, rows[row : row + 1]) for row in rows])
        if not np.isfinite(alone).all():
            trouble = f"{int((~np.isfinite(alone)).sum())} of {len(rows)} rewards are NaN or infinite."
    except SerError as error:
        trouble = str(error)
    if trouble:
        later = [check(name, "skipped", "Rewards are not finite, see above.") for name in REWARDS[1:]]
        return [check("rewards-finite", "failed", trouble), *later]
    largest = max(float(np.abs(alone).max()), NOISE)
    even = _of_one_length(model, table)  # no padding, so that only the batch can make a difference
    single = np.concatenate([read(model, even, rows[row : row + 1]) for row in rows])
    batch = compared(
        "batch-does-not-matter",
        model.precision,
        np.concatenate([single, single]),
        np.concatenate([read(model, even, rows), read(model, even, rows[::-1])[::-1]]),
        f"Of {len(rows)} rewards, in one batch and in the other order",
    )
    padded = compared(
        "padding-does-not-matter",
        model.precision,
        alone,
        read(model, table, rows),
        f"Of {len(rows)} rewards, beside longer texts",
    )
    return [
        check("rewards-finite", "ok", f"All of {len(rows)} rewards are finite."),
        _differ(alone, largest),
        _repeats(model, table, rows, alone, largest),
        batch,
        padded,
        _end_seen(model, table, alone, largest),
    ]


def _differ(rewards: np.ndarray, largest: float) -> Check:
    if len(rewards) < 2:
        return check("rewards-differ", "skipped", "To this tokeniser all texts looked at are the same.")
    spread = float(np.ptp(rewards))
    found = f"{len(rewards)} different texts have rewards from {rewards.min():.4g} to {rewards.max():.4g}."
    return check("rewards-differ", "ok" if spread > NOISE * largest else "failed", found)


def _repeats(model: Reader, table: TokenTable, rows: np.ndarray, before: np.ndarray, largest: float) -> Check:
    on = [name for name, module in model.model.named_modules() if module.training and getattr(module, "p", 0)]
    again = np.concatenate([read(model, table, rows[row : row + 1]) for row in rows])
    moved = float(np.abs(again - before).max())
    found = f"Rewarded twice, {len(rows)} texts got rewards that differ by {moved:.2g} at most."
    if on:
        found += f" {len(on)} dropout layers are on while scoring, for example {on[0]}."
    return check("dropout-off", "failed" if on or moved > 10 * NOISE * largest else "ok", found)


def _end_seen(model: Reader, table: TokenTable, rewards: np.ndarray, largest: float) -> Check:
    """Each text with another last token, and without its end token, against itself."""
    ordinary = sorted({int(one) for row in range(len(table)) for one in _content(model, table, row)})
    changed: list[np.ndarray] = []
    shortened: list[np.ndarray] = []
    rows = [row for row in range(len(table)) if len(_content(model, table, row)) > 1][-CHANGED:]
    after = len(model.ends.end)
    for row in rows:
        ids = table.text(row).copy()
        place = len(ids) - after - 1
        ids[place] = next((one for one in ordinary if one != ids[place]), ids[place])
        changed.append(ids)
        shortened.append(table.text(row)[: place + 1])
    if not rows or len(ordinary) < 2:
        return check("end-is-seen", "skipped", "The texts looked at have too few words.")
    now = _read_each(model, table, rows, changed)
    blind = int((np.abs(now - rewards[rows]) <= NOISE * largest).sum())
    found = f"With another last token, {len(rows) - blind} of {len(rows)} rewards changed"
    if after and model.precision != "features" and is_decoder(model.model):  # these read the reward off the last token
        now = _read_each(model, table, rows, shortened)
        # without the end token the shapes differ, so in a coarse number format even equal rewards do
        noise = NOISE if model.precision == "float32" else TOLERANCE[model.precision] / SERIOUS
        deaf = int((np.abs(now - rewards[rows]) <= noise * largest).sum())
        found += f"; without the end token, {len(rows) - deaf} of {len(rows)} did"
        blind = max(blind, deaf)
    return check("end-is-seen", "failed" if 2 * blind > len(rows) else "warning" if blind else "ok", found + ".")


def _read_each(model: Reader, table: TokenTable, rows: Sequence[int], texts: Sequence[np.ndarray]) -> np.ndarray:
    """Rewards of `texts`, each by itself, whose responses begin where those of `rows` do."""
    begins = [int(table.begins[row]) for row in rows]
    return np.concatenate([read(model, _table_of([ids], [b]), [0]) for ids, b in zip(texts, begins, strict=True)])
