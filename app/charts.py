"""Records -> plotly figures. Pure functions, no Streamlit: what a figure shows is what it is given.

One colour per origin on every page, told apart by colour-blind eyes (after Okabe and Ito, in tones that read on light and
on dark ground), and never by colour alone: symbols and dashes differ too.
"""

import html
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from ser_backend.metrics import Z_95, sigmoid
from ser_backend.records import Interval, Round

COLOUR = {
    "human": "#2F86C6",
    "self": "#D97706",
    "review": "#119D76",
    "control": "#8A8F98",
    "full": "#B0679B",
}
ORIGIN_NAMES = {"human": "people's labels (seed)", "review": "reviewed here", "self": "self-labels"}
CLEAR = 1
CHANCE = 0.6931  # log 2: the loss of a model that cannot tell the two responses apart
DASHES = ("solid", "dash", "dot", "dashdot")  # rounds, told apart without colour
HEIGHT = 350
LONGEST_NAME = 28  # letters that stand beside an axis
TRANSPARENT = "rgba(0,0,0,0)"
CONFIG = {"displayModeBar": False, "responsive": True}


def accuracy(rounds: Sequence[Round]) -> go.Figure:
    """Held-out accuracy of the model and of the control, round by round, with 95 % intervals."""
    title = "Accuracy on held-out pairs"
    if not rounds:
        return empty(title, "The seed model is not trained yet.")
    figure = _figure(title, "round (0 = seed model)", "accuracy")
    later = [round_ for round_ in rounds if round_.index]
    _with_interval(
        figure,
        "control",
        [(r.index, r.control, "") for r in later],
        line={"color": COLOUR["control"], "dash": "dot", "width": 2},
        marker={"symbol": "square", "size": 8, "color": COLOUR["control"]},
        shift=0.06 if later else 0,
    )
    _with_interval(
        figure,
        "model",
        [(r.index, r.heldout, "" if r.promoted == "new" else "<br>rolled back") for r in rounds],
        line={"color": COLOUR["self"], "width": 2.5},
        marker={
            "symbol": ["circle" if r.promoted == "new" else "x" for r in rounds],
            "size": [9 if r.promoted == "new" else 11 for r in rounds],
            "color": COLOUR["self"],
        },
    )
    if any(r.promoted != "new" for r in rounds):
        mark = {"symbol": "x", "size": 11, "color": COLOUR["self"]}
        figure.add_scatter(x=[None], y=[None], mode="markers", marker=mark, name="rolled back")
    figure.update_yaxes(tickformat=".0%")
    figure.update_xaxes(tickvals=[r.index for r in rounds], range=[-0.4, max(1, rounds[-1].index) + 0.4])
    return figure


def difference(rounds: Sequence[Round]) -> go.Figure:
    """Model minus control, round by round, in percentage points."""
    title = "What self-labels added: model minus control"
    told = [(r, r.difference) for r in rounds if r.index and r.difference]
    if not told:
        return empty(title, "The first self-labelling round is not finished yet.")
    figure = _figure(title, "round", "percentage points")
    value = [100 * d[0] for _, d in told]
    kept = [r.promoted == "new" for r, _ in told]
    figure.add_hline(y=0, line={"color": COLOUR["control"], "dash": "dot", "width": 2})
    figure.add_scatter(
        x=[r.index for r, _ in told],
        y=value,
        mode="markers",
        name="model - control",
        marker={
            "symbol": ["circle" if k else "x" for k in kept],
            "size": [10 if k else 12 for k in kept],
            "color": COLOUR["self"],
        },
        error_y=_error(value, [100 * d[1] for _, d in told], [100 * d[2] for _, d in told], COLOUR["self"]),
        customdata=[
            [f"{100 * d[1]:+.1f} to {100 * d[2]:+.1f}", "" if r.promoted == "new" else "<br>rolled back"]
            for r, d in told
        ],
        hovertemplate="round %{x}: %{y:+.1f} points (%{customdata[0]})%{customdata[1]}<extra></extra>",
        showlegend=False,
    )
    last = told[-1][0].index
    figure.update_xaxes(tickvals=[r.index for r, _ in told], range=[0.4, last + 0.6])
    return figure


