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
from benchmarks.loops import COLOURS, DASHES, HEIGHT, MARGIN, WIDTH
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


# ---- the table

READING = """Per cent, means over random seeds; in brackets the 95 % interval over test groups and random seeds. ▲ ▼: the
interval of a difference excludes 0; each is for one comparison, and of twenty such one excludes it by chance. *claimed*,
*right*, *kept*: of the self-labels in force, how many are right by the arm's own confidence and by hidden labels, and their
share of the pool."""


def markdown(state: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    parts = [_table(name, state["files"][name], shares) for name, shares in found.items()]
    engines = {
        run["engine"]
        for file in state["files"].values()
        for cells in file["cells"].values()
        for cell in cells.values()
        for run in cell.values()
        if isinstance(run, dict) and "engine" in run
    }
    if len(engines) > 1:
        parts.append(
            f"**These figures come from {len(engines)} versions of the code ({', '.join(sorted(engines))}).**\n"
        )
    return "\n".join([*parts, READING])


def _table(name: str, file: Mapping[str, Any], shares: Mapping[str, Any]) -> str:
    lines = [f"### {name}", ""]
    heads = ["arm"]
    for share, found in shares.items():
        labels = found["arms"]["control"]["human_labels"]
        heads += [
            f"{float(share):.0%}, {labels:,.0f} labels: accuracy",
            "less its control",
            "claimed / right / kept",
            "s",
        ]
    lines += [_row(heads), "|" + "---|" * len(heads)]
    for arm in dict.fromkeys(arm for found in shares.values() for arm in found["arms"]):
        same = all(_same(found["arms"], arm) for found in shares.values())
        if arm in ("seed", "random labels") and same:
            continue  # told in the control's row
        cells = [arm if arm != "control" else _control_named(shares)]
        for found in shares.values():
            cells += _cells(arm, found["arms"])
        lines.append(_row(cells))
    lines += ["", *(_power_said(share, found) for share, found in shares.items()), ""]
    lines += [f"- {sentence}" for share, found in shares.items() for sentence in _verdicts(share, found["arms"])]
    return "\n".join(lines) + "\n"


def _same(arms: Mapping[str, Any], name: str) -> bool:
    return name in arms and arms[name]["per_seed"] == arms["control"]["per_seed"]


def _control_named(shares: Mapping[str, Any]) -> str:
    same = [name for name in ("seed", "random labels") if all(_same(found["arms"], name) for found in shares.values())]
    return " = ".join(["control", *same])


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cells(name: str, arms: Mapping[str, Any]) -> list[str]:
    if name not in arms:
        return ["", "", "", ""]
    arm = arms[name]
    low, high = arm["interval"]
    accuracy = f"{100 * arm['accuracy']:.1f} ({100 * low:.1f} to {100 * high:.1f})"
    if name == "full":
        accuracy += f", {arm['human_labels']:,} labels"
    gained = "" if name == "control" else _gain(arm["difference_to_control"], arm["difference_interval"])
    if name + NO_SELF_LABELS in arms:
        over = _gain(arm["difference_to_random_labels"], arm["difference_to_random_labels_interval"])
        gained += f"; to random labels {over}"
    claims = ""
    if arm.get("coverage"):
        claims = (
            f"{_percent(arm['precision_claimed'])} / {_percent(arm['precision_true'])} / {_percent(arm['coverage'])}"
        )
        sure = arm["certified"]
        if sure["runs"]:
            claims += f"; target {_percent(sure['target'])} met in {round(sure['share'] * sure['runs'])} of {sure['runs']} runs"
    elif "coverage" in arm and name != "seed":
        claims = "nothing kept"
    return [accuracy, gained, claims, f"{arm['seconds']:.1f}" if arm.get("seconds") is not None else ""]


def _gain(value: float, interval: Sequence[float]) -> str:
    """Bold and marked where the interval excludes 0."""
    text = f"{100 * value:+.1f} ({100 * interval[0]:+.1f} to {100 * interval[1]:+.1f})"
    return f"**▲ {text}**" if interval[0] > 0 else f"**▼ {text}**" if interval[1] < 0 else text


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _power_said(share: str, found: Mapping[str, Any]) -> str:
    power = found["power"]
    text = f"Power at {float(share):.0%}: {power['test_pairs']:,} test pairs in {power['test_groups']:,} groups"
    if "discordant" not in power:
        return f"{text}; no arm differs from its control in any of them."
    return (
        f"{text}, {found['seeds']} random seeds. An arm and its control disagree on {power['discordant']:.1%} of them "
        f"(median), so differences under {100 * power['smallest_difference']:.1f} points cannot be told from none "
        f"({100 * power['smallest_if_independent']:.1f} if pairs were independent and seeds alike; one point would take "
        f"{power['pairs_for_a_point']:,} such pairs)."
        + (" With so few groups every interval is too narrow." if power["test_groups"] < 30 else "")
    )


def _verdicts(share: str, arms: Mapping[str, Any]) -> list[str]:
    """Where the product's own arms do not win: behind random labels alone, behind the control of their reviews, or behind a
    rival with as many human labels."""
    said = []
    for name, arm in arms.items():
        if "against" not in arm:
            continue
        against = dict(arm["against"])
        if name + NO_SELF_LABELS in arms:
            against["the same reviews without self-labels"] = (
                arm["difference_to_control"],
                *arm["difference_interval"],
            )
        behind = sorted((value, low, high, rival) for rival, (value, low, high) in against.items() if value < 0)
        ahead = [rival for rival, (_, low, _) in against.items() if low > 0]
        lost = ", ".join(f"{rival} {_gain(value, (low, high))}" for value, low, high, rival in behind)
        said.append(
            f"{float(share):.0%}, {name}: behind {lost or 'none'}; clearly ahead of {', '.join(ahead) or 'none'}."
        )
    return said


# ---- the picture


LINES = {  # colour, dashes, width
    "control": (COLOURS["control"], DASHES["control"], 2.5),
    "calibrated": (COLOURS["self-labels"], "", 3),
    "calibrated, no gate": (COLOURS["self-labels"], "2 3", 1.5),
    "reviews, random": ("#1b9e77", "", 2),
    "reviews, random" + NO_SELF_LABELS: ("#1b9e77", "5 4", 1.5),
    "reviews, targeted": ("#b2182b", "", 3),
    "reviews, targeted" + NO_SELF_LABELS: ("#b2182b", "5 4", 1.5),
    "careful": ("#7570b3", "", 1.2),
    "naive": ("#d95f02", "", 1.2),
    "ssrm": ("#e6ab02", "", 1.2),
    "freematch": ("#a6761d", "", 1.2),
    "paper-union": ("#c51b7d", "", 1.2),
    "paper-staged": ("#de77ae", "", 1.2),
    "paper-cumulative+seed": ("#8e4585", "", 1.2),
}
BARRED = ("calibrated", "reviews, targeted")
LEGEND_WIDTH, LEGEND_HEIGHT = 210, 18


def svg(found: Mapping[str, Any]) -> str:
    """A panel a file: accuracy against human labels spent."""
    used = [name for name in LINES if any(name in one["arms"] for shares in found.values() for one in shares.values())]
    width = WIDTH * max(1, len(found))
    columns = width // LEGEND_WIDTH
    height = HEIGHT + LEGEND_HEIGHT * (-(-len(used) // columns) + 2)
    panels = [_panel(name, shares, place * WIDTH, used) for place, (name, shares) in enumerate(found.items()) if shares]
    legend = [
        _key(name, i % columns * LEGEND_WIDTH + 12, HEIGHT + LEGEND_HEIGHT * (1 + i // columns))
        for i, name in enumerate(used)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(panels)}{"".join(legend)}</svg>\n'
    )


def _key(name: str, left: float, top: float) -> str:
    colour, dashes, thick = LINES[name]
    return (
        f'<line x1="{left}" x2="{left + 26}" y1="{top}" y2="{top}" stroke="{colour}" stroke-width="{thick}" '
        f'stroke-dasharray="{dashes}"/><text x="{left + 32}" y="{top + 4}" font-size="11">{name}</text>'
    )


def _bar(one: Mapping[str, Any], arm: str) -> tuple[float, float]:
    """Ends of a paired bar: without the scatter of the prompts, which all arms share."""
    level = one["arms"]["random labels"]["accuracy"]
    low, high = one["arms"][arm]["difference_to_random_labels_interval"]
    return level + low, level + high


def _panel(name: str, shares: Mapping[str, Any], left: float, used: Sequence[str]) -> str:
    full = next(iter(shares.values()))["arms"]["full"]["accuracy"]
    spent = np.array([one["arms"]["control"]["human_labels"] for one in shares.values()])
    shown = [one["arms"][arm]["accuracy"] for one in shares.values() for arm in used if arm in one["arms"]] + [full]
    shown += [edge for one in shares.values() for arm in BARRED if arm in one["arms"] for edge in _bar(one, arm)]
    low, high = np.floor(50 * min(shown)) / 50, np.ceil(50 * max(shown)) / 50
    span = max(1e-9, float(np.log(spent.max() / spent.min())))

    def x(labels: float) -> float:
        return left + MARGIN + float(np.log(labels / spent.min())) / span * (WIDTH - 2 * MARGIN)

    def y(value: float) -> float:
        return HEIGHT - MARGIN - (value - low) / max(1e-9, high - low) * (HEIGHT - 2 * MARGIN)

    begin, end = left + MARGIN, left + WIDTH - MARGIN
    parts = [f'<text x="{begin}" y="20" font-weight="bold">{name.split(".")[0]}: accuracy by human labels</text>']
    for value in np.arange(low, high + 1e-9, 0.02):
        parts.append(f'<line x1="{begin}" x2="{end}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#e4e4e4"/>')
        parts.append(f'<text x="{begin - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{100 * value:.0f} %</text>')
    for share, labels in zip(shares, spent, strict=True):
        text = f"{labels:,.0f} ({float(share):.0%})"
        parts.append(f'<text x="{x(labels):.1f}" y="{HEIGHT - MARGIN + 18}" text-anchor="middle">{text}</text>')
    parts.append(
        f'<line x1="{begin}" x2="{end}" y1="{y(full):.1f}" y2="{y(full):.1f}" stroke="#222" stroke-dasharray="2 3"/>'
        f'<text x="{end}" y="{y(full) - 5:.1f}" text-anchor="end">all labels</text>'
    )
    parts.append(
        f'<text x="{begin}" y="{HEIGHT - 10}" font-size="11">bars: 95 % of the difference to random labels</text>'
    )
    for arm in reversed(used):
        colour, dashes, thick = LINES[arm]
        points = [
            (x(labels), y(one["arms"][arm]["accuracy"]))
            for one, labels in zip(shares.values(), spent, strict=True)
            if arm in one["arms"]
        ]
        line = " ".join(f"{across:.1f},{up:.1f}" for across, up in points)
        parts.append(
            f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="{thick}" '
            f'stroke-dasharray="{dashes}"><title>{arm}</title></polyline>'
        )
        for one, labels in zip(shares.values(), spent, strict=True):
            if arm in BARRED and arm in one["arms"]:
                across, (bottom, top) = x(labels) + 3 * BARRED.index(arm), _bar(one, arm)
                ends = f'x1="{across:.1f}" x2="{across:.1f}" y1="{y(bottom):.1f}" y2="{y(top):.1f}"'
                parts.append(f'<line {ends} stroke="{colour}"/>')
        parts += [f'<circle cx="{across:.1f}" cy="{up:.1f}" r="2.5" fill="{colour}"/>' for across, up in points]
    return "".join(parts)


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
