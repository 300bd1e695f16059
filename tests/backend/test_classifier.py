"""A reward is the model's own, whatever it is read beside; what is loaded, saved and opened again is one model."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from ser_backend.errors import SerError
from ser_backend.records import Response
from ser_backend.transformer import opening
from ser_backend.transformer.classifier import Classifier
from ser_backend.transformer.heads import head_of
from ser_backend.transformer.tokens import TokenTable, rendered

PAIRS = [
    *(("what is it", "clear answer"), ("", "warm"), ("x", ""), ("how to", "the vague mess of it " * 9)),
    *(("naïve 😀 why", "rude 你好 " * 30), ("the " * 200, "care"), ("on", "off " * 300), ("", "")),
    *((f"what {i}", "reason " * (i * 5 % 13) + "clear") for i in range(12)),
]
RESPONSES = [Response(str(i), prompt, text) for i, (prompt, text) in enumerate(PAIRS)]
kinds = pytest.mark.parametrize("kind", tiny.KINDS)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def bodies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """By kind: a model as people publish it, without a reward head."""
    return {kind: tiny.build(kind, tmp_path_factory.mktemp("body") / kind) for kind in tiny.KINDS}


@pytest.fixture(scope="module")
def judges(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """By kind: a reward model."""
    return {kind: tiny.build(kind, tmp_path_factory.mktemp("judge") / kind, head=True) for kind in tiny.KINDS}


def rewards(model: Classifier, table: TokenTable | None = None) -> np.ndarray:
    table = table or model.tokenise(RESPONSES)
    found = np.full(len(table), np.nan, np.float32)
    for rows, part in model.rewards(table):
        assert np.isnan(found[rows]).all()  # every row once
        found[rows] = part
    return found


def moved(model: Classifier, by: float = 0.05) -> Classifier:
    """As training would leave it: everything that learns is somewhere else."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.trainable().values():
            parameter.add_(torch.randn_like(parameter) * by)
    return model


def saved(model: Classifier, folder: Path, merged: bool = False) -> Path:
    folder.mkdir()
    model.save(folder, merged=merged)
    return folder


# ---- rewards


@kinds
def test_a_reward_is_that_of_a_plain_forward_of_the_text_alone(kind: str, judges: dict[str, str]) -> None:
    from transformers import AutoModelForSequenceClassification

    plain = AutoModelForSequenceClassification.from_pretrained(judges[kind]).eval()
    if kind in tiny.DECODERS:
        plain.config.pad_token_id = None  # one text, nothing to look for
    model = Classifier.open(Path(judges[kind]))
    table = model.tokenise(RESPONSES)
    with torch.no_grad():
        alone = [
            plain(input_ids=torch.tensor(table.text(i)[None].astype(np.int64))).logits.item() for i in range(len(table))
        ]
    assert rewards(model, table) == pytest.approx(alone, abs=5e-6)
    assert np.ptp(alone) > 0.1  # or the comparison would say nothing


@kinds
def test_a_reward_depends_on_no_other_text(kind: str, judges: dict[str, str]) -> None:
    model = Classifier.open(Path(judges[kind]))
    table = model.tokenise(RESPONSES)
    expected = rewards(model, table)
    order = np.random.default_rng(0).permutation(len(RESPONSES))
    shuffled = rewards(model, model.tokenise([RESPONSES[i] for i in order]))
    assert shuffled == pytest.approx(expected[order], abs=5e-6)
    some = np.array([7, 3, 3, 0])
    by_row = {row: reward for rows, part in model.rewards(table, some) for row, reward in zip(rows, part, strict=True)}
    assert [by_row[row] for row in some] == pytest.approx(expected[some], abs=5e-6)
    threads = torch.get_num_threads()
    for budget, n in ((1, 1), (100, 2), (100_000, 1)):
        model.budget = budget
        torch.set_num_threads(n)
        try:
            assert rewards(model, table) == pytest.approx(expected, abs=5e-6)
            assert torch.get_num_threads() == n
        finally:
            torch.set_num_threads(threads)
    with torch.no_grad():
        together = model.forward(table, range(len(table)))
    assert together.numpy() == pytest.approx(expected, abs=5e-6)


