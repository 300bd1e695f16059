"""From the pool to what a round kept, step by step."""

from collections.abc import Sequence

import plotly.graph_objects as go

from charts import template
from ser_backend.funnel import Step

STANDING = ("kept", "in force")


def funnel(steps: Sequence[Step]) -> go.Figure:
    """A bar for each step, the pool on top; in words how many, and which share of the pool."""
    title = "From the pool to the labels kept"
    if not steps:
        return template.empty(title, "The first self-labelling round is not finished yet.")
    figure = template.frame(title, "pairs", "", height=110 + 42 * len(steps))
    kinds = {
        "before": ([step for step in steps if step.name not in STANDING], template.COLOUR["control"], 0.5),
        "kept": ([step for step in steps if step.name in STANDING], template.COLOUR["self"], 1.0),
    }
    for mine, colour, opacity in kinds.values():
        figure.add_bar(
            y=[step.name for step in mine],
            x=[step.n for step in mine],
            orientation="h",
            marker={"color": colour, "opacity": opacity, "line": {"width": 0}},
            text=[f"{step.n:,}  ({_percent(step.of_pool)})" for step in mine],
            textposition="outside",
            cliponaxis=False,
            customdata=[[step.means, _percent(step.of_before)] for step in mine],
            hovertemplate="%{y}: %{x:,} pairs, %{customdata[1]} of the step before<br>%{customdata[0]}<extra></extra>",
            showlegend=False,
        )
    figure.update_layout(bargap=0.35, margin={"b": 46})
    names = [step.name for step in steps]
    figure.update_yaxes(categoryorder="array", categoryarray=names[::-1], ticksuffix="  ")
    figure.update_xaxes(range=[0, 1.28 * max(1, *(step.n for step in steps))], tickformat=",d", nticks=6)
    return figure


def _percent(share: float) -> str:
    """With a decimal where a whole number would say nothing."""
    return f"{100 * share:.0f} %" if share == 0 or share >= 0.1 else f"{100 * share:.2g} %"
