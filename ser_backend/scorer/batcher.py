"""Many questions at once, one model: texts that wait are merged, sorted by length and read in batches of so many tokens.

A thread of its own asks the model (which sorts and batches what it is given); callers hold futures. A long question does not
hold up a short one: texts are taken as they came, PASS at a time.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ser_backend.errors import SerError
from ser_backend.records import Response
from ser_backend.scorer.model import Model, Read, Shelf

PASS = 128  # texts given to the model at a time: enough to be sorted, few enough that nobody waits long
GATHER_S = 0.004  # a lone text waits so long for company
MOST_WAITING = 4_096  # texts


class Busy(SerError):
    """Too many texts wait; ask again after `seconds`."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"Too many texts wait to be rewarded. Ask again in {seconds} s, or send fewer at a time.")
        self.seconds = seconds


@dataclass(frozen=True, slots=True)
class Answer:
    rewards: np.ndarray  # float64 (n, arms), see Model.rewards
    read: tuple[Read, ...]
    kind: str
    max_length: int
    notes: tuple[str, ...]


@dataclass(eq=False)
class _Question:
    name: str
    responses: Sequence[Response]
    work: Callable[[Model], Any] | None = None  # instead of rewards: something else to be done with the model
    future: "Future[Any]" = field(default_factory=Future)
    taken: int = 0
    parts: list[np.ndarray] = field(default_factory=list)
    read: list[Read] = field(default_factory=list)


class Batcher:
    def __init__(self, shelf: Shelf, most_waiting: int = MOST_WAITING) -> None:
        self.shelf, self.most_waiting = shelf, most_waiting
        self.passes = self.done = 0  # how often the model was asked, and for how many texts
        self.last_used = time.monotonic()
        self.pace = 50.0  # texts a second, lately
        self._waiting: deque[_Question] = deque()
        self._n = 0  # texts that wait
        self._changed = threading.Condition()
        self._leaving = self._answering = False
        self._thread = threading.Thread(target=self._serve, name="batcher", daemon=True)
        self._thread.start()

    def ask(self, name: str, responses: Sequence[Response]) -> "Future[Answer]":
        """Raises Busy when too many wait. The future raises SerError when the model cannot answer."""
        return self._queue(_Question(name, responses))

    def do(self, name: str, work: Callable[[Model], Any]) -> "Future[Any]":
        """work(model) in the model's thread."""
        return self._queue(_Question(name, (), work))

    def _queue(self, question: _Question) -> "Future[Any]":
        with self._changed:
            n = max(1, len(question.responses))
            if self._leaving:
                raise Busy(5)
            if self._n and self._n + n > self.most_waiting:
                raise Busy(max(1, min(60, round(self._n / self.pace))))
            self._n += n
            self._waiting.append(question)
            self.last_used = time.monotonic()
            self._changed.notify()
        return question.future

    @property
    def n_waiting(self) -> int:
        return self._n

    @property
    def busy(self) -> bool:
        return self._answering or bool(self._n)

    def close(self) -> None:
        """Whoever still waits is told."""
        with self._changed:
            self._leaving = True
            left, self._waiting, self._n = list(self._waiting), deque(), 0
            self._changed.notify()
        for question in left:
            _fail(question, SerError("The scoring process is being stopped. Ask again when it is back."))
        self._thread.join(timeout=30)

    # ---- the model's thread

    def _serve(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._leaving:
                    self._changed.wait()
                if self._leaving:
                    return
                if self._n < PASS and not self._waiting[0].work:
                    self._changed.wait(GATHER_S)
                    if self._leaving or not self._waiting:
                        continue
                chosen = self._take()
                self._answering = True
            try:
                self._answer(chosen)
            except BaseException as error:  # the thread must outlive whatever a model does
                for question, _, _ in chosen:
                    self._drop(question, error)
            self.last_used = time.monotonic()
            self._answering = False

    def _take(self) -> list[tuple[_Question, int, int]]:
        """Stretches of waiting questions to the same model, at most PASS texts; work stands alone."""
        first = self._waiting[0]
        if first.work:
            self._waiting.popleft()
            self._n -= 1
            return [(first, 0, 0)]
        room, chosen, rest = PASS, [], []
        while self._waiting and room:
            question = self._waiting.popleft()
            if question.name != first.name or question.work:
                rest.append(question)
                continue
            n = min(room, len(question.responses) - question.taken)
            chosen.append((question, question.taken, question.taken + n))
            question.taken += n
            room -= n
            if question.taken < len(question.responses):
                rest.append(question)
                break
        self._waiting.extendleft(reversed(rest[:-1] if _is_partly(rest) else rest))
        if _is_partly(rest):
            self._waiting.append(rest[-1])  # those who came later have their turn before the rest of a long one
        self._n -= sum(
            max(1, end - begin) if not question.responses else end - begin for question, begin, end in chosen
        )
        return chosen

    def _answer(self, chosen: list[tuple[_Question, int, int]]) -> None:
        chosen = [part for part in chosen if not part[0].future.done()]
        if not chosen:
            return
        model = self.shelf.model(chosen[0][0].name)
        if work := chosen[0][0].work:
            _give(chosen[0][0], work(model))
            return
        texts = [response for question, begin, end in chosen for response in question.responses[begin:end]]
        distinct = {(text.prompt, text.text): place for place, text in enumerate(dict.fromkeys(texts))}
        began = time.monotonic()
        try:
            found = model.rewards(list(dict.fromkeys(texts))) if texts else np.empty((0, 1))
        except Exception:
            if len(chosen) == 1:
                raise
            for part in chosen:  # one text that cannot be read is not everybody's trouble
                try:
                    self._answer([part])
                except Exception as error:
                    self._drop(part[0], error)
            return
        if texts:
            self.passes += 1
            self.done += len(texts)
            self.pace = 0.7 * self.pace + 0.3 * len(texts) / max(1e-3, time.monotonic() - began)
        places = iter([distinct[text.prompt, text.text] for text in texts])
        for question, begin, end in chosen:
            question.parts.append(found[[next(places) for _ in range(begin, end)]])
            question.read += model.read(question.responses[begin:end])
            if end == len(question.responses):
                rewards = np.concatenate(question.parts)
                answer = Answer(rewards, tuple(question.read), model.kind, model.max_length, model.notes)
                _give(question, answer)

    def _drop(self, question: _Question, error: BaseException) -> None:
        _fail(question, error)
        with self._changed:
            if question in self._waiting:
                self._waiting.remove(question)
                self._n -= len(question.responses) - question.taken


def _is_partly(rest: list[_Question]) -> bool:
    return bool(rest) and 0 < rest[-1].taken < len(rest[-1].responses)


def _give(question: _Question, answer: Any) -> None:
    with suppress(Exception):  # who asked may have gone
        question.future.set_result(answer)


def _fail(question: _Question, error: BaseException) -> None:
    with suppress(Exception):
        question.future.set_exception(error)
