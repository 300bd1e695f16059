"""One round: choose labels for the pool, train, measure, and decide which model holds from here on.

Every round trains the model and the control (same human labels, no self-labels), each perhaps with arms that leave a fold of
the human labels out, to be judged by them (learners, gate.py); arm 0 is the model itself. Two models go from round to round:
the chain, which each round continues, and the force, the newest that the gate let pass. They are the same while every round
holds up. What a model is, and how it is trained, is the learner's business; who labels the pool, and what is kept, the
chooser's.
"""

from collections.abc import Generator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ser_backend import alarms, calibration, metrics
from ser_backend.config import RunConfig
from ser_backend.errors import SerError
from ser_backend.evolution import gate, seed_audit
from ser_backend.evolution.people import Human, People, Said, ordered
from ser_backend.evolution.run_data import RunData
from ser_backend.evolution.state import Arms, Played, State
from ser_backend.learners import Labels, Learner, Model, Progress
from ser_backend.records import Checks, Preferred, Round
from ser_backend.run_folder import RunFolder
from ser_backend.selection import acquisition, self_label
from ser_backend.selection.choosing import Choice, Chooser, Told

MOST_FAILED = 2  # rounds in a row that the gate may roll back before the run ends
PICTURE_POINTS = 2_000
PICTURE_BINS = 60


