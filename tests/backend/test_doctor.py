"""Each check of the doctor against a model or data set that is broken in exactly that way, and sound ones against all."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from safetensors.numpy import load_file, save_file

from ser_backend import ingest
from ser_backend.errors import SerError
from ser_backend.health import checks, doctor
from ser_backend.health.blind_rules import length_rule, side_rule
from ser_backend.health.checks import RULES, Check
from ser_backend.health.doctor import diagnose, examine_accuracy, examine_model, examine_pairs, examine_saved
from ser_backend.pairs import PairSet
from ser_backend.records import Response
from ser_backend.reward_model import HeadModel
from ser_backend.store import Store
from ser_backend.transformer.classifier import Classifier
from ser_backend.transformer.heads import head_of
from ser_backend.transformer.tokens import Ends

SOUND = ("bert", "llama", "qwen2", "gpt2")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Reward models as folders, by kind; "base" is a BERT without a head."""
    made = {kind: tiny.build(kind, tmp_path_factory.mktemp(kind) / "m", head=True) for kind in SOUND}
    return made | {"base": tiny.build("bert", tmp_path_factory.mktemp("base") / "m")}


@pytest.fixture(scope="module")
def loaded(folders: dict[str, str]) -> dict[str, Classifier]:
    return {kind: Classifier.load(folder, max_length=128) for kind, folder in folders.items()}


@pytest.fixture
def model(loaded: dict[str, Classifier]) -> Classifier:
    """A BERT of one's own to break."""
    return own(loaded["bert"])


@pytest.fixture
def decoder(loaded: dict[str, Classifier]) -> Classifier:
    return own(loaded["gpt2"])


def own(model: Classifier) -> Classifier:
    found = copy.copy(model)
    found.model, found.tokenizer, found.missing = copy.deepcopy(model.model), copy.deepcopy(model.tokenizer), []
    return found


def outcomes(made: list[Check]) -> dict[str, str]:
    assert all(one.found and bool(one.remedy) == (one.outcome in ("warning", "failed")) for one in made)
    assert all(one.title == RULES[one.name].title for one in made)
    assert len({one.name for one in made}) == len(made)
    return {one.name: one.outcome for one in made}


def broken(made: list[Check]) -> dict[str, str]:
    return {name: outcome for name, outcome in outcomes(made).items() if outcome in ("warning", "failed")}


def responses(*texts: str, prompt: str = "") -> list[Response]:
    return [Response("", prompt, text) for text in texts]


# ---- sound models


@pytest.mark.parametrize("kind", SOUND)
@pytest.mark.parametrize("fit", ["full", "lora"])
def test_a_sound_model_passes_every_check(folders: dict[str, str], tmp_path: Path, kind: str, fit: Any) -> None:
    model = Classifier.load(folders[kind], max_length=128, fit=fit)
    model.save(tmp_path)
    made = outcomes(examine_model(model) + examine_saved(model, tmp_path))
    assert set(made.values()) == {"ok"}
    assert set(made) == {n for n, rule in RULES.items() if rule.group in ("model", "saved")} - {"opens"}


@pytest.mark.parametrize("kind", SOUND)
def test_a_sound_model_in_coarse_numbers_passes_too(folders: dict[str, str], tmp_path: Path, kind: str) -> None:
    model = Classifier.load(folders[kind], max_length=128, fit="lora", precision="bfloat16")
    model.save(tmp_path)
    assert broken(examine_model(model) + examine_saved(model, tmp_path)) == {}


def test_examining_changes_nothing(model: Classifier) -> None:
    before = model.fingerprint
    examine_model(model)
    assert model.fingerprint == before
    model.forward(model.tokenise(responses("clear answer")), [0]).sum().backward()  # can still be trained


def test_a_base_model_is_only_not_trained_yet(loaded: dict[str, Classifier]) -> None:
    made = outcomes(examine_model(loaded["base"]))
    assert made.pop("head-in-weights") == "skipped"
    assert set(made.values()) == {"ok"}


# ---- broken models


def test_a_head_that_is_not_in_the_weights(loaded: dict[str, Classifier]) -> None:
    assert broken(examine_model(loaded["base"], trained=True)) == {"head-in-weights": "failed"}


def test_weights_that_were_not_found(model: Classifier) -> None:
    model.missing = ["bert.pooler.dense.weight"]
    assert broken(examine_model(model)) == {"loaded-whole": "failed"}


