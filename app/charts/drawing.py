"""A figure as a still picture: plotly Figure -> SVG text, without a browser and without a script.

Knows the parts that the charts here are made of: lines, marks, intervals, bands, bars, shapes, annotations. A trace of
another kind is an error, so that no picture leaves out what the page shows. Colours of text and axes are those of the page
around it; what a page tells on hovering is the picture's tooltip.
"""

import html
import math
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import plotly.graph_objects as go

from charts.plain import Plain

WIDTH, HEIGHT = 560, 320
LETTER = 6.7  # width of an average letter at the size of labels, 11 px, in wide fonts
LINE = 17  # height of a row of the legend
ROUND_NUMBERS = (1, 2, 2.5, 5, 10)
DASHES = {"dash": "7 4", "dot": "2 3", "dashdot": "7 3 2 3"}
MOST_TICKS = 12
TOLD = re.compile(r"%\{(?P<name>x|y|customdata)(?:\[(?P<place>\d+)\])?(?::(?P<style>[^}]+))?\}")  # in a hovertemplate
MILLION = 1_000_000  # from here on .6g would leave digits out


class Axis:
    """Values -> pixels. start, end: pixels of its two ends; names: of a category axis."""

    def __init__(self, layout: Any, values: Sequence[float], names: Sequence[str], start: float, end: float) -> None:
        self.layout, self.names, self.start, self.end = layout, list(names), start, end
        low, high = (min(values), max(values)) if values else (0.0, 1.0)
        if names:
            low, high = -0.6, len(names) - 0.4
        elif layout.range is not None:
            low, high = layout.range
        else:
            room = 0.06 * (high - low)
            low, high = (low if low == 0 else low - room), (high if high == 0 else high + room)
        if low == high:
            low, high = low - 0.5, high + 0.5
        if layout.autorange == "reversed":
            low, high = high, low
        self.low, self.high = float(low), float(high)

    def at(self, value: Any, in_axis: bool = True) -> float:
        """in_axis: False for a share of the axis' length."""
        if not in_axis:
            return self.start + float(value) * (self.end - self.start)
        number = self.names.index(value) if isinstance(value, str) else float(value)
        return self.start + (number - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> list[tuple[float, str]]:
        if self.names:
            return list(enumerate(self.names))
        shown = self.layout.tickvals
        if shown is not None:
            said = self.layout.ticktext
            words = list(said) if said is not None else [_number(value, "") for value in shown]
            apart = 1 if said is not None else max(1, math.ceil(len(words) / MOST_TICKS))
            return list(zip(shown, words, strict=True))[::apart]
        low, high = sorted((self.low, self.high))
        wanted = (high - low) / 5
        size = 10.0 ** math.floor(math.log10(wanted))
        step = next(size * n for n in ROUND_NUMBERS if size * n >= wanted)
        values = [n * step for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
        style = self.layout.tickformat or ""
        if style == ".0%" and abs(100 * step - round(100 * step)) > 1e-6:
            style = ".1%"
        return [(value, _number(value, style)) for value in values]


def svg(figure: go.Figure, width: int = WIDTH, height: int | None = None) -> str:
    """The picture with its title as a caption; height: of the drawing in pixels at `width`, None: as fits a report.

    Raises ValueError on what it cannot draw: a kind of trace, of axis, of line.
    """
    plain = Plain.of(figure)
    layout, title = plain.layout, html.unescape(plain.layout.title.text or "")
    caption = f"<figcaption>{html.escape(title)}</figcaption>"
    if layout.xaxis.visible is False:
        said = "".join(f"<p>{html.escape(html.unescape(found.text))}</p>" for found in layout.annotations)
        return f"<figure>{caption}{said}</figure>"
    return f"<figure>{caption}{_Picture(plain, title, width, height).drawn()}</figure>"


class _Picture:
    def __init__(self, figure: Plain, title: str, width: int, height: int | None) -> None:
        self.figure, self.title, self.width, layout = figure, title, width, figure.layout
        self.traces = figure.data
        strange = [trace.type for trace in self.traces if trace.type not in ("scatter", "bar")]
        lines = [trace for trace in self.traces if trace.type == "scatter"]
        strange += [trace.fill for trace in lines if trace.fill not in (None, "tonexty")]
        strange += [trace.line.shape for trace in lines if trace.line.shape not in (None, "linear")]
        strange += [axis.type for axis in (layout.xaxis, layout.yaxis) if axis.type not in (None, "linear", "category")]
        if strange:
            raise ValueError(f"a still picture of {strange[0]!r} is not known; draw it in app/charts/drawing.py")
        self.entries = self._entries()
        self.rows = self._legend_rows()
        self.height = height or min(HEIGHT, layout.height or HEIGHT) + LINE * max(0, len(self.rows) - 1)
        foot = LINE * len(self.rows) + (20 if layout.xaxis.title.text else 4) + 22
        across, up = self._values("x"), self._values("y")
        y = Axis(layout.yaxis, up[0], up[1], self.height - foot, 10)
        widest = max((len(words) for _, words in y.ticks()), default=0)
        left = 14 + LETTER * widest + (18 if layout.yaxis.title.text else 0)
        self.x, self.y = Axis(layout.xaxis, across[0], across[1], left, width - 18), y

    def drawn(self) -> str:
        parts = [*self._axes(), *self._shapes(below=True), *self._bars(), *self._scatters(), *self._shapes(below=False)]
        parts += [*self._annotations(), *self._legend()]
        return (
            f'<svg viewBox="0 0 {self.width} {self.height:.0f}" role="img" aria-label="{html.escape(self.title)}" '
            f'font-size="11" fill="currentColor">{"".join(parts)}</svg>'
        )

    def _hatch_of(self, number: int) -> str:
        """An id of its own on a page with several pictures."""
        return f"hatch-{zlib.crc32(self.title.encode())}-{number}"

    # ---- what there is to see

    def _values(self, which: str) -> tuple[list[float], list[str]]:
        """All values that an axis has to hold, or the names on it."""
        found: list[float] = []
        names: list[str] = []
        stacked: dict[Any, float] = {}
        for trace in self.traces:
            values = [value for value in (trace[which] if trace[which] is not None else []) if value is not None]
            names += [value for value in values if isinstance(value, str) and value not in names]
            numbers = [float(value) for value in values if not isinstance(value, str)]
            found += numbers
            if trace.type == "bar":
                is_height = (which == "x") == (trace.orientation == "h")
                found += [0.0] if is_height else []
                if is_height and self.figure.layout.barmode == "stack":
                    for place, value in zip(trace["y" if which == "x" else "x"], numbers, strict=True):
                        stacked[place] = stacked.get(place, 0.0) + value
            else:
                bars = trace[f"error_{which}"]
                if bars.array is not None:
                    less = bars.arrayminus if bars.arrayminus is not None else bars.array
                    found += [v + up for v, up in zip(numbers, bars.array, strict=True)]
                    found += [v - down for v, down in zip(numbers, less, strict=True)]
        for shape in self.figure.layout.shapes:
            if shape.type == "line" and shape[f"{which}ref"] in (None, which):
                found += [float(shape[f"{which}0"]), float(shape[f"{which}1"])]
        order = self.figure.layout[f"{which}axis"].categoryarray
        return found + list(stacked.values()), list(order or ()) or names

    def _axes(self) -> Iterator[str]:
        layout = self.figure.layout
        bottom, right = self.y.start, self.x.end
        for value, words in self.x.ticks():
            at = self.x.at(value)
            yield _text(at, bottom + 15, words, "middle", 0.75)
        for value, words in self.y.ticks():
            at = self.y.at(value)
            if layout.yaxis.showgrid is not False and not self.y.names:
                yield f'<path d="M{self.x.start:.1f} {at:.1f}H{right}" stroke="currentColor" opacity=".13"/>'
            yield _text(self.x.start - 6, at + 4, words, "end", 0.75)
        yield f'<path d="M{self.x.start:.1f} {bottom:.1f}H{right}" stroke="currentColor" opacity=".4"/>'
        if said := layout.xaxis.title.text:
            yield _text((self.x.start + right) / 2, bottom + 32, said, "middle", 0.85)
        if said := layout.yaxis.title.text:
            middle = (self.y.start + self.y.end) / 2
            yield f'<g transform="rotate(-90 12 {middle:.1f})">{_text(12, middle + 2, said, "middle", 0.85)}</g>'

    def _bars(self) -> Iterator[str]:
        below: dict[Any, float] = {}
        gap = self.figure.layout.bargap if self.figure.layout.bargap is not None else 0.2
        is_stack = self.figure.layout.barmode == "stack"
        for number, trace in enumerate(t for t in self.traces if t.type == "bar"):
            flat = trace.orientation == "h"
            places, sizes = (trace.y, trace.x) if flat else (trace.x, trace.y)
            along, up = (self.y, self.x) if flat else (self.x, self.y)
            width, mark = trace.width if trace.width is not None else 1 - gap, trace.marker
            fill, words, told = mark.color, trace.text, _teller(trace)
            if mark.pattern.shape:
                yield _hatch(self._hatch_of(number), mark.pattern.fgcolor or mark.color)
                fill = f"url(#{self._hatch_of(number)})"
            edge = f' stroke="{mark.color}"' if mark.line.width else ""
            style = f'fill="{fill}"{edge} opacity="{mark.opacity or 1:g}"'
            for row, (place, size) in enumerate(zip(places, sizes, strict=True)):
                base = below.get(place, 0.0) if is_stack else 0.0
                below[place] = base + size
                middle, half = along.at(place), abs(along.at(1) - along.at(0)) * width / 2
                a, b = sorted((up.at(base), up.at(base + size)))
                box = (a, middle - half, b - a, 2 * half) if flat else (middle - half, a, 2 * half, b - a)
                x, y, w, h = box
                yield (
                    f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(w, 0.1):.1f}" height="{max(h, 0.1):.1f}" '
                    f"{style}>{told(row)}</rect>"
                )
                if words is not None:
                    yield _text(b + 5 if b + 40 < self.x.end else b - 5, middle + 4, words[row],
                                "start" if b + 40 < self.x.end else "end")  # fmt: skip

    def _scatters(self) -> Iterator[str]:
        before: list[tuple[float, float]] = []
        for trace in self.traces:
            if trace.type != "scatter":
                continue
            across, up = trace.x, trace.y  # plotly checks anew whatever is asked of a trace
            rows = [row for row, value in enumerate(across) if value is not None and up[row] is not None]
            points = [(self.x.at(across[row]), self.y.at(up[row])) for row in rows]
            if not points:
                continue
            if trace.fill == "tonexty":
                yield f'<path d="{_path([*points, *reversed(before)])}Z" fill="{trace.fillcolor}"/>'
            yield from self._intervals(trace, rows)
            mode = trace.mode or "lines"
            if "lines" in mode and trace.line.width != 0:
                yield f'<path d="{_path(points)}" fill="none" {_stroke(trace.line)}/>'
            if "markers" in mode:
                mark, told = _marker(trace.marker), _teller(trace)
                for row, (x, y) in zip(rows, points, strict=True):
                    yield mark(row, x, y, told(row))
            before = points

    def _intervals(self, trace: Any, rows: Sequence[int]) -> Iterator[str]:
        for which, axis in (("x", self.x), ("y", self.y)):
            bars = trace[f"error_{which}"]
            if bars.array is None:
                continue
            more, colour, values = bars.array, bars.color, {"x": trace.x, "y": trace.y}
            less = bars.arrayminus if bars.arrayminus is not None else more
            for row in rows:
                x, y, value = self.x.at(values["x"][row]), self.y.at(values["y"][row]), float(values[which][row])
                a, b = axis.at(value - float(less[row])), axis.at(value + float(more[row]))
                if which == "y":
                    d = f"M{x:.1f} {a:.1f}V{b:.1f}M{x - 4:.1f} {a:.1f}h8M{x - 4:.1f} {b:.1f}h8"
                else:
                    d = f"M{a:.1f} {y:.1f}H{b:.1f}M{a:.1f} {y - 4:.1f}v8M{b:.1f} {y - 4:.1f}v8"
                yield f'<path d="{d}" fill="none" stroke="{colour}" stroke-width="1.4"/>'

    def _shapes(self, below: bool) -> Iterator[str]:
        for shape in self.figure.layout.shapes:
            if (shape.layer == "below") != below:
                continue
            if shape.type == "path":
                d = re.sub(
                    r"(-?[\d.]+(?:e-?\d+)?),(-?[\d.]+(?:e-?\d+)?)",
                    lambda at: f"{self.x.at(float(at[1])):.1f} {self.y.at(float(at[2])):.1f}",
                    shape.path,
                )
                fill = shape.fillcolor or "none"
                yield f'<path d="{d}" fill="{fill}" {_stroke(shape.line)} opacity="{shape.opacity or 1:g}"/>'
            else:
                ends = [
                    (self.x.at(x, shape.xref in (None, "x")), self.y.at(y, shape.yref in (None, "y")))
                    for x, y in ((shape.x0, shape.y0), (shape.x1, shape.y1))
                ]
                yield f'<path d="{_path(ends)}" {_stroke(shape.line)}/>'

    def _annotations(self) -> Iterator[str]:
        anchors = {"left": "start", "right": "end"}
        for found in self.figure.layout.annotations:
            x = self.x.at(found.x, found.xref in (None, "x")) + (found.xshift or 0)
            y = self.y.at(found.y, found.yref in (None, "y")) - (found.yshift or 0)
            anchor = anchors.get(found.xanchor or "", "middle")
            x += 3 if anchor == "start" and not found.xshift else 0
            yield _text(
                min(max(x, self.x.start + 2), self.x.end - 2),
                max(y, 12) + (11 if y < 20 else -4),
                found.text,
                anchor,
                0.85,
            )

    # ---- legend

    def _entries(self) -> list[Any]:
        named = [trace for trace in self.traces if trace.name and trace.showlegend is not False]
        return named if len(self.traces) > 1 or self.figure.layout.showlegend else []

    def _legend_rows(self) -> list[list[tuple[float, Any]]]:
        rows: list[list[tuple[float, Any]]] = []
        at = 0.0
        for trace in self.entries:
            wide = 44 + LETTER * len(trace.name)
            if not rows or at + wide > self.width - 12:
                rows.append([])
                at = 12.0
            rows[-1].append((at, trace))
            at += wide
        return rows

    def _legend(self) -> Iterator[str]:
        for number, row in enumerate(self.rows):
            y = self.height - LINE * (len(self.rows) - number) + 9
            for x, trace in row:
                if trace.type == "bar":
                    fill = trace.marker.color
                    if trace.marker.pattern.shape:
                        place = [t for t in self.traces if t.type == "bar"].index(trace)
                        fill = f"url(#{self._hatch_of(place)})"
                    yield f'<rect x="{x + 4}" y="{y - 5}" width="18" height="10" fill="{fill}" stroke="{trace.marker.color}" '
                    yield f'opacity="{trace.marker.opacity or 1:g}"/>'
                else:
                    if "lines" in (trace.mode or "lines"):
                        yield f'<path d="M{x} {y}h26" {_stroke(trace.line)}/>'
                    if "markers" in (trace.mode or "lines"):
                        yield _marker(trace.marker)(0, x + 13, y, "")
                yield _text(x + 31, y + 4, trace.name)


def _marker(marker: Any) -> Callable[[int, float, float, str], str]:
    """Draws the mark of a row at a place, with what it tells."""
    held, opacity = (marker.symbol, marker.size, marker.color), f'opacity="{marker.opacity or 1:g}" '

    def drawn(row: int, x: float, y: float, told: str) -> str:
        symbol, size, colour = (
            value if isinstance(value, str | int | float) or value is None else value[row] for value in held
        )
        symbol, r = symbol or "circle", (size or 7) / 2
        is_line = symbol.endswith("-open") or symbol == "x"
        style = opacity + (f'fill="none" stroke="{colour}" stroke-width="1.6"' if is_line else f'fill="{colour}"')
        kind = symbol.removesuffix("-open")
        if kind == "circle":
            return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r:g}" {style}>{told}</circle>'
        d = {
            "square": f"M{x - r:.1f} {y - r:.1f}h{2 * r}v{2 * r}h{-2 * r}Z",
            "diamond": f"M{x:.1f} {y - r:.1f}l{r} {r}l{-r} {r}l{-r} {-r}Z",
            "triangle-up": f"M{x:.1f} {y - r:.1f}l{r} {1.8 * r}h{-2 * r}Z",
            "x": f"M{x - r:.1f} {y - r:.1f}l{2 * r} {2 * r}m0 {-2 * r}l{-2 * r} {2 * r}",
        }.get(kind)
        if d is None:
            raise ValueError(f"a mark {symbol!r} is not known; draw it in app/charts/drawing.py")
        return f'<path d="{d}" {style}>{told}</path>'

    return drawn