def test_no_text_no_reward(judges: dict[str, str]) -> None:
    model = Classifier.open(Path(judges["gpt2"]))
    assert list(model.rewards(model.tokenise([]))) == []
    assert list(model.rewards(model.tokenise(RESPONSES), [])) == []


def test_a_reader_that_stops_early_leaves_the_threads_as_they_were(judges: dict[str, str]) -> None:
    model = Classifier.open(Path(judges["bert"]))
    model.budget = 64
    before = torch.get_num_threads()
    reading = model.rewards(model.tokenise(RESPONSES))
    next(reading)
    reading.close()
    assert torch.get_num_threads() == before


def without_memory(model: Classifier, monkeypatch: pytest.MonkeyPatch, most: int, error: Exception) -> list[int]:
    """A machine that cannot hold a batch of more than `most` tokens; returns the sizes tried."""
    tried: list[int] = []
    plain = model.forward

    def forward(table: TokenTable, rows: Any) -> Any:
        size = len(rows) * int(table.lengths[np.asarray(rows)].max())
        tried.append(size)
        if size > most:
            raise error
        return plain(table, rows)

    monkeypatch.setattr(model, "forward", forward)
    return tried


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_out_of_memory_makes_batches_smaller_and_rewards_no_different(
    judges: dict[str, str], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    model = Classifier.open(Path(judges["qwen2"]))
    expected = rewards(model)
    model.budget = 1_000
    tried = without_memory(model, monkeypatch, 170, error)
    assert rewards(model) == pytest.approx(expected, abs=5e-6)
    assert max(tried) > 170
    assert model.budget <= 500
    tried.clear()
    rewards(model)
    assert len([size for size in tried if size > 170]) < 3  # it remembers


def test_a_text_that_does_not_fit_alone_is_said(judges: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    model = Classifier.open(Path(judges["bert"]))
    without_memory(model, monkeypatch, 100, torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(SerError, match=r"One text of 1\d\d tokens does not fit.*max_length"):
        rewards(model)


def test_other_trouble_is_not_taken_for_want_of_memory(judges: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    model = Classifier.open(Path(judges["bert"]))
    without_memory(model, monkeypatch, 100, RuntimeError("the size of tensor a must match"))
    with pytest.raises(RuntimeError, match="must match"):
        rewards(model)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_damaged_weights_are_said(judges: dict[str, str], value: float) -> None:
    model = Classifier.open(Path(judges["roberta"]))
    with torch.no_grad():
        next(iter(model.trainable().values())).fill_(value)
    with pytest.raises(SerError, match="not finite"):
        rewards(model)


# ---- saving and opening


@pytest.mark.parametrize(
    ("kind", "head"),
    [*((kind, False) for kind in tiny.KINDS), *((kind, True) for kind in ("bert", "distilbert", "gpt2"))],
)
def test_a_saved_model_opens_with_the_same_rewards(
    kind: str, head: bool, bodies: dict[str, str], judges: dict[str, str], tmp_path: Path
) -> None:
    base = (judges if head else bodies)[kind]
    for fit in ("full", "lora"):
        model = moved(Classifier.load(base, fit=fit, max_length=100, lora_rank=3, random_seed=5))
        assert model.new_head is not head
        expected = rewards(model)
        again = Classifier.open(saved(model, tmp_path / fit))
        assert (again.fit, again.max_length, again.name) == (fit, 100, base)
        assert rewards(again) == pytest.approx(expected, abs=1e-6)
        assert not again.missing
        if fit == "lora":
            twice = Classifier.open(saved(again, tmp_path / "again"))
            assert rewards(twice) == pytest.approx(expected, abs=1e-6)
            merged = Classifier.open(saved(model, tmp_path / "merged", merged=True))
            assert merged.fit == "full"
            assert rewards(merged) == pytest.approx(expected, abs=2e-5)
            assert rewards(model) == pytest.approx(expected, abs=1e-6)  # the live one is as it was
        else:
            tokenizer = again.tokenizer
            assert tokenizer.pad_token_id not in (None, tokenizer.eos_token_id)
            facts = json.loads((tmp_path / fit / "config.json").read_text())
            assert facts["pad_token_id"] == tokenizer.pad_token_id


@kinds
def test_lora_learns_adapters_and_what_no_file_holds_and_saves_both(
    kind: str, bodies: dict[str, str], tmp_path: Path
) -> None:
    from safetensors import safe_open

    model = Classifier.load(bodies[kind], fit="lora", lora_rank=2)
    learns = set(model.trainable())
    head = {name for name in learns if "lora_" not in name}
    assert head
    assert all("modules_to_save" in name for name in head)
    assert {name for name in learns - head} == {n for n, _ in model.model.named_parameters() if "lora_" in n}
    with safe_open(saved(model, tmp_path / "a") / "adapter_model.safetensors", "numpy") as file:
        kept = set(file.keys())
    plain = {re.sub(r"\.(modules_to_save\.)?default", "", name) for name in learns}
    assert kept == plain
    again = Classifier.open(tmp_path / "a", trainable=True)
    assert set(again.trainable()) == learns
    assert not Classifier.open(tmp_path / "a").trainable()


def test_a_pooler_that_no_file_holds_is_saved_with_the_adapter(tmp_path: Path) -> None:
    """Masked-language checkpoints have none: whoever opens the adapter elsewhere would get another random one."""
    from transformers import BertForMaskedLM

    base = Path(tiny.build("bert", tmp_path / "base"))
    BertForMaskedLM.from_pretrained(base).save_pretrained(base)
    model = moved(Classifier.load(str(base), fit="lora", lora_rank=2, random_seed=7))
    assert [name for name in model.missing if "pooler" in name]
    assert any("start random" in note for note in model.notes)
    again = Classifier.open(saved(model, tmp_path / "adapter"))
    assert rewards(again) == pytest.approx(rewards(model), abs=1e-6)
    assert not again.missing


def test_an_adapter_for_a_head_of_two_layers_needs_both(bodies: dict[str, str], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    model = moved(Classifier.load(bodies["distilbert"], fit="lora", lora_rank=2))
    weights = saved(model, tmp_path / "a") / "adapter_model.safetensors"
    kept = {name: array for name, array in load_file(weights).items() if "pre_classifier" not in name}
    save_file(kept, weights)
    with pytest.raises(SerError, match="without its reward head"):
        Classifier.open(tmp_path / "a")


# ---- heads


def test_a_new_head_is_the_same_with_the_same_seed(bodies: dict[str, str]) -> None:
    one, same, other = (rewards(Classifier.load(bodies["llama"], random_seed=seed)) for seed in (3, 3, 4))
    assert one.tolist() == same.tolist()
    assert np.abs(one - other).max() > 1e-3


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta", "qwen2"])
def test_a_head_of_two_outputs_is_replaced_and_said(kind: str, tmp_path: Path) -> None:
    base = tiny.build(kind, tmp_path / "two", head=True, labels=2)
    model = Classifier.load(base)
    assert model.new_head
    assert any("2 outputs" in note for note in model.notes)
    with pytest.raises(SerError, match="with several outputs"):
        Classifier.open(Path(base))
    assert rewards(Classifier.open(saved(model, tmp_path / "one"))) == pytest.approx(rewards(model), abs=1e-6)


@kinds
def test_a_head_of_one_output_is_kept(kind: str, judges: dict[str, str]) -> None:
    opened = Classifier.open(Path(judges[kind]))
    loaded = Classifier.load(judges[kind], max_length=opened.max_length)
    assert not loaded.new_head
    assert rewards(loaded).tolist() == rewards(opened).tolist()


@pytest.mark.parametrize("kind", tiny.BOTH)
def test_a_text_with_an_end_token_of_its_own_holds_one_all_the_same(kind: str, judges: dict[str, str]) -> None:
    """These models read the reward off the end token, and refuse a batch of which some texts hold more than one."""
    model = Classifier.open(Path(judges[kind]))
    hostile = [
        Response("x", "why </s> not", "so</s> it </s>"),
        Response("y", "", "</s>"),
        Response("z", "what", "clear"),
    ]
    table = model.tokenise(hostile)
    assert [table.text(row).tolist().count(model.tokenizer.eos_token_id) for row in range(3)] == [1, 1, 1]
    without = model.tokenise([Response("x", "why  not", "so it ")])
    assert len(table.text(0)) <= len(without.text(0)) + 2
    assert np.isfinite(rewards(model, table)).all()


# ---- padding


def _pad_with_end(folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(folder)


@pytest.mark.parametrize(
    ("kind", "trouble"),
    [*((kind, "none") for kind in tiny.KINDS), *((kind, "end") for kind in ("roberta", *tiny.DECODERS))],
)
def test_padding_is_neither_missing_nor_the_end(kind: str, trouble: str, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = tmp_path / "base"
    tiny.build(kind, folder, head=True, with_pad=False)
    if trouble == "end":
        _pad_with_end(folder)
    before = tiny.tokeniser(kind, with_pad=False)
    model = Classifier.load(str(folder))
    tokenizer = model.tokenizer
    assert tokenizer.pad_token_id not in (None, tokenizer.eos_token_id, tokenizer.sep_token_id)
    assert tokenizer.pad_token_id < model.model.get_input_embeddings().weight.shape[0]
    assert model.model.config.pad_token_id == tokenizer.pad_token_id
    assert any("padding" in note for note in model.notes)
    table = model.tokenise(RESPONSES)
    plain = [before(r.prompt + "\n\n" + r.text if r.prompt else r.text)["input_ids"] for r in RESPONSES[:3]]
    assert [table.text(i).tolist()[: len(ids)] for i, ids in enumerate(plain)] == plain  # no other token has changed

    kept = saved(model, tmp_path / "kept")
    elsewhere = AutoModelForSequenceClassification.from_pretrained(kept).eval()
    spaces = AutoTokenizer.from_pretrained(kept)
    assert spaces.pad_token_id == elsewhere.config.pad_token_id == tokenizer.pad_token_id
    ids, mask = table.padded(range(len(table)), spaces.pad_token_id)
    with torch.no_grad():
        found = elsewhere(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)).logits[:, 0]
    assert found.numpy() == pytest.approx(rewards(model, table), abs=5e-6)


def test_padding_is_not_the_end_that_the_tokeniser_adds_by_itself(tmp_path: Path) -> None:
    folder = tmp_path / "base"  # as Qwen3-Embedding has it: it ends a text with what it pads with, not with eos_token
    tiny.build("qwen2", folder)
    specials = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    named = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    tiny._plain_bytes(specials, "$A <|endoftext|>", named).save_pretrained(folder)
    model = Classifier.load(str(folder), max_length=128)
    assert model.tokenizer.convert_ids_to_tokens(model.ends.end) == ["<|endoftext|>"]
    assert model.pad not in (*model.ends.end, model.tokenizer.eos_token_id)
    assert any("end token as padding" in note for note in model.notes)
    text = RESPONSES[0]
    plain = model.tokenizer(rendered(text) + model.end_to_add)["input_ids"]
    assert model.tokenise([text]).text(0).tolist() == plain


@pytest.mark.parametrize("kind", ["bert", "llama"])  # llama has no padding token, so that the model grows by one
@pytest.mark.parametrize("fit", ["full", "lora"])
def test_a_tokeniser_that_knows_more_than_the_model_is_said(kind: str, fit: Any, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    base = tiny.build(kind, tmp_path / "base", head=True)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens(["zebra"])
    tokenizer.save_pretrained(base)
    loaded = Classifier.load(base, fit=fit, max_length=128)
    for model in (loaded, Classifier.open(saved(loaded, tmp_path / "saved"))) if fit == "lora" else (loaded,):
        assert len(model.tokenise([Response("", "what", "vague")])) == 1
        with pytest.raises(SerError, match=r"'zebra', for which .* has no weights"):
            model.tokenise([Response("", "what", "zebra")])


def test_a_reserved_token_is_taken_before_the_vocabulary_grows(bodies: dict[str, str]) -> None:
    llama3, gpt2 = Classifier.load(bodies["llama3"]), Classifier.load(bodies["gpt2"])
    assert llama3.tokenizer.pad_token == "<|reserved_special_token_0|>"
    assert llama3.model.get_input_embeddings().weight.shape[0] == len(tiny.tokeniser("llama3"))
    assert gpt2.tokenizer.pad_token == opening.NEW_PAD
    assert gpt2.model.get_input_embeddings().weight.shape[0] == len(tiny.tokeniser("gpt2")) + 1


def test_a_text_that_holds_the_padding_token_has_one_reward_in_any_batch(judges: dict[str, str]) -> None:
    for kind in tiny.KINDS:
        model = Classifier.open(Path(judges[kind]))
        pad = model.tokenizer.pad_token
        table = model.tokenise([Response("a", "what", f"clear {pad}"), Response("b", pad, pad), *RESPONSES[:6]])
        with torch.no_grad():
            alone = [model.forward(table, [row]).item() for row in range(len(table))]
        assert rewards(model, table) == pytest.approx(alone, abs=5e-6)


# ---- length


@pytest.mark.parametrize("kind", sorted({*tiny.KINDS} - {"t5"}))  # which sets no limit
def test_a_length_beyond_the_models_positions_is_lowered_and_said(kind: str, judges: dict[str, str]) -> None:
    model = Classifier.load(judges[kind], max_length=10_000)
    assert model.max_length == 160
    assert any("10,000" in note and "160" in note for note in model.notes)
    table = model.tokenise([Response("x", "how " * 500, "clear " * 500)])
    assert table.lengths.tolist() == [160]
    assert np.isfinite(rewards(model, table)).all()


def test_positions_that_begin_after_the_padding_id_are_counted(tmp_path: Path) -> None:
    """MPNet, like RoBERTa, and unlike what its configuration says."""
    import transformers as t

    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = t.MPNetConfig(vocab_size=400, **size, max_position_embeddings=52, num_labels=1)
    t.AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    tiny.tokeniser("roberta").save_pretrained(tmp_path)
    model = Classifier.load(str(tmp_path), max_length=512)
    assert model.max_length == 50
    assert np.isfinite(rewards(model)).all()


# ---- number formats


@pytest.mark.parametrize(
    ("kind", "fit"), [*((kind, "lora") for kind in tiny.KINDS), ("bert", "full"), ("qwen2", "full")]
)
def test_a_coarse_body_keeps_an_exact_head(kind: str, fit: Any, bodies: dict[str, str]) -> None:
    fine = Classifier.load(bodies[kind], fit=fit, lora_rank=2)
    coarse = Classifier.load(bodies[kind], fit=fit, lora_rank=2, precision="bfloat16")
    assert coarse.precision == "bfloat16"
    head = {p.dtype for p in head_of(coarse.model).parameters()}
    learns = {p.dtype for p in coarse.trainable().values()}
    assert torch.float32 in head
    assert learns == {torch.float32}
    table = coarse.tokenise(RESPONSES)
    reward = coarse.forward(table, [0, 1])
    assert reward.dtype == torch.float32
    assert reward.requires_grad
    one, two = rewards(coarse, table), rewards(coarse, table)
    assert one.dtype == np.float32
    assert one.tolist() == two.tolist()
    assert one == pytest.approx(rewards(fine, table), abs=0.25)  # weights of size .2 make coarse numbers very coarse
    assert len(set(one.tolist()) - {float(torch.tensor(r).bfloat16()) for r in one.tolist()}) > len(one) // 2


def test_formats_the_machine_does_not_have_are_refused(bodies: dict[str, str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(SerError, match="fit=lora"):
        Classifier.load(bodies["bert"], precision="4bit")
    with pytest.raises(SerError, match="CUDA GPU"):
        Classifier.load(bodies["bert"], precision="4bit", fit="lora")


# ---- what names a model


def test_a_fingerprint_names_weights_and_length(judges: dict[str, str], tmp_path: Path) -> None:
    folder = Path(judges["bert"])
    model = Classifier.open(folder)
    first = model.fingerprint
    assert Classifier.open(folder).fingerprint == first
    assert Classifier.load(str(folder), max_length=50).fingerprint != first
    with torch.no_grad():
        list(model.trainable().values())[3].view(-1)[0] += 1e-4
    assert model.fingerprint != first
