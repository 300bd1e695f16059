"""python -m benchmarks.throughput --data FILE...: pairs a second and peak memory, ours beside what people use today.

Same machine, same weights (the bundled MiniLM with one output), same texts, fp32; every measurement is a process of its own
that loads, warms up, and times the work alone; the ways take turns, the table holds medians.

Scoring, texts to rewards:
  pipeline   transformers text-classification pipeline, batch_size 50, arrival order, chosen texts and then rejected ones
  trl        RewardTrainer.evaluate at its own batching (8 pairs); tokenising is not counted against it
  ours       Classifier.tokenise and .rewards over the distinct texts
  many       the same over whole groups until there are --share-texts of them: what a core does once it is under way
Training, one epoch over the same pairs, dropout off, AdamW:
  trl        RewardTrainer, fp32 and no gradient checkpointing (its defaults are bf16 and checkpointing: slower here), on
             token ids made beforehand; the better of its default of 8 pairs a step and of 32
  ours       fine_tune at batch_size 32: steps of at most 64 distinct texts and all pairs among them
  steps      fine_tune given trl's very batches of 8 pairs; its losses are compared with trl's, step by step
  frozen     as ours, with the lowest three layers frozen
Achieved FLOP/s count real tokens only, never padding (see flop), over the fastest matrix product found in the same run.
"""

import argparse
import json
import math
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ser_backend.errors import SerError
from ser_backend.records import Response
from ser_backend.transformer.classifier import Classifier
from ser_backend.transformer.fine_tune import fine_tune
from ser_backend.transformer.plan import Examples, Recipe
from ser_backend.transformer.tokens import SEPARATOR, TokenTable

PYTHON = [sys.executable, "-m", "benchmarks.throughput"]  # how a measurement is started
PIPELINE_BATCH = 50  # the paper's
TRL_BATCH = 8  # its default
TRL_LARGE_BATCH = 32
OUR_BATCH = 32
FROZEN = 3
LEARNING_RATE = 1e-4
CENTRING = 0.01
WARM_UP = 8  # texts, or pairs, before the clock starts
SHAPES = ((1024, 384, 1536), (1024, 384, 384), (2048, 2048, 2048))  # rows, inputs, outputs of the matrix products
MATMUL_S = 1.0  # each
SCORING = ("pipeline", "trl", "ours", "many")
TRAINING = ("trl", "trl-32", "ours", "steps", "frozen")
MODEL_CONFIGS: dict[str, dict[str, int]] = {  # decoders with random weights: speed does not depend on them
    "qwen-0.5b": {
        "vocab_size": 151_936, "hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14,
        "num_key_value_heads": 2, "intermediate_size": 4_864, "max_position_embeddings": 32_768,
    },
}  # fmt: skip


# ---- the pure parts


def whole_groups(rows: pd.DataFrame, n: int, random_seed: int = 0) -> pd.DataFrame:
    """Rows of whole groups, drawn at random, until there are at least n; in the order they arrived in.

    Whole groups, because responses to one prompt come together in real use; a random row of each would hide that.
    """
    sizes = rows.groupby("group").size()
    order = np.random.default_rng(random_seed).permutation(len(sizes))
    enough = int(np.searchsorted(sizes.to_numpy()[order].cumsum(), min(n, len(rows)))) + 1
    return rows[rows["group"].isin(sizes.index[order[:enough]])]


def distinct(rows: Sequence[dict[str, Any]]) -> tuple[list[Response], np.ndarray, np.ndarray]:
    """Each text once, and the numbers of the chosen and of the rejected ones."""
    number: dict[tuple[str, str], int] = {}
    ends = [
        np.array([number.setdefault((row["prompt"], row[side]), len(number)) for row in rows])
        for side in ("chosen", "rejected")
    ]
    return [Response(str(i), *key) for key, i in number.items()], ends[0], ends[1]


