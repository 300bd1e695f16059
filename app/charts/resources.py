"""What a run takes of the machine, over time."""

from collections.abc import Sequence

import plotly.graph_objects as go

from charts import template
from ser_backend.resources import Sample

GIB = 1 << 30


def resources(samples: Sequence[Sample], cores: int) -> tuple[go.Figure, go.Figure]:
    """Cores busy, and memory; minutes before the newest sample."""
    busy, memory = "Processor cores busy", "Memory in use"
    if not samples:
        sentence = "No worker has looked yet."
        return template.empty(busy, sentence), template.empty(memory, sentence)
    minutes = [(sample.at - samples[-1].at) / 60 for sample in samples]
    axis = "minutes before the newest"
    left = template.frame(busy, axis, f"cores of {cores}", height=230)
    _line(left, minutes, [sample.cpu for sample in samples], "cores", "self", "%{y:.2f} cores")
    left.update_yaxes(range=[0, max(1.0, 1.1 * max(sample.cpu for sample in samples))])
    right = template.frame(memory, axis, "GiB", height=230)
    _line(right, minutes, [sample.memory / GIB for sample in samples], "memory", "self", "%{y:.2f} GiB")
    if any(sample.gpu for sample in samples):
        _line(right, minutes, [sample.gpu / GIB for sample in samples], "GPU memory", "review", "%{y:.2f} GiB")
    right.update_yaxes(rangemode="tozero")
    for figure in (left, right):
        figure.update_layout(showlegend=len(figure.data) > 1, margin={"b": 46 if len(figure.data) < 2 else 80})
    return left, right


def _line(figure: go.Figure, at: Sequence[float], value: Sequence[float], name: str, colour: str, says: str) -> None:
    figure.add_scatter(
        x=list(at),
        y=list(value),
        mode="lines" if len(at) > 1 else "markers",
        name=name,
        line={
            "color": template.COLOUR[colour],
            "width": 2,
            "dash": template.DASHES[len(figure.data) % len(template.DASHES)],
        },
        hovertemplate=f"{name}: {says}<extra></extra>",
    )
