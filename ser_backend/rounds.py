"""One round: reward the pool, keep what passes, train, measure, and decide which model holds from here on.

Every round trains the model and the control (same human labels, no self-labels), each perhaps with arms that leave a fold of
the human labels out, to be judged by them (learners, gate.py); arm 0 is the model itself. Two models go from round to round:
the chain, which each round continues, and the force, the newest that the gate let pass. They are the same while every round
holds up. What a model is, and how it is trained, is the learner's business.
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ser_backend import gate, metrics, self_label, training
from ser_backend.config import RunConfig
from ser_backend.errors import SerError
from ser_backend.learners import Labels, Learner, Model, Progress
from ser_backend.records import Preferred, Round
from ser_backend.run_data import RunData
from ser_backend.run_folder import RunFolder

SIGN = {"a": 1, "b": -1, "tie": 2}
MOST_FAILED = 2  # rounds in a row that the gate may roll back before the run ends
PICTURE_POINTS = 2_000
PICTURE_BINS = 60


@dataclass(frozen=True)
class Arms:
    """A model and the self-labels its arms were trained on, (arms, n_pool)."""

    model: Model
    kept_round: np.ndarray  # int16: the round that kept the self-label, 0 = none
    preferred: np.ndarray  # int8: the kept self-label, +1 a, -1 b
    round: int  # that trained this model
    is_control: bool = False

    def without(self, answered: np.ndarray) -> "Arms":
        """A person's answer replaces a self-label. answered: bool (n_pool,)."""
        return replace(self, kept_round=np.where(answered, np.int16(0), self.kept_round))

    def arrays(self, prefix: str) -> dict[str, np.ndarray]:
        return self.model.arrays(f"{prefix}weights") | {
            f"{prefix}kept_round": self.kept_round,
            f"{prefix}preferred": self.preferred,
            f"{prefix}made_in": np.array([self.round, self.is_control]),
        }

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray], prefix: str, learner: Learner) -> "Arms":
        made_in, is_control = arrays[f"{prefix}made_in"].tolist()
        kept_round, preferred = (arrays[prefix + name] for name in ("kept_round", "preferred"))
        return cls(learner.model(arrays, f"{prefix}weights"), kept_round, preferred, made_in, bool(is_control))


@dataclass(frozen=True)
class State:
    """What one round hands to the next."""

    chain: Arms
    force: Arms
    control: Model
    human: np.ndarray  # int8 (n_pool,): reviewed +1 a, -1 b, 2 tie, 0 not reviewed
    failed: int  # rounds in a row that were rolled back
    last_words: str = ""  # why the run ends here unless people give new answers; "" when it goes on

    def arrays(self) -> dict[str, np.ndarray]:
        rest = {
            "human": self.human,
            "failed": np.array([self.failed]),
            "last_words": np.frombuffer(self.last_words.encode(), np.uint8),
        }
        return self.force.arrays("") | self.chain.arrays("chain_") | self.control.arrays("control") | rest


@dataclass(frozen=True)
class Played:
    state: State
    facts: Round
    arrays: dict[str, np.ndarray]
    picture: dict[str, Any] | None


@dataclass(frozen=True)
class Human:
    """Labels people gave, and the fold that holds each out (n,)."""

    labels: Labels
    folds: np.ndarray
    n_reviews: int


@dataclass(frozen=True)
class _Choice:
    """What one arm chose to label in a round."""

    chosen: self_label.Selection
    is_open: np.ndarray
    reward_a: np.ndarray
    reward_b: np.ndarray


