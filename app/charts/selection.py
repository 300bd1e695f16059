"""How a round of the paper's method chose its pairs: its two tests over the open pool."""

from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go

from charts import template


def zones(picture: Mapping[str, Any] | None, config: Mapping[str, Any]) -> go.Figure:
    """The probability of response a against that of response b, with the zones in which a pair passes."""
    title = "What the model thinks of the two responses"
    points = picture and picture.get("points")
    if not points:
        return template.empty(title, "A self-labelling round draws this picture.")
    what = _scale(config)
    figure = template.frame(title, f"{what} of response a", f"{what} of response b", height=430)
    high, low, delta = config["tau_high"], config["tau_low"], config["tau_delta"]
    clear, wide = _tests(picture)
    zone = {
        "type": "path",
        "layer": "below",
        "fillcolor": template.COLOUR["self"],
        "line": {"color": template.COLOUR["self"]},
    }
    for path in (f"M {delta},0 L 1,0 L 1,{1 - delta} Z", f"M 0,{delta} L 0,1 L {1 - delta},1 Z") if wide else ():
        figure.add_shape(
            **zone | {"opacity": 0.13, "path": path, "line": {"dash": "dot", "color": template.COLOUR["self"]}}
        )
    squares = (f"M {high},0 L 1,0 L 1,{low} L {high},{low} Z", f"M 0,{high} L 0,1 L {low},1 L {low},{high} Z")
    for path in squares if clear else ():
        figure.add_shape(**zone | {"opacity": 0.16, "path": path})
    for name, is_kept, symbol, colour, opacity in (
        ("left open", 0, "circle-open", template.COLOUR["control"], 0.75),
        ("kept", 1, "diamond", template.COLOUR["self"], 0.85),
    ):
        mine = [i for i, k in enumerate(points["kept"]) if k == is_kept]
        figure.add_scatter(
            x=[points["p_a"][i] for i in mine],
            y=[points["p_b"][i] for i in mine],
            mode="markers",
            name=name,
            marker={"symbol": symbol, "size": 6, "color": colour, "opacity": opacity},
            hovertemplate="a %{x:.2f}, b %{y:.2f}<br>" + name + "<extra></extra>",
        )
    for name, line in [("clear zone", "solid")] * clear + [("wide zone", "dot")] * wide:
        figure.add_scatter(
            x=[None],
            y=[None],
            mode="lines",
            name=name,
            line={"color": template.COLOUR["self"], "dash": line, "width": 1.5},
        )
    figure.update_xaxes(range=[0, 1], constrain="domain")
    figure.update_yaxes(range=[0, 1], scaleanchor="x", constrain="domain")
    return figure


def gaps(picture: Mapping[str, Any] | None, config: Mapping[str, Any]) -> go.Figure:
    """How p_a - p_b is spread over the open pairs, the part that was kept, and the cut of the wide test."""
    title = "How far the two responses lie apart"
    histogram = picture and picture.get("histogram")
    if not histogram:
        return template.empty(title, "A self-labelling round draws this picture.")
    what = _scale(config)
    figure = template.frame(title, f"{what} of a minus {what} of b", "pairs", height=430)
    template.histogram(figure, histogram)
    clear, wide = _tests(picture)
    for cut in (-config["tau_delta"], config["tau_delta"]) if wide else ():
        figure.add_vline(x=cut, line={"color": template.COLOUR["self"], "dash": "dot", "width": 2})
    no_cut = "only clear pairs pass in this round: no cut here" if clear else "no cut here"
    said = f"cut at ±{config['tau_delta']:g}" if wide else no_cut
    place = {"x": config["tau_delta"], "xshift": 4} if wide else {"x": -1}
    figure.add_annotation(**place, y=1, yref="paper", text=said, showarrow=False, xanchor="left")
    figure.update_xaxes(range=[-1, 1])
    return figure


def _tests(picture: Mapping[str, Any] | None) -> tuple[bool, bool]:
    """Which tests decided in this round: clear, wide. A staged filter uses one at a time."""
    stage = (picture or {}).get("stage") or "clear or wide"
    return "clear" in stage, "wide" in stage


def _scale(config: Mapping[str, Any]) -> str:
    return "rank" if config.get("thresholds") == "percentile" else "probability"
