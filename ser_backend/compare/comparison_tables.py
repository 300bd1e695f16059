"""A comparison as tables (table_file.py): how runs ended, differences, settings that differ, and the ablation.

Runs are named by letters, A first, as on the page; names of runs need not differ.
"""

from collections.abc import Sequence

from ser_backend.compare import config_difference
from ser_backend.compare.comparison import Outcome, differences
from ser_backend.compare.paired import Difference, adjusted, rounded, shown_p
from ser_backend.table_file import Cell, Percent, Points, Table

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
MOST = 12  # runs at a time
ONE_SEED = (
    "Intervals (95 %) allow for another draw of held-out prompts, not for another random seed: repeat a run with other values "
    "of random_seed before you build on a small difference."
)
HELD = "p: signs of whole prompt groups turned at random; with several comparisons adjusted by Holm's method (1979)."
UNPAIRED = {
    "paired": "the same held-out pairs",
    "shared": "held-out pairs both have",
    "unpaired": "other held-out pairs: two samples",
    "unstored": "pairs not stored: two samples",
    "apart": "another held-out set",
}


def name_of(place: int) -> str:
    return LETTERS[place] if place < len(LETTERS) else f"run {place + 1}"


def runs(outcomes: Sequence[Outcome], found: Sequence[Difference | None], reference: int) -> Table:
    several = sum(map(bool, found)) > 1
    columns = (
        "", "run", "id", "accuracy at the end", f"minus {name_of(reference)}", "p", "verdict", "pairs to see 1 point",
        "end is", "seed model", "control", "end - control", "human labels", "self-labels", "coverage", "precision claimed",
        "precision checked", "seconds",
    )  # fmt: skip
    rows: list[tuple[Cell, ...]] = [
        (
            name_of(place),
            one.run.name,
            one.run.id,
            one.end,
            Points(than.value, than.low, than.high) if than else None,
            shown_p(than.p_holm if several else than.p) if than else None,
            verdict(than) if than else "reference" if place == reference else None,
            _for_a_point(than),
            one.end_is or f"no finished round ({one.run.status})",
            one.seed,
            one.control,
            Points(*one.gain) if one.gain else None,
            one.human_labels if one.rounds else None,
            one.n_self if one.rounds else None,
            Percent(one.coverage) if one.coverage is not None else None,
            Percent(one.claimed) if one.claimed is not None else None,
            one.audited,
            round(one.seconds, 1) if one.rounds else None,
        )
        for place, (one, than) in enumerate(zip(outcomes, found, strict=True))
    ]
    return Table("How the runs ended", columns, tuple(rows), (ONE_SEED, HELD)).known()


def against(outcomes: Sequence[Outcome], found: Sequence[Difference | None], reference: int) -> Table:
    """Differences to the reference."""
    several = sum(map(bool, found)) > 1
    columns = ("difference", "run", "points", "p", "p (Holm)", "held-out pairs", "measured on", "verdict")
    rows = tuple(
        (
            f"{name_of(place)} - {name_of(reference)}",
            outcomes[place].run.name,
            Points(one.value, one.low, one.high),
            shown_p(one.p),
            shown_p(one.p_holm) if several else None,
            one.n,
            UNPAIRED[one.kind],
            verdict(one),
        )
        for place, one in enumerate(found)
        if one
    )
    return Table(f"Difference to run {name_of(reference)}", columns, rows, (ONE_SEED, HELD)).known()


def _for_a_point(found: Difference | None) -> int | None:
    """Held-out pairs that would show a true difference of 1 point to the reference four times in five."""
    needed = found and found.pairs_needed(0.01)
    return rounded(needed) if needed else None


def verdict(found: Difference) -> str:
    if found.kind == "apart":
        return "not known: another held-out set"
    if not found.value and not found.error:
        return "the same"
    return ("better" if found.value > 0 else "worse") if found.is_clear else "within noise"


def settings(outcomes: Sequence[Outcome]) -> Table:
    differ, _ = config_difference.rows([one.asked for one in outcomes])
    columns = ("setting", *(name_of(place) for place in range(len(outcomes))))
    return Table("Settings and data that differ", columns, tuple((name, *told) for name, told in differ))


def same(outcomes: Sequence[Outcome]) -> list[tuple[str, str]]:
    """Settings and data that all runs share."""
    return config_difference.rows([one.asked for one in outcomes])[1]


def ablation(outcomes: Sequence[Outcome], found: Sequence[Difference | None], reference: int) -> Table:
    """Runs that differ from the reference in exactly one setting, set of data or number of answers."""
    of_one = [
        made[0] if i != reference and len(made) == 1 else None
        for i, one in enumerate(outcomes)
        for made in [config_difference.changes(outcomes[reference].asked, one.asked)]
    ]
    again = adjusted([one if change else None for one, change in zip(found, of_one, strict=True)])
    rows = tuple(
        (str(change), name_of(place), outcomes[place].end, Points(one.value, one.low, one.high), verdict(one))
        for place, (change, one) in enumerate(zip(of_one, again, strict=True))
        if change and one
    )
    columns = ("what was changed", "run", "accuracy", f"points against {name_of(reference)}", "verdict")
    return Table(f"One change at a time, from run {name_of(reference)}", columns, rows, (ONE_SEED,))


def everything(outcomes: Sequence[Outcome], reference: int) -> list[Table]:
    """The tables that have rows."""
    found = differences(outcomes, reference)
    tables = (
        runs(outcomes, found, reference),
        against(outcomes, found, reference),
        ablation(outcomes, found, reference),
        settings(outcomes),
    )
    return [table for table in tables if table.rows]