class Rounds:
    """What stays the same during a run: the learner, rows of texts, labels of seed and held-out pairs."""

    def __init__(self, config: RunConfig, data: RunData, learner: Learner) -> None:
        self.config, self.data, self.learner = config, data, learner
        self.pool_a, self.pool_b = data.ends("pool")
        a, b = data.ends("seed")
        rows = data.seed_rows
        self.seed_labels = _ordered(a[rows], b[rows], data.seed.preferred()[rows] > 0)
        self.seed_groups = data.seed.group_keys[rows]
        a, b = data.ends("heldout")
        rows = data.heldout_rows
        self.heldout_a, self.heldout_b = a[rows], b[rows]
        self.heldout_preferred = data.heldout.preferred()[rows]
        self.heldout_groups = data.heldout.group_keys[rows]

    def play_seed(self, labels: Mapping[str, Preferred]) -> Generator[Progress, None, Played]:
        """Round 0: people's labels only."""
        answers = self.read_human(labels)
        human = self._human(answers)
        model = yield from self.learner.seed(human.labels, human.folds)
        nothing = np.zeros((len(self.learner.folds), self.data.pool.n_pairs), np.int16)
        seed = Arms(model, nothing, nothing.astype(np.int8), 0)
        state = State(seed, seed, model, answers, 0)
        n_train = int((human.folds != self.learner.folds[0]).sum())
        facts = Round(
            index=0,
            n_train=n_train,
            n_human=n_train,
            n_pool=int((self.data.pool_open & (answers == 0)).sum()),
            n_kept=0,
            n_kept_status_1=0,
            n_kept_status_2=0,
            promoted="new",
            why="the seed model: people's labels only",
            seconds=0.0,
            details=self._details(state, human, "", model),
            **self._measured(model, model, human),
        )
        return Played(state, facts, self._arrays(state, model), None)

    def play(
        self, index: int, before: State, labels: Mapping[str, Preferred]
    ) -> Generator[Progress, None, Played | str]:
        """One round; a sentence instead, when there is nothing to train on."""
        answers = self.read_human(labels)
        human = self._human(answers)
        fresh = bool((answers != before.human).any())
        # New answers after a rolled-back round: start again from the model that holds.
        chain = (before.force if fresh and before.failed else before.chain).without(answers != 0)
        kept_round, preferred = chain.kept_round.copy(), chain.preferred.copy()

        def choose(arm: int) -> _Choice:
            reward_a, reward_b = self._pool_rewards(chain.model, arm)
            is_open = self.data.pool_open & (answers == 0) & (kept_round[arm] == 0)
            chosen = self_label.select(reward_a, reward_b, is_open, self.config)
            if chosen.enough:
                kept_round[arm, chosen.kept] = index
                preferred[arm, chosen.kept] = chosen.preferred[chosen.kept]
            return _Choice(chosen, is_open, reward_a, reward_b)

        choices = training.side_by_side(choose, range(len(kept_round)))
        mine = choices[0]
        if not mine.chosen.enough and not fresh:
            return self._too_few(index, mine)
        examples = [
            self._training_labels(arm, index, human, kept_round[arm], preferred[arm])
            if choice.chosen.enough or fresh
            else None
            for arm, choice in enumerate(choices)
        ]
        who = (human.labels, human.folds, fresh)
        model = yield from self.learner.student(index, chain.model, examples, *who)
        control = yield from self.learner.control(index, before.control, model, *who)
        made = Arms(model, kept_round, preferred, index)
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
        state = State(made, force, control, answers, failed, last_words)
        new_kept = kept_round[0] == index
        n_train = len(self._training_labels(0, index, human, kept_round[0], preferred[0]))
        facts = Round(
            index=index,
            n_train=n_train,
            n_human=n_train - len(self._self_labels(index, kept_round[0], preferred[0])),
            n_pool=int(mine.is_open.sum()),
            n_kept=int(new_kept.sum()),
            n_kept_status_1=int((mine.chosen.status[new_kept] == self_label.CLEAR).sum()),
            n_kept_status_2=int((mine.chosen.status[new_kept] == self_label.WIDE).sum()),
            promoted=verdict.promoted,
            why=verdict.why,
            seconds=0.0,
            details=self._details(state, human, mine.chosen.stage, model),
            **self._measured(model, control, human),
        )
        arrays = self._arrays(state, model) | {
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
        folds = training.fold_of(np.concatenate([self.seed_groups, self.data.pool.group_keys[rows]]))
        reviewed = _ordered(self.pool_a[rows], self.pool_b[rows], answers[rows] > 0)
        return Human(Labels.joined(self.seed_labels, reviewed), folds, len(rows))

    def _self_labels(self, index: int, kept_round: np.ndarray, preferred: np.ndarray) -> Labels:
        rows = np.flatnonzero(kept_round == index if self.config.train_on == "new" else kept_round > 0)
        return _ordered(self.pool_a[rows], self.pool_b[rows], preferred[rows] > 0)

    def _training_labels(
        self, arm: int, index: int, human: Human, kept_round: np.ndarray, preferred: np.ndarray
    ) -> Labels:
        """What an arm trains on: its self-labels, then human labels without its fold. Reviews come after the seed; only
        "cumulative+seed" trains on the seed again."""
        mine = human.folds != self.learner.folds[arm]
        if self.config.train_on != "cumulative+seed":
            mine[: len(self.seed_labels)] = False
        return Labels.joined(self._self_labels(index, kept_round, preferred), human.labels.where(mine))

    def _pool_rewards(self, model: Model, arm: int) -> tuple[np.ndarray, np.ndarray]:
        reward = model.rewards(arm)
        return reward[self.pool_a], reward[self.pool_b]

    # ---- judging and measuring

    def _judge(self, made: Arms, held: Arms, control: Model, human: Human, fresh: bool) -> gate.Verdict:
        new, previous, alone = (self._crossfit(model, human) for model in (made.model, held.model, control))
        if not len(new):
            return gate.Verdict("new", "not judged: no human label was kept apart from training")
        verdict = gate.judge(new, previous, alone, np.ones(len(new)), fresh)
        if self.config.gate == "off":
            return gate.Verdict("new", f"not gated; it would have been {verdict.why}")
        return verdict

    def _crossfit(self, model: Model, human: Human) -> np.ndarray:
        """Margins (n,) of the preferred response of every human label that an arm never saw, by that arm."""
        found = [
            human.labels.where(human.folds == fold).margins(model.rewards(arm))
            for arm, fold in enumerate(self.learner.folds)
            if fold >= 0
        ]
        return np.concatenate(found).astype(np.float64) if found else np.empty(0)

    def _heldout_margin(self, model: Model) -> np.ndarray:
        reward = model.rewards(0)
        return reward[self.heldout_a] - reward[self.heldout_b]

    def _measured(self, model: Model, control: Model, human: Human) -> dict[str, Any]:
        preferred = self.heldout_preferred
        new, old = self._heldout_margin(model), self._heldout_margin(control)
        crossfit = self._crossfit(model, human)
        return {
            "heldout": metrics.accuracy(new, preferred),
            "control": metrics.accuracy(old, preferred),
            "difference": metrics.paired_difference(
                metrics.correct(new, preferred),
                metrics.correct(old, preferred),
                self.heldout_groups,
                self.config.random_seed,
            ),
            "crossfit": metrics.accuracy(crossfit, np.ones(len(crossfit))) if len(crossfit) else None,
        }

    def _details(self, state: State, human: Human, stage: str, model: Model) -> dict[str, Any]:
        reward_a, reward_b = self._pool_rewards(state.force.model, 0)
        both = np.concatenate([reward_a, reward_b])
        return {
            **model.facts(),
            "n_reviews": human.n_reviews,
            "stage": stage,
            "model_round": state.force.round,
            "model_is_control": state.force.is_control,
            "n_self_labels": int((state.force.kept_round[0] > 0).sum()),
            "reward_mean": float(both.mean()),
            "reward_spread": float(both.std()),
        } | {key: value for key, value in state.force.model.facts().items() if key == "model_folder"}

    def _arrays(self, state: State, made: Model) -> dict[str, np.ndarray]:
        """What a round leaves on disk; names without "chain_" belong to the model in force."""
        reward_a, reward_b = self._pool_rewards(state.force.model, 0)
        return state.arrays() | {
            "reward_a": reward_a,
            "reward_b": reward_b,
            "heldout_margin": self._heldout_margin(made),
            "heldout_margin_control": self._heldout_margin(state.control),
        }

    def _picture(self, mine: _Choice, kept: np.ndarray) -> dict[str, Any]:
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

    def _too_few(self, index: int, mine: _Choice) -> str:
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
        if found["human"].shape[0] != self.data.pool.n_pairs:
            raise SerError(
                "The run's folder does not fit its data sets any more (other sizes were found). Start a new run."
            )
        return State(
            Arms.of(found, "chain_", self.learner),
            Arms.of(found, "", self.learner),
            self.learner.model(found, "control"),
            found["human"],
            int(found["failed"][0]),
            found["last_words"].tobytes().decode(),
        )

    def said_last(self, state: State, labels: Mapping[str, Preferred]) -> str:
        """The last round's last words, as long as nobody gave a new answer since; a resumed run ends as it had."""
        return state.last_words if (self.read_human(labels) == state.human).all() else ""


def _ordered(a: np.ndarray, b: np.ndarray, a_wins: np.ndarray) -> Labels:
    return Labels(np.where(a_wins, a, b), np.where(a_wins, b, a))
