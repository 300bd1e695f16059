"""What is sent to a tracker: figures of finished rounds by name, shares from 0 to 1. No text, no label, no person."""

import math
from collections.abc import Mapping
from typing import Any

from ser_backend.records import Interval, Round


def of_round(round_: Round) -> dict[str, float]:
    details, later = round_.details, round_.index > 0
    certificate, error = details.get("certificate"), (details.get("reliability") or {}).get("ece")
    found: dict[str, Any] = {
        "trained_on": round_.n_train,
        "human_labels": round_.n_human,
        "open": round_.n_pool,
        "kept": round_.n_kept,
        "self_labels": details.get("n_self_labels"),
        "held_up": float(round_.promoted == "new"),
        "seconds": round_.seconds,
        "precision_claimed": details.get("claimed_precision"),
        "precision_certified": certificate["target"] if certificate and round_.n_kept else None,
        "calibration_error": error["value"] if error else None,
        "temperature": details.get("temperature"),
        "flips": details.get("flips"),
        **_with_interval("accuracy", round_.heldout),
        **_with_interval("control", round_.control if later else None),
        **_with_interval("accuracy_crossfit", round_.crossfit),
    }
    if later and round_.difference:
        found |= dict(zip(("difference", "difference_low", "difference_high"), round_.difference, strict=True))
    return _known(found)


def of_audits(found: Interval) -> dict[str, float]:
    return _known(_with_interval("precision_audited", found) | {"audits": found.n})


def _with_interval(name: str, found: Interval | None) -> dict[str, float]:
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high} if found and found.n else {}


def _known(found: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in found.items() if value is not None and math.isfinite(value)}
