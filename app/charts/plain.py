"""A plotly figure read as plain values: plotly's own objects check whatever is asked of them, which took most of a drawing."""

from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go

PARTS = {"error_x", "error_y", "line", "marker", "pattern", "title", "xaxis", "yaxis"}  # of a figure, set or not
LISTS = {"annotations", "shapes"}


class Plain:
    """A part of a figure, read as plotly's own objects are: what is not set is None, or a part without anything."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self.facts = facts

    def __getattr__(self, name: str) -> Any:
        return self[name]

    def __getitem__(self, name: str) -> Any:
        value = self.facts.get(name)
        if name in LISTS:
            return [Plain(one) for one in value or ()]
        return Plain(value or {}) if name in PARTS else value

    @classmethod
    def of(cls, figure: go.Figure) -> "Plain":
        traces = [cls(trace.to_plotly_json()) for trace in figure.data]
        return cls({"data": traces, "layout": cls(figure.layout.to_plotly_json())})
