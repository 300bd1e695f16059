"""The doctor: is this reward model what it seems to be, and can its figures be believed?

Opens whatever the user names (a base model, a fine-tuned model or adapter, an exported linear head), puts together the
checks that apply (model_checks, pair_checks) and yields them as they are made. Changes and stores nothing.
"""

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ser_backend.errors import NotFound, SerError, UnknownToken
from ser_backend.health.checks import Check, as_dicts, check
from ser_backend.health.model_checks import compared, examine_model, examine_saved, read
from ser_backend.health.pair_checks import examine_accuracy, examine_pairs
from ser_backend.ingest import Extracted, read_pairs
from ser_backend.pairs import smaller_is_a
from ser_backend.records import Response, pair_id, response_ids
from ser_backend.reward_model import HeadModel
from ser_backend.transformer.bases import BUNDLED
from ser_backend.transformer.classifier import Classifier
from ser_backend.transformer.heads import has_head
from ser_backend.transformer.tokens import Ends, Rows, TokenTable

__all__ = ["as_dicts", "diagnose", "examine_accuracy", "examine_model", "examine_pairs", "examine_saved"]

PAIRS_REWARDED = 1_000  # of the user's; accuracy is then known to about 3 points
COPY_BYTES = 4 << 30  # a larger model is not saved and loaded a second time

Progress = Callable[[int, int], None]


def diagnose(name: str, data: str | None = None, progress: Progress | None = None) -> Iterator[Check]:
    """name: "bundled", a hub id, the folder of a base model or of a reward model. data: a file of labelled pairs.

    Raises SerError when there is no such model or file; a model that is there and does not open is a failed check.
    """
    pairs = _Pairs.read(data) if data else None  # first: a wrong file name should show at once
    folder = _folder(name)
    try:
        model, trained = _open(name, folder)
    except NotFound:
        raise
    except SerError as error:
        yield check("opens", "failed", str(error))
        if folder and (folder / "adapter_config.json").exists() and not has_head(folder):
            yield check("head-in-weights", "failed", f"The adapter in {folder} holds no weights of a reward head.")
        return
    notes = " ".join(getattr(model, "notes", []))
    kind = "a linear head on a frozen base model" if isinstance(model, HeadReader) else f"a model in {model.precision}"
    yield check("opens", "ok", f"{name} is {kind}." + (f" {notes}" if notes else ""))
    try:
        yield from _checks(model, trained, pairs, progress)
    except UnknownToken as error:
        yield check("tokens-known", "failed", str(error))


def _checks(
    model: "Classifier | HeadReader", trained: bool | None, pairs: "_Pairs | None", progress: Progress | None
) -> Iterator[Check]:
    made = examine_model(model, pairs.responses if pairs else (), trained)
    yield from made
    yield from _saved(model)
    if not pairs:
        return
    table = model.tokenise(pairs.responses)
    yield from examine_pairs(model, table, pairs.preferred, pairs.other)
    broken = [one for one in made if one.outcome == "failed" and one.name in ("rewards-finite", "max-length-fits")]
    if model.new_head or broken:
        why = (
            "The model gives no rewards that could be compared"
            if broken
            else "The reward head is new and not trained yet"
        )
        for rule in ("beats-length", "beats-majority"):
            yield check(rule, "skipped", f"{why}.")
        return
    yield from _accuracy(model, table, pairs, progress)


# ---- pairs


@dataclass
class _Pairs:
    responses: list[Response] = field(default_factory=list)  # each once
    preferred: list[int] = field(default_factory=list)  # rows of responses
    other: list[int] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    is_a: list[bool] = field(
        default_factory=list
    )  # whether the preferred one is response a, as an import would have it
    judged: list[int] = field(
        default_factory=list
    )  # rows of these that accuracy is measured on, as an import keeps them

    @classmethod
    def read(cls, path: str) -> "_Pairs":
        found = cls()
        rows: dict[tuple[str, str], int] = {}
        said: dict[str, dict[str, int]] = {}  # pair -> preferred response -> where it is
        why = "it has no rows, or only ties."
        for item in read_pairs(path):
            if not isinstance(item, Extracted):
                why = item.message
            elif item.preferred:
                ends = [rows.setdefault((item.prompt, text), len(rows)) for text in (item.first, item.second)]
                found.preferred.append(ends[item.preferred < 0])
                found.other.append(ends[item.preferred > 0])
                found.groups.append(item.group or item.prompt)
                one, other = response_ids(item.prompt, item.first, item.second)
                better, pair = one if item.preferred > 0 else other, pair_id(one, other)
                # sides mean nothing, so they are those of an import: the same file then gives the same figures on Watch
                found.is_a.append((better == min(one, other)) == smaller_is_a(pair))
                said.setdefault(pair, {}).setdefault(better, len(found.is_a) - 1)
        if not found.preferred:
            raise SerError(f"No row of {path} is a pair with a preference: {why}")
        found.judged = [next(iter(by.values())) for by in said.values() if len(by) == 1]
        found.responses = [Response("", prompt, text) for prompt, text in rows]
        return found


