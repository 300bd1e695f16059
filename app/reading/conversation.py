"""A prompt of several messages, taken apart again. Nothing is lost: what is not a marker is in some turn."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

ROLES = {"human": "User", "prompter": "User", "instruction": "User", "im_user": "User"}
ROLES |= {"gpt": "Assistant", "bot": "Assistant", "model": "Assistant", "ai": "Assistant", "response": "Assistant"}
NEAR = 1_000  # characters that may stand before the first marker that cannot be meant otherwise

NAMES = "Human|User|Assistant|System|Tool|Function|Developer|Bot|Model|Gpt|HUMAN|USER|ASSISTANT|SYSTEM|TOOL"
# "User: ..." with a blank line between is what ingest writes for a list of messages, "Human: ..." is hh.
COLONS = re.compile(rf"^({NAMES}):", re.MULTILINE)
AFTER_BLANK_LINE = re.compile(rf"(?:\A|(?<=\n\n)|(?<=\n\r\n))({NAMES}):")
HEADINGS = re.compile(r"^### ?(Instruction|Input|Response|System|User|Human|Assistant):", re.MULTILINE)
TAGS = re.compile(r"<\|(user|assistant|system|tool|prompter|human|bot)\|>")
CHAT_ML = re.compile(r"<\|im_start\|>(\w{1,30})\n")
LLAMA = re.compile(r"<\|start_header_id\|>(\w{1,30})<\|end_header_id\|>")
ENDS = re.compile(r"(?:<\|im_end\|>|<\|eot_id\|>|<\|end\|>|<\|endoftext\|>|</s>)\Z")
START = "<|begin_of_text|>"
SPACE = " \t\r\n"
BEFORE = re.compile(r"\A(?:[ \t]*[\r\n])+|\A[ \t]+")  # white space of a marker, but not the first line's indent


@dataclass(frozen=True, slots=True)
class Turn:
    role: str  # "User", "Assistant", "System", another name, or "" for a text outside of all roles
    text: str


def turns(prompt: str) -> list[Turn]:
    """The messages of a transcript or of a list of messages; one turn without a role for any other text.

    Markers lose the white space beside them. A name with a colon is a marker only in a text that begins with one; where
    such markers of several roles stand after blank lines, those elsewhere are text.
    """
    return _messages(prompt) or _marked(prompt) or [Turn("", prompt)]


def _marked(prompt: str) -> list[Turn]:
    for pattern in (CHAT_ML, LLAMA, TAGS, HEADINGS):
        found = list(pattern.finditer(prompt))
        if found and found[0].start() <= NEAR:
            return _between(prompt, found, _without_end if pattern is not HEADINGS else str)
    prompt = prompt.lstrip(SPACE)
    if not COLONS.match(prompt):
        return []
    found = list(AFTER_BLANK_LINE.finditer(prompt))
    both = len({marker[1] for marker in found}) > 1
    return _between(prompt, found if both else list(COLONS.finditer(prompt)), str)


def _between(prompt: str, found: list[re.Match[str]], trimmed: Callable[[str], str]) -> list[Turn]:
    ends = [*(marker.start() for marker in found[1:]), len(prompt)]
    before = prompt[: found[0].start()].strip(SPACE).removeprefix(START)
    made = [Turn("", before)] if before else []
    for marker, end in zip(found, ends, strict=True):
        text = trimmed(prompt[marker.end() : end].rstrip(SPACE)).rstrip(SPACE)
        made.append(Turn(_role(marker[1]), BEFORE.sub("", text)))
    return made[:-1] if len(made) > 1 and not made[-1].text else made


def _without_end(text: str) -> str:
    cut = ENDS.search(text, max(0, len(text) - 200))
    return text[: cut.start()] if cut else text


def _role(name: str) -> str:
    return ROLES.get(name.lower(), name.strip().capitalize())


def _messages(prompt: str) -> list[Turn]:
    """A JSON list of objects with a role and a content and nothing else; anything more would be lost, so it stays."""
    if not prompt.lstrip().startswith("["):
        return []
    try:
        # objects as tuples: a name that is there twice is seen
        found = json.loads(prompt, object_pairs_hook=tuple)
        return [_message(message) for message in found]
    except (ValueError, TypeError, RecursionError):
        return []


def _message(pairs: Any) -> Turn:
    """Raises where it is none."""
    if not isinstance(pairs, tuple) or len(pairs) != 2:
        raise TypeError
    facts = dict(pairs)
    role, content = facts.get("role", facts.get("from")), facts.get("content", facts.get("value"))
    if isinstance(content, list):
        content = "\n".join(_part(part) for part in content)
    if not isinstance(role, str) or not isinstance(content, str):
        raise TypeError
    return Turn(_role(role), content)


def _part(part: Any) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, tuple) or sorted(dict(part)) != ["text", "type"] or len(part) != 2:
        raise TypeError
    return dict(part)["text"]
