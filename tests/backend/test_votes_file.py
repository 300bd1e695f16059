import csv
import json
from dataclasses import replace

import pytest

from ser_backend import jobs
from ser_backend.errors import Forbidden, SerError
from ser_backend.records import User
from ser_backend.votes_file import COLUMNS, defused, write_votes


@pytest.fixture
def run(store, sets, config) -> str:
    return jobs.submit(store, config, sets["seed"].id, sets["pool"].id, None, "run", detached=False).id


def answer(store, run, **changed):
    facts = {"run": run, "pair": "0" * 32, "annotator": "anna", "queue": "learn", "verdict": "left", "left_is": "b"}
    facts |= {"round": 1, "margin": -0.1, "self_label": None, "reason": "", "shown_at": 1.5, "answered_at": 2.25}
    facts |= {"token": "t", "supersedes": None, "strength": 2, "guidelines": 3, "model": "round 1"}
    return store.add_review(**facts | changed)


EVIL = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", '=HYPERLINK("http://x","y")', "＝1", "a;=1", "a\n=1"]


@pytest.mark.parametrize("text", EVIL)
def test_no_cell_begins_as_a_formula(text):
    for separator in (";", "\t", "\n", "\r"):
        for cell in defused(text).split(separator):
            assert not cell.strip().startswith(("=", "+", "-", "@", "＝")) or cell[:1] == " "
    assert defused(text).replace("'", "") == text


@pytest.mark.parametrize("text", ["", "plain", "a = b", "1-2", "don't", "a@b.c", " =1"])
def test_other_texts_are_left_alone(text):
    assert defused(text) == text


def test_numbers_stay_numbers():
    assert (defused(-1.5), defused(None), defused(True)) == (-1.5, None, True)


def test_both_files_hold_every_row_and_jsonl_holds_it_exactly(store, run, tmp_path):
    first = answer(store, run, note='=cmd|" /C calc"!A0\nzwölf', reason="-x", annotator="@eve")
    answer(store, run, annotator="@eve", verdict="right", blind=False, supersedes=first.id, token="c")
    last = answer(store, run, annotator="ben", pair="1" * 32, token="t2")
    answer(store, run, annotator="ben", pair="1" * 32, verdict="undo", supersedes=last.id, token="u")
    for suffix in (".csv", ".jsonl"):
        write_votes(store, run, tmp_path / f"votes{suffix}")
    exact = [json.loads(line) for line in (tmp_path / "votes.jsonl").read_text().splitlines()]
    assert exact == [{name: getattr(row, name) for name in COLUMNS} for row in store.reviews(run)]
    assert [row["preferred"] for row in exact] == ["b", "a", "b", None]
    with (tmp_path / "votes.csv").open(encoding="utf-8-sig", newline="") as file:
        cells = list(csv.DictReader(file))
    assert tuple(cells[0]) == COLUMNS
    assert len(cells) == 4
    assert (cells[0]["annotator"], cells[0]["reason"], cells[0]["margin"]) == ("'@eve", "'-x", "-0.1")
    assert cells[0]["note"] == "'" + first.note
    assert (cells[1]["blind"], cells[1]["supersedes"], cells[0]["guidelines"]) == ("False", str(first.id), "3")


def test_only_who_may_export_gets_the_votes(store, run, tmp_path):
    anna = store.add_user(User("anna", "annotator", "", True, ""), "a long password")
    path = tmp_path / "votes.csv"
    with pytest.raises(Forbidden, match="export labels"):
        write_votes(store.acting(anna), run, path)
    assert not path.exists()
    write_votes(store.acting(store.add_user(replace(anna, name="eve", role="engineer"), "a long password")), run, path)
    with pytest.raises(SerError, match=r"votes\.xls ends in neither"):
        write_votes(store, run, tmp_path / "votes.xls")
