"""One round: reward the pool, keep what passes, train, measure, and decide which model holds from here on.

Every round trains, side by side: the model; the control (same human labels, no self-labels); and one model and control per
fold for cross-fitting (gate.py). They are rows ("arms") of the same arrays; arm 0 is the model itself. Two sets of arms go
from round to round: the chain, which each round continues, and the force, the newest that the gate let pass. They are the
same while every round holds up.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ser_backend import gate, metrics, self_label, training
from ser_backend.config import RunConfig
from ser_backend.errors import SerError
from ser_backend.records import Preferred, Round
from ser_backend.run_data import RunData
from ser_backend.run_folder import RunFolder

SIGN = {"a": 1, "b": -1, "tie": 2}
MOST_FAILED = 2  # rounds in a row that the gate may roll back before the run ends
PICTURE_POINTS = 2_000
PICTURE_BINS = 60


@dataclass(frozen=True)
class Arms:
    """Shapes: weights (1 + folds, k) float64; kept_round, preferred (1 + folds, n_pool)."""

    weights: np.ndarray
    kept_round: np.ndarray  # int16: the round that kept the self-label, 0 = none
    preferred: np.ndarray  # int8: the kept self-label, +1 a, -1 b
    round: int  # that trained these weights
    is_control: bool = False

    def without(self, answered: np.ndarray) -> "Arms":
        """A person's answer replaces a self-label. answered: bool (n_pool,)."""
        return replace(self, kept_round=np.where(answered, np.int16(0), self.kept_round))

    def arrays(self, prefix: str) -> dict[str, np.ndarray]:
        return {
            f"{prefix}weights": self.weights,
            f"{prefix}kept_round": self.kept_round,
            f"{prefix}preferred": self.preferred,
            f"{prefix}made_in": np.array([self.round, self.is_control]),
        }

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray], prefix: str) -> "Arms":
        made_in, is_control = arrays[f"{prefix}made_in"].tolist()
        weights, kept_round, preferred = (arrays[prefix + name] for name in ("weights", "kept_round", "preferred"))
        return cls(weights, kept_round, preferred, made_in, bool(is_control))


@dataclass(frozen=True)
class State:
    """What one round hands to the next."""

    chain: Arms
    force: Arms
    control: np.ndarray  # (1 + folds, k)
    human: np.ndarray  # int8 (n_pool,): reviewed +1 a, -1 b, 2 tie, 0 not reviewed
    l2: float  # chosen by cross-validation on the human labels
    failed: int  # rounds in a row that were rolled back
    last_words: str = ""  # why the run ends here unless people give new answers; "" when it goes on

    def arrays(self) -> dict[str, np.ndarray]:
        numbers = {
            "l2": np.array([self.l2]),
            "failed": np.array([self.failed]),
            "last_words": np.frombuffer(self.last_words.encode(), np.uint8),
        }
        return (
            self.force.arrays("")
            | self.chain.arrays("chain_")
            | {"control": self.control, "human": self.human}
            | numbers
        )


@dataclass(frozen=True)
class Played:
    state: State
    facts: Round
    arrays: dict[str, np.ndarray]
    picture: dict[str, Any] | None


@dataclass(frozen=True)
class Human:
    """Labels people gave, as differences z_preferred - z_other (n, k), and the fold that holds each out (n,)."""

    differences: np.ndarray
    folds: np.ndarray
    n_reviews: int


@dataclass(frozen=True)
class _Step:
    """What one arm did in a round."""

    weights: np.ndarray
    control: np.ndarray
    chosen: self_label.Selection
    is_open: np.ndarray
    reward_a: np.ndarray
    reward_b: np.ndarray


