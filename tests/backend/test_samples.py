"""The committed sample sets are what their script writes, and they teach quality, not length."""

import csv
import gzip
import importlib.util
import json
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "data" / "samples"
SETS = ("seed", "pool", "heldout")
FORMATS = [
    "array.json",
    "hh-transcripts.jsonl",
    "pairs.jsonl.gz",
    "pairs.parquet",
    "preferred.csv",
    "stack-exchange.jsonl.gz",
    "trl-conversational.jsonl",
    "trl-implicit-prompt.jsonl",
    "unusual-columns.csv",
]


@pytest.fixture(scope="module")
def make_samples():
    spec = importlib.util.spec_from_file_location("make_samples", FOLDER / "make_samples.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    yield spec.loader.exec_module(module) or module
    del sys.modules[spec.name]


def rows(name):
    return [json.loads(line) for line in (FOLDER / f"sample-{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def responses(row):
    return tuple(row[column] for column in ("chosen", "rejected", "response_a", "response_b") if column in row)


def strings(value):
    if isinstance(value, str):
        return [value]
    return [text for part in (value.values() if isinstance(value, dict) else value) for text in strings(part)]


def format_rows(name):
    path = FOLDER / "formats" / name
    if name.endswith(".parquet"):
        import pyarrow.parquet

        return pyarrow.parquet.read_table(path).to_pylist()
    data = path.read_bytes()
    text = (gzip.decompress(data) if name.endswith(".gz") else data).decode()
    if name.endswith(".csv"):
        return list(csv.DictReader(text.splitlines(keepends=True)))
    return json.loads(text) if name.endswith(".json") else [json.loads(line) for line in text.splitlines()]


def test_check_passes_on_the_committed_files(make_samples, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["make_samples.py", "--check"])
    assert make_samples.main() == 0, capsys.readouterr().out


def test_check_names_a_file_that_was_edited(make_samples, monkeypatch):
    written = make_samples.files()
    written["sample-seed.jsonl"] += b"{}\n"
    monkeypatch.setattr(make_samples, "files", lambda: written)
    assert make_samples.differing() == ["sample-seed.jsonl"]


def test_writing_twice_gives_the_same_bytes(make_samples):
    first = make_samples.files()
    make_samples.sets.cache_clear()
    make_samples.prompts.cache_clear()
    assert make_samples.files() == first


def test_sizes_and_columns():
    assert [len(rows(name)) for name in SETS] == [120, 500, 200]
    labelled, unlabelled = {"prompt", "chosen", "rejected"}, {"prompt", "response_a", "response_b"}
    for name in SETS:
        columns = {frozenset(row) for row in rows(name)}
        assert columns == {frozenset((unlabelled if name == "pool" else labelled) | {"group", "domain"})}
    assert sum(path.stat().st_size for path in FOLDER.rglob("*.*") if path.is_file()) < 1_000_000


def test_readme_states_every_set_and_file():
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert all(f"formats/{name}" in readme for name in FORMATS)
    for name in SETS:
        line = next(line for line in readme.splitlines() if f"`sample-{name}.jsonl`" in line and line.startswith("|"))
        numbers = [cell.strip() for cell in line.split("|")]
        in_set = rows(name)
        texts = {(row["prompt"], text) for row in in_set for text in responses(row)}
        assert [str(n) for n in (len(in_set), len({row["prompt"] for row in in_set}), len(texts))] == numbers[2:5]


def test_the_pool_says_nothing_about_its_labels(make_samples):
    labels = make_samples.hidden_pool_labels()
    assert len(labels) == 500
    assert 0.42 < Counter(labels)["a"] / 500 < 0.58
    pool_texts = {text for row in rows("pool") for text in responses(row)}
    for name in FORMATS:  # what is labelled anywhere else is not about a response of the pool
        values = "\n".join(text for row in format_rows(name) for text in strings(row))
        assert not any(text in values for text in pool_texts)


def test_hidden_labels_are_the_grades_but_for_the_noise(make_samples):
    grade = {text: g for _, _, graded in make_samples.prompts().values() for g, text in graded}
    clean, noisy = make_samples.hidden_pool_labels(noise=False), make_samples.hidden_pool_labels()
    for row, label in zip(rows("pool"), clean, strict=True):
        assert label == ("a" if grade[row["response_a"]] > grade[row["response_b"]] else "b")
    assert sum(x != y for x, y in zip(clean, noisy, strict=True)) == 40
    for name, flipped in (("seed", 10), ("heldout", 16)):
        assert sum(grade[row["chosen"]] < grade[row["rejected"]] for row in rows(name)) == flipped


@pytest.mark.parametrize("name", SETS)
def test_four_or_more_responses_a_prompt_and_one_group_a_prompt(name):
    texts, groups = defaultdict(set), defaultdict(set)
    for row in rows(name):
        texts[row["prompt"]].update(responses(row))
        groups[row["prompt"]].add(row["group"])
    assert min(map(len, texts.values())) >= 4
    assert all(len(of_prompt) == 1 for of_prompt in groups.values())


def test_a_prompt_and_a_response_occur_in_one_set_only():
    for columns in (("prompt",), ("chosen", "rejected", "response_a", "response_b"), ("group",)):
        found = [{row[column] for row in rows(name) for column in columns if column in row} for name in SETS]
        assert sum(map(len, found)) == len(set().union(*found))


def test_length_does_not_tell_the_better_response(make_samples):
    for pairs in make_samples.sets().values():
        assert 0.45 <= sum(len(pair.chosen) > len(pair.rejected) for pair in pairs) / len(pairs) <= 0.58
    everything = make_samples.graded(set(make_samples.prompts()))
    assert 0.45 <= sum(len(pair.better) > len(pair.worse) for pair in everything) / len(everything) <= 0.58


def test_texts_are_distinct_and_no_pair_comes_twice(make_samples):
    texts = [
        text for _, prompt, graded in make_samples.prompts().values() for text in (prompt, *(t for _, t in graded))
    ]
    assert all(text.strip() == text and text for text in texts)
    assert len({" ".join(text.lower().split()) for text in texts}) == len(texts) == 560
    for name in SETS:
        assert len({frozenset(responses(row)) for row in rows(name)}) == len(rows(name))


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_has_rows_and_nothing_empty(name):
    found = format_rows(name)
    assert len(found) == 24
    assert len({frozenset(row) for row in found}) == 1
    assert all(value for row in found for value in row.values())


def test_the_formats_are_what_they_claim():
    assert sorted(Counter(row["preferred"] for row in format_rows("preferred.csv"))) == ["a", "b", "tie"]
    seed = {row["prompt"]: row["group"] for row in rows("seed")}
    for row in format_rows("hh-transcripts.jsonl"):
        prompts = {row[side].split("\n\nAssistant: ")[0].removeprefix("\n\nHuman: ") for side in ("chosen", "rejected")}
        assert len(prompts) == 1
        assert prompts <= set(seed)
    for row in format_rows("trl-implicit-prompt.jsonl"):
        prompt = next(prompt for prompt in seed if row["chosen"].startswith(f"{prompt} "))
        chosen, rejected = (row[side].removeprefix(f"{prompt} ") for side in ("chosen", "rejected"))
        assert row["rejected"].startswith(f"{prompt} ")
        assert chosen[0] != rejected[0]
    for row in format_rows("trl-conversational.jsonl"):
        assert [[turn["role"] for turn in row[part]] for part in ("prompt", "chosen", "rejected")] == [
            ["user"],
            ["assistant"],
            ["assistant"],
        ]