def test_missing_weights_are_noticed_on_loading(folders: dict[str, str], tmp_path: Path) -> None:
    folder = without(folders["bert"], tmp_path / "m", "pooler")
    model = Classifier.open(Path(folder))
    assert model.missing == ["bert.pooler.dense.bias", "bert.pooler.dense.weight"]


def test_nan_in_the_weights(model: Classifier) -> None:
    head_of(model.model).weight.data[0, 0] = float("nan")
    made = outcomes(examine_model(model))
    assert made["weights-finite"] == made["rewards-finite"] == "failed"
    assert made["rewards-differ"] == "skipped"


def test_infinite_rewards_from_finite_weights(model: Classifier) -> None:
    head_of(model.model).weight.data[:] = 3e38
    made = outcomes(examine_model(model))
    assert (made["weights-finite"], made["rewards-finite"]) == ("ok", "failed")


def test_a_head_in_bfloat16(model: Classifier) -> None:
    import torch

    head_of(model.model).to(torch.bfloat16)
    head_of(model.model).forward = lambda hidden, *_: hidden[:, :1]
    assert outcomes(examine_model(model))["head-float32"] == "failed"


def test_padding_that_is_the_end(decoder: Classifier) -> None:
    decoder.tokenizer.pad_token = decoder.tokenizer.eos_token
    decoder.model.config.pad_token_id = decoder.tokenizer.eos_token_id
    made = broken(examine_model(decoder))
    assert made["pad-is-not-end"] == "failed"
    assert made["end-is-seen"] == "failed"  # the end token is taken for padding


def test_no_padding_token(model: Classifier) -> None:
    model.tokenizer.pad_token = None
    made = outcomes(examine_model(model))
    assert made["pad-is-not-end"] == "failed"
    assert made["padding-does-not-matter"] == "skipped"


def test_a_model_that_thinks_another_token_is_padding(decoder: Classifier) -> None:
    decoder.model.config.pad_token_id = 5
    assert broken(examine_model(decoder))["pad-known-to-model"] == "failed"


def test_a_tokeniser_that_doubles_its_start(loaded: dict[str, Classifier]) -> None:
    from tokenizers import processors

    model = own(loaded["llama"])
    start = model.tokenizer.bos_token
    model.tokenizer._tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} {start} $A", special_tokens=[(start, model.tokenizer.bos_token_id)]
    )
    model.ends = Ends.of(model.tokenizer, wants_end=True)
    assert len(model.ends.start) == 2
    assert broken(examine_model(model)) == {"one-start-one-end": "failed"}


def test_texts_that_bring_their_own_start(model: Classifier) -> None:
    keep = model.tokenise
    doubled = model.tokenizer.cls_token_id

    def without_care(given: list[Response]) -> Any:
        table = keep(given)
        if not any("[CLS]" in one.prompt + one.text for one in given):
            return table
        from ser_backend.health.model_checks import _table_of

        return _table_of([[doubled, *table.text(row).tolist()] for row in range(len(table))])

    model.tokenise = without_care  # type: ignore[method-assign]
    assert broken(examine_model(model)) == {"one-start-one-end": "failed"}


def test_a_model_without_an_end_token(decoder: Classifier) -> None:
    decoder.ends = Ends([], [])
    made = broken(examine_model(decoder))
    assert made == {"one-start-one-end": "warning"}


def test_tokens_that_other_programs_would_not_read(model: Classifier) -> None:
    class Shouting:
        def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
            return model.tokenizer(text + " !")

        def __getattr__(self, name: str) -> Any:
            return getattr(model.tokenizer, name)

    found = copy.copy(model)
    found.tokenise = model.tokenise  # type: ignore[method-assign]
    found.tokenizer = Shouting()
    assert broken(examine_model(found)) == {"same-tokens-elsewhere": "warning"}


def test_a_length_beyond_the_positions(model: Classifier) -> None:
    model.max_length = 161
    assert broken(examine_model(model)) == {"max-length-fits": "failed"}


def test_dropout_that_is_on(model: Classifier) -> None:
    import torch

    for module in model.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    model.model.train()
    model.model.eval = lambda: model.model
    assert outcomes(examine_model(model))["dropout-off"] == "failed"


def test_one_reward_for_all(model: Classifier) -> None:
    head_of(model.model).weight.data.zero_()
    assert broken(examine_model(model))["rewards-differ"] == "failed"


def changed_forward(model: Classifier, change: Any) -> None:
    keep = model.forward
    model.forward = lambda table, rows: change(keep(table, rows), table, rows)  # type: ignore[method-assign]


