"""How a run went, round by round: accuracy against the control, loss, pairs kept."""

from collections.abc import Sequence

import plotly.graph_objects as go

from charts import template
from ser_backend.records import Round

CHANCE = 0.6931  # log 2: the loss of a model that cannot tell the two responses apart


def accuracy(rounds: Sequence[Round]) -> go.Figure:
    """Held-out accuracy of the model and of the control, round by round, with 95 % intervals."""
    title = "Accuracy on held-out pairs"
    if not rounds:
        return template.empty(title, "The seed model is not trained yet.")
    figure = template.frame(title, "round (0 = seed model)", "accuracy")
    later = [round_ for round_ in rounds if round_.index]
    template.with_interval(
        figure,
        "control",
        [(r.index, r.control, "") for r in later],
        line={"color": template.COLOUR["control"], "dash": "dot", "width": 2},
        marker={"symbol": "square", "size": 8, "color": template.COLOUR["control"]},
        shift=0.06 if later else 0,
    )
    template.with_interval(
        figure,
        "model",
        [(r.index, r.heldout, "" if r.promoted == "new" else "<br>rolled back") for r in rounds],
        line={"color": template.COLOUR["self"], "width": 2.5},
        marker={
            "symbol": ["circle" if r.promoted == "new" else "x" for r in rounds],
            "size": [9 if r.promoted == "new" else 11 for r in rounds],
            "color": template.COLOUR["self"],
        },
    )
    if any(r.promoted != "new" for r in rounds):
        mark = {"symbol": "x", "size": 11, "color": template.COLOUR["self"]}
        figure.add_scatter(x=[None], y=[None], mode="markers", marker=mark, name="rolled back")
    figure.update_yaxes(tickformat=".0%")
    figure.update_xaxes(tickvals=[r.index for r in rounds], range=[-0.4, max(1, rounds[-1].index) + 0.4])
    return figure


def difference(rounds: Sequence[Round]) -> go.Figure:
    """Model minus control, round by round, in percentage points."""
    title = "What self-labels added: model minus control"
    told = [(r, r.difference) for r in rounds if r.index and r.difference]
    if not told:
        return template.empty(title, "The first self-labelling round is not finished yet.")
    figure = template.frame(title, "round", "percentage points")
    value = [100 * d[0] for _, d in told]
    kept = [r.promoted == "new" for r, _ in told]
    figure.add_hline(y=0, line={"color": template.COLOUR["control"], "dash": "dot", "width": 2})
    figure.add_scatter(
        x=[r.index for r, _ in told],
        y=value,
        mode="markers",
        name="model - control",
        marker={
            "symbol": ["circle" if k else "x" for k in kept],
            "size": [10 if k else 12 for k in kept],
            "color": template.COLOUR["self"],
        },
        error_y=template.error_bars(
            value, [100 * d[1] for _, d in told], [100 * d[2] for _, d in told], template.COLOUR["self"]
        ),
        customdata=[
            [f"{100 * d[1]:+.1f} to {100 * d[2]:+.1f}", "" if r.promoted == "new" else "<br>rolled back"]
            for r, d in told
        ],
        hovertemplate="round %{x}: %{y:+.1f} points (%{customdata[0]})%{customdata[1]}<extra></extra>",
        showlegend=False,
    )
    last = told[-1][0].index
    figure.update_xaxes(tickvals=[r.index for r, _ in told], range=[0.4, last + 0.6])
    return figure


def loss(rounds: Sequence[Round], live: Sequence[tuple[int, float]] = (), live_round: int | None = None) -> go.Figure:
    """Training loss of the model over the optimiser steps of all rounds; live: (step, mean loss) of the round under way."""
    title = "Training loss of the model"
    told = [r for r in rounds if r.details.get("loss")]
    if not told and not live:
        return template.empty(title, "No step is done yet.")
    figure = template.frame(title, "optimiser steps, all rounds", "loss (nats a pair)")
    before = 0
    for round_ in told:
        curve, steps = round_.details["loss"], round_.details["steps"]
        at = [before + (place + 0.5) * steps / len(curve) for place in range(len(curve))]
        _loss_line(figure, at, curve, f"round {round_.index}", round_.index)
        before += steps
    if live:
        at = [before + step for step, _ in live]
        _loss_line(figure, at, [value for _, value in live], f"round {live_round}, under way", live_round or 0)
    figure.add_hline(y=CHANCE, line={"color": template.COLOUR["control"], "dash": "dot"}, annotation_text="guessing")
    return figure


def _loss_line(figure: go.Figure, at: Sequence[float], curve: Sequence[float], name: str, index: int) -> None:
    figure.add_scatter(
        x=list(at),
        y=list(curve),
        mode="lines+markers" if len(at) < 3 else "lines",
        name=name,
        line={
            "color": template.COLOUR["self"] if index else template.COLOUR["human"],
            "width": 2,
            "dash": template.DASHES[index % len(template.DASHES)],
        },
        hovertemplate=name + ", step %{x:.0f}: %{y:.3f}<extra></extra>",
    )


def kept(rounds: Sequence[Round], by_tests: bool = True) -> go.Figure:
    """Pairs of the open pool that each round kept, by the paper's two tests where it has them, and those it left."""
    title = "Pairs kept and left in each round"
    later = [round_ for round_ in rounds if round_.index]
    if not later:
        return template.empty(title, "The first self-labelling round is not finished yet.")
    figure = template.frame(title, "round", "pairs")
    parts = [
        ("kept, clear" if by_tests else "kept", [r.n_kept_status_1 for r in later], template.COLOUR["self"], ""),
        ("kept, wide", [r.n_kept_status_2 for r in later], template.COLOUR["self"], "/"),
        ("left open", [r.n_pool - r.n_kept for r in later], template.COLOUR["control"], ""),
    ]
    if not by_tests:
        parts.pop(1)
    for name, counts, colour, pattern in parts:
        figure.add_bar(
            x=[r.index for r in later],
            y=counts,
            name=name,
            marker={
                "color": colour,
                "opacity": 0.45 if name == "left open" else 1,
                "pattern": {"shape": pattern, "fgcolor": colour, "bgcolor": template.TRANSPARENT, "solidity": 0.4},
                "line": {"width": 1, "color": colour},
            },
            hovertemplate="round %{x}: %{y:,} pairs " + name + "<extra></extra>",
        )
    figure.update_layout(barmode="stack", bargap=0.6)
    figure.update_xaxes(tickvals=[r.index for r in later], range=[0.4, later[-1].index + 0.6])
    return figure
