"""What may be asked: the body of a request -> texts, or a sentence why not. Knows no model and no network."""

import json
from dataclasses import dataclass
from typing import Any

from ser_backend.errors import SerError
from ser_backend.records import Response
from ser_backend.scorer.model import clean


@dataclass(frozen=True, slots=True)
class Limits:
    items: int = 1_024  # a request
    responses: int = 64  # of a comparison
    characters: int = 100_000  # of one prompt or response
    body: int = 8 << 20  # bytes
    in_flight: int = 64 << 20  # bytes of all bodies that are being answered
    waiting: int = 4_096  # texts
    body_s: float = 30.0  # for a body to arrive
    answer_s: float = 300.0


class Refused(SerError):
    """Not answered, with the status that says why."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def parsed(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise Refused(400, "The body is not JSON. Send an object, as /docs shows.") from None
    if not isinstance(found, dict):
        raise Refused(400, f"The body is a JSON {_kind(found)}; an object is needed, as /docs shows.")
    return found


def items(body: dict[str, Any], limits: Limits) -> list[Response]:
    found = body.get("items")
    if not isinstance(found, list) or not found:
        raise Refused(400, '"items" must be a list of objects, each with "prompt" and "response", and not empty.')
    if len(found) > limits.items:
        raise Refused(
            413, f"{len(found):,} items were sent, and at most {limits.items:,} may be. Send fewer at a time."
        )
    made = []
    for place, item in enumerate(found):
        if not isinstance(item, dict):
            raise Refused(400, f'Item {place} is a {_kind(item)}; an object with "prompt" and "response" is needed.')
        prompt = _text(item.get("prompt", ""), f"The prompt of item {place}", limits)
        made.append(clean(prompt, _text(item.get("response"), f"The response of item {place}", limits)))
    return made


def responses(body: dict[str, Any], limits: Limits, fewest: int = 2) -> list[Response]:
    prompt = _text(body.get("prompt", ""), "The prompt", limits)
    found = body.get("responses")
    if not isinstance(found, list) or not fewest <= len(found) <= limits.responses:
        raise Refused(400, f'"responses" must be a list of {fewest} to {limits.responses} texts.')
    return [clean(prompt, _text(text, f"Response {place}", limits)) for place, text in enumerate(found)]


def _text(found: Any, what: str, limits: Limits) -> str:
    if not isinstance(found, str):
        raise Refused(400, f"{what} is a {_kind(found)}; a text is needed.")
    if len(found) > limits.characters:
        raise Refused(413, f"{what} has {len(found):,} characters; at most {limits.characters:,} are read. Shorten it.")
    return found


def _kind(value: Any) -> str:
    kinds = {dict: "object", list: "list", str: "text", bool: "truth value", int: "number", float: "number"}
    return kinds.get(type(value), "null")