def loss(rounds: Sequence[Round], live: Sequence[tuple[int, float]] = (), live_round: int | None = None) -> go.Figure:
    """Training loss of the model over the optimiser steps of all rounds; live: (step, mean loss) of the round under way."""
    title = "Training loss of the model"
    told = [r for r in rounds if r.details.get("loss")]
    if not told and not live:
        return empty(title, "No step is done yet.")
    figure = _figure(title, "optimiser steps, all rounds", "loss (nats a pair)")
    before = 0
    for round_ in told:
        curve, steps = round_.details["loss"], round_.details["steps"]
        at = [before + (place + 0.5) * steps / len(curve) for place in range(len(curve))]
        _loss_line(figure, at, curve, f"round {round_.index}", round_.index)
        before += steps
    if live:
        at = [before + step for step, _ in live]
        _loss_line(figure, at, [value for _, value in live], f"round {live_round}, under way", live_round or 0)
    figure.add_hline(y=CHANCE, line={"color": COLOUR["control"], "dash": "dot"}, annotation_text="guessing")
    return figure


def _loss_line(figure: go.Figure, at: Sequence[float], curve: Sequence[float], name: str, index: int) -> None:
    figure.add_scatter(
        x=list(at),
        y=list(curve),
        mode="lines+markers" if len(at) < 3 else "lines",
        name=name,
        line={"color": COLOUR["self"] if index else COLOUR["human"], "width": 2, "dash": DASHES[index % len(DASHES)]},
        hovertemplate=name + ", step %{x:.0f}: %{y:.3f}<extra></extra>",
    )


def kept(rounds: Sequence[Round], by_tests: bool = True) -> go.Figure:
    """Pairs of the open pool that each round kept, by the paper's two tests where it has them, and those it left."""
    title = "Pairs kept and left in each round"
    later = [round_ for round_ in rounds if round_.index]
    if not later:
        return empty(title, "The first self-labelling round is not finished yet.")
    figure = _figure(title, "round", "pairs")
    parts = [
        ("kept, clear" if by_tests else "kept", [r.n_kept_status_1 for r in later], COLOUR["self"], ""),
        ("kept, wide", [r.n_kept_status_2 for r in later], COLOUR["self"], "/"),
        ("left open", [r.n_pool - r.n_kept for r in later], COLOUR["control"], ""),
    ]
    if not by_tests:
        parts.pop(1)
    for name, counts, colour, pattern in parts:
        figure.add_bar(
            x=[r.index for r in later],
            y=counts,
            name=name,
            marker={
                "color": colour,
                "opacity": 0.45 if name == "left open" else 1,
                "pattern": {"shape": pattern, "fgcolor": colour, "bgcolor": TRANSPARENT, "solidity": 0.4},
                "line": {"width": 1, "color": colour},
            },
            hovertemplate="round %{x}: %{y:,} pairs " + name + "<extra></extra>",
        )
    figure.update_layout(barmode="stack", bargap=0.6)
    figure.update_xaxes(tickvals=[r.index for r in later], range=[0.4, later[-1].index + 0.6])
    return figure


def zones(picture: Mapping[str, Any] | None, config: Mapping[str, Any]) -> go.Figure:
    """The probability of response a against that of response b, with the zones in which a pair passes."""
    title = "What the model thinks of the two responses"
    points = picture and picture.get("points")
    if not points:
        return empty(title, "A self-labelling round draws this picture.")
    what = _scale(config)
    figure = _figure(title, f"{what} of response a", f"{what} of response b", height=430)
    high, low, delta = config["tau_high"], config["tau_low"], config["tau_delta"]
    clear, wide = _tests(picture)
    zone = {"type": "path", "layer": "below", "fillcolor": COLOUR["self"], "line": {"color": COLOUR["self"]}}
    for path in (f"M {delta},0 L 1,0 L 1,{1 - delta} Z", f"M 0,{delta} L 0,1 L {1 - delta},1 Z") if wide else ():
        figure.add_shape(**zone | {"opacity": 0.13, "path": path, "line": {"dash": "dot", "color": COLOUR["self"]}})
    squares = (f"M {high},0 L 1,0 L 1,{low} L {high},{low} Z", f"M 0,{high} L 0,1 L {low},1 L {low},{high} Z")
    for path in squares if clear else ():
        figure.add_shape(**zone | {"opacity": 0.16, "path": path})
    for name, is_kept, symbol, colour, opacity in (
        ("left open", 0, "circle-open", COLOUR["control"], 0.75),
        ("kept", 1, "diamond", COLOUR["self"], 0.85),
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
            x=[None], y=[None], mode="lines", name=name, line={"color": COLOUR["self"], "dash": line, "width": 1.5}
        )
    figure.update_xaxes(range=[0, 1], constrain="domain")
    figure.update_yaxes(range=[0, 1], scaleanchor="x", constrain="domain")
    return figure