def _teller(trace: Any) -> Callable[[int], str]:
    """What hovering tells of a row, as the element's title."""
    template = trace.hovertemplate
    if not template or trace.hoverinfo == "skip":
        return lambda row: ""
    template = re.sub(r"<extra>.*?</extra>", "", template)
    held = {"x": trace.x, "y": trace.y, "customdata": trace.customdata}

    def told(row: int) -> str:
        def value(found: re.Match[str]) -> str:
            values = held[found["name"]][row]
            if found["place"] is not None:
                values = values[int(found["place"])]
            return _number(values, found["style"] or "")

        words = TOLD.sub(value, template).replace("<br>", "\n")
        return f"<title>{html.escape(html.unescape(words))}</title>"

    return told


def _number(value: Any, style: str) -> str:
    if isinstance(value, str):
        return value
    if style.endswith("d") or (not style and abs(value) >= MILLION):
        return f"{round(value):,}"
    return format(float(value), style) if style and not style.endswith(",") else f"{float(value):,.6g}"


def _stroke(line: Any) -> str:
    dashes = f' stroke-dasharray="{DASHES[line.dash]}"' if line.dash in DASHES else ""
    return f'stroke="{line.color or "currentColor"}" stroke-width="{2 if line.width is None else line.width:g}"{dashes}'


def _hatch(name: str, colour: str) -> str:
    return (
        f'<pattern id="{name}" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
        f'<path d="M0 0V6" stroke="{colour}" stroke-width="4"/></pattern>'
    )


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _text(x: float, y: float, words: str, anchor: str = "start", opacity: float = 1) -> str:
    """words: as plotly takes them, where < and & are written as entities."""
    faint = f' opacity="{opacity:g}"' if opacity < 1 else ""
    said = html.escape(html.unescape(str(words)))
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{faint}>{said}</text>'
