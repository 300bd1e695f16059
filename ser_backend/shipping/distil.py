"""A standard model taught what a run knows, so that any library can load it: `export --distil`.

A base model is fine-tuned whole on the run's final labels (people's, reviews, self-labels in force) and, on every open pool
pair, on the probability its own model gives; then both are measured on the run's held-out pairs, which neither learnt from.

On disk, runs/RUN/distilled/: unfinished (a checkpoint), model (what Classifier.save writes, and key.json), distil.json.
Knows no process and no terminal: it tells, and closing it stops it.
"""

import hashlib
import json
import shutil
from collections.abc import Generator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ser_backend import home, metrics
from ser_backend.config import RunConfig
from ser_backend.evolution.run_data import RunData, prepare
from ser_backend.pairs import PairSet
from ser_backend.report import in_force
from ser_backend.run_folder import RunFolder
from ser_backend.shipping import card as cards
from ser_backend.shipping import export
from ser_backend.store import Store
from ser_backend.transformer.classifier import Classifier
from ser_backend.transformer.fine_tune import Trained, fine_tune
from ser_backend.transformer.plan import Examples, Recipe, plan_steps
from ser_backend.transformer.tokens import TokenTable

TEXTS_AT_ONCE = 4_096  # read and tokenised
RECIPE = Recipe(learning_rate=1e-4, epochs=6.0, batch_size=8)
MOST_STEPS = 1_500  # about 25 minutes with the bundled model on two cores; a large pool need not be read six times
NAME = "distilled_model"  # in an export


class Told(NamedTuple):
    doing: str
    done: int
    total: int


class Distilled(NamedTuple):
    folder: Path  # a model folder with its card
    facts_file: Path  # distil.json
    facts: dict[str, Any]


def distil(
    store: Store, run_id: str, base_model: str = "bundled", recipe: Recipe = RECIPE
) -> Generator[Told, None, Distilled]:
    """Train, measure, write. What was stopped goes on; what is done for these labels is not done again.

    Raises SerError when the run has no finished round, or the base model cannot be had.
    """
    run = store.run(run_id)
    labels = export.Labels(store, run.id)
    config = RunConfig(**run.config)
    heldout = PairSet.open(run.heldout) if run.heldout else None
    data = prepare(PairSet.open(run.seed), PairSet.open(run.pool), heldout, config)
    folder = RunFolder.of(run.id).path / "distilled"
    model = Classifier.load(
        base_model, max_length=config.max_length, fit="full", threads=config.threads, random_seed=config.random_seed
    )
    parts = []
    n = len(data.response_keys)
    for begin in range(0, n, TEXTS_AT_ONCE):
        parts.append(model.tokenise(data.responses(range(begin, min(n, begin + TEXTS_AT_ONCE)))))
        yield Told("Reading texts", min(n, begin + TEXTS_AT_ONCE), n)
    table = TokenTable.joined(parts)
    examples = _examples(labels, data)
    plan = plan_steps(examples, recipe)[:MOST_STEPS]
    key = _key(model, examples, recipe, plan)
    facts_file, path = folder / "distil.json", folder / "model"
    facts = _json(facts_file)
    if facts.get("key") == key and _json(path / "key.json").get("key") == key:
        return Distilled(path, facts_file, facts)

    stage = _json(path / "key.json")
    if stage.get("key") == key:
        model = Classifier.open(path, threads=config.threads)
    else:
        trained: Trained | None = None
        training = fine_tune(model, table, examples, recipe, steps=plan, checkpoint=folder / "unfinished")
        try:
            for trained in training:
                yield Told("Training", trained.done, trained.total)
        finally:
            training.close()  # a stop leaves a checkpoint
        assert trained is not None
        stage = {"key": key, "steps": trained.total, "train_seconds": round(trained.seconds, 1), "notes": trained.notes}
        with home.atomic_folder(path) as temporary:
            model.save(temporary)
            (temporary / "key.json").write_text(json.dumps(stage))
        shutil.rmtree(folder / "unfinished", ignore_errors=True)

    ends = {which: data.ends(which) for which in ("pool", "heldout")}
    asked = np.unique(np.concatenate([*ends["pool"], *(end[data.heldout_rows] for end in ends["heldout"])]))
    rewards = np.full(len(table), np.nan)
    done = 0
    for rows, found in model.rewards(table, asked):
        rewards[rows] = found
        done += len(rows)
        yield Told("Measuring", done, len(asked))
    facts = {
        "run": run.id,
        "base_model": model.name,
        "own_model": f"fit={config.fit}",
        "fit": "full",
        "recipe": asdict(recipe),
        **stage,
        "labels": {
            "human": int((labels.seed_said != 0).sum()),
            "review": sum(said in ("a", "b") for said, _ in labels.reviewed.values()),
            "self": len(labels.self_rows),
            "taught": int(data.pool_open.sum()),
        },
        **_measured(store, run.id, data, labels, ends, rewards),
    }
    shape = cards.Shape.of(path, NAME)
    with home.atomic_file(path / "README.md") as temporary:
        temporary.write_text(cards.of_distilled(run, facts, shape))
    with home.atomic_file(facts_file) as temporary:
        temporary.write_text(json.dumps(facts, ensure_ascii=False, indent=1))
    return Distilled(path, facts_file, facts)


