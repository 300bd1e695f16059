"""What is fetched before a page asks for it. tests/e2e/test_journey.py has the browser's part."""

import importlib
from pathlib import Path

import ahead
import pytest
import streamlit

STATIC = Path(streamlit.__file__).parent / "static"


def answered(path: str, kind: bytes = b"text/html; charset=utf-8", **scope) -> dict[bytes, bytes]:
    """Headers of an answer that went through the middleware."""
    sent = []

    async def inside(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})

    async def send(message):
        sent.append(message)

    answer = ahead.Figures(inside)({"type": "http", "path": path} | scope, None, send)
    with pytest.raises(
        StopIteration
    ):  # nothing is waited for, so no loop is needed; a browser's tests may have theirs here
        answer.send(None)
    return dict(sent[0]["headers"])


@pytest.mark.parametrize("path", ["/watch", "/compare", "/below/a/proxy/policy"])
def test_a_page_with_figures_names_their_code(path):
    link = answered(path)[b"link"].decode()
    name = link[link.index("<./") + 3 : link.index(">")]
    assert (STATIC / name).stat().st_size > 1_000_000
    assert link.endswith("; rel=modulepreload; crossorigin")


@pytest.mark.parametrize("path", ["/", "/review", "/watcher", "/watch/_stcore/health"])
def test_other_pages_load_nothing_ahead(path):
    assert b"link" not in answered(path)


def test_only_the_page_itself_names_it():
    assert b"link" not in answered("/watch", b"application/json")


def test_another_version_of_streamlit_goes_without(tmp_path):
    assert ahead.figures_code(tmp_path) == ""


def test_every_module_that_is_loaded_ahead_is_there():
    for name in ahead.MODULES:
        importlib.import_module(name)


def test_the_pages_with_figures_are_pages():
    views = {path.stem for path in (Path(ahead.__file__).parent / "views").glob("*.py")}
    assert views >= ahead.WITH_FIGURES
