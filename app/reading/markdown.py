"""Markdown as people are used to see it: CommonMark with tables and strikethrough, code in colours.

Nothing is lost: where a letter or a digit would not be seen (cells beyond a table's width, what is nested too deep) the
raw view stands in. So no reference definitions (they hide their text), no automatic links, no HTML (both stay as they
are written), and addresses stand beside their links as text. Entities are decoded, as CommonMark says.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator

from markdown_it import MarkdownIt
from markdown_it.token import Token

from reading.code import coloured
from reading.nodes import ODD, Node, as_text, classed, raw

LONGEST = 50_000  # characters; longer texts are not rendered
LONGEST_CODE = 20_000  # characters; longer code has no colours
MOST_MARKS = 5_000  # characters that may mean something; more is no text, and costs seconds
MOST_BRACKETS = 1_000
MOST_CELLS = 20_000  # of tables: short rows are filled up, so they can be many more than the text has characters
DEEPEST = 40  # tags around a text; deeper ones are left out, their text is not

PARSER = MarkdownIt("commonmark", {"html": False, "linkify": False, "typographer": False, "maxNesting": DEEPEST})
PARSER.enable(["table", "strikethrough"])
PARSER.disable(["normalize", "reference", "autolink", "html_block", "html_inline"])
PARSER.normalizeLink = lambda url: url  # type: ignore[method-assign]

TAG_OF = {"paragraph": "p", "heading": "h", "bullet_list": "ul", "ordered_list": "ol", "list_item": "li"}
TAG_OF |= {"blockquote": "quote", "s": "del", "link": "a", "hardbreak": "br", "code_inline": "code"}
TAG_OF |= {tag: tag for tag in ("table", "tr", "td", "th", "em", "strong", "hr")}

MARKDOWN = re.compile(
    r"^ {0,3}(?:\#{1,6}[ \t]+\S|```|~~~|>[ \t]?\S|(?:[-*+]|\d{1,3}[.)])[ \t]+\S|\|?[ \t]{0,3}:?-{3,}:?[ \t]{0,3}\|)"
    r"|\*\*[^\s*]|~~[^\s~]|`[^`\n]{1,200}`|\]\([^)\s]",
    re.MULTILINE,
)
ENTITY = re.compile(r"&#?\w{1,40};")
LINE_END = re.compile("\r\n?")


def looks_like_markdown(text: str) -> bool:
    """Whether the rendered view is worth offering."""
    return MARKDOWN.search(text, 0, LONGEST) is not None


def rendered(text: str) -> list[Node]:
    """The text as Markdown; raw where it is too long, too deep, or would lose something."""
    if _too_much(text):
        return raw(text)
    text_in = LINE_END.sub("\n", text)
    tree = _Tree()
    for token in _flat(PARSER.parse(text_in)):
        tree.take(token)
    needed = Counter(ENTITY.sub("", text_in)) + Counter("image" * tree.images)
    needed -= Counter(as_text(tree.nodes)) + Counter("".join(tree.told))
    lost = any(c.isalnum() or ODD.match(c) or not (c.isascii() or c.isspace()) for c in needed)
    return raw(text) if lost else tree.nodes


def _too_much(text: str) -> bool:
    if len(text) > LONGEST or text.count("[") > MOST_BRACKETS or sum(map(text.count, "[*_~`|\n")) > MOST_MARKS:
        return True
    return "|" in text and max(line.count("|") for line in text.split("\n")) * text.count("\n") > MOST_CELLS


class _Tree:
    """Nodes made of tokens one by one, without recursion."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.told: list[str] = []  # in the source a text, in the tree none: numbers of lists, addresses shown once
        self.images = 0
        self.stack = [self.nodes]
        self.texts: list[str] = []  # not yet a node
        self.addresses: list[tuple[list[Node], str]] = []

    def take(self, token: Token) -> None:
        kind = token.type.removesuffix("_open").removesuffix("_close")
        if kind in ("text", "softbreak"):  # neighbours become one node
            self.texts.append(token.content or "\n" * (kind == "softbreak"))
            return
        self.stack[-1] += raw("".join(self.texts))
        self.texts.clear()
        if token.nesting > 0:
            self._open(kind, token)
        elif token.nesting < 0:
            if kind == "link":
                inside, address = self.addresses.pop()
                if as_text(inside) == address:
                    self.told.append(address)
                else:
                    inside += classed(f" ({address})", "url")
            self.stack.pop()
        elif kind in ("fence", "code_block"):
            self._code(token)
        elif kind == "image":
            self.images += 1
            inner = raw(f"image: {token.content} ({_address(token)})")
            self.stack[-1].append({"t": "span", "k": "image", "c": inner})
        elif kind in TAG_OF:
            self.stack[-1].append({"t": TAG_OF[kind], "c": raw(token.content) if kind == "code_inline" else []})
        else:
            self.texts.append(token.content)

    def _open(self, kind: str, token: Token) -> None:
        children = self.stack[-1]
        tag = TAG_OF.get(kind)
        if tag and not token.hidden and len(self.stack) <= DEEPEST:
            node: Node = {"t": tag, "c": []}
            if kind == "heading":
                node["k"] = token.tag[1:]
            elif kind == "ordered_list" and "start" in token.attrs:
                node["k"] = str(token.attrs["start"])
            children.append(node)
            children = node["c"]
        if kind == "list_item":
            self.told.append(token.info)
        elif kind == "link":
            # children of its own even where the link has no node: only they are compared with the address
            if children is self.stack[-1]:
                children.append({"t": "span", "c": []})
                children = children[-1]["c"]
            self.addresses.append((children, _address(token)))
        self.stack.append(children)

    def _code(self, token: Token) -> None:
        """The info line is shown too: it can say anything."""
        info = token.info.strip()
        language = info.split()[0] if info and len(token.content) <= LONGEST_CODE else ""
        code = [node for kind, text in coloured(token.content, language) for node in classed(text, kind)]
        self.stack[-1].append({"t": "pre", "c": [*classed(info, "lang"), {"t": "code", "c": code}]})


def _flat(tokens: Iterable[Token]) -> Iterator[Token]:
    for token in tokens:
        if token.type == "inline":
            yield from token.children or ()
        else:
            yield token


def _address(token: Token) -> str:
    """The address as it is written, with the title that a mouse would find."""
    address, title = token.attrs.get("src", token.attrs.get("href", "")), token.attrs.get("title")
    return f'{address} "{title}"' if title else str(address)
