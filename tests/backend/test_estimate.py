import fcntl
import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from ser_backend import cli, home, jobs
from ser_backend.cli import main, parser
from ser_backend.config import ENGINES, PRESETS, RunConfig
from ser_backend.cost import dry_run, estimate, forecast, machine
from ser_backend.cost.forecast import Forecast, Measured, Note, Work, in_words
from ser_backend.cost.machine import GIB, Gpu, Machine
from ser_backend.errors import SerError
from ser_backend.records import Dataset, Round, Status
from ser_backend.store import Store

Sets = dict[str, Dataset]

MEASURED = Measured(
    fit="full", device="cpu", memory=24 * GIB, once=10.0, n_new=0, stage=5.0, seed=Work(10, 20.0, 1.0),
    pool=Work(100, 200.0, 4.0), end=3.0, step=2.0, tokens_per_second=1_000.0, peak_memory=int(2.1 * GIB),
)  # fmt: skip
TUNED = RunConfig(fit="full", epochs=2.0, rounds=3)


@pytest.fixture(autouse=True)
def same_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dry run takes a slot, and with it a GPU or none, for the rest of its process; here that is the tests'."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def quiet(state: str, sentence: str) -> None:
    pass


# ---- arithmetic


def test_a_worked_example_of_the_forecast() -> None:
    found = forecast.forecast(MEASURED, replace(TUNED, train_on="cumulative", rounds=1))
    assert found.seed == 10 + 5 + 2 * 20 + 1
    # model: 2 epochs on a fifth of the pool; control: as many steps (40) at two seconds each, its texts opened once
    usual = 5 + 0.2 * (2 * 200 + 4)
    control = 5 + 1 + 2 * 0.2 * 100 * 2.0
    assert found.rounds == (pytest.approx(usual + control),)
    most = 5 + (2 * 200 + 4) + 5 + 1 + 2 * 100 * 2.0
    assert found.rounds_at_most == (pytest.approx(most),)
    assert found.seconds == pytest.approx(found.seed + usual + control + 3)


@pytest.mark.parametrize("train_on", ["new", "cumulative", "cumulative+seed"])
def test_more_epochs_and_rounds_take_longer_and_at_most_is_never_less(train_on: str) -> None:
    config = replace(TUNED, train_on=train_on)
    found = forecast.forecast(MEASURED, config)
    assert forecast.forecast(MEASURED, replace(config, rounds=4)).seconds > found.seconds
    assert forecast.forecast(MEASURED, replace(config, epochs=3.0)).seconds > found.seconds
    assert found.at_most >= found.seconds
    assert found.after(0) == found.seed + found.end


def test_a_pair_is_new_only_once() -> None:
    found = forecast.forecast(MEASURED, replace(TUNED, train_on="new"))
    assert found.rounds_at_most[0] > 10 * found.rounds_at_most[1]


def test_the_control_of_a_head_costs_nothing() -> None:
    head = replace(MEASURED, fit="head", step=0.0)
    found = forecast.forecast(head, RunConfig(rounds=1, train_on="cumulative"))
    assert found.rounds_at_most == (pytest.approx(5 + 200 + 4),)


# ---- words


def words(**changed: object) -> str:
    facts = forecast.as_json(forecast.forecast(MEASURED, replace(TUNED, train_on="cumulative"))) | changed
    found = forecast.from_json(facts)
    assert found
    return in_words(found)


def test_an_estimate_in_words() -> None:
    said = words(seed=40.0, rounds=[70.0, 70.0], rounds_at_most=[110.0, 110.0], end=0.0, step=0.8)
    assert said == (
        "About 3 min, at most 4 min 20 s: seed model 40 s, then about 70 s a round (at most 1 min 50 s); "
        "peak memory 2.1 of 24 GiB; 0.8 s a step, 1,000 tokens a second."
    )
    assert (
        words(seed=3.0, rounds=[1.0], rounds_at_most=[1.5], end=0.0, step=0)
        == "A few seconds: all texts are read already."
    )


def test_durations_are_round() -> None:
    found = [forecast.duration(seconds) for seconds in (0.2, 40, 110, 120, 594, 1_500, 7_500)]
    assert found == ["1 s", "40 s", "1 min 50 s", "2 min", "9 min 50 s", "25 min", "2 h 05 min"]


def test_memory_that_is_nearly_all_there_is_brings_a_warning() -> None:
    found = forecast.forecast(replace(MEASURED, peak_memory=23 * GIB), TUNED)
    assert "may not fit" in forecast.warnings(found)[0]
    assert not forecast.warnings(forecast.forecast(MEASURED, TUNED))