def enough_texts(rows: pd.DataFrame, n: int) -> pd.DataFrame:
    """Rows of whole groups until they hold n distinct texts, or all rows."""
    pairs = n // 2
    while True:
        chosen = whole_groups(rows, pairs)
        if len(chosen) == len(rows) or len(distinct(chosen.to_dict("records"))[0]) >= n:
            return chosen
        pairs *= 2


def flop(lengths: Sequence[int] | np.ndarray, layer_weights: int, head_weights: int, layers: int, width: int) -> float:
    """Floating-point operations of the matrix products of reading texts once.

    A token of a text of L tokens passes every weight of every layer (2 operations each), and its query meets L keys and
    L values of `width` numbers in every layer (4 L width). The head is passed once a text. Embeddings, norms,
    activations and padding count nothing; training counts three times as much (gradients by input and by weight).
    """
    found = np.asarray(lengths, np.float64)
    return float((2 * layer_weights * found + 4 * layers * width * found**2 + 2 * head_weights).sum())


def summary(found: dict[str, Any]) -> dict[str, Any]:
    """Medians and ratios of one data set. found: way -> list of results, for score and train; ceilings in FLOP/s."""

    def median(part: str, way: str, key: str) -> float | None:
        values = [result[key] for result in found[part].get(way, []) if result.get(key) is not None]
        return float(np.median(values)) if values else None

    made: dict[str, Any] = {}
    for part, ways in (("score", SCORING), ("train", TRAINING)):
        made[part] = {
            "pairs_per_second": {way: median(part, way, "pairs_per_second") for way in ways},
            "tokens_per_second": {way: median(part, way, "tokens_per_second") for way in ways},
            "peak_bytes": {way: median(part, way, "peak_bytes") for way in ways},
        }

    def ratio(part: str, way: str, *others: str) -> float | None:
        """Against the fastest of the others."""
        pace = made[part]["pairs_per_second"]
        against = [pace[other] for other in others if pace[other]]
        return pace[way] / max(against) if pace[way] and against else None

    ceiling = float(np.median(found["ceiling"])) if found["ceiling"] else None
    made["matmul_flops"] = ceiling
    made["score"]["ratio_to_pipeline"] = ratio("score", "ours", "pipeline")
    made["score"]["ratio_to_trl"] = ratio("score", "ours", "trl")
    made["train"]["ratio_to_trl"] = ratio("train", "ours", "trl", "trl-32")
    made["train"]["ratio_to_trl_same_steps"] = ratio("train", "steps", "trl")
    made["train"]["ratio_to_trl_frozen"] = ratio("train", "frozen", "trl", "trl-32")
    for part in ("score", "train"):
        few, many = median(part, "ours", "flops"), median(part, "many", "flops")
        made[part]["flops"] = achieved = many or few
        made[part]["share_of_matmul"] = achieved / ceiling if achieved and ceiling else None
        made[part]["share_of_matmul_same_texts"] = few / ceiling if few and ceiling else None
    made["max_reward_difference"] = _largest(found["score"], "ours", "pipeline", "rewards")
    made["max_loss_difference"] = _largest(found["train"], "steps", "trl", "losses")
    return made


def _largest(part: dict[str, list[dict[str, Any]]], one: str, other: str, key: str) -> float | None:
    if not part.get(one) or not part.get(other):
        return None
    mine, theirs = (np.asarray(part[way][0][key]) for way in (one, other))
    if mine.shape != theirs.shape:
        return float("nan")
    same = ~np.asarray(part[one][0].get("cut", np.zeros(mine.shape, bool)))
    return float(np.abs(mine - theirs)[same].max()) if same.any() else None


