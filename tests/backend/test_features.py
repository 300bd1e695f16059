from pathlib import Path

import numpy as np
import pytest
import tiny

from ser_backend.errors import SerError, UnknownToken
from ser_backend.records import Response, response_id
from ser_backend.transformer import bases, features
from ser_backend.transformer.bases import fingerprint_of
from ser_backend.transformer.features import Backbone, FeatureCache, fill_cache

TEXTS = [
    Response("", f"topic{i} what is it", " ".join(["clear", "exact", "vague"][: 1 + i % 3] * (1 + i)))
    for i in range(12)
]


@pytest.fixture(scope="module")
def backbone(tiny_model: str) -> Backbone:
    return Backbone.load(tiny_model, max_length=32)


def encode(backbone: Backbone, texts: list[Response]) -> np.ndarray:
    result = np.zeros((len(texts), backbone.width), np.float32)
    for rows, values in backbone.encode(texts):
        result[rows] = values
    return result


def test_a_feature_is_the_mean_of_every_layer_over_the_whole_text_and_over_the_response(backbone: Backbone) -> None:
    import torch

    ids, begin = backbone.tokenize(TEXTS[:1])[0]
    words = backbone.tokenizer.convert_ids_to_tokens(ids)
    assert (words, begin) == (["[CLS]", "topic0", "[UNK]", "is", "it", "clear", "[SEP]"], 5)
    with torch.inference_mode():
        layers = backbone.model(torch.tensor([ids]), output_hidden_states=True).hidden_states
    whole = torch.cat([layer[0].mean(0) for layer in layers])
    alone = torch.cat([layer[0, begin:].mean(0) for layer in layers])
    assert encode(backbone, TEXTS[:1])[0] == pytest.approx(torch.cat([whole, alone]).numpy(), abs=1e-5)
    assert backbone.width == 2 * 3 * 32


@pytest.mark.parametrize(("kind", "around"), [("t5", ([], ["</s>"])), ("bart", (["<s>"], ["</s>"]))])
def test_of_an_encoder_with_a_decoder_the_encoder_is_read(kind: str, around: object, tmp_path: Path) -> None:
    import torch

    backbone = Backbone.load(tiny.build(kind, tmp_path), max_length=64)
    ids, begin = backbone.tokenize(TEXTS[:1])[0]
    words = backbone.tokenizer.convert_ids_to_tokens(ids)
    assert (words[: len(around[0])], words[-1:]) == around
    assert 0 < begin < len(ids) - 1
    assert "</s>" not in words[:-1]
    with torch.inference_mode():
        layers = backbone.model(torch.tensor([ids]), output_hidden_states=True).hidden_states
    expected = torch.cat([layer[0].mean(0) for layer in layers] + [layer[0, begin:].mean(0) for layer in layers])
    found = encode(backbone, TEXTS)
    assert found[0] == pytest.approx(expected.numpy(), abs=1e-5)
    assert np.ptp(found, axis=0).max() > 0.1


def test_a_token_without_weights_is_said(tiny_model: str) -> None:
    backbone = Backbone.load(tiny_model, max_length=32)
    backbone.tokenizer.add_tokens(["zebra"])
    with pytest.raises(UnknownToken, match=r"'zebra', for which .* has no weights"):
        list(backbone.encode([Response("", "what", "a zebra")]))


