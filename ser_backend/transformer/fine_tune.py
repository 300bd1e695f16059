"""Fine-tuning a Classifier on pairs: Bradley-Terry loss, exact gradients, every distinct text read once a step.

Loss of a pair with margin m = reward(preferred) - reward(other):
    weight * (-t log sigmoid(m - d) - (1 - t) log sigmoid(-(m - d))) + centring * (reward(preferred) + reward(other))^2
t: probability that the preferred one is better (1, less smoothing); d: margin wanted. The mean over a step's pairs is
descended by AdamW with a linear schedule. A step holds at most 2 x batch_size distinct texts and all pairs among them, so a
group of responses to one prompt trains on all its pairs at the cost of its texts; with unshared texts it is batch_size
pairs. Gradients are those of the whole step, however it is cut to fit memory, and nothing depends on where a stopped
training goes on. Knows no runs, stores or files but its checkpoint.
"""

import hashlib
import json
import math
import shutil
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ser_backend import home
from ser_backend.errors import SerError, is_out_of_memory
from ser_backend.transformer import shared_prompt
from ser_backend.transformer.classifier import Classifier
from ser_backend.transformer.cores import SideBySide
from ser_backend.transformer.plan import Examples, Recipe, components, evenly, plan_steps, schedule
from ser_backend.transformer.prefix import Prefix
from ser_backend.transformer.shared_prompt import Batch
from ser_backend.transformer.tokens import Rows, TokenTable

CHECKPOINT_S = 60.0
FORWARD_TOKENS = {"cpu": 512, "cuda": 16_384}  # read as one padded batch; small ones need little padding
GRAPH_TOKENS = {"cpu": 8_192, "cuda": 65_536}  # whose activations are in memory together
# shares of those that are differentiated at a time; fixed, so that sums are the same anywhere
LANES = {"cpu": 8, "cuda": 1}
LARGE_EMBEDDING = 1 << 20  # numbers from which on its gradient is kept for the words that occur alone
CLIP = 1.0  # largest gradient norm


class Step(NamedTuple):
    loss: float  # mean over the step's pairs, centring included
    accuracy: float  # share of the step's pairs told right before the step, equal rewards half
    n_pairs: int
    n_texts: int
    n_tokens: int
    seconds: float


@dataclass
class Trained:
    """What is told while training goes on, and at its end."""

    done: int
    total: int
    curve: list[Step] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return sum(step.seconds for step in self.curve)


def fine_tune(
    model: Classifier,
    table: TokenTable,
    examples: Examples,
    recipe: Recipe,
    *,
    steps: list[np.ndarray] | int | None = None,
    checkpoint: Path | None = None,
) -> Generator[Trained, None, Trained]:
    """Train in place; yield after every step, return the whole.

    steps: a plan of one's own, or how many steps to take. checkpoint: a folder; training that was cut off there goes on,
    bit for bit as if it had not been, provided model, pairs and recipe are the same. Closing the generator writes a
    checkpoint. Raises SerError when the loss is not finite, or not even one text at a time fits in memory.
    """
    plan = steps if isinstance(steps, list) else plan_steps(examples, recipe, steps)
    tutor = _Tutor(model, table, examples, recipe, plan)
    told = Trained(0, len(plan), notes=tutor.notes)
    digest = _digest(model, table, examples, recipe, plan) if checkpoint else ""
    if checkpoint:
        told.curve += tutor.restore(checkpoint, digest)
        told.done = len(told.curve)
    with ExitStack() as stack:
        tutor.open(stack)
        yield told
        written = time.monotonic()
        try:
            while told.done < told.total:
                told.curve.append(tutor.step(told.done))
                told.done += 1
                if checkpoint and told.done < told.total and time.monotonic() - written > CHECKPOINT_S:
                    try:
                        tutor.write(checkpoint, digest, told.curve)
                    except (SerError, OSError) as error:  # a full disk: what is trained is worth more
                        if str(error) not in told.notes:
                            told.notes.append(str(error))
                    written = time.monotonic()
                yield told
        except GeneratorExit:
            if checkpoint and told.done < told.total:
                tutor.write(checkpoint, digest, told.curve)
            raise
    model.model.eval()
    model.new_head = False
    return told


