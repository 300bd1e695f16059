"""python -m ser_backend.cost.estimate KEY: a dry run on a throw-away copy of the model, for what a run will cost.

Three steps on the longest texts of the run's own (the peak of memory), a few usual ones (the pace), and some scoring; for
fit=head, some texts that are not in the cache yet. What is found goes to home()/estimates/KEY.json (forecast.py). It reads
the data sets and the base model, and writes nothing of the run, nor anything into the cache.
"""

import fcntl
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from ser_backend import home, training
from ser_backend.config import RunConfig
from ser_backend.cost import forecast
from ser_backend.cost.dry_run import HEAVY, MOST_TEXTS, PROCESS_S, SCORING_S, Tell, tuned
from ser_backend.cost.forecast import Measured, Note, Work
from ser_backend.cost.machine import this_machine
from ser_backend.errors import SerError, is_out_of_memory
from ser_backend.evolution.run_data import RunData, prepare
from ser_backend.pairs import PairSet
from ser_backend.records import Status
from ser_backend.run_folder import RunFolder
from ser_backend.store import Store
from ser_backend.transformer import features

GONE_S = 120.0  # nobody has looked for so long: nobody waits
POLL_S = 0.5
FIT_SAMPLE = 2_000  # pairs of a head fitted for its pace
WAITING = "A run is training; the estimate waits for its end."

holding: set[str] = set()  # slots this process has taken


class Gone(Exception):
    """Nobody waits for this estimate any more."""


def measure(store: Store, config: RunConfig, data: RunData, tell: Tell, may_fetch: bool = True) -> Measured:
    """Raises SerError with the reason why the run could not work either."""
    if config.fit == "head" and (known := _all_cached(store, config, data)):
        return known
    if not may_fetch and not is_here(config.base_model):
        raise SerError(
            f"{config.base_model!r} is not on this machine yet, so nothing can be measured; the run fetches it first. "
            "To fetch it and measure now: python -m ser_backend estimate."
        )
    with _slot(store, tell):
        tell("measuring", "")
        try:
            return _head(config, data, tell) if config.fit == "head" else tuned(config, data, tell)
        except Exception as error:
            if isinstance(error, SerError | Gone) or not is_out_of_memory(error):
                raise
            raise SerError(
                f"The dry run ran out of memory ({this_machine()}), so the run would, too. "
                "Lower max_length or batch_size, use fit=lora, or choose a smaller base model."
            ) from error


def is_here(name: str) -> bool:
    """Whether a base model can be loaded without fetching it."""
    from huggingface_hub import try_to_load_from_cache

    if name == "bundled" or Path(name).expanduser().exists():
        return True
    try:
        return isinstance(try_to_load_from_cache(name, "config.json"), str)
    except ValueError:
        return True  # no name at all: loading it says so


@contextmanager
def _slot(store: Store, tell: Tell) -> Iterator[str]:
    """Hold a slot's file lock, as a worker does: what is timed beside a training run is worth nothing, and slows it."""
    while True:
        taken = _taken(store)
        for slot in this_machine().slots:
            with (home.home() / f"slot-{slot.replace(':', '-')}.lock").open("a") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                if slot in taken:
                    continue
                os.environ["CUDA_VISIBLE_DEVICES"] = slot.removeprefix("gpu:") if slot.startswith("gpu:") else ""
                holding.add(slot)
                try:
                    yield slot
                finally:
                    holding.discard(slot)
                return
        tell("waiting", WAITING)
        time.sleep(POLL_S)


def _taken(store: Store) -> set[str | None]:
    """Slots that jobs were given, whether or not they have begun."""
    return {job.slot for job in store.jobs(Status.RUNNING, Status.STOPPING)}


# ---- fit=head


def _all_cached(store: Store, config: RunConfig, data: RunData) -> Measured | None:
    """Without torch: an earlier run knows the cache's name, and the cache holds every text."""
    if os.path.exists(config.base_model):
        return None  # a folder's weights may have changed since
    names = set()
    for run in store.runs():
        encoder = RunFolder.of(run.id).json("encoder") or {}
        wanted = {"base_model": config.base_model, "max_length": config.max_length}
        if run.config.get("fit", "head") == "head" and encoder.items() >= wanted.items():
            names.add(encoder["fingerprint"])
    for name in sorted(names):
        if (home.cache_dir() / "features" / name).exists():
            cache = features.FeatureCache(name, 0)
            if all(key in cache for key in data.response_keys.tolist()):
                return _of_head(config, data, cache, 0, 0.0, 0)
    return None


