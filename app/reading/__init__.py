"""The texts of a preference pair as trees of plain JSON, for a component that makes DOM nodes of them.

Texts come from anywhere: any language, any length, hostile ones too. Nothing in them is markup, loads or hides
anything: nodes are names from a fixed list and texts (reading.nodes). The raw view holds a text exactly, the rendered
view holds every letter and digit of it, and both show what would act unseen. Time and size are bounded for every text.
"""

from reading.comparison import diff
from reading.conversation import Turn, turns
from reading.desk import LIMIT, cut, direction, view
from reading.markdown import looks_like_markdown, rendered
from reading.nodes import TAGS, Node, as_text, raw

__all__ = [
    "LIMIT",
    "TAGS",
    "Node",
    "Turn",
    "as_text",
    "cut",
    "diff",
    "direction",
    "looks_like_markdown",
    "raw",
    "rendered",
    "turns",
    "view",
]
