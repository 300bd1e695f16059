"""A prompt read once for many responses: the same rewards and gradients, for models that can, and only where it pays."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_backend.records import Response
from ser_backend.transformer import fine_tune as tuning
from ser_backend.transformer import shared_prompt as module
from ser_backend.transformer.classifier import Classifier
from ser_backend.transformer.fine_tune import Trained, fine_tune
from ser_backend.transformer.heads import head_of
from ser_backend.transformer.plan import Examples, Recipe
from ser_backend.transformer.shared_prompt import Batch, Bundle, plan
from ser_backend.transformer.tokens import TokenTable

CHANCE = random.Random(0)
POSITIONS = 300


def words(n: int) -> str:
    return " ".join(CHANCE.choice(tiny.GOOD + tiny.PLAIN + tiny.BAD) for _ in range(n))


LONG = [words(25), words(40)]
GROUPS = [
    *(Response("", LONG[0], words(1 + i % 6)) for i in range(16)),  # a group of 16
    *(Response("", LONG[1], text) for text in ("\nclear", "s", "", "  vague", "\n\nmess", "Naïve")),  # at the seam
    *(Response("", LONG[1][:-9] + words(2), words(4)) for _ in range(3)),  # nearly the same prompt
    Response("", LONG[0], words(3)),
]
APART = [Response("", words(12), words(5)) for _ in range(8)] + [Response("", "", ""), Response("", "", "warm")]
# cut on their left, by a different number of tokens each; and one whose response is too long by itself
CUT = [Response("", words(250), words(20 + 3 * i)) for i in (1, 1, 2)] + [Response("", LONG[0], words(300))]
CUT += [Response("", LONG[0] * 9, text) for text in ("care", "rude", "the lazy guess")]
TEXTS = [*GROUPS, *APART, *CUT, GROUPS[0]]
decoders = pytest.mark.parametrize("kind", tiny.DECODERS)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def judges(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """By kind: a reward model."""
    made = {}
    for kind in (*tiny.DECODERS, "bert"):
        folder = tmp_path_factory.mktemp("judge") / kind
        made[kind] = tiny.build(kind, folder, head=True, hidden=16, positions=POSITIONS)
    return made


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> list[Bundle]:
    """The rows that were read with a prompt shared."""
    seen: list[Bundle] = []
    plain = module.rewards

    def rewards(model: Any, table: TokenTable, bundles: Any, *rest: Any) -> Any:
        seen.extend(bundles)
        return plain(model, table, bundles, *rest)

    monkeypatch.setattr(module, "rewards", rewards)
    return seen


def apart(model: Classifier, table: TokenTable) -> np.ndarray:
    with torch.no_grad():
        return np.array([model.forward(table, [row]).item() for row in range(len(table))], np.float32)


def rewards(model: Classifier, table: TokenTable, rows: Any = None) -> np.ndarray:
    found = np.full(len(table), np.nan, np.float32)
    for some, part in model.rewards(table, rows):
        assert np.isnan(found[some]).all()  # every row once
        found[some] = part
    return found


def run(training: Any) -> Trained:
    try:
        while True:
            next(training)
    except StopIteration as end:
        return end.value


# ---- scoring


@decoders
def test_rewards_are_those_of_the_texts_read_apart(kind: str, judges: dict[str, str], shared: list[Bundle]) -> None:
    model = Classifier.open(Path(judges[kind]))
    assert model.longest_row == POSITIONS
    table = model.tokenise(TEXTS)
    assert table.cuts.prompts >= 6
    assert table.cuts.responses == 1
    expected = apart(model, table)
    assert np.ptp(expected) > 0.1  # or the comparison would say nothing
    threads = torch.get_num_threads()
    for budget, n in ((1_024, 1), (100, 1), (150, 2), (100_000, 2)):
        model.budget = budget
        torch.set_num_threads(n)
        shared.clear()
        try:
            assert rewards(model, table) == pytest.approx(expected, abs=1e-5)
        finally:
            torch.set_num_threads(threads)
        assert sum(len(bundle.texts) for bundle in shared) >= 16
        assert all(bundle.tokens <= POSITIONS for bundle in shared)


@decoders
def test_a_group_of_sixteen_reads_its_prompt_once(kind: str, judges: dict[str, str], shared: list[Bundle]) -> None:
    model = Classifier.open(Path(judges[kind]))
    table = model.tokenise([Response("", LONG[0], f"{word} it") for word in tiny.GOOD + tiny.BAD[:6]])
    assert rewards(model, table) == pytest.approx(apart(model, table), abs=1e-5)
    (row,) = shared
    assert len(row.texts) == 16
    assert row.shared >= int(table.begins.min()) - 1
    assert row.tokens == table.lengths.sum() - 15 * row.shared


@decoders
def test_texts_that_share_no_prompt_are_read_as_ever(kind: str, judges: dict[str, str], shared: list[Bundle]) -> None:
    model = Classifier.open(Path(judges[kind]))
    table = model.tokenise(APART)
    assert rewards(model, table) == pytest.approx(apart(model, table), abs=1e-5)
    assert not shared
    assert next(iter(model.rewards(table, [3])))[0].tolist() == [3]


def test_rows_given_twice_and_in_any_order(judges: dict[str, str], shared: list[Bundle]) -> None:
    model = Classifier.open(Path(judges["llama"]))
    table = model.tokenise(TEXTS)
    expected = apart(model, table)
    found: list[tuple[int, float]] = []
    rows = [5, 3, 3, 0, 40, 3]
    for some, part in model.rewards(table, rows):
        found += zip(some.tolist(), part.tolist(), strict=True)
    assert sorted(row for row, _ in found) == sorted(rows)
    assert [reward for _, reward in found] == pytest.approx([expected[row] for row, _ in found], abs=1e-5)
    assert shared


@pytest.mark.parametrize("fit", ["full", "lora"])
def test_coarse_bodies_share_too(fit: Any, judges: dict[str, str], shared: list[Bundle]) -> None:
    model = Classifier.load(judges["qwen2"], fit=fit, precision="bfloat16", max_length=POSITIONS)
    table = model.tokenise(GROUPS)
    assert rewards(model, table) == pytest.approx(apart(model, table), abs=0.1)
    assert shared


def test_a_row_that_does_not_fit_in_memory_is_read_text_by_text(
    judges: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Classifier.open(Path(judges["gpt2"]))
    table = model.tokenise(GROUPS)
    tried = []

    def full(*_: Any) -> Any:
        tried.append(1)
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(module, "rewards", full)
    expected = apart(model, table)
    before = model.budget
    assert rewards(model, table) == pytest.approx(expected, abs=1e-5)
    assert tried
    assert model.budget < before


# ---- training

RECIPE = Recipe(learning_rate=3e-3, smoothing=0.1, centring=0.05, batch_size=16, weight_decay=0.01, warmup=0.3)


def pairs() -> Examples:
    """Among the responses of a group, between groups, and with texts that share nothing."""
    chance = np.random.default_rng(0)
    ends = [chance.choice(16, 2, replace=False) for _ in range(12)]
    ends += [16 + chance.choice(6, 2, replace=False) for _ in range(6)] + [np.array([26, 27]), np.array([0, 30])]
    n = len(ends)
    first, second = np.array(ends).T
    return Examples.of(first, second, chance.uniform(0.2, 3, n), chance.uniform(0.6, 1, n), chance.uniform(0, 2, n))


def gradients(model: Classifier, table: TokenTable) -> tuple[float, dict[str, np.ndarray]]:
    """Loss and gradients of one step, as the optimiser would have them before clipping."""
    caught: dict[str, np.ndarray] = {}

    def catch(parameters: Any, *_: Any) -> torch.Tensor:
        caught.update({n: p.grad.clone().numpy() for n, p in model.trainable().items() if p.grad is not None})
        for parameter in parameters:
            parameter.grad = None  # so that the step changes nothing
        return torch.tensor(0.0)

    examples = pairs()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.utils, "clip_grad_norm_", catch)
        told = run(fine_tune(model, table, examples, RECIPE, steps=[np.arange(len(examples))]))
    return told.curve[0].loss, caught


@pytest.mark.parametrize(("kind", "fit"), [*((k, "full") for k in tiny.DECODERS), ("qwen2", "lora"), ("gpt2", "lora")])
def test_gradients_are_those_of_the_texts_read_apart(
    kind: str, fit: Any, judges: dict[str, str], shared: list[Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Classifier.load(judges[kind], fit=fit, lora_rank=2, max_length=POSITIONS)
    if fit == "lora":  # adapters begin at zero, where half of the gradients are
        with torch.no_grad():
            for name, parameter in model.trainable().items():
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))) * 0.1)
    table = model.tokenise(TEXTS)
    row = model.longest_row
    model._longest_row = 0
    loss, expected = gradients(model, table)
    assert not shared
    model._longest_row = row
    largest = max(float(np.abs(g).max()) for g in expected.values())
    for forward, graph in ((512, 8_192), (512, 60), (100, 200)):  # whole, read twice, and in small pieces
        monkeypatch.setitem(tuning.FORWARD_TOKENS, "cpu", forward)
        monkeypatch.setitem(tuning.GRAPH_TOKENS, "cpu", graph)
        shared.clear()
        found_loss, found = gradients(model, table)
        assert shared
        assert all(bundle.tokens <= graph for bundle in shared)
        assert found_loss == pytest.approx(loss, rel=1e-5)
        assert found.keys() == expected.keys()
        for name, gradient in expected.items():
            assert np.allclose(found[name], gradient, rtol=1e-3, atol=1e-5 * largest), name


@pytest.mark.parametrize(("kind", "fit"), [("qwen2", "full"), ("gpt2", "lora")])
def test_a_stopped_training_goes_on_to_the_bit(
    kind: str, fit: Any, judges: dict[str, str], shared: list[Bundle], tmp_path: Path
) -> None:
    def parts() -> tuple[Classifier, TokenTable, Examples, Recipe]:
        model = Classifier.load(judges[kind], fit=fit, lora_rank=2, max_length=POSITIONS)
        return model, model.tokenise(TEXTS), pairs(), replace(RECIPE, batch_size=4)

    def weights(model: Classifier) -> dict[str, bytes]:
        return {name: value.numpy().tobytes() for name, value in model.model.state_dict().items()}

    whole = parts()
    told = run(fine_tune(*whole))
    assert told.total > 4
    assert shared
    training = fine_tune(*parts(), checkpoint=tmp_path)
    for _ in range(4):
        next(training)
    training.close()
    again = parts()
    training = fine_tune(*again, checkpoint=tmp_path)
    assert next(training).done == 3
    finished = run(training)
    assert [step._replace(seconds=0) for step in finished.curve] == [step._replace(seconds=0) for step in told.curve]
    assert weights(again[0]) == weights(whole[0])


@pytest.mark.parametrize("recipe", [replace(RECIPE, dropout=0.1), replace(RECIPE, frozen_layers=1)])
def test_dropout_and_frozen_layers_read_text_by_text(
    recipe: Recipe, judges: dict[str, str], shared: list[Bundle]
) -> None:
    model = Classifier.load(judges["llama"], max_length=POSITIONS)
    table = model.tokenise(TEXTS)
    told = run(fine_tune(model, table, pairs(), recipe, steps=2))
    assert told.done == 2
    assert not shared
    assert rewards(model, table) == pytest.approx(apart(model, table), abs=1e-5)
    assert shared  # scoring does as ever


def test_out_of_memory_ends_with_rows_no_longer_than_a_text(
    judges: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Classifier.load(judges["qwen2"], max_length=80)
    table = model.tokenise(TEXTS)
    loss, expected = gradients(model, table)
    plain, tried = model.read, []

    def read(some: TokenTable, batch: Batch) -> Any:
        tried.append(batch.size)
        if torch.is_grad_enabled() and batch.size > 80:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(some, batch)

    monkeypatch.setattr(model, "read", read)
    found_loss, found = gradients(model, table)
    assert max(tried) > 80
    assert found_loss == pytest.approx(loss, rel=1e-5)
    largest = max(float(np.abs(g).max()) for g in expected.values())
    for name, gradient in expected.items():
        assert np.allclose(found[name], gradient, rtol=1e-3, atol=1e-5 * largest), name


# ---- which models can


def _without(name: str) -> Callable[[Classifier], None]:
    """A body that takes an argument and makes nothing of it."""

    def change(model: Classifier) -> None:
        body = getattr(model.model, model.model.base_model_prefix)
        plain = body.forward

        def forward(*given: Any, **named: Any) -> Any:
            if getattr(named.get("attention_mask"), "ndim", 0) == 4:
                named[name] = None
            return plain(*given, **named)

        body.forward = forward

    return change


def _refuses(model: Classifier) -> None:
    body = getattr(model.model, model.model.base_model_prefix)
    plain = body.forward

    def forward(input_ids: Any, attention_mask: Any = None, **named: Any) -> Any:
        if "position_ids" in named and named["position_ids"] is not None:
            raise TypeError("unexpected keyword argument 'position_ids'")
        return plain(input_ids, attention_mask=attention_mask, **named)

    body.forward = forward


def _narrow(model: Classifier) -> None:
    model.model.config.sliding_window = 16


def _eager(model: Classifier) -> None:
    model.model.set_attn_implementation("eager")


def _damaged(model: Classifier) -> None:
    plain = model.forward
    model.forward = lambda table, rows: plain(table, rows) + 0.01  # type: ignore[method-assign]


UNABLE = {
    "no positions": _without("position_ids"),
    "no mask": _without("attention_mask"),
    "an error": _refuses,
    "a narrow window": _narrow,
    "attention written down": _eager,
    "rewards that are something else": _damaged,
}


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("trouble", UNABLE)
def test_a_model_that_cannot_reads_text_by_text(
    trouble: str, kind: str, judges: dict[str, str], shared: list[Bundle]
) -> None:
    model = Classifier.open(Path(judges[kind]))
    UNABLE[trouble](model)
    table = model.tokenise(GROUPS)
    expected = apart(model, table)
    assert model.longest_row == 0
    assert rewards(model, table) == pytest.approx(expected, abs=1e-5)
    run(fine_tune(model, table, Examples.of([0, 1], [2, 3]), RECIPE, steps=1))
    assert not shared


def test_encoders_are_not_asked(judges: dict[str, str], shared: list[Bundle]) -> None:
    model = Classifier.open(Path(judges["bert"]))
    table = model.tokenise(GROUPS)
    assert rewards(model, table) == pytest.approx(apart(model, table), abs=1e-5)
    assert model.longest_row == 0
    assert not shared


def test_a_head_that_says_nothing_hides_nothing(judges: dict[str, str]) -> None:
    """Hidden states are compared: with a head of zeros all rewards agree, whatever is done to mask and positions."""
    for trouble in ("no positions", "no mask", None):
        model = Classifier.open(Path(judges["qwen2"]))
        head_of(model.model).weight.data.zero_()
        if trouble:
            UNABLE[trouble](model)
        assert bool(model.longest_row) == (trouble is None)


def test_what_cannot_be_told_is_not_believed(judges: dict[str, str]) -> None:
    """Attention that adds nothing: right and wrong rows look alike now, and will not when it has learnt."""
    model = Classifier.open(Path(judges["llama"]))
    with torch.no_grad():
        for layer in model.model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
    assert model.longest_row == 0


@pytest.mark.parametrize(("window", "row"), [(16, 0), (64, 64), (None, POSITIONS)])
def test_no_row_is_longer_than_what_a_layer_sees(
    window: int | None, row: int, tmp_path: Path, shared: list[Bundle]
) -> None:
    import transformers as t

    tokenizer = tiny.tokeniser("qwen2")
    torch.manual_seed(0)
    config = t.MistralConfig(
        vocab_size=len(tokenizer), num_labels=1, initializer_range=0.2, hidden_size=16, intermediate_size=32,
        num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=POSITIONS,
        sliding_window=window, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    t.AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model = Classifier.open(tmp_path)
    assert model.longest_row == row
    table = model.tokenise([*TEXTS, *(Response("", "how is it", word) for word in tiny.GOOD)])
    assert rewards(model, table) == pytest.approx(apart(model, table), abs=1e-5)
    assert bool(shared) == bool(row)
    assert all(bundle.tokens <= row for bundle in shared)


# ---- plans

TABLES = st.lists(
    st.tuples(st.integers(0, 3), st.lists(st.integers(1, 2), max_size=6)).map(lambda t: [9] * t[0] * 4 + t[1]),
    min_size=1,
    max_size=30,
)


def table_of(texts: list[list[int]]) -> TokenTable:
    filled = [text or [0] for text in texts]
    starts = np.concatenate([[0], np.cumsum([len(text) for text in filled])])
    return TokenTable(np.concatenate(filled).astype(np.int32), starts, np.zeros(len(texts), np.int32))


@settings(deadline=None, max_examples=150)
@given(texts=TABLES, budget=st.integers(1, 80), most=st.integers(0, 60))
def test_a_plan_has_every_text_once_and_shares_only_what_is_the_same(
    texts: list[list[int]], budget: int, most: int
) -> None:
    table = table_of(texts)
    found = plan(table, range(len(table)), budget, most)
    assert sorted(row for batch in found for row in batch.texts.tolist()) == list(range(len(table)))
    assert [batch.size for batch in found] == sorted((batch.size for batch in found), reverse=True) or not any(
        batch.bundles for batch in found
    )
    for batch in found:
        if not batch.bundles:
            lengths = table.lengths[batch.texts]
            assert (batch.tokens, batch.size) == (lengths.sum(), len(lengths) * lengths.max())
            assert batch.size <= budget or len(lengths) == 1
            continue
        assert np.concatenate([bundle.texts for bundle in batch.bundles]).tolist() == batch.texts.tolist()
        assert batch.tokens == sum(bundle.tokens for bundle in batch.bundles)
        assert batch.size == len(batch.bundles) * max(bundle.tokens for bundle in batch.bundles)
        assert batch.size <= budget or len(batch.bundles) == 1
        for bundle in batch.bundles:
            own = [table.text(row).tolist() for row in bundle.texts]
            assert len({tuple(text[: bundle.shared]) for text in own}) == 1
            assert all(len(text) > bundle.shared for text in own)
            assert bundle.tokens == bundle.shared + sum(len(text) - bundle.shared for text in own) <= most
            assert bundle.tokens < module.WORTH * sum(map(len, own))


def test_the_longest_overlap_decides_who_reads_with_whom() -> None:
    first, second = [1, *range(10, 60)], [1, *range(60, 160)]
    texts = [first + [200 + i] for i in range(5)] + [second + [300 + i, i] for i in range(4)] + [[1, 7], [2]]
    order = np.random.default_rng(0).permutation(len(texts))
    (batch,) = [b for b in plan(table_of([texts[i] for i in order]), range(len(texts)), 4_000, 1_000) if b.bundles]
    assert {bundle.shared: sorted(order[bundle.texts].tolist()) for bundle in batch.bundles} == {
        51: [0, 1, 2, 3, 4],
        101: [5, 6, 7, 8],
    }


def test_a_prompt_that_is_a_little_different_in_some_is_still_read_once() -> None:
    """As when a response begins with a line break that melts into the blank line before it."""
    prompt = list(range(10, 110))
    texts = [prompt + [1, 50 + i] for i in range(5)] + [prompt + [2, 60 + i] for i in range(3)]
    (batch,) = plan(table_of(texts), range(8), 1_000, 1_000)
    (bundle,) = batch.bundles
    assert (len(bundle.texts), bundle.shared) == (8, 100)


def test_a_group_too_large_for_a_row_fills_several() -> None:
    texts = [[*range(100)] + [100 + i] * 40 for i in range(30)]
    found = plan(table_of(texts), range(30), 800, 400)
    assert [len(batch.bundles) for batch in found] == [2, 2, 1]
    assert [batch.tokens for batch in found] == [760, 760, 180]


def test_texts_of_one_row_share_all_they_have_in_common() -> None:
    """Two questions behind one long introduction: a row that holds one question's texts alone reads that once, too."""
    texts = [[*range(600)] + [700 + question] * 20 + [800 + i] * 70 for question in range(2) for i in range(6)]
    found = plan(table_of(texts), range(12), 1_200, 1_200)
    assert [[bundle.shared for bundle in batch.bundles] for batch in found] == [[620], [620]]


def test_a_long_prompt_has_room_for_as_much_again() -> None:
    texts = [[*range(900)] + [1_000 + i] * 60 for i in range(16)]
    found = plan(table_of(texts), range(16), 1_024, 8_192)
    assert [(len(batch.texts), batch.tokens) for batch in found] == [(15, 1_800), (1, 960)]
