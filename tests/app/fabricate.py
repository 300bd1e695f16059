"""Data sets and runs as the engine leaves them, filled by hand: nothing here trains, and nothing loads torch."""

import html
import json
from pathlib import Path

import numpy as np
from streamlit.testing.v1 import AppTest

from ser_backend import jobs
from ser_backend.config import RunConfig
from ser_backend.records import Dataset, Interval, Role, Round, Run, Status
from ser_backend.run_folder import RunFolder
from ser_backend.store import Store

APP = Path(__file__).resolve().parents[2] / "app"
N_POOL = 40
KEPT = 12  # pairs that round 1 keeps: the first ones


def rows(n: int, tag: str) -> list[dict[str, str]]:
    return [
        {
            "prompt": f"{tag} question {i}?",
            "chosen": f"A good answer to {i}.",
            "rejected": f"<b>Bad</b> ${i}$ :smile: *x*",
        }
        for i in range(n)
    ]


def write_jsonl(path: Path, content: list[dict[str, str]]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in content), encoding="utf-8")
    return path


def a_round(index: int, **changed: object) -> Round:
    facts: dict[str, object] = {
        "index": index,
        "n_train": 30 + KEPT * index,
        "n_human": 30,
        "n_pool": N_POOL,
        "n_kept": KEPT if index else 0,
        "n_kept_status_1": KEPT - 2 if index else 0,
        "n_kept_status_2": 2 if index else 0,
        "heldout": Interval(0.7 + 0.01 * index, 0.6, 0.8, 200),
        "control": Interval(0.7, 0.6, 0.8, 200),
        "difference": (0.01 * index, -0.02, 0.04),
        "crossfit": Interval(0.7, 0.6, 0.8, 30),
        "promoted": "new",
        "why": "kept: +1.0 points against the control" if index else "the seed model: people's labels only",
        "seconds": 1.0,
        "details": {"model_round": index, "model_is_control": False},
    }
    return Round(**{**facts, **changed})  # type: ignore[arg-type]


def certified(**changed: object) -> dict[str, object]:
    """Details of a calibrated round that kept KEPT pairs."""
    n_bins, edges = 10, np.linspace(0.5, 1, 11).round(3).tolist()

    def reliability(error: float) -> dict[str, object]:
        sure = np.linspace(0.55, 0.95, n_bins)
        right = [{"value": p - error, "low": p - error - 0.1, "high": p - error + 0.04, "n": 20} for p in sure]
        ece = {"value": error, "low": 0.0, "high": error + 0.05, "n": 200}
        return {"confidence": sure.tolist(), "right": right, "ece": ece, "brier": 0.2, "log_loss": 0.6}

    def certificate(threshold: float | None) -> dict[str, object]:
        facts = {"target": 0.8, "delta": 0.05, "kept": KEPT, "coverage": 0.3, "bound": 0.81}
        return facts | {"threshold": threshold, "calibration_n": 90, "calibration_wrong": 9, "why": "x"}

    return {
        "model_round": 1,
        "model_is_control": False,
        "shared_prompts": 12,
        "temperature": 1.6,
        "certificate": certificate(1.0),
        "certificates": {"prefers the longer": certificate(1.0), "prefers the other": certificate(2.0)},
        "audits": "",
        "claimed_precision": 0.88,
        "longer_seed": 0.5,
        "longer_kept": 0.5,
        "reliability_before": reliability(0.09),
        "reliability": reliability(0.031),
        "confidence": {"edges": edges, "all": [4] * n_bins, "kept": [0] * 7 + [4] * 3},
        **changed,
    }


def a_picture() -> dict[str, object]:
    p_a = np.linspace(0.05, 0.95, N_POOL).round(4)
    kept = (np.arange(N_POOL) < KEPT).astype(int)
    edges = np.linspace(-1, 1, 11)
    return {
        "points": {
            "p_a": p_a.tolist(),
            "p_b": p_a[::-1].tolist(),
            "status": kept.tolist(),
            "kept": kept.tolist(),
            "pair": [f"{i:032x}" for i in range(N_POOL)],
        },
        "histogram": {"edges": edges.tolist(), "all": [4] * 10, "kept": [3, 3, 3, 3, 0, 0, 0, 0, 0, 0]},
        "n_open": N_POOL,
        "thresholds": "absolute",
    }


def write_rounds(store: Store, run: Run, rounds: list[Round]) -> None:
    folder = RunFolder.of(run.id)
    measured = np.arange(10) if run.heldout is None else np.arange(0)  # rows of the seed
    rows = {"seed_rows": np.setdiff1d(np.arange(30), measured), "heldout_rows": np.arange(10)}
    folder.write_arrays("data", rows | {"pool_open": np.ones(N_POOL, bool)})
    folder.write_json("data", {"counts": {}, "notes": ["A note on the data."]})
    folder.write_arrays("basis", {"mean": np.zeros(4, np.float32), "directions": np.eye(4, dtype=np.float32)})
    folder.write_json("encoder", {"base_model": "bundled", "fingerprint": "f", "max_length": 512})
    margin = np.linspace(-2, 2, N_POOL).astype(np.float32)
    new = np.arange(N_POOL) < KEPT
    for round_ in rounds:
        kept = new & (round_.index > 0)
        arrays = {
            "weights": np.ones((6, 4)),
            "reward_a": margin,
            "reward_b": np.zeros(N_POOL, np.float32),
            "kept_round": np.tile(kept.astype(np.int16), (6, 1)),
            "preferred": np.tile(np.where(kept, np.sign(margin), 0).astype(np.int8), (6, 1)),
            "human": np.zeros(N_POOL, np.int8),
        }
        if round_.index:
            arrays |= {"new_kept": kept, "new_preferred": np.where(kept, np.sign(margin), 0).astype(np.int8)}
        folder.write_round(round_, arrays, a_picture() if round_.index else None)
        store.put_round(run.id, round_)


def end(
    store: Store,
    sets: dict[Role, Dataset],
    status: Status,
    rounds: list[Round],
    error: str | None = None,
    **settings: object,
) -> Run:
    config = RunConfig(rounds=1).changed(settings)
    run = jobs.submit(store, config, sets["seed"].id, sets["pool"].id, sets["heldout"].id, "my run", False)
    job = store.claim_job("cpu")
    assert job
    if rounds:
        write_rounds(store, run, rounds)
        store.note_outcome(run.id, "All 1 rounds are done.", rounds[-1].details["model_round"])
    store.finish_job(job.id, status, error)
    return store.run(run.id)


def figures(page: AppTest) -> list[str]:
    """What stands in each figure: in the picture of it, or in plotly's own, as it was sent to the browser."""
    pictures = [e.proto for e in page.get("bidi_component") if e.proto.component_name == "ser_picture"]
    return [html.unescape(next(iter(json.loads(picture.json)["drawn"].values()))) for picture in pictures] + [
        e.proto.spec for e in page.get("plotly_chart")
    ]


def texts(page: AppTest) -> str:
    """Everything a person could read on the page, Markdown escapes taken out."""
    parts = [e.value for kind in (page.title, page.markdown, page.caption, page.info, page.success) for e in kind]
    parts += [e.value for kind in (page.warning, page.error, page.subheader, page.code) for e in kind]
    parts += [getattr(e.proto, "body", "") for e in page.get("html")]
    return "\n".join(str(part) for part in parts).replace("\\", "")
