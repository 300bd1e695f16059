"""Work that blocks (a trainer's loop), turned into a generator of events: it goes on only while somebody listens.

The work runs in a thread; after each event it waits until the listener asks for the next one. Whoever closes the generator
is heard at the next event, where `tell` returns True: the work then keeps what it has and returns.
"""

import threading
from collections.abc import Callable, Generator
from queue import SimpleQueue
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")
Event = tuple[str, dict[str, Any]]  # what happened, in the past tense; its facts
Tell = Callable[[str, dict[str, Any]], bool]  # True: stop here


class _Done(NamedTuple):
    result: Any
    error: BaseException | None


def told(work: Callable[[Tell], T]) -> Generator[Event, None, T]:
    """Raises what the work raises."""
    events: SimpleQueue[Event | _Done] = SimpleQueue()
    go, stopping = threading.Semaphore(0), threading.Event()

    def tell(kind: str, facts: dict[str, Any]) -> bool:
        if not stopping.is_set():
            events.put((kind, facts))
            go.acquire()
        return stopping.is_set()

    def run() -> None:
        try:
            events.put(_Done(work(tell), None))
        except BaseException as error:  # raised again where the events are heard
            events.put(_Done(None, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        while True:
            found = events.get()
            if isinstance(found, _Done):
                if found.error is not None:
                    raise found.error
                return found.result
            yield found
            go.release()
    finally:
        stopping.set()
        go.release()
        thread.join()
