"""A finished run with a calibrated run's queues, made up in seconds: what the review desk is measured and tested on.

Nothing here trains and nothing loads torch; rewards, self-labels and queues are drawn.
"""

import itertools
import json
import random
import secrets
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ser_backend import ingest
from ser_backend.config import RunConfig
from ser_backend.metrics import sigmoid
from ser_backend.pairs import PairSet
from ser_backend.records import Interval, Role, Round, Run, Status
from ser_backend.run_folder import RunFolder
from ser_backend.store import Store

LISTED = 200  # pairs on each list of a round, as acquisition.LONGEST
SUSPECTS = 10
KEPT = 0.3  # share of the pool with a self-label
PER_PROMPT = 4
SYLLABLES = [first + last for first in "bdfghklmnprstvw" for last in ("a", "e", "i", "o", "u", "an", "en", "or", "ist")]


def finished_run(
    store: Store, pool: Iterable[dict[str, Any]], seed: Iterable[dict[str, Any]], name: str = "desk"
) -> Run:
    """pool, seed: rows of prompt, chosen, rejected. The run has its seed model and one self-labelling round."""
    sets = {"seed": _imported(store, seed, "seed"), "pool": _imported(store, pool, "pool")}
    config = RunConfig(rounds=1, method="calibrated")
    run_id = secrets.token_hex(5)
    store.add_run(run_id, name, config.as_dict(), sets["seed"], sets["pool"], None, config.rounds)
    job = store.claim_job("cpu")
    assert job
    n_pool, n_seed = PairSet.open(sets["pool"]).n_pairs, PairSet.open(sets["seed"]).n_pairs
    folder = RunFolder.of(run_id)
    folder.write_arrays(
        "data",
        {
            "seed_rows": np.arange(n_seed),
            "heldout_rows": np.empty(0, np.int64),
            "pool_open": np.ones(n_pool, bool),
        },
    )
    folder.write_json("data", {"counts": {}, "notes": []})
    for index in (0, 1):
        add_round(store, store.run(run_id), index)
    store.note_outcome(run_id, "All 1 rounds are done.", 1)
    store.finish_job(job.id, Status.SUCCEEDED, None)
    return store.run(run_id)


def add_round(store: Store, run: Run, index: int, learnt: Iterable[str] = ()) -> None:
    """One more finished round. learnt: pairs whose answers it trained on."""
    pool, seed = PairSet.open(run.pool), PairSet.open(run.seed)
    n, chance = pool.n_pairs, np.random.default_rng(7)
    margin = chance.normal(0, 1.5, n).astype(np.float32)
    kept = (np.abs(margin) > np.quantile(np.abs(margin), 1 - KEPT)) & (index > 0)
    human = np.zeros(n, np.int8)
    human[[row for row in pool.rows_of(list(learnt)) if row is not None]] = 1
    arrays = {
        "weights": np.ones((1, 4)),
        "reward_a": margin,
        "reward_b": np.zeros(n, np.float32),
        "kept_round": np.where(kept, index, 0).astype(np.int16)[None],
        "preferred": np.where(kept, np.sign(margin), 0).astype(np.int8)[None],
        "human": human,
        "confidence": sigmoid(np.abs(margin)).astype(np.float32),
        "queue_informative": chance.permutation(n)[:LISTED],
        "queue_unsure": chance.permutation(n)[:LISTED],
        "queue_suspect": chance.permutation(np.flatnonzero(kept))[:LISTED],
        "queue_seed": chance.permutation(seed.n_pairs)[:SUSPECTS],
        "corrected": np.zeros(seed.n_pairs, np.int8),
    }
    heldout = Interval(0.7 + 0.01 * index, 0.66, 0.76, 500)
    round_ = Round(
        index=index,
        n_train=seed.n_pairs + int(kept.sum()),
        n_human=seed.n_pairs,
        n_pool=n,
        n_kept=int(kept.sum()),
        n_kept_status_1=int(kept.sum()),
        n_kept_status_2=0,
        heldout=heldout,
        control=heldout,
        difference=(0.0, -0.01, 0.01) if index else None,
        crossfit=heldout,
        promoted="new",
        why="made up",
        seconds=1.0,
        details={"model_round": index, "model_is_control": False, "model_temperature": 1.2},
    )
    RunFolder.of(run.id).write_round(round_, arrays, None)
    store.put_round(run.id, round_)


def texts(n_pairs: int, words: tuple[int, int] = (100, 300), random_seed: int = 0) -> Iterator[dict[str, str]]:
    """Pairs of made-up prose with some Markdown; PER_PROMPT pairs share a prompt, no two share a response."""
    chance = random.Random(random_seed)
    vocabulary = ["".join(chance.choices(SYLLABLES, k=chance.choice((1, 2, 2, 3)))) for _ in range(8_000)]

    def response() -> str:
        drawn = iter(chance.choices(vocabulary, k=chance.randint(*words)))
        paragraphs = []
        while sentence := list(itertools.islice(drawn, chance.randint(30, 70))):
            sentence[0] = sentence[0].capitalize()
            mark = chance.choice(("", "", "", "- ", "1. ", "## "))
            sentence[len(sentence) // 2] = chance.choice(("**{}**", "`{}`", "{}")).format(sentence[len(sentence) // 2])
            paragraphs.append(f"{mark}{' '.join(sentence)}.")
        return "\n\n".join(paragraphs)

    for i in range(n_pairs):
        if i % PER_PROMPT == 0:
            prompt = f"{i // PER_PROMPT}: {' '.join(chance.choices(vocabulary, k=chance.randint(8, 40)))}?"
        yield {"prompt": prompt, "chosen": response(), "rejected": response()}


def _imported(store: Store, rows: Iterable[dict[str, Any]], role: Role) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{role}.jsonl"
        with path.open("w", encoding="utf-8") as out:
            out.writelines(json.dumps(row) + "\n" for row in rows)
        return ingest.import_source(store, path, role).dataset.id