class Rounds:
    """What stays the same during a run: learner and chooser, rows of texts, labels of seed and held-out pairs."""

    def __init__(self, config: RunConfig, data: RunData, learner: Learner, chooser: Chooser) -> None:
        self.config, self.data, self.learner, self.chooser = config, data, learner, chooser
        self.pool_a, self.pool_b = data.ends("pool")
        self.people = People(data)
        a, b = data.ends("heldout")
        rows = data.heldout_rows
        self.heldout_a, self.heldout_b = a[rows], b[rows]
        self.heldout_preferred = data.heldout.preferred()[rows]
        self.heldout_groups = data.heldout.group_keys[rows]

    def play_seed(self, labels: Mapping[str, Preferred]) -> Generator[Progress, None, Played]:
        """Round 0: people's labels only."""
        said = self.people.read(labels)
        answers, human = said.pool, self.people.human(said)
        model = yield from self.learner.seed(human.labels, human.folds)
        nothing = np.zeros((len(self.learner.folds), self.data.pool.n_pairs), np.int16)
        seed = Arms(model, nothing, nothing.astype(np.int8), self._no_confidence(), 0)
        state = State(seed, seed, model, said, 0)
        audit, suspects = self._suspects(model, human)
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
            details=self._details(state, human, "", model) | {"seed_audit": audit},
            **self._measured(model, model, human),
        )
        return Played(state, facts, self._arrays(state, model) | {"queue_seed": suspects}, None)

    def play(
        self, index: int, before: State, labels: Mapping[str, Preferred], checks: Checks
    ) -> Generator[Progress, None, Played | str]:
        """One round; a sentence instead, when there is nothing to train on."""
        said = self.people.read(labels)
        answers, human = said.pool, self.people.human(said)
        fresh = not said.same(before.said)
        # New answers after a rolled-back round: start again from the model that holds.
        chain = (before.force if fresh and before.failed else before.chain).without(answers != 0)
        kept_round, preferred = chain.kept_round.copy(), chain.preferred.copy()
        if self.chooser.relabels:
            kept_round[:] = 0
        opens = [self.data.pool_open & (answers == 0) & (kept == 0) for kept in kept_round]
        told = [self._told(arm, human, before, checks) for arm in range(len(kept_round))]
        choices = self.chooser.choose(chain.model, told, opens)
        for arm, choice in enumerate(choices):
            if choice.chosen.enough:
                kept_round[arm, choice.chosen.kept] = index
                preferred[arm, choice.chosen.kept] = choice.chosen.preferred[choice.chosen.kept]
        mine = choices[0]
        if not mine.chosen.enough and not fresh and not mine.why_none:
            return self._too_few(index, mine)
        if mine.chosen.enough or fresh:
            examples = [
                self._training_labels(arm, index, human, kept_round[arm], preferred[arm], choice.weight)
                if choice.chosen.enough or fresh
                else None
                for arm, choice in enumerate(choices)
            ]
            who = (human.labels, human.folds, fresh)
            model = yield from self.learner.student(index, chain.model, examples, *who)
            control = yield from self.learner.control(index, before.control, model, *who)
        else:  # nothing new to learn, but the round says which pairs a person should see
            model, control = chain.model, before.control
        confidence = self._confidence(mine, chain)
        made = Arms(model, kept_round, preferred, confidence, index)
        held = before.force.without(answers != 0)
        verdict = gate.Verdict("new", "no label could be certified, so the model stays as it is")
        if mine.chosen.enough or fresh:
            verdict = self._judge(made, held, control, human, fresh)
        if verdict.promoted == "new":
            force = made
        elif verdict.promoted == "previous":
            force = held
        else:
            none = np.zeros_like(kept_round)
            force = Arms(control, none, none.astype(np.int8), self._no_confidence(), index, is_control=True)
        if self.chooser.certifies:
            # The labels stand on their certificate; the gate only says that this student gained nothing by them.
            force = replace(force, kept_round=kept_round, preferred=preferred, confidence=confidence)
        failed = 0 if verdict.promoted == "new" else before.failed * (not fresh) + 1
        last_words = ""
        if not mine.chosen.enough:
            last_words = self._too_few(index, mine)
        elif failed >= MOST_FAILED:
            last_words = (
                f"{failed} rounds in a row did worse on people's labels and were rolled back. Review some pairs, then retrain. "
                f"(Round {index}: {verdict.why.removeprefix('rolled back: ')}.)"
            )
        elif self.config.method == "calibrated":
            last_words = (
                f"Round {index} labelled the whole pool with all that people's labels say; another would repeat it. "
                "Review pairs, then retrain."
            )
        state = State(made, force, control, said, failed, last_words)
        new_kept = kept_round[0] == index
        audit, suspects = self._suspects(model, human)
        n_self = len(self._self_labels(index, kept_round[0], preferred[0], mine.weight))
        n_train = len(self._training_labels(0, index, human, kept_round[0], preferred[0], mine.weight))
        facts = Round(
            index=index,
            n_train=n_train,
            n_human=n_train - n_self,
            n_pool=int(mine.is_open.sum()),
            n_kept=int(new_kept.sum()),
            n_kept_status_1=int((mine.chosen.status[new_kept] == self_label.CLEAR).sum()),
            n_kept_status_2=int((mine.chosen.status[new_kept] == self_label.WIDE).sum()),
            promoted=verdict.promoted,
            why=verdict.why,
            seconds=0.0,
            details=self._details(state, human, mine.chosen.stage, model)
            | {"seed_audit": audit}
            | self._signs(mine, new_kept, confidence, human)
            | self._changes(mine, chain)
            | mine.facts,
            **self._measured(model, control, human),
        )
        arrays = self._arrays(state, model) | {"queue_seed": suspects}
        arrays |= {f"queue_{name}": rows for name, rows in self.chooser.queue(mine, model.rewards(0)).items()}
        arrays |= {
            "new_status": mine.chosen.status,
            "new_kept": new_kept,
            "new_preferred": np.where(new_kept, mine.chosen.preferred, 0).astype(np.int8),
            "said": np.where(mine.is_open, mine.chosen.preferred, 0).astype(np.int8),
        }
        return Played(state, facts, arrays, self._picture(mine, new_kept))

    # ---- labels and fits

    def _told(self, arm: int, human: Human, before: State, checks: Checks) -> Told:
        """Audits: of the labels that the last round kept; those of earlier selections were judged then."""
        mine = human.folds != self.learner.folds[arm]
        pool, held = self.data.pool, before.force
        sampled = np.zeros(pool.n_pairs, bool)
        if checks.sample:
            sampled[[row for row in pool.rows_of(list(checks.sample)) if row is not None]] = True
        found = zip(pool.rows_of(list(checks.audits)) if checks.audits else [], checks.audits.values(), strict=True)
        new = [(row, right) for row, right in found if row is not None and held.kept_round[0, row] > 0]
        rows, right = np.array([row for row, _ in new], np.int64), np.array([right for _, right in new], bool)
        sure = ~np.isnan(held.confidence[rows])
        return Told(
            labels=human.labels.where(mine),
            at_random=np.concatenate([np.ones(len(human.seed_rows), bool), sampled[human.pool_rows]])[mine],
            audit_confidence=held.confidence[rows][sure],
            audit_right=right[sure],
            looks=max(1, held.round),
        )

    def _no_confidence(self) -> np.ndarray:
        return np.full(self.data.pool.n_pairs, np.nan, np.float32)

    def _confidence(self, mine: Choice, before: Arms) -> np.ndarray:
        """Of the labels made in this round; of those kept earlier, if they stay, what it was then."""
        now = mine.arrays.get("confidence")
        if now is None:
            now = metrics.sigmoid(np.abs(mine.reward_a - mine.reward_b)).astype(np.float32)
        return np.where(mine.is_open, now, before.confidence)

    def _changes(self, mine: Choice, before: Arms) -> dict[str, Any]:
        """How many of the labels kept before turned round, where the pool is labelled anew."""
        again = mine.chosen.kept & (before.kept_round[0] > 0)
        if not self.chooser.relabels or not again.any():
            return {}
        return {"flips": float((mine.chosen.preferred[again] != before.preferred[0][again]).mean())}

    def _signs(self, mine: Choice, kept: np.ndarray, confidence: np.ndarray, human: Human) -> dict[str, Any]:
        """What alarms look at; a chooser that knows better says so in its facts."""
        length, seed = self.data.lengths, human.labels.where(human.is_seed)
        longer_by = (length[self.pool_a] - length[self.pool_b]) * mine.chosen.preferred
        seed_longer_by = length[seed.preferred] - length[seed.other]
        return alarms.signs(kept, mine.is_open, confidence, longer_by, seed_longer_by, self.data.pool.domains())

    def _self_labels(self, index: int, kept_round: np.ndarray, preferred: np.ndarray, weight: np.ndarray) -> Labels:
        rows = np.flatnonzero(kept_round == index if self.config.train_on == "new" else kept_round > 0)
        return ordered(self.pool_a[rows], self.pool_b[rows], preferred[rows] > 0, weight[rows])

    def _training_labels(
        self,
        arm: int,
        index: int,
        human: Human,
        kept_round: np.ndarray,
        preferred: np.ndarray,
        weight: np.ndarray,
    ) -> Labels:
        """What an arm trains on: its self-labels, then human labels without its fold. Reviews come after the seed; only
        "cumulative+seed" trains on the seed again."""
        mine = human.folds != self.learner.folds[arm]
        if self.config.train_on != "cumulative+seed":
            mine &= ~human.is_seed
        return Labels.joined(self._self_labels(index, kept_round, preferred, weight), human.labels.where(mine))

    def _pool_rewards(self, model: Model, arm: int) -> tuple[np.ndarray, np.ndarray]:
        reward = model.rewards(arm)
        return reward[self.pool_a], reward[self.pool_b]

    # ---- judging and measuring

    def _judge(self, made: Arms, held: Arms, control: Model, human: Human, fresh: bool) -> gate.Verdict:
        new, previous, alone = (self._judged(model, human) for model in (made.model, held.model, control))
        if not len(new):
            return gate.Verdict("new", "not judged: no human label was kept apart from training")
        verdict = gate.judge(new, previous, alone, np.ones(len(new)), fresh)
        if self.config.gate == "off":
            return gate.Verdict("new", f"not gated; it would have been {verdict.why}")
        return verdict

    def _crossfit(self, model: Model, human: Human) -> np.ndarray:
        """Margin (n,) of every human label by an arm that never saw it, positive if it agrees; nan where there is none."""
        found = np.full(len(human.labels), np.nan)
        for arm, fold in enumerate(self.learner.folds):
            if fold >= 0:
                mine = human.folds == fold
                found[mine] = human.labels.where(mine).margins(model.rewards(arm))
        return found

    def _judged(self, model: Model, human: Human) -> np.ndarray:
        """As _crossfit, without the labels that nobody judges."""
        found = self._crossfit(model, human)
        return found[~np.isnan(found)]

    def _heldout_margin(self, model: Model) -> np.ndarray:
        reward = model.rewards(0)
        return reward[self.heldout_a] - reward[self.heldout_b]

    def _measured(self, model: Model, control: Model, human: Human) -> dict[str, Any]:
        preferred = self.heldout_preferred
        new, old = self._heldout_margin(model), self._heldout_margin(control)
        crossfit = self._judged(model, human)
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
        both, seen = np.concatenate([reward_a, reward_b]), self._judged(model, human)
        return {
            **model.facts(),
            "learning_curve": self.learner.curve(model, human.labels, human.groups, human.folds),
            "model_temperature": calibration.temperature(seen, np.ones(len(seen))) if len(seen) else None,
            "n_reviews": human.n_reviews,
            "stage": stage,
            "model_round": state.force.round,
            "model_is_control": state.force.is_control,
            "n_self_labels": int((state.force.kept_round[0] > 0).sum()),
            "reward_mean": float(both.mean()),
            "reward_spread": float(both.std()),
        } | {key: value for key, value in state.force.model.facts().items() if key == "model_folder"}

    def _suspects(self, model: Model, human: Human) -> tuple[dict[str, Any] | None, np.ndarray]:
        """Which of the seed's labels are probably wrong: in words, and rows of the seed set, most suspicious first."""
        margin = self._crossfit(model, human)
        known = ~np.isnan(margin) & human.is_seed
        if not known.any():
            return None, np.empty(0, np.int64)
        found = seed_audit.suspects(margin[known], human.groups[known])
        share = [found.share.value, found.share.low, found.share.high, found.share.n] if found.told else None
        rows = human.seed_rows[np.flatnonzero(known)[found.order]]
        return {"share": share, "in_words": found.in_words()}, rows[: acquisition.LONGEST]

    def _arrays(self, state: State, made: Model) -> dict[str, np.ndarray]:
        """What a round leaves on disk; names without "chain_" belong to the model in force."""
        reward_a, reward_b = self._pool_rewards(state.force.model, 0)
        return state.arrays() | {
            "reward_a": reward_a,
            "reward_b": reward_b,
            "heldout_margin": self._heldout_margin(made),
            "heldout_margin_control": self._heldout_margin(state.control),
        }

    def _picture(self, mine: Choice, kept: np.ndarray) -> dict[str, Any]:
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

    def _too_few(self, index: int, mine: Choice) -> str:
        if mine.why_none:
            return f"Round {index}: {mine.why_none}"
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
            Said(found["human"], found.get("corrected", np.zeros(len(self.data.seed_rows), np.int8))),
            int(found["failed"][0]),
            found["last_words"].tobytes().decode(),
        )

    def said_last(self, state: State, labels: Mapping[str, Preferred]) -> str:
        """The last round's last words, as long as nobody gave a new answer since; a resumed run ends as it had."""
        return state.last_words if self.people.read(labels).same(state.said) else ""
