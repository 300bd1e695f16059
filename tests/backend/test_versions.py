import json
from pathlib import Path

import numpy as np
import pytest

from ser_backend import ingest, jobs, versions
from ser_backend.config import RunConfig
from ser_backend.errors import Forbidden, SerError
from ser_backend.pairs import PairSet
from ser_backend.records import Dataset, Run, User
from ser_backend.store import Store

N_SEED, N_POOL = 60, 12


@pytest.fixture
def store(ser_home: Path) -> Store:
    return Store.open()


def rows(n: int, tag: str, turned: bool = False) -> list[dict[str, str]]:
    found = [
        {"prompt": f"{tag} {i // 2}?", "chosen": f"good {tag} {i}", "rejected": f"bad {tag} {i}"} for i in range(n)
    ]
    return [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in found] if turned else found


def write(path: Path, content: list[dict]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in content), encoding="utf-8")
    return path


def imported(store: Store, tmp_path: Path, content: list[dict], role: str, name: str, **more) -> Dataset:
    return ingest.import_source(store, write(tmp_path / f"{name}.jsonl", content), role, **more).dataset


def a_run(store: Store, tmp_path: Path, turned: bool = False) -> Run:
    seed = imported(store, tmp_path, rows(N_SEED, "s"), "seed", "seed")
    pool = imported(store, tmp_path, rows(N_POOL, "q", turned), "pool", "pool")
    return jobs.submit(store, RunConfig(), seed.id, pool.id, None, "run", detached=False)


@pytest.fixture
def run(store: Store, tmp_path: Path) -> Run:
    return a_run(store, tmp_path)


def say(store: Store, run: Run, pair: str, said: str, who: str = "anna", queue: str = "learn", **changed):
    """said: a, b, tie or skip."""
    verdict = {"a": "left", "b": "right"}.get(said, said)
    facts = {"run": run.id, "pair": pair, "annotator": who, "queue": queue, "verdict": verdict, "left_is": "a"}
    facts |= {"round": 0, "margin": 0.1, "self_label": None, "reason": "", "shown_at": 1.0, "answered_at": 2.0}
    facts |= {"token": f"{pair}-{who}-{queue}-{len(store.reviews(run.id))}", "supersedes": None}
    return store.add_review(overlap=9, **facts | changed)


def ids(dataset_id: str) -> list[str]:
    return [key.decode() for key in PairSet.open(dataset_id).pair_keys]


def labels(dataset_id: str) -> dict[str, int]:
    return dict(zip(ids(dataset_id), PairSet.open(dataset_id).preferred().tolist(), strict=True))


def test_settled_answers_join_the_seed_and_correct_it(store, run):
    pool, seed, before = ids(run.pool), ids(run.seed), labels(run.seed)
    say(store, run, pool[0], "a")
    say(store, run, pool[1], "tie")
    for who, said in (("anna", "b"), ("ben", "b"), ("cleo", "a")):
        say(store, run, pool[2], said, who)  # a majority
    for who, said in (("anna", "a"), ("ben", "b")):
        say(store, run, pool[3], said, who)  # none
    say(store, run, pool[4], "skip")
    undone = say(store, run, pool[5], "a")
    say(store, run, pool[5], "undo", supersedes=undone.id)
    say(store, run, pool[6], "a", queue="repeat")  # says something of the person only
    for who, said in (("anna", "a"), ("ben", "b")):
        say(store, run, pool[7], said, who)
    say(store, run, pool[7], "b", "owner", "adjudicate")
    wrong = "b" if before[seed[0]] == 1 else "a"
    say(store, run, seed[0], wrong, queue="seed")  # a correction
    say(store, run, seed[1], "a" if before[seed[1]] == 1 else "b", queue="seed")  # a confirmation
    say(store, run, seed[2], "b" if before[seed[2]] == 1 else "a", queue="gold")  # says something of the person only

    counts = versions.answers(store, run.id)
    assert (counts.added, counts.ties, counts.corrected, counts.confirmed, counts.disputed) == (4, 1, 1, 1, 1)
    found = versions.merge(store, run.id)
    assert (found.dataset.role, found.dataset.n_pairs, found.dataset.n_ties) == ("seed", N_SEED + 4, 1)
    expected = before | {pool[0]: 1, pool[1]: 0, pool[2]: -1, pool[7]: -1, seed[0]: -before[seed[0]]}
    assert labels(found.dataset.id) == expected
    assert labels(run.seed) == before  # nothing changes in the old one
    assert str(versions.changes(run.seed, found.dataset.id)) == "4 pairs added, 1 pair labelled otherwise; 59 as before"


