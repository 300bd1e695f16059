"""How to ask, for machines (OpenAPI) and for people (a page without a script, which loads nothing)."""

import html
import json
from typing import Any

from ser_backend import __version__
from ser_backend.scorer.checking import Limits

STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 780px; margin: 2.5rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .3rem; }
code, pre { font-family: ui-monospace, monospace; font-size: .88rem; }
pre { padding: .7rem .9rem; border: 1px solid #8886; border-radius: .5rem; overflow: auto; }
td, th { text-align: left; vertical-align: top; padding: .15rem .9rem .15rem 0; }
"""
SCORE = {"items": [{"prompt": "What is a fuse for?", "response": "It cuts the current before a wire burns."}]}
COMPARE = {"prompt": "What is a fuse for?", "responses": ["It cuts the current before a wire burns.", "No idea."]}


def openapi(limits: Limits, with_token: bool) -> dict[str, Any]:
    text = {"type": "string", "maxLength": limits.characters}
    numbers = {"type": "array", "items": {"type": "number"}}
    places = {
        "type": "array",
        "items": {"type": "integer"},
        "description": "Places (from 0) of texts that are longer than the model reads: they lose prompt from its beginning "
        "first, then the end of the response.",
    }
    item = {"type": "object", "required": ["response"], "properties": {"prompt": text, "response": text}}
    scored = {"type": "object", "properties": {"rewards": numbers, "cut": places}}
    table = {
        "type": "array",
        "items": numbers,
        "description": "[i][j]: probability that response i is preferred to response j (Bradley and Terry).",
    }
    ranked = {
        "rewards": numbers,
        "rank": {"type": "array", "items": {"type": "integer"}, "description": "1 is the best."},
        "margin": numbers | {"description": "Reward less that of the best."},
        "preferred": table,
        "best": numbers | {"description": "Probability of being the best of all (Plackett and Luce)."},
        "cut": places,
    }
    score = _post(
        "Rewards of responses",
        {
            "type": "object",
            "required": ["items"],
            "properties": {"items": {"type": "array", "minItems": 1, "maxItems": limits.items, "items": item}},
        },
        SCORE,
        scored,
        with_token,
    )
    several = {"type": "array", "minItems": 2, "maxItems": limits.responses, "items": text}
    compare = _post(
        "Which of several responses to one prompt",
        {"type": "object", "required": ["responses"], "properties": {"prompt": text, "responses": several}},
        COMPARE,
        {"type": "object", "properties": ranked},
        with_token,
    )
    health = {
        "get": {
            "summary": "Whether it answers",
            "responses": {"200": {"description": "status and version; with the token also the model and what waits"}},
        }
    }
    found: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "SER Studio reward model",
            "version": __version__,
            "description": "Rewards have an arbitrary offset: only differences between responses to one prompt mean anything.",
        },
        "paths": {"/score": {"post": score}, "/compare": {"post": compare}, "/health": health},
    }
    if with_token:
        found["components"] = {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}}
    return found


def _post(
    summary: str, body: dict[str, Any], example: dict[str, Any], answer: dict[str, Any], with_token: bool
) -> dict[str, Any]:
    error = {"application/json": {"schema": {"type": "object", "properties": {"error": {"type": "string"}}}}}
    refusals = {
        "400": "The body is not what is described here.",
        "413": "The body, a text or the list is too long.",
        "415": "The body is not sent as application/json.",
        "503": "Too many texts wait; ask again after Retry-After seconds.",
    }
    if with_token:
        refusals["401"] = "The token is missing or wrong."
    found: dict[str, Any] = {
        "summary": summary,
        "requestBody": {"required": True, "content": {"application/json": {"schema": body, "example": example}}},
        "responses": {
            "200": {"description": "The answer", "content": {"application/json": {"schema": answer}}},
            **{status: {"description": said, "content": error} for status, said in sorted(refusals.items())},
        },
    }
    if with_token:
        found["security"] = [{"token": []}]
    return found


def page(limits: Limits, with_token: bool) -> str:
    facts = openapi(limits, with_token)
    parts = [f"<h1>{html.escape(facts['info']['title'])}</h1><p>{html.escape(facts['info']['description'])}</p>"]
    if with_token:
        parts.append("<p>Every question needs the header <code>Authorization: Bearer TOKEN</code>.</p>")
    for path, methods in facts["paths"].items():
        for method, told in methods.items():
            parts.append(f"<h2><code>{method.upper()} {path}</code></h2><p>{html.escape(told['summary'])}</p>")
            if "requestBody" in told:
                example = told["requestBody"]["content"]["application/json"]["example"]
                token = ' -H "Authorization: Bearer $TOKEN"' if with_token else ""
                sent = html.escape(json.dumps(example))
                parts.append(f"<pre>curl -H 'Content-Type: application/json'{token} ADDRESS{path} -d '{sent}'</pre>")
            schema = told["responses"]["200"].get("content", {}).get("application/json", {}).get("schema", {})
            rows = [(name, found.get("description", "")) for name, found in schema.get("properties", {}).items()]
            rows += [(status, found["description"]) for status, found in told["responses"].items() if status != "200"]
            cells = "".join(
                f"<tr><td><code>{html.escape(name)}</code></td><td>{html.escape(said)}</td></tr>" for name, said in rows
            )
            parts.append(f"<table>{cells}</table>")
    most = f"At most {limits.items:,} items, {limits.characters:,} characters a text and {limits.body >> 10:,} KiB a request."
    parts.append(f"<p>{most} The same for programs: <a href='/openapi.json'>openapi.json</a>.</p>")
    head = "<meta charset='utf-8'><meta name='viewport' content='width=device-width'><title>SER Studio</title>"
    return (
        f"<!doctype html><html lang='en'><head>{head}<style>{STYLE}</style></head><body>{''.join(parts)}</body></html>"
    )