class _Tutor:
    """One training: parameters, optimiser, and how a step is cut to fit."""

    def __init__(
        self, model: Classifier, table: TokenTable, examples: Examples, recipe: Recipe, plan: list[np.ndarray]
    ) -> None:
        import torch
        from accelerate.utils import set_seed

        self.model, self.table, self.examples, self.recipe, self.plan = model, table, examples, recipe, plan
        self.notes: list[str] = []
        self.prefix = Prefix(model.model, recipe.frozen_layers) if recipe.frozen_layers else None
        self.stand: Any = None
        self.named = model.trainable()
        self.parameters = list(self.named.values())
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, betas=(0.9, 0.999), fused=True
        )
        self.forward_tokens, self.graph_tokens = FORWARD_TOKENS[model.device], GRAPH_TOKENS[model.device]
        self.weight = examples.weight / examples.weight.mean()
        self.target = np.minimum(examples.target, 1 - recipe.smoothing)
        self.lengths = table.lengths
        # Dropout would be drawn once for all texts of a row, and frozen layers' output is kept text by text. Measured now, on
        # the weights that a resumed training begins with, too: the last bits depend on it.
        self.longest_row = 0 if recipe.dropout > 0 or recipe.frozen_layers else model.longest_row
        set_seed(recipe.random_seed)
        self._set_dropout()

    def _set_dropout(self) -> None:
        """Off: evaluation mode, which reads every batch alike. On: every dropout of model and adapters at the rate asked."""
        import torch

        self.model.model.train(self.recipe.dropout > 0)
        if self.recipe.dropout > 0:
            for module in self.model.model.modules():
                if isinstance(module, torch.nn.Dropout):
                    module.p = self.recipe.dropout
                if isinstance(rate := getattr(module, "attention_dropout", None), float):
                    module.attention_dropout = self.recipe.dropout if rate else rate

    def open(self, stack: ExitStack) -> None:
        """Take the cores, and compute the frozen layers' output."""
        if self.model.device == "cpu":
            stack.enter_context(self._short_gradients())
        serial = self.recipe.dropout > 0  # dropout draws from one generator, in an order that must not vary
        self.cores = stack.enter_context(SideBySide("serial" if serial else self.model.device))
        if not self.prefix or serial:
            return
        rows = np.unique(np.concatenate([self.examples.preferred, self.examples.other]))

        def forward(some: Rows) -> Any:
            return self.model.forward(self.table, some)

        if not self.prefix.can_be_left_out(self.table, rows, forward):
            self.notes.append(
                "The frozen layers' output could not be kept for this model; they are computed every step."
            )
            return
        kept = self.prefix.kept(self.table, rows, forward, self.forward_tokens, self.cores)
        if kept is None:
            self.notes.append("The frozen layers' output is too large to keep; they are computed anew in every step.")
            return
        self.stand = stack.enter_context(self.prefix.replaced_by(kept))

    @contextmanager
    def _short_gradients(self) -> Iterator[None]:
        """A step meets few of the vocabulary's words: zeros for all of them, per piece, cost a tenth of the time."""
        import torch

        large = [
            module
            for module in self.model.model.modules()
            if type(module) is torch.nn.Embedding
            and module.weight.requires_grad
            and module.weight.numel() >= LARGE_EMBEDDING
            and not module.sparse
        ]
        try:
            for module in large:
                module.sparse = True
            yield
        finally:
            for module in large:
                module.sparse = False

    # ---- one step

    def step(self, number: int) -> Step:
        """Loss, gradients, update. Out of memory: smaller pieces, the same step again."""
        import torch

        started = time.perf_counter()
        while True:
            try:
                loss, hits, texts = self._gradients(number)
                break
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                self._smaller(error)
        size = torch.nn.utils.clip_grad_norm_(self.parameters, CLIP)
        if not math.isfinite(loss) or not torch.isfinite(size):
            raise SerError(
                f"The loss or its gradient was not finite (NaN or infinity) at step {number + 1} of {len(self.plan)}; nothing "
                f"of this training was kept. Lower the learning rate (it is {self.recipe.learning_rate:g}), or use "
                "precision=float32."
            )
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate * schedule(number, len(self.plan), self.recipe.warmup)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        n = len(self.plan[number])
        seconds = time.perf_counter() - started
        return Step(loss, hits / n, n, len(texts), int(self.lengths[texts].sum()), seconds)

    def _gradients(self, number: int) -> tuple[float, float, np.ndarray]:
        """Fill .grad with the gradient of the step's mean loss. Returns the loss, pairs told right, and the texts read."""
        pairs = self.plan[number]
        self.optimizer.zero_grad(set_to_none=True)
        loss, hits = 0.0, 0.0
        for place, group in enumerate(self._groups(pairs)):
            part, right = self._group(number, place, group, len(pairs))
            loss, hits = loss + part, hits + right
        return loss, hits, self._texts(pairs)

    def _groups(self, pairs: np.ndarray) -> list[np.ndarray]:
        """The step's pairs in sets of like size that are differentiated together: pairs that share a text never fall apart."""
        mine = Examples.of(self.examples.preferred[pairs], self.examples.other[pairs])
        component, _ = components(mine)
        members = [pairs[component == number] for number in range(component.max() + 1)]
        cost = [int(self.lengths[self._texts(one)].sum()) for one in members]
        n = min(len(cost), -(-sum(cost) // self.graph_tokens))
        while True:
            found = evenly(cost, n)
            if n == len(cost) or all(sum(cost[i] for i in one) <= self.graph_tokens for one in found if len(one) > 1):
                return [np.concatenate([members[i] for i in one]) for one in found]
            n += 1

    def _texts(self, pairs: np.ndarray) -> np.ndarray:
        return np.unique(np.concatenate([self.examples.preferred[pairs], self.examples.other[pairs]]))

    def _group(self, number: int, place: int, pairs: np.ndarray, n: int) -> tuple[float, float]:
        """Add a set's gradient to .grad: rewards of pieces side by side, the loss, then the pieces backwards by the chain rule.

        A set too large for memory is read twice (Gao et al. 2021): first for its rewards, then piece by piece.
        """
        import torch

        texts = self._texts(pairs)
        # in the end, when memory is short, a row is no longer than the longest text
        most = min(self.longest_row, shared_prompt.TIMES * self.forward_tokens, self.graph_tokens)
        pieces = shared_prompt.plan(self.table, texts, self.forward_tokens, most)
        where = np.empty(int(texts.max()) + 1, np.int64)
        where[np.concatenate([piece.texts for piece in pieces])] = np.arange(len(texts))
        fits = sum(piece.tokens for piece in pieces) <= self.graph_tokens

        def read(piece: int) -> Any:
            with torch.set_grad_enabled(fits):
                return self._forward(pieces[piece], number, place, piece)

        found = list(self.cores.map(read, range(len(pieces))))
        rewards = torch.cat([part.detach() for part in found]).requires_grad_(True)
        loss, hits = self._loss(rewards, where, pairs, n)
        by_reward = torch.autograd.grad(loss, rewards)[0].split([len(piece.texts) for piece in pieces])

        def backwards(lane: list[int]) -> Sequence[Any]:
            ends = [found[piece] if fits else self._forward(pieces[piece], number, place, piece) for piece in lane]
            begun = [by_reward[piece] for piece in lane]
            return torch.autograd.grad(ends, self.parameters, begun, allow_unused=True)

        sizes = [piece.size for piece in pieces]
        lanes = evenly(sizes, min(LANES[self.model.device], len(pieces))) if fits else [[i] for i in range(len(pieces))]
        for gradients in self.cores.map(backwards, lanes):
            self._add(gradients)
        return loss.item(), hits

    def _add(self, gradients: Sequence[Any]) -> None:
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            if gradient is None:
                continue
            if parameter.grad is None:
                dense = gradient.to_dense() if gradient.is_sparse else gradient
                parameter.grad = dense.to(parameter.dtype)
            else:
                parameter.grad.add_(gradient)

    def _forward(self, piece: Batch, number: int, place: int, part: int) -> Any:
        import torch

        if self.recipe.dropout > 0:  # the same draws whenever this piece is read again: after a resume, or twice
            draws = np.random.SeedSequence([self.recipe.random_seed, number, place, part])
            torch.manual_seed(int(draws.generate_state(1, np.uint64)[0] >> 1))
        if self.stand:
            self.stand.show(piece.texts)
        return self.model.read(self.table, piece)

    def _loss(self, rewards: Any, where: np.ndarray, pairs: np.ndarray, n: int) -> tuple[Any, float]:
        import torch

        def tensor(values: np.ndarray) -> Any:
            return torch.from_numpy(values).to(rewards.device)

        preferred = rewards[tensor(where[self.examples.preferred[pairs]])]
        other = rewards[tensor(where[self.examples.other[pairs]])]
        margin = preferred - other
        target = tensor(self.target[pairs])
        asked = margin - tensor(self.examples.margin[pairs])
        loss = -target * torch.nn.functional.logsigmoid(asked) - (1 - target) * torch.nn.functional.logsigmoid(-asked)
        total = (tensor(self.weight[pairs]) * loss).sum() + self.recipe.centring * ((preferred + other) ** 2).sum()
        hits = float((margin > 0).sum() + 0.5 * (margin == 0).sum())
        return total / n, hits

    def _smaller(self, error: Exception) -> None:
        import torch

        self.optimizer.zero_grad(set_to_none=True)
        if self.model.device == "cuda":
            torch.cuda.empty_cache()
        longest = int(self.lengths.max())
        if self.graph_tokens <= longest:
            raise SerError(
                f"Training {self.model.name!r} does not fit in memory, even one text at a time (up to {longest:,} tokens). "
                "Lower max_length, use fit=lora, or choose a smaller base model."
            ) from error
        self.forward_tokens = min(self.forward_tokens, max(longest, self.forward_tokens // 2))
        self.graph_tokens = max(longest, self.graph_tokens // 2)

    # ---- checkpoints

    def write(self, folder: Path, digest: str, curve: list[Step]) -> None:
        """folder/step-N, whole or not at all; older ones go."""
        from safetensors.torch import save_file

        with home.atomic_folder(folder / f"step-{len(curve):07d}") as temporary:
            moments: dict[str, Any] = {}
            for name, parameter in self.named.items():
                for key, value in self.optimizer.state[parameter].items():
                    moments[f"{key} {name}"] = value.contiguous()
            parameters = {name: parameter.detach().contiguous() for name, parameter in self.named.items()}
            save_file(parameters, temporary / "parameters.safetensors")
            save_file(moments, temporary / "optimizer.safetensors")
            facts = {"digest": digest, "forward": self.forward_tokens, "graph": self.graph_tokens, "curve": curve}
            (temporary / "state.json").write_text(json.dumps(facts))
        for old in folder.glob("step-[0-9]*"):
            if old.name != f"step-{len(curve):07d}":  # one of another training may be further on
                shutil.rmtree(old, ignore_errors=True)

    def restore(self, folder: Path, digest: str) -> list[Step]:
        """The curve up to the newest checkpoint of this very training; [] when there is none."""
        import torch
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        for found in sorted(folder.glob("step-[0-9]*"), reverse=True):
            try:
                facts = json.loads((found / "state.json").read_text())
                if facts["digest"] != digest:
                    continue
                parameters = load_file(found / "parameters.safetensors", self.model.device)
                moments = load_file(found / "optimizer.safetensors", self.model.device)
                curve = [Step(*step) for step in facts["curve"]]
                forward, graph = int(facts["forward"]), int(facts["graph"])
                if (
                    parameters.keys() != self.named.keys()
                    or not {key.partition(" ")[2] for key in moments} <= self.named.keys()
                ):
                    raise ValueError("other parameters")
            except (OSError, ValueError, KeyError, TypeError, SafetensorError):
                self.notes.append(f"A checkpoint ({found.name}) was damaged and could not be used.")
                continue
            with torch.no_grad():
                for name, parameter in self.named.items():
                    parameter.copy_(parameters[name])
            for key, value in moments.items():
                kind, _, name = key.partition(" ")
                self.optimizer.state[self.named[name]][kind] = value
            self.forward_tokens, self.graph_tokens = forward, graph
            return curve
        return []


def _digest(model: Classifier, table: TokenTable, examples: Examples, recipe: Recipe, plan: list[np.ndarray]) -> str:
    found = hashlib.blake2b(digest_size=16)
    found.update(json.dumps([model.fingerprint, model.precision, model.fit, asdict(recipe)]).encode())
    ends = np.array([len(step) for step in plan])
    fields = (getattr(examples, name) for name in examples.__dataclass_fields__)
    for array in (table.ids, table.starts, *fields, ends, *plan):
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()