def gaps(picture: Mapping[str, Any] | None, config: Mapping[str, Any]) -> go.Figure:
    """How p_a - p_b is spread over the open pairs, the part that was kept, and the cut of the wide test."""
    title = "How far the two responses lie apart"
    histogram = picture and picture.get("histogram")
    if not histogram:
        return empty(title, "A self-labelling round draws this picture.")
    what = _scale(config)
    figure = _figure(title, f"{what} of a minus {what} of b", "pairs", height=430)
    _histogram(figure, histogram)
    clear, wide = _tests(picture)
    for cut in (-config["tau_delta"], config["tau_delta"]) if wide else ():
        figure.add_vline(x=cut, line={"color": COLOUR["self"], "dash": "dot", "width": 2})
    no_cut = "only clear pairs pass in this round: no cut here" if clear else "no cut here"
    said = f"cut at ±{config['tau_delta']:g}" if wide else no_cut
    place = {"x": config["tau_delta"], "xshift": 4} if wide else {"x": -1}
    figure.add_annotation(**place, y=1, yref="paper", text=said, showarrow=False, xanchor="left")
    figure.update_xaxes(range=[-1, 1])
    return figure


def _histogram(figure: go.Figure, counts: Mapping[str, Any]) -> None:
    """The kept part in front of all open pairs."""
    edges = counts["edges"]
    middles = [(left + right) / 2 for left, right in itertools.pairwise(edges)]
    for name, key, colour, opacity in (
        ("all open pairs", "all", COLOUR["control"], 0.45),
        ("kept", "kept", COLOUR["self"], 0.95),
    ):
        figure.add_bar(
            x=middles,
            y=counts[key],
            name=name,
            width=edges[1] - edges[0],
            marker={"color": colour, "opacity": opacity, "line": {"width": 0}},
            hovertemplate="around %{x:.2f}: %{y:,} pairs, " + name + "<extra></extra>",
        )
    figure.update_layout(barmode="overlay", bargap=0)


# ---- a round that certifies its labels


def reliability(details: Mapping[str, Any]) -> go.Figure:
    """Is the teacher right as often as it is sure: on labels it did not see, before and after its temperature."""
    title = "Is the teacher right as often as it is sure?"
    after, before = details.get("reliability"), details.get("reliability_before")
    if not after or not after["confidence"]:
        return empty(title, "A round that certifies its labels draws this picture.")
    error = Interval(**after["ece"])
    title = f"Calibration error {100 * error.value:.1f} % ({100 * error.low:.1f} to {100 * error.high:.1f})"
    figure = _figure(title, "how sure the teacher is", "share right", height=400)
    ends = {"color": COLOUR["control"], "dash": "dot", "width": 2}
    figure.add_scatter(x=[0.5, 1], y=[0.5, 1], mode="lines", name="as sure as right", line=ends, hoverinfo="skip")
    if before and before["confidence"]:
        figure.add_scatter(
            x=before["confidence"],
            y=[share["value"] for share in before["right"]],
            mode="lines+markers",
            name="before temperature",
            line={"color": COLOUR["control"], "width": 1},
            marker={"symbol": "circle-open", "size": 6, "color": COLOUR["control"]},
            hovertemplate="before temperature: %{x:.1%} sure, %{y:.1%} right<extra></extra>",
        )
    bins = [Interval(**share) for share in after["right"]]
    value = [share.value for share in bins]
    figure.add_scatter(
        x=after["confidence"],
        y=value,
        mode="lines+markers",
        name="as used",
        line={"color": COLOUR["self"], "width": 2.5},
        marker={"symbol": "circle", "size": 9, "color": COLOUR["self"]},
        error_y=_error(value, [share.low for share in bins], [share.high for share in bins], COLOUR["self"]),
        customdata=[str(share) for share in bins],
        hovertemplate="as used: %{x:.1%} sure<br>right %{customdata}<extra></extra>",
    )
    lowest = min(0.45, *(share.low for share in bins))
    figure.update_xaxes(tickformat=".0%", range=[0.49, 1.01])
    figure.update_yaxes(tickformat=".0%", range=[lowest - 0.03, 1.03])
    return figure


