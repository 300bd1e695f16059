"""Fine-tuning: the gradient of the stated loss however a step is cut, every pair once an epoch, and to the bit after a stop."""

import copy
import errno
import json
import os
import random
import subprocess
import sys
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

from ser_backend import home
from ser_backend.errors import SerError
from ser_backend.records import Response
from ser_backend.transformer import fine_tune as module
from ser_backend.transformer.classifier import Classifier
from ser_backend.transformer.fine_tune import Trained, fine_tune
from ser_backend.transformer.heads import head_of
from ser_backend.transformer.plan import Examples, Recipe, plan_steps, schedule
from ser_backend.transformer.tokens import TokenTable

CHANCE = random.Random(0)
TEXTS = [
    Response(str(i), f"what {i % 7} is", " ".join(CHANCE.choice(tiny.GOOD + tiny.BAD) for _ in range(3 + i % 11)))
    for i in range(40)
]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return {kind: tiny.build(kind, tmp_path_factory.mktemp("base") / kind, hidden=16) for kind in tiny.KINDS}


def example_pairs(shared: bool = True, n: int = 20) -> Examples:
    """shared: some texts are in many pairs; else every text in one."""
    chance = np.random.default_rng(0)
    if shared:
        ends = np.array([chance.choice(12, 2, replace=False) for _ in range(n)])
    else:
        ends = chance.permutation(40)[: 2 * n].reshape(n, 2)
    return Examples.of(
        ends[:, 0], ends[:, 1], chance.uniform(0.2, 3, n), chance.uniform(0.6, 1, n), chance.uniform(0, 2, n)
    )


def stated_loss(model: Any, table: TokenTable, examples: Examples, recipe: Recipe, pairs: np.ndarray) -> Any:
    """The docstring of fine_tune, word by word, in float64 and one forward a text."""
    weight = examples.weight / examples.weight.mean()
    total: Any = 0.0
    for pair in pairs.tolist():
        preferred, other = (
            model(input_ids=torch.from_numpy(table.text(end[pair])[None].astype(np.int64))).logits[0, 0]
            for end in (examples.preferred, examples.other)
        )
        t = min(float(examples.target[pair]), 1 - recipe.smoothing)
        x = preferred - other - float(examples.margin[pair])
        loss = -t * torch.log(torch.sigmoid(x)) - (1 - t) * torch.log(torch.sigmoid(-x))
        total = total + float(weight[pair]) * loss + recipe.centring * (preferred + other) ** 2
    return total / len(pairs)


def gradients_of_step(
    model: Classifier, table: TokenTable, examples: Examples, recipe: Recipe, pairs: np.ndarray
) -> tuple[float, dict[str, np.ndarray]]:
    """Loss and gradients of the first step, as the optimiser would have them before clipping."""
    caught: dict[str, np.ndarray] = {}

    def catch(parameters: Any, *_: Any) -> torch.Tensor:
        caught.update({n: p.grad.clone().numpy() for n, p in model.trainable().items() if p.grad is not None})
        for parameter in parameters:
            parameter.grad = None  # so that the step changes nothing
        return torch.tensor(0.0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.utils, "clip_grad_norm_", catch)
        told = run(fine_tune(model, table, examples, recipe, steps=[pairs]))
    return told.curve[0].loss, caught


def run(training: Any) -> Trained:
    try:
        while True:
            next(training)
    except StopIteration as end:
        return end.value


RECIPE = Recipe(smoothing=0.15, centring=0.05, weight_decay=0.0, batch_size=20)


@pytest.mark.parametrize(("kind", "shared"), [*((kind, True) for kind in tiny.KINDS), ("bert", False), ("gpt2", False)])
def test_the_gradient_is_that_of_the_stated_loss(kind: str, shared: bool, bases: dict[str, str]) -> None:
    model = Classifier.load(bases[kind], max_length=40)
    examples = example_pairs(shared, 12)
    table = model.tokenise(TEXTS)
    pairs = np.arange(len(examples))
    loss, found = gradients_of_step(model, table, examples, RECIPE, pairs)
    exactly = copy.deepcopy(model.model).double()
    head_of(exactly).__dict__.pop("forward")  # which computes in float32
    named = dict(exactly.named_parameters())
    expected = stated_loss(exactly, table, examples, RECIPE, pairs)
    exact = torch.autograd.grad(expected, list(named.values()), allow_unused=True)
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    largest = max(float(g.abs().max()) for g in exact if g is not None)
    for (name, _), gradient in zip(named.items(), exact, strict=True):
        if gradient is None:
            assert name not in found or not found[name].any()
        else:
            assert np.allclose(found[name], gradient.numpy(), rtol=1e-3, atol=1e-5 * largest), name