def _examples(labels: export.Labels, data: RunData) -> Examples:
    """Labels as they stand, and every open pool pair with the probability of the run's own model."""
    rows = np.flatnonzero(labels.seed_said)
    parts = [_ordered(*data.ends("seed"), rows, labels.seed_said[rows] > 0)]
    a, b = data.ends("pool")
    said = {row: answer for row, (answer, _) in zip(labels.review_rows, labels.reviewed.values(), strict=True)}
    rows = np.array([row for row, answer in said.items() if answer != "tie"], np.int64)
    parts.append(_ordered(a, b, rows, np.array([said[row] == "a" for row in rows.tolist()], bool)))
    parts.append(_ordered(a, b, labels.self_rows, labels.self_said[labels.self_rows] > 0))
    rows = np.flatnonzero(data.pool_open)
    margin = labels.margin[rows]
    parts.append(_ordered(a, b, rows, margin > 0, metrics.sigmoid(np.abs(margin))))
    return Examples.joined(*parts)


def _ordered(
    a: np.ndarray, b: np.ndarray, rows: np.ndarray, a_wins: np.ndarray, target: np.ndarray | float = 1.0
) -> Examples:
    return Examples.of(np.where(a_wins, a[rows], b[rows]), np.where(a_wins, b[rows], a[rows]), target=target)


def _measured(
    store: Store,
    run_id: str,
    data: RunData,
    labels: export.Labels,
    ends: dict[str, tuple[np.ndarray, np.ndarray]],
    rewards: np.ndarray,
) -> dict[str, Any]:
    """Both models on the held-out pairs, what the change costs, and how far they agree on the pool."""
    folder = RunFolder.of(run_id)
    force, is_control = in_force(list(folder.rounds()))
    name = "heldout_margin_control" if is_control else "heldout_margin"
    own = folder.round_arrays(force.index, name)[name]
    a, b = ends["heldout"]
    rows = data.heldout_rows
    margin = rewards[a[rows]] - rewards[b[rows]]
    preferred = data.heldout.preferred()[rows]
    difference = metrics.paired_difference(
        metrics.correct(margin, preferred), metrics.correct(own, preferred), data.heldout.group_keys[rows]
    )
    pool = rewards[ends["pool"][0]] - rewards[ends["pool"][1]]
    mine, theirs = metrics.accuracy(margin, preferred), metrics.accuracy(own, preferred)
    return {
        "distilled": asdict(mine),
        "own": asdict(theirs),
        "difference": list(difference),
        "agreement": float((np.sign(pool) == np.sign(labels.margin)).mean()),
        "n_pool": len(pool),
        "sentence": in_words(difference, len(rows)),
    }


def in_words(difference: tuple[float, float, float], n: int) -> str:
    """What it costs. difference: distilled minus own, with its interval."""
    value, low, high = (100 * x for x in difference)
    interval = f"({low:+.1f} to {high:+.1f}, 95 % interval over prompt groups, n = {n:,})"
    if high < 0:
        return f"Distilling costs {-value:.1f} points of accuracy: the difference to the run's own model is {interval}."
    if low > 0:
        return f"Distilling costs nothing: it gains {value:.1f} points over the run's own model {interval}."
    against = f"{value:+.1f} points against the run's own model {interval}"
    return f"Distilling shows no clear cost: {against}; the interval holds zero."


def _key(model: Classifier, examples: Examples, recipe: Recipe, plan: list[np.ndarray]) -> str:
    """Names all that the outcome depends on."""
    found = hashlib.blake2b(digest_size=16)
    found.update(json.dumps([model.fingerprint, model.precision, asdict(recipe)]).encode())
    for array in (*(getattr(examples, name) for name in examples.__dataclass_fields__), *plan):
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
