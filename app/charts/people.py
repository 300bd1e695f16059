"""What people's labels and answers say: learning curve, agreement, origins."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from charts import template
from ser_backend.metrics import Z_95

ORIGIN_NAMES = {"human": "people's labels (seed)", "review": "reviewed here", "self": "self-labels"}
LONGEST_NAME = 28  # letters that stand beside an axis


def learning_curve(found: Mapping[str, Any]) -> go.Figure:
    """Accuracy against the number of human labels: measured sizes, and the fitted law beyond them with its interval."""
    title = "What more human labels would bring"
    path, curve = found.get("path"), found.get("curve")
    if not path or not curve:
        return template.empty(title, "There are too few human labels to say.")
    figure = template.frame(title, "human labels", "accuracy on labels not trained on")
    labels, value, low, high = zip(*path, strict=True)
    band = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
    figure.add_scatter(x=labels, y=high, **band)
    figure.add_scatter(x=labels, y=low, fill="tonexty", fillcolor=template.faint(template.COLOUR["human"]), **band)
    figure.add_scatter(
        x=labels,
        y=value,
        mode="lines",
        name="expected, with 95 % interval",
        line={"color": template.COLOUR["human"], "width": 2, "dash": "dash"},
        customdata=[f"{100 * a:.1f} to {100 * b:.1f}" for a, b in zip(low, high, strict=True)],
        hovertemplate="%{x:,} labels: %{y:.1%} (%{customdata})<extra></extra>",
    )
    spread = [Z_95 * error for error in curve["se"]]
    figure.add_scatter(
        x=curve["n"],
        y=curve["accuracy"],
        mode="markers",
        name="measured",
        marker={"color": template.COLOUR["human"], "size": 8},
        error_y={"type": "data", "array": spread, "thickness": 1.4, "width": 4, "color": template.COLOUR["human"]},
        hovertemplate="%{x:,} labels: %{y:.1%}<extra>measured</extra>",
    )
    now = {"color": template.COLOUR["control"], "dash": "dot", "width": 2}
    figure.add_vline(x=curve["labels"], line=now, annotation_text=f"now: {curve['labels']:,}")
    figure.update_yaxes(tickformat=".0%")
    return figure


def agreement(
    title: str,
    x: str,
    found: Sequence[tuple[str, float, float, float, int]],
    few: int,
    by_chance: tuple[float, str] | None = None,
    percent: bool = True,
) -> go.Figure:
    """A dot with its 95 % interval for each annotator, or pair of them, the highest on top. found: name, value, low, high, n;
    with fewer than `few` answers the dot is hollow. by_chance: where a dotted line stands, and what it says."""
    known = sorted((dot for dot in found if dot[4]), key=lambda dot: (dot[1], dot[0]))
    if not known:
        return template.empty(title, "There are no answers that say so yet.")
    figure = template.frame(title, x, "", height=150 + 24 * len(known))
    places = range(len(known))
    for name, symbol, mine in (
        (f"{few} answers or more", "circle", [i for i in places if known[i][4] >= few]),
        (f"fewer than {few}", "circle-open", [i for i in places if known[i][4] < few]),
    ):
        if not mine:
            continue
        value, low, high = ([known[i][part] for i in mine] for part in (1, 2, 3))
        told = [
            f"{100 * v:.1f} % ({100 * a:.1f} to {100 * b:.1f}" if percent else f"{v:.2f} ({a:.2f} to {b:.2f}"
            for v, a, b in zip(value, low, high, strict=True)
        ]
        figure.add_scatter(
            x=value,
            y=mine,
            mode="markers",
            name=name,
            marker={
                "symbol": symbol,
                "size": 10,
                "color": template.COLOUR["review"],
                "line": {"width": 2, "color": template.COLOUR["review"]},
            },
            error_x=template.error_bars(value, low, high, template.COLOUR["review"]),
            customdata=[
                [template.as_it_is(known[i][0]), f"{words}, n = {known[i][4]:,})"]
                for i, words in zip(mine, told, strict=True)
            ],
            hovertemplate="%{customdata[0]}<br>%{customdata[1]}<extra></extra>",
        )
    if by_chance:
        line = {"color": template.COLOUR["control"], "dash": "dot", "width": 2}
        figure.add_vline(x=by_chance[0], line=line)
        figure.add_scatter(x=[None], y=[None], mode="lines", name=by_chance[1], line=line)
    names = [
        template.as_it_is(dot[0] if len(dot[0]) <= LONGEST_NAME else f"{dot[0][: LONGEST_NAME - 1]}…") for dot in known
    ]
    figure.update_layout(showlegend=True)
    figure.update_yaxes(tickvals=list(places), ticktext=names, range=[-0.7, len(known) - 0.3], showgrid=False)
    figure.update_xaxes(tickformat=".0%" if percent else ".1f")
    return figure


def origins(counts: Mapping[str, int]) -> go.Figure:
    """Labels by origin."""
    title = "Where the labels come from"
    known = [origin for origin in ORIGIN_NAMES if counts.get(origin)]
    if not known:
        return template.empty(title, "There are no labels yet.")
    figure = template.frame(title, "pairs", "", height=120 + 45 * len(known))
    figure.update_layout(margin_b=50)
    for origin in known:
        figure.add_bar(
            x=[counts[origin]],
            y=[ORIGIN_NAMES[origin]],
            orientation="h",
            name=ORIGIN_NAMES[origin],
            text=[f"{counts[origin]:,}"],
            textposition="auto",
            marker={"color": template.COLOUR[origin]},
            hovertemplate="%{y}: %{x:,} pairs<extra></extra>",
            showlegend=False,
        )
    figure.update_layout(barmode="overlay", bargap=0.35)
    figure.update_yaxes(autorange="reversed", title=None)
    return figure
