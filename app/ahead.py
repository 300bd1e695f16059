"""What a page will need is imported before it asks: Streamlit imports what a script imports when the first person opens it."""

import importlib
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

# what the first page waits for longest, and the pages with figures after it
MODULES = ("components", "door", "guide", "ser_backend.jobs", "ser_backend.overview", "pandas", "charts", "html_report")


@asynccontextmanager
async def imports(_: Any) -> AsyncIterator[None]:
    """The server answers meanwhile; a page that comes sooner waits for the rest only."""
    threading.Thread(target=lambda: [importlib.import_module(name) for name in MODULES], daemon=True).start()
    yield
