"""Run the server until it is told to stop."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from types import TracebackType

import uvicorn

from tracestore.api import open_store
from tracestore.errors import BadInputError
from tracestore.serve.app import create_app
from tracestore.serve.settings import ServeSettings

_ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


class _NoTraces(logging.Formatter):
    """Log lines without stack traces: an exception's text may hold a prompt."""

    def formatException(self, ei: _ExcInfo) -> str:  # noqa: N802  the library's name
        return "" if ei[0] is None else ei[0].__name__

    def formatStack(self, stack_info: str) -> str:  # noqa: N802
        return ""


def serve(settings: ServeSettings, on_start: Callable[[str], None], *, access_log: bool = False) -> None:
    """Open the store, bind, tell the address, answer until Ctrl-C or SIGTERM.

    Raises StoreError and its kinds when the store cannot be opened, BadInputError when the address cannot be bound or there is no archive
    where the settings say, ArchiveError when that cannot be used.
    """
    graph = open_store(settings.store, read_only=True)
    try:
        app = create_app(graph, settings)
        listening = _bind(settings.host, settings.port)
    except BaseException:
        graph.close()
        raise
    _set_up_log(access_log=access_log)
    config = uvicorn.Config(app, log_config=None, access_log=False, server_header=False, lifespan="on", timeout_graceful_shutdown=10)
    on_start(_address(listening))
    with listening:
        uvicorn.Server(config).run(sockets=[listening])


def _bind(host: str, port: int) -> socket.socket:
    bare = host.strip("[]")
    try:
        family = socket.getaddrinfo(bare, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((bare, port), family=family, backlog=512)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or "no such address"
        raise BadInputError(f"cannot listen on {host}, port {port}: {reason}; choose others with --host and --port") from None


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def _set_up_log(*, access_log: bool) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(_NoTraces("%(asctime)s %(levelname)s %(name)s %(message)s"))
    for name, level in (("tracestore.serve", logging.INFO if access_log else logging.WARNING), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
