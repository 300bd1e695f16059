"""A data folder as large as the dashboard has to bear, made up once: a pool of real imported texts, finished rounds over it,
a store full of events and answers, and a run under way whose worker does nothing but tell of its progress.

Nothing here trains and nothing loads torch. The import is the product's own and is measured on the way, in a process of its
own; what a round leaves is drawn.
"""

import json
import os
import random
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks import desk_run
from ser_backend import home, ingest, review
from ser_backend.calibration import reliability
from ser_backend.config import RunConfig
from ser_backend.metrics import accuracy, sigmoid
from ser_backend.pairs import PairSet
from ser_backend.policy import figures
from ser_backend.policy.folder import PolicyFolder
from ser_backend.policy.settings import PolicySettings
from ser_backend.records import Role, Round, Run, Status
from ser_backend.review import Desk
from ser_backend.run_folder import RunFolder
from ser_backend.store import Store
from ser_backend.store.tables import events, now

MADE = "made.json"  # what was made, and how fast the import was
ARMS = 6  # as a calibrated run has them: one in force and five that judge
A_PROMPT = 4  # responses, and so 6 pairs
DOMAINS = ("code", "cooking", "email", "fitness", "gardens", "repair", "travel", "work")
PEOPLE, AT_ONCE = 5, 50
A_SECOND = 2  # events of the worker under way
BEAT_S = 2.0
WORKER = "import sys; from benchmarks import large_home; large_home.work(sys.argv[1])"
IMPORT = "import sys; from benchmarks import large_home; large_home.import_told(*sys.argv[1:])"


@dataclass(frozen=True, slots=True)
class Size:
    pool: int = 1_000_000  # pairs
    seed: int = 2_000
    heldout: int = 2_000
    large: int = 4  # finished runs over that pool
    rounds: int = 3  # self-labelling rounds of each
    small: int = 15  # finished runs over a pool of `seed` pairs
    events: int = 200_000
    answers: int = 2_000
    policy_steps: int = 2_000


