"""Self-evolved reward learning as a generator of facts: what is done is told, what is told is past.

Knows no database, no page and no process: it reads pair sets, writes a run folder, yields `Told`. Closing the generator
stops it; what a finished round left on disk is where the next call goes on.

Every round trains, side by side: the model; the control (same human labels, no self-labels); and one
model and control per fold for cross-fitting (gate.py). All are rows ("arms") of the same arrays; arm 0 is the model itself.
"""

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from ser_backend import features, gate, metrics, self_label, training
from ser_backend.config import RunConfig
from ser_backend.errors import SerError
from ser_backend.records import Preferred, Round
from ser_backend.run_data import RunData
from ser_backend.run_folder import RunFolder

SIGN = {"a": 1, "b": -1, "tie": 2}
TIE = 2
PICTURE_POINTS = 2_000
PICTURE_BINS = 60

HumanLabels = Callable[[], Mapping[str, Preferred]]  # reviewed pool pairs: pair id -> what the person said


class Told(NamedTuple):
    kind: str
    round: int | None
    payload: dict[str, Any]
    finished: Round | None = None  # with kind "round_finished"


@dataclass(frozen=True)
class Arms:
    """The state between rounds. Shapes: weights, control (1 + folds, k); kept_round, preferred (1 + folds, n_pool)."""

    weights: np.ndarray
    control: np.ndarray
    kept_round: np.ndarray  # int16: the round that kept the self-label, 0 = none
    preferred: np.ndarray  # int8: the kept self-label, +1 a, -1 b
    human: np.ndarray  # int8 (n_pool,): reviewed +1 a, -1 b, 2 tie, 0 not reviewed
    model_round: int  # the round that trained these weights
    l2: float  # chosen by cross-validation on the human labels

    def arrays(self) -> dict[str, np.ndarray]:
        return {
            "weights": self.weights,
            "control": self.control,
            "kept_round": self.kept_round,
            "preferred": self.preferred,
            "human": self.human,
            "model_round": np.array([self.model_round]),
            "l2": np.array([self.l2]),
        }


@dataclass(frozen=True)
class Human:
    """Labels people gave, as differences z_preferred - z_other (n, k), with what judges and splits them."""

    differences: np.ndarray
    folds: np.ndarray  # (n,)
    groups: np.ndarray  # (n,)
    n_reviews: int


def self_evolve(
    config: RunConfig, data: RunData, folder: RunFolder, human_labels: HumanLabels, n_rounds: int
) -> Iterator[Told]:
    """Run until `n_rounds` rounds after round 0 are finished in all, or a reason to stop is met.

    Resumes after the last finished round in `folder`. Ends with Told("run_finished", payload stopped_because, best_round).
    Raises SerError when something the user can change is in the way.
    """
    yield Told("data_prepared", None, {"counts": data.counts, "notes": list(data.notes)})
    work = yield from _Work.make(config, data, folder)
    done = folder.finished()
    if not done:
        yield from _told_round(0)
        arms, facts, arrays = work.seed_round(human_labels())
        folder.write_round(facts, arrays, None)
        yield Told("round_finished", 0, {}, facts)
        done = [0]
    else:
        arms = work.restore(done[-1])
        yield Told("run_resumed", done[-1], {"message": f"Going on after round {done[-1]}."})
    reason = f"All {n_rounds} rounds are done."
    for index in range(done[-1] + 1, n_rounds + 1):
        yield from _told_round(index)
        started = time.perf_counter()
        human = human_labels()
        result = work.round(index, arms, human)
        if isinstance(result, str):
            reason = result
            break
        arms, facts, arrays, picture, last_words = result
        facts = replace(facts, seconds=time.perf_counter() - started)
        folder.write_round(facts, arrays, picture)
        yield Told("round_finished", index, {}, facts)
        if last_words:
            reason = last_words
            break
    yield Told("run_finished", None, {"stopped_because": reason, "best_round": arms.model_round})


def _told_round(index: int) -> Iterator[Told]:
    yield Told("round_started", index, {})


