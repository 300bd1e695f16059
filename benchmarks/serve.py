"""python -m benchmarks.serve: rewards a second over HTTP beside the same texts offline, on this machine, in the same run.

Texts are made from words by chance (30 to 300 of them, a prompt of 10), the same for every way; the model is a linear head with
random weights on the bundled base model, or one that --model names. Ways take turns, the table holds medians:
  offline     all texts at once, as `score` reads them (sorted by length, batches of so many tokens), nothing cached
  served      a server process, so many clients at once, each sending so many texts a request, one request after another
Clients, server and model share the cores. Rewards of both ways are compared.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import requests

from benchmarks import real_page
from ser_backend.records import Response
from ser_backend.reward_model import HeadModel
from ser_backend.scorer.model import Shelf
from ser_backend.transformer.features import Backbone

WORDS = (
    "the",
    "of",
    "a",
    "to",
    "model",
    "answer",
    "question",
    "reason",
    "water",
    "heat",
    "because",
    "it",
    "is",
    "light",
)
WAYS = ((1, 8), (8, 4), (16, 4), (32, 4), (128, 2))  # texts a request, clients


def texts(n: int) -> list[Response]:
    random = np.random.default_rng(0)

    def some(low: int, high: int) -> str:
        return " ".join(random.choice(WORDS, random.integers(low, high)))

    return [Response("", some(8, 12), some(30, 300)) for _ in range(n)]


def head(folder: Path) -> str:
    """A reward head with random weights on the bundled base model."""
    backbone = Backbone.load()
    weight = np.random.default_rng(0).normal(0, 0.01, backbone.width)
    HeadModel(weight, 0.0, backbone.name, backbone.fingerprint, backbone.max_length).save(folder, with_base_model=False)
    return str(folder)


def offline(shelf: Shelf, model: str, some: list[Response]) -> tuple[float, np.ndarray]:
    opened = shelf.model(model)
    began = time.perf_counter()
    found = opened.rewards(some)[:, 0]
    return len(some) / (time.perf_counter() - began), found


def served(address: str, some: list[Response], size: int, clients: int) -> tuple[float, np.ndarray]:
    parts = [range(begin, min(begin + size, len(some))) for begin in range(0, len(some), size)]
    found = np.empty(len(some))
    sessions = [requests.Session() for _ in range(clients)]

    def one(client: int) -> None:
        for part in parts[client::clients]:
            items = [{"prompt": some[row].prompt, "response": some[row].text} for row in part]
            answer = sessions[client].post(f"{address}/score", json={"items": items}, timeout=600)
            answer.raise_for_status()
            found[list(part)] = answer.json()["rewards"]

    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(one, range(clients)))
    return len(some) / (time.perf_counter() - began), found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="whatever `serve` takes")
    parser.add_argument("--texts", type=int, default=512)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    some = texts(chosen.texts)
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as folder:
        model = chosen.model or head(Path(folder))
        command = [sys.executable, "-m", "ser_backend", "serve", model, "--port", "0", "--threads", str(threads)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            line = next(line for line in child.stdout if "http://" in line)
            address = line.split(" at ")[1].split()[0]
            try:
                shelf = Shelf(threads)
                offline(shelf, model, some[:32])
                served(address, some[:32], 8, 4)
                pace: dict[str, list[float]] = {}
                furthest = 0.0
                for _ in range(chosen.turns):
                    speed, expected = offline(shelf, model, some)
                    pace.setdefault("offline", []).append(speed)
                    for size, clients in WAYS:
                        speed, found = served(address, some, size, clients)
                        pace.setdefault(f"served, {clients} clients with {size} texts a request", []).append(speed)
                        furthest = max(furthest, float(np.abs(found - expected).max()))
            finally:
                child.terminate()
    print(f"{real_page.machine()}, {threads} threads, {len(some)} texts, {chosen.turns} turns")
    base = statistics.median(pace["offline"])
    for way, speeds in pace.items():
        middle = statistics.median(speeds)
        print(f"  {way:<46} {middle:7.1f} texts/s  {middle / base:5.0%}  ({min(speeds):.1f} to {max(speeds):.1f})")
    print(f"  largest difference of a reward: {furthest:.1e}; spread of rewards {expected.std():.2f}")
    if chosen.json:
        every = {way: [round(speed, 2) for speed in speeds] for way, speeds in pace.items()}
        facts = {"texts_per_s": every, "largest_difference": furthest, "spread": float(expected.std())}
        chosen.json.write_text(json.dumps(facts | {"machine": real_page.machine()}, indent=1))


if __name__ == "__main__":
    main()
