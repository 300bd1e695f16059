"""Whatever is given as a base model: it loads, or one sentence says why not, in seconds, and nothing is run or written."""

import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny

from ser_backend.errors import SerError
from ser_backend.transformer import bases
from ser_backend.transformer.classifier import Classifier
from ser_backend.transformer.features import Backbone


def refused(call: Callable[[], Any], *words: str) -> str:
    """The sentence that `call` raises: it names the trouble and says what to do."""
    with pytest.raises(SerError) as caught:
        call()
    said = str(caught.value)
    for word in words:
        assert word in said
    assert "Traceback" not in said
    assert said.endswith(".")
    return said


def listing(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(tiny.build("bert", tmp_path / "model", head=True))


@pytest.fixture(scope="module", autouse=True)
def _no_hub() -> Iterator[None]:
    """A hub that refuses every connection."""
    with pytest.MonkeyPatch.context() as patch:
        _point_hub_at(patch, "http://127.0.0.1:9")
        yield


def _point_hub_at(patch: pytest.MonkeyPatch, address: str) -> None:
    from huggingface_hub import constants, hf_api

    patch.setattr(constants, "ENDPOINT", address)
    patch.setattr(hf_api.api, "endpoint", address)
    patch.setattr(constants, "HF_HUB_OFFLINE", False)


# ---- names


@pytest.mark.parametrize(
    "name",
    [
        "",
        "  ",
        "a/b/c",
        "..",
        "a/..",
        "../../etc/passwd",
        "/etc/passwd",
        "/no/such",
        "~nobody-at-all/x",
        "x\0y",
        "a" * 5_000,
    ]
    + ["a/b\nc", "-x/y", "no such", "C:\\models\\x", "https://example.org/a/b", "ünï/cöde", "org/name@main"],
)
def test_a_name_that_names_nothing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = refused(lambda: Classifier.load(name), "'bundled'")
    assert len(said) < 900
    assert not listing(tmp_path)


def test_no_name_is_not_the_folder_one_stands_in(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(model)
    refused(lambda: bases.base_folder(""), "No base model is named")
    assert bases.base_folder(".") == "."


def test_a_file_instead_of_a_folder(model: Path) -> None:
    refused(lambda: Classifier.load(str(model / "config.json")), "not a folder")
    refused(lambda: Classifier.open(model / "config.json"), "not a model folder")


# ---- folders

Break = Callable[[Path], None]


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def no_tokeniser(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()


BROKEN: dict[str, tuple[Break, str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), "no config.json"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "no weights"),
    "pickled": (lambda f: (f / "model.safetensors").replace(f / "pytorch_model.bin") and None, "pickle"),
    "half of the weights": (lambda f: halve(f / "model.safetensors"), "damaged"),
    "empty weights": (lambda f: (f / "model.safetensors").write_bytes(b"") and None, "damaged"),
    "other bytes": (lambda f: (f / "model.safetensors").write_bytes(b"\x80\x04" * 999) and None, "damaged"),
    "half a config": (lambda f: halve(f / "config.json"), "config"),
    "a list as config": (lambda f: (f / "config.json").write_text("[]") and None, "could not be loaded"),
    "an unknown kind": (lambda f: edit_json(f / "config.json", model_type="nonsense"), "nonsense"),
    "weights of another shape": (lambda f: edit_json(f / "config.json", hidden_size=64), "random"),
    "half a tokeniser": (lambda f: halve(f / "tokenizer.json"), "could not be loaded"),
    "no tokeniser": (no_tokeniser, "tokeniser"),
}


@pytest.mark.parametrize("trouble", BROKEN)
def test_a_broken_folder(model: Path, trouble: str) -> None:
    change, word = BROKEN[trouble]
    change(model)
    before = listing(model.parent)
    refused(lambda: Classifier.load(str(model)), word, str(model))
    refused(lambda: Classifier.open(model), word, str(model))
    refused(lambda: Backbone.load(str(model)), "") if trouble not in ("weights of another shape",) else None
    assert listing(model.parent) == before


@pytest.mark.parametrize("with_config", [False, True])
def test_an_adapter_is_no_base_model_and_is_called_one(model: Path, with_config: bool) -> None:
    (model / "model.safetensors").replace(model / "adapter_model.safetensors")
    (model / "adapter_config.json").write_text('{"base_model_name_or_path": "some/base"}')
    if not with_config:
        (model / "config.json").unlink()
    refused(lambda: Classifier.load(str(model)), "holds an adapter", "Merge it")


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_no_kind_gets_a_made_up_tokeniser(kind: str, tmp_path: Path) -> None:
    folder = Path(tiny.build(kind, tmp_path))
    no_tokeniser(folder)
    refused(lambda: Classifier.load(str(folder)), "could not be loaded")


def test_a_pickle_is_not_opened(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("a pickle was opened"))
    (model / "model.safetensors").replace(model / "pytorch_model.bin")
    refused(lambda: Classifier.load(str(model)), "pickle", "safetensors")


def test_code_of_a_repository_is_neither_run_nor_asked_about(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked at the terminal"))
    ran = tmp_path / "ran"
    (model / "evil.py").write_text(f"open({str(ran)!r}, 'w').write('x')\nclass Config: ...\nclass Model: ...\n")
    auto_map = {
        "AutoConfig": "evil.Config",
        "AutoModel": "evil.Model",
        "AutoModelForSequenceClassification": "evil.Model",
    }
    edit_json(model / "config.json", auto_map=auto_map, model_type="evil")
    refused(lambda: Classifier.load(str(model)), "code of its own")
    refused(lambda: Backbone.load(str(model)), "code of its own")
    edit_json(model / "config.json", model_type="bert")  # transformers has a class of its own: that one is used
    edit_json(model / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Tokenizer", None]})
    Classifier.load(str(model))
    assert not ran.exists()


# ---- models that cannot be a reward model


def _vision() -> Any:
    import transformers as t

    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return t.ViTModel(t.ViTConfig(**size, image_size=16, patch_size=8))


def _mamba() -> Any:
    import transformers as t

    return t.MambaForCausalLM(t.MambaConfig(vocab_size=340, hidden_size=16, num_hidden_layers=1, state_size=4))


def _canine() -> Any:
    import transformers as t

    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return t.CanineForSequenceClassification(t.CanineConfig(**size, num_hash_buckets=32, num_hash_functions=2))


@pytest.mark.parametrize("made", [_vision, _mamba, _canine])
@pytest.mark.parametrize("fit", ["full", "lora"])
def test_a_model_that_gives_no_reward(made: Callable[[], Any], fit: Any, tmp_path: Path) -> None:
    made().save_pretrained(tmp_path)
    tiny.tokeniser("gpt2").save_pretrained(tmp_path)
    refused(lambda: Classifier.load(str(tmp_path), fit=fit))


@pytest.mark.parametrize("kind", tiny.BOTH)
def test_one_that_reads_its_end_token_needs_its_own_tokeniser_and_a_start(kind: str, tmp_path: Path) -> None:
    folder = Path(tiny.build(kind, tmp_path / "model", head=True))
    Classifier.load(str(folder))
    edit_json(folder / "config.json", decoder_start_token_id=None)
    if kind == "t5":  # BART's configuration has one of its own
        refused(lambda: Classifier.load(str(folder)), "decoder_start_token_id")
    tiny.tokeniser("gpt2").save_pretrained(folder)
    refused(lambda: Classifier.open(folder), "reads the reward off its end token", "own tokeniser")


def test_a_body_without_a_head_is_no_trained_model(tmp_path: Path) -> None:
    refused(lambda: Classifier.open(Path(tiny.build("llama", tmp_path))), "without a reward head", "random")


# ---- adapters


@pytest.fixture
def adapter(model: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "adapter"
    folder.mkdir()
    Classifier.load(str(model), fit="lora", lora_rank=2).save(folder)
    return folder


def test_broken_adapters(adapter: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    refused(lambda: Classifier.load(str(adapter)), "config.json")
    weights, config = adapter / "adapter_model.safetensors", adapter / "adapter_config.json"
    whole, facts = weights.read_bytes(), config.read_text()
    halve(weights)
    refused(lambda: Classifier.open(adapter), "damaged")
    weights.unlink()
    refused(lambda: Classifier.open(adapter), "no weights (adapter_model.safetensors)")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("a pickle was opened"))
    (adapter / "adapter_model.bin").write_bytes(whole)
    refused(lambda: Classifier.open(adapter), "pickle")
    weights.write_bytes(whole)
    edit_json(config, peft_type="NONSENSE")
    refused(lambda: Classifier.open(adapter), "NONSENSE")
    config.write_text("{")
    (adapter / "reward_model.json").unlink()
    refused(lambda: Classifier.open(adapter), "names no base model")
    config.write_text(facts)
    model.rename(model.with_name("moved"))
    refused(lambda: Classifier.open(adapter), str(model), "not a folder")


# ---- the hub


class Hub:
    """Answers every request with `status`, or not at all; keeps what was asked."""

    def __init__(self) -> None:
        hub = self
        self.status, self.code, self.asked = 404, "", []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.asked.append(self.path)
                if not hub.status:
                    hub.closing.wait(20)
                    return
                self.send_response(hub.status)
                self.send_header("X-Error-Code", hub.code)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_HEAD = do_POST = do_GET

            def log_message(self, *_: Any) -> None: ...

        self.closing = threading.Event()
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    hub = Hub()
    _point_hub_at(monkeypatch, hub.address)
    yield hub
    hub.closing.set()
    hub.server.shutdown()
    hub.server.server_close()


def test_no_network_is_said_in_seconds() -> None:
    started = time.monotonic()
    refused(lambda: Classifier.load("some/model"), "cannot be reached", "not in the local cache", "'bundled'")
    assert time.monotonic() - started < 5


def test_offline_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    refused(lambda: Classifier.load("some/model"), "offline mode is on")


@pytest.mark.parametrize(
    ("status", "code", "word"),
    [
        (401, "RepoNotFound", "no such model"),
        (404, "RepoNotFound", "no such model"),
        (403, "GatedRepo", "terms"),
        (503, "", "503"),
        (0, "", "timed out"),
    ],
)
def test_a_hub_that_does_not_give_the_model(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, status: int, code: str, word: str
) -> None:
    monkeypatch.setattr(bases, "HUB_TIMEOUT_S", 0.3)
    hub.status, hub.code = status, code
    started = time.monotonic()
    refused(lambda: Classifier.load("some/model"), word, "some/model")
    assert time.monotonic() - started < 5
    assert len([path for path in hub.asked if "some/model" in path]) == 1  # no second try, no retries


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """tiny/bert as an earlier download left it in the cache."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    inside = tmp_path / "hub" / "models--tiny--bert"
    (inside / "refs").mkdir(parents=True)
    (inside / "refs" / "main").write_text("a" * 40)
    return Path(tiny.build("bert", inside / "snapshots" / ("a" * 40), head=True))


def test_a_cached_model_needs_no_network(cached: Path, tmp_path: Path) -> None:
    started = time.monotonic()
    model = Classifier.load("tiny/bert", fit="lora", lora_rank=2)
    assert time.monotonic() - started < 5
    assert model.name == "tiny/bert"
    folder = tmp_path / "adapter"
    folder.mkdir()
    model.save(folder)
    assert time.monotonic() - started < 5
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == "tiny/bert"
    Classifier.open(folder)
    assert time.monotonic() - started < 10


def test_half_a_download_and_no_network(cached: Path) -> None:
    (cached / "model.safetensors").unlink()
    refused(lambda: Classifier.load("tiny/bert"), "no weights")


def test_a_lost_connection_while_loading() -> None:
    from huggingface_hub.errors import HTTPError

    def lost() -> None:
        with bases.in_words("some/model"):
            raise HTTPError("peer closed connection")

    refused(lost, "some/model", "peer closed connection")