class _Work:
    """What stays the same during a run: projected features, rows, labels of the seed and of the held-out pairs."""

    def __init__(self, config: RunConfig, data: RunData, folder: RunFolder, projected: np.ndarray) -> None:
        self.config, self.data, self.folder, self.z = config, data, folder, projected
        self.pool_a, self.pool_b = data.ends("pool")
        a, b = data.ends("seed")
        rows = data.seed_rows
        sign = data.seed.preferred()[rows].astype(np.float32)
        self.seed_differences = (projected[a[rows]] - projected[b[rows]]) * sign[:, None]
        self.seed_groups = data.seed.group_keys[rows]
        a, b = data.ends("heldout")
        rows = data.heldout_rows
        self.heldout_differences = projected[a[rows]] - projected[b[rows]]
        self.heldout_preferred = data.heldout.preferred()[rows]
        self.heldout_groups = data.heldout.group_keys[rows]

    @classmethod
    def make(cls, config: RunConfig, data: RunData, folder: RunFolder) -> Generator[Told, None, "_Work"]:
        """Encode what is not in the cache, find the basis (once a run), project. Yields progress."""
        backbone = features.Backbone.load(config.base_model, config.max_length, config.threads)
        keys = data.response_keys.tolist()
        started, computed = time.perf_counter(), 0
        cache = None
        for step in features.fill_cache(backbone, keys, data.responses):
            cache, computed = step.cache, step.computed
            yield Told("encoding_progressed", None, {"done": step.done, "total": len(keys), "computed": step.computed})
        assert cache is not None
        seconds = time.perf_counter() - started
        yield Told(
            "texts_encoded",
            None,
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
        if folder.has("basis"):
            basis = training.Basis(**folder.arrays("basis"))
        else:
            yield Told("basis_started", None, {})
            basis = cls._find_basis(config, data, cache, keys)
            folder.write_arrays("basis", {"mean": basis.mean, "directions": basis.directions})
            folder.write_json(
                "encoder",
                {"base_model": backbone.name, "fingerprint": backbone.fingerprint, "max_length": backbone.max_length},
            )
        projected = np.empty((len(keys), basis.directions.shape[1]), np.float32)
        for begin in range(0, len(keys), training.CHUNK):
            part = slice(begin, begin + training.CHUNK)
            projected[part] = basis.project(cache.read(keys[part]))
            if begin:
                yield Told("features_projected", None, {"done": begin, "total": len(keys)})
        return cls(config, data, folder, projected)

    @staticmethod
    def _find_basis(config: RunConfig, data: RunData, cache: Any, keys: list[bytes]) -> training.Basis:
        """From responses of seed and pool only: held-out texts play no part."""
        mine = np.zeros(len(keys), bool)
        for which, rows in (("seed", data.seed_rows), ("pool", np.flatnonzero(data.pool_open))):
            for end in data.ends(which):
                mine[end[rows]] = True
        rows = np.flatnonzero(mine)
        if len(rows) > training.BASIS_SAMPLE:
            rows = np.sort(np.random.default_rng(config.random_seed).choice(rows, training.BASIS_SAMPLE, replace=False))
        return training.fit_basis(cache.read([keys[row] for row in rows]), config.components, config.random_seed)

    # ---- labels

    def read_human(self, labels: Mapping[str, Preferred]) -> np.ndarray:
        """int8 (n_pool,): +1 a, -1 b, 2 tie, 0 not reviewed. Answers about pairs that are not open are left out."""
        human = np.zeros(self.data.pool.n_pairs, np.int8)
        if labels:
            for row, said in zip(self.data.pool.rows_of(list(labels)), labels.values(), strict=True):
                if row is not None and self.data.pool_open[row]:
                    human[row] = SIGN[said]
        return human

    def human(self, answers: np.ndarray) -> Human:
        rows = np.flatnonzero(np.abs(answers) == 1)
        reviewed = self.pool_differences(rows) * answers[rows, None]
        groups = np.concatenate([self.seed_groups, self.data.pool.group_keys[rows]])
        return Human(np.concatenate([self.seed_differences, reviewed]), training.fold_of(groups), groups, len(rows))

    def pool_differences(self, rows: np.ndarray) -> np.ndarray:
        return self.z[self.pool_a[rows]] - self.z[self.pool_b[rows]]

    # ---- rounds

    def seed_round(self, labels: Mapping[str, Preferred]) -> tuple[Arms, Round, dict[str, np.ndarray]]:
        started = time.perf_counter()
        answers = self.read_human(labels)
        human = self.human(answers)
        choice = training.choose_l2(human.differences, human.folds)
        weights = np.stack(
            training.side_by_side(lambda arm: self._fit_human(human, arm, choice.l2), range(1 + training.N_FOLDS))
        )
        n_pool = self.data.pool.n_pairs
        arms = Arms(
            weights,
            weights.copy(),
            np.zeros((len(weights), n_pool), np.int16),
            np.zeros((len(weights), n_pool), np.int8),
            answers,
            0,
            choice.l2,
        )
        facts = Round(
            index=0,
            n_train=len(human.differences),
            n_human=len(human.differences),
            n_pool=int((self.data.pool_open & (answers == 0)).sum()),
            n_kept=0,
            n_kept_status_1=0,
            n_kept_status_2=0,
            promoted="new",
            why="the seed model: people's labels only",
            seconds=time.perf_counter() - started,
            details=self._details(human, arms, None),
            **self._measured(weights, weights, human),
        )
        return arms, facts, self._arrays(arms, weights, weights, None)

    def round(
        self, index: int, before: Arms, labels: Mapping[str, Preferred]
    ) -> tuple[Arms, Round, dict[str, np.ndarray], Any, str] | str:
        """One round; a string instead, when there is nothing to train on: the reason in words."""
        config = self.config
        answers = self.read_human(labels)
        human = self.human(answers)
        fresh = bool((answers != before.human).any())
        l2 = training.choose_l2(human.differences, human.folds).l2 if fresh else before.l2
        kept_round, preferred = before.kept_round.copy(), before.preferred.copy()
        kept_round[:, answers != 0] = 0  # a person's answer replaces a self-label

        def advance(
            arm: int,
        ) -> tuple[np.ndarray, np.ndarray, self_label.Selection, np.ndarray, np.ndarray, np.ndarray]:
            reward = self.z @ before.weights[arm].astype(np.float32)
            reward_a, reward_b = reward[self.pool_a], reward[self.pool_b]
            is_open = self.data.pool_open & (answers == 0) & (kept_round[arm] == 0)
            chosen = self_label.select(reward_a, reward_b, is_open, config)
            if chosen.enough:
                kept_round[arm, chosen.kept] = index
                preferred[arm, chosen.kept] = chosen.preferred[chosen.kept]
            elif not fresh:
                return before.weights[arm], before.control[arm], chosen, is_open, reward_a, reward_b
            new = self._fit_arm(arm, index, human, kept_round[arm], preferred[arm], before, l2)
            control = self._fit_human(human, arm, l2) if fresh else before.control[arm]
            return new, control, chosen, is_open, reward_a, reward_b

        advanced = training.side_by_side(advance, range(len(before.weights)))
        weights = np.stack([arm[0] for arm in advanced])
        control = np.stack([arm[1] for arm in advanced])
        _, _, chosen, is_open, reward_a, reward_b = advanced[0]
        if not chosen.enough and not fresh:
            return _too_few(index, chosen, is_open, config)
        new_kept = kept_round[0] == index
        verdict = self._judge(weights, before, control, human, fresh)
        candidate = weights
        if verdict.promoted == "new":
            after = Arms(weights, control, kept_round, preferred, answers, index, l2)
        elif verdict.promoted == "previous":
            after = replace(before, control=control, human=answers, l2=l2)
        else:
            none = np.zeros_like(kept_round)
            after = Arms(control.copy(), control, none, none.astype(np.int8), answers, index, l2)
        facts = Round(
            index=index,
            n_train=self._n_train(human, kept_round[0], index),
            n_human=len(human.differences) if config.train_on == "cumulative+seed" else human.n_reviews,
            n_pool=int(is_open.sum()),
            n_kept=int(new_kept.sum()),
            n_kept_status_1=int((chosen.status[new_kept] == self_label.CLEAR).sum()),
            n_kept_status_2=int((chosen.status[new_kept] == self_label.WIDE).sum()),
            promoted=verdict.promoted,
            why=verdict.why,
            seconds=0.0,
            details=self._details(human, after, chosen.stage),
            **self._measured(candidate, control, human),
        )
        arrays = self._arrays(after, candidate, control, (chosen, new_kept))
        last_words = ""
        if not chosen.enough:
            last_words = _too_few(index, chosen, is_open, config)
        elif verdict.promoted != "new":
            last_words = (
                f"Round {index} was {verdict.why}. From the same labels another round would choose the same pairs, so the "
                "run stops here. Review some pairs and retrain."
            )
        picture = self._picture(chosen, new_kept, is_open, reward_a, reward_b)
        return after, facts, arrays, picture, last_words

    def _fit_human(self, human: Human, arm: int, l2: float) -> np.ndarray:
        """Human labels only (for arm > 0 without its fold), solved to the optimum of the cross-validated l2: no number of
        further steps changes it, so this is the control for every round."""
        return training.fit_head(human.differences[human.folds != arm - 1], l2, np.zeros(self.z.shape[1]))

    def _fit_arm(
        self,
        arm: int,
        index: int,
        human: Human,
        kept_round: np.ndarray,
        preferred: np.ndarray,
        before: Arms,
        l2: float,
    ) -> np.ndarray:
        config = self.config
        rows = np.flatnonzero(kept_round == index if config.train_on == "new" else kept_round > 0)
        parts = [self.pool_differences(rows) * preferred[rows, None]]
        first = 0 if config.train_on == "cumulative+seed" else len(self.seed_differences)
        mine = human.folds[first:] != arm - 1
        parts.append(human.differences[first:][mine])
        centre = before.weights[arm] if config.init == "warm" else np.zeros(self.z.shape[1])
        return training.fit_head(np.concatenate(parts), l2, centre)

    def _n_train(self, human: Human, kept_round: np.ndarray, index: int) -> int:
        kept = kept_round == index if self.config.train_on == "new" else kept_round > 0
        humans = len(human.differences) if self.config.train_on == "cumulative+seed" else human.n_reviews
        return int(kept.sum()) + humans

    def _judge(self, weights: np.ndarray, before: Arms, control: np.ndarray, human: Human, fresh: bool) -> gate.Verdict:
        ones = np.ones(len(human.differences))
        verdict = gate.judge(
            self._crossfit(weights, human),
            self._crossfit(before.weights, human),
            self._crossfit(control, human),
            ones,
            fresh,
        )
        if self.config.gate == "off":
            return gate.Verdict("new", f"not gated; it would have been {verdict.why}")
        return verdict

    def _crossfit(self, weights: np.ndarray, human: Human) -> np.ndarray:
        """Margins (n,) of the preferred response of every human label, by the arm that never saw it."""
        return np.einsum("ij,ij->i", human.differences.astype(np.float64), weights[1 + human.folds])

    def _measured(self, weights: np.ndarray, control: np.ndarray, human: Human) -> dict[str, Any]:
        preferred = self.heldout_preferred
        new, old = self.heldout_differences @ weights[0], self.heldout_differences @ control[0]
        return {
            "heldout": metrics.accuracy(new, preferred),
            "control": metrics.accuracy(old, preferred),
            "difference": metrics.paired_difference(
                metrics.correct(new, preferred),
                metrics.correct(old, preferred),
                self.heldout_groups,
                self.config.random_seed,
            ),
            "crossfit": metrics.accuracy(self._crossfit(weights, human), np.ones(len(human.differences))),
        }

    def _details(self, human: Human, arms: Arms, stage: str | None) -> dict[str, Any]:
        reward = self.z @ arms.weights[0].astype(np.float32)
        pool = np.concatenate([reward[self.pool_a], reward[self.pool_b]])
        return {
            "l2": arms.l2,
            "n_reviews": human.n_reviews,
            "stage": stage,
            "model_round": arms.model_round,
            "reward_mean": float(pool.mean()),
            "reward_spread": float(pool.std()),
            "n_self_labels": int((arms.kept_round[0] > 0).sum()),
        }

    def _arrays(
        self,
        arms: Arms,
        candidate: np.ndarray,
        control: np.ndarray,
        selection: tuple[self_label.Selection, np.ndarray] | None,
    ) -> dict[str, np.ndarray]:
        reward = self.z @ arms.weights[0].astype(np.float32)
        arrays = arms.arrays() | {
            "reward_a": reward[self.pool_a],
            "reward_b": reward[self.pool_b],
            "heldout_margin": (self.heldout_differences @ candidate[0]).astype(np.float32),
            "heldout_margin_control": (self.heldout_differences @ control[0]).astype(np.float32),
        }
        if selection:
            chosen, kept = selection
            arrays |= {
                "new_status": chosen.status,
                "new_kept": kept,
                "new_preferred": np.where(kept, chosen.preferred, 0).astype(np.int8),
            }
        return arrays

    def _picture(
        self,
        chosen: self_label.Selection,
        kept: np.ndarray,
        is_open: np.ndarray,
        reward_a: np.ndarray,
        reward_b: np.ndarray,
    ) -> dict[str, Any]:
        """The paper's two pictures of a selection: thinned points (p_a, p_b) and histograms of p_a - p_b."""
        rows = np.flatnonzero(is_open)
        if not len(rows):
            return {"points": None, "histogram": None}
        p_a, p_b = self_label.probabilities(reward_a[rows], reward_b[rows], self.config)
        edges = np.linspace(-1, 1, PICTURE_BINS + 1)
        some = np.sort(
            np.random.default_rng(self.config.random_seed).permutation(len(rows))[:PICTURE_POINTS]
        )  # which points are drawn depends on nothing but their number
        return {
            "points": {
                "p_a": p_a[some].round(4).tolist(),
                "p_b": p_b[some].round(4).tolist(),
                "status": chosen.status[rows][some].tolist(),
                "kept": kept[rows][some].astype(int).tolist(),
                "pair": [key.decode() for key in self.data.pool.pair_keys[rows[some]]],
            },
            "histogram": {
                "edges": edges.round(4).tolist(),
                "all": np.histogram(p_a - p_b, edges)[0].tolist(),
                "kept": np.histogram((p_a - p_b)[kept[rows]], edges)[0].tolist(),
            },
            "n_open": len(rows),
            "thresholds": self.config.thresholds,
        }

    def restore(self, index: int) -> Arms:
        found = self.folder.round_arrays(
            index, "weights", "control", "kept_round", "preferred", "human", "model_round", "l2"
        )
        if found["weights"].shape[1] != self.z.shape[1] or found["human"].shape[0] != self.data.pool.n_pairs:
            raise SerError(
                "The run's folder does not fit its data sets any more (other sizes were found). Start a new run."
            )
        return Arms(
            **{name: found[name] for name in ("weights", "control", "kept_round", "preferred", "human")},
            model_round=int(found["model_round"][0]),
            l2=float(found["l2"][0]),
        )


def _too_few(index: int, chosen: self_label.Selection, is_open: np.ndarray, config: RunConfig) -> str:
    needed = max(1, int(np.ceil(config.min_kept * is_open.sum())))
    if not is_open.any():
        return f"Round {index}: no pair of the pool is left to label."
    return (
        f"Round {index}: {int(chosen.kept.sum()):,} of {int(is_open.sum()):,} open pairs passed the filter, fewer than the "
        f"{needed:,} ({config.min_kept:.1%}) it takes to go on."
    )
