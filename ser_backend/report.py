"""report.json: what a run did and how well, from the store and the run's folder. Computes nothing new."""

import platform
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ser_backend import __version__
from ser_backend.records import Round
from ser_backend.run_folder import RunFolder
from ser_backend.store import Store

PACKAGES = ("torch", "transformers", "datasets", "numpy", "scipy", "pandas", "pyarrow", "streamlit")


def report(store: Store, run_id: str) -> dict[str, Any]:
    """config, versions, seeds, data, rounds[], best_round, stopped_because, warnings[] and the audits so far."""
    from ser_backend.review import Desk  # here, because review needs a finished round and this does not

    run = store.run(run_id)
    folder = RunFolder.of(run_id)
    rounds = list(folder.rounds())
    data = folder.json("data") or {"counts": {}, "notes": []}
    audits = None
    if rounds:
        precision = Desk(store, run_id).precision()
        audits = {
            "precision": asdict(precision.total) if precision.total.n else None,
            "ties": precision.ties,
            "skips": precision.skips,
            "n_kept": precision.n_kept,
        }
    return {
        "run": run.id,
        "name": run.name,
        "status": str(run.status),
        "error": run.error,
        "config": run.config,
        "versions": versions(),
        "seeds": {"random_seed": run.config["random_seed"]},
        "data": {
            "seed": store.dataset(run.seed).name,
            "pool": store.dataset(run.pool).name,
            "heldout": store.dataset(run.heldout).name if run.heldout else None,
            **data,
        },
        "rounds": [_round(round_) for round_ in rounds],
        "best_round": rounds[-1].details["model_round"] if rounds else None,
        "stopped_because": run.stopped_because,
        "audits": audits,
        "warnings": warnings(rounds, data["notes"]),
    }


def write_report(store: Store, run_id: str) -> None:
    RunFolder.of(run_id).write_json("report", report(store, run_id))


def warnings(rounds: list[Round], notes: list[str]) -> list[str]:
    """Sentences a user must not miss: what the data allowed, what was rolled back, and whether self-labels paid."""
    found = list(notes)
    found += [f"Round {r.index} was {r.why}." for r in rounds if r.promoted != "new"]
    if outcome := verdict(rounds):
        found.append(outcome)
    return found


def verdict(rounds: list[Round]) -> str | None:
    """Did the self-labels help? The model in force against the control, on the held-out pairs, in words."""
    if len(rounds) < 2:
        return None
    model, is_control = in_force(rounds)
    if is_control:
        return "The model in use is the control, trained on people's labels only: the self-labels did not hold up."
    if model.index == 0:
        return "The model in use is the seed model: no self-labelling round held up."
    if model.difference is None:
        return None
    value, low, high = (100 * x for x in model.difference)
    figures = f"{value:+.1f} points against the control on held-out pairs ({low:+.1f} to {high:+.1f})"
    if low > 0:
        return f"Self-labels helped: {figures}."
    if high < 0:
        return f"Self-labels hurt: {figures}. Review more pairs, then retrain."
    return f"No clear effect of the self-labels: {figures}."


def in_force(rounds: list[Round]) -> tuple[Round, bool]:
    """The round whose model the run stands on, and whether it is that round's control."""
    last = rounds[-1].details
    return rounds[last["model_round"]], bool(last["model_is_control"])


def versions() -> dict[str, str]:
    found = {"ser-studio": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _round(round_: Round) -> dict[str, Any]:
    def interval(found: Any) -> list[float] | None:
        return [found.low, found.high] if found else None

    return {
        "round": round_.index,
        "n_train": round_.n_train,
        "n_human": round_.n_human,
        "n_pool": round_.n_pool,
        "n_kept": round_.n_kept,
        "n_kept_status_1": round_.n_kept_status_1,
        "n_kept_status_2": round_.n_kept_status_2,
        "heldout_accuracy": round_.heldout.value if round_.heldout else None,
        "heldout_interval": interval(round_.heldout),
        "heldout_n": round_.heldout.n if round_.heldout else None,
        "control_accuracy": round_.control.value if round_.control else None,
        "control_interval": interval(round_.control),
        "difference_to_control": list(round_.difference) if round_.difference else None,
        "crossfit_accuracy": round_.crossfit.value if round_.crossfit else None,
        "crossfit_interval": interval(round_.crossfit),
        "promoted": round_.promoted,
        "why": round_.why,
        "seconds": round(round_.seconds, 3),
        "details": round_.details,
    }