def test_texts_groups_domains_and_sources_come_along(store, tmp_path):
    seed = imported(
        store,
        tmp_path,
        [{**row, "group": f"g{i % 12}", "domain": "d"} for i, row in enumerate(rows(60, "s"))],
        "seed",
        "seed",
    )
    pool = imported(store, tmp_path, rows(6, "q"), "pool", "pool")
    run = jobs.submit(store, RunConfig(), seed.id, pool.id, None, "run", detached=False)
    pair = ids(pool.id)[3]
    say(store, run, pair, "b")
    made = PairSet.open(versions.merge(store, run.id).dataset.id)
    old, new = PairSet.open(seed.id), PairSet.open(pool.id)
    expected = {p.id: p for p in [*old.pairs(range(old.n_pairs)), *new.pairs(new.rows_of([pair]))]}
    found = {p.id: p for p in made.pairs(range(made.n_pairs))}
    assert {k: (p.group, p.domain, p.source, p.response_a.text) for k, p in found.items()} == {
        k: (p.group, p.domain, p.source, p.response_a.text) for k, p in expected.items()
    }
    keys = dict(zip(ids(old.id), old.group_keys.tolist(), strict=True)) | {pair: new.group_keys[new.rows_of([pair])[0]]}
    assert dict(zip(ids(made.id), made.group_keys.tolist(), strict=True)) == keys


def test_the_same_answers_make_the_same_set_in_whatever_order_they_came(store, run, tmp_path, monkeypatch):
    pool = ids(run.pool)
    for pair, said in zip(pool[:4], ("a", "b", "tie", "a"), strict=True):
        say(store, run, pair, said)
    first = versions.merge(store, run.id, "one")
    again = versions.merge(store, run.id, "two")
    assert again.already_there
    assert again.dataset.id == first.dataset.id
    monkeypatch.setenv("SER_HOME", str(tmp_path / "elsewhere"))
    other = Store.open()
    there = a_run(other, tmp_path)
    for pair, said in reversed(list(zip(pool[:4], ("a", "b", "tie", "a"), strict=True))):
        say(other, there, pair, said, "ben")
    assert versions.merge(other, there.id).dataset.id == first.dataset.id


def test_labels_of_the_pools_source_do_not_come_back(store, run, tmp_path, monkeypatch):
    """Turning every hidden label round changes no byte of what a merge writes."""
    pool = ids(run.pool)
    say(store, run, pool[0], "a")
    say(store, run, pool[1], "b")
    one = PairSet.open(versions.merge(store, run.id).dataset.id).folder
    monkeypatch.setenv("SER_HOME", str(tmp_path / "elsewhere"))
    other = Store.open()
    turned = a_run(other, tmp_path, turned=True)
    assert ids(turned.pool) == pool
    say(other, turned, pool[0], "a")
    say(other, turned, pool[1], "b")
    two = PairSet.open(versions.merge(other, turned.id).dataset.id).folder
    for name in ("pairs.arrow", "responses.arrow", "labels.arrow"):
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_nothing_to_merge_is_a_sentence(store, run):
    with pytest.raises(SerError, match=r"nothing to merge\. Review pairs first"):
        versions.merge(store, run.id)
    pair = ids(run.pool)[0]
    say(store, run, pair, "a")
    say(store, run, pair, "b", "ben")
    with pytest.raises(SerError, match="1 pairs are without a majority"):
        versions.merge(store, run.id)
    assert len(store.datasets()) == 2


def test_who_may_not_export_or_import_may_not_merge(store, run):
    say(store, run, ids(run.pool)[0], "a")
    store.add_user(User("Olga", "owner", "", True, ""), "long enough")
    store.add_user(User("Ann", "annotator", "", True, ""), "long enough")
    annotator = store.acting(User("Ann", "annotator", "", True, ""))
    for act in (versions.answers, versions.merge):
        with pytest.raises(Forbidden):
            act(annotator, run.id)
    with pytest.raises(Forbidden):
        versions.write(annotator, run.seed, Path("nowhere.jsonl"))
    store.add_user(User("Eng", "engineer", "", True, ""), "long enough")
    made = versions.merge(store.acting(User("Eng", "engineer", "", True, "")), run.id).dataset
    assert made.lineage["by"] == "Eng"


def test_lineage_says_from_what_by_what_and_how_much(store, run):
    say(store, run, ids(run.pool)[0], "a")
    made = versions.merge(store, run.id, "second").dataset
    kept = store.dataset("second").lineage
    assert kept == made.lineage
    assert {
        name: kept[name] for name in ("parent", "parent_name", "ancestors", "made_by", "run", "run_name", "by")
    } == {
        "parent": run.seed,
        "parent_name": "seed",
        "ancestors": [run.seed],
        "made_by": "reviews",
        "run": run.id,
        "run_name": "run",
        "by": "",
    }
    assert (kept["added"], kept["corrected"], kept["newest"]) == (1, 0, store.reviews(run.id)[-1].id)