def test_a_reward_that_depends_on_the_batch(model: Classifier) -> None:
    changed_forward(model, lambda rewards, *_: rewards - 0.1 * rewards.mean())
    assert broken(examine_model(model))["batch-does-not-matter"] == "failed"


def test_a_reward_that_depends_on_the_order(model: Classifier) -> None:
    import torch

    changed_forward(model, lambda rewards, *_: rewards + 0.1 * torch.arange(len(rewards)))
    assert broken(examine_model(model))["batch-does-not-matter"] == "failed"


def test_a_reward_that_depends_on_padding(model: Classifier) -> None:
    changed_forward(model, lambda rewards, table, rows: rewards + 0.01 * int(table.lengths[rows].max()))
    assert broken(examine_model(model)) == {"padding-does-not-matter": "failed"}


def test_padding_that_is_not_masked(model: Classifier) -> None:
    keep = model.model.forward
    model.model.forward = lambda input_ids, attention_mask: keep(input_ids=input_ids)
    assert broken(examine_model(model)) == {"padding-does-not-matter": "failed"}


def test_coarse_numbers_may_move_a_reward_a_little() -> None:
    rewards = np.array([1.0, -2.0])
    from ser_backend.health.model_checks import compared

    def outcome(precision: str, moved: float) -> str:
        return compared("batch-does-not-matter", precision, rewards, rewards + moved, "Of 2").outcome

    assert [outcome("float32", moved) for moved in (1e-4, 1e-3)] == ["ok", "failed"]
    assert [outcome("bfloat16", moved) for moved in (0.1, 0.5, 0.7)] == ["ok", "warning", "failed"]


def test_a_reward_that_is_read_off_the_beginning(decoder: Classifier) -> None:
    changed_forward(
        decoder, lambda rewards, table, rows: rewards * 0 + float(table.ids[table.starts[np.asarray(rows)[0]]])
    )
    assert broken(examine_model(decoder))["end-is-seen"] == "failed"


# ---- what is saved


def without(folder: str, target: Path, part: str) -> str:
    """A copy whose weights lack every array with `part` in its name."""
    target.mkdir()
    for file in Path(folder).iterdir():
        if file.suffix == ".safetensors":
            save_file({k: v for k, v in load_file(file).items() if part not in k}, target / file.name, {"format": "pt"})
        else:
            (target / file.name).write_bytes(file.read_bytes())
    return str(target)


@pytest.mark.parametrize("fit", ["full", "lora"])
def test_a_head_that_was_not_saved(folders: dict[str, str], tmp_path: Path, fit: Any) -> None:
    model = Classifier.load(folders["base"], max_length=128, fit=fit)
    (tmp_path / "whole").mkdir()
    model.save(tmp_path / "whole")
    folder = without(str(tmp_path / "whole"), tmp_path / "m", "classifier")
    assert outcomes(examine_saved(model, Path(folder))) == {"head-saved": "failed", "reloads-the-same": "failed"}
    with pytest.raises(SerError, match=r"without (its|a) reward head"):
        Classifier.open(Path(folder))
    told = outcomes(list(diagnose(folder)))
    assert told["head-in-weights"] == "failed"


def test_other_weights_than_those_in_memory(model: Classifier, tmp_path: Path) -> None:
    model.save(tmp_path)
    head_of(model.model).weight.data += 0.1
    assert broken(examine_saved(model, tmp_path)) == {"reloads-the-same": "failed"}


# ---- pairs


def pairs_of(model: Classifier, *texts: str, prompt: str = "", preferred: Any = (0,), other: Any = (1,)) -> list[Check]:
    return examine_pairs(model, model.tokenise(responses(*texts, prompt=prompt)), preferred, other)


def test_sound_pairs(loaded: dict[str, Classifier]) -> None:
    for kind in SOUND:
        made = outcomes(pairs_of(loaded[kind], "clear answer", "wrong guess", prompt="what is it"))
        assert set(made.values()) == {"ok"}
        assert set(made) == {name for name, rule in RULES.items() if rule.group == "data"}


def test_prompts_that_are_cut_are_counted(model: Classifier) -> None:
    made = pairs_of(model, "clear", "wrong", prompt="what " * 200)
    assert broken(made) == {"prompts-whole": "warning"}
    assert next(one for one in made if one.name == "prompts-whole").found.startswith("2 of 2 texts (100.0%)")


