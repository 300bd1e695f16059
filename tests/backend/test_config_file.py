"""A settings file: it reads back to the bit, each mistake gets a sentence, and it starts the same run again."""

import json
import os
import tomllib
from dataclasses import replace

import psutil
import pytest

from ser_backend import config, config_file
from ser_backend.cli import main
from ser_backend.config import ENGINES, PRESETS, RunConfig, from_preset
from ser_backend.config_file import Named
from ser_backend.errors import NotFound, SerError
from ser_backend.records import Dataset


@pytest.fixture
def no_supervisor_left_behind():
    yield
    for process in psutil.process_iter(["cmdline"]):
        if (
            "ser_backend.supervisor" in (process.info["cmdline"] or [])
            and process.environ().get("SER_HOME") == os.environ["SER_HOME"]
        ):
            process.terminate()


def a_set(role, name="n", id="0" * 32):
    return Dataset(id, name, role, 10, 20, 5, 0, 0, "2026-01-01T00:00:00+00:00", {})


SETS = {"seed": a_set("seed", "s", "1" * 32), "pool": a_set("pool", "p", "2" * 32)}


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("engine", ENGINES)
def test_every_preset_reads_back_to_the_bit(preset, engine):
    settings = replace(from_preset(preset, engine), learning_rate=1.0000000000000002e-05, tau_delta=0.1 + 0.2)
    found = config_file.read(config_file.write(settings, SETS, "my run"))
    assert found.config == settings
    assert found.data == {"seed": Named("s", "1" * 32), "pool": Named("p", "2" * 32)}
    assert found.name == "my run"
    assert found.notes == ()


@pytest.mark.parametrize(
    "name", ['a "b" \\ c', "tab\there", "\x7f\x01", "日本 😀", "'''", "# no comment", "half \ud83d", "= [x]"]
)
def test_whatever_a_name_holds_the_file_is_toml(name):
    text = config_file.write(RunConfig(), SETS, name)
    assert tomllib.loads(text)["about"]["name"] == name.replace("\ud83d", "?")
    assert config_file.read(text.encode()).config == RunConfig()


def test_windows_line_ends_and_a_byte_order_mark_change_nothing():
    text = config_file.write(RunConfig(), SETS)
    assert config_file.read(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode()).config == RunConfig()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[settings]\nround = 2", "the setting 'round', which there is none of. Did you mean 'rounds'?"),
        ("[settings]\nrounds = 2.5", "rounds is 2.5; it must be a whole number."),
        ("[settings]\nrounds = '2'", "rounds is '2'; it must be a whole number."),
        ("[settings]\nrounds = true", "rounds is True; it must be a whole number."),
        ("[settings]\ntau_delta = 'x'", "tau_delta is 'x'; it must be a number."),
        ("[settings]\ntau_delta = nan", "tau_delta is not a number"),
        ("[settings]\ntau_delta = inf", "tau_delta is inf; it must be from 0 to 1."),
        ("[settings]\nfit = 3", "fit is 3; it must be text in quotation marks."),
        ("[settings]\nfit = 'all'", "fit is 'all'; it must be one of head, lora, full."),
        ("[settings]\nrounds = 99", "rounds is 99; it must be from 0 to 50."),
        ("[settings]\nrounds = 1\nrounds = 2", "is no TOML file"),
        ("{}", "is no TOML file"),
        (b"\xff\xfe", "is no TOML file"),
        (b"PK\x03\x04" + b"\0" * 300_000, "too many for settings"),
        ("", "has no section [settings]"),
        ("settings = 3", "has no section [settings]"),
        ("[setting]\nrounds = 1", "the section 'setting', which there is none of. Did you mean 'settings'?"),
        ("[about]\nformat = 2\nversion = '9.9'\n[settings]", "written by a newer SER Studio (9.9)"),
        ("[data]\nseed = 'x'\n[settings]", "[data] seed is 'x'; it must be a section of its own."),
        ("[data.seed]\nname = 3\n[settings]", "[data.seed] name is 3; it must be text"),
        ("[data.seed]\n[settings]", "[data.seed] names no data set"),
        ("[data.sed]\nname = 'x'\n[settings]", "Did you mean 'seed'?"),
    ],
)
def test_a_mistake_gets_a_sentence(text, sentence):
    with pytest.raises(SerError) as error:
        config_file.read(text, "my.toml")
    assert sentence in str(error.value)
    assert "my.toml" in str(error.value)


