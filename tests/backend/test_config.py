import pytest

from ser_backend.config import DEFAULT_PRESET, PRESETS, RunConfig, describe, from_preset
from ser_backend.errors import SerError


def test_defaults_and_presets_are_valid_and_few_enough_to_read() -> None:
    RunConfig().validate()
    for name in PRESETS:
        from_preset(name)
    assert DEFAULT_PRESET in PRESETS
    assert len(describe()) <= 20


def test_the_published_numbers_are_the_defaults() -> None:
    paper = RunConfig()
    assert (paper.tau_high, paper.tau_low, paper.tau_delta, paper.min_kept, paper.rounds) == (0.55, 0.45, 0.3, 0.02, 3)
    assert (paper.filter, paper.train_on, paper.init, paper.centre, paper.thresholds) == (
        "union",
        "new",
        "warm",
        "off",
        "absolute",
    )


def test_typed_text_becomes_numbers() -> None:
    changed = RunConfig().changed({"rounds": " 5 ", "tau_delta": "0.25", "filter": "staged"})
    assert (changed.rounds, changed.tau_delta, changed.filter) == (5, 0.25, "staged")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"colour": "red"}, "There is no setting 'colour'"),
        ({"rounds": "many"}, "rounds is 'many'; it must be a whole number"),
        ({"rounds": "1.5"}, "whole number"),
        ({"tau_high": "1.5"}, "tau_high is 1.5; it must be from 0.5 to 1"),
        ({"tau_high": "nan"}, "tau_high is not a number"),
        ({"filter": "none"}, "filter is 'none'; it must be one of union, staged"),
    ],
)
def test_a_wrong_setting_is_refused_in_words(settings: dict, message: str) -> None:
    with pytest.raises(SerError, match=message):
        RunConfig().changed(settings)
    with pytest.raises(SerError, match="There is no preset 'x'"):
        from_preset("x")
