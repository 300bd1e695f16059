"""What all figures share: colours, frame, intervals. Records come in as numbers here.

One colour per origin on every page, told apart by colour-blind eyes (after Okabe and Ito, in tones that read on light and
on dark ground), and never by colour alone: symbols and dashes differ too.
"""

import html
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from ser_backend.records import Interval

COLOUR = {
    "human": "#2F86C6",
    "self": "#D97706",
    "review": "#119D76",
    "control": "#8A8F98",
    "full": "#B0679B",
}
DASHES = ("solid", "dash", "dot", "dashdot")  # rounds, told apart without colour
HEIGHT = 350
TRANSPARENT = "rgba(0,0,0,0)"
CONFIG = {"displayModeBar": False, "responsive": True}


def frame(title: str, x: str, y: str, height: int = HEIGHT) -> go.Figure:
    # given at once: each update would check and tell anew
    layout = dict(
        title={"text": title, "font": {"size": 15}, "x": 0, "xanchor": "left", "y": 0.98, "yanchor": "top"},
        height=height,
        margin={"l": 10, "r": 10, "t": 44, "b": 92},  # the legend lies below the axis title, however narrow it gets
        paper_bgcolor=TRANSPARENT,
        plot_bgcolor=TRANSPARENT,
        legend={
            "orientation": "h",
            "xref": "container",
            "yref": "container",
            "x": 0.01,
            "y": 0,
            "xanchor": "left",
            "yanchor": "bottom",
        },
        hoverlabel={"align": "left"},
        xaxis={"title": {"text": x or None, "standoff": 8}, "zeroline": False, "fixedrange": True},
        yaxis={"title": {"text": y or None}, "zeroline": False, "automargin": True, "fixedrange": True},
    )
    return go.Figure(layout=layout)


def with_interval(
    figure: go.Figure,
    name: str,
    told: Sequence[tuple[int, Interval | None, str]],
    line: dict[str, Any],
    marker: dict[str, Any],
    shift: float = 0,
) -> None:
    """shift: moves the marks aside, so that two intervals at one round do not cover each other."""
    known = [(index, interval, note) for index, interval, note in told if interval is not None]
    if not known:
        return
    value = [interval.value for _, interval, _ in known]
    figure.add_scatter(
        x=[index + shift for index, _, _ in known],
        y=value,
        mode="lines+markers",
        name=name,
        line=line,
        marker=marker,
        error_y=error_bars(value, [i.low for _, i, _ in known], [i.high for _, i, _ in known], line["color"]),
        customdata=[[index, str(interval), note] for index, interval, note in known],
        hovertemplate="round %{customdata[0]}, " + name + "<br>%{customdata[1]}%{customdata[2]}<extra></extra>",
    )


def error_bars(value: Sequence[float], low: Sequence[float], high: Sequence[float], colour: str) -> dict[str, Any]:
    return {
        "type": "data",
        "array": [h - v for v, h in zip(value, high, strict=True)],
        "arrayminus": [v - lo for v, lo in zip(value, low, strict=True)],
        "thickness": 1.4,
        "width": 4,
        "color": colour,
    }


def faint(colour: str) -> str:
    return f"rgba({', '.join(str(int(colour[i : i + 2], 16)) for i in (1, 3, 5))}, 0.15)"


def as_it_is(name: str) -> str:
    """plotly takes some tags in a text for markup, links among them."""
    return html.escape(name, quote=False)


def empty(title: str, sentence: str) -> go.Figure:
    """A figure that says why it shows nothing."""
    figure = frame(title, "", "")
    figure.add_annotation(text=sentence, showarrow=False, x=0.5, y=0.5, xref="paper", yref="paper", opacity=0.75)
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    return figure


def histogram(figure: go.Figure, counts: Mapping[str, Any]) -> None:
    """The kept part in front of all open pairs."""
    edges = counts["edges"]
    middles = [(left + right) / 2 for left, right in itertools.pairwise(edges)]
    for name, key, colour, opacity in (
        ("all open pairs", "all", COLOUR["control"], 0.45),
        ("kept", "kept", COLOUR["self"], 0.95),
    ):
        figure.add_bar(
            x=middles,
            y=counts[key],
            name=name,
            width=edges[1] - edges[0],
            marker={"color": colour, "opacity": opacity, "line": {"width": 0}},
            hovertemplate="around %{x:.2f}: %{y:,} pairs, " + name + "<extra></extra>",
        )
    figure.update_layout(barmode="overlay", bargap=0)
