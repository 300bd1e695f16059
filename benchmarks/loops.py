"""python -m benchmarks.loops RESULT.json ... --svg OUT: the paper's picture from results of benchmarks.simulate.

One panel a result: held-out accuracy of the seed model and after every loop of self-labelling, beside a control that took
as many optimiser steps on people's labels alone, and the line that all labels reach. Bars are 95 % intervals: the Wilson
interval of one run's test pairs, or, over several random seeds, the mean with 2 standard errors between seeds.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ser_backend.metrics import wilson

WIDTH, HEIGHT, MARGIN = 420, 300, 52
COLOURS = {"self-labels": "#2a78d6", "control": "#7d7d7d"}
DASHES = {"self-labels": "", "control": "5 4"}

Point = tuple[float, float, float]  # value, low, high


def curves(result: Mapping[str, Any]) -> dict[str, list[Point]]:
    """Per arm, accuracy at loop 0, 1, ...: of the loops that every random seed reached."""
    n_loops = min(len(one["rounds"]) for one in result["seeds"])
    found = {}
    for arm, key in (("self-labels", "rounds"), ("control", "controls")):
        by_loop = np.array([[one["seed"], *one[key][:n_loops]] for one in result["seeds"]])  # (seeds, loops + 1)
        found[arm] = [_point(values, result["n_test"]) for values in by_loop.T]
    return found


def _point(values: np.ndarray, n_test: int) -> Point:
    if len(values) == 1:
        interval = wilson(values[0] * n_test, n_test)
        return float(values[0]), interval.low, interval.high
    half = 2 * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean()), float(values.mean() - half), float(values.mean() + half)


def table(results: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        "| set | seed pairs | seed | self-labels, by loop | control, same steps | all labels | self-labels right | steps |"
    ]
    lines.append("|---|---|---|---|---|---|---|---|")
    for result in results:
        found, mean = curves(result), result["mean"]

        def percent(values: Sequence[float | None]) -> str:
            return " ".join("-" if value is None else f"{100 * value:.1f}" for value in values) or "-"

        lines.append(
            f"| {result['file'].split('.')[0]} | {mean['n_seed']:,.0f} ({result['seed_fraction']:.0%}) | "
            f"{percent([mean['seed']])} | {percent([point[0] for point in found['self-labels'][1:]])} | "
            f"{percent([point[0] for point in found['control'][1:]])} | {percent([mean['full']])} | "
            f"{percent(mean['precision'])} | {' '.join(str(step) for step in result['seeds'][0]['steps'])} |"
        )
    return "\n".join(lines)


def svg(results: Sequence[Mapping[str, Any]]) -> str:
    panels = [_panel(result, place * WIDTH) for place, result in enumerate(results)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH * len(results)} {HEIGHT}" font-family="sans-serif" '
        f'font-size="12"><rect width="100%" height="100%" fill="white"/>{"".join(panels)}</svg>\n'
    )


def _panel(result: Mapping[str, Any], left: int) -> str:
    found, full = curves(result), result["mean"]["full"]
    every = [edge for points in found.values() for point in points for edge in point[1:]] + [full]
    low, high = np.floor(50 * min(every)) / 50, np.ceil(50 * max(every)) / 50
    n_loops = len(found["control"]) - 1

    def x(loop: float) -> float:
        return left + MARGIN + loop * (WIDTH - 2 * MARGIN) / max(1, n_loops)

    def y(value: float) -> float:
        return HEIGHT - MARGIN - (value - low) / (high - low) * (HEIGHT - 2 * MARGIN)

    name, share = result["file"].split(".")[0], f"{result['seed_fraction']:.0%}"
    parts = [
        f'<text x="{x(0)}" y="20" font-weight="bold">{name}, {share} of the labels: held-out accuracy by loop</text>'
    ]
    for value in np.arange(low, high + 1e-9, 0.02):
        parts.append(f'<line x1="{x(0)}" x2="{x(n_loops)}" y1="{y(value)}" y2="{y(value)}" stroke="#e4e4e4"/>')
        parts.append(f'<text x="{x(0) - 8}" y="{y(value) + 4}" text-anchor="end">{100 * value:.0f} %</text>')
    for loop in range(n_loops + 1):
        label = "seed" if loop == 0 else f"loop {loop}"
        parts.append(f'<text x="{x(loop)}" y="{HEIGHT - MARGIN + 18}" text-anchor="middle">{label}</text>')
    parts.append(
        f'<line x1="{x(0)}" x2="{x(n_loops)}" y1="{y(full)}" y2="{y(full)}" stroke="#222" stroke-dasharray="2 3"/>'
        f'<text x="{x(n_loops)}" y="{y(full) - 5}" text-anchor="end">all labels</text>'
    )
    for place, (arm, points) in enumerate(found.items()):
        shift = 4 * place
        line = " ".join(f"{x(loop) + shift},{y(point[0])}" for loop, point in enumerate(points))
        parts.append(
            f'<polyline points="{line}" fill="none" stroke="{COLOURS[arm]}" stroke-width="2" '
            f'stroke-dasharray="{DASHES[arm]}"/>'
        )
        for loop, (value, bottom, top) in enumerate(points):
            at = x(loop) + shift
            parts.append(f'<line x1="{at}" x2="{at}" y1="{y(bottom)}" y2="{y(top)}" stroke="{COLOURS[arm]}"/>')
            parts.append(f'<circle cx="{at}" cy="{y(value)}" r="3.5" fill="{COLOURS[arm]}"/>')
        parts.append(
            f'<text x="{x(0) + 110 * place}" y="{HEIGHT - 10}" fill="{COLOURS[arm]}">'
            f"{'●' if not place else '○'} {arm}{', same steps' if arm == 'control' else ''}</text>"
        )
    return "".join(parts)


def main() -> int:
    parser = argparse.ArgumentParser(description="Accuracy by loop from results of benchmarks.simulate.")
    parser.add_argument("results", nargs="+", type=Path, help="files that benchmarks.simulate --json wrote")
    parser.add_argument("--svg", type=Path, metavar="OUT")
    chosen = parser.parse_args()
    results = [json.loads(path.read_text()) for path in chosen.results]
    print(table(results))
    if chosen.svg:
        chosen.svg.write_text(svg(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
