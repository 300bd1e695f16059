"""What a policy is asked, and the examples it learns from."""

import json
from pathlib import Path

import pytest
import tiny

from ser_backend.errors import NotFound, SerError
from ser_backend.policy import prompts as asking


@pytest.fixture
def file(tmp_path):
    words = [*tiny.PLAIN, *tiny.GOOD]
    rows = [{"prompt": f"what is {w}", "chosen": f"the {w} is clear", "rejected": f"a mess of {w}"} for w in words]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_prompts_are_distinct_and_those_held_out_are_in_no_example(store, file):
    rows = Path(file).read_text()
    Path(file).write_text(rows + rows + '{"prompt": " ", "chosen": "x", "rejected": "y"}\n')
    asked = asking.gather(store, file, file, heldout=5, random_seed=0)
    assert (len(asked.train), len(asked.heldout), asked.n_empty) == (22, 5, 1)
    assert not {*asked.train} & {*asked.heldout}
    assert not {e.prompt for e in asked.examples} & {*asked.heldout}
    assert asked.n_held_examples == 10
    assert asking.gather(store, file, file, 5, 0) == asked
    assert asking.gather(store, file, file, 5, 1).heldout != asked.heldout


def test_half_a_character_becomes_one_that_tokenisers_take(store, file):
    rows = Path(file).read_text()
    Path(file).write_text(rows + '{"prompt": "a \\ud800 b", "chosen": "x \\udfff", "rejected": "y"}\n')
    asked = asking.gather(store, file, file, heldout=1, random_seed=0)
    assert "a \ufffd b" in {*asked.train, *asked.heldout}
    for text in (*asked.train, *(part for example in asked.examples for part in example)):
        text.encode()


def test_prompts_of_an_imported_set_of_any_role(store, sets):
    found = {role: set(asking.read_prompts(store, dataset.name)) for role, dataset in sets.items()}
    assert found["seed"] == {f"topic{i} what is it" for i in range(20)}
    assert len(found["pool"]) == 40
    assert all(e.chosen != e.rejected for e in asking.read_examples(store, sets["seed"].name))
    with pytest.raises(SerError, match="a pool keeps no labels"):
        list(asking.read_examples(store, sets["pool"].name))
    with pytest.raises(NotFound, match="Imported so far"):
        asking.gather(store, "nothing", "", 5, 0)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"prompt": " "}\n', "holds no prompt that is not empty .1 rows"),
        ('{"prompt": "a"}\n{"prompt": "a"}\n', "holds one distinct prompt"),
        ('{"length": 3}\n', "has length; a column named prompt"),
    ],
)
def test_a_file_without_prompts_is_refused(store, tmp_path, content, said):
    path = tmp_path / "few.jsonl"
    path.write_text(content)
    with pytest.raises(SerError, match=said):
        asking.gather(store, str(path), "", 5, 0)


def test_every_prompt_is_asked_before_any_is_asked_again():
    order = asking.order_of(5, 12, 0)
    assert sorted(order[:5]) == sorted(order[5:10]) == list(range(5))
    assert len(order) == 12
