"""python -m benchmarks.claims RESULT.json ...: what results of benchmarks.compare say about our own claims, in two tables.

Labels: how often the teacher is right on all open pairs of the pool, beside the control's model, and how often a
certificate held. Reviews: the desk's mix beside random reviews, and beside a model of all labels. Differences are means over
random seeds with 95 % intervals by Student's t over seeds (the same seeds and test pairs on both sides): they allow for
another draw of labels, not of test pairs.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import stdtrit

from ser_backend.metrics import wilson

PLAIN, TARGETED, RANDOM = "calibrated", "reviews, targeted", "reviews, random"
CERTIFIED = (PLAIN, RANDOM, "reviews, least sure", TARGETED)

Cells = Mapping[str, Mapping[str, Any]]  # random seed -> arm -> outcome


def over_seeds(values: Sequence[float]) -> str:
    """Mean and interval of differences, in points."""
    found = 100 * np.asarray(values, float)
    if len(found) < 2:
        return f"{found.mean():+.1f}"
    half = stdtrit(len(found) - 1, 0.975) * found.std(ddof=1) / np.sqrt(len(found))
    text = f"{found.mean():+.1f} ({found.mean() - half:+.1f} to {found.mean() + half:+.1f})"
    return f"**{text}**" if abs(found.mean()) > max(half, 0.05) else text


def column(cells: Cells, arm: str, key: str) -> list[Any]:
    return [cell[arm][key] for cell in cells.values()]


def share(cells: Cells, arm: str) -> list[float]:
    """Held-out accuracy, one a random seed; an outcome holds the sums of right pairs by group."""
    return [float(np.sum(right)) for right in column(cells, arm, "right")]


def labels_table(files: Mapping[str, Any]) -> list[str]:
    lines = [
        "| set | human labels | pool labels right: control's model | teacher | difference | certificates that held |",
        "|---|---|---|---|---|---|",
    ]
    held_in_all = played_in_all = 0
    for name, found in files.items():
        for fraction, cells in sorted(found["cells"].items(), key=lambda item: float(item[0])):
            model, teacher = (column(cells, PLAIN, key) for key in ("control_pool_accuracy", "pool_accuracy"))
            runs = [cell[arm] for cell in cells.values() for arm in CERTIFIED if arm in cell]
            kept = [run["certified"] >= run["target"] for run in runs if run["certified"] is not None]
            held_in_all, played_in_all = held_in_all + sum(kept) + len(runs) - len(kept), played_in_all + len(runs)
            lines.append(
                f"| {name.split('.')[0]} | {column(cells, PLAIN, 'human_labels')[0]:,} ({float(fraction):.0%}) | "
                f"{100 * np.mean(model):.1f} | {100 * np.mean(teacher):.1f} | {over_seeds(np.subtract(teacher, model))} | "
                f"{sum(kept)} of {len(kept)}; nothing kept in {len(runs) - len(kept)} |"
            )
    rate = wilson(held_in_all, played_in_all)
    lines += ["", f"No certificate was broken in {held_in_all} of {played_in_all} runs: {rate}."]
    return lines


def reviews_table(files: Mapping[str, Any]) -> list[str]:
    lines = [
        "| set | human labels | reviews: held-out | random reviews | difference | reviews: pool labels right | random "
        "reviews | difference | all labels | within their interval |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, found in files.items():
        n_test = sum(found["group_sizes"])
        full = wilson(float(np.sum(found["full"]["right"])), n_test)
        gains, pool_gains = [], []  # (fractions, seeds)
        for fraction, cells in sorted(found["cells"].items(), key=lambda item: float(item[0])):
            if any(arm not in cell for cell in cells.values() for arm in (TARGETED, RANDOM)):
                continue
            ours, theirs = (np.array(share(cells, arm)) / n_test for arm in (TARGETED, RANDOM))
            pool, their_pool = (column(cells, arm, "pool_accuracy") for arm in (TARGETED, RANDOM))
            gains.append(ours - theirs)
            pool_gains.append(np.subtract(pool, their_pool))
            cells_of_row = [
                name.split(".")[0],
                f"{column(cells, TARGETED, 'human_labels')[0]:,} ({float(fraction):.0%})",
                f"{100 * ours.mean():.1f}",
                f"{100 * theirs.mean():.1f}",
                over_seeds(ours - theirs),
                f"{100 * np.mean(pool):.1f}",
                f"{100 * np.mean(their_pool):.1f}",
                over_seeds(np.subtract(pool, their_pool)),
                str(full),
                "yes" if ours.mean() >= full.low else "no",
            ]
            lines.append(f"| {' | '.join(cells_of_row)} |")
        if len(gains) > 1:
            means = (over_seeds(np.mean(part, axis=0)) for part in (gains, pool_gains))
            lines.append(f"| {name.split('.')[0]} | mean of these | | | {next(means)} | | | {next(means)} | | |")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description="What results of benchmarks.compare say about our own claims.")
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULT.json")
    files: dict[str, Any] = {}
    for path in parser.parse_args().results:
        files |= json.loads(path.read_text())["files"]
    print("\n".join([*labels_table(files), "", *reviews_table(files)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
