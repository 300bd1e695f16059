"""Several runs on one axis: round by round, at the end, against one of them, and by human labels spent.

A run keeps its letter, colour, symbol and dash in all of them. The colours are none of those that stand for an origin.
"""

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from charts import template
from ser_backend.compare.comparison import Outcome
from ser_backend.compare.comparison_tables import name_of
from ser_backend.compare.paired import Difference

COLOURS = ("#6D66F0", "#C8553D", "#1A9BAF", "#9C8A1C", "#D0568F", "#7D6B5D")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "pentagon", "triangle-down", "star", "hexagon",
           "triangle-left", "triangle-right", "octagon", "hexagram")  # fmt: skip
LONGEST_NAME = 26  # letters
SPREAD = 0.5  # of a round's place, over which the marks of all runs are set aside
ASIDE = 0.12  # of the axis, over which the marks of all runs with as many labels are set aside
WHITE, INK = "#FFFFFF", "#1B1F27"


def by_round(outcomes: Sequence[Outcome]) -> go.Figure:
    """Held-out accuracy of each run's model, round by round."""
    title = "Accuracy on held-out pairs, round by round"
    known = [(place, one) for place, one in enumerate(outcomes) if one.rounds]
    if not known:
        return template.empty(title, "None of these runs has a finished round.")
    figure = template.frame(title, "round (0 = seed model)", "accuracy", _height(len(known)))
    last = max(one.rounds[-1].index for _, one in known)
    for place, one in known:
        symbol = SYMBOLS[place % len(SYMBOLS)]
        template.with_interval(
            figure,
            _name(place, one),
            [(r.index, r.heldout, "" if r.promoted == "new" else "<br>rolled back") for r in one.rounds],
            line=_line(place),
            marker={
                "symbol": [symbol if r.promoted == "new" else f"{symbol}-open" for r in one.rounds],
                "size": 9,
                "color": _colour(place),
                "line": {"width": 2, "color": _colour(place)},
            },
            shift=_aside(place, len(outcomes)),
        )
    if any(r.promoted != "new" for _, one in known for r in one.rounds):
        mark = {"symbol": "circle-open", "size": 9, "color": template.COLOUR["control"], "line": {"width": 2}}
        figure.add_scatter(x=[None], y=[None], mode="markers", marker=mark, name="hollow: rolled back")
    figure.update_layout(showlegend=True)
    figure.update_yaxes(tickformat=".0%")
    figure.update_xaxes(tickvals=list(range(last + 1)), range=[-0.5, max(1, last) + 0.5])
    return _with_room(figure, len(known) + 1)


def at_the_end(outcomes: Sequence[Outcome]) -> go.Figure:
    """A row a run: the model at the end, its control and its seed model."""
    title = "How the runs ended"
    known = [(place, one) for place, one in enumerate(outcomes) if one.rounds]
    if not known:
        return template.empty(title, "None of these runs has a finished round.")
    figure = template.frame(title, "accuracy on held-out pairs", "", 170 + 46 * len(known))
    for name, origin, symbol, up, told in (
        ("seed model", "human", "diamond", 0.22, [(i, one.seed) for i, (_, one) in enumerate(known)]),
        ("control", "control", "square", 0.0, [(i, one.control) for i, (_, one) in enumerate(known)]),
        ("at the end", "self", "circle", -0.22, [(i, one.end) for i, (_, one) in enumerate(known)]),
    ):
        found = [(i, share) for i, share in told if share and share.n]
        if found:
            _dots(figure, name, template.COLOUR[origin], symbol, found, [-i + up for i, _ in found])
    return _rows(figure, [_name(place, one) for place, one in known], percent=True)


def against(outcomes: Sequence[Outcome], found: Sequence[Difference | None], reference: int) -> go.Figure:
    """Each run's end minus that of the reference, in points; filled where the difference is clear."""
    title = f"Difference to {_name(reference, outcomes[reference])}"
    known = [(place, one) for place, one in enumerate(found) if one]
    if not known:
        return template.empty(title, "There is no second run with a finished round.")
    figure = template.frame(title, "percentage points of accuracy", "", 150 + 40 * len(known))
    for name, clear, symbol in (("clear", True, "circle"), ("not clear", False, "circle-open")):
        mine = [(i, one) for i, (_, one) in enumerate(known) if one.is_clear == clear]
        if not mine:
            continue
        value = [100 * one.value for _, one in mine]
        figure.add_scatter(
            x=value,
            y=[-i for i, _ in mine],
            mode="markers",
            name=name,
            marker={"symbol": symbol, "size": 11, "color": COLOURS[0], "line": {"width": 2, "color": COLOURS[0]}},
            error_x=template.error_bars(
                value, [100 * one.low for _, one in mine], [100 * one.high for _, one in mine], COLOURS[0]
            ),
            customdata=[[f"{100 * one.low:+.1f} to {100 * one.high:+.1f}", one.n] for _, one in mine],
            hovertemplate="%{x:+.1f} points (%{customdata[0]})<br>%{customdata[1]:,} held-out pairs<extra></extra>",
        )
    figure.add_vline(x=0, line={"color": template.COLOUR["control"], "dash": "dot", "width": 2})
    return _rows(figure, [_name(place, outcomes[place]) for place, _ in known], percent=False)


