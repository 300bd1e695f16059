"""Rewards over HTTP: /score, /compare, /health, and a page that says how to ask. Knows no process and no command line.

Every refusal is {"error": a sentence}. With a token, whoever asks for rewards has to send it; without one, requests that name
another host than this machine are refused, so that a page in a browser cannot ask in its owner's name.
"""

import asyncio
import contextlib
import hashlib
import hmac
import math
from collections.abc import Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from ser_backend import __version__
from ser_backend.errors import SerError
from ser_backend.scorer import checking, manual
from ser_backend.scorer.batcher import Answer, Batcher, Busy
from ser_backend.scorer.checking import Limits, Refused
from ser_backend.scorer.comparing import compared

HERE = ("localhost", "127.0.0.1", "::1")
CONTENT = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
LIMITS = Limits()


class Door:
    """Who may come in, how much they may bring, and their body."""

    def __init__(self, limits: Limits, token: str, hosts: Sequence[str] = HERE) -> None:
        self.limits, self.hosts = limits, hosts
        self._token = hashlib.sha256(token.encode()).digest() if token else None
        self._in_flight = 0

    def check(self, request: Request) -> None:
        """Raises Refused."""
        if self._token is None:
            if _host(request) not in self.hosts:
                raise Refused(
                    403, "This address is not the server's own. Ask it as localhost, or start it with a token."
                )
            return
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        digest = hashlib.sha256(given.strip().encode("utf-8", "surrogatepass")).digest()
        if not (hmac.compare_digest(digest, self._token) and kind.lower() == "bearer"):
            raise Refused(401, "The token is missing or wrong. Send the header Authorization: Bearer TOKEN.")

    @contextlib.asynccontextmanager
    async def body(self, request: Request) -> Any:
        """The parsed body, while it is answered. Raises Refused."""
        self.check(request)
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise Refused(415, "The body must be JSON. Send the header Content-Type: application/json.")
        said = request.headers.get("content-length", "")
        if said.isdigit() and int(said) > self.limits.body:
            raise self._too_large()
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self.limits.body_s):
                async for part in request.stream():
                    # at each part: hundreds may have come in while there was room, their bodies still to arrive
                    if self._in_flight + len(part) > self.limits.in_flight:
                        raise Busy(1)
                    size += len(part)
                    self._in_flight += len(part)
                    if size > self.limits.body:
                        raise self._too_large()
                    parts.append(part)
            yield checking.parsed(b"".join(parts))
        except TimeoutError:
            raise Refused(408, f"The body did not arrive within {self.limits.body_s:g} s. Send it again.") from None
        finally:
            self._in_flight -= size

    def _too_large(self) -> Refused:
        return Refused(413, f"The body is larger than {self.limits.body >> 10:,} KiB. Send fewer items at a time.")


def make_app(
    batcher: Batcher,
    model: str,
    limits: Limits = LIMITS,
    token: str = "",
    more: Sequence[Route] = (),
    door: Any = None,
) -> Starlette:
    """model: the name that is asked. more: routes of the caller's own."""
    door = door or Door(limits, token)

    async def score(request: Request) -> Response:
        async with door.body(request) as body:
            texts = checking.items(body, limits)
            answer = await answered(batcher, model, texts, limits)
        return JSONResponse({"rewards": _rounded(answer), "cut": _cut(answer)})

    async def compare(request: Request) -> Response:
        async with door.body(request) as body:
            texts = checking.responses(body, limits)
            answer = await answered(batcher, model, texts, limits)
        found = compared(answer.rewards[:, :1])
        return JSONResponse(
            {
                "rewards": list(found.rewards),
                "rank": list(found.rank),
                "margin": list(found.margin),
                "preferred": [list(row) for row in found.preferred],
                "best": list(found.best),
                "cut": _cut(answer),
            }
        )

    async def health(request: Request) -> Response:
        facts: dict[str, Any] = {"status": "ok", "version": __version__}
        with contextlib.suppress(Refused):  # more for those who may ask
            door.check(request)
            facts |= {"model": model, "waiting": batcher.n_waiting, "rewarded": batcher.done, "passes": batcher.passes}
        return JSONResponse(facts)

    async def openapi(_: Request) -> Response:
        return JSONResponse(manual.openapi(limits, bool(token)))

    async def docs(_: Request) -> Response:
        return HTMLResponse(manual.page(limits, bool(token)))

    public = [
        Route("/score", score, methods=["POST"]),
        Route("/compare", compare, methods=["POST"]),
        Route("/health", health),
        Route("/openapi.json", openapi),
        Route("/docs", docs),
        Route("/", docs),
    ]
    app = Starlette(routes=[*more, *public], exception_handlers=HANDLERS)
    app.add_middleware(_Guarded)
    return app


async def answered(batcher: Batcher, model: str, texts: Sequence[Any], limits: Limits) -> Answer:
    """Raises Refused when it takes too long, SerError when the model cannot answer."""
    try:
        async with asyncio.timeout(limits.answer_s):
            return await asyncio.wrap_future(batcher.ask(model, texts))
    except TimeoutError:
        raise Refused(504, f"No answer came within {limits.answer_s:g} s. Send fewer texts at a time.") from None


def _rounded(answer: Answer) -> list[float]:
    return [float(value) for value in answer.rewards[:, 0]]


def _cut(answer: Answer) -> list[int]:
    """Places of the texts of which the model could not read all."""
    return [place for place, read in enumerate(answer.read) if read.prompt_cut or read.response_cut]


def _host(request: Request) -> str:
    host = request.headers.get("host", "")
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()


# ---- refusals


async def _refused(_: Request, error: Exception) -> Response:
    status = error.status if isinstance(error, Refused) else 500
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    if isinstance(error, Busy):
        status, headers = 503, {"Retry-After": str(max(1, math.ceil(error.seconds)))}
    return JSONResponse({"error": str(error)}, status, headers)


async def _http(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    said = {
        404: "There is nothing at this address. /docs says what there is.",
        405: "This address takes another method.",
    }
    return JSONResponse({"error": said.get(status, "The request could not be answered.")}, status)


async def _gone(_: Request, error: Exception) -> Response:
    return Response(status_code=499)  # nobody reads it


async def _broken(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": f"The model could not answer ({type(error).__name__}). The log says more."}, 500)


HANDLERS: Any = {SerError: _refused, HTTPException: _http, ClientDisconnect: _gone, Exception: _broken}


class _Guarded:
    """No answer is a page that another site may frame or that a browser may take for something else."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                extra = [(b"x-content-type-options", b"nosniff"), (b"content-security-policy", CONTENT.encode())]
                message["headers"] = [*message.get("headers", []), *extra, (b"cache-control", b"no-store")]
            await send(message)

        await self.app(scope, receive, sending if scope["type"] == "http" else send)