def confidence(details: Mapping[str, Any]) -> go.Figure:
    """The teacher's confidence over the open pool, the part whose labels are kept, and where the certificate ends."""
    title = "How sure the teacher is of the open pairs"
    counts = details.get("confidence")
    if not counts:
        return empty(title, "A round that certifies its labels draws this picture.")
    figure = _figure(title, "how sure the teacher is", "pairs", height=400)
    _histogram(figure, counts)
    ends = _certified_ends(details)
    for (at, words), dash in zip(ends.items(), DASHES, strict=False):
        line = {"color": COLOUR["human"], "dash": dash, "width": 2}
        figure.add_vline(x=at, line=line)
        figure.add_scatter(x=[None], y=[None], mode="lines", name=words, line=line)
    if not ends:
        figure.add_annotation(x=0.99, y=1, yref="paper", xanchor="right", text="nothing is certified", showarrow=False)
    figure.update_xaxes(tickformat=".0%", range=[0.5, 1])
    return figure


def _certified_ends(details: Mapping[str, Any]) -> dict[float, str]:
    """Least certified confidence -> of which labels, in words. Certificates speak of it before the temperature."""
    ends: dict[float, list[str]] = {}
    for side, certificate in details.get("certificates", {}).items():
        if certificate["threshold"] is not None:
            at = float(sigmoid(certificate["threshold"] / details.get("temperature", 1.0)))
            ends.setdefault(at, []).append("longer" if "longer" in side else "shorter")
    of = {at: f": {sides[0]} preferred" if len(sides) == 1 else "" for at, sides in ends.items()}
    return {at: f"certified from {at:.0%}{of[at]}" for at in sorted(ends)}


def precision(rounds: Sequence[Round], audited: Mapping[int, Interval]) -> go.Figure:
    """How many of the labels that a round kept are right: claimed, certified at least, and found by random checks."""
    title = "How right the kept labels are"
    later = [r for r in rounds if r.index and r.n_kept and r.details.get("claimed_precision") is not None]
    if not later:
        return empty(title, "No round has kept a label.")
    figure = _figure(title, "round", "share right")
    at = [r.index for r in later]
    figure.add_scatter(
        x=at,
        y=[r.details["claimed_precision"] for r in later],
        mode="lines+markers",
        name="claimed",
        line={"color": COLOUR["self"], "width": 2.5},
        marker={"symbol": "circle", "size": 9, "color": COLOUR["self"]},
        hovertemplate="round %{x}: %{y:.1%} claimed, the mean confidence<extra></extra>",
    )
    certified = [r for r in later if r.details.get("certificate")]
    figure.add_scatter(
        x=[r.index for r in certified],
        y=[r.details["certificate"]["target"] for r in certified],
        mode="lines+markers",
        name="certified at least",
        line={"color": COLOUR["human"], "width": 2, "dash": "dash"},
        marker={"symbol": "triangle-up", "size": 11, "color": COLOUR["human"]},
        customdata=[f"{1 - r.details['certificate']['delta']:.0%}" for r in certified],
        hovertemplate="round %{x}: at least %{y:.1%}, with %{customdata} confidence<extra></extra>",
    )
    _with_interval(
        figure,
        "audited",
        [(index, audited.get(index), "") for index in at],
        line={"color": COLOUR["review"], "dash": "dot", "width": 2},
        marker={"symbol": "square", "size": 9, "color": COLOUR["review"]},
        shift=0.06,
    )
    figure.update_yaxes(tickformat=".0%")
    figure.update_xaxes(tickvals=[r.index for r in rounds if r.index], range=[0.4, rounds[-1].index + 0.6])
    return figure


