"""Frozen layers: they do not move, and keeping their output changes neither rewards nor gradients."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from ser_backend.errors import SerError
from ser_backend.records import Response
from ser_backend.transformer import prefix as module
from ser_backend.transformer.classifier import Classifier
from ser_backend.transformer.cores import SideBySide
from ser_backend.transformer.fine_tune import Trained, fine_tune
from ser_backend.transformer.plan import Examples, Recipe
from ser_backend.transformer.prefix import Prefix
from ser_backend.transformer.tokens import TokenTable

# the first ones are short: what goes wrong only beyond an attention window must be noticed all the same
TEXTS = [Response(str(i), "what", "clear " * (i % 3 + 1)) for i in range(9)]
TEXTS += [Response(str(i), "how is it " * (i % 4), tiny.TEXT[i : 30 + 9 * i]) for i in range(9, 24)]
EXAMPLES = Examples.of(np.arange(12), np.arange(12, 24), margin=0.5)
RECIPE = Recipe(learning_rate=1e-2, batch_size=12, frozen_layers=2, epochs=1)
kinds_and_fits = pytest.mark.parametrize(
    ("kind", "fit"),
    [
        *((kind, "full") for kind in (*tiny.ENCODERS, *tiny.DECODERS)),
        *((kind, "lora") for kind in ("bert", "llama", "gpt2")),
    ],
)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return {
        kind: tiny.build(kind, tmp_path_factory.mktemp("base") / kind, hidden=16, layers=4)
        for kind in (*tiny.ENCODERS, *tiny.DECODERS)
    }


def load(folder: str, **named: Any) -> tuple[Classifier, TokenTable]:
    model = Classifier.load(folder, max_length=150, **named)
    return model, model.tokenise(TEXTS)


def run(training: Any) -> Trained:
    try:
        while True:
            next(training)
    except StopIteration as end:
        return end.value


def state(model: Classifier) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.model.state_dict().items()}


def shape(model: Classifier) -> list[tuple[str, int]]:
    """Every module by name, and which object it is."""
    return [(name, id(part)) for name, part in model.model.named_modules()]


def kept_of(model: Classifier, table: TokenTable, k: int) -> tuple[Prefix, dict[int, Any]]:
    prefix = Prefix(model.model, k)
    kept = prefix.kept(table, np.arange(len(table)), lambda rows: model.forward(table, rows), 200, SideBySide("serial"))
    assert kept is not None
    return prefix, kept


@kinds_and_fits
def test_rewards_and_gradients_are_the_same_with_kept_output(kind: str, fit: Any, bases: dict[str, str]) -> None:
    model, table = load(bases[kind], fit=fit, lora_rank=2)
    rows = np.arange(len(table))
    before = shape(model)
    for k in (1, 3):
        prefix, kept = kept_of(model, table, k)
        assert [len(kept[row]) for row in rows] == table.lengths.tolist()
        learns = list(model.trainable().values())
        whole = model.forward(table, rows)
        expected = torch.autograd.grad((whole**2).sum(), learns, allow_unused=True)
        with prefix.replaced_by(kept) as stand:
            stand.show(rows[::-1])  # any order of the same rows
            backwards = model.forward(table, rows[::-1])
            stand.show(rows)
            short = model.forward(table, rows)
            found = torch.autograd.grad((short**2).sum(), learns, allow_unused=True)
        assert short.tolist() == pytest.approx(whole.tolist(), abs=2e-5)
        assert backwards.tolist()[::-1] == pytest.approx(whole.tolist(), abs=2e-5)
        largest = max(float(g.abs().max()) for g in expected if g is not None)
        for one, other in zip(expected, found, strict=True):
            assert (one is None) == (other is None)
            if one is not None and other is not None:
                assert float((one - other).abs().max()) < 1e-4 * largest
        assert shape(model) == before
        assert torch.equal(model.forward(table, rows), whole)


@kinds_and_fits
def test_frozen_layers_do_not_move_and_the_others_do(kind: str, fit: Any, bases: dict[str, str]) -> None:
    model, table = load(bases[kind], fit=fit, lora_rank=2)
    before, shape_before = state(model), shape(model)
    told = run(fine_tune(model, table, EXAMPLES, RECIPE))
    assert told.total > 0
    assert not told.notes, told.notes  # the short way was taken
    after = state(model)
    assert shape(model) == shape_before
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    layers = {int(part) for name in moved for part in name.split(".") if part.isdigit()}
    assert layers == {2, 3}
    assert not [name for name in moved if "embed" in name or "wte" in name or "wpe" in name]
    assert any("score" in name or "classifier" in name for name in moved)


def test_training_is_the_same_whether_the_output_is_kept_or_not(
    bases: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("bert", "modernbert", "qwen2", "gpt2"):
        short = load(bases[kind])
        run(fine_tune(*short, EXAMPLES, RECIPE))
        with monkeypatch.context() as patch:
            patch.setattr(module, "MOST_BYTES", 10)
            whole = load(bases[kind])
            told = run(fine_tune(*whole, EXAMPLES, RECIPE))
        assert any("too large to keep" in note for note in told.notes)
        for (name, one), (_, other) in zip(short[0].trainable().items(), whole[0].trainable().items(), strict=True):
            # the first steps of Adam follow the sign of a gradient, however small it is
            assert (one - other).abs().mean().item() < 1e-3, name


def test_a_model_whose_layers_differ_by_place_is_never_shortened_wrongly(tmp_path: Path) -> None:
    """Some models choose each layer's attention by its number in the list, which shortening changes.

    Texts inside the window do not show it, and the first texts here are short.
    """
    import json

    folder = Path(tiny.build("qwen2", tmp_path, hidden=16, layers=4))
    config = json.loads((folder / "config.json").read_text())
    window, full = "sliding_attention", "full_attention"
    config |= {"use_sliding_window": True, "sliding_window": 6, "layer_types": [full, window, window, full]}
    (folder / "config.json").write_text(json.dumps(config))

    def trained(frozen: int, steps: int) -> tuple[list[float], Trained]:
        model, table = load(str(folder))
        told = run(fine_tune(model, table, EXAMPLES, replace(RECIPE, frozen_layers=frozen), steps=steps))
        return model.forward(table, range(len(table))).tolist(), told

    for frozen in (1, 2, 3):
        model, table = load(str(folder))
        with torch.no_grad():
            start = model.forward(table, range(len(table)))
        _, told = trained(frozen, 1)
        pairs = start[:12] - start[12:] - 0.5
        centring = RECIPE.centring * (start[:12] + start[12:]) ** 2
        expected = float((torch.nn.functional.softplus(-pairs) + centring).mean())
        assert told.curve[0].n_pairs == 12
        assert told.curve[0].loss == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("kind", "fit"), [("llama", "lora"), ("llama", "full"), ("bert", "lora"), ("gpt2", "lora")])
def test_coarse_numbers_are_kept_as_they_are(kind: str, fit: Any, bases: dict[str, str]) -> None:
    model, table = load(bases[kind], fit=fit, lora_rank=2, precision="bfloat16")
    told = run(fine_tune(model, table, EXAMPLES, RECIPE, steps=1))
    assert not told.notes, told.notes


def test_dropout_in_training_leaves_out_the_kept_output(bases: dict[str, str]) -> None:
    model, table = load(bases["bert"])
    before = shape(model)
    run(fine_tune(model, table, EXAMPLES, replace(RECIPE, dropout=0.1), steps=2))
    assert shape(model) == before


def test_a_model_is_whole_again_after_trouble(bases: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    model, table = load(bases["gpt2"])
    before = shape(model)
    with torch.no_grad():
        rewards = model.forward(table, range(8))

    def whole() -> bool:
        with torch.no_grad():
            return shape(model) == before and torch.equal(model.forward(table, range(8)), rewards)

    training = fine_tune(model, table, EXAMPLES, RECIPE)
    next(training)
    assert shape(model) != before
    training.close()
    assert whole()

    prefix = Prefix(model.model, 1)
    with pytest.raises(ZeroDivisionError):
        prefix.kept(table, np.arange(8), lambda _: 1 / 0, 100, SideBySide("serial"))
    assert whole()
    with monkeypatch.context() as patch:
        patch.setattr(Prefix, "replaced_by", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            next(fine_tune(model, table, EXAMPLES, RECIPE))
    assert whole()
    with torch.no_grad():
        model.model.score.weight.fill_(float("nan"))
    with pytest.raises(SerError, match="not finite"):
        run(fine_tune(model, table, EXAMPLES, RECIPE))
    assert shape(model) == before


@pytest.mark.parametrize("k", [4, 5, 100])
def test_a_model_with_no_layer_left_to_learn_is_said(k: int, bases: dict[str, str]) -> None:
    for kind in ("bert", "llama"):
        model, table = load(bases[kind])
        with pytest.raises(SerError, match=rf"frozen_layers is {k}, but the model has 4 layers.*from 0 to 3"):
            run(fine_tune(model, table, EXAMPLES, replace(RECIPE, frozen_layers=k)))
        assert all(parameter.requires_grad for parameter in model.model.parameters())


def test_an_architecture_that_is_not_known_is_said(tmp_path: Path) -> None:
    import transformers as t

    config = t.FNetConfig(vocab_size=400, hidden_size=16, num_hidden_layers=2, intermediate_size=16, num_labels=1)
    t.AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    tiny.tokeniser("bert").save_pretrained(tmp_path)
    model = Classifier.load(str(tmp_path), max_length=40)
    model.model.fnet.encoder.blocks = model.model.fnet.encoder._modules.pop("layer")
    with pytest.raises(SerError, match=r"layers of a FNetModel are not known.*frozen_layers=0"):
        run(fine_tune(model, model.tokenise(TEXTS), EXAMPLES, RECIPE))