def test_batches_and_padding_do_not_move_a_feature(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    together = encode(backbone, TEXTS)
    alone = np.concatenate([encode(backbone, [text]) for text in TEXTS])
    monkeypatch.setattr(features, "TOKEN_BUDGET", 64)
    small = encode(backbone, TEXTS)
    for other in (alone, small):
        assert np.abs(together.astype(float) - other.astype(float)).max() < 1e-5


def test_an_over_long_text_loses_its_prompt_first_and_is_counted(tiny_model: str) -> None:
    backbone = Backbone.load(tiny_model, max_length=10)
    long_prompt = Response("", " ".join(["the"] * 30) + " topic7", "clear exact")
    ids, begin = backbone.tokenize([long_prompt])[0]
    words = backbone.tokenizer.convert_ids_to_tokens(ids)
    assert len(ids) == 10
    assert words[begin:] == ["clear", "exact", "[SEP]"]
    assert words[begin - 1] == "topic7"  # the end of the prompt stays
    assert (backbone.cuts.prompts, backbone.cuts.responses) == (1, 0)
    backbone.tokenize([Response("", "what", " ".join(["exact"] * 30))])
    assert (backbone.cuts.prompts, backbone.cuts.responses) == (2, 1)


def test_out_of_memory_halves_the_batch_and_goes_on(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    whole = encode(backbone, TEXTS)
    honest, sizes = Backbone._forward, []

    def short_of_memory(self: Backbone, tokens: list) -> np.ndarray:
        sizes.append(len(tokens))
        if len(tokens) > 3:
            raise torch.OutOfMemoryError("no")
        return honest(self, tokens)

    monkeypatch.setattr(Backbone, "_forward", short_of_memory)
    assert np.abs(encode(backbone, TEXTS).astype(float) - whole.astype(float)).max() < 1e-5
    assert max(sizes) > 3
    monkeypatch.setattr(Backbone, "_forward", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("no")))
    with pytest.raises(SerError, match="does not fit in memory"):
        encode(backbone, TEXTS)


def test_values_that_are_not_finite_stop_with_a_sentence(tiny_model: str) -> None:
    import torch

    backbone = Backbone.load(tiny_model)
    with torch.no_grad():
        backbone.model.embeddings.word_embeddings.weight[:] = float("nan")
    with pytest.raises(SerError, match="not finite"):
        encode(backbone, TEXTS)


def test_each_text_is_computed_once_and_a_kill_loses_one_shard(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "SHARD_ROWS", 4)
    monkeypatch.setattr(features, "TOKEN_BUDGET", 40)
    keys = [response_id(text.prompt, text.text).encode() for text in TEXTS]
    run = fill_cache(backbone, keys, lambda rows: [TEXTS[row] for row in rows])
    for step in run:
        if step.done >= 9:
            break
    run.close()  # a stop writes what was computed; a kill, here, would not
    for newest in sorted(FeatureCache(backbone.fingerprint, backbone.width).folder.glob("*"))[-2:]:
        newest.unlink()
    known = sum(key in FeatureCache(backbone.fingerprint, backbone.width) for key in keys)
    assert 4 <= known <= 8
    *_, last = fill_cache(backbone, keys, lambda rows: [TEXTS[row] for row in rows])
    assert last.computed == len(keys) - known
    *_, again = fill_cache(backbone, keys, lambda rows: [TEXTS[row] for row in rows])
    assert (again.done, again.computed) == (len(keys), 0)
    assert np.abs(again.cache.read(keys[::-1])[::-1].astype(float) - encode(backbone, TEXTS).astype(float)).max() < 1e-5


def test_a_cache_of_half_precision_is_read_beside_new_values(ser_home: Path) -> None:
    """What versions before 0.2 left on disk is not computed again."""
    cache = FeatureCache("print", 2)
    cache.write([b"old"], np.array([[0.1, 2.0]], np.float16))
    cache.write([b"new"], np.array([[0.1, 2.0]], np.float32))
    found = FeatureCache("print", 2).read([b"new", b"old"])
    assert found.dtype == np.float32
    assert found.tolist() == [[np.float32(0.1), 2.0], [np.float16(0.1), 2.0]]


def test_other_weights_and_lengths_have_other_caches(tiny_model: str, backbone: Backbone) -> None:
    import torch

    same, shorter, changed = Backbone.load(tiny_model, 32), Backbone.load(tiny_model, 16), Backbone.load(tiny_model, 32)
    with torch.no_grad():
        changed.model.embeddings.word_embeddings.weight[0, 0] += 1
    found = fingerprint_of(changed.model, changed.tokenizer, 32)
    assert same.fingerprint == backbone.fingerprint
    assert len({same.fingerprint, shorter.fingerprint, found}) == 3


@pytest.mark.parametrize("name", ["no/such-model-anywhere", "/no/such/folder"])
def test_a_model_that_is_not_there_is_refused_in_words(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # the hub client retries for a long time else
    with pytest.raises(SerError, match="could not be loaded"):
        Backbone.load(name)


def test_the_bundled_model_is_the_official_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = bases.bundled_folder()
    assert (folder / "model.safetensors").exists()
    broken = tmp_path / "package"
    broken.mkdir()
    (broken / "model.safetensors").write_bytes(b"something else")
    monkeypatch.setattr(bases, "import_module", lambda _: type("P", (), {"__path__": [str(broken)]}))
    with pytest.raises(SerError, match="changed or damaged"):
        bases.bundled_folder()