def learning_curve(found: Mapping[str, Any]) -> go.Figure:
    """Accuracy against the number of human labels: measured sizes, and the fitted law beyond them with its interval."""
    title = "What more human labels would bring"
    path, curve = found.get("path"), found.get("curve")
    if not path or not curve:
        return empty(title, "There are too few human labels to say.")
    figure = _figure(title, "human labels", "accuracy on labels not trained on")
    labels, value, low, high = zip(*path, strict=True)
    band = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
    figure.add_scatter(x=labels, y=high, **band)
    figure.add_scatter(x=labels, y=low, fill="tonexty", fillcolor=_faint(COLOUR["human"]), **band)
    figure.add_scatter(
        x=labels,
        y=value,
        mode="lines",
        name="expected, with 95 % interval",
        line={"color": COLOUR["human"], "width": 2, "dash": "dash"},
        customdata=[f"{100 * a:.1f} to {100 * b:.1f}" for a, b in zip(low, high, strict=True)],
        hovertemplate="%{x:,} labels: %{y:.1%} (%{customdata})<extra></extra>",
    )
    spread = [Z_95 * error for error in curve["se"]]
    figure.add_scatter(
        x=curve["n"],
        y=curve["accuracy"],
        mode="markers",
        name="measured",
        marker={"color": COLOUR["human"], "size": 8},
        error_y={"type": "data", "array": spread, "thickness": 1.4, "width": 4, "color": COLOUR["human"]},
        hovertemplate="%{x:,} labels: %{y:.1%}<extra>measured</extra>",
    )
    now = {"color": COLOUR["control"], "dash": "dot", "width": 2}
    figure.add_vline(x=curve["labels"], line=now, annotation_text=f"now: {curve['labels']:,}")
    figure.update_yaxes(tickformat=".0%")
    return figure


def agreement(
    title: str,
    x: str,
    found: Sequence[tuple[str, float, float, float, int]],
    few: int,
    by_chance: tuple[float, str] | None = None,
    percent: bool = True,
) -> go.Figure:
    """A dot with its 95 % interval for each annotator, or pair of them, the highest on top. found: name, value, low, high, n;
    with fewer than `few` answers the dot is hollow. by_chance: where a dotted line stands, and what it says."""
    known = sorted((dot for dot in found if dot[4]), key=lambda dot: (dot[1], dot[0]))
    if not known:
        return empty(title, "There are no answers that say so yet.")
    figure = _figure(title, x, "", height=150 + 24 * len(known))
    places = range(len(known))
    for name, symbol, mine in (
        (f"{few} answers or more", "circle", [i for i in places if known[i][4] >= few]),
        (f"fewer than {few}", "circle-open", [i for i in places if known[i][4] < few]),
    ):
        if not mine:
            continue
        value, low, high = ([known[i][part] for i in mine] for part in (1, 2, 3))
        told = [
            f"{100 * v:.1f} % ({100 * a:.1f} to {100 * b:.1f}" if percent else f"{v:.2f} ({a:.2f} to {b:.2f}"
            for v, a, b in zip(value, low, high, strict=True)
        ]
        figure.add_scatter(
            x=value,
            y=mine,
            mode="markers",
            name=name,
            marker={
                "symbol": symbol,
                "size": 10,
                "color": COLOUR["review"],
                "line": {"width": 2, "color": COLOUR["review"]},
            },
            error_x=_error(value, low, high, COLOUR["review"]),
            customdata=[
                [_as_it_is(known[i][0]), f"{words}, n = {known[i][4]:,})"] for i, words in zip(mine, told, strict=True)
            ],
            hovertemplate="%{customdata[0]}<br>%{customdata[1]}<extra></extra>",
        )
    if by_chance:
        line = {"color": COLOUR["control"], "dash": "dot", "width": 2}
        figure.add_vline(x=by_chance[0], line=line)
        figure.add_scatter(x=[None], y=[None], mode="lines", name=by_chance[1], line=line)
    names = [_as_it_is(dot[0] if len(dot[0]) <= LONGEST_NAME else f"{dot[0][: LONGEST_NAME - 1]}…") for dot in known]
    figure.update_layout(showlegend=True)
    figure.update_yaxes(tickvals=list(places), ticktext=names, range=[-0.7, len(known) - 0.3], showgrid=False)
    figure.update_xaxes(tickformat=".0%" if percent else ".1f")
    return figure


