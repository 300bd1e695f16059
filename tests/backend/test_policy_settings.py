"""Settings, the documentation made of them, and the command line."""

import json
from pathlib import Path

import numpy as np
import pytest
import tiny

from ser_backend.cli import main, parser
from ser_backend.errors import SerError
from ser_backend.policy import members
from ser_backend.policy.settings import PRESETS, PolicySettings, describe, markdown_table
from ser_backend.reward_model import Rewarder

ROOT = Path(__file__).parents[2]


def test_the_docs_hold_the_settings_as_the_code_describes_them():
    assert markdown_table() in (ROOT / "docs" / "policy.md").read_text()


def test_every_setting_is_an_option_and_every_preset_fits():
    options = [
        text
        for n, e in describe().items()
        for text in (f"--{n.replace('_', '-')}", e["among"][0] if e["among"] else "1")
    ]
    chosen = parser().parse_args(["policy", "train", "--name", "x", *options])
    assert {f"set_{name}" for name in describe()} <= set(vars(chosen))
    named = {"base_model": "m", "reward_models": "r", "prompts": "p"}
    for _, settings in PRESETS.values():
        PolicySettings().changed({**named, **settings}).validate()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": "many"}, "steps is 'many'; it must be a whole number"),
        ({"colour": 1}, "There is no setting 'colour'"),
        ({"beta": "nan"}, "beta is not a number; it must be from 0 to 100"),
        ({"method": "ppo"}, "method is 'ppo'; it must be one of rloo, grpo, dpo, sft"),
        ({"reward_models": "r, r"}, "named twice"),
        ({"sft_steps": 3}, "sft_steps learns from examples"),
    ],
)
def test_wrong_settings_are_said_in_a_sentence(changes, said):
    named = {"base_model": "m", "reward_models": "r", "prompts": "p"}
    with pytest.raises(SerError, match=said):
        PolicySettings().changed({**named, **changes}).validate()


def test_best_of_and_train_from_the_command_line(ser_home, tmp_path, monkeypatch, capsys):
    base = tiny.build("llama", tmp_path / "base")

    def opener(name, threads):
        def read(responses):
            yield np.arange(len(responses)), np.array([float(r.text.count(name[-1])) for r in responses])

        return Rewarder(name, name, read)

    monkeypatch.setattr("ser_backend.scorer.model.rewarder", opener)
    prompts = tmp_path / "prompts.csv"
    prompts.write_text("question\n" + "".join(f"what is {word}\n" for word in tiny.PLAIN))
    common = [
        "--base-model",
        base,
        "--prompts",
        str(prompts),
        "--max-new-tokens",
        "8",
        "--max-prompt-tokens",
        "40",
        "--threads",
        "1",
    ]
    out = tmp_path / "gain"
    assert (
        main(
            [
                "policy",
                "best-of",
                *common,
                "--reward-models",
                "hub/e",
                "--judge",
                "hub/a",
                "--n",
                "8",
                "--out",
                str(out),
            ]
        )
        == 0
    )
    told = capsys.readouterr().out
    assert "Best of 8, at a KL of 1.20 nats, gains +" in told
    found = json.loads((out / "best_of.json").read_text())
    assert [point["n"] for point in found["points"]] == [1, 2, 4, 8]
    assert found["points"][0]["reward"] == pytest.approx(0, abs=1e-12)
    assert found["points"][-1]["low"] > 0
    lines = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    assert len(lines) == 8 * (len(tiny.PLAIN) // 2)
    assert lines[0]["rewards"] == [lines[0]["response"].count("e")]

    train = [
        "policy",
        "train",
        "--name",
        "first",
        *common,
        "--reward-models",
        "hub/e",
        "--steps",
        "1",
        "--prompts-per-step",
        "2",
        "--preset",
        "laptop",
    ]
    assert main(train) == 0
    told = capsys.readouterr().out
    assert "Held-out prompts after training: reward" in told
    assert (ser_home / "policies" / "first" / "model" / "model.safetensors").exists()
    assert main(["policy"]) == 0
    assert "first" in capsys.readouterr().out
    assert main(["policy", "train", "--name", "second", *common]) == 1
    assert "no reward model is named" in capsys.readouterr().err


def test_a_reward_model_of_the_product_is_asked_as_score_asks_it(tmp_path):
    folder = tiny.build("bert", tmp_path / "reward", head=True)
    opened = members.open_members([folder], "", 1)
    prompts, texts = ["what is it", "how", "how"], ["clear and exact", "", "a\ud83d mess"]
    found = opened.rewards(prompts, texts)
    assert found.shape == (3, 1)
    assert np.isfinite(found).all()
    alone = [opened.rewards([p], [t])[0, 0] for p, t in zip(prompts, texts, strict=True)]
    assert found[:, 0] == pytest.approx(alone, abs=1e-5)
    assert opened.judged(prompts, texts) is None
