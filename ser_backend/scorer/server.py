"""Where it listens, and how it stops: one socket, one event loop. Raises SerError with a sentence when it may not."""

import ipaddress
import secrets
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn

from ser_backend.errors import SerError

SHORTEST_TOKEN = 16
STOP_S = 20  # for what is being answered when it is told to stop
CONNECTIONS = 4_096
HEAD_S = 30.0  # for the head of a request to arrive, also of the first


def token_of(token: str | None, token_file: Path | None) -> str:
    """ "" when none was given. Raises SerError."""
    if token_file is not None:
        try:
            token = token_file.read_text().strip()
        except (OSError, UnicodeError) as error:
            raise SerError(f"{token_file} could not be read ({error}). Give a file that holds the token.") from None
        if not token:
            raise SerError(f"{token_file} is empty. Write a token into it, for example {secrets.token_urlsafe(24)}")
    if token is not None and (len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable()):
        raise SerError(
            f"The token has {len(token)} characters; at least {SHORTEST_TOKEN} printable ones are needed. A good one: "
            f"{secrets.token_urlsafe(24)}"
        )
    return token or ""


def check_host(host: str, token: str) -> None:
    """Raises SerError for a place that others can reach, unless there is a token."""
    if not token and not is_loopback(host):
        raise SerError(
            f"{host} can be reached by others, and no token was given. Give --token-file, or listen on 127.0.0.1 only."
        )


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def bind(host: str, port: int) -> socket.socket:
    """Raises SerError."""
    if not 0 <= port < 1 << 16:  # 65,536 and above would be taken modulo that
        raise SerError(f"The port is {port}; a port is from 1 to 65535, or 0 for any that is free.")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(CONNECTIONS)
    except (OSError, OverflowError) as error:
        raise SerError(f"{host}, port {port}, cannot be listened on: {error}. Give another --host or --port.") from None
    return bound


class _Server(uvicorn.Server):
    """Lets go of connections on which no request comes. uvicorn waits for ever for the first one and for the rest of a head,
    so that 2,048 of them would shut everybody else out."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._quiet: dict[Any, float] = {}  # (connection, its last answered request) -> since when

    async def on_tick(self, counter: int) -> bool:
        if counter % 10 == 0:  # a second
            now = time.monotonic()
            connections: set[Any] = self.server_state.connections  # all h11's
            quiet = [(one, one.cycle) for one in connections if one.cycle is None or one.cycle.response_complete]
            self._quiet = {key: self._quiet.get(key, now) for key in quiet}
            for (connection, _), since in self._quiet.items():
                if now - since > HEAD_S:
                    connection.transport.close()
        return await super().on_tick(counter)


def server(app: Any) -> uvicorn.Server:
    return _Server(
        uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=STOP_S,
            lifespan="off",
            http="h11",  # whatever else is installed
            ws="none",
            limit_concurrency=CONNECTIONS // 2,
            backlog=CONNECTIONS,
            h11_max_incomplete_event_size=64 << 10,
        )
    )


def run(made: uvicorn.Server, bound: socket.socket, ready: Callable[[], None]) -> None:
    """Until SIGTERM or Ctrl+C; what is being answered then is answered still."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: setattr(made, "should_exit", True))  # uvicorn raises them again at its end
    ready()
    made.run(sockets=[bound])
