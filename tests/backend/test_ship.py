"""A model that leaves gives, in other libraries, the rewards it gave here."""

import errno
import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny

from ser_backend.errors import NotFound, SerError
from ser_backend.home import atomic_folder
from ser_backend.records import Response
from ser_backend.reward_model import open_model
from ser_backend.scoring import score_file
from ser_backend.shipping.card import Shape, snippet
from ser_backend.shipping.export import ship
from ser_backend.transformer import merge
from ser_backend.transformer.classifier import Classifier
from ser_backend.transformer.fine_tune import fine_tune
from ser_backend.transformer.plan import Examples, Recipe
from ser_backend.transformer.tokens import rendered

KINDS = ("bert", "llama", "qwen2", "gpt2", "t5", "bart")
SHAPES = ("full", "merged", "adapter")
MAX_LENGTH = 64
TEXTS = [
    Response("", prompt, text)
    for prompt, text in (
        ("What is it?", "A clear and exact answer."),
        ("What is it?", "Off."),
        ("", "No prompt at all, to begin with"),
        ("how " * 90, "the prompt is cut on its left"),
        ("Naïve café: 你好 \u200b\u2028 e\u0301", "🙂 <b>odd</b>\ttabs  and   blanks \\n"),
        ("Two\n\nparagraphs", "ends with blanks  \n"),
        ("a" * 200, "one long word before"),
    )
]
SNIPPET = [Response("", "Why is the sea salty?", text) for text in ("Rivers carry salt into it.", "It is old.")]
ARE = pytest.approx


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], SimpleNamespace]:
    """(kind, shape) -> a model trained for three steps, its folder as it leaves, and its rewards of TEXTS and SNIPPET."""

    @cache
    def trained(kind: str, fit: str) -> Classifier:
        base = tiny.build(kind, tmp_path_factory.mktemp(f"{kind}-base"))
        model = Classifier.load(base, max_length=MAX_LENGTH, fit=fit, lora_rank=4)
        table = model.tokenise(TEXTS)
        pairs = Examples.of([0, 2, 4, 3, 5], [1, 3, 5, 1, 6])
        for _ in fine_tune(model, table, pairs, Recipe(learning_rate=0.02, batch_size=2), steps=3):
            pass
        return model

    @cache
    def make(kind: str, shape: str) -> SimpleNamespace:
        model = trained(kind, "full" if shape == "full" else "lora")
        home = tmp_path_factory.mktemp(f"{kind}-{shape}")
        saved, folder = home / "saved", home / "reward_model"
        saved.mkdir()
        folder.mkdir()
        model.save(saved, merged=shape == "merged")  # a run merges in a process of its own; the same lines do it
        ship(saved, folder, with_base_model=False)
        return SimpleNamespace(model=model, folder=folder, rewards=of(model, TEXTS), snippet=of(model, SNIPPET))

    return make


def of(model: Classifier, texts: list[Response]) -> list[float]:
    table = model.tokenise(texts)
    found = np.empty(len(texts))
    for rows, rewards in model.rewards(table):
        found[rows] = rewards
    return found.tolist()