def made(size: Size) -> dict[str, Any]:
    """In $SER_HOME; what was made before of the same size is used again."""
    note = home.home() / MADE
    if note.exists() and (told := json.loads(note.read_text()))["size"] == asdict(size):
        return dict(told)
    store = Store.open()
    sets: dict[str, str] = {}
    told = {"size": asdict(size), "import": {}}
    parts: list[tuple[str, Role, int]] = [("pool", "pool", size.pool), ("seed", "seed", size.seed)]
    parts += [("small pool", "pool", size.seed), ("heldout", "heldout", size.heldout)]
    for number, (name, role, n) in enumerate(parts):
        sets[name], told["import"][name] = _imported(name, role, n, number)
    large = [_finished(store, f"large {i}", sets, "pool", size.rounds, i) for i in range(size.large)]
    small = [_finished(store, f"small {i}", sets, "small pool", 2, i) for i in range(size.small)]
    _answered(store, large[-1], size.answers * 3 // 4)
    _answered(store, small[-1], size.answers - size.answers * 3 // 4)
    _policy(large[0], size.policy_steps)
    live = _under_way(store, sets)
    finished = [*large, *small]
    each = size.events * 3 // 4 // len(finished)
    for run in finished:
        _tell_events(store, run, each, False)
    _tell_events(store, live, size.events - each * len(finished), True)
    told |= {"large": [run.id for run in large], "small": [run.id for run in small], "live": live.id}
    note.write_text(json.dumps(told, indent=1))
    return told


# ---- pairs


def rows(n_pairs: int, labelled: bool, number: int) -> Iterator[dict[str, str]]:
    """A_PROMPT distinct responses a prompt, each two a pair; lengths spread as in chats. Another number, other texts."""
    chance = random.Random(number)
    vocabulary = ["".join(chance.choices(desk_run.SYLLABLES, k=chance.choice((1, 2, 2, 3)))) for _ in range(8_000)]
    stock = " ".join(chance.choices(vocabulary, k=200_000))  # slices of it: to draw every word anew would take an hour
    names, first = ("chosen", "rejected") if labelled else ("response_a", "response_b"), len(stock) - 4_000
    done = prompt = 0

    def text(mean: float) -> str:
        begin, length = chance.randrange(first), 20 + int(min(3_000, chance.lognormvariate(0, 0.8) * mean))
        return stock[begin : begin + length]

    while done < n_pairs:
        asked = f"{number}-{prompt}: {text(60)}?"
        answers = [f"{text(300)} ({prompt}.{place})" for place in range(A_PROMPT)]
        for i in range(A_PROMPT):
            for j in range(i + 1, A_PROMPT):
                if done < n_pairs:
                    domain = DOMAINS[prompt % len(DOMAINS)]
                    yield {"prompt": asked, names[0]: answers[i], names[1]: answers[j], "domain": domain}
                    done += 1
        prompt += 1


def _imported(name: str, role: Role, n: int, number: int) -> tuple[str, dict[str, float]]:
    """Id of the set, and what the import took: in a process of its own, as its peak of memory is asked for."""
    path = home.home() / f"{name}.jsonl"
    with path.open("w", encoding="utf-8") as out:
        out.writelines(json.dumps(row) + "\n" for row in rows(n, role != "pool", number))
    try:
        command = [sys.executable, "-c", IMPORT, str(path), role]
        said = subprocess.run(command, cwd=home.ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
        told = json.loads(said.splitlines()[-1])
        return str(told.pop("id")), told | {"file_mb": path.stat().st_size / 1e6}
    finally:
        path.unlink()


def import_told(path: str, role: Role) -> None:
    """Import, and print what it took as JSON."""
    store = Store.open()
    before, began, cpu = peak_mb(os.getpid()), time.monotonic(), time.process_time()
    dataset = ingest.import_source(store, path, role).dataset
    took, worked = time.monotonic() - began, time.process_time() - cpu
    told = {"id": dataset.id, "pairs": dataset.n_pairs, "seconds": took, "pairs_per_s": dataset.n_pairs / took}
    told |= {"pairs_per_cpu_s": dataset.n_pairs / worked}  # what a busy machine does not change
    print(json.dumps(told | {"peak_mb": peak_mb(os.getpid()), "before_mb": before}))


def peak_mb(pid: int) -> float:
    """The most memory the process has had; of Linux only."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


# ---- runs


def _config(rounds: int, **changed: object) -> RunConfig:
    return RunConfig(rounds=rounds, method="calibrated").changed(changed)


def _finished(store: Store, name: str, sets: dict[str, str], pool: str, rounds: int, number: int) -> Run:
    run_id = secrets.token_hex(5)
    config = _config(rounds, random_seed=number)
    store.add_run(run_id, name, config.as_dict(), sets["seed"], sets[pool], sets["heldout"], rounds, "a project")
    job = store.claim_job("cpu")
    assert job
    _write_rounds(store, store.run(run_id), rounds, number)
    store.note_outcome(run_id, f"All {rounds} rounds are done.", rounds)
    store.finish_job(job.id, Status.SUCCEEDED, None)
    return store.run(run_id)


def _under_way(store: Store, sets: dict[str, str]) -> Run:
    """A run that fine-tunes over the large pool, in its second round; nobody works on it until `at_work`."""
    run_id = secrets.token_hex(5)
    config = _config(4, fit="lora")
    store.add_run(run_id, "live", config.as_dict(), sets["seed"], sets["pool"], sets["heldout"], 4, "a project")
    assert store.claim_job("cpu")
    _write_rounds(store, store.run(run_id), 1, 99)
    return store.run(run_id)


def _policy(run: Run, n: int) -> None:
    """Stopped after n steps of 8 prompts with 4 responses each."""
    chance, places = np.random.default_rng(7), np.repeat(np.arange(8), 4)
    settings = PolicySettings(base_model="a/model", prompts="pool", reward_models=f"run:{run.id}", steps=2 * n)
    folder = PolicyFolder.of("large-policy")
    folder.begin(settings.as_dict())
    with (folder.path / "steps.jsonl").open("w") as file:
        for step in range(1, n + 1):
            raw, tokens = chance.normal(step / n, 1, (len(places), 1)), chance.integers(20, 128, len(places))
            kl, entropy = 8 * step / n * chance.random(len(places)), chance.normal(90, 5, len(places))
            told = figures.responses(
                raw, settings.members, None, places, ["a b c d"] * len(places), tokens, tokens < 120, kl, kl, entropy
            )
            facts = {"step": step, "of": 2 * n, "stage": "checkpoints", "loss": 0.1, "seconds": 6.0}
            file.write(json.dumps(facts | told) + "\n")


def _write_rounds(store: Store, run: Run, rounds: int, number: int) -> None:
    pool, seed, heldout = (PairSet.open(str(found)) for found in (run.pool, run.seed, run.heldout))
    folder = RunFolder.of(run.id)
    trained = {"seed_rows": np.arange(seed.n_pairs), "heldout_rows": np.arange(heldout.n_pairs)}
    length = pool.response_lengths
    longer_by = (length[pool.response_a] - length[pool.response_b]).astype(np.int32)
    folder.write_arrays("data", trained | {"pool_open": np.ones(pool.n_pairs, bool), "pool_longer_by": longer_by})
    counts = {"pool_pairs": pool.n_pairs, "pool_open": pool.n_pairs, "seed_trained": seed.n_pairs}
    folder.write_json("data", {"counts": counts, "notes": []})
    folder.write_arrays("basis", {"mean": np.zeros(384, np.float32), "directions": np.eye(384, 256, dtype=np.float32)})
    folder.write_json("encoder", {"base_model": "bundled", "fingerprint": "made up", "max_length": 512})
    for index in range(rounds + 1):
        _write_round(store, run, index, np.random.default_rng([number, index]), pool, seed, heldout.preferred())


def _write_round(
    store: Store, run: Run, index: int, chance: np.random.Generator, pool: PairSet, seed: PairSet, truth: np.ndarray
) -> None:
    n = pool.n_pairs
    margin = chance.normal(0, 1.5, n).astype(np.float32)
    kept = (np.abs(margin) > 1.5) & (index > 0)
    preferred = np.where(kept, np.sign(margin), 0).astype(np.int8)
    sure = sigmoid(np.abs(margin)).astype(np.float32)
    kept_round = np.tile(np.where(kept, index, 0).astype(np.int16), (ARMS, 1))
    measured = (truth * chance.normal(0.7, 1, len(truth))).astype(np.float32)
    control = (truth * chance.normal(0.6, 1, len(truth))).astype(np.float32)
    listed = min(desk_run.LISTED, n)
    arrays = {
        "weights": np.ones((ARMS, 256)),
        "reward_a": margin,
        "reward_b": np.zeros(n, np.float32),
        "kept_round": kept_round,
        "preferred": np.tile(preferred, (ARMS, 1)),
        "chain_kept_round": kept_round,
        "chain_preferred": np.tile(preferred, (ARMS, 1)),
        "confidence": sure,
        "chain_confidence": sure,
        "human": np.zeros(n, np.int8),
        "said": np.sign(margin).astype(np.int8),
        "new_kept": kept,
        "new_preferred": preferred,
        "new_status": kept.astype(np.int8),
        "queue_informative": chance.permutation(n)[:listed],
        "queue_unsure": chance.permutation(n)[:listed],
        "queue_suspect": chance.permutation(np.flatnonzero(kept))[:listed],
        "queue_seed": chance.permutation(seed.n_pairs)[:listed],
        "corrected": np.zeros(seed.n_pairs, np.int8),
        "heldout_margin": measured,
        "heldout_margin_control": control,
    }
    now_right, was_right = accuracy(measured, truth), accuracy(control, truth)
    gap = now_right.value - was_right.value
    round_ = Round(
        index=index,
        n_train=seed.n_pairs + int(kept.sum()),
        n_human=seed.n_pairs,
        n_pool=n,
        n_kept=int(kept.sum()),
        n_kept_status_1=int(kept.sum()),
        n_kept_status_2=0,
        heldout=now_right,
        control=was_right,
        difference=(gap, gap - 0.02, gap + 0.02) if index else None,
        crossfit=now_right,
        promoted="new",
        why="made up",
        seconds=60.0,
        details=_details(index, sure, kept, measured, truth),
    )
    RunFolder.of(run.id).write_round(round_, arrays, _picture(margin, kept, pool))
    store.put_round(run.id, round_)


def _details(index: int, sure: np.ndarray, kept: np.ndarray, measured: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """What the page Watch reads of a calibrated round."""
    facts: dict[str, Any] = {
        "model_round": index,
        "model_is_control": False,
        "model_temperature": 1.2,
        "n_self_labels": int(kept.sum()),
        "reward_mean": 0.0,
        "reward_spread": 1.0,
        "strengths": {},
    }
    if not index:
        return facts
    judged = asdict(reliability(sigmoid(np.abs(measured)), (np.sign(measured) == truth).astype(float)))
    edges = np.linspace(0.5, 1, 51)
    certificate = {
        "threshold": 1.5,
        "kept": int(kept.sum()),
        "coverage": float(kept.mean()),
        "target": 0.8,
        "delta": 0.05,
    }
    certificate |= {"bound": 0.81, "calibration_n": 900, "calibration_wrong": 90, "why": "made up"}
    return facts | {
        "shared_prompts": 900,
        "temperature": 1.2,
        "certificate": certificate,
        "certificates": dict.fromkeys(("prefers the longer", "prefers the other"), certificate),
        "audits": "",
        "claimed_precision": float(sure[kept].mean()),
        "longer_seed": 0.5,
        "longer_kept": 0.5,
        "reliability_before": judged,
        "reliability": judged,
        "confidence": {
            "edges": edges.tolist(),
            "all": np.histogram(sure, edges)[0].tolist(),
            "kept": np.histogram(sure[kept], edges)[0].tolist(),
        },
        "funnel": {"confident": int(kept.sum()), "certified": int(kept.sum()), "audited": int(kept.sum())},
    }


def _picture(margin: np.ndarray, kept: np.ndarray, pool: PairSet) -> dict[str, Any]:
    some = np.arange(min(2_000, len(margin)))
    p_a, edges = sigmoid(margin), np.linspace(-1, 1, 41)
    spread = 2 * p_a - 1
    return {
        "points": {
            "p_a": p_a[some].round(4).tolist(),
            "p_b": (1 - p_a[some]).round(4).tolist(),
            "status": kept[some].astype(int).tolist(),
            "kept": kept[some].astype(int).tolist(),
            "pair": [key.decode() for key in pool.pair_keys[some]],
        },
        "histogram": {
            "edges": edges.tolist(),
            "all": np.histogram(spread, edges)[0].tolist(),
            "kept": np.histogram(spread[kept], edges)[0].tolist(),
        },
        "n_open": len(margin),
        "thresholds": "absolute",
    }


# ---- what people said, and what workers tell


def _answered(store: Store, run: Run, n: int) -> None:
    """As people would have given them at the desk; two answer each pair."""
    store.set_overlap(run.id, 2)
    desk, chance, done = Desk(store, run.id), random.Random(0), 0
    while done < n:
        for person in range(PEOPLE):
            for shown in desk.hand_out(f"person {person}", "mixed", n=min(AT_ONCE, n - done)):
                verdict = chance.choice(("left", "right", "left", "right", "left", "right", "tie", "skip"))
                review.vote(store, shown, verdict, seen_ms=4_000, active_ms=3_500)
                done += 1
    for person in range(PEOPLE):
        store.release(run.id, f"person {person}")


def _tell_events(store: Store, run: Run, n: int, is_live: bool) -> None:
    """Written at once: one by one, 200,000 would take minutes. The last are of a job that runs, or of one that ended."""
    at, told = now(), []
    for seq in range(1, n + 1):
        kind, payload = "training_progressed", _progress(seq)
        if seq == 1:
            kind, payload = "job_started", {"pid": 1}
        elif seq == n and not is_live:
            kind, payload = "job_ended", {"status": Status.SUCCEEDED, "error": None}
        round_ = 2 if is_live else 1
        told.append({"run": run.id, "seq": seq, "kind": kind, "round": round_, "at": at, "payload": payload})
    with store.engine.begin() as tx:
        if told:
            tx.execute(events.insert(), told)


def _progress(done: int) -> dict[str, Any]:
    return {"of": "model", "done": done, "total": 1_000_000, "loss": 0.7 * 0.99999**done, "accuracy": 0.6}


@contextmanager
def at_work(run_id: str) -> Iterator[None]:
    """A process of its own tells A_SECOND events of progress a second for that run, and that it lives."""
    store = Store.open()
    job = store.jobs(run=run_id)[-1]
    process = subprocess.Popen([sys.executable, "-c", WORKER, run_id], cwd=home.ROOT, start_new_session=True)
    try:
        store.set_process(job.id, process.pid, psutil.Process(process.pid).create_time())
        store.beat(job.id)
        yield
    finally:
        process.kill()
        process.wait()
        store.engine.dispose()


def work(run_id: str) -> None:
    """Until it is killed."""
    store = Store.open()
    job, done = store.jobs(run=run_id)[-1], 0
    told = store.events(run_id, last=1)
    done, beaten = told[0].seq if told else 0, 0.0
    while True:
        done += 1
        store.append_event(run_id, "training_progressed", 2, _progress(done))
        if time.monotonic() > beaten + BEAT_S:
            store.beat(job.id)
            beaten = time.monotonic()
        time.sleep(1 / A_SECOND)