def test_a_set_that_a_merge_made_can_be_trained_on_and_merged_again(store, run, tmp_path):
    say(store, run, ids(run.pool)[0], "a")
    second = versions.merge(store, run.id).dataset
    third_run = jobs.submit(store, RunConfig(), second.id, run.pool, None, "next", detached=False)
    say(store, third_run, ids(run.pool)[1], "b")
    third = versions.merge(store, third_run.id).dataset
    (family,) = [f for f in versions.families(store.datasets()) if f.newest.role == "seed"]
    assert [d.id for d in family.versions] == [third.id, second.id, run.seed]
    assert third.name == "seed + reviews + reviews"
    with pytest.raises(SerError, match="is used by the run"):
        store.remove_dataset(second.id)


# ---- versions of imports


def test_a_corrected_file_is_a_newer_version(store, tmp_path):
    content = rows(10, "s")
    first = imported(store, tmp_path, content, "seed", "one")
    mended = [{**content[0], "chosen": content[0]["rejected"], "rejected": content[0]["chosen"]}, *content[1:9]]
    second = imported(store, tmp_path, [*mended, *rows(3, "new")], "seed", "two", parent=first)
    (family,) = versions.families(store.datasets())
    assert [d.name for d in family.versions] == ["two", "one"]
    assert versions.changes(first.id, second.id) == versions.Changes(added=3, removed=1, relabelled=1, kept=8)


def test_a_version_keeps_its_role(store, tmp_path):
    first = imported(store, tmp_path, rows(10, "s"), "seed", "one")
    with pytest.raises(SerError, match="'one' is a seed set, so a pool set cannot be a newer version"):
        imported(store, tmp_path, rows(10, "s"), "pool", "two", parent=first)
    assert len(store.datasets()) == 1


def test_versions_stay_together_when_one_between_is_removed(store, tmp_path):
    sets = [imported(store, tmp_path, rows(4, "s"), "seed", "v0")]
    for k in (1, 2):
        sets.append(imported(store, tmp_path, rows(4 + k, "s"), "seed", f"v{k}", parent=sets[-1]))
    store.remove_dataset(sets[1].id)
    (family,) = versions.families(store.datasets())
    assert [d.name for d in family.versions] == ["v2", "v0"]


def test_changes_of_pools_are_of_pairs_only(store, tmp_path):
    one = imported(store, tmp_path, rows(6, "q"), "pool", "one")
    two = imported(store, tmp_path, rows(8, "q", turned=True), "pool", "two")
    assert versions.changes(one.id, two.id) == versions.Changes(added=2, removed=0, relabelled=0, kept=6)


# ---- as a file

SHAPES = {
    "prompts": rows(6, "s"),
    "no prompts": [{"chosen": f"one {i} x", "rejected": f"{i} two y"} for i in range(6)],
    "some prompts": [{"chosen": "Say: yes", "rejected": "Say: no"}, {"chosen": "alpha", "rejected": "beta"}],
    "groups and ties": [
        {
            "prompt": f"p{i}",
            "a": f"x{i}",
            "b": f"y{i}",
            "preferred": "tie" if i % 2 else "a",
            "group": "g",
            "domain": "d",
        }
        for i in range(6)
    ],
    "texts that look like verdicts": [{"prompt": "Which?", "chosen": "b", "rejected": "a"}],
    "odd characters": [{"prompt": "p\u2028q", "chosen": "x\u2028\ny", "rejected": "<b>&nbsp;"}],
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("role", ["seed", "pool"])
def test_a_set_written_as_a_file_is_the_same_set_elsewhere(store, tmp_path, monkeypatch, shape, role):
    one = imported(store, tmp_path, SHAPES[shape], role, "set")
    versions.write(store, one.id, tmp_path / "out.jsonl")
    monkeypatch.setenv("SER_HOME", str(tmp_path / "elsewhere"))
    two = ingest.import_source(Store.open(), tmp_path / "out.jsonl", role).dataset
    assert two.id == one.id
    assert two.n_problems == 0


def test_a_pool_is_written_without_a_preference(store, run, tmp_path):
    versions.write(store, run.pool, tmp_path / "pool.jsonl")
    assert not any("preferred" in json.loads(line) for line in (tmp_path / "pool.jsonl").read_text().splitlines())


def test_many_pairs_are_written_in_blocks(store, tmp_path, monkeypatch):
    monkeypatch.setattr(versions, "BLOCK", 4)
    run = a_run(store, tmp_path)
    for pair in ids(run.pool)[:9]:
        say(store, run, pair, "a")
    made = versions.merge(store, run.id).dataset
    assert made.n_pairs == N_SEED + 9
    versions.write(store, made.id, tmp_path / "out.jsonl")
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == N_SEED + 9
    assert int(np.count_nonzero(PairSet.open(made.id).preferred())) == N_SEED + 9
