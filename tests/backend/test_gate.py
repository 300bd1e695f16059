import numpy as np

from ser_backend.gate import cooled_loss, judge

RANDOM = np.random.default_rng(0)
LABELS = np.ones(400)
GOOD = RANDOM.normal(1.0, 1, 400)
BAD = RANDOM.normal(0.3, 1, 400)


def test_the_better_model_is_promoted_and_the_worse_rolled_back() -> None:
    assert judge(GOOD, BAD, BAD, LABELS, False).promoted == "new"
    assert judge(BAD, GOOD, BAD, LABELS, False).promoted == "previous"
    assert judge(BAD, BAD - 1, GOOD, LABELS, False).promoted == "control"


def test_with_new_answers_the_fallback_is_the_control_that_knows_them() -> None:
    assert judge(BAD, GOOD, GOOD - 0.1, LABELS, True).promoted == "control"


def test_a_larger_scale_alone_is_no_harm() -> None:
    assert np.isclose(cooled_loss(GOOD, LABELS).mean(), cooled_loss(GOOD * 3, LABELS).mean(), atol=1e-3)


def test_words_give_the_figures() -> None:
    said = judge(BAD, GOOD, GOOD, LABELS, False).why
    assert said.startswith("rolled back: -")
    assert "on 400 human labels" in said