def _head(config: RunConfig, data: RunData, tell: Tell) -> Measured:
    from ser_backend.learners.tuned import peak_memory

    started = time.perf_counter()
    backbone = features.Backbone.load(config.base_model, config.max_length, config.threads)
    load = time.perf_counter() - started
    cache = features.FeatureCache(backbone.fingerprint, backbone.width)
    missing = np.array([row for row, key in enumerate(data.response_keys.tolist()) if key not in cache], np.int64)
    if not len(missing):
        return _of_head(config, data, cache, 0, load, 0)
    random = np.random.default_rng(config.random_seed).permutation(missing)[: MOST_TEXTS // 4]
    texts = data.responses(random.tolist())
    lengths = np.array([len(ids) for ids, _ in backbone.tokenize(texts)])
    for _ in backbone.encode([texts[row] for row in np.argsort(-lengths)[:HEAVY]]):
        tell("measuring", "")
    read = seconds = 0.0
    for begin in range(0, len(texts), 64):
        started = time.perf_counter()
        for _ in backbone.encode(texts[begin : begin + 64]):
            pass
        seconds += time.perf_counter() - started
        read += lengths[begin : begin + 64].sum()
        tell("measuring", "")
        if seconds > SCORING_S:
            break
    reading = seconds / read * lengths.mean() * len(missing)
    width, n = backbone.width, min(len(data.response_keys), training.BASIS_SAMPLE)
    peak = peak_memory(backbone.device)
    if backbone.device == "cpu":
        peak += n * width * 12 + len(data.response_keys) * config.components * 8  # the basis' copies; the points
    return _of_head(config, data, cache, len(missing), load + reading, peak, read / seconds)


def _of_head(
    config: RunConfig,
    data: RunData,
    cache: features.FeatureCache,
    n_new: int,
    reading: float,
    peak: int,
    tokens_per_second: float = 0.0,
) -> Measured:
    """What is solved rather than trained takes seconds: a small fit gives the pace of all (2 cores measured)."""
    k, cores = config.components, this_machine().cores
    random = np.random.default_rng(0)
    differences = random.normal(size=(FIT_SAMPLE, k))
    differences *= np.sign(differences[:, :1] + random.normal(size=(FIT_SAMPLE, 1)))
    started = time.perf_counter()
    training.side_by_side(lambda _: training.fit_head(differences, 300.0, np.zeros(k)), [0])
    per_pair = (time.perf_counter() - started) / FIT_SAMPLE
    seed, pool = len(data.seed_rows), int(data.pool_open.sum())
    return Measured(
        fit="head",
        device="cpu",
        memory=this_machine().memory,
        once=PROCESS_S + reading + 2.0 + len(data.response_keys) * 5e-5,  # 2 s: the principal components
        n_new=n_new,
        stage=0.3,
        seed=Work(0, seed * per_pair * 20 / cores, 0),  # the choice of l2: 35 fits
        pool=Work(0, pool * per_pair * 4 / cores, 0),  # 6 arms
        end=0.0,
        step=0.0,
        tokens_per_second=tokens_per_second,
        peak_memory=peak,
        notes=("A head is solved in moments; reading texts is the work, and each is read once.",),
        cache=str(cache.folder),
        stamp=forecast.stamp_of(str(cache.folder)),
    )


# ---- asked for on the command line, and in a process of its own


def estimate(store: Store, config: RunConfig, seed: str, pool: str, heldout: str | None, tell: Tell) -> Measured:
    """Measure here and now, fetching the model if need be; kept for the page and for the run. Data set ids."""
    asked = {"config": config.as_dict(), "seed": seed, "pool": pool, "heldout": heldout}
    key = forecast.key_of(config, seed, pool, heldout, this_machine())
    with forecast.lock_of(key).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (note := forecast.read(key)).measured:
            return note.measured
        measured = measure(store, config, _data(config, asked), tell)
        forecast.write(key, Note("ready", "", asked, measured))
        return measured


def _data(config: RunConfig, asked: dict[str, Any]) -> RunData:
    heldout = PairSet.open(asked["heldout"]) if asked["heldout"] else None
    return prepare(PairSet.open(asked["seed"]), PairSet.open(asked["pool"]), heldout, config)


def main(key: str) -> int:
    with forecast.lock_of(key).open("a") as lock:
        for _ in range(5):  # whoever looks whether it is held holds it for a moment
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.2)
        else:
            return 0  # another process is at it
        asked = forecast.read(key).asked
        told: tuple[str, str] = ("", "")
        writing = threading.Lock()

        def tell(state: str, sentence: str) -> None:
            nonlocal told
            if forecast.looked_at(key) > GONE_S:
                raise Gone
            if (state, sentence) != told:
                told = (state, sentence)
                with writing:
                    forecast.write(key, Note(state, sentence, asked))  # type: ignore[arg-type]

        done = threading.Event()
        store = Store.open()

        def give_way() -> None:
            """A run was given our slot: free it at once, whatever is being computed, and begin again after that run."""
            while not done.wait(POLL_S):
                with suppress(Exception):  # a busy database: the next look tells
                    if holding & _taken(store):
                        with writing:
                            forecast.write(key, Note("waiting", WAITING, asked))
                            os.execv(sys.executable, [sys.executable, "-m", "ser_backend.cost.estimate", key])

        threading.Thread(target=give_way, daemon=True).start()
        try:
            config = RunConfig(**asked["config"])
            measured = measure(store, config, _data(config, asked), tell, may_fetch=False)
            forecast.write(key, Note("ready", "", asked, measured))
        except Gone:
            (forecast.folder() / f"{key}.json").unlink(missing_ok=True)
        except SerError as error:
            forecast.write(key, Note("failed", str(error), asked))
        except Exception as error:
            traceback.print_exc()
            forecast.write(key, Note("failed", f"The dry run failed ({type(error).__name__}: {error}).", asked))
        finally:
            done.set()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
