"""What one response says and the other does not, word by word."""

import re
from itertools import takewhile

from reading.nodes import Node, classed, raw

LONGEST = 100_000  # characters of a text that is compared by words; longer ones are compared by lines
MOST_CELLS = 100_000_000  # words of one side times words of the other: 60 ms and 12 MB, whatever the words are

MARKS = "\u0300-\u036f\u20e3\u3099\u309a\ufe00-\ufe0f"  # what follows a character and belongs to it
HAN = "\u3005-\u3007\u3041-\u3098\u309b-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f"
HAN += "\U00020000-\U0003fffd"
THAI, THAI_MARKS = "\u0e00-\u0eff", "\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ece"
STOPS = r"!-/:-@\[-^`{-~\xa1-\xa9\xab-\xb1\xb4\xb6-\xb8\xbb\xbf×÷\u060c\u061b\u061f\u06d4\u0964\u0965"
STOPS += (
    "\u2010-\u2027\u2030-\u205e\u3001-\u3004\u3008-\u303f\uff01-\uff0f\uff1a-\uff20\uff3b-\uff3e\uff40\uff5b-\uff65"
)
LETTER = rf"[^\s{STOPS}{HAN}{THAI}]"
# Characters of scripts without spaces and stops stand alone, 1,000.50 and don't are one word.
WORD = re.compile(
    rf"{LETTER}+(?:['’]{LETTER}+|(?<=\d)[.,](?=\d){LETTER}+)*|[{HAN}{STOPS}][{MARKS}]*|[{THAI}][{THAI_MARKS}]*"
)
LINE = re.compile(r"[^\n]+")
Span = tuple[int, int]


def diff(left: str, right: str) -> tuple[list[Node], list[Node]]:
    """raw() of both, words that the other side lacks under "only". Nothing is marked where `differences` is None."""
    found = differences(left, right) or ([], [])
    return marked(left, found[0]), marked(right, found[1])


def marked(text: str, spans: list[Span]) -> list[Node]:
    nodes, at = [], 0
    for start, end in spans:
        nodes += raw(text[at:start]) + classed(text[start:end], "only")
        at = end
    return nodes + raw(text[at:])


def differences(left: str, right: str) -> tuple[list[Span], list[Span]] | None:
    """Where each side has what the other lacks: by words, by lines where these are too many, None where lines are, too.

    A longest common subsequence with a row of the table in one integer: unlike difflib, which gives nicer blocks, it
    takes the same time for a text of one repeated word.
    """
    for pattern in (WORD, LINE) if max(len(left), len(right)) <= LONGEST else (LINE,):
        spans = [[found.span() for found in pattern.finditer(text)] for text in (left, right)]
        words = [[text[start:end] for start, end in found] for text, found in zip((left, right), spans, strict=True)]
        if pattern is LINE:
            words = [[line.rstrip() for line in lines] for lines in words]
        common = _common(words[0], words[1])
        if common is not None:
            return _apart(spans[0], common[0]), _apart(spans[1], common[1])
    return None


def _common(left: list[str], right: list[str]) -> tuple[set[int], set[int]] | None:
    """Places of a longest common subsequence in both; None where that would take too long."""
    head = sum(1 for _ in takewhile(lambda both: both[0] == both[1], zip(left, right, strict=False)))
    rest = zip(reversed(left[head:]), reversed(right[head:]), strict=False)
    tail = sum(1 for _ in takewhile(lambda both: both[0] == both[1], rest))
    n, m = len(left) - head - tail, len(right) - head - tail
    if n * m > MOST_CELLS:
        return None
    places: dict[str, int] = {}
    for j, word in enumerate(right[head : head + m]):
        places[word] = places.get(word, 0) | 1 << j
    row = full = (
        1 << m
    ) - 1  # bit j of row i is 0 where right[j] makes the common subsequence with left[:i + 1] longer
    rows = []
    for word in left[head : head + n]:
        here = row & places.get(word, 0)
        row = (row + here | row - here) & full
        rows.append(row)
    in_left, in_right = set(range(head)), set(range(head))
    in_left |= set(range(len(left) - tail, len(left)))
    in_right |= set(range(len(right) - tail, len(right)))
    i, j = n - 1, m - 1
    while i >= 0 and j >= 0:
        if rows[i] >> j & 1:
            j -= 1
        else:
            if not i or rows[i - 1] >> j & 1:
                in_left.add(head + i)
                in_right.add(head + j)
                j -= 1
            i -= 1
    return in_left, in_right


def _apart(spans: list[Span], common: set[int]) -> list[Span]:
    """The spans that are not common, neighbours in one together with the white space between them."""
    found: list[Span] = []
    last = -2
    for i, (start, end) in enumerate(spans):
        if i not in common:
            found.append((found.pop()[0], end) if last == i - 1 else (start, end))
            last = i
    return found
