"""What a page will need is fetched before it asks: modules by the server, the figures' code by the browser.

Streamlit imports what a script imports when the first person opens it, and tells the browser of plotly (4.7 MB) only with the
first figure, after half of the page's time has passed.
"""

import importlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import streamlit

# what the first page waits for longest, and the pages with figures after it
MODULES = ("components", "door", "guide", "ser_backend.jobs", "ser_backend.overview", "pandas", "charts", "html_report")
WITH_FIGURES = frozenset({"watch", "export", "compare", "policy", "agreement"})

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Callable[[], Awaitable[Message]], Send], Awaitable[None]]


@asynccontextmanager
async def imports(_: Any) -> AsyncIterator[None]:
    """The server answers meanwhile; a page that comes sooner waits for the rest only."""
    threading.Thread(target=lambda: [importlib.import_module(name) for name in MODULES], daemon=True).start()
    yield


def figures_code(folder: Path) -> str:
    """Address of Streamlit's module that draws plotly's figures, below its page; "" if this version has another."""
    found = [*folder.glob("static/js/PlotlyChart.*.js")]
    return f"./static/js/{found[0].name}" if len(found) == 1 else ""


class Figures:
    """ASGI middleware: a page with figures names their code in a header, so that the browser loads it at once."""

    def __init__(self, app: App) -> None:
        self.app = app
        code = figures_code(Path(streamlit.__file__).parent / "static")
        self.header = (b"link", f"<{code}>; rel=modulepreload; crossorigin".encode()) if code else None

    async def __call__(self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Send) -> None:
        wanted = scope["type"] == "http" and scope["path"].rpartition("/")[2] in WITH_FIGURES

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                kind = dict(message["headers"]).get(b"content-type", b"")
                if kind.startswith(b"text/html"):
                    message["headers"] = [*message["headers"], self.header]
            await send(message)

        await self.app(scope, receive, named if wanted and self.header else send)