def by_labels(outcomes: Sequence[Outcome]) -> go.Figure:
    """Accuracy of the model in use against the human labels spent on it, a point a round."""
    title = "Accuracy by human labels spent"
    known = [(place, one) for place, one in enumerate(outcomes) if one.rounds]
    if not known:
        return template.empty(title, "None of these runs has a finished round.")
    figure = template.frame(title, "human labels trained on (seed and answers)", "accuracy", _height(len(known)))
    least, most = (end(one.spent[-1] if end is max else one.spent[0] for _, one in known) for end in (min, max))
    span = (most - least) or 0.1 * most or 1
    for place, one in known:
        # rounds without new answers stand at one place: of those with the last labels the end alone is drawn
        first = {labels: i for i, labels in reversed(list(enumerate(one.spent)))}
        held = [
            (labels, one.end if labels == one.spent[-1] else one.rounds[i].heldout, "") for labels, i in first.items()
        ]
        template.with_interval(
            figure,
            _name(place, one),
            sorted(held),
            line=_line(place),
            marker={"symbol": SYMBOLS[place % len(SYMBOLS)], "size": 10, "color": _colour(place)},
            shift=ASIDE * span * _aside(place, len(outcomes)),
        )
        figure.data[-1].hovertemplate = "%{customdata[0]:,} human labels<br>%{customdata[1]}<extra></extra>"
    figure.update_layout(showlegend=True)
    figure.update_xaxes(range=[least - 0.1 * span, most + 0.1 * span], nticks=6, tickformat=",d")
    if most == least:
        figure.update_xaxes(tickvals=[most])
    figure.update_yaxes(tickformat=".0%")
    return _with_room(figure, len(known))


def on_white(figure: go.Figure) -> go.Figure:
    """For a file: dark on white, whatever the page looks like. In a font of the system: a file brings none along, and what was
    measured in the page's own would be cut off in another."""
    made = go.Figure(figure)
    made.update_layout(
        template="plotly_white",
        paper_bgcolor=WHITE,
        plot_bgcolor=WHITE,
        font={"family": "Arial, Helvetica, sans-serif", "color": INK, "size": 14},
    )
    return made


def _rows(figure: go.Figure, names: Sequence[str], percent: bool) -> go.Figure:
    figure.update_layout(showlegend=True, margin_b=80)
    places = [-i for i in range(len(names))]
    figure.update_yaxes(tickvals=places, ticktext=list(names), range=[-len(names) + 0.4, 0.6], showgrid=False)
    figure.update_xaxes(tickformat=".0%" if percent else "+.1f")
    return figure


def _dots(
    figure: go.Figure, name: str, colour: str, symbol: str, found: Sequence[tuple[int, Any]], places: Sequence[float]
) -> None:
    value = [share.value for _, share in found]
    figure.add_scatter(
        x=value,
        y=list(places),
        mode="markers",
        name=name,
        marker={"symbol": symbol, "size": 9, "color": colour},
        error_x=template.error_bars(value, [s.low for _, s in found], [s.high for _, s in found], colour),
        customdata=[str(share) for _, share in found],
        hovertemplate=name + "<br>%{customdata}<extra></extra>",
    )


def _name(place: int, one: Outcome) -> str:
    name = one.run.name if len(one.run.name) <= LONGEST_NAME else f"{one.run.name[: LONGEST_NAME - 1]}…"
    return f"{name_of(place)}  {template.as_it_is(name)}"


def _colour(place: int) -> str:
    return COLOURS[place % len(COLOURS)]


def _line(place: int) -> dict[str, Any]:
    return {"color": _colour(place), "width": 2, "dash": template.DASHES[place // len(COLOURS) % len(template.DASHES)]}


def _aside(place: int, n: int) -> float:
    return SPREAD * (place / (n - 1) - 0.5) if n > 1 else 0


def _height(n: int) -> int:
    return template.HEIGHT + 11 * n


def _with_room(figure: go.Figure, n_names: int) -> go.Figure:
    """The legend takes a line for every two names or so."""
    return figure.update_layout(margin_b=70 + 11 * n_names)
