"""A figure shows the numbers it was given, and says so where it was given none."""

import math

import charts
import pytest
from fabricate import KEPT, N_POOL, a_picture, a_round

from ser_backend.config import RunConfig
from ser_backend.records import Interval

CONFIG = RunConfig().as_dict()


def trace(figure, name):
    return next(found for found in figure.data if found.name == name)


def test_accuracy_holds_every_interval():
    rounds = [a_round(0), a_round(1), a_round(2, promoted="previous", heldout=Interval(0.61, 0.5, 0.7, 90))]
    model = trace(charts.accuracy(rounds), "model")
    assert list(model.x) == [0, 1, 2]
    assert list(model.y) == [round_.heldout.value for round_ in rounds]
    high = [value + up for value, up in zip(model.y, model.error_y.array, strict=True)]
    low = [value - down for value, down in zip(model.y, model.error_y.arrayminus, strict=True)]
    assert high == pytest.approx([round_.heldout.high for round_ in rounds])
    assert low == pytest.approx([round_.heldout.low for round_ in rounds])


def test_a_round_that_was_rolled_back_has_another_mark_than_one_that_was_kept():
    figure = charts.accuracy([a_round(0), a_round(1), a_round(2, promoted="control")])
    symbols = trace(figure, "model").marker.symbol
    assert symbols[1] != symbols[2]
    assert trace(figure, "rolled back").marker.symbol == symbols[2]


def test_the_control_is_drawn_from_the_first_self_labelling_round_on():
    control = trace(charts.accuracy([a_round(0), a_round(1)]), "control")
    assert len(control.y) == 1
    assert control.customdata[0][1] == str(a_round(1).control)


def test_difference_is_in_percentage_points():
    figure = charts.difference([a_round(0), a_round(1, difference=(0.021, -0.01, 0.05))])
    assert list(figure.data[0].y) == pytest.approx([2.1])
    assert figure.data[0].error_y.array[0] == pytest.approx(2.9)
    assert figure.data[0].error_y.arrayminus[0] == pytest.approx(3.1)


def test_kept_and_left_add_up_to_the_open_pool():
    figure = charts.kept([a_round(0), a_round(1), a_round(2)])
    assert [sum(bar.y[i] for bar in figure.data) for i in range(2)] == [N_POOL, N_POOL]


def test_zones_hold_every_point_and_tell_kept_ones_by_symbol():
    figure = charts.zones(a_picture(), CONFIG)
    left, kept = trace(figure, "left open"), trace(figure, "kept")
    assert len(kept.x) == KEPT
    assert len(left.x) == N_POOL - KEPT
    assert left.marker.symbol != kept.marker.symbol
    assert sorted([*left.x, *kept.x]) == sorted(a_picture()["points"]["p_a"])


def test_gaps_hold_the_histogram_and_the_cut():
    figure = charts.gaps(a_picture(), CONFIG | {"tau_delta": 0.25})
    assert list(trace(figure, "kept").y) == a_picture()["histogram"]["kept"]
    assert {shape.x0 for shape in figure.layout.shapes} == {-0.25, 0.25}


def test_the_axes_say_rank_where_ranks_are_compared():
    assert "rank" in charts.zones(a_picture(), CONFIG | {"thresholds": "percentile"}).layout.xaxis.title.text
    assert "probability" in charts.zones(a_picture(), CONFIG).layout.xaxis.title.text


def test_origins_have_one_colour_each():
    figure = charts.origins({"human": 30, "review": 4, "self": 12, "ties": 3})
    assert [bar.x[0] for bar in figure.data] == [30, 4, 12]
    assert [bar.marker.color for bar in figure.data] == [charts.COLOUR[o] for o in ("human", "review", "self")]


@pytest.mark.parametrize(
    "figure",
    [
        charts.accuracy([]),
        charts.difference([a_round(0)]),
        charts.kept([a_round(0)]),
        charts.zones(None, CONFIG),
        charts.zones({"points": None, "histogram": None}, CONFIG),
        charts.gaps(None, CONFIG),
        charts.origins({"human": 0}),
    ],
)
def test_an_empty_figure_says_why(figure):
    assert not figure.data
    assert figure.layout.annotations[0].text.endswith(".")


def test_every_figure_has_a_title_and_named_axes():
    figures = [
        charts.accuracy([a_round(0), a_round(1)]),
        charts.difference([a_round(0), a_round(1)]),
        charts.kept([a_round(0), a_round(1)]),
        charts.zones(a_picture(), CONFIG),
        charts.gaps(a_picture(), CONFIG),
    ]
    for figure in figures:
        assert figure.layout.title.text
        assert figure.layout.xaxis.title.text
        assert figure.layout.yaxis.title.text
        assert not any(isinstance(y, float) and math.isnan(y) for found in figure.data for y in found.y)


def test_loss_runs_on_from_round_to_round_and_shows_the_one_under_way():
    rounds = [a_round(i, details={"loss": [0.7, 0.5], "steps": 10}) for i in (0, 1)]
    lines = [t for t in charts.loss(rounds, [(1, 0.4), (2, 0.3)], 2).data if t.mode and t.name]
    assert [list(line.x) for line in lines] == [[2.5, 7.5], [12.5, 17.5], [21, 22]]
    assert "under way" in lines[-1].name
    assert "No step" in str(charts.loss([]).layout.annotations)
