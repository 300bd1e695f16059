"""python -m benchmarks.table RESULT.json ...: results of benchmarks.simulate as one Markdown table."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

COLUMNS = (
    "set", "seed pairs", "test pairs", "seed", "rounds", "control", "end", "end - control", "all labels",
    "self-labels right", "coverage", "s",
)  # fmt: skip


def row(result: Mapping[str, Any]) -> str:
    found = result["mean"]
    n_seeds = len(result["seeds"])
    gained = 100 * np.array(found["final_minus_control"])
    error = gained.std(ddof=1) / np.sqrt(n_seeds) if n_seeds > 1 else float("nan")
    reached = found["reached"]

    def percent(values: Sequence[float | None]) -> str:
        return " ".join("-" if value is None else f"{100 * value:.1f}" for value in values) or "-"

    rounds = " ".join(
        f"{100 * value:.1f}" + ("" if reached[i] == n_seeds else f" ({reached[i]}x)")
        for i, value in enumerate(found["rounds"])
    )
    cells = (
        result["file"].split(".")[0] + (f" {result['subset']}" if result["subset"] else ""),
        f"{found['n_seed']:,.0f} ({result['seed_fraction']:.0%})",
        f"{result['n_test']:,}",
        percent([found["seed"]]),
        rounds or "-",
        percent([found["control"]]),
        percent([found["final"]]),
        f"{gained.mean():+.1f} ± {error:.1f}",
        percent([found["full"]]),
        percent(found["precision"]),
        percent(found["coverage"]),
        f"{found['seconds']:.1f}",
    )
    return "| " + " | ".join(cells) + " |"


def main(paths: Sequence[str]) -> int:
    print("| " + " | ".join(COLUMNS) + " |")
    print("|" + "---|" * len(COLUMNS))
    for path in paths:
        print(row(json.loads(Path(path).read_text())))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
