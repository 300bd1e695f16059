"""python -m benchmarks.compare FILE...: what the same human labels are worth in every way of using them.

Each file, share of labels and random seed is a cell; its arms (benchmarks.arms) have the same human labels, or as many of
them where people review, the same base model, pool and test pairs. Reported with intervals over test groups and random
seeds, with what the test part could show at all, and in plain words where the product's own method does not win.
"""

import argparse
import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.arms import ARMS, NO_SELF_LABELS, Arm, Cell, Source
from benchmarks.compare_tables import markdown, svg
from benchmarks.simulate import scratch
from ser_backend import home
from ser_backend.errors import SerError
from ser_backend.metrics import Z_95
from ser_backend.report import versions

DRAWS = 2_000
Z_80 = 0.8416212335729143  # with this power a difference is found
ROOT = Path(__file__).parent.parent


# ---- playing


@dataclass(frozen=True)
class Plan:
    fractions: Sequence[float]
    n_seeds: int
    arms: Sequence[Arm]
    budget: float  # largest fraction for which arms with reviews are played
    error: float  # share of human labels that are wrong
    more: Mapping[str, str]  # settings of every arm

    def missing(self, cells: Mapping[str, Any]) -> Iterator[tuple[int, float, list[Arm]]]:
        """Random seed, fraction and the arms of that cell which were not played yet, or with other settings."""
        for number, fraction in product(range(self.n_seeds), self.fractions):
            there = cells.get(_share(fraction), {}).get(str(number), {})
            settings = {**self.more, "random_seed": number}
            wanted = [
                arm
                for arm in self.arms
                if (not arm.way or fraction <= self.budget)
                and there.get(arm.name, {}).get("settings") != arm.config(settings).as_dict()
            ]
            if wanted:
                yield number, fraction, wanted


def play(files: Sequence[Path], plan: Plan, known: Mapping[str, Any], out: Path | None = None) -> dict[str, Any]:
    """Play what `known` (the result of an earlier call) lacks; kept in `out` after every cell."""
    asked = {"annotator_error": plan.error, "more": dict(plan.more)}
    if known and any(known[name] != value for name, value in asked.items()):
        raise SerError(
            "The results to resume were made with another --annotator-error or --set. Write to another file."
        )
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    state = {**asked, "versions": versions(), "machine": machine, "files": known.get("files", {})}
    for file in files:
        digest = hashlib.blake2b(file.read_bytes(), digest_size=8).hexdigest()
        found = state["files"].setdefault(file.name, {"digest": digest, "cells": {}})
        if found["digest"] != digest:
            raise SerError(f"{file.name} is not the file the results to resume were made from. Write to another file.")
        missing = list(plan.missing(found["cells"]))
        if missing:
            with scratch() as folder:
                for _ in _played(file, found, missing, plan, folder):
                    if out:
                        _write(out, json.dumps(state))
    return state


def _played(
    file: Path, found: dict[str, Any], missing: Sequence[tuple[int, float, list[Arm]]], plan: Plan, folder: Path
) -> Iterator[None]:
    """Yields after every cell, when `found` holds it."""
    source = Source(file, folder)
    if "full" not in found:
        found["group_sizes"], found["n_train"] = source.group_sizes.tolist(), len(source.pairs)
        found["full"] = source.full(plan.more, folder)
    for number, fraction, wanted in missing:
        started, worked = time.perf_counter(), time.process_time()
        cell = dict(found["cells"].get(_share(fraction), {}).get(str(number), {}))
        with Cell(source, fraction, number, plan.error, plan.more, folder) as table:
            cell.setdefault("seed", table.seed_model())
            for arm in wanted:
                cell[arm.name] = table.play(arm) | {"engine": engine()}
        cell["wall"] = round(cell.get("wall", 0) + time.perf_counter() - started, 1)
        cell["cpu"] = round(cell.get("cpu", 0) + time.process_time() - worked, 1)  # what it takes on an idle machine
        found["cells"].setdefault(_share(fraction), {})[str(number)] = cell
        sys.stderr.write(
            f"{file.name} {_share(fraction)} seed {number}: {cell['wall']:.0f} s, {cell['cpu']:.0f} s of CPU\n"
        )
        yield


def _share(fraction: float) -> str:
    return f"{fraction:g}"


@cache
def engine() -> str:
    """Names the code that played, so that a table tells when it was put together from several."""
    parts = [path.read_bytes() for path in sorted((ROOT / "ser_backend").rglob("*.py"))]
    return hashlib.blake2b(b"\0".join(parts), digest_size=6).hexdigest()


