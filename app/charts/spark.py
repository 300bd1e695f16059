"""Accuracy round by round, as small as a word: a picture in SVG, since twenty plotly figures would be slow."""

import base64
import html
from collections.abc import Sequence

from charts.template import COLOUR

WIDTH, HEIGHT, EDGE = 132, 34, 4.0
LEAST_SPAN = 0.06  # a smaller range of accuracies is not blown up: it would make noise look like progress


def sparkline(accuracy: Sequence[float | None], control: Sequence[float | None]) -> str:
    """Shares by round, None where not measured: a line with the newest round marked, and the control dashed behind it.

    Returns an HTML image, as pages let no SVG pass that stands by itself; "" where nothing was measured.
    """
    known = [value for value in (*accuracy, *control) if value is not None]
    if not known:
        return ""
    middle, span = (min(known) + max(known)) / 2, max(LEAST_SPAN, max(known) - min(known))
    step = (WIDTH - 2 * EDGE) / max(1, len(accuracy) - 1)

    def places(values: Sequence[float | None]) -> list[tuple[float, float]]:
        return [
            (EDGE + step * i, HEIGHT / 2 - (value - middle) / span * (HEIGHT - 2 * EDGE))
            for i, value in enumerate(values)
            if value is not None
        ]

    told = "Held-out accuracy by round: " + ", ".join(
        "not known" if v is None else f"{100 * v:.1f} %" for v in accuracy
    )
    if mine := [v for v in control if v is not None]:
        told += f"; control now {100 * mine[-1]:.1f} %"
    drawn = [_line(places(control), f'stroke="{COLOUR["control"]}" stroke-width="1.4" stroke-dasharray="3 3"')]
    if points := places(accuracy):
        x, y = points[-1]
        drawn.append(_line(points, f'stroke="{COLOUR["self"]}" stroke-width="1.8"'))
        drawn.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.8" fill="{COLOUR["self"]}"/>')
    picture = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}">'
        f"{''.join(drawn)}</svg>"
    )
    told = html.escape(told)
    source = base64.b64encode(picture.encode()).decode()
    return (
        f'<img width="{WIDTH}" height="{HEIGHT}" alt="{told}" title="{told}" src="data:image/svg+xml;base64,{source}">'
    )


def _line(points: Sequence[tuple[float, float]], style: str) -> str:
    if len(points) < 2:
        return ""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke-linejoin="round" {style}/>'