def table(results: dict[str, dict[str, Any]]) -> str:
    """Markdown. results: file -> summary."""
    lines = ["| set | work | way | pairs/s | tokens/s | peak MB | ours is |", "|---|---|---|---|---|---|---|"]
    for name, made in results.items():
        for part, ways in (("score", SCORING), ("train", TRAINING)):
            paces = made[part]["pairs_per_second"]
            for way in ways:
                if paces[way] is None:
                    continue
                times = "" if way in ("ours", "many", "steps", "frozen") else f"{paces['ours'] / paces[way]:.2f} x"
                tokens = f"{made[part]['tokens_per_second'][way]:,.0f}"
                peak = f"{made[part]['peak_bytes'][way] / 2**20:,.0f}"
                lines.append(f"| {name} | {part} | {way} | {paces[way]:.1f} | {tokens} | {peak} | {times} |")
    return "\n".join(lines)


# ---- the ways. Each: (folder of the model, rows, max_length) -> what was found; the clock runs in here.


def _clock(work: Callable[[], Any]) -> tuple[Any, float]:
    started = time.perf_counter()
    found = work()
    return found, time.perf_counter() - started


def _shape(model: Any) -> dict[str, int]:
    """layer_weights, head_weights, layers, width: what flop asks for."""
    import torch

    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    config = inner.config.get_text_config()
    linear = {n: m.weight.numel() for n, m in inner.named_modules() if isinstance(m, torch.nn.Linear)}
    inside = {n: size for n, size in linear.items() if ".layer" in n or ".h." in n}
    return {
        "layer_weights": sum(inside.values()),
        "head_weights": sum(linear.values()) - sum(inside.values()),
        "layers": config.num_hidden_layers,
        "width": config.hidden_size,
    }


def score_ours(folder: str, rows: list[dict[str, Any]], max_length: int) -> dict[str, Any]:
    model = Classifier.open(Path(folder))
    warm = model.tokenise([Response("", row["prompt"], row["chosen"]) for row in rows[:WARM_UP]])
    list(model.rewards(warm))

    def work() -> tuple[TokenTable, np.ndarray, np.ndarray, np.ndarray]:
        responses, chosen, rejected = distinct(rows)
        texts = model.tokenise(responses)
        rewards = np.empty(len(texts), np.float32)
        for places, found in model.rewards(texts):
            rewards[places] = found
        return texts, rewards, chosen, rejected

    (texts, rewards, chosen, rejected), seconds = _clock(work)
    return {
        "seconds": seconds,
        "flops": flop(texts.lengths, **_shape(model.model)) / seconds,
        "tokens": int(texts.lengths.sum()),
        "n_texts": len(texts),
        "rewards": np.concatenate([rewards[chosen], rewards[rejected]]).tolist(),
        "cut": _cut(texts, max_length)[np.concatenate([chosen, rejected])].tolist(),
    }


def _cut(texts: TokenTable, max_length: int) -> np.ndarray:
    """Texts whose response alone was too long: they keep its beginning here, its end in a pipeline that cuts on the left."""
    return (texts.lengths >= max_length) & (texts.begins <= 1)


def score_pipeline(folder: str, rows: list[dict[str, Any]], max_length: int) -> dict[str, Any]:
    from transformers import pipeline

    pipe = pipeline("text-classification", model=folder, device=-1)
    options = {"truncation": True, "max_length": max_length, "function_to_apply": "none", "batch_size": PIPELINE_BATCH}
    sides = [[_joined(row["prompt"], row[side]) for row in rows] for side in ("chosen", "rejected")]
    pipe(sides[0][:WARM_UP], **options)
    found, seconds = _clock(lambda: [pipe(texts, **options) for texts in sides])
    return {"seconds": seconds, "rewards": [each["score"] for side in found for each in side]}


def _joined(prompt: str, text: str) -> str:
    return prompt + SEPARATOR + text if prompt else text


def score_trl(folder: str, rows: list[dict[str, Any]], max_length: int) -> dict[str, Any]:
    trainer = _trl(folder, rows, TRL_BATCH, max_length)
    trainer.evaluate(trainer.train_dataset.select(range(min(len(rows), WARM_UP))))
    _, seconds = _clock(trainer.evaluate)
    return {"seconds": seconds}


