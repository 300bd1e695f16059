"""The whole way of a policy as a generator of past-tense events; knows no database but to read prompts, and no page.

    for kind, facts in run(store, settings, folder): ...

Closing the generator stops the training between two steps and keeps a checkpoint; running it again goes on from there.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from ser_backend import home
from ser_backend.errors import SerError
from ser_backend.policy import card, figures, prompts
from ser_backend.policy.folder import RESPONSES, PolicyFolder
from ser_backend.policy.members import open_members
from ser_backend.policy.settings import ONLINE, PolicySettings
from ser_backend.policy.shaping import Start, measure_start
from ser_backend.policy.telling import Event, Tell, told
from ser_backend.policy.training import Trained, train
from ser_backend.policy.writer import Writer, open_writer, plain_start
from ser_backend.report import versions
from ser_backend.store import Store

START_PROMPTS = 64  # training prompts whose responses by the start model set the scale of the rewards
SHOWN = 12  # held-out prompts whose responses are kept to be read
KEPT = 1_000  # held-out prompts of which one response is kept for people to compare (duel/); some megabytes
Opener = Callable[[str, int], Any]


def run(
    store: Store, settings: PolicySettings, folder: PolicyFolder, opener: Opener | None = None
) -> Generator[Event, None, dict[str, Any]]:
    """Returns what policy.json holds. opener: of reward models, for tests. Raises SerError, NotFound, Forbidden."""
    store.require("start")
    settings.validate()
    with folder.held():
        if folder.begin(settings.as_dict()):
            yield "policy_resumed", {"name": folder.name, "step": len(folder.steps())}
        if (done := folder.json("policy")) is not None:
            return done
        return (yield from told(lambda tell: _Way(store, settings, folder, tell, opener).walk()))


class _Stopped(Exception):
    """Somebody stopped listening; what is there is kept."""


class _Way:
    def __init__(
        self, store: Store, settings: PolicySettings, folder: PolicyFolder, tell: Tell, opener: Opener | None
    ) -> None:
        self.store, self.settings, self.folder, self.opener = store, settings, folder, opener
        self._tell = tell
        self.raised: dict[str, str] = folder.json("alarms") or {}

    def tell(self, kind: str, facts: dict[str, Any]) -> None:
        if self._tell(kind, facts):
            raise _Stopped

    def walk(self) -> dict[str, Any]:
        try:
            return self._walk()
        except _Stopped:
            return {}

    def _walk(self) -> dict[str, Any]:
        settings, folder = self.settings, self.folder
        if settings.threads:
            import torch

            torch.set_num_threads(settings.threads)  # of this thread
        asked = self._asked()
        base = plain_start(settings.base_model, folder.path / "base")
        self.members = open_members(settings.members, settings.judge, settings.threads, self.opener)
        self.tell(
            "reward_models_opened",
            {"names": [*self.members.names], "judge": settings.judge, "notes": self.members.notes},
        )
        writer = open_writer(base, settings)
        train_prompts = self._short(writer, asked.train)
        heldout = self._short(writer, asked.heldout)
        if not train_prompts or not heldout:
            whose = "All" if not train_prompts and not heldout else "All held-out" if train_prompts else "All training"
            raise SerError(
                f"{whose} prompts are longer than {settings.max_prompt_tokens:,} tokens (max_prompt_tokens). Raise it."
            )
        if settings.sft_steps and settings.method != "sft":
            base = self._supervised(base, asked.examples)
            writer = open_writer(base, settings)
        writer.reference = writer.model  # it is the start model still: KL 0
        start = self._start(writer, train_prompts)
        before = self._measure(writer, heldout, "before")
        del writer
        trained = self._train(base, train_prompts, asked.examples, start, before)
        if trained.stopped:
            raise _Stopped
        self._save(trained.writer, base)
        if trained.writer.reference is None and not hasattr(trained.writer.model, "disable_adapter"):
            trained.writer.reference = open_writer(base, settings).model.eval()  # sft of all weights keeps none
        after = self._measure(trained.writer, heldout, "after")
        facts = self._finish(asked, start, before, after, trained, base)
        self.tell(
            "policy_finished",
            {"name": folder.name, "sentences": facts["sentences"], "folder": str(folder.path / "model")},
        )
        return facts

    # ---- stages, each of which is not done again once its file is there

    def _asked(self) -> prompts.Asked:
        if (found := self.folder.json("asked")) is not None:
            return prompts.of_json(found)
        settings = self.settings
        needs = settings.method in ("dpo", "sft") or settings.sft_steps or not settings.prompts
        asked = prompts.gather(
            self.store,
            settings.prompts,
            settings.examples if needs else "",
            settings.heldout_prompts,
            settings.random_seed,
        )
        self.folder.write("asked", asdict(asked))
        self.tell(
            "prompts_gathered", {"train": len(asked.train), "heldout": len(asked.heldout), "sentence": asked.in_words()}
        )
        return asked

    def _short(self, writer: Writer, texts: Sequence[str]) -> tuple[str, ...]:
        lengths = [len(ids) for ids in writer.prompt_ids(texts)]
        found = prompts.short_enough(texts, lengths, self.settings.max_prompt_tokens)
        if len(found) < len(texts):
            self.tell("prompts_left_out", {"too_long": len(texts) - len(found), "left": len(found)})
        return found

    def _supervised(self, base: str, examples: Sequence[prompts.Example]) -> str:
        """A plain model that imitated the chosen responses; the method begins there."""
        target = self.folder.path / "start"
        if not (target / "config.json").exists():
            settings = replace(self.settings, method="sft", steps=self.settings.sft_steps)
            done = train(
                lambda: open_writer(base, settings), settings, self.folder, self._tell, stage="sft", examples=examples
            )
            if done.stopped:
                raise _Stopped
            model = done.writer.model
            save_plain(model.merge_and_unload() if hasattr(model, "merge_and_unload") else model, done.writer, target)
            self.folder.forget("sft")
            self.tell("supervised_start_finished", {"steps": done.steps})
        return str(target)

    def _start(self, writer: Writer, texts: Sequence[str]) -> Start | None:
        if self.settings.method not in ONLINE:
            return None
        if (found := self.folder.json("start")) is not None:
            return Start.of_json(found)
        some = texts[:START_PROMPTS]
        made = list(
            writer.samples(some, self.settings.samples_per_prompt, self.settings, self.settings.random_seed + 1)
        )
        raw = self.members.rewards([some[s.place] for s in made], [s.text for s in made])
        lengths, places = np.array([len(s.ids) for s in made]), np.array([s.place for s in made])
        start = measure_start(self.members.names, raw, lengths, places, self.settings)
        self.folder.write("start", start.as_json())
        self.tell("start_measured", start.as_json())
        return start

    def _measure(self, writer: Writer, texts: Sequence[str], when: str) -> dict[str, Any]:
        """Responses to held-out prompts: figures, rewards of each, and some to be read."""
        if (found := self.folder.json(when)) is not None:
            return found
        made = list(writer.samples(texts, self.settings.heldout_samples, self.settings, self.settings.random_seed + 2))
        asked, written = [texts[s.place] for s in made], [s.text for s in made]
        raw, judged = self.members.rewards(asked, written), self.members.judged(asked, written)
        if when == "before":
            self.members.check_judge(raw, judged)
        told = writer.measured(writer.prompt_ids(asked), [s.ids for s in made], self.settings.temperature)
        places, tokens = np.array([s.place for s in made]), np.array([len(s.ids) for s in made])
        found = figures.responses(
            raw, self.members.names, judged, places, written, tokens, np.array([s.ended for s in made]),
            told["kl"], told["sampled_kl"], told["entropy"],
        )  # fmt: skip
        every = [
            {"prompt": asked[row], "response": written[row], "rewards": raw[row].tolist(), "kl": float(told["kl"][row])}
            | ({"judge": float(judged[row])} if judged is not None else {})
            for row in range(len(made))
        ]
        samples = [facts for facts, sample in zip(every, made, strict=True) if sample.place < SHOWN]
        first: dict[int, dict[str, Any]] = {}
        for facts, sample in zip(every, made, strict=True):
            first.setdefault(sample.place, facts)
        kept = [first[place] for place in sorted(first)[:KEPT]]  # held-out prompts are in random order
        self.folder.write(RESPONSES.format(when), {"responses": kept})
        each = {
            "place": places.tolist(),
            "kl": told["kl"].tolist(),
            "length": tokens.tolist(),
            "ended": [float(sample.ended) for sample in made],
            "rewards": raw.tolist(),
            "judge": judged.tolist() if judged is not None else None,
        }
        facts = {"figures": found, "samples": samples, "each": each}
        self.folder.write(when, facts)
        self.tell("heldout_measured", {"when": when, **found})
        return facts

    def _train(
        self,
        base: str,
        texts: Sequence[str],
        examples: Sequence[prompts.Example],
        start: Start | None,
        before: dict[str, Any],
    ) -> Trained:
        settings = self.settings
        begun = before["figures"]

        def judge(steps: list[dict[str, Any]]) -> str:
            if not start:
                return ""
            found = figures.alarms(steps, start.length, begun["distinct"], settings.max_kl)
            for kind, sentence in found.items():
                if kind not in self.raised:
                    self.raised[kind] = sentence
                    self.folder.write("alarms", self.raised)
                    self._tell("alarm_raised", {"alarm": kind, "sentence": sentence, "step": steps[-1]["step"]})
            return found.get("kl", "")

        def opened() -> Writer:
            writer = open_writer(base, settings)
            if settings.method in ONLINE and not settings.lora_rank and not settings.beta:
                writer.reference = open_writer(base, settings).model.eval()  # trl keeps none then
            return writer

        return train(
            opened, settings, self.folder, self._tell, prompts=texts, examples=examples, members=self.members, start=start,
            judge=judge,
        )  # fmt: skip

    def _save(self, writer: Writer, base: str) -> None:
        """An adapter of a model that others have is kept as one; on a start of our own it is merged, to stand alone."""
        model, target = writer.model, self.folder.path / "model"
        ours = Path(base).is_relative_to(self.folder.path)
        if hasattr(model, "merge_and_unload") and not ours:
            save_plain(model, writer, target)
            return
        if hasattr(model, "merge_and_unload"):
            import copy

            model = copy.deepcopy(model).merge_and_unload()
        save_plain(model, writer, target)

    def _finish(
        self,
        asked: prompts.Asked,
        start: Start | None,
        before: dict[str, Any],
        after: dict[str, Any],
        trained: Trained,
        base: str,
    ) -> dict[str, Any]:
        from importlib.metadata import version

        settings, folder = self.settings, self.folder
        changes = changed(before["each"], after["each"], self.members.names)
        steps = folder.steps()
        facts: dict[str, Any] = {
            "name": folder.name,
            "settings": settings.as_dict(),
            "start": start.as_json() if start else None,
            "before": before["figures"],
            "after": after["figures"],
            "changes": changes,
            "steps": trained.steps,
            "ended_because": trained.because,
            "alarms": [{"alarm": kind, "sentence": sentence} for kind, sentence in self.raised.items()],
            "data": {
                "prompts": settings.prompts or settings.examples,
                "examples": settings.examples,
                "train": len(asked.train),
                "heldout": len(asked.heldout),
                "n_examples": len(asked.examples),
                "heldout_id": asked.heldout_id,
            },
            "seconds": round(sum(facts["seconds"] for facts in steps), 1),
            "kl_estimator": "sum over positions of the exact KL between next-token distributions, on sampled responses",
            "notes": self.members.notes,
            "versions": versions() | {name: version(name) for name in ("trl", "peft", "accelerate")},
        }
        facts["sentences"] = card.sentences(facts)
        (folder.path / "model" / "README.md").write_text(card.of_policy(facts, folder.path / "model"), "utf-8")
        folder.write("policy", facts)
        folder.forget("checkpoints")
        return facts


def changed(before: dict[str, Any], after: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Rewards after less before on the same prompts, with 95 % intervals, by name; "judge" where there is one."""
    then, now = np.array(before["place"]), np.array(after["place"])
    first = np.array(before["rewards"]).reshape(len(then), -1)
    last = np.array(after["rewards"]).reshape(len(now), -1)
    found = {"members": {n: figures.difference(last[:, i], first[:, i], now, then) for i, n in enumerate(names)}}
    judge = None
    if before["judge"] is not None:
        judge = figures.difference(np.array(after["judge"]), np.array(before["judge"]), now, then)
    return found | {"judge": judge}


def save_plain(model: Any, writer: Writer, target: Path) -> None:
    """model: the writer's, or what its adapters were merged into."""
    with home.atomic_folder(target) as temporary:
        model.save_pretrained(temporary)
        if not hasattr(model, "merge_and_unload"):
            writer.manner.save_pretrained(temporary)  # whoever uses the model finds what its authors set
        writer.tokenizer.save_pretrained(temporary)