def _write(path: Path, text: str) -> None:
    with home.atomic_file(path) as temporary:
        temporary.write_text(text)


# ---- figures


class Draws:
    """Bootstrap over test groups and random seeds at once: both are samples, of prompts and of what one happens to label, so
    both are drawn, each on its own, with replacement (the pigeonhole bootstrap: Owen 2007, Annals of Applied Statistics 1,
    386-411; its variance is not too small). Of n only n - 1 are drawn: of few, n draws would make the variance (n - 1) / n
    of what it is (McCarthy and Snowden 1985). All arms of a file are judged by the same draws, so differences are paired."""

    def __init__(self, n_seeds: int, group_sizes: np.ndarray) -> None:
        random, n_groups = np.random.default_rng(0), len(group_sizes)
        self.sizes = np.asarray(group_sizes, float)
        self.groups = random.multinomial(max(1, n_groups - 1), np.full(n_groups, 1 / n_groups), DRAWS).astype(float)
        self.seeds = random.multinomial(max(1, n_seeds - 1), np.full(n_seeds, 1 / n_seeds), DRAWS).astype(float)

    def means(self, sums: np.ndarray) -> np.ndarray:
        """sums: (seeds, groups), of a figure per test pair. Its mean over pairs and seeds in every draw, (DRAWS,)."""
        return ((self.seeds @ sums) * self.groups).sum(1) / (self.seeds.sum(1) * (self.groups @ self.sizes))

    def interval(self, sums: np.ndarray) -> list[float]:
        """Mean, and where 95 % of the draws lie."""
        low, high = np.quantile(self.means(sums), [0.025, 0.975])
        return [float(sums.sum() / (len(sums) * self.sizes.sum())), float(low), float(high)]


def results(state: Mapping[str, Any]) -> dict[str, Any]:
    """File -> share of labels -> {"arms", "power", "seeds"}; arms that every random seed of that share has played."""
    return {
        name: {
            share: one_share(found, list(cells.values()))
            for share, cells in sorted(found["cells"].items(), key=lambda item: float(item[0]))
        }
        for name, found in state["files"].items()
    }


