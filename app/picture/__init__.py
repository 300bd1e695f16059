"""A figure on a page: a picture that the page brings along, and plotly's own from a click on.

Plotly's code is 4.7 MB, and a browser needs as long to start it as for all the rest of a page. So a tab begins with pictures
(charts/drawing.py), which tell on hovering what plotly tells; a click makes the tab's figures plotly's, whose legend hides
and shows lines.
"""

from contextlib import nullcontext
from pathlib import Path

import charts
import plotly.graph_objects as go
import state
import streamlit as st

HERE = Path(__file__).parent
WIDTHS = (366, 520, 1040)  # pixels that a picture is drawn for; the browser shows the one that fits
TITLE = 34  # pixels of height

_component = st.components.v2.component(
    "ser_picture",
    html='<div id="picture" role="button" tabindex="0"></div>',
    css=(HERE / "picture.css").read_text(),
    js=(HERE / "picture.js").read_text(),
)


def show_figure(figure: go.Figure, key: str, place: "st.delta_generator.DeltaGenerator | None" = None) -> None:
    """Draw it here, or in `place`. key: of the widget, one for each figure of a page."""
    session = state.session()
    with place or nullcontext():
        if session.live:
            st.plotly_chart(figure, key=key, config=charts.CONFIG)
            return
        height = int(figure.layout.height or charts.HEIGHT)
        try:
            drawn = _drawn(figure.to_json(), figure, height - TITLE)
        except ValueError:  # plotly can more
            st.plotly_chart(figure, key=key, config=charts.CONFIG)
            return
        _component(
            key=f"picture-{key}", data={"height": height, "title": TITLE, "drawn": drawn}, on_live_change=_go_live
        )


@st.cache_data(show_spinner=False, max_entries=100)
def _drawn(spec: str, _figure: go.Figure, height: int) -> dict[str, str]:
    """By width. Most figures of a page are the same when it is drawn again. Raises ValueError."""
    return {str(width): charts.svg(_figure, width, height) for width in WIDTHS}


def _go_live() -> None:
    state.session().live = True