def test_a_whole_number_may_stand_for_a_fraction_and_what_is_missing_is_named():
    found = config_file.read("[settings]\nepochs = 3\nrounds = 2\n")
    assert found.config == RunConfig(epochs=3.0, rounds=2)
    assert isinstance(found.config.epochs, float)
    (note,) = found.notes
    assert note.startswith("Not named in the file, so as usual: base_model = bundled")
    assert "rounds" not in note


def test_another_version_and_answers_that_are_not_in_the_file_are_told():
    text = config_file.write(RunConfig(), SETS, answers=40)
    text = text.replace(f'version = "{config_file.__version__}"', 'version = "0.0.1"')
    said = " ".join(config_file.read(text).notes)
    assert "written by SER Studio 0.0.1" in said
    assert "40 answers given in Review, which are not in the file" in said


def test_data_is_found_by_its_content_and_what_is_missing_is_told(store, sets):
    seed = sets["seed"]
    assert config_file.find(store, "seed", Named("whatever", seed.id)) == seed  # renamed since
    assert config_file.find(store, "seed", Named(seed.name, "")) == seed  # written by hand
    with pytest.raises(NotFound, match="so a run on it would be another run"):
        config_file.find(store, "seed", Named(seed.name, "f" * 32))
    with pytest.raises(NotFound, match="with the content ffffffff, which is not here"):
        config_file.find(store, "pool", Named("gone", "f" * 32))
    with pytest.raises(NotFound, match="held-out set 'gone', which is not here"):
        config_file.find(store, "heldout", Named("gone", ""))
    with pytest.raises(NotFound):  # of another role
        config_file.find(store, "pool", Named(seed.name, seed.id))


def test_the_file_of_a_run_starts_the_same_run_again(
    world, tiny_model, tmp_path, capsys, store, no_supervisor_left_behind
):
    """Figures of the two reports are equal to the last bit; only names, ids and times differ."""
    small = [f"base_model={tiny_model}", "components=16", "max_length=64", "gate=off", "tau_delta=0.2", "random_seed=5"]
    settings = [part for text in (*small, "threads=1") for part in ("--set", text)]
    where = ["--seed", world.seed, "--pool", world.pool, "--heldout", world.heldout]
    first, second, file = tmp_path / "first", tmp_path / "second", tmp_path / "run.toml"
    assert main(["run", *map(str, where), "--preset", "paper-code", "--rounds", "2", *settings, "--name", "one", "--out",
                 str(first)]) == 0, capsys.readouterr().err  # fmt: skip
    assert main(["config", "one", "--out", str(file)]) == 0
    assert main(["run", "--config", str(file), "--name", "two", "--out", str(second)]) == 0, capsys.readouterr().err
    one, two = (json.loads((folder / "report.json").read_text()) for folder in (first, second))
    assert one["rounds"][1]["n_kept"] > 0
    for report in (one, two):
        for name in ("run", "name"):
            del report[name]
        for round_ in report["rounds"]:
            del round_["seconds"]
    assert one == two
    capsys.readouterr()
    assert main(["config", "two"]) == 0
    assert tomllib.loads(capsys.readouterr().out)["settings"] == tomllib.loads(file.read_text())["settings"]
    assert main(["run", "--config", str(file), "--preset", "careful"]) == 1
    assert "--config names every setting, so --preset would have no place" in capsys.readouterr().err
    file.write_text(file.read_text().replace(store.datasets("pool")[0].id, "f" * 32))
    assert main(["run", "--config", str(file)]) == 1
    assert "has other content" in capsys.readouterr().err
    assert main(["compare", "one", "two", "--json", str(tmp_path / "c.json"), "--csv", str(tmp_path / "c.csv")]) == 0
    said = capsys.readouterr().out
    assert "no difference at all" in said
    assert json.loads((tmp_path / "c.json").read_text())["differences"][1]["value"] == 0
    assert len((tmp_path / "c.csv").read_text().splitlines()) == 3
    assert main(["compare", "one", "one"]) == 1
    assert "1 different runs were named" in capsys.readouterr().err


def test_every_setting_has_a_type_that_the_file_can_hold():
    assert {entry["type"] for entry in config.describe().values()} <= {str, int, float}
