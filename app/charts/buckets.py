"""Where a model is right: accuracy by part of the held-out pairs, beside the rule that reads no word."""

from collections.abc import Sequence

import plotly.graph_objects as go

from charts import template
from ser_backend.buckets import Bucket, Rule

LONGEST_NAME = 24  # letters beside an axis


def buckets(title: str, axis: str, found: Sequence[Bucket], rule: str, nothing: str) -> go.Figure:
    """One row a bucket, the first on top: share right with its 95 % interval, and what the rule gets there.

    rule: the name of a length rule; nothing: why there is nothing to draw.
    """
    if not found:
        return template.empty(title, nothing)
    figure = template.frame(title, "share right", "", height=150 + 26 * len(found))
    at = list(range(len(found)))  # names may be alike once they are cut
    colour = template.COLOUR["control"]
    figure.add_vline(x=0.5, line={"color": colour, "dash": "dot", "width": 1})
    figure.add_scatter(
        x=[bucket.by_length.value for bucket in found],
        y=at,
        mode="markers",
        name=rule,
        marker={"symbol": "line-ns", "size": 13, "color": colour, "line": {"width": 2.5, "color": colour}},
        customdata=[[_name(bucket.name), str(bucket.by_length)] for bucket in found],
        hovertemplate="%{customdata[0]}: " + rule + " %{customdata[1]}<extra></extra>",
    )
    right = [bucket.right for bucket in found]
    bars = template.error_bars(
        [share.value for share in right], [s.low for s in right], [s.high for s in right], template.COLOUR["self"]
    )
    figure.add_scatter(
        x=[share.value for share in right],
        y=at,
        mode="markers",
        name="model",
        marker={"symbol": "circle", "size": 9, "color": template.COLOUR["self"]},
        error_x=bars,
        customdata=[[_name(bucket.name), str(bucket.right)] for bucket in found],
        hovertemplate="%{customdata[0]}: %{customdata[1]}<extra></extra>",
    )
    names = [f"{_name(bucket.name)}  " for bucket in found]
    figure.update_yaxes(tickvals=at, ticktext=names, range=[len(found) - 0.4, -0.6], title=axis or None)
    figure.update_xaxes(range=[-0.02, 1.02], tickformat=".0%")
    return figure


def with_rule(figure: go.Figure, rule: Rule) -> go.Figure:
    """Adds to a chart of accuracy by round what a rule that reads no word gets."""
    if rule.accuracy.n:
        line = {"color": template.COLOUR["control"], "dash": "dashdot", "width": 1.5}
        figure.add_hline(y=rule.accuracy.value, line=line)
        figure.add_scatter(x=[None], y=[None], mode="lines", line=line, name=rule.name, hoverinfo="skip")
    return figure


def _name(name: str) -> str:
    """Of a domain, which comes from a file."""
    return template.as_it_is(name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…")
