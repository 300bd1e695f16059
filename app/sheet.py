"""One self-contained HTML page: sections, tables and pictures, all text escaped, nothing fetched and nothing run.

The policy in its head forbids whatever is not in the file: no script at all, no address, no font.
"""

import html
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

STYLE = Path(__file__).with_name("sheet.css")
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>
{style}</style>
</head>
<body>
"""


def page(title: str, *parts: str) -> str:
    style = STYLE.read_text(encoding="utf-8")
    head = HEAD.format(policy=POLICY, title=text(title), style=style)
    return head + "<main>\n" + "\n".join(part for part in parts if part) + "\n</main>\n</body>\n</html>\n"


def text(words: object) -> str:
    """Words as they are: no markup, no control characters, no half of a character that no file can hold."""
    shown = re.sub(r"[^\t\n\x20-\x7e\xa0-\U0010ffff]|[\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]", "\ufffd", str(words))
    return html.escape(shown)


def name(words: object) -> str:
    """Words of a user inside others: what turns the direction of writing ends with them."""
    return f"<bdi>{text(''.join(c for c in str(words) if unicodedata.category(c) != 'Cc'))}</bdi>"


def paragraph(words: object, kind: str = "") -> str:
    if not words:
        return ""
    return f'<p class="{kind}">{text(words)}</p>' if kind else f"<p>{text(words)}</p>"


def bullets(sentences: Sequence[object], kind: str = "") -> str:
    lines = "".join(f"<li>{text(sentence)}</li>" for sentence in sentences)
    return f'<ul class="{kind}">{lines}</ul>' if sentences else ""


def section(title: str, *parts: str) -> str:
    """Nothing where it has no content."""
    content = [part for part in parts if part]
    return "\n".join([f"<section>\n<h2>{text(title)}</h2>", *content, "</section>"]) if content else ""


def pictures(*drawn: str) -> str:
    return f'<div class="pictures">{"".join(drawn)}</div>' if any(drawn) else ""


def tiles(found: Sequence[tuple[str, object, object]]) -> str:
    """What, its figure, and what stands behind it."""
    parts = [
        f'<div class="tile"><div class="what">{text(what)}</div><div class="figure">{text(figure)}</div>'
        f'<div class="behind">{text(behind)}</div></div>'
        for what, figure, behind in found
    ]
    return f'<div class="tiles">{"".join(parts)}</div>'


def facts(found: Mapping[str, object]) -> str:
    """Names and what they stand for, one below the other."""
    rows = "".join(f"<tr><th scope=row>{text(key)}</th><td>{name(value)}</td></tr>" for key, value in found.items())
    return f'<table class="facts">{rows}</table>' if found else ""


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """Columns in which nothing stands are left out. Numbers stand to the right."""
    if not rows:
        return ""
    columns = [column for column in rows[0] if any(row[column] not in ("", None) for row in rows)]
    head = "".join(f"<th scope=col>{text(column)}</th>" for column in columns)
    body = "".join("<tr>" + "".join(_cell(row[column]) for column in columns) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(value: object) -> str:
    if isinstance(value, int | float):
        return f'<td class="number">{value:,}</td>'
    return f"<td>{name('' if value is None else value)}</td>"


def block(words: str) -> str:
    """Text to copy."""
    return f"<pre>{text(words)}</pre>"