@pytest.mark.parametrize("fit", ["full", "lora"])
@pytest.mark.parametrize("shared", [True, False])
def test_a_step_cut_to_fit_has_the_same_gradient(
    fit: Any, shared: bool, bases: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Classifier.load(bases["qwen2"], fit=fit, lora_rank=2, max_length=40)
    if fit == "lora":  # adapters begin at zero, where half of the gradients are
        with torch.no_grad():
            for name, parameter in model.trainable().items():
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))) * 0.1)
    examples, table = example_pairs(shared), model.tokenise(TEXTS)
    pairs = np.arange(len(examples))
    threads = torch.get_num_threads()
    _, expected = gradients_of_step(model, table, examples, RECIPE, pairs)
    largest = max(float(np.abs(g).max()) for g in expected.values())
    for forward, graph, workers in ((1, 1, 1), (60, 90, 2), (60, 10_000, 1), (10_000, 10_000, 2)):
        monkeypatch.setitem(module.FORWARD_TOKENS, "cpu", forward)
        monkeypatch.setitem(module.GRAPH_TOKENS, "cpu", graph)
        torch.set_num_threads(workers)
        try:
            _, found = gradients_of_step(model, table, examples, RECIPE, pairs)
            assert torch.get_num_threads() == workers
        finally:
            torch.set_num_threads(threads)
        assert found.keys() == expected.keys()
        for name, gradient in expected.items():
            assert np.allclose(found[name], gradient, rtol=1e-3, atol=1e-5 * largest), (name, forward, graph)


def test_weights_count_in_proportion_and_their_size_does_not(bases: dict[str, str]) -> None:
    model = Classifier.load(bases["bert"])
    table, pairs = model.tokenise(TEXTS), np.arange(6)
    ends = example_pairs(False, 6)
    one, same = (
        gradients_of_step(model, table, Examples.of(ends.preferred, ends.other, w), RECIPE, pairs)[0]
        for w in (1.0, 7.0)
    )
    twice = Examples.of(ends.preferred, ends.other, [2, 1, 1, 1, 1, 1])
    doubled = Examples.of(ends.preferred[[0, *pairs]], ends.other[[0, *pairs]])
    first = gradients_of_step(model, table, twice, replace(RECIPE, centring=0), pairs)[0]
    second = gradients_of_step(model, table, doubled, replace(RECIPE, centring=0), np.arange(7))[0]
    assert one == pytest.approx(same, rel=1e-6)
    assert first == pytest.approx(second, rel=1e-6)


