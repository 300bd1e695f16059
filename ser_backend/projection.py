"""The texts of a run as points: features from the cache or computed now, then principal components.

Uses no label. The components are found from texts of the seed and the pool only; held-out texts play no part.
"""

import time
from collections.abc import Generator, Sequence

import numpy as np

from ser_backend import features, training
from ser_backend.config import RunConfig
from ser_backend.errors import SerError
from ser_backend.run_data import RunData
from ser_backend.run_folder import RunFolder

Progress = tuple[str, dict]  # kind and payload of what is told


def project(config: RunConfig, data: RunData, folder: RunFolder) -> Generator[Progress, None, np.ndarray]:
    """Yield progress; return z, float32 (n responses, k), in the order of data.response_keys."""
    backbone = features.Backbone.load(config.base_model, config.max_length, config.threads)
    keys = data.response_keys.tolist()
    started, computed = time.perf_counter(), 0
    cache = None
    for step in features.fill_cache(backbone, keys, data.responses):
        cache, computed = step.cache, step.computed
        yield ("encoding_progressed", {"done": step.done, "total": len(keys), "computed": step.computed})
    assert cache is not None
    seconds = time.perf_counter() - started
    yield (
        "texts_encoded",
        {
            "responses": len(keys),
            "computed": computed,
            "seconds": round(seconds, 2),
            "prompts_cut": backbone.cuts.prompts,
            "responses_cut": backbone.cuts.responses,
            "base_model": backbone.name,
            "fingerprint": backbone.fingerprint,
            "max_length": backbone.max_length,
            "device": backbone.device,
        },
    )
    encoder = {"base_model": backbone.name, "fingerprint": backbone.fingerprint, "max_length": backbone.max_length}
    if folder.has("basis"):
        if folder.json("encoder") != encoder:
            raise SerError(
                f"The base model {backbone.name!r} is not the one this run began with (its weights, tokeniser or length "
                "changed). Start a new run, or put the old model back."
            )
        basis = training.Basis(**folder.arrays("basis"))
    else:
        yield ("basis_started", {})
        basis = _find_basis(config, data, cache, keys)
        folder.write_json("encoder", encoder)  # before the basis: the basis is the sign that both are there
        folder.write_arrays("basis", {"mean": basis.mean, "directions": basis.directions})
    projected = np.empty((len(keys), basis.directions.shape[1]), np.float32)
    for begin in range(0, len(keys), training.CHUNK):
        part = slice(begin, begin + training.CHUNK)
        projected[part] = basis.project(cache.read(keys[part]))
        if begin:
            yield ("features_projected", {"done": begin, "total": len(keys)})
    return projected


def _find_basis(
    config: RunConfig, data: RunData, cache: features.FeatureCache, keys: Sequence[bytes]
) -> training.Basis:
    mine = np.zeros(len(keys), bool)
    for which, rows in (("seed", data.seed_rows), ("pool", np.flatnonzero(data.pool_open))):
        for end in data.ends(which):
            mine[end[rows]] = True
    rows = np.flatnonzero(mine)
    if len(rows) > training.BASIS_SAMPLE:
        rows = np.sort(np.random.default_rng(config.random_seed).choice(rows, training.BASIS_SAMPLE, replace=False))
    return training.fit_basis(cache.read([keys[row] for row in rows.tolist()]), config.components, config.random_seed)