def _accuracy(model: Any, table: TokenTable, pairs: _Pairs, progress: Progress | None) -> Iterator[Check]:
    if not pairs.judged:
        yield from examine_accuracy(*np.zeros((3, 0)))
        return
    random = np.random.default_rng(0)
    chosen = np.sort(random.permutation(pairs.judged)[:PAIRS_REWARDED])
    preferred, other = np.array(pairs.preferred)[chosen], np.array(pairs.other)[chosen]
    rows, place = np.unique(np.concatenate([preferred, other]), return_inverse=True)
    rewards = np.empty(len(rows), np.float32)
    done = 0
    for found_rows, found in _rewards(model, table, pairs.responses, rows):
        rewards[np.searchsorted(rows, found_rows)] = found
        done += len(found_rows)
        if progress:
            progress(done, len(rows))
    length = np.array([len(pairs.responses[row].text) for row in rows])
    ahead, behind = place[: len(chosen)], place[len(chosen) :]
    sign = np.where(np.asarray(pairs.is_a)[chosen], 1, -1)
    groups = np.array(pairs.groups, dtype=object)[chosen].astype(str)
    yield from examine_accuracy(
        sign * (rewards[ahead] - rewards[behind]), sign, sign * (length[ahead] - length[behind]), groups
    )


def _rewards(
    model: "Classifier | HeadReader", table: TokenTable, responses: Sequence[Response], rows: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(rows, rewards); of a linear head on the features that a run left in the cache, where there are some."""
    if not isinstance(model, HeadReader):
        yield from model.rewards(table, rows)
        return
    for places, found in model.head.read(model.backbone, [responses[row] for row in rows.tolist()]):
        yield rows[places], found


# ---- models


def _folder(name: str) -> Path | None:
    """The model's folder, also when the folder of a whole export is given."""
    path = Path(name).expanduser()
    if name == BUNDLED or not path.is_dir():
        return None
    inside = path / "reward_model"
    return inside if inside.is_dir() and not (path / "config.json").exists() else path


def _open(name: str, folder: Path | None) -> "tuple[Classifier | HeadReader, bool]":
    """The model, and whether it is said to be trained."""
    if folder is None:
        if name != BUNDLED and (Path(name).exists() or name.startswith((".", "/", "~"))):
            raise NotFound(f"There is no folder {name}. Give the folder of a model, a hub name, or 'bundled'.")
        model = Classifier.load(name)
        return model, not model.new_head
    if (folder / "head.safetensors").exists():
        return HeadReader(HeadModel.load(folder)), True
    if (folder / "adapter_config.json").exists():
        return Classifier.open(folder), True
    said = (folder / "reward_model.json").exists() or _is_classifier(folder)
    if said and has_head(folder):
        return Classifier.open(folder), True
    return Classifier.load(str(folder)), said  # a trained one without its head: the checks say so


def _is_classifier(folder: Path) -> bool:
    try:
        named = json.loads((folder / "config.json").read_text())["architectures"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return any("SequenceClassification" in str(one) for one in named or ())


class HeadReader:
    """A linear head on frozen features, asked as a Classifier is."""

    precision = "features"
    new_head = False

    def __init__(self, head: HeadModel) -> None:
        from ser_backend.transformer.features import Backbone

        self.head = head
        self.backbone: Backbone = head.backbone()
        self.model, self.tokenizer = self.backbone.model, self.backbone.tokenizer
        self.max_length = self.backbone.max_length
        self.ends = Ends.of(self.tokenizer, wants_end=False)
        self.missing: list[str] = []

    def trainable(self) -> dict[str, Any]:
        import torch

        return {"head.safetensors": torch.from_numpy(self.head.weight)}

    def tokenise(self, responses: Sequence[Response]) -> TokenTable:
        before = self.backbone.cuts.prompts, self.backbone.cuts.responses
        found = self.backbone.tokenize(responses)
        starts = np.concatenate([[0], np.cumsum([len(ids) for ids, _ in found], dtype=np.int64)])
        ids = np.concatenate([np.array(ids, np.int32) for ids, _ in found]) if found else np.empty(0, np.int32)
        table = TokenTable(ids, starts, np.array([begin for _, begin in found], np.int32))
        table.cuts.prompts = self.backbone.cuts.prompts - before[0]
        table.cuts.responses = self.backbone.cuts.responses - before[1]
        return table

    def forward(self, table: TokenTable, rows: Rows) -> Any:
        import torch

        features = self.backbone._forward([(table.text(row).tolist(), int(table.begins[row])) for row in rows])
        return torch.from_numpy(features.astype(np.float64) @ self.head.weight + self.head.bias)


def _saved(model: "Classifier | HeadReader") -> Iterator[Check]:
    """Saved into a temporary folder, is it all there?"""
    size = sum(p.numel() * p.element_size() for p in model.model.parameters())
    if isinstance(model, Classifier) and (size > COPY_BYTES or model.precision == "4bit"):
        why = f"The model is large ({size / 1e9:.1f} GB), so it was not saved and loaded a second time."
        yield from (check(name, "skipped", why) for name in ("head-saved", "reloads-the-same"))
        return
    with tempfile.TemporaryDirectory(prefix="doctor-") as folder:
        try:
            if isinstance(model, Classifier):
                model.save(Path(folder))
                yield from examine_saved(model, Path(folder))
            else:
                yield from _saved_head(model, Path(folder))
        except OSError as error:
            why = f"The model could not be saved for a trial ({error.strerror or error})."
            yield from (check(name, "skipped", why) for name in ("head-saved", "reloads-the-same"))


def _saved_head(model: HeadReader, folder: Path) -> Iterator[Check]:
    model.head.save(folder, with_base_model=False)
    again = HeadModel.load(folder)
    yield check("head-saved", "ok", f"The head's {len(again.weight):,} weights are in head.safetensors.")
    table = model.tokenise([Response("", "", "Rain, again, and the roof knows every word."), Response("", "", "No.")])
    before = read(model, table, [0, 1])
    model.head, mine = again, model.head
    after = read(model, table, [0, 1])
    model.head = mine
    yield compared("reloads-the-same", "features", before, after, "Of 2 rewards of the reloaded head")
