"""The results of benchmarks.compare as Markdown that a reader can check, and as a picture."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.arms import NO_SELF_LABELS
from benchmarks.loops import COLOURS, DASHES, HEIGHT, MARGIN, WIDTH

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