class Rounds:
    """What stays the same during a run: the projected texts z (n responses, k), rows, labels of seed and held-out pairs."""

    def __init__(self, config: RunConfig, data: RunData, z: np.ndarray) -> None:
        self.config, self.data, self.z = config, data, z
        self.pool_a, self.pool_b = data.ends("pool")
        a, b = data.ends("seed")
        rows = data.seed_rows
        sign = data.seed.preferred()[rows].astype(np.float32)
        self.seed_differences = (z[a[rows]] - z[b[rows]]) * sign[:, None]
        self.seed_groups = data.seed.group_keys[rows]
        a, b = data.ends("heldout")
        rows = data.heldout_rows
        self.heldout_differences = z[a[rows]] - z[b[rows]]
        self.heldout_preferred = data.heldout.preferred()[rows]
        self.heldout_groups = data.heldout.group_keys[rows]

    def play_seed(self, labels: Mapping[str, Preferred]) -> Played:
        """Round 0: people's labels only."""
        answers = self.read_human(labels)
        human = self._human(answers)
        l2 = training.choose_l2(human.differences, human.folds).l2
        arms = range(1 + training.N_FOLDS)
        weights = np.stack(training.side_by_side(lambda arm: self._fit_human(human, arm, l2), arms))
        nothing = np.zeros((len(weights), self.data.pool.n_pairs), np.int16)
        seed = Arms(weights, nothing, nothing.astype(np.int8), 0)
        state = State(seed, seed, weights, answers, l2, 0)
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
            seconds=0.0,
            details=self._details(state, human, ""),
            **self._measured(weights, weights, human),
        )
        return Played(state, facts, self._arrays(state, weights), None)

    def play(self, index: int, before: State, labels: Mapping[str, Preferred]) -> Played | str:
        """One round; a sentence instead, when there is nothing to train on."""
        answers = self.read_human(labels)
        human = self._human(answers)
        fresh = bool((answers != before.human).any())
        l2 = training.choose_l2(human.differences, human.folds).l2 if fresh else before.l2
        # New answers after a rolled-back round: start again from the model that holds.
        chain = (before.force if fresh and before.failed else before.chain).without(answers != 0)
        kept_round, preferred = chain.kept_round.copy(), chain.preferred.copy()

        def step(arm: int) -> _Step:
            reward = self.z @ chain.weights[arm].astype(np.float32)
            reward_a, reward_b = reward[self.pool_a], reward[self.pool_b]
            is_open = self.data.pool_open & (answers == 0) & (kept_round[arm] == 0)
            chosen = self_label.select(reward_a, reward_b, is_open, self.config)
            new, control = chain.weights[arm], before.control[arm]
            if chosen.enough:
                kept_round[arm, chosen.kept] = index
                preferred[arm, chosen.kept] = chosen.preferred[chosen.kept]
            if chosen.enough or fresh:
                differences = self._training_pairs(arm, index, human, kept_round[arm], preferred[arm])
                centre = new if self.config.init == "warm" else np.zeros(self.z.shape[1])
                if len(differences):
                    new = training.fit_head(differences, l2, centre)
            if fresh:
                control = self._fit_human(human, arm, l2)
            return _Step(new, control, chosen, is_open, reward_a, reward_b)

        steps = training.side_by_side(step, range(len(chain.weights)))
        mine = steps[0]
        if not mine.chosen.enough and not fresh:
            return self._too_few(index, mine)
        made = Arms(np.stack([s.weights for s in steps]), kept_round, preferred, index)
        control = np.stack([s.control for s in steps])
        held = before.force.without(answers != 0)
        verdict = self._judge(made, held, control, human, fresh)
        if verdict.promoted == "new":
            force = made
        elif verdict.promoted == "previous":
            force = held
        else:
            none = np.zeros_like(kept_round)
            force = Arms(control, none, none.astype(np.int8), index, is_control=True)
        failed = 0 if verdict.promoted == "new" else before.failed * (not fresh) + 1
        last_words = ""
        if not mine.chosen.enough:
            last_words = self._too_few(index, mine)
        elif failed >= MOST_FAILED:
            last_words = (
                f"{failed} rounds in a row did worse on people's labels and were rolled back. Review some pairs, then retrain. "
                f"(Round {index}: {verdict.why.removeprefix('rolled back: ')}.)"
            )
        state = State(made, force, control, answers, l2, failed, last_words)
        new_kept = kept_round[0] == index
        facts = Round(
            index=index,
            n_train=len(self._training_pairs(0, index, human, kept_round[0], preferred[0])),
            n_human=len(human.differences) - self._first_human(),
            n_pool=int(mine.is_open.sum()),
            n_kept=int(new_kept.sum()),
            n_kept_status_1=int((mine.chosen.status[new_kept] == self_label.CLEAR).sum()),
            n_kept_status_2=int((mine.chosen.status[new_kept] == self_label.WIDE).sum()),
            promoted=verdict.promoted,
            why=verdict.why,
            seconds=0.0,
            details=self._details(state, human, mine.chosen.stage),
            **self._measured(made.weights, control, human),
        )
        arrays = self._arrays(state, made.weights) | {
            "new_status": mine.chosen.status,
            "new_kept": new_kept,
            "new_preferred": np.where(new_kept, mine.chosen.preferred, 0).astype(np.int8),
        }
        return Played(state, facts, arrays, self._picture(mine, new_kept))

    # ---- labels and fits

    def read_human(self, labels: Mapping[str, Preferred]) -> np.ndarray:
        """int8 (n_pool,): +1 a, -1 b, 2 tie, 0 not reviewed. Answers about pairs that are not open are left out."""
        human = np.zeros(self.data.pool.n_pairs, np.int8)
        if labels:
            for row, said in zip(self.data.pool.rows_of(list(labels)), labels.values(), strict=True):
                if row is not None and self.data.pool_open[row]:
                    human[row] = SIGN[said]
        return human

    def _human(self, answers: np.ndarray) -> Human:
        rows = np.flatnonzero(np.abs(answers) == 1)
        reviewed = self._pool_differences(rows) * answers[rows, None]
        folds = training.fold_of(np.concatenate([self.seed_groups, self.data.pool.group_keys[rows]]))
        return Human(np.concatenate([self.seed_differences, reviewed]), folds, len(rows))

    def _pool_differences(self, rows: np.ndarray) -> np.ndarray:
        return self.z[self.pool_a[rows]] - self.z[self.pool_b[rows]]

    def _first_human(self) -> int:
        """Reviews come after the seed; only "cumulative+seed" trains on the seed again."""
        return 0 if self.config.train_on == "cumulative+seed" else len(self.seed_differences)

    def _training_pairs(
        self, arm: int, index: int, human: Human, kept_round: np.ndarray, preferred: np.ndarray
    ) -> np.ndarray:
        """Differences (n, k) that an arm trains on: its self-labels, then human labels without its fold."""
        rows = np.flatnonzero(kept_round == index if self.config.train_on == "new" else kept_round > 0)
        first = self._first_human()
        mine = human.folds[first:] != arm - 1
        return np.concatenate([self._pool_differences(rows) * preferred[rows, None], human.differences[first:][mine]])

    def _fit_human(self, human: Human, arm: int, l2: float) -> np.ndarray:
        """Human labels only (for arm > 0 without its fold), solved to the optimum of the cross-validated l2: no number of
        further steps changes it, so this is the control for every round."""
        return training.fit_head(human.differences[human.folds != arm - 1], l2, np.zeros(self.z.shape[1]))

    # ---- judging and measuring

    def _judge(self, made: Arms, held: Arms, control: np.ndarray, human: Human, fresh: bool) -> gate.Verdict:
        new, previous, alone = (self._crossfit(weights, human) for weights in (made.weights, held.weights, control))
        verdict = gate.judge(new, previous, alone, np.ones(len(new)), fresh)
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

    def _details(self, state: State, human: Human, stage: str) -> dict[str, Any]:
        reward_a, reward_b = self._rewards(state.force)
        both = np.concatenate([reward_a, reward_b])
        return {
            "l2": state.l2,
            "n_reviews": human.n_reviews,
            "stage": stage,
            "model_round": state.force.round,
            "model_is_control": state.force.is_control,
            "n_self_labels": int((state.force.kept_round[0] > 0).sum()),
            "reward_mean": float(both.mean()),
            "reward_spread": float(both.std()),
        }

    def _rewards(self, arms: Arms) -> tuple[np.ndarray, np.ndarray]:
        reward = self.z @ arms.weights[0].astype(np.float32)
        return reward[self.pool_a], reward[self.pool_b]

    def _arrays(self, state: State, made: np.ndarray) -> dict[str, np.ndarray]:
        """What a round leaves on disk; names without "chain_" belong to the model in force."""
        reward_a, reward_b = self._rewards(state.force)
        return state.arrays() | {
            "reward_a": reward_a,
            "reward_b": reward_b,
            "heldout_margin": (self.heldout_differences @ made[0]).astype(np.float32),
            "heldout_margin_control": (self.heldout_differences @ state.control[0]).astype(np.float32),
        }

    def _picture(self, mine: _Step, kept: np.ndarray) -> dict[str, Any]:
        """The paper's two pictures of a selection: thinned points (p_a, p_b) and histograms of p_a - p_b."""
        rows = np.flatnonzero(mine.is_open)
        if not len(rows):
            return {"points": None, "histogram": None}
        p_a, p_b = self_label.probabilities(mine.reward_a[rows], mine.reward_b[rows], self.config)
        edges = np.linspace(-1, 1, PICTURE_BINS + 1)
        some = np.sort(np.random.default_rng(self.config.random_seed).permutation(len(rows))[:PICTURE_POINTS])
        return {
            "points": {
                "p_a": p_a[some].round(4).tolist(),
                "p_b": p_b[some].round(4).tolist(),
                "status": mine.chosen.status[rows][some].tolist(),
                "kept": kept[rows][some].astype(int).tolist(),
                "pair": [key.decode() for key in self.data.pool.pair_keys[rows[some]]],
            },
            "histogram": {
                "edges": edges.round(4).tolist(),
                "all": np.histogram(p_a - p_b, edges)[0].tolist(),
                "kept": np.histogram((p_a - p_b)[kept[rows]], edges)[0].tolist(),
            },
            "n_open": len(rows),
            "stage": mine.chosen.stage,
            "thresholds": self.config.thresholds,
        }

    def _too_few(self, index: int, mine: _Step) -> str:
        n_open, share = int(mine.is_open.sum()), self.config.min_kept
        if not n_open:
            return f"Round {index}: no pair of the pool is left to label."
        return (
            f"Round {index}: {int(mine.chosen.kept.sum()):,} of {n_open:,} open pairs passed the filter, fewer than the "
            f"{max(1, int(np.ceil(share * n_open))):,} ({share:.1%}) it takes to go on."
        )

    def restore(self, folder: RunFolder, index: int) -> State:
        """The state after a finished round. Raises SerError when the folder does not fit the data."""
        found = folder.round_arrays(index)
        if found["weights"].shape[1] != self.z.shape[1] or found["human"].shape[0] != self.data.pool.n_pairs:
            raise SerError(
                "The run's folder does not fit its data sets any more (other sizes were found). Start a new run."
            )
        return State(
            Arms.of(found, "chain_"),
            Arms.of(found, ""),
            found["control"],
            found["human"],
            float(found["l2"][0]),
            int(found["failed"][0]),
            found["last_words"].tobytes().decode(),
        )

    def said_last(self, state: State, labels: Mapping[str, Preferred]) -> str:
        """The last round's last words, as long as nobody gave a new answer since; a resumed run ends as it had."""
        return state.last_words if (self.read_human(labels) == state.human).all() else ""
