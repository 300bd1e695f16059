"""Nodes: what the page makes DOM nodes of, by createElement and textContent alone.

{"t": tag, "c": [nodes], "k": class} or {"x": text, "k": class, "o": original}. The class may be missing. A text of class
"odd" or "cr" is a stand-in that people can see; "o" is what it stands for.
"""

import re
from collections.abc import Iterable
from typing import Any

Node = dict[str, Any]

TAGS = frozenset(
    ("p", "h", "ul", "ol", "li", "pre", "code", "em", "strong", "del", "quote", "table", "tr", "td", "th")
    + ("hr", "br", "span", "a", "turn")  # "turn" is the page's own
)
MOST_ODD = 5_000  # more odd characters in one text are shown, but not each as a node of its own

# A joiner after one of these belongs to the word or to the emoji; anywhere else it is only there to be unseen.
JOINED = (
    "\u0600-\u077f\u07ca-\u07ff\u0840-\u08ff\u0900-\u0dff\u1000-\u109f\u1780-\u18af\ufb50-\ufdcf\ufdf0-\ufdff\ufe70-\ufefc"
    "\u2600-\u27bf\u2b00-\u2bff\ufe0f\U0001f000-\U0001faff"
)
LAST_OF_PLANES = "".join(f"{chr(plane + 0xFFFE)}{chr(plane + 0xFFFF)}" for plane in range(0, 0x110000, 0x10000))
# Controls, bidi controls, zero width, invisible operators, surrogates, tags and selectors that carry hidden text.
UNSEEN = (
    "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0\U0001d173-\U0001d17a"
    "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff"
    "\ufdd0-\ufdef\ufeff\ufff9-\ufffb\U000e0000-\U000e0fff" + LAST_OF_PLANES
)
ODD = re.compile(f"(\r\n?|[{UNSEEN}]|(?<![{JOINED}])[\u200c\u200d])")


def raw(text: str) -> list[Node]:
    """The text exactly as it is; characters that nobody can see, or that act, give way to stand-ins."""
    parts = ODD.split(text, MOST_ODD + 1)
    if len(parts) > 2 * MOST_ODD + 1:
        return [{"x": text.translate(_SEEN), "k": "odd", "o": text}]
    return [_odd(part) if i % 2 else {"x": part} for i, part in enumerate(parts) if part]


def classed(text: str, kind: str) -> list[Node]:
    """The text under a class: one node, or a span around several where it holds odd characters. Nothing for ""."""
    inner = raw(text)
    if not kind or not inner:
        return inner
    if len(inner) == 1 and "k" not in inner[0]:
        return [{"x": text, "k": kind}]
    return [{"t": "span", "k": kind, "c": inner}]


def as_text(nodes: Iterable[Node]) -> str:
    """The text that the nodes were made of, originals in the place of stand-ins."""
    texts: list[str] = []
    waiting = list(nodes)[::-1]
    while waiting:
        node = waiting.pop()
        if "x" in node:
            texts.append(node["o"] if "o" in node else node["x"])
        else:
            waiting += reversed(node["c"])
    return "".join(texts)


class _Seen(dict[int, str]):
    """Any character -> what is shown of it, found out once."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        return self.setdefault(code, _stand_in(char) if ODD.match(char) else char)


_SEEN = _Seen()


def _odd(char: str) -> Node:
    return {"x": _stand_in(char), "k": "cr" if char[0] == "\r" else "odd", "o": char}


def _stand_in(char: str) -> str:
    code = ord(char[0])
    if char[0] == "\r":
        return "␍\n"
    return chr(0x2400 + code) if code < 32 else "␡" if code == 127 else f"U+{code:04X}"