def train_trl(folder: str, rows: list[dict[str, Any]], max_length: int, batch: int = TRL_BATCH) -> dict[str, Any]:
    trainer = _trl(folder, rows, batch, max_length)
    _, seconds = _clock(trainer.train)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {"seconds": seconds, "losses": losses, "steps": len(losses)}


def train_trl_large(folder: str, rows: list[dict[str, Any]], max_length: int) -> dict[str, Any]:
    return train_trl(folder, rows, max_length, TRL_LARGE_BATCH)


def train_ours(
    folder: str, rows: list[dict[str, Any]], max_length: int, frozen: int = 0, steps: list[np.ndarray] | None = None
) -> dict[str, Any]:
    model = Classifier.open(Path(folder))
    responses, chosen, rejected = distinct(rows)
    texts = model.tokenise(responses)
    recipe = Recipe(
        LEARNING_RATE, epochs=1, batch_size=OUR_BATCH, warmup=0, centring=CENTRING, frozen_layers=frozen, random_seed=0
    )

    def work() -> Any:
        return list(fine_tune(model, texts, Examples.of(chosen, rejected), recipe, steps=steps))[-1]

    told, seconds = _clock(work)
    read = sum(step.n_tokens for step in told.curve)
    # attention by the mean length would be wrong: count every epoch's texts as often as they were read
    share = read / int(texts.lengths.sum())
    return {
        "seconds": seconds,
        "flops": None if frozen else 3 * share * flop(texts.lengths, **_shape(model.model)) / seconds,
        "tokens": read,
        "losses": [step.loss for step in told.curve],
        "steps": told.total,
    }


def train_steps(folder: str, rows: list[dict[str, Any]], max_length: int) -> dict[str, Any]:
    return train_ours(folder, rows, max_length, steps=trl_batches(len(rows)))


def train_frozen(folder: str, rows: list[dict[str, Any]], max_length: int) -> dict[str, Any]:
    return train_ours(folder, rows, max_length, frozen=FROZEN)


def trl_batches(n: int) -> list[np.ndarray]:
    """The rows of each of trl's steps, as _trl orders them."""
    order = trl_order(n)
    return [order[i : i + TRL_BATCH] for i in range(0, n, TRL_BATCH)]


def trl_order(n: int) -> np.ndarray:
    return np.random.default_rng(0).permutation(n)


def _trl(folder: str, rows: list[dict[str, Any]], batch: int, max_length: int) -> Any:
    """A RewardTrainer on our token ids, its rows in trl_order: shuffled, as it would, but known to us."""
    import datasets
    import torch
    from transformers import AutoModelForSequenceClassification
    from trl import RewardConfig, RewardTrainer

    datasets.disable_progress_bars()
    ours = Classifier.open(Path(folder))
    responses, chosen, rejected = distinct(rows)
    texts = ours.tokenise(responses)
    order = trl_order(len(rows))
    ids = [
        {"chosen_ids": texts.text(chosen[i]).tolist(), "rejected_ids": texts.text(rejected[i]).tolist()} for i in order
    ]
    data = datasets.Dataset.from_list(ids)
    tokenizer = ours.tokenizer
    if tokenizer.eos_token is None:
        tokenizer.eos_token = tokenizer.sep_token
    del ours

    class InOrder(RewardTrainer):
        def _get_train_sampler(self, *_: Any) -> Any:
            return torch.utils.data.SequentialSampler(data)

    args = RewardConfig(
        output_dir=tempfile.mkdtemp(dir=folder),
        per_device_train_batch_size=batch,
        per_device_eval_batch_size=batch,
        num_train_epochs=1,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="linear",
        warmup_steps=0,
        center_rewards_coefficient=CENTRING,
        max_length=max_length,
        bf16=False,
        gradient_checkpointing=False,
        disable_dropout=True,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        pad_to_multiple_of=None,
    )
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    return InOrder(model, args, train_dataset=data, eval_dataset=data, processing_class=tokenizer)


