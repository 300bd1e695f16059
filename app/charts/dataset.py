"""What a data set holds: how long its texts are, and whether length sways its labels."""

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from charts import template
from ser_backend.records import Interval

LONGEST_NAME = 28  # letters that stand beside an axis
KINDS = {"response": ("responses", "human", "solid"), "prompt": ("prompts", "control", "dash")}


def lengths(
    histogram: Mapping[str, Sequence[int]], edges: Sequence[int], limit: tuple[float, str] | None = None
) -> go.Figure:
    """Share of texts by length, on a logarithmic axis. limit: characters, and what stands there."""
    title = "How long the texts are"
    counts = {name: histogram[name] for name in KINDS if sum(histogram.get(name, ()))}
    if not counts:
        return template.empty(title, "There are no texts.")
    used = [k for k in range(len(edges) - 1) if any(found[k] for found in counts.values())]
    first, last = used[0], used[-1] + 1
    figure = template.frame(title, "characters", "share of texts in each band")
    for name, found in counts.items():
        words, colour, dash = KINDS[name]
        total = sum(found)
        shares = [n / total for n in found[first:last]]
        bands = [f"{edges[k]:,} to {edges[k + 1]:,}" for k in range(first, last)]
        figure.add_scatter(
            x=list(edges[first : last + 1]),
            y=[*shares, shares[-1]],
            mode="lines",
            name=words,
            line={"color": template.COLOUR[colour], "width": 2, "dash": dash, "shape": "hv"},
            fill="tozeroy",
            fillcolor=template.faint(template.COLOUR[colour]),
            customdata=[*bands, bands[-1]],
            hovertemplate="%{customdata} characters: %{y:.1%} of the " + words + "<extra></extra>",
        )
    if limit and limit[0] <= edges[last]:
        line = {"color": template.COLOUR["self"], "dash": "dot", "width": 2}
        figure.add_vline(x=limit[0], line=line)
        figure.add_scatter(x=[None], y=[None], mode="lines", name=limit[1], line=line)
    figure.update_layout(showlegend=True)
    figure.update_xaxes(type="log", dtick=1, tickformat=",d")
    figure.update_yaxes(tickformat=".0%", rangemode="tozero")
    return figure


def longer_preferred(found: Sequence[tuple[str, Interval]]) -> go.Figure:
    """A dot with its 95 % interval for the whole set and each domain, in the order given from the top."""
    title = "How often the longer response is preferred"
    known = [(name, share) for name, share in found if share.n][::-1]
    if not known:
        return template.empty(title, "No label says so.")
    figure = template.frame(title, "share of decided labels", "", height=150 + 24 * len(known))
    value = [share.value for _, share in known]
    colour = template.COLOUR["human"]
    figure.add_scatter(
        x=value,
        y=list(range(len(known))),
        mode="markers",
        name="share, with 95 % interval",
        marker={"size": 10, "color": colour},
        error_x=template.error_bars(value, [s.low for _, s in known], [s.high for _, s in known], colour),
        customdata=[[template.as_it_is(name), str(share)] for name, share in known],
        hovertemplate="%{customdata[0]}<br>%{customdata[1]}<extra></extra>",
    )
    line = {"color": template.COLOUR["control"], "dash": "dot", "width": 2}
    figure.add_vline(x=0.5, line=line)
    figure.add_scatter(x=[None], y=[None], mode="lines", name="length says nothing", line=line)
    names = [
        template.as_it_is(name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…") for name, _ in known
    ]
    figure.update_layout(showlegend=True)
    figure.update_yaxes(
        tickvals=list(range(len(known))), ticktext=names, range=[-0.7, len(known) - 0.3], showgrid=False
    )
    figure.update_xaxes(tickformat=".0%")
    return figure
