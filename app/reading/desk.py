"""Everything that the desk shows of a pair, bounded in time and size."""

import re
import unicodedata
from itertools import islice
from typing import Any

from reading.comparison import HAN, Span, differences, marked
from reading.conversation import turns
from reading.markdown import looks_like_markdown, rendered
from reading.nodes import Node, as_text, raw

LIMIT = 20_000  # characters of a text that are shown at first
WINDOW = 0.02  # a line or a word that ends this share of the limit behind it is shown to its end
LETTERS = 500  # the first ones tell the direction
RTL_SHARE = 0.4  # names and terms in Latin letters do not turn a text around
MOST_TURNS = 200

SPACE = re.compile(r"\s")
CJK = re.compile(f"[{HAN}]")


def view(prompt: str, left: str, right: str, *, limit: int = LIMIT) -> dict[str, Any]:
    """What the desk shows of a pair, ready for JSON.

    {"prompt": {"turns": [{"role", "raw", "rendered", "hidden"}], "earlier", "dir", "hidden", "chars", "words"},
     "left": {"raw", "rendered", "diff", "dir", "hidden", "chars", "words"}, "right": the same}

    "rendered" is None where it would show nothing but the raw text, "diff" where the texts are too different in too many
    places to be compared. "hidden" counts characters that are folded away at the end of a text; of a prompt the last
    turns are kept, and "earlier" counts the turns that are not there. At most `limit` and 2 % of each of the three texts
    are in it, in at most three copies of at most three nodes a character: 4 MB of JSON for the worst texts known.
    """
    left_shown, right_shown, left_hidden, right_hidden = cut(left, right, limit)
    apart = differences(left_shown, right_shown)
    return {
        "prompt": _prompt(prompt, limit),
        "left": _side(left, left_shown, left_hidden, apart and apart[0]),
        "right": _side(right, right_shown, right_hidden, apart and apart[1]),
    }


def cut(left: str, right: str, limit: int = LIMIT) -> tuple[str, str, int, int]:
    """What is shown of both, and how many characters of each are not.

    Each is cut at the end of the first line or word after the same limit: neither looks shorter than a text that is
    not cut, and two that are cut look alike.
    """
    left_shown, right_shown = _beginning(left, limit), _beginning(right, limit)
    return left_shown, right_shown, len(left) - len(left_shown), len(right) - len(right_shown)


def direction(text: str) -> str:
    """ "rtl" where a good part of the first letters run so, "ltr" where they do not, "auto" where there are no letters."""
    kinds = (unicodedata.bidirectional(char) for char in text[: 10 * LETTERS])
    strong = list(islice((kind for kind in kinds if kind in ("L", "R", "AL")), LETTERS))
    if not strong:
        return "auto"
    return "ltr" if strong.count("L") > (1 - RTL_SHARE) * len(strong) else "rtl"


def _beginning(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    last = limit + int(limit * WINDOW)
    end = text.find("\n", limit, last)
    if end < 0:
        space = SPACE.search(text, limit, last)
        end = space.start() if space else limit
    while end < min(len(text), last) and (unicodedata.combining(text[end]) or text[end] in "\u200d\ufe0f"):
        end += 1
    return text[:end]


def _prompt(prompt: str, limit: int) -> dict[str, Any]:
    """The last turns that fit, and the beginning of the one that does not."""
    told, left = turns(prompt), limit
    shown: list[dict[str, Any]] = []
    texts: list[str] = []
    for turn in reversed(told):
        if shown and (left <= 0 or len(shown) == MOST_TURNS):
            break
        text = _beginning(turn.text, left)
        left -= len(text)
        texts.append(text)
        hidden = len(turn.text) - len(text)
        shown.append({"role": turn.role, "raw": raw(text), "rendered": _rendered(text), "hidden": hidden})
    earlier = told[: len(told) - len(shown)]
    return {
        "turns": shown[::-1],
        "earlier": len(earlier),
        "dir": direction(" ".join(texts[::-1])),
        "hidden": sum(turn["hidden"] for turn in shown) + sum(len(turn.text) for turn in earlier),
        "chars": len(prompt),
        "words": _words(prompt),
    }


def _side(text: str, shown: str, hidden: int, apart: list[Span] | None) -> dict[str, Any]:
    return {
        "raw": raw(shown),
        "rendered": _rendered(shown),
        "diff": None if apart is None else marked(shown, apart),
        "dir": direction(text),
        "hidden": hidden,
        "chars": len(text),
        "words": _words(text),
    }


def _rendered(text: str) -> list[Node] | None:
    """None where there is nothing to see beside paragraphs."""
    if not looks_like_markdown(text):
        return None
    nodes = rendered(text)
    inner = [child for node in nodes for child in node.get("c", (node,))]
    plain = all(node.get("t", "p") == "p" for node in nodes) and not any("t" in child for child in inner)
    return None if plain and "".join(as_text(nodes).split()) == "".join(text.split()) else nodes


def _words(text: str) -> int:
    """Between white space; a character each where a script has no spaces."""
    if text.isascii():
        return len(text.split())
    rest, n = CJK.subn(" ", text)
    return n + len(rest.split())
