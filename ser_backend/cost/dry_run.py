"""The dry run of fit=lora and fit=full: some steps and some scoring with a throw-away copy of the model.

Three steps on the longest texts of the run's own (the peak of memory), a few usual ones (the pace). Writes nothing.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ser_backend import training
from ser_backend.config import RunConfig
from ser_backend.cost.forecast import Measured, Work
from ser_backend.cost.machine import this_machine
from ser_backend.evolution.run_data import RunData
from ser_backend.transformer.fine_tune import fine_tune
from ser_backend.transformer.plan import Examples, Recipe, plan_steps

MOST_TEXTS = 20_000  # tokenised; of larger sets, so many in whole groups
HEAVY, USUAL = 3, 3  # steps tried: the longest, and those of the middle
STEPS_S = 40.0  # after so long, what has been seen has to do
SCORING_S = 4.0  # of scoring or encoding timed
PROCESS_S = 3.0  # start of a worker: Python, its packages, the data sets
DISK_BYTES_S = 300e6  # a model's weights written and synced
LOAD_S = 15.0  # a model that takes longer to load is loaded once
GROWTH = 1.15  # of a process on a CPU over a run's rounds: 1.03 to 1.17 in four runs

Tell = Callable[[str, str], None]  # state and sentence; raises estimate.Gone when nobody waits any more


# ---- the texts


@dataclass(frozen=True)
class Sample:
    """Pairs of seed and pool, as rows of `texts`, which are rows of data.response_keys."""

    texts: np.ndarray
    seed: Examples
    pool: Examples
    seed_share: float  # of the pairs that are in the sample
    pool_share: float


def sample_of(data: RunData, seed_mask: np.ndarray, seed: int) -> Sample:
    """All pairs, or whole groups of them in random order while there is room. seed_mask: bool over data.seed_rows."""
    random = np.random.default_rng(seed)
    chosen, shares = [], []
    for which, rows, groups in (
        ("seed", data.seed_rows[seed_mask], data.seed.group_keys),
        ("pool", np.flatnonzero(data.pool_open), data.pool.group_keys),
    ):
        a, b = data.ends(which)
        if 2 * len(rows) > MOST_TEXTS and len(np.unique(np.concatenate([a[rows], b[rows]]))) > MOST_TEXTS // 2:
            names, of = np.unique(groups[rows], return_inverse=True)
            rows = rows[np.argsort(random.permutation(len(names))[of], kind="stable")]
            kept = rows[: MOST_TEXTS // 4]
        else:
            kept = rows
        chosen.append((a[kept], b[kept]))
        shares.append(len(kept) / max(1, len(rows)))
    texts = np.unique(np.concatenate([end for ends in chosen for end in ends]))
    examples = [Examples.of(*(np.searchsorted(texts, end) for end in ends)) for ends in chosen]
    return Sample(texts, examples[0], examples[1], *shares)


def texts_of(examples: Examples, pairs: np.ndarray) -> np.ndarray:
    return np.unique(np.concatenate([examples.preferred[pairs], examples.other[pairs]]))


# ---- fit=lora and fit=full


def tuned(config: RunConfig, data: RunData, tell: Tell) -> Measured:
    import torch
    import transformers  # noqa: F401  (its import is not a part of loading a model)

    from ser_backend.health.model_checks import examine_model
    from ser_backend.learners import examination
    from ser_backend.learners.tuned import base_of, peak_memory, recipe_of
    from ser_backend.transformer.classifier import Classifier

    def loaded() -> tuple[Classifier, float]:
        started = time.perf_counter()
        model = base_of(config)
        return model, time.perf_counter() - started

    model, first_load = loaded()
    recipe = recipe_of(config)
    labelled = np.ones(len(data.seed_rows), bool)
    if config.gate == "on":
        labelled = training.fold_of(data.seed.group_keys[data.seed_rows]) != 0
    sample = sample_of(data, labelled if labelled.any() else ~labelled, config.random_seed)
    started = time.perf_counter()
    table = model.tokenise(data.responses(sample.texts.tolist()))
    n_texts = len(data.response_keys)
    tokenising = (time.perf_counter() - started) * n_texts / len(table)
    lengths = table.lengths
    tell("measuring", "")
    started = time.perf_counter()
    examine_model(model, examination.sample(data), trained=False)
    checks = time.perf_counter() - started

    once = replace(recipe, epochs=1.0)
    joined = Examples.joined(sample.seed, sample.pool)
    seed_plan = plan_steps(sample.seed, once)
    pool_plan = [step + len(sample.seed) for step in plan_steps(sample.pool, once)]
    cost = [int(lengths[texts_of(joined, step)].sum()) for step in seed_plan + pool_plan]
    tried = _tried(seed_plan + pool_plan, cost)
    pace = _steps(model, table, joined, recipe, tried, tell)
    frozen_bytes = 4 * model.model.config.get_text_config().hidden_size  # kept per token (prefix.py)
    from ser_backend.transformer.prefix import MOST_BYTES

    kept_tokens = {
        name: float(lengths[texts_of(examples, np.arange(len(examples)))].sum() / share)
        for name, examples, share in (
            ("seed", sample.seed, sample.seed_share),
            ("pool", sample.pool, sample.pool_share),
        )
    }
    too_large = kept_tokens["pool"] * frozen_bytes > MOST_BYTES

    def work(plan: list[np.ndarray], cost: list[int], share: float, kept: float) -> Work:
        seconds = sum(cost) * (pace.per_token + (pace.frozen if too_large else 0)) / share
        return Work(len(plan) / share, seconds, 0.0 if too_large else kept * pace.frozen)

    seed_work = work(seed_plan, cost[: len(seed_plan)], sample.seed_share, kept_tokens["seed"])
    pool_work = work(pool_plan, cost[len(seed_plan) :], sample.pool_share, kept_tokens["pool"])
    score = _scoring(model, table, pace.per_token, config.random_seed) * float(lengths.mean()) * n_texts
    load = first_load
    if first_load < LOAD_S:  # as a run does for every model: the second is quicker, and memory a little fuller
        del model
        model, load = loaded()
        _steps(model, table, joined, recipe, tried[:1], tell)
    peak = peak_memory(model.device)
    if model.device == "cpu":
        peak = int(GROWTH * peak)
    if pace.frozen and not too_large:
        peak += int((kept_tokens["pool"] - pace.kept_tokens) * frozen_bytes)
    size = sum(
        p.numel() * p.element_size() for p in (model.trainable() if config.fit == "lora" else _all(model)).values()
    )
    notes = [
        f"Tried out on this machine: {pace.tried} steps with up to {pace.longest:,} tokens, and some scoring.",
        "A usual round keeps a fifth of the pool at first and a third in the end; at most, all of it. The control trains "
        "for as many steps as the model.",
    ]
    if min(sample.seed_share, sample.pool_share) < 1:
        notes.append(f"Text lengths are those of {len(table):,} of {n_texts:,} texts.")
    on_gpu = model.device == "cuda"
    return Measured(
        fit=config.fit,
        device=torch.cuda.get_device_name() if on_gpu else "cpu",
        memory=torch.cuda.get_device_properties(0).total_memory if on_gpu else this_machine().memory,
        once=PROCESS_S + first_load + tokenising + checks,
        n_new=0,
        stage=load + size / DISK_BYTES_S + score,
        seed=seed_work,
        pool=pool_work,
        end=2 * (load + checks),
        step=pace.step,
        tokens_per_second=1 / pace.per_token,
        peak_memory=peak,
        notes=tuple(notes),
    )


def _all(model: Any) -> dict[str, Any]:
    return dict(model.model.named_parameters())


def _tried(plan: list[np.ndarray], cost: list[int]) -> list[np.ndarray]:
    """The heaviest steps, then as many from the middle; the first also warms up."""
    order = np.argsort(cost, kind="stable")
    middle = max(0, len(order) // 2 - USUAL // 2)
    return [plan[place] for place in (*order[::-1][:HEAVY], *order[middle : middle + USUAL])]


@dataclass(frozen=True)
class Pace:
    per_token: float  # seconds a token read in a usual step
    step: float  # seconds of a usual step
    frozen: float  # seconds a token through the frozen layers, once; 0: none are kept
    kept_tokens: float  # whose output was kept meanwhile
    tried: int  # steps
    longest: int  # tokens of the heaviest


def _steps(model: Any, table: Any, joined: Examples, recipe: Recipe, tried: list[np.ndarray], tell: Tell) -> Pace:
    """Train the throw-away model for a few steps. The recipe's own plan is not needed: these steps are one."""
    pairs = np.concatenate(tried)
    mine = Examples.of(joined.preferred[pairs], joined.other[pairs])
    ends = np.cumsum([len(step) for step in tried])
    plan = [np.arange(end - len(step), end) for end, step in zip(ends, tried, strict=True)]
    started = time.perf_counter()
    telling = fine_tune(model, table, mine, recipe, steps=plan)
    trained = next(telling)
    opening = time.perf_counter() - started
    for trained in telling:
        tell("measuring", "")
        if time.perf_counter() - started > STEPS_S and trained.done > 1:
            break
    telling.close()
    curve = trained.curve
    usual = curve[HEAVY:] or curve[1:] or curve
    tokens = int(table.lengths[texts_of(mine, np.arange(len(mine)))].sum())
    return Pace(
        per_token=float(np.median([step.seconds / step.n_tokens for step in usual])),
        step=float(np.median([step.seconds for step in usual])),
        frozen=opening / tokens if recipe.frozen_layers and not recipe.dropout else 0.0,
        kept_tokens=tokens,
        tried=len(curve),
        longest=max(step.n_tokens for step in curve),
    )


def _scoring(model: Any, table: Any, train_per_token: float, seed: int) -> float:
    """Seconds a token."""
    room = max(2_048, int(SCORING_S / max(1e-9, train_per_token / 3)))  # a step costs three times the reading
    order = np.random.default_rng(seed).permutation(len(table))
    rows = order[: max(1, int(np.searchsorted(np.cumsum(table.lengths[order]), room)))]
    started = time.perf_counter()
    for _ in model.rewards(table, rows):
        pass
    return (time.perf_counter() - started) / int(table.lengths[rows].sum())
