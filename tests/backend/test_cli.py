import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from safetensors.numpy import save_file

from ser_backend import home
from ser_backend.cli import main
from ser_backend.store import Store

SAMPLES = home.ROOT / "data" / "samples"


@pytest.fixture(autouse=True)
def no_supervisor_left_behind():
    yield
    for process in psutil.process_iter(["cmdline"]):
        if (
            "ser_backend.supervisor" in (process.info["cmdline"] or [])
            and process.environ().get("SER_HOME") == os.environ["SER_HOME"]
        ):
            process.terminate()


def call(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ser_backend", *map(str, arguments)], capture_output=True, text=True, timeout=200
    )


def test_import_run_export_score_retrain_from_the_command_line(world, tiny_model: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    small = [
        "--set",
        f"base_model={tiny_model}",
        "--set",
        "components=16",
        "--set",
        "max_length=64",
        "--set",
        "gate=off",
    ]
    assert call("import", world.seed, "--role", "seed", "--name", "mine").returncode == 0
    ran = call(
        "run", "--seed", "mine", "--pool", world.pool, "--heldout", world.heldout, "--preset", "paper-code", "--rounds", 2,
        "--set", "tau_delta=0.2", *small, "--out", out,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert "round 2: accuracy" in ran.stdout
    report = json.loads((out / "report.json").read_text())
    assert [r["round"] for r in report["rounds"]] == [0, 1, 2]
    assert set(report["rounds"][1]) >= {
        "round", "n_train", "n_pool", "n_kept", "heldout_accuracy", "heldout_interval", "control_accuracy", "seconds",
    }  # fmt: skip
    assert set(report) >= {"config", "versions", "seeds", "rounds", "best_round", "stopped_because", "warnings"}
    assert report["config"]["rounds"] == 2
    run = Store.open().runs()[0]
    scored = call("score", out / "reward_model", world.heldout, "--out", tmp_path / "rewards.jsonl")
    assert scored.returncode == 0, scored.stderr
    assert len((tmp_path / "rewards.jsonl").read_text().splitlines()) == 40
    again = call("retrain", run.id)
    assert again.returncode == 0, again.stderr
    assert "round 3: accuracy" in again.stdout
    assert "round 2: accuracy" not in again.stdout  # only what is new
    assert call("export", run.id, "--out", tmp_path / "two", "--without-base-model").returncode == 0
    listed = call("runs")
    assert run.id in listed.stdout
    assert "succeeded" in listed.stdout
    assert "mine" in call("datasets").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["import", "nowhere.jsonl", "--role", "seed"], "nowhere.jsonl"),
        (["run", "--seed", "a", "--pool", "b"], "There is no data set 'a'"),
        (["run", "--seed", "a", "--pool", "b", "--set", "rounds"], "has no value"),
        (["run", "--seed", "a", "--pool", "b", "--rounds", "x"], "rounds is 'x'"),
        (["export", "none", "--out", "x"], "There is no run 'none'"),
        (["score", "nowhere", "x.csv", "--out", "y"], "is not a reward model folder"),
        (["stop", "none"], "There is no run 'none'"),
        (["retrain", "none"], "There is no run 'none'"),
    ],
)
def test_failure_is_one_sentence_and_a_status(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    said = capsys.readouterr()
    assert message in said.err
    assert "Traceback" not in said.err
    assert said.err.count("\n") == 1


def test_a_folder_in_use_is_refused_before_the_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("mine")
    assert main(["demo", "--out", str(tmp_path)]) == 1
    assert "not an empty folder" in capsys.readouterr().err
    assert Store.open().runs() == []


def test_odd_paths_and_damaged_models_get_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, content in (("list", "[]"), ("empty", "{}"), ("half", '{"kind": "ser-studio linear reward head"}')):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "reward_model.json").write_text(content)
        save_file({"weight": np.zeros(3)}, folder / "head.safetensors")
        assert main(["score", str(folder), "x.csv", "--out", str(tmp_path / "o")]) == 1
    (tmp_path / "list" / "head.safetensors").write_bytes(b"damaged")
    assert main(["score", str(tmp_path / "list"), "x.csv", "--out", str(tmp_path / "o")]) == 1
    assert main(["score", str(tmp_path / "list"), "x.csv", "--out", str(tmp_path)]) == 1
    (tmp_path / "link").symlink_to("/dev/null")
    assert main(["score", str(tmp_path / "list"), "x.csv", "--out", str(tmp_path / "link")]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 6
    assert "is not a plain file" in said


def test_a_failing_run_exits_non_zero_with_its_sentence(world, tmp_path: Path) -> None:
    ran = call("run", "--seed", world.seed, "--pool", world.pool, "--set", f"base_model={tmp_path / 'missing'}")
    assert ran.returncode == 1
    assert "could not be loaded" in ran.stderr
    assert "Traceback" not in ran.stderr + ran.stdout


def test_the_demo_runs_the_sample_with_the_bundled_model(tmp_path: Path) -> None:
    done = call("demo", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["config"]["base_model"] == "bundled"
    assert report["rounds"][0]["heldout_accuracy"] > 0.6
    assert report["rounds"][0]["heldout_n"] == 200