def ceiling() -> dict[str, Any]:
    """FLOP/s of the fastest fp32 matrix product: every core for itself and all together, by torch.mm and by oneDNN."""
    import torch

    from ser_backend.transformer.cores import SideBySide

    def pace(multiply: Callable[[], Any], operations: int) -> float:
        multiply()
        count, started = 0, time.perf_counter()
        while (seconds := time.perf_counter() - started) < MATMUL_S:
            multiply()
            count += 1
        return count * operations / seconds

    def products(shape: tuple[int, int, int]) -> dict[str, Callable[[], Any]]:
        n, inputs, outputs = shape
        x, weight = torch.randn(n, inputs), torch.randn(outputs, inputs)
        ways: dict[str, Callable[[], Any]] = {"mm": lambda: torch.mm(x, weight.t())}
        if hasattr(torch.ops.mkldnn, "_reorder_linear_weight"):
            laid = torch.ops.mkldnn._reorder_linear_weight(weight)
            ways["onednn"] = lambda: torch.ops.mkldnn._linear_pointwise(x, laid, None, "none", [], "")
        return ways

    def apart(multiply: Callable[[], Any], operations: int) -> float:
        def alone(_: int) -> float:
            with torch.inference_mode():
                return pace(multiply, operations)

        with SideBySide("cpu") as cores:
            return sum(cores.map(alone, range(cores.workers)))

    found: dict[str, float] = {}
    for shape in SHAPES:
        operations = 2 * math.prod(shape)
        for name, multiply in products(shape).items():
            with torch.inference_mode():
                together = pace(multiply, operations)
            found[f"{name} {'x'.join(map(str, shape))}"] = max(together, apart(multiply, operations))
    return {"flops": max(found.values()), "each": found}


WAYS: dict[str, Callable[..., dict[str, Any]]] = {
    "score pipeline": score_pipeline, "score trl": score_trl, "score ours": score_ours, "score many": score_ours,
    "train trl": train_trl, "train trl-32": train_trl_large, "train ours": train_ours, "train steps": train_steps,
    "train frozen": train_frozen,
}  # fmt: skip


# ---- GPU


def gpu(config: str, rows: list[dict[str, Any]], max_length: int, folder: Path) -> dict[str, Any]:
    """Scoring and LoRA training of a decoder with random weights, and their shares of the bf16 matrix rate."""
    import torch

    decoder(MODEL_CONFIGS[config], rows, folder)
    model = Classifier.load(str(folder), max_length=max_length, fit="lora")
    responses, chosen, rejected = distinct(rows)
    texts = model.tokenise(responses)
    list(model.rewards(texts, range(WARM_UP)))
    _, scoring = _clock(lambda: list(model.rewards(texts)))
    recipe = Recipe(epochs=1, batch_size=OUR_BATCH)
    _, training = _clock(lambda: list(fine_tune(model, texts, Examples.of(chosen, rejected), recipe)))
    operations = flop(texts.lengths, **_shape(model.model))
    n = 8_192
    a, b = (torch.randn(n, n, dtype=torch.bfloat16, device=model.device) for _ in range(2))
    for _ in range(3):
        a @ b
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(20):
        a @ b
    torch.cuda.synchronize()
    rate = 20 * 2 * n**3 / (time.perf_counter() - started)
    return {
        "model": config,
        "device": torch.cuda.get_device_name(),
        "matmul_flops": rate,
        "score": {"pairs_per_second": len(rows) / scoring, "share_of_matmul": operations / scoring / rate},
        # LoRA: forward and gradients by input; the frozen weights need none by weight, so twice and not three times
        "train": {"pairs_per_second": len(rows) / training, "share_of_matmul": 2 * operations / training / rate},
        "peak_bytes": torch.cuda.max_memory_allocated(),
    }