@pytest.mark.parametrize("frozen", [0, 1])
def test_each_distinct_text_is_read_once_a_step(
    frozen: int, bases: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Classifier.load(bases["bert"], max_length=40)
    read: list[int] = []
    plain = model.forward

    def forward(table: TokenTable, rows: Any) -> Any:
        read.extend(int(row) for row in rows)
        return plain(table, rows)

    table, examples = model.tokenise(TEXTS), example_pairs()
    recipe = replace(RECIPE, epochs=1, batch_size=4, frozen_layers=frozen)
    plan = plan_steps(examples, recipe)
    training = fine_tune(model, table, examples, recipe, steps=plan)
    next(training)
    monkeypatch.setattr(model, "forward", forward)
    for number, told in enumerate(training):
        distinct = np.unique([examples.preferred[plan[number]], examples.other[plan[number]]])
        assert sorted(read) == distinct.tolist()
        assert told.curve[-1].n_texts == len(distinct)
        assert told.curve[-1].n_pairs == len(plan[number])
        read.clear()


# ---- plans

ENDS = st.lists(
    st.tuples(st.integers(0, 25), st.integers(0, 25)).filter(lambda p: p[0] != p[1]), min_size=1, max_size=60
)


def of(ends: list[tuple[int, int]]) -> Examples:
    return Examples.of([a for a, _ in ends], [b for _, b in ends])


def texts(examples: Examples, pairs: np.ndarray) -> set[int]:
    return {*examples.preferred[pairs].tolist(), *examples.other[pairs].tolist()}


@settings(deadline=None, max_examples=80)
@given(ends=ENDS, batch_size=st.integers(1, 9), seed=st.integers(0, 3))
def test_a_plan_has_every_pair_once_an_epoch_and_few_texts_a_step(
    ends: list[tuple[int, int]], batch_size: int, seed: int
) -> None:
    examples = of(ends)
    recipe = Recipe(batch_size=batch_size, epochs=2, random_seed=seed)
    one, two = plan_steps(examples, replace(recipe, epochs=1)), plan_steps(examples, recipe)
    assert sorted(np.concatenate(one).tolist()) == list(range(len(ends)))
    assert sorted(np.concatenate(two).tolist()) == sorted([*range(len(ends))] * 2)
    assert [step.tolist() for step in two[: len(one)]] == [step.tolist() for step in one]
    assert all(len(step) and len(texts(examples, step)) <= 2 * batch_size for step in two)
    again = plan_steps(examples, recipe)
    assert [step.tolist() for step in again] == [step.tolist() for step in two]

    # sets of pairs that share texts stay whole where they fit
    where = {pair: number for number, step in enumerate(one) for pair in step.tolist()}
    sets: list[set[int]] = []
    for pair in range(len(ends)):
        joined = [s for s in sets if texts(examples, np.array([*s])) & texts(examples, np.array([pair]))]
        sets = [s for s in sets if s not in joined] + [set().union({pair}, *joined)]
    for one_set in sets:
        if len(texts(examples, np.array([*one_set]))) <= 2 * batch_size:
            assert len({where[pair] for pair in one_set}) == 1

    n = len(one) + 2
    cycled = plan_steps(examples, recipe, n)
    assert len(cycled) == n
    assert [step.tolist() for step in cycled[: len(one)]] == [step.tolist() for step in one]


def test_groups_of_responses_to_one_prompt_fill_a_step() -> None:
    """Sixteen texts in groups of four have 24 pairs, which are one step of batch size 8, not two or three."""
    ends = [(4 * g + i, 4 * g + j) for g in range(8) for i in range(4) for j in range(i)]
    plan = plan_steps(of(ends), Recipe(batch_size=8, epochs=1))
    assert [len(step) for step in plan] == [24, 24]


def test_part_of_an_epoch() -> None:
    ends = example_pairs(False)
    whole = plan_steps(ends, Recipe(batch_size=2, epochs=1))
    for epochs, expected in ((0.5, 5), (1.3, 13), (0.01, 1), (2.0, 20)):
        plan = plan_steps(ends, Recipe(batch_size=2, epochs=epochs))
        assert len(plan) == expected
        n = min(10, expected)
        assert [step.tolist() for step in plan[:n]] == [step.tolist() for step in whole[:n]]
    other = plan_steps(ends, Recipe(batch_size=2, epochs=1, random_seed=1))
    assert [step.tolist() for step in other] != [step.tolist() for step in whole]
    assert plan_steps(ends, Recipe(), 0) == []


def test_no_pairs_are_said() -> None:
    with pytest.raises(SerError, match=r"no labelled pair.*ties"):
        plan_steps(Examples.of([], []), Recipe())


def test_the_learning_rate_rises_and_falls() -> None:
    rates = [schedule(step, 10, 0.2) for step in range(10)]
    assert rates == pytest.approx([1 / 3, 2 / 3, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])
    assert schedule(0, 1, 0.0) == 1
    assert all(0 < schedule(step, n, w) <= 1 for n in range(1, 9) for w in (0, 0.05, 0.5, 1) for step in range(n))


# ---- learning


def toy(model: Classifier, n: int = 60) -> tuple[TokenTable, Examples]:
    """A good word is better than a bad one."""
    chance = random.Random(1)
    rows = []
    for words in (tiny.GOOD, tiny.BAD):
        rows += [
            Response("", "what is it", f"the {chance.choice(words)} of it {chance.choice(words)}") for _ in range(n)
        ]
    return model.tokenise(rows), Examples.of(np.arange(n), np.arange(n, 2 * n))


@pytest.mark.parametrize(("kind", "fit"), [("bert", "full"), ("gpt2", "full"), ("roberta", "lora"), ("llama", "lora")])
def test_what_can_be_learnt_is_learnt(kind: str, fit: Any, bases: dict[str, str]) -> None:
    model = Classifier.load(bases[kind], fit=fit)
    table, examples = toy(model)
    recipe = Recipe(learning_rate=3e-3, epochs=4, batch_size=8)
    told = run(fine_tune(model, table, examples, recipe))
    assert told.done == told.total == len(told.curve) == 32
    assert np.mean([step.loss for step in told.curve[-8:]]) < 0.6 * told.curve[0].loss
    assert np.mean([step.accuracy for step in told.curve[-8:]]) > 0.9
    rewards = np.empty(len(table))
    for rows, found in model.rewards(table):
        rewards[rows] = found
    assert (rewards[examples.preferred] > rewards[examples.other]).mean() > 0.95
    assert not model.new_head
    assert told.seconds > 0


def test_no_steps_change_nothing(bases: dict[str, str]) -> None:
    model = Classifier.load(bases["bert"])
    before = model.fingerprint
    told = run(fine_tune(model, *toy(model), Recipe(), steps=0))
    assert (told.done, told.total, told.curve) == (0, 0, [])
    assert model.fingerprint == before


@pytest.mark.parametrize("where", ["weights", "gradient"])
def test_a_loss_or_gradient_that_is_not_finite_is_said(
    where: str, bases: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Classifier.load(bases["bert"])
    table, examples = toy(model)
    if where == "weights":
        with torch.no_grad():
            model.model.classifier.weight.fill_(float("nan"))
    else:
        model.model.classifier.weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(SerError, match=r"not finite.*step 1 of 3.*learning rate \(it is 0.001\)"):
        run(fine_tune(model, table, examples, Recipe(learning_rate=1e-3), steps=3))
    assert np.isfinite(next(iter(model.trainable().values())).detach().numpy()).all()


# ---- memory


def with_little_memory(model: Classifier, monkeypatch: pytest.MonkeyPatch, most: int) -> list[int]:
    """A batch of more than `most` tokens does not fit where gradients are kept; returns the sizes tried."""
    plain = model.forward
    tried: list[int] = []

    def forward(table: TokenTable, rows: Any) -> Any:
        size = len(rows) * int(table.lengths[np.asarray(rows)].max())
        tried.append(size)
        if torch.is_grad_enabled() and size > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(table, rows)

    monkeypatch.setattr(model, "forward", forward)
    return tried


def test_out_of_memory_cuts_the_step_and_training_goes_on(
    bases: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Classifier.load(bases["llama"], max_length=40)
    examples, table = example_pairs(), model.tokenise(TEXTS)
    pairs = np.arange(len(examples))
    _, expected = gradients_of_step(model, table, examples, RECIPE, pairs)
    tried = with_little_memory(model, monkeypatch, 64)
    _, found = gradients_of_step(model, table, examples, RECIPE, pairs)
    largest = max(float(np.abs(g).max()) for g in expected.values())
    for name, gradient in expected.items():
        assert np.allclose(found[name], gradient, rtol=1e-3, atol=1e-5 * largest)
    assert max(tried) > 64
    tried.clear()
    told = run(fine_tune(model, table, examples, replace(RECIPE, batch_size=4)))
    assert told.done == told.total == 4
    assert len([size for size in tried if size > 64]) < 6  # it remembers what fitted


def test_no_memory_for_one_text_is_said(bases: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    model = Classifier.load(bases["bert"], max_length=40)
    examples, table = example_pairs(), model.tokenise(TEXTS)
    with_little_memory(model, monkeypatch, 5)
    with pytest.raises(SerError, match=r"one text at a time.*max_length"):
        run(fine_tune(model, table, examples, RECIPE))


def test_want_of_memory_never_makes_batches_larger(bases: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    model = Classifier.load(bases["bert"], max_length=160)
    table = model.tokenise([*TEXTS, Response("", "", "clear " * 300)])
    examples = example_pairs()
    monkeypatch.setitem(module.FORWARD_TOKENS, "cpu", 60)
    tried = with_little_memory(model, monkeypatch, 50)
    with pytest.raises(SerError, match="160 tokens"):
        run(fine_tune(model, table, examples, RECIPE))
    assert max(tried) <= 60


# ---- going on after a stop


def weights_of(model: Classifier) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in model.model.state_dict().items()}


LONG = Recipe(learning_rate=3e-3, epochs=1, batch_size=2, weight_decay=0.01, warmup=0.3, smoothing=0.1)


def make(base: str, fit: Any, dropout: float) -> tuple[Classifier, TokenTable, Examples, Recipe]:
    model = Classifier.load(base, fit=fit, lora_rank=2, lora_dropout=dropout, max_length=40)
    return model, model.tokenise(TEXTS), example_pairs(), replace(LONG, dropout=dropout)


@pytest.mark.parametrize(
    ("kind", "fit", "dropout"), [("bert", "full", 0.0), ("bert", "full", 0.1), ("gpt2", "lora", 0.1)]
)
def test_a_stopped_training_goes_on_to_the_bit(
    kind: str, fit: Any, dropout: float, bases: dict[str, str], tmp_path: Path
) -> None:
    undisturbed = make(bases[kind], fit, dropout)
    whole = run(fine_tune(*undisturbed))
    assert whole.total > 6
    cuts = random.Random(f"{kind}{dropout}").sample(range(whole.total), 3)
    for cut in cuts:
        folder = tmp_path / str(cut)
        taken = cut
        for stop in (cut, 2):  # and once more, two steps later
            torch.manual_seed(cut)  # whatever else the process has drawn
            again = make(bases[kind], fit, dropout)
            training = fine_tune(*again, checkpoint=folder)
            told = next(training)
            for _ in range(min(stop, told.total - told.done)):
                told = next(training)
            taken = told.done
            training.close()
        assert taken == min(cut + 2, whole.total)
        again = make(bases[kind], fit, dropout)
        told = run(fine_tune(*again, checkpoint=folder))
        assert [step._replace(seconds=0) for step in told.curve] == [step._replace(seconds=0) for step in whole.curve]
        assert weights_of(again[0]) == weights_of(undisturbed[0])


CHILD = """
import sys
sys.path.insert(0, {here!r})
import test_fine_tune as t
for dropout, threads in {cases!r}:
    t.torch.set_num_threads(threads)
    t.stopped(t.make({base!r}, "lora", dropout), t.Path({folder!r}) / str(dropout), after=3)
"""


def test_another_process_goes_on_to_the_bit(bases: dict[str, str], tmp_path: Path) -> None:
    """Whatever PYTHONHASHSEED is; without dropout also with another number of threads."""
    n = torch.get_num_threads()
    cases = [(0.0, 1 if n > 1 else 2), (0.1, n)]
    code = CHILD.format(here=str(Path(__file__).parent), base=bases["roberta"], folder=str(tmp_path), cases=cases)
    subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": "77"}, check=True)
    for dropout, _ in cases:
        whole, again = (make(bases["roberta"], "lora", dropout) for _ in range(2))
        run(fine_tune(*whole))
        training = fine_tune(*again, checkpoint=tmp_path / str(dropout))
        assert next(training).done == 3
        run(training)
        assert weights_of(again[0]) == weights_of(whole[0])


def stopped(parts: Any, folder: Path, after: int = 4) -> None:
    training = fine_tune(*parts, checkpoint=folder)
    for _ in range(after + 1):
        next(training)
    training.close()


def test_a_checkpoint_of_another_training_is_not_used(bases: dict[str, str], tmp_path: Path) -> None:
    def parts() -> Any:
        return make(bases["bert"], "full", 0.0)

    stopped(parts(), tmp_path)
    model, table, examples, recipe = parts()
    fewer = TokenTable(table.ids.copy(), table.starts, table.begins)
    fewer.ids[5] += 1
    swapped = Examples(examples.other, examples.preferred, examples.weight, examples.target, examples.margin)
    heavier = replace(examples, weight=examples.weight * np.float32(1.5))
    longer = replace(recipe, epochs=3)
    for other in (
        (model, fewer, examples, recipe),
        (model, table, swapped, recipe),
        (model, table, heavier, recipe),
        (model, table, examples, longer),
        (model, table, examples, replace(recipe, learning_rate=1e-3)),
        (Classifier.load(bases["bert"], random_seed=1, max_length=40), table, examples, recipe),
        (Classifier.load(bases["bert"], fit="lora", max_length=40), table, examples, recipe),
        (Classifier.load(bases["bert"], precision="bfloat16", max_length=40), table, examples, recipe),
    ):
        before = weights_of(other[0])
        training = fine_tune(*other, checkpoint=tmp_path)
        assert next(training).done == 0
        assert weights_of(other[0]) == before
    training = fine_tune(*parts(), checkpoint=tmp_path)
    assert next(training).done == 4


def test_the_same_pairs_in_other_steps_are_another_training(bases: dict[str, str], tmp_path: Path) -> None:
    model, table, examples, recipe = make(bases["bert"], "full", 0.0)
    one, other = [np.arange(4), np.arange(4, 9), np.arange(9, 12)], [np.arange(5), np.arange(5, 9), np.arange(9, 12)]
    training = fine_tune(model, table, examples, recipe, steps=one, checkpoint=tmp_path)
    next(training), next(training)
    training.close()
    model = Classifier.load(bases["bert"], max_length=40)
    assert next(fine_tune(model, table, examples, recipe, steps=other, checkpoint=tmp_path)).done == 0
    assert next(fine_tune(model, table, examples, recipe, steps=one, checkpoint=tmp_path)).done == 1


def test_a_further_checkpoint_of_another_training_does_not_take_this_ones_place(
    bases: dict[str, str], tmp_path: Path
) -> None:
    stopped(make(bases["bert"], "full", 0.1), tmp_path, after=6)
    stopped(make(bases["bert"], "full", 0.0), tmp_path, after=2)
    training = fine_tune(*make(bases["bert"], "full", 0.0), checkpoint=tmp_path)
    assert next(training).done == 2
    assert len(list(tmp_path.iterdir())) == 1


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "half the weights": lambda f: _halve(f / "parameters.safetensors"),
    "half the optimiser": lambda f: _halve(f / "optimizer.safetensors"),
    "no weights": lambda f: (f / "parameters.safetensors").unlink(),
    "half the facts": lambda f: _halve(f / "state.json"),
    "no facts": lambda f: (f / "state.json").unlink(),
    "facts of another shape": lambda f: (f / "state.json").write_text("[]"),
    "no curve": lambda f: _without(f / "state.json", "curve"),
    "bytes that are no text": lambda f: (f / "state.json").write_bytes(b"\xff\xfe\x00"),
    "an empty folder": lambda f: [path.unlink() for path in f.iterdir()],
    "weights of another model": lambda f: (f / "optimizer.safetensors").replace(f / "parameters.safetensors"),
}


def _halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _without(path: Path, name: str) -> None:
    facts = json.loads(path.read_text())
    del facts[name]
    path.write_text(json.dumps(facts))


@pytest.fixture(scope="module")
def a_stop(bases: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stop")
    stopped(make(bases["bert"], "full", 0.0), folder)
    return folder


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_passed_over(damage: str, a_stop: Path, bases: dict[str, str], tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "stop"
    shutil.copytree(a_stop, folder)
    shutil.copytree(a_stop / "step-0000004", folder / ".new.half")  # what a kill leaves
    DAMAGE[damage](folder / "step-0000004")
    parts = make(bases["bert"], "full", 0.0)
    before = weights_of(parts[0])
    training = fine_tune(*parts, checkpoint=folder)
    told = next(training)
    assert told.done == 0
    assert told.curve == []
    assert weights_of(parts[0]) == before  # not half of each
    assert any("damaged" in note for note in told.notes)
    next(training)
    training.close()
    assert next(fine_tune(*make(bases["bert"], "full", 0.0), checkpoint=folder)).done == 1


def test_a_disk_that_is_full_does_not_end_a_training(
    bases: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make(bases["bert"], "full", 0.0)
    run(fine_tune(*whole))
    stopped(make(bases["bert"], "full", 0.0), tmp_path, after=2)
    monkeypatch.setattr(module, "CHECKPOINT_S", -1.0)

    def full(_: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(home, "_sync", full)
    parts = make(bases["bert"], "full", 0.0)
    training = fine_tune(*parts, checkpoint=tmp_path)
    told = next(training)
    assert told.done == 2
    told = next(training)
    with pytest.raises(SerError, match=r"disk.*full"):
        training.close()
    assert [path.name for path in tmp_path.iterdir()] == ["step-0000002"]  # the older one is still there
    parts = make(bases["bert"], "full", 0.0)
    told = run(fine_tune(*parts, checkpoint=tmp_path))
    assert told.done == told.total
    assert len([note for note in told.notes if "full" in note]) == 1
    assert weights_of(parts[0]) == weights_of(whole[0])


def test_nothing_stays_behind_when_a_training_ends_or_fails(bases: dict[str, str]) -> None:
    model, table, examples, recipe = make(bases["bert"], "full", 0.1)
    threads = torch.get_num_threads()
    training = fine_tune(model, table, examples, recipe)
    next(training), next(training)
    training.close()
    assert torch.get_num_threads() == threads
    run(fine_tune(model, table, examples, recipe, steps=2))
    assert torch.get_num_threads() == threads
    assert not model.model.training
    assert all(parameter.grad is None for parameter in model.model.parameters())