def elsewhere(folder: Path) -> tuple[Any, Any, list[str]]:
    """Model, tokeniser and texts as a program that knows only the card would have them."""
    import peft
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    if (folder / "adapter_config.json").exists():
        model = peft.AutoPeftModelForSequenceClassification.from_pretrained(
            folder, num_labels=1, dtype="float32", ignore_mismatched_sizes=True
        )
        model.config.pad_token_id = tokenizer.pad_token_id
    else:
        model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    end = json.loads((folder / "reward_model.json").read_text())["end_token"]
    return model, tokenizer, [rendered(text) + end for text in TEXTS]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_plain_transformers_and_peft_give_the_same_rewards(shipped, kind: str, shape: str) -> None:
    import torch

    it = shipped(kind, shape)
    assert np.std(it.rewards) > 0.02  # rewards that tell texts apart, or equality would say little
    model, tokenizer, texts = elsewhere(it.folder)
    with torch.no_grad():
        batch = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        together = model(**batch).logits[:, 0].tolist()
        alone = [model(**tokenizer(text, truncation=True, return_tensors="pt")).logits[0, 0].item() for text in texts]
    assert together == ARE(it.rewards, abs=1e-4)
    assert alone == ARE(it.rewards, abs=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_lines_on_the_card_run(shipped, kind: str, shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    it = shipped(kind, shape)
    monkeypatch.chdir(it.folder.parent)
    lines = snippet(Shape.of(it.folder))
    assert len(lines.splitlines()) == (8 if shape == "adapter" else 6)
    names: dict[str, Any] = {}
    exec(lines, names)
    assert names["rewards"] == ARE(it.snippet, abs=1e-4)


def test_a_classifier_of_several_classes_leaves_as_a_reward_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = Path(
        tiny.build("bert", tmp_path / "base", head=True, labels=3)
    )  # as sentiment and NLI models on the hub are
    config = json.loads((base / "config.json").read_text()) | {"problem_type": "single_label_classification"}
    (base / "config.json").write_text(json.dumps(config))
    model = Classifier.load(str(base), max_length=MAX_LENGTH, fit="lora", lora_rank=4)
    adapter, plain = tmp_path / "adapter" / "reward_model", tmp_path / "plain" / "reward_model"
    for folder in (adapter, plain):
        folder.mkdir(parents=True)
    model.save(adapter)
    Classifier.open(adapter, precision="float32").save_merged_for_good(plain)
    for folder in (adapter, plain):
        monkeypatch.chdir(folder.parent)
        names: dict[str, Any] = {}
        exec(snippet(Shape.of(folder)), names)
        assert names["rewards"] == ARE(of(model, SNIPPET), abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_classification_pipeline_gives_the_same_rewards(shipped, kind: str) -> None:
    from transformers import pipeline

    it = shipped(kind, "merged")
    _, _, texts = elsewhere(it.folder)
    read = pipeline("text-classification", model=str(it.folder), device="cpu")
    assert [found["score"] for found in read(texts, batch_size=3, truncation=True)] == ARE(it.rewards, abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_trl_reads_it_as_a_reward_model(shipped, kind: str, tmp_path: Path) -> None:
    trl = pytest.importorskip("trl")
    import torch
    from datasets import Dataset

    it = shipped(kind, "merged")
    short = [row for row, text in enumerate(TEXTS) if len(rendered(text)) < 150]  # trl leaves longer ones out
    _, tokenizer, _ = elsewhere(it.folder)
    rows = {"chosen": [TEXTS[row].text for row in short[::-1]], "rejected": [TEXTS[row].text for row in short]}
    rows |= {"prompt": ["What is it?\n\n"] * len(short)}
    if tokenizer.eos_token is None or kind in tiny.BOTH:  # trl adds the end token to texts, a second one for these
        ids = {
            name: [tokenizer(p + text)["input_ids"] for p, text in zip(rows["prompt"], rows[name], strict=True)]
            for name in ("chosen", "rejected")
        }
        rows = {f"{name}_ids": found for name, found in ids.items()}
    data = Dataset.from_dict(rows)
    options = trl.RewardConfig(
        output_dir=str(tmp_path), report_to=[], use_cpu=True, bf16=False, max_length=MAX_LENGTH, disable_tqdm=True
    )
    trainer = trl.RewardTrainer(model=str(it.folder), args=options, train_dataset=data, eval_dataset=data)
    expected = np.array(of(it.model, [Response("", "What is it?", TEXTS[row].text) for row in short]))
    found: list[float] = []
    with torch.no_grad():
        for batch in trainer.get_eval_dataloader():
            chosen, rejected = trainer.model(**batch).logits[:, 0].chunk(2)
            found += torch.stack([chosen, rejected], 1).flatten().tolist()
    assert found == ARE(np.stack([expected[::-1], expected], 1).ravel().tolist(), abs=1e-4)
    loss = np.logaddexp(0, expected - expected[::-1]).mean()
    assert trainer.evaluate()["eval_loss"] == ARE(loss, abs=1e-4)


def test_saving_merged_leaves_the_live_model_as_it_is(shipped, tmp_path: Path) -> None:
    it = shipped("llama", "adapter")
    before = {name: value.clone() for name, value in it.model.model.state_dict().items()}
    it.model.save(tmp_path, merged=True)
    after = it.model.model.state_dict()
    assert before.keys() == after.keys()
    assert all((before[name] == after[name]).all() for name in before)
    assert of(it.model, TEXTS) == it.rewards
    assert it.model.trainable()


def test_merging_a_saved_adapter_gives_the_weights_the_live_model_gives(shipped, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    it, here = shipped("gpt2", "adapter"), shipped("gpt2", "merged")
    assert merge.main(str(it.folder), str(tmp_path)) == 0
    there, known = (load_file(folder / "model.safetensors") for folder in (tmp_path, here.folder))
    assert there.keys() == known.keys()
    assert all(np.abs(there[name] - known[name]).max() < 1e-6 for name in known)


def test_a_base_model_that_is_gone_is_said_in_a_sentence(shipped, tmp_path: Path) -> None:
    it = shipped("bert", "adapter")
    broken = tmp_path / "adapter"
    broken.mkdir()
    ship(it.folder, broken, with_base_model=False)
    for name in ("reward_model.json", "adapter_config.json"):
        facts = json.loads((broken / name).read_text())
        facts |= {"base_model": "/nowhere/base", "base_model_name_or_path": "/nowhere/base"}
        (broken / name).write_text(json.dumps(facts))
    with pytest.raises(SerError, match=r"/nowhere/base.*could not be loaded"):
        merge.merged(broken, tmp_path)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_disk_that_fills_while_saving_leaves_what_was_there(
    shipped, shape: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import safetensors.torch

    it = shipped("bert", shape)
    target = tmp_path / "model"
    with atomic_folder(target) as temporary:
        (temporary / "precious").write_text("the model of before")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for module in ("transformers.modeling_utils.safe_save_file", "peft.peft_model.safe_save_file"):
        monkeypatch.setattr(module, full)
    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(SerError, match="is full; nothing was changed"), atomic_folder(target) as temporary:
        it.model.save(temporary, merged=shape == "merged")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (target / "precious").read_text() == "the model of before"
    monkeypatch.undo()
    assert of(it.model, TEXTS) == it.rewards


# ---- scoring, whatever the kind


@pytest.mark.parametrize(("kind", "shape"), [("bert", "full"), ("llama", "merged"), ("qwen2", "adapter")])
def test_score_reads_every_kind_of_folder(shipped, kind: str, shape: str, tmp_path: Path) -> None:
    it = shipped(kind, shape)
    source = tmp_path / "texts.jsonl"
    source.write_text("".join(json.dumps({"prompt": t.prompt, "response": t.text}) + "\n" for t in TEXTS[:2]))
    assert score_file(str(it.folder), str(source), tmp_path / "out.jsonl")[:2] == (2, 0)
    found = [json.loads(line)["reward_response"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert found == ARE(it.rewards[:2], abs=2e-5)


def test_a_text_is_read_once_per_model(shipped, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SER_CACHE", str(tmp_path / "cache"))
    read: list[int] = []
    kept = Classifier.tokenise

    def counted(self: Classifier, responses: list[Response]) -> Any:
        read.append(len(responses))
        return kept(self, responses)

    monkeypatch.setattr(Classifier, "tokenise", counted)
    texts = [*TEXTS, Response("", TEXTS[0].prompt, TEXTS[0].text + " ")]  # a blank more is another text
    for shape, expected in (("full", [len(texts)]), ("full", []), ("merged", [len(texts)])):
        read.clear()
        *_, (n, rewards) = open_model(str(shipped("bert", shape).folder)).rewards(texts)
        assert n == len(texts)
        assert read == expected
        assert rewards[: len(TEXTS)].tolist() == ARE(shipped("bert", shape).rewards, abs=1e-4)


def test_a_model_of_others_is_read_with_a_note(tmp_path: Path) -> None:
    folder = tiny.build("qwen2", tmp_path / "theirs", head=True)
    model = open_model(folder)
    assert any("not trained here" in note for note in model.notes)
    *_, (_, rewards) = model.rewards(TEXTS)
    assert np.isfinite(rewards).all()


def test_what_is_no_reward_model_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="is not a reward model folder"):
        open_model(str(tmp_path))
    with pytest.raises(NotFound, match="there is no such folder"):
        open_model(str(tmp_path / "missing"))
    with pytest.raises(SerError, match="without a reward head"):
        open_model(tiny.build("bert", tmp_path / "body"))


# ---- docs


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_the_lines_in_the_docs_run(shipped, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trl")
    it = shipped(kind, "merged")
    (tmp_path / "reward_model").symlink_to(it.folder)
    (tmp_path / "adapter").symlink_to(shipped(kind, "adapter").folder)
    row = {"prompt": SNIPPET[0].prompt, "chosen": SNIPPET[0].text, "rejected": SNIPPET[1].text, "origin": "self"}
    (tmp_path / "preferences.jsonl").write_text(f"{json.dumps(row)}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hf"))
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
    transformers, pipeline, peft, trl = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    names: dict[str, Any] = {}
    exec(transformers, names)
    assert names["found"] == ARE(it.snippet, abs=1e-4)
    exec(pipeline, names)
    assert names["found"] == ARE(it.snippet[:1], abs=1e-4)
    exec(peft, names)  # `rewards` of the first lines reads with the model of these
    assert names["rewards"]([t.prompt for t in SNIPPET], [t.text for t in SNIPPET]) == ARE(it.snippet, abs=1e-4)
    exec(trl, names)
    assert names["found"]["eval_loss"] == ARE(np.logaddexp(0, it.snippet[1] - it.snippet[0]), abs=1e-4)