def decoder(facts: dict[str, int], rows: list[dict[str, Any]], folder: Path) -> None:
    """Write a Qwen2 kind with random weights, and a tokeniser of the words of these rows."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForSequenceClassification

    core = Tokenizer(models.WordLevel(unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    specials = ["<pad>", "<end>", "<unk>"]
    trainer = trainers.WordLevelTrainer(vocab_size=facts["vocab_size"], special_tokens=specials, show_progress=False)
    core.train_from_iterator((_joined(row["prompt"], row["chosen"]) for row in rows), trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<end>", unk_token="<unk>")
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    options: dict[str, Any] = {**facts, "num_labels": 1, "pad_token_id": 0, "eos_token_id": 1}
    model: Any = Qwen2ForSequenceClassification(Qwen2Config(**options))
    model.bfloat16().save_pretrained(folder)


# ---- the run


def read(file: str) -> pd.DataFrame:
    """The training part, where the file tells it apart. Raises SerError when columns are missing."""
    rows = pd.read_json(file, lines=True, dtype=False)
    if missing := {"prompt", "chosen", "rejected"} - set(rows.columns):
        raise SerError(
            f"{file} lacks the columns {', '.join(sorted(missing))}; needed are prompt, chosen and rejected."
        )
    if "split" in rows and (rows["split"] == "train").any():
        rows = rows[rows["split"] == "train"]
    if "group" not in rows:
        rows["group"] = rows["prompt"].where(rows["prompt"] != "", rows.index.astype(str))
    return rows[["prompt", "chosen", "rejected", "group"]]


def measured(way: str, folder: Path, rows: Path | None, max_length: int) -> dict[str, Any]:
    """One measurement in a process of its own; pairs a second and peak memory are added to what it found."""
    out = folder / "result.json"
    given = ["--one", way, "--folder", str(folder), "--max-length", str(max_length), "--json", str(out)]
    told = subprocess.run(
        [*PYTHON, *given, "--data", str(rows or "")],
        capture_output=True,
        text=True,
        env=os.environ | {"TOKENIZERS_PARALLELISM": "true", "HF_HUB_OFFLINE": "1"},
    )
    if told.returncode:
        raise SerError(f"The measurement {way!r} failed: {told.stderr.strip().splitlines()[-1:] or 'no reason given'}")
    return json.loads(out.read_text())


def one(way: str, folder: str, rows: str, max_length: int, out: Path) -> None:
    """Inside the process of one measurement."""
    if way == "ceiling":
        out.write_text(json.dumps(ceiling()))
        return
    pairs = json.loads(Path(rows).read_text())
    found = WAYS[way](f"{folder}/model", pairs, max_length)
    found["pairs_per_second"] = len(pairs) / found["seconds"]
    if "tokens" not in found:
        found["tokens"] = None
    found["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    out.write_text(json.dumps(found))


def run(args: argparse.Namespace) -> dict[str, Any]:
    results: dict[str, Any] = {}
    raw: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model").mkdir()
        model = Classifier.load("bundled", max_length=args.max_length, fit=args.fit)
        model.save(folder / "model")
        for file in args.data:
            title = Path(file).name.split(".")[0]
            everything = read(file)
            found: dict[str, Any] = {"ceiling": [], "score": {}, "train": {}}
            paths = {}
            for part, n in (("score", args.pairs), ("train", args.train_pairs)):
                chosen = whole_groups(everything, n).drop(columns="group").to_dict("records")
                paths[part] = folder / f"{part}.json"
                paths[part].write_text(json.dumps(chosen))
                responses, _, _ = distinct(chosen)
                found[f"{part}_pairs"], found[f"{part}_texts"] = len(chosen), len(responses)
            many = enough_texts(everything, args.share_texts).drop(columns="group").to_dict("records")
            paths["many"] = folder / "many.json"
            paths["many"].write_text(json.dumps(many))
            for way in _turns(args.repeats):
                if way == "ceiling":
                    found["ceiling"].append(measured(way, folder, None, args.max_length)["flops"])
                    continue
                part, short = way.split()
                new = measured(way, folder, paths["many" if short == "many" else part], args.max_length)
                found[part].setdefault(short, []).append(new)
                _tell(f"{title} {way}: {new['pairs_per_second']:.2f} pairs/s, load {os.getloadavg()[0]:.1f}")
            _count_tokens(found)
            results[title] = summary(found) | {
                key: found[key] for key in ("score_pairs", "score_texts", "train_pairs", "train_texts")
            }
            raw[title] = _without_long_lists(found)
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": _versions(),
        "sets": results,
        "raw": raw,
    }


def _turns(repeats: int) -> Iterator[str]:
    """Every way once, in turn, `repeats` times: a slow spell of the machine falls on all of them."""
    for _ in range(repeats):
        yield "ceiling"
        yield from WAYS


def _count_tokens(found: dict[str, Any]) -> None:
    """Tokens a second of the work asked for: the texts of all pairs, however a way came by its rewards."""
    for part in ("score", "train"):
        own = {way: results[0].get("tokens") for way, results in found[part].items()}
        for way, results in found[part].items():
            for result in results:
                tokens = own[way] or own.get("steps") or own.get("ours") or 0
                result["tokens_per_second"] = tokens / result["seconds"]


def _without_long_lists(found: Any) -> Any:
    if isinstance(found, dict):
        return {key: _without_long_lists(value) for key, value in found.items() if key not in ("rewards", "cut")}
    return [_without_long_lists(value) for value in found] if isinstance(found, list) else found


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "transformers", "trl", "numpy")}


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.throughput", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--data", nargs="+", required=True, help="JSON lines with prompt, chosen, rejected (and group, split)"
    )
    parser.add_argument("--pairs", type=int, default=400, help="pairs to score; whole groups until there are so many")
    parser.add_argument("--train-pairs", type=int, default=160, help="pairs to train on, likewise")
    parser.add_argument("--share-texts", type=int, default=480, help="distinct texts of the way *many*")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--fit", choices=("full",), default="full")
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--model-config", choices=sorted(MODEL_CONFIGS), default="qwen-0.5b", help="with --device cuda")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.one:
        one(args.one, args.folder, args.data[0], args.max_length, args.json)
        return 0
    try:
        result = _on_gpu(args) if args.device == "cuda" else run(args)
    except SerError as error:
        _tell(str(error))
        return 1
    if args.device == "cpu":
        print(table(result["sets"]))
    print(json.dumps(result if args.device == "cuda" else _figures(result["sets"]), indent=1))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1))
    return 0


def _on_gpu(args: argparse.Namespace) -> dict[str, Any]:
    import torch

    if not torch.cuda.is_available():
        raise SerError(
            "No CUDA GPU was found here, so the GPU figures cannot be measured; everything else runs on CPU."
        )
    with tempfile.TemporaryDirectory() as folder:
        rows = whole_groups(read(args.data[0]), args.pairs).drop(columns="group").to_dict("records")
        return gpu(args.model_config, rows, args.max_length, Path(folder))


def _figures(sets: dict[str, Any]) -> dict[str, Any]:
    keys = ("ratio_to_pipeline", "ratio_to_trl", "ratio_to_trl_same_steps", "ratio_to_trl_frozen", "share_of_matmul")
    keys += ("share_of_matmul_same_texts",)
    return {
        name: {part: {key: made[part][key] for key in keys if key in made[part]} for part in ("score", "train")}
        | {key: made[key] for key in ("max_reward_difference", "max_loss_difference", "matmul_flops")}
        for name, made in sets.items()
    }


if __name__ == "__main__":
    sys.exit(main())
