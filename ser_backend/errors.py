"""Errors whose message is shown to the user as it stands.

A message is a sentence in three parts: what was found, what was needed, what to do.
"""

import sys


class SerError(Exception):
    """Something the user can act on; pages and the command line print it without a traceback."""


class NotFound(SerError):
    """A run, data set, pair or file that was named does not exist."""


class StaleVote(SerError):
    """A vote for a presentation that is no longer the open one (second tab, repeated key, answered already)."""


class TooFast(StaleVote):
    """A vote that came sooner after the pair was shown than anybody can read: a held key or a double click."""


class UnknownToken(SerError):
    """A text holds a token for which the model has no weights."""


class Forbidden(SerError):
    """The role of the person who asked does not allow it."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, the machine's or a GPU's, whoever says so. Loads no torch: an error of its own has loaded it."""
    torch = sys.modules.get("torch")
    return (
        isinstance(error, MemoryError)
        or (torch is not None and isinstance(error, torch.OutOfMemoryError))
        or "can't allocate memory" in str(error)
    )
