"""The order of the review desk's random queues: by a hash of pair and run, so that any beginning of it is a uniform sample.

Knows no queues. Hashing a million pair ids takes seconds, so the order of a whole pool is kept beside the run.
"""

import hashlib
from contextlib import suppress

import numpy as np
from safetensors import SafetensorError

from ser_backend.errors import SerError
from ser_backend.pairs import PairSet
from ser_backend.run_folder import RunFolder

NAME = "hash_order"  # of the file in the run's folder
WORTH_KEEPING = 20_000  # pairs; fewer are hashed in less time than a file is written
BLOCK = 65_536  # ids that are Python objects at a time


def by_hash(rows: np.ndarray, keys: np.ndarray, run_id: str) -> np.ndarray:
    """Rows in an order that depends on nothing but the pair ids and the run. keys: S32, one per row of the set."""
    end, hashed = run_id.encode(), hashlib.blake2b
    digests = np.empty(len(rows), np.uint64)
    for begin in range(0, len(rows), BLOCK):
        ids = keys[rows[begin : begin + BLOCK]].tolist()
        joined = b"".join([hashed(pair + end, digest_size=8).digest() for pair in ids])
        digests[begin : begin + BLOCK] = np.frombuffer(joined, ">u8")
    return rows[np.argsort(digests, kind="stable")]


def of_pool(folder: RunFolder, pool: PairSet, run_id: str) -> np.ndarray:
    """int32 (n_pool,): all rows of the pool in that order; those of some rows, as they stand in it, are in by_hash's order."""
    if folder.has(NAME):
        with suppress(SafetensorError, SerError):
            kept = folder.arrays(NAME, "rows")["rows"]
            if len(kept) == pool.n_pairs:
                return kept
    found = by_hash(np.arange(pool.n_pairs, dtype=np.int32), pool.pair_keys, run_id)
    if len(found) >= WORTH_KEEPING:
        with suppress(OSError, SerError):  # without it the next one to ask waits, too; nothing else is lost
            folder.write_arrays(NAME, {"rows": found})
    return found
