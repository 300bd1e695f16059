"""A transformer fine-tuned in every round (fit=lora, fit=full), and a control that takes exactly as many steps.

One arm: fitting a model per fold would cost five times as much. With the gate on it leaves the first fold of the human
labels (a fifth of their prompt groups) out of training, and those judge it. init=warm goes on from the last model (and the
control from the last control), init=fresh begins at the base model again.

On disk, below the run's folder: texts.safetensors (token ids), models/NNN-student and -control (what Classifier.save
writes, rewards.npy of all texts, stage.json), models/unfinished (a checkpoint). A stage that was cut off goes on where it
was; one that is finished is not done again.
"""

import hashlib
import json
import resource
import shutil
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ser_backend import home
from ser_backend.config import RunConfig
from ser_backend.errors import SerError
from ser_backend.evolution.run_data import RunData
from ser_backend.health.model_checks import examine_model, examine_saved
from ser_backend.health.pair_checks import examine_pairs
from ser_backend.learners import Labels, Progress
from ser_backend.learners.examination import accuracy_checks, sample, write_down
from ser_backend.run_folder import RunFolder
from ser_backend.transformer.classifier import Classifier
from ser_backend.transformer.fine_tune import fine_tune
from ser_backend.transformer.plan import Examples, Recipe, plan_steps
from ser_backend.transformer.tokens import Cuts, TokenTable

TEXTS_AT_ONCE = 4_096  # read and tokenised
CURVE_POINTS = 100  # of a stage's loss, kept with its round
RECENT = 20  # steps whose mean loss and accuracy are told


@dataclass(frozen=True)
class TunedModel:
    """A finished stage: a saved model and its rewards."""

    name: str  # of its folder below models/
    reward: np.ndarray  # float32, one per text
    stage: dict[str, Any]

    def rewards(self, arm: int) -> np.ndarray:
        return self.reward

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        return {name: np.frombuffer(self.name.encode(), np.uint8)}

    def facts(self) -> dict[str, Any]:
        shown = ("steps", "train_seconds", "score_seconds", "peak_memory", "loss", "train_accuracy")
        return {"model_folder": f"models/{self.name}", **{key: self.stage[key] for key in shown}}