def test_responses_that_are_cut_are_counted(model: Classifier) -> None:
    few = [f"clear {word}" for word in tiny.PLAIN]
    assert broken(pairs_of(model, "clear " * 200, *few)) == {"responses-whole": "warning"}
    assert broken(pairs_of(model, "clear " * 200, "wrong")) == {"responses-whole": "failed"}


def test_pairs_that_are_the_same_after_the_cut(model: Classifier) -> None:
    long = "clear " * 200
    made = broken(pairs_of(model, long + "kind", long + "rude"))
    assert made == {"responses-whole": "failed", "pairs-differ": "failed"}
    many = [f"clear {word} {end}" for word in tiny.PLAIN for end in ("kind", "rude")]
    rows = np.arange(len(many))
    table = model.tokenise(responses(*many, "it  is", "it is"))
    made = broken(examine_pairs(model, table, [*rows, len(rows)], [*rows[::-1], len(rows) + 1]))
    assert made["pairs-differ"] == "warning"


def test_pairs_that_are_labelled_both_ways(model: Classifier) -> None:
    made = pairs_of(model, "clear", "wrong", "kind", preferred=(0, 1, 0), other=(1, 0, 2))
    assert broken(made) == {"labels-agree": "warning"}
    assert made[-1].found.startswith("1 pairs")


def test_a_script_that_the_tokeniser_does_not_know(model: Classifier) -> None:
    assert broken(pairs_of(model, "ответ ясный", "ответ грубый it")) == {"unknown-words": "warning"}
    assert broken(pairs_of(model, "clear answer " * 10 + "ответ", "wrong")) == {}


def test_special_tokens_inside_texts(loaded: dict[str, Classifier]) -> None:
    made = pairs_of(loaded["bert"], "clear [SEP] answer", "wrong guess")
    assert broken(made) == {"special-strings": "warning"}
    assert "1 of 2 texts" in made[3].found
    assert "'[SEP]'" in made[3].found
    assert broken(pairs_of(loaded["gpt2"], "clear<|endoftext|> answer", "wrong")) == {"special-strings": "warning"}


# ---- accuracy


def world(n: int = 400) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """preferred and two random length margins; the second tells the label in 7 of 10 pairs."""
    random = np.random.default_rng(0)
    preferred = random.choice([-1, 1], n)
    telling = np.where(random.random(n) < 0.7, preferred, -preferred) * random.integers(1, 50, n)
    return preferred, random.integers(-50, 50, n), telling


