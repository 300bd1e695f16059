"""Figures on a page: pictures at first, plotly's own when somebody asks. tests/e2e/test_comparing.py has the browser's part."""

import json
import re

import charts
import picture
import plotly.graph_objects as go
import pytest
from fabricate import a_round, figures

ROUNDS = [a_round(i) for i in range(3)]


def plotly(page):
    return [found.proto.spec for found in page.get("plotly_chart")]


def pictures(page):
    return [e.proto for e in page.get("bidi_component") if e.proto.component_name == "ser_picture"]


def test_a_tab_begins_with_pictures_and_its_figures_are_plotlys_once_it_is_asked_for(open_page, finished):
    page = open_page("watch")
    n = len(figures(page))
    assert (n, plotly(page)) == (6, [])
    page.session_state["ser"].live = True
    page = page.run()
    assert (len(plotly(page)), pictures(page)) == (n, [])
    page = page.switch_page("views/export.py").run()  # and so on every page of the tab
    assert (len(plotly(page)), pictures(page)) == (1, [])


def test_a_picture_is_as_high_as_the_figure_and_there_for_every_width(open_page, finished):
    data = json.loads(pictures(open_page("export"))[0].json)
    assert data["height"] == charts.origins({"human": 1, "self": 1}).layout.height
    assert [int(width) for width in data["drawn"]] == list(picture.WIDTHS)
    for width, drawn in data["drawn"].items():
        assert f'viewBox="0 0 {width} {data["height"] - data["title"]}"' in drawn


@pytest.mark.parametrize("width", picture.WIDTHS)
def test_nothing_is_drawn_beside_the_picture(width):
    drawn = charts.svg(charts.accuracy(ROUNDS), width, 300)
    places = re.findall(r'<(?:circle c|text )x="(-?[\d.]+)" (?:c)?y="(-?[\d.]+)"', drawn)
    assert len(places) > 10
    for x, y in places:
        assert 0 <= float(x) <= width
        assert 0 <= float(y) <= 300


def test_a_note_stands_on_a_line_of_its_own():
    drawn = charts.svg(charts.difference([a_round(0), a_round(1, promoted="previous")]))
    assert "\nrolled back</title>" in drawn
    assert "br&gt;" not in drawn


def hostile(name):
    return charts.agreement("How often", "share", [(name, 0.7, 0.6, 0.8, 30)], 20)


def test_a_name_is_no_markup_in_a_picture():
    drawn = charts.svg(hostile("<img src=x onerror=alert(1)>"), 520, 300)
    assert "<img" not in drawn
    assert "&lt;img src=x onerror=alert(1)&gt;" in drawn


@pytest.mark.parametrize(
    "figure",
    [
        charts.preferences(["one", "two"], [[0.5, 0.4], [0.6, 0.5]]),
        go.Figure(go.Scatter(x=[1, 10], y=[1, 2])).update_xaxes(type="log"),
        go.Figure(go.Scatter(x=[1, 10], y=[1, 2], fill="tozeroy")),
        go.Figure(go.Scatter(x=[1, 10], y=[1, 2], line={"shape": "hv"})),
    ],
    ids=["fields", "logarithmic axis", "area", "steps"],
)
def test_what_a_picture_cannot_show_is_plotlys_at_once(figure, monkeypatch, open_page, finished):
    with pytest.raises(ValueError, match="is not known"):
        charts.svg(figure)
    monkeypatch.setattr(charts, "origins", lambda counts: figure)
    page = open_page("export")
    assert (len(plotly(page)), pictures(page)) == (1, [])
