"""A figure as a file, made by the browser that shows it: no network, no second program.

Plotly's own button in the corner of a figure does it; here it stands on white with a size of its own, and a button with words
presses that one. Streamlit shows no button that could run a line of script, so this is a component of ours.
"""

import re

import charts
import plotly.graph_objects as go
import streamlit as st

WIDTH = 900  # pixels; a PNG has twice as many, for print
SCALE = 2
PLACE = "figure-file"  # key of the container that holds the figure
PRESS = """
export default function ({ data, parentElement }) {
  const button = parentElement.querySelector("button");
  button.textContent = data.label;
  button.onclick = () => document.querySelector(`.st-key-${data.place} .modebar-btn`)?.click();
}
"""
LOOK = """
button {
  font: inherit; font-family: var(--st-font); color: #fff; cursor: pointer; min-height: 2.5rem; padding: .25rem .9rem;
  border: 1px solid transparent; border-radius: var(--st-button-radius, .5rem);
  background: color-mix(in srgb, var(--st-primary-color) 88%, #000);
}
button:focus-visible { outline: 2px solid var(--st-text-color); outline-offset: 1px; }
"""

_button = st.components.v2.component("ser_figure_file", html='<button type="button"></button>', css=LOOK, js=PRESS)


@st.dialog("Download figure", width="large")
def ask(figures: dict[str, go.Figure]) -> None:
    """figures: by what they are called."""
    left, right = st.columns([3, 2], vertical_alignment="bottom")
    name = left.selectbox("Figure", list(figures), key="figure-name")
    kind = right.segmented_control(
        "Format",
        ["SVG", "PNG"],
        default="SVG",
        required=True,
        key="figure-format",
        help="SVG stays sharp at any size and can be edited; PNG goes everywhere.",
    )
    figure = charts.on_white(figures[name])
    file = {
        "format": kind.lower(),
        "filename": re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-"),
        "width": WIDTH,
        "height": int(figure.layout.height),
        "scale": SCALE if kind == "PNG" else 1,
    }
    with st.container(key=PLACE):
        config = charts.CONFIG | {
            "displayModeBar": True,
            "modeBarButtons": [["toImage"]],
            "displaylogo": False,
            "toImageButtonOptions": file,
        }
        st.plotly_chart(figure, theme=None, config=config, key=f"figure-{name}-{kind}")
    _button(key="figure-press", data={"label": f"Download {kind}", "place": PLACE})