def one_share(found: Mapping[str, Any], cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    names = [name for name in ARMS if all(name in cell for cell in cells)]
    right = {name: np.array([cell[name]["right"] for cell in cells]) for name in ["seed", *names]}
    plain = next((name for name in names if not ARMS[name].way), "seed")
    right["control"] = right["random labels"] = np.array([cell[plain]["control_right"] for cell in cells])
    for name in names:
        if ARMS[name].way:
            right[name + NO_SELF_LABELS] = np.array([cell[name]["control_right"] for cell in cells])
    right["full"] = np.repeat([found["full"]["right"]], len(cells), axis=0)
    draws = Draws(len(cells), np.array(found["group_sizes"]))
    arms = {}
    for name in _ordered(right):
        control = right.get(name + NO_SELF_LABELS, right["control"])
        arms[name] = _figures(right[name], control, right["random labels"], draws) | _facts(name, plain, cells, found)
        if name in ARMS and ARMS[name].ours:
            rivals = [*(rival for rival in names if not ARMS[rival].ours), "random labels"]
            arms[name]["against"] = {rival: draws.interval(right[name] - right[rival]) for rival in rivals}
    return {"arms": arms, "power": _power(arms, names, draws), "seeds": len(cells)}


def _ordered(right: Mapping[str, Any]) -> list[str]:
    arms = [name for arm in ARMS for name in (arm, arm + NO_SELF_LABELS) if name in right]
    return ["seed", "control", "random labels", *arms, "full"]


def _figures(right: np.ndarray, control: np.ndarray, random: np.ndarray, draws: Draws) -> dict[str, Any]:
    mean, *interval = draws.interval(right)
    gained, *gained_interval = draws.interval(right - control)
    over_random, *over_random_interval = draws.interval(right - random)
    return {
        "accuracy": mean,
        "interval": interval,
        "per_seed": (right.sum(1) / draws.sizes.sum()).tolist(),
        "difference_to_control": gained,
        "difference_interval": gained_interval,
        "difference_to_random_labels": over_random,
        "difference_to_random_labels_interval": over_random_interval,
        "smallest_difference": (Z_95 + Z_80) * float(draws.means(right - control).std()),
    }


def _facts(name: str, plain: str, cells: Sequence[Mapping[str, Any]], found: Mapping[str, Any]) -> dict[str, Any]:
    """Means over random seeds of what an arm's runs left; of the controls, what can be said of a model without labels."""
    if name == "full":
        return {"human_labels": found["full"]["human_labels"], "seconds": found["full"]["seconds"]}
    of_arm = name if name in ARMS else name.removesuffix(NO_SELF_LABELS)
    is_control = name not in ARMS and name != "seed"
    runs = [cell[of_arm if of_arm in ARMS else plain if is_control else "seed"] for cell in cells]

    def mean(key: str) -> float | None:
        values = [run[key] for run in runs if run.get(key) is not None]
        return float(np.mean(values)) if values else None

    facts: dict[str, Any] = {"human_labels": mean("human_labels")}
    if is_control:
        return facts | {"pool_accuracy": mean("control_pool_accuracy"), "pool_labeller": "model"}
    kept = [run["certified"] for run in runs if run["certified"] is not None]
    held = [run["certified"] >= run["target"] for run in runs if run["certified"] is not None]
    keys = ("precision_claimed", "precision_true", "coverage", "pool_accuracy", "discordant", "seconds", "rounds")
    return (
        facts
        | {key: mean(key) for key in keys}
        | {
            "pool_labeller": runs[0]["pool_labeller"],
            "certified": {
                "target": runs[0]["target"],
                "runs": len(kept),
                "share": float(np.mean(held)) if held else None,
            },
            "in_force": [run["in_force"] for run in runs],
        }
    )


def _power(arms: Mapping[str, Any], names: Sequence[str], draws: Draws) -> dict[str, Any]:
    """The smallest difference to the control that would be found four times in five, at 5 % two-sided: with the scatter over
    groups and seeds that was seen, and as if pairs were independent (McNemar: discordant share d, n pairs, sqrt(d / n));
    medians over arms."""
    n, some = draws.sizes.sum(), [name for name in names if arms[name]["discordant"]]
    found: dict[str, Any] = {"test_pairs": int(n), "test_groups": len(draws.sizes)}
    if some:
        discordant = float(np.median([arms[name]["discordant"] for name in some]))
        found |= {
            "discordant": discordant,
            "smallest_difference": float(np.median([arms[name]["smallest_difference"] for name in some])),
            "smallest_if_independent": (Z_95 + Z_80) * float(np.sqrt(discordant / n)),
            "pairs_for_a_point": round((Z_95 + Z_80) ** 2 * discordant / 0.01**2),
        }
    return found


# ---- command line


def chosen_arms(text: str) -> list[Arm]:
    """Names in which ", " and blanks may be written as "-": calibrated-no-gate."""
    known = {name.replace(", ", "-").replace(" ", "-"): arm for name, arm in ARMS.items()}
    wanted = [name.strip() for name in text.split(",")] if text else list(known)
    if unknown := [name for name in wanted if name not in known]:
        raise SerError(f"There is no arm {', '.join(unknown)}. The arms are: {', '.join(known)}.")
    return [known[name] for name in wanted]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Compare ways of using the same human labels on fully labelled files.")
    parser.add_argument(
        "files", nargs="+", type=Path, help="JSON lines with prompt, chosen, rejected, group and perhaps split"
    )
    parser.add_argument("--fractions", default="0.02,0.05,0.15", help="human labels, as shares of the training pairs")
    parser.add_argument("--seeds", type=int, default=5, help="random seeds")
    parser.add_argument(
        "--budget", type=float, default=1.0, help="largest fraction for which arms with reviews are played"
    )
    parser.add_argument("--annotator-error", type=float, default=0.0, help="share of all human labels that are wrong")
    parser.add_argument("--arms", default="", help="names with commas between; all if left out")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of every arm")
    parser.add_argument("--json", type=Path, metavar="OUT")
    parser.add_argument("--markdown", type=Path, metavar="OUT")
    parser.add_argument("--svg", type=Path, metavar="OUT")
    parser.add_argument("--resume", action="store_true", help="keep the finished cells of --json OUT")
    chosen = parser.parse_args(arguments)
    try:
        known = json.loads(chosen.json.read_text()) if chosen.resume and chosen.json and chosen.json.exists() else {}
        plan = Plan(
            [float(text) for text in chosen.fractions.split(",")],
            chosen.seeds,
            chosen_arms(chosen.arms),
            chosen.budget,
            chosen.annotator_error,
            dict(text.split("=", 1) for text in chosen.set),
        )
        state = play(chosen.files, plan, known, chosen.json)
    except (SerError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    found = results(state)
    text = markdown(state, found)
    for path, content in (
        (chosen.json, json.dumps(state | {"results": found})),
        (chosen.markdown, text),
        (chosen.svg, svg(found)),
    ):
        if path:
            _write(path, content)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