def test_an_estimate_survives_a_file_and_another_version_is_none() -> None:
    found = forecast.forecast(MEASURED, TUNED)
    assert forecast.from_json(json.loads(json.dumps(forecast.as_json(found)))) == found
    assert forecast.from_json({"seconds": 3}) is None
    assert forecast.from_json(None) is None


# ---- files


def test_the_key_names_what_changes_the_pace_and_nothing_else() -> None:
    machine = Machine(2, 24 * GIB)

    def key(config: RunConfig, pool: str = "p", on: Machine = machine) -> str:
        return forecast.key_of(config, "s", pool, None, on)

    first = key(TUNED)
    for same in ({"rounds": 9}, {"epochs": 1.0}, {"tau_high": 0.6}, {"learning_rate": 1e-5}):
        assert key(replace(TUNED, **same)) == first
    for other in ({"fit": "lora"}, {"batch_size": 8}, {"frozen_layers": 1}, {"max_length": 128}):
        assert key(replace(TUNED, **other)) != first
    assert key(TUNED, pool="q") != first
    assert key(TUNED, on=Machine(4, 24 * GIB)) != first


def test_a_dry_run_that_vanished_has_failed_and_one_that_only_waited_is_forgotten(
    ser_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("STARTING_S", "HAND_OVER_S"):
        monkeypatch.setattr(forecast, name, 60.0)
    for state in ("starting", "measuring"):
        forecast.write("k", Note(state, "", {"seed": "s"}))  # type: ignore[arg-type]
        assert forecast.read("k").state == state
    for name in ("STARTING_S", "HAND_OVER_S"):
        monkeypatch.setattr(forecast, name, -1.0)
    assert forecast.read("k").state == "failed"
    assert "probably for lack of memory" in forecast.read("k").said
    forecast.write("k", Note("starting"))
    assert forecast.read("k").state == "none"
    forecast.write("k", Note("waiting", "A run is training."))
    assert forecast.read("k").state == "none"
    with forecast.lock_of("k").open("a") as lock:  # as its process would
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert forecast.read("k").state == "waiting"


def test_a_failure_is_tried_again_later(ser_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forecast.write("k", Note("failed", "No network."))
    assert forecast.read("k").said == "No network."
    monkeypatch.setattr(forecast, "AGAIN_S", -1.0)
    assert forecast.read("k").state == "none"


def test_texts_read_since_put_an_estimate_out_of_date(ser_home: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    head = replace(MEASURED, fit="head", cache=str(cache), stamp=forecast.stamp_of(str(cache)))
    forecast.write("k", Note("ready", measured=head))
    assert forecast.read("k").measured == head
    (cache / "more").touch()
    assert forecast.read("k").state == "none"


# ---- the dry run


@pytest.fixture
def tuned(config: RunConfig) -> RunConfig:
    return replace(config, fit="full", batch_size=8, frozen_layers=1, gate="on")


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("fit", ["full", "lora", "head"])
def test_a_dry_run_measures_and_changes_nothing(
    store: Store, tuned: RunConfig, data_of: Callable, fit: str, ser_home: Path, tiny_model: str,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("SER_CACHE", str(tmp_path / "cache"))
    config = replace(tuned, fit=fit)
    data = data_of(config)
    before = everything(ser_home / "datasets") | everything(Path(tiny_model))
    found = estimate.measure(store, config, data, quiet)
    assert everything(ser_home / "datasets") | everything(Path(tiny_model)) == before
    assert not (ser_home / "runs").exists()
    assert not everything(tmp_path / "cache")
    assert found.fit == fit
    assert found.peak_memory > 0
    assert found.memory >= found.peak_memory / 2
    if fit == "head":
        assert found.n_new == len(data.response_keys)
        return
    assert found.step > 0
    # all open pairs of the pool, once: at most 16 of its texts a step, one pair at least
    n_texts = len(np.unique(np.concatenate([end[data.pool_open] for end in data.ends("pool")])))
    assert n_texts / 16 <= found.pool.steps < data.pool_open.sum()
    assert found.seed.steps < found.pool.steps
    assert found.pool.seconds > found.seed.seconds > 0


def test_texts_that_are_all_read_need_no_model(
    store: Store, config: RunConfig, data_of: Callable, sets: Sets, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = data_of(config)
    run = jobs.submit(store, config, sets["seed"].id, sets["pool"].id, sets["heldout"].id, detached=False)
    cache = estimate.features.FeatureCache("print", 4)
    cache.write(data.response_keys.tolist(), np.zeros((len(data.response_keys), 4), np.float16))
    named = {"base_model": "bundled", "fingerprint": "print", "max_length": config.max_length}
    estimate.RunFolder.of(run.id).write_json("encoder", named)
    monkeypatch.setattr(estimate.features.Backbone, "load", None)  # calling it would fail
    found = estimate.measure(store, replace(config, base_model="bundled"), data, quiet)
    assert found.n_new == 0
    said = in_words(forecast.forecast(found, config))
    assert said == "A few seconds: all texts are read already."


def test_a_large_pool_is_sampled_by_whole_groups(
    data_of: Callable, tuned: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = data_of(tuned)
    mask = np.ones(len(data.seed_rows), bool)
    whole = dry_run.sample_of(data, mask, 0)
    assert (whole.seed_share, whole.pool_share) == (1, 1)
    monkeypatch.setattr(dry_run, "MOST_TEXTS", 100)
    some = dry_run.sample_of(data, mask, 0)
    assert len(some.pool) == 25
    assert some.pool_share == pytest.approx(25 / data.pool_open.sum())
    assert len(some.texts) < len(whole.texts)
    groups = data.pool.group_keys[np.flatnonzero(data.pool_open)]
    assert len(np.unique(groups)) > 6  # 25 pairs of groups of 5: five groups, one perhaps cut
    a, _ = data.ends("pool")
    mine = {row for row in some.texts[some.pool.preferred].tolist()}
    assert len({int(group) for group, row in zip(data.pool.group_keys, a, strict=True) if int(row) in mine}) <= 7


def test_a_busy_slot_is_waited_for_and_said(
    store: Store, tuned: RunConfig, data_of: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimate, "this_machine", lambda: Machine(2, 24 * GIB))
    told: list[tuple[str, str]] = []

    def tell(state: str, sentence: str) -> None:
        told.append((state, sentence))
        if state == "waiting":
            fcntl.flock(lock, fcntl.LOCK_UN)  # the run ends

    with (home.home() / "slot-cpu.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        estimate.measure(store, replace(tuned, fit="head"), data_of(tuned), tell)
    assert told[0] == ("waiting", "A run is training; the estimate waits for its end.")
    assert told[1][0] == "measuring"


def test_memory_that_runs_out_is_a_sentence(
    store: Store, tuned: RunConfig, data_of: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(estimate, "tuned", full)
    with pytest.raises(SerError, match="The dry run ran out of memory"):
        estimate.measure(store, tuned, data_of(tuned), quiet)


def test_a_page_fetches_no_model(store: Store, tuned: RunConfig, data_of: Callable) -> None:
    far = replace(tuned, base_model="nobody/nothing-of-that-name")
    with pytest.raises(SerError, match="is not on this machine yet"):
        estimate.measure(store, far, data_of(far), quiet, may_fetch=False)


# ---- asked for by a page


def test_a_process_of_its_own_measures_once_and_the_run_keeps_it(store: Store, tuned: RunConfig, sets: Sets) -> None:
    asked = (replace(tuned, fit="head"), sets["seed"].id, sets["pool"].id, sets["heldout"].id)
    assert jobs.estimate(store, *asked).is_on_its_way
    deadline = time.monotonic() + 120
    while (found := jobs.estimate(store, *asked)).is_on_its_way and time.monotonic() < deadline:
        time.sleep(0.1)
    assert found.state == "ready", found.said
    assert isinstance(found.found, Forecast)
    run = jobs.submit(store, *asked, detached=False)
    assert jobs.estimated(run.id) == found.found
    assert jobs.took(store, run.id) is None
    _, left = psutil.wait_procs(psutil.Process().children(), timeout=20)
    assert not left
    assert not forecast.under_way(forecast.key_of(*asked, jobs.this_machine()))


def test_a_run_that_starts_has_the_slot_at_once(
    store: Store, tuned: RunConfig, sets: Sets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimate, "this_machine", lambda: Machine(2, 24 * GIB))
    asked = {"config": tuned.as_dict(), "seed": sets["seed"].id, "pool": sets["pool"].id, "heldout": None}
    forecast.write("abc", Note("measuring", "", asked))
    began_again = threading.Event()

    def begin_again(*_: object) -> None:
        began_again.set()

    def busy(*_: object) -> Measured:
        jobs.submit(store, tuned, sets["seed"].id, sets["pool"].id, detached=False)
        store.claim_job("cpu")
        assert began_again.wait(10)
        return MEASURED

    monkeypatch.setattr(estimate.os, "execv", begin_again)
    monkeypatch.setattr(estimate, "tuned", busy)
    estimate.main("abc")
    assert began_again.is_set()


def test_nobody_waits_so_it_ends(store: Store, tuned: RunConfig, sets: Sets, monkeypatch: pytest.MonkeyPatch) -> None:
    key = "abc"
    asked = {"config": tuned.as_dict(), "seed": sets["seed"].id, "pool": sets["pool"].id, "heldout": None}
    forecast.write(key, Note("measuring", "", asked))
    monkeypatch.setattr(estimate, "GONE_S", -1.0)
    assert estimate.main(key) == 0
    assert forecast.read(key).state == "none"


def test_a_second_process_leaves_the_first_alone(
    store: Store, tuned: RunConfig, sets: Sets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimate, "measure", None)  # calling it would fail
    with forecast.lock_of("abc").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        thread = threading.Thread(target=estimate.main, args=("abc",))
        thread.start()
        thread.join(10)
    assert not thread.is_alive()


# ---- on the command line


def test_the_command_line_says_the_same_and_keeps_it(
    store: Store, world: Any, tuned: RunConfig, tiny_model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--seed", str(world.seed), "--pool", str(world.pool), "--set", f"base_model={tiny_model}"]
    asked += ["--fit", "full", "--preset", "paper-code", "--set", "max_length=64", "--set", "batch_size=8"]
    assert main(["estimate", *asked]) == 0
    first = capsys.readouterr().out
    assert "peak memory" in first
    assert main(["estimate", *asked]) == 0  # no second dry run
    assert capsys.readouterr().out.splitlines()[-3:] == first.splitlines()[-3:]
    assert [forecast.read(path.stem).state for path in forecast.folder().glob("*.json")] == ["ready"]


def test_the_command_line_lists_presets_and_the_engine_of_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets"]) == 0
    said = capsys.readouterr().out
    for name in (*PRESETS, *ENGINES):
        assert f"  {name}" in said
    assert said.count("(default)") == 2
    assert "engine is chosen." in said


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--engine", "laptop-finetune"], {"fit": "full", "frozen_layers": 3}),
        (["--engine", "laptop-finetune", "--set", "frozen_layers=1"], {"fit": "full", "frozen_layers": 1}),
        (["--engine", "laptop-finetune", "--fit", "lora"], {"fit": "lora", "frozen_layers": 3}),
        (["--fit", "lora"], {"fit": "lora", "base_model": "bundled", "frozen_layers": 0}),
        (["--set", "base_model=mine"], {"fit": "head", "base_model": "mine"}),
        ([], {"base_model": "Qwen/Qwen3-1.7B", "fit": "lora"}),
    ],
)
def test_what_is_set_by_name_wins_over_engine_and_machine(
    arguments: list[str], expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "this_machine", lambda: Machine(8, 64 * GIB, (Gpu("A10G", 24 * GIB),)))
    chosen = parser().parse_args(["run", "--seed", "s", "--pool", "p", *arguments])
    made = cli.runs.config_of(chosen)[0].as_dict()
    assert made.items() >= expected.items()


# ---- afterwards


def test_estimate_and_truth_are_compared() -> None:
    found = forecast.forecast(MEASURED, replace(TUNED, train_on="cumulative"))
    plain = Round(0, 0, 0, 0, 0, 0, 0, None, None, None, None, "new", "", 0.0)
    rounds = [replace(plain, index=index, details={"peak_memory": int(1.9 * GIB)}) for index in range(4)]
    said = forecast.compared(found, rounds, 320.0)
    assert said.startswith(f"Estimated {forecast.duration(found.seconds)}; took 5 min 20 s")
    assert said.endswith("peak memory 1.9 GiB, estimated 2.1 GiB.")
    early = forecast.compared(found, rounds[:2], 100.0)
    assert f"Estimated {forecast.duration(found.after(1))} for 1 of 3 rounds" in early


def test_what_a_run_took_is_known_when_it_succeeded(store: Store, tuned: RunConfig, sets: Sets) -> None:
    run = jobs.submit(store, tuned, sets["seed"].id, sets["pool"].id, detached=False)
    job = store.claim_job("cpu")
    assert job
    assert jobs.took(store, run.id) is None
    store.finish_job(job.id, Status.SUCCEEDED)
    took = jobs.took(store, run.id)
    assert took is not None
    assert 0 <= took < 60