class TunedLearner:
    def __init__(self, config: RunConfig, data: RunData, folder: RunFolder) -> None:
        self.config, self.data, self.folder = config, data, folder
        self.folds: tuple[int, ...] = (0 if config.gate == "on" else -1,)
        self.recipe = recipe_of(config)
        self.models = folder.path / "models"

    # ---- texts

    def prepare(self) -> Generator[Progress, None, None]:
        model = base_of(self.config)
        fingerprint = model.fingerprint
        before = self.folder.json("encoder")
        if before and before["fingerprint"] != fingerprint:
            raise SerError(
                f"The base model {self.config.base_model!r} is not the one this run began with (its weights, tokeniser or "
                "length changed). Start a new run, or put the old model back."
            )
        if before and self.folder.has("texts"):
            found = self.folder.arrays("texts")
            cuts = Cuts(before["prompts_cut"], before["responses_cut"])
            self.table = TokenTable(found["ids"], found["starts"], found["begins"], cuts)
        else:
            yield from self._read_texts(model, fingerprint)
        self.fingerprint = fingerprint
        a, b = (end[self.data.seed_rows] for end in self.data.ends("seed"))
        a_wins = self.data.seed.preferred()[self.data.seed_rows] > 0
        checks = examine_model(model, sample(self.data), trained=not model.new_head)
        checks += examine_pairs(model, self.table, np.where(a_wins, a, b), np.where(a_wins, b, a))
        yield ("model_examined", write_down(self.folder, "before", checks))
        self.base: Classifier | None = model  # as it was loaded, for the first that needs it

    def _read_texts(self, model: Classifier, fingerprint: str) -> Generator[Progress, None, None]:
        n, started = len(self.data.response_keys), time.perf_counter()
        parts = []
        for begin in range(0, n, TEXTS_AT_ONCE):
            rows = range(begin, min(n, begin + TEXTS_AT_ONCE))
            parts.append(model.tokenise(self.data.responses(rows)))
            yield ("tokenising_progressed", {"done": rows.stop, "total": n})
        self.table = TokenTable.joined(parts)
        encoder = {
            "base_model": model.name,
            "fingerprint": fingerprint,
            "max_length": model.max_length,
            "precision": model.precision,
            "prompts_cut": self.table.cuts.prompts,
            "responses_cut": self.table.cuts.responses,
        }
        self.folder.write_arrays(
            "texts", {"ids": self.table.ids, "starts": self.table.starts, "begins": self.table.begins}
        )
        self.folder.write_json("encoder", encoder)
        facts = {
            "responses": n,
            "computed": n,
            "seconds": round(time.perf_counter() - started, 2),
            "tokens": int(self.table.starts[-1]),
            "device": model.device,
            "notes": model.notes,
        }
        yield ("texts_encoded", encoder | facts)

    # ---- the learner's face

    def seed(self, human: Labels, folds: np.ndarray) -> Generator[Progress, None, TunedModel]:
        return self._stage(0, "student", None, self._without_judges(human, folds), None)

    def student(
        self, index: int, start: Any, labels: Sequence[Labels | None], human: Labels, folds: np.ndarray, fresh: bool
    ) -> Generator[Progress, None, TunedModel]:
        (mine,) = labels
        if mine is None or not len(mine):
            raise SerError(f"Round {index} has nothing to train on. Review some pairs, or lower the thresholds.")
        return self._stage(index, "student", start if self.config.init == "warm" else None, mine, None)

    def control(
        self, index: int, before: Any, student: Any, human: Labels, folds: np.ndarray, fresh: bool
    ) -> Generator[Progress, None, TunedModel]:
        start = before if self.config.init == "warm" else None
        return self._stage(index, "control", start, self._without_judges(human, folds), student.stage["steps"])

    def curve(self, model: Any, human: Labels, groups: np.ndarray, folds: np.ndarray) -> dict[str, Any] | None:
        return None  # a dozen trainings

    def model(self, arrays: Mapping[str, np.ndarray], name: str) -> TunedModel:
        found = arrays[name].tobytes().decode()
        try:
            stage = json.loads((self.models / found / "stage.json").read_text())
            rewards = np.load(self.models / found / "rewards.npy", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise SerError(
                f"The model {found} of this run is missing or damaged ({error}). Start a new run, or put its folder back."
            ) from None
        return TunedModel(found, rewards, stage)

    def forget(self, keep: Sequence[Any]) -> None:
        names = {model.name for model in keep}
        for path in self.models.iterdir():
            if path.name not in names:
                shutil.rmtree(path, ignore_errors=True)

    def examine(self, model: Any) -> Generator[Progress, None, None]:
        path = self.models / model.name
        opened, texts = self._opened(path), sample(self.data)
        checks = examine_model(opened, texts, trained=True) + examine_saved(opened, path, texts)
        yield (
            "model_examined",
            write_down(self.folder, "after", checks + accuracy_checks(self.data, model.rewards(0))),
        )

    # ---- one stage: train, save, reward every text

    def _without_judges(self, human: Labels, folds: np.ndarray) -> Labels:
        mine = human.where(folds != self.folds[0])
        if not len(mine):
            raise SerError(
                "All human labels belong to prompt groups that are kept apart to judge the rounds, so none is left to train "
                "on. Label more prompts, or set gate=off."
            )
        return mine

    def _stage(
        self, index: int, who: str, start: TunedModel | None, labels: Labels, steps: int | None
    ) -> Generator[Progress, None, TunedModel]:
        examples = Examples.of(labels.preferred, labels.other, labels.weight)
        plan = plan_steps(examples, self.recipe, steps)
        name = f"{index:03d}-{who}"
        key = self._key(start, examples, plan)
        path = self.models / name
        done = _read_stage(path)
        telling = {"of": "control" if who == "control" else "model"}
        if done.get("key") != key:
            model = self._started(start)
            trained = None
            training = fine_tune(
                model, self.table, examples, self.recipe, steps=plan, checkpoint=self.models / "unfinished"
            )
            for trained in training:
                recent = trained.curve[-RECENT:]
                figures = {}
                if recent:
                    pairs = sum(step.n_pairs for step in recent)
                    figures = {
                        "loss": sum(step.loss * step.n_pairs for step in recent) / pairs,
                        "accuracy": sum(step.accuracy * step.n_pairs for step in recent) / pairs,
                        "pairs_per_second": pairs / max(1e-9, sum(step.seconds for step in recent)),
                    }
                yield ("training_progressed", telling | {"done": trained.done, "total": trained.total} | figures)
            assert trained is not None
            done = {
                "key": key,
                "steps": len(plan),
                "loss": _thinned([step.loss for step in trained.curve]),
                "train_seconds": round(trained.seconds, 3),
                "notes": trained.notes,
            }
            with home.atomic_folder(path) as temporary:
                model.save(temporary)
                (temporary / "stage.json").write_text(json.dumps(done))
            shutil.rmtree(self.models / "unfinished", ignore_errors=True)
        elif not (path / "rewards.npy").exists():
            model = self._opened(path)
        if not (path / "rewards.npy").exists():
            yield from self._reward(model, path, done, telling, labels)
            done = _read_stage(path)
        rewards = np.load(path / "rewards.npy", allow_pickle=False)
        return TunedModel(name, rewards, done)

    def _reward(
        self, model: Classifier, path: Path, done: dict[str, Any], telling: dict[str, Any], labels: Labels
    ) -> Generator[Progress, None, None]:
        started = time.perf_counter()
        rewards = np.empty(len(self.table), np.float32)
        n = 0
        for rows, found in model.rewards(self.table):
            rewards[rows] = found
            n += len(rows)
            yield ("scoring_progressed", telling | {"done": n, "total": len(rewards)})
        margins = labels.margins(rewards)
        done |= {
            "score_seconds": round(time.perf_counter() - started, 3),
            "peak_memory": peak_memory(model.device),
            "train_accuracy": float(((margins > 0) + 0.5 * (margins == 0)).mean()),
        }
        with home.atomic_file(path / "stage.json") as temporary:
            temporary.write_text(json.dumps(done))
        with home.atomic_file(path / "rewards.npy") as temporary, temporary.open("wb") as file:
            np.save(file, rewards)  # last: the sign that the stage is finished

    def _key(self, start: TunedModel | None, examples: Examples, plan: list[np.ndarray]) -> str:
        """Names all that the stage's outcome depends on."""
        found = hashlib.blake2b(digest_size=16)
        before = start.stage["key"] if start else self.fingerprint
        found.update(json.dumps([before, self.config.fit, self.config.precision, asdict(self.recipe)]).encode())
        for array in (examples.preferred, examples.other, examples.weight, *plan):
            found.update(array.tobytes())
        return found.hexdigest()

    def _started(self, start: TunedModel | None) -> Classifier:
        found, self.base = self.base, None
        if start:
            return self._opened(self.models / start.name)
        return found or base_of(self.config)

    def _opened(self, path: Path) -> Classifier:
        return Classifier.open(path, precision=self.config.precision, threads=self.config.threads, trainable=True)


def base_of(config: RunConfig) -> Classifier:
    """The base model as a run begins with it. Raises SerError."""
    return Classifier.load(
        config.base_model,
        max_length=config.max_length,
        fit="lora" if config.fit == "lora" else "full",
        lora_rank=config.lora_rank,
        lora_dropout=config.dropout,
        precision=config.precision,
        threads=config.threads,
        random_seed=config.random_seed,
    )


def recipe_of(config: RunConfig) -> Recipe:
    return Recipe(
        learning_rate=config.learning_rate,
        epochs=config.epochs,
        batch_size=config.batch_size,
        smoothing=config.smoothing,
        centring=config.centring,
        dropout=config.dropout,
        frozen_layers=config.frozen_layers,
        random_seed=config.random_seed,
    )


def peak_memory(device: str) -> int:
    """Bytes: the most this process (on CPU) or its tensors on the GPU have held so far."""
    if device == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated())
    unit = 1 if sys.platform == "darwin" else 1_024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _thinned(curve: list[float]) -> list[float]:
    """Means of at most CURVE_POINTS equal stretches."""
    parts = np.array_split(np.array(curve), min(len(curve), CURVE_POINTS)) if curve else []
    return [round(float(part.mean()), 5) for part in parts]


def _read_stage(path: Path) -> dict[str, Any]:
    try:
        return json.loads((path / "stage.json").read_text())
    except (OSError, ValueError):
        return {}
