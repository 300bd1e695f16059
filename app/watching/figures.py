"""Every round in figures, and what the doctor found."""

from collections.abc import Mapping, Sequence

import components
import streamlit as st

from ser_backend.audit_groups import LONGER, SHORTER, Groups
from ser_backend.errors import NotFound
from ser_backend.health.checks import from_dicts
from ser_backend.records import Interval, Round, Run
from ser_backend.run_folder import RunFolder
from ser_backend.store import Store
from watching import known

DOCTOR = {"before": "Before training", "after": "After training"}
WHERE_KNOWN = ("certified", "flips")  # columns of the table that not every method has
CALIBRATION_HELP = (
    "Of the teacher where there is one, judged on people's labels that it did not see: before and after its temperature. "
    "Offset and scale are mean and standard deviation of all rewards of the pool; only differences of rewards mean anything."
)


def draw(store: Store, run: Run, rounds: list[Round], audited: Mapping[int, Interval]) -> None:
    table = [_row(r) for r in rounds]
    if not table:
        st.caption("No round is finished yet.")
        return
    st.dataframe(_without_empty(table, WHERE_KNOWN), hide_index=True)
    st.markdown("**Calibration and rewards**", help=CALIBRATION_HELP)
    facts = [_facts(r) for r in rounds]
    st.dataframe(_without_empty(facts, list(facts[0])[1:]), hide_index=True)
    _audits(store, run, rounds, audited)


def _row(r: Round) -> dict[str, object]:
    certificate, flips = r.details.get("certificate"), r.details.get("flips")
    certified = ""
    if certificate:
        certified = f"at least {100 * certificate['target']:.3g} % right" if r.n_kept else "nothing"
    return {
        "round": r.index,
        "trained on": r.n_train,
        "people's labels": r.n_human,
        "kept": r.n_kept,
        "certified": certified,
        "flips": f"{100 * flips:.1f} %" if flips is not None else "",
        "open before": r.n_pool,
        "accuracy": str(r.heldout) if r.heldout else "",
        "control": str(r.control) if r.control else "",
        "difference": components.points(r.difference) if r.difference and r.index else "",
        "verdict": r.why,
        "seconds": round(r.seconds, 1),
    }


def _facts(r: Round) -> dict[str, object]:
    details = r.details
    before, after = details.get("reliability_before"), details.get("reliability")
    errors = {
        "calibration error": lambda found: f"{100 * found['ece']['value']:.1f} %",
        "Brier score": lambda found: f"{found['brier']:.3f}",
        "log-loss": lambda found: f"{found['log_loss']:.3f}",
    }
    told = {
        name: f"{said(before)} → {said(after)} (n = {after['ece']['n']:,})" if before and after else ""
        for name, said in errors.items()
    }
    temperature = details.get("temperature", details.get("model_temperature"))
    return {
        "round": r.index,
        "temperature": "" if temperature is None else f"{temperature:.2f}",
        **told,
        "reward offset": _number(details.get("reward_mean"), "+.2f"),
        "reward scale": _number(details.get("reward_spread"), ".2f"),
        "longer preferred: kept": _share(details.get("longer_kept")),
        "longer preferred: seed": _share(details.get("longer_seed")),
    }


def _number(value: float | None, how: str) -> str:
    return "" if value is None else format(value, how)


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"


def _without_empty(table: Sequence[dict[str, object]], may_go: Sequence[str]) -> list[dict[str, object]]:
    shown = [name for name in table[0] if name not in may_go or any(row[name] != "" for row in table)]
    return [{name: row[name] for name in shown} for row in table]


def _audits(store: Store, run: Run, rounds: list[Round], audited: Mapping[int, Interval]) -> None:
    """How right the labels of each round are by random checks, group by group; nothing where nobody checked one."""
    if not any(found.n for found in audited.values()):
        return
    try:
        pool, answered = known.pool(run.pool), known.answers(components.any_store(), run.id)
        labels = known.labels(run.id, rounds[-1].index, known.stamp(RunFolder.of(run.id)), store)
    except NotFound:
        return
    by_round = known.audited_by_group(run.id, known.newest(answered), answered, pool, labels)
    st.markdown("**Random checks**, by what the label prefers and by domain")
    rows = []
    for index, found in audited.items():
        groups: Groups = by_round.get(index, {})
        told = {"all": found, **{name: groups[name] for name in (LONGER, SHORTER) if name in groups}}
        told |= {name: share for name, share in groups.items() if name not in told}
        rows += [{"round": index, "labels": name or "no domain", "right": str(share)} for name, share in told.items()]
    st.dataframe(rows, hide_index=True)


def doctor(folder: RunFolder) -> None:
    """What was checked before and after training; runs of before have nothing of it."""
    found = folder.json("doctor") or {}
    parts = [(title, from_dicts(found.get(key))) for key, title in DOCTOR.items()]
    if any(checks for _, checks in parts):
        components.doctor_card(parts)
