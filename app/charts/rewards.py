"""What a model thinks of responses side by side, and what keeping the best of n would gain."""

from collections.abc import Sequence

import plotly.graph_objects as go

from charts import template

SYMBOLS = ("circle", "diamond", "square", "triangle-up")
COLOURS = ("human", "self", "control", "full")  # of models side by side; symbols differ, too
DISAGREE = [[0, template.COLOUR["self"]], [0.5, template.COLOUR["control"]], [1, template.COLOUR["human"]]]


def margins(names: Sequence[str], models: Sequence[tuple[str, Sequence[float], Sequence[float] | None]]) -> go.Figure:
    """Reward of each response less that of the model's best. models: label, margins, and their standard errors if known."""
    title = "How far each response is behind the best"
    if not models or not names:
        return template.empty(title, "No model has answered yet.")
    figure = template.frame(
        title,
        "reward less that of the best (bars: ± one standard error)",
        "",
        height=130 + 34 * len(names) + 12 * len(models),
    )
    step = 0.18
    for place, (label, margin, spread) in enumerate(models):
        colour = template.COLOUR[COLOURS[place % len(COLOURS)]]
        shift = step * (place - (len(models) - 1) / 2)
        told = [
            f"{m:+.3f}" if spread is None else f"{m:+.3f} ± {s:.3f}"
            for m, s in zip(margin, spread or margin, strict=True)
        ]
        figure.add_scatter(
            x=list(margin),
            y=[i + shift for i in range(len(names))],
            mode="markers",
            name=template.as_it_is(label),
            marker={"symbol": SYMBOLS[place % len(SYMBOLS)], "size": 11, "color": colour},
            error_x={"type": "data", "array": list(spread), "thickness": 1.4, "width": 4, "color": colour}
            if spread
            else None,
            customdata=[[template.as_it_is(name), text] for name, text in zip(names, told, strict=True)],
            hovertemplate="%{customdata[0]}: %{customdata[1]}<extra>%{fullData.name}</extra>",
        )
    figure.add_vline(x=0, line={"color": template.COLOUR["control"], "dash": "dot", "width": 2})
    figure.update_layout(showlegend=True)
    ticks = {"tickvals": list(range(len(names))), "ticktext": [template.as_it_is(name) for name in names]}
    figure.update_yaxes(range=[len(names) - 0.4, -0.6], showgrid=False, **ticks)
    return figure


def preferences(names: Sequence[str], preferred: Sequence[Sequence[float]]) -> go.Figure:
    """Probability that the response of a row is preferred to that of a column, written into each field."""
    title = "How likely each response is preferred to each other"
    n = len(names)
    if n < 2:
        return template.empty(title, "There are fewer than two responses.")
    figure = template.frame(title, "to this response", "this response is preferred", height=150 + 36 * n)
    shares = [[None if i == j else preferred[i][j] for j in range(n)] for i in range(n)]
    told = [["" if i == j else f"{100 * preferred[i][j]:.0f} %" for j in range(n)] for i in range(n)]
    labels = [template.as_it_is(name) for name in names]
    figure.add_heatmap(
        z=shares,
        x=labels,
        y=labels,
        text=told,
        texttemplate="%{text}",
        zmin=0,
        zmax=1,
        colorscale=DISAGREE,
        showscale=False,
        xgap=2,
        ygap=2,
        hovertemplate="%{y} preferred to %{x}: %{text}<extra></extra>",
        hoverongaps=False,
    )
    figure.update_layout(margin_b=54)
    figure.update_xaxes(showgrid=False, type="category")
    figure.update_yaxes(autorange="reversed", showgrid=False, type="category")
    return figure


def best_of(points: Sequence[tuple[int, float, float, float, float, int]]) -> go.Figure:
    """points: n, KL in nats, gain, its 95 % interval, prompts behind it."""
    title = "What keeping the best of n gains"
    if len(points) < 2:
        return template.empty(title, "Two prompts with two responses each are needed.")
    figure = template.frame(
        title, "KL from the model that wrote the responses, nats: log n - (n - 1)/n", "gain in mean reward"
    )
    n, kl, gain, low, high, prompts = zip(*points, strict=True)
    colour = template.COLOUR["human"]
    band = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
    figure.add_scatter(x=kl, y=high, **band)
    figure.add_scatter(x=kl, y=low, fill="tonexty", fillcolor=template.faint(colour), **band)
    figure.add_scatter(
        x=kl,
        y=gain,
        mode="lines+markers",
        name="best of n, with 95 % interval over prompts",
        line={"color": colour, "width": 2},
        marker={"size": 7},
        customdata=list(zip(n, low, high, prompts, strict=True)),
        hovertemplate="best of %{customdata[0]}: %{y:+.3f} (%{customdata[1]:+.3f} to %{customdata[2]:+.3f})"
        "<br>KL %{x:.2f} nats, n = %{customdata[3]:,} prompts<extra></extra>",
    )
    marked = [place for place in range(len(n)) if n[place] & (n[place] - 1) == 0]  # 1, 2, 4, 8, ...
    figure.add_scatter(
        x=[kl[place] for place in marked],
        y=[gain[place] for place in marked],
        mode="text",
        text=[f"n = {n[place]}" for place in marked],
        textposition="top left",
        hoverinfo="skip",
        showlegend=False,
    )
    figure.update_layout(showlegend=True)
    figure.update_yaxes(tickformat="+.2f")
    return figure