def test_a_model_that_beats_the_simple_rules() -> None:
    preferred, chance, telling = world()
    margin = np.where(np.arange(400) % 10 < 9, preferred, -preferred) * 0.3
    for lengths in (chance, telling):
        made = examine_accuracy(margin, preferred, lengths, np.arange(400) // 2)
        assert outcomes(made) == {"beats-length": "ok", "beats-majority": "ok"}
    assert "accuracy 90.0 % (86.7 to 92.6, n = 400)" in made[0].found


def test_length_alone_is_better_also_when_shorter_wins() -> None:
    preferred, chance, telling = world()
    for lengths in (telling, -telling):
        assert broken(examine_accuracy(chance, preferred, lengths)) == {
            "beats-length": "failed",
            "beats-majority": "warning",
        }


def test_always_the_same_answer_is_better() -> None:
    preferred = np.where(np.arange(400) % 10 < 8, -1, 1)
    margin = np.where(np.arange(400) % 10 < 6, preferred, -preferred)
    made = examine_accuracy(margin, preferred, np.zeros(400))
    assert outcomes(made) == {"beats-length": "skipped", "beats-majority": "failed"}
    assert "'always the second', 80.0 %" in made[1].found


def test_too_few_pairs_to_tell_is_a_warning_and_none_is_skipped() -> None:
    preferred = np.array([1, -1, 1, 0])
    made = examine_accuracy(preferred.astype(float), preferred, np.array([3, 3, -1, 2]), np.zeros(4))
    assert set(outcomes(made).values()) <= {"warning", "ok"}
    assert set(outcomes(examine_accuracy(np.ones(2), np.zeros(2), np.ones(2))).values()) == {"skipped"}


# ---- the whole of it


@pytest.fixture
def file(tmp_path: Path) -> Path:
    rows = [
        {"prompt": f"what {i}", "chosen": f"{tiny.GOOD[i % 10]} answer {i}", "rejected": f"{tiny.BAD[i % 10]} guess"}
        for i in range(30)
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_trained_model_and_a_file(folders: dict[str, str], file: Path) -> None:
    told = []
    made = outcomes(list(diagnose(folders["bert"], str(file), lambda done, total: told.append((done, total)))))
    assert set(made) == set(RULES)
    assert told[-1] == (60, 60)
    assert {made[name] for name, rule in RULES.items() if rule.group != "accuracy"} == {"ok"}


def test_a_base_model_and_a_file_have_no_accuracy(folders: dict[str, str], file: Path) -> None:
    made = outcomes(list(diagnose(folders["base"], str(file))))
    assert made["beats-length"] == made["beats-majority"] == made["head-in-weights"] == "skipped"
    assert "failed" not in made.values()


@pytest.fixture
def head(tiny_model: str, tmp_path: Path) -> Path:
    """A linear head as an export writes it."""
    from ser_backend.transformer.features import Backbone

    base = Backbone.load(tiny_model, 64)
    weight = np.random.default_rng(0).normal(size=base.width)
    (tmp_path / "out" / "reward_model").mkdir(parents=True)
    made = HeadModel(weight, 0.1, tiny_model, base.fingerprint, base.max_length)
    made.save(tmp_path / "out" / "reward_model", with_base_model=True)
    return tmp_path / "out"


@pytest.mark.parametrize("holds", [False, True])
def test_a_tokeniser_that_knows_more_than_the_model(holds: bool, tmp_path: Path) -> None:
    folder = tiny.build("bert", tmp_path / "model", head=True)
    tokenizer = tiny.tokeniser("bert")
    tokenizer.add_tokens(["zebra"])
    tokenizer.save_pretrained(folder)
    path = tmp_path / "pairs.jsonl"
    path.write_text(
        json.dumps({"prompt": "what", "chosen": "a zebra" if holds else "clear", "rejected": "rude"}) + "\n"
    )
    made = outcomes(list(diagnose(folder, str(path))))
    assert made["tokens-known"] == ("failed" if holds else "warning")
    assert made["opens"] == "ok"


def test_a_linear_head_is_sound_where_the_checks_apply(head: Path, file: Path) -> None:
    made = outcomes(list(diagnose(str(head), str(file))))  # the folder of the export, with reward_model in it
    assert set(made) == set(RULES)
    assert {name for name, outcome in made.items() if outcome == "skipped"} == {
        "pad-known-to-model",
        "same-tokens-elsewhere",
    }
    assert "failed" not in {made[name] for name in made if RULES[name].group != "accuracy"}


def test_a_held_out_file_gives_the_rules_the_figures_that_watch_shows(head: Path, tmp_path: Path) -> None:
    """Watch reads them off the imported set; the file has a pair twice, one labelled both ways, and ties in length."""
    rows = [
        {"prompt": f"what {i}", "chosen": f"yes {i}" + " so" * (i % 4), "rejected": f"no {i}" + " oh" * (i % 3)}
        for i in range(60)
    ]
    turned = {"prompt": "what 1", "chosen": rows[1]["rejected"], "rejected": rows[1]["chosen"]}
    path = tmp_path / "heldout.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0], turned]))
    kept = PairSet.open(ingest.import_source(Store.open(), path, "heldout").dataset.id)
    longer_by = kept.response_lengths[kept.response_a] - kept.response_lengths[kept.response_b]
    by_length, by_side = length_rule(longer_by, kept.preferred()), side_rule(kept.preferred())
    assert by_side.accuracy.n == by_length.accuracy.n == 59
    found = {one.name: one.found for one in diagnose(str(head), str(path))}
    assert f"of 'preferring {by_length.name}', {100 * by_length.accuracy.value:.1f} %:" in found["beats-length"]
    assert f"of '{by_side.name}', {100 * by_side.accuracy.value:.1f} %:" in found["beats-majority"]
    assert "n = 59" in found["beats-length"]


def test_texts_that_a_run_has_read_are_not_read_again(
    head: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ser_backend.ingest import read_pairs
    from ser_backend.records import response_id
    from ser_backend.reward_model import open_model
    from ser_backend.transformer.features import Backbone, fill_cache

    monkeypatch.setenv("SER_CACHE", str(tmp_path / "cache"))
    fresh = [one.found for one in diagnose(str(head), str(file))]
    backbone = HeadModel.load(head / "reward_model").backbone()
    texts = [Response("", row.prompt, text) for row in read_pairs(file) for text in (row.first, row.second)][:-3]
    keys = [response_id(text.prompt, text.text).encode() for text in texts]
    for _ in fill_cache(backbone, keys, lambda rows: [texts[row] for row in rows]):
        pass
    read: list[int] = []
    encode = Backbone.encode
    monkeypatch.setattr(Backbone, "encode", lambda self, some: read.append(len(some)) or encode(self, some))
    assert [one.found for one in diagnose(str(head), str(file))] == fresh
    assert read == [3], "only what is not in the cache"
    read.clear()
    *_, (n, rewards) = open_model(str(head)).rewards(texts)
    assert (n, len(rewards), read) == (57, 57, [])


def test_a_linear_head_with_nan(head: Path) -> None:
    path = head / "reward_model" / "head.safetensors"
    arrays = load_file(path)
    arrays["weight"][3] = np.nan
    save_file(arrays, path)
    made = broken(list(diagnose(str(head / "reward_model"))))
    assert made["weights-finite"] == made["rewards-finite"] == "failed"


def test_a_linear_head_that_weighs_nothing_sees_no_end(head: Path) -> None:
    path = head / "reward_model" / "head.safetensors"
    arrays = load_file(path)
    arrays["weight"][:] = 0
    save_file(arrays, path)
    assert broken(list(diagnose(str(head)))) == {"rewards-differ": "failed", "end-is-seen": "failed"}


def test_a_model_that_does_not_open_is_a_failed_check_and_none_at_all_an_error(
    tmp_path: Path, folders: dict[str, str]
) -> None:
    (tmp_path / "damaged").mkdir()
    for file in Path(folders["bert"]).iterdir():
        (tmp_path / "damaged" / file.name).write_bytes(file.read_bytes()[:1000])
    assert broken(list(diagnose(str(tmp_path / "damaged")))) == {"opens": "failed"}
    with pytest.raises(SerError, match="There is no folder"):
        list(diagnose(str(tmp_path / "nothing")))
    with pytest.raises(SerError):
        list(diagnose(folders["bert"], str(tmp_path / "nothing.csv")))


def test_a_file_without_labels_is_refused(folders: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "pool.jsonl"
    path.write_text(json.dumps({"prompt": "what", "response_a": "it", "response_b": "is"}))
    with pytest.raises(SerError, match="needed are labelled pairs"):
        list(diagnose(folders["bert"], str(path)))


def test_the_command_prints_a_line_a_check_and_fails_when_one_did(
    folders: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from ser_backend.cli import main

    assert main(["doctor", folders["bert"]]) == 0
    said = capsys.readouterr().out.splitlines()
    assert all(line.startswith(("ok ", "skipped ")) for line in said[:-1])
    assert said[-1] in (
        f"{len(said) - 1} checks, all fine.",
        f"{len(said) - 1} checks: {len(said) - 2} fine, 1 skipped.",
    )

    assert main(["doctor", without(folders["bert"], tmp_path / "m", "classifier")]) == 1
    said = capsys.readouterr().out.splitlines()
    place = next(i for i, line in enumerate(said) if line.startswith("FAILED   head-in-weights: "))
    assert said[place + 1].startswith(" " * 11 + "Save the model again")
    assert ": 1 failed, " in said[-1]


# ---- words


def test_checks_in_words_and_as_json() -> None:
    made = [checks.check("opens", "ok", "Fine."), checks.check("pairs-differ", "skipped", "None.")]
    assert checks.in_words(made) == "2 checks: 1 fine, 1 skipped"
    made += [checks.check("rewards-differ", outcome, "So.") for outcome in ("warning", "failed", "warning")]
    assert checks.in_words(made) == "5 checks: 1 failed, 2 warnings, 1 fine, 1 skipped"
    assert checks.in_words(made[:1]) == "1 check, all fine"
    assert checks.in_words([]) == "0 checks"
    assert checks.worst(made) == "failed"
    assert checks.worst(made[:2]) == "ok"
    assert checks.worst([]) == "skipped"
    assert checks.from_dicts(json.loads(json.dumps(doctor.as_dicts(made)))) == made
    assert checks.from_dicts([{"outcome": "odd"}, 3, {"outcome": "ok"}]) == [Check("", "", "ok", "", "")]


def test_every_check_is_documented_as_the_code_describes_it() -> None:
    text = (Path(__file__).parents[2] / "docs" / "doctor.md").read_text()
    for group, title in checks.GROUPS.items():
        assert f"## {title}\n" in text
        assert checks.markdown_table(group) in text
    assert {rule.group for rule in RULES.values()} == set(checks.GROUPS)