def _as_it_is(name: str) -> str:
    """plotly takes some tags in a text for markup, links among them."""
    return html.escape(name, quote=False)


def origins(counts: Mapping[str, int]) -> go.Figure:
    """Labels by origin."""
    title = "Where the labels come from"
    known = [origin for origin in ORIGIN_NAMES if counts.get(origin)]
    if not known:
        return empty(title, "There are no labels yet.")
    figure = _figure(title, "pairs", "", height=120 + 45 * len(known))
    figure.update_layout(margin_b=50)
    for origin in known:
        figure.add_bar(
            x=[counts[origin]],
            y=[ORIGIN_NAMES[origin]],
            orientation="h",
            name=ORIGIN_NAMES[origin],
            text=[f"{counts[origin]:,}"],
            textposition="auto",
            marker={"color": COLOUR[origin]},
            hovertemplate="%{y}: %{x:,} pairs<extra></extra>",
            showlegend=False,
        )
    figure.update_layout(barmode="overlay", bargap=0.35)
    figure.update_yaxes(autorange="reversed", title=None)
    return figure


def empty(title: str, sentence: str) -> go.Figure:
    """A figure that says why it shows nothing."""
    figure = _figure(title, "", "")
    figure.add_annotation(text=sentence, showarrow=False, x=0.5, y=0.5, xref="paper", yref="paper", opacity=0.75)
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    return figure


# ---- one template


def _figure(title: str, x: str, y: str, height: int = HEIGHT) -> go.Figure:
    figure = go.Figure()
    figure.update_layout(
        title={"text": title, "font": {"size": 15}, "x": 0, "xanchor": "left", "y": 0.98, "yanchor": "top"},
        height=height,
        margin={"l": 10, "r": 10, "t": 44, "b": 92},  # the legend lies below the axis title, however narrow it gets
        paper_bgcolor=TRANSPARENT,
        plot_bgcolor=TRANSPARENT,
        legend={
            "orientation": "h",
            "xref": "container",
            "yref": "container",
            "x": 0.01,
            "y": 0,
            "xanchor": "left",
            "yanchor": "bottom",
        },
        hoverlabel={"align": "left"},
    )
    figure.update_xaxes(title=x or None, title_standoff=8, zeroline=False, fixedrange=True)
    figure.update_yaxes(title=y or None, zeroline=False, automargin=True, fixedrange=True)
    return figure


def _with_interval(
    figure: go.Figure,
    name: str,
    told: Sequence[tuple[int, Interval | None, str]],
    line: dict[str, Any],
    marker: dict[str, Any],
    shift: float = 0,
) -> None:
    """shift: moves the marks aside, so that two intervals at one round do not cover each other."""
    known = [(index, interval, note) for index, interval, note in told if interval is not None]
    if not known:
        return
    value = [interval.value for _, interval, _ in known]
    figure.add_scatter(
        x=[index + shift for index, _, _ in known],
        y=value,
        mode="lines+markers",
        name=name,
        line=line,
        marker=marker,
        error_y=_error(value, [i.low for _, i, _ in known], [i.high for _, i, _ in known], line["color"]),
        customdata=[[index, str(interval), note] for index, interval, note in known],
        hovertemplate="round %{customdata[0]}, " + name + "<br>%{customdata[1]}%{customdata[2]}<extra></extra>",
    )


def _error(value: Sequence[float], low: Sequence[float], high: Sequence[float], colour: str) -> dict[str, Any]:
    return {
        "type": "data",
        "array": [h - v for v, h in zip(value, high, strict=True)],
        "arrayminus": [v - lo for v, lo in zip(value, low, strict=True)],
        "thickness": 1.4,
        "width": 4,
        "color": colour,
    }


def _faint(colour: str) -> str:
    return f"rgba({', '.join(str(int(colour[i : i + 2], 16)) for i in (1, 3, 5))}, 0.15)"


def _tests(picture: Mapping[str, Any] | None) -> tuple[bool, bool]:
    """Which tests decided in this round: clear, wide. A staged filter uses one at a time."""
    stage = (picture or {}).get("stage") or "clear or wide"
    return "clear" in stage, "wide" in stage


def _scale(config: Mapping[str, Any]) -> str:
    return "rank" if config.get("thresholds") == "percentile" else "probability"
