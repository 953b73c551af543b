"""What stands around every request: headers, host, token, size of the body, places to work, and the last resort for errors.

Plain ASGI, since responses stream through it.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from typing import Any, Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tracestore.serve.problems import RETRY_AFTER_S, ProblemError
from tracestore.serve.settings import EXPORT_PREFIX

log: Final = logging.getLogger("tracestore.serve")

CONTENT_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; font-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS: Final = {
    "Content-Security-Policy": CONTENT_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
GUARDED: Final = ("/api", "/metrics")
"""Addresses that need the token; the page's own files hold no data, and whether the server is alive is no secret."""


class RequestMiddleware(ABC):
    """Handle requests; let the other things that an ASGI server says (its start, its end) through to `app`."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take one ASGI scope."""
        await (self.handle if scope["type"] == "http" else self.app)(scope, receive, send)

    @abstractmethod
    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request, or let it through."""


class LastResort(RequestMiddleware):
    """Answer what nobody else has caught with a problem; the log gets the error's type, never its text or a stack trace."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watching(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, watching)
        except Exception as error:  # noqa: BLE001  the one place where everything ends as an answer
            log.error("unexpected %s in %s %s", type(error).__name__, scope["method"], route_of(scope))
            if not started:
                problem = ProblemError(500, "failure", "Something unexpected happened; the server's log names its kind.")
                await problem.response()(scope, receive, send)


class Headed(RequestMiddleware):
    """Put the security headers on every response."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def heading(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                if str(scope.get("path", "")).startswith("/api"):
                    headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self.app(scope, receive, heading)


Check = Callable[[Scope, Headers], ProblemError | None]


class Guard(RequestMiddleware):
    """Refuse a request before anything is done for it."""

    def __init__(self, app: ASGIApp, check: Check) -> None:
        super().__init__(app)
        self.check = check

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        problem = self.check(scope, Headers(scope=scope))
        await (self.app if problem is None else problem.response())(scope, receive, send)


def host_check(allowed: tuple[str, ...]) -> Check:
    """Refuse a request that addresses the server by a name that is not its own."""

    def check(scope: Scope, headers: Headers) -> ProblemError | None:
        host = headers.get("host", "").lower()
        name = host[: host.index("]") + 1] if host.startswith("[") and "]" in host else host.partition(":")[0]
        return None if name in allowed else ProblemError(400, "unknown-host", "This server does not answer to that host name.")

    return check


def token_check(token: str) -> Check:
    """Refuse a request for data that does not carry the token."""
    expected = token.encode()

    def check(scope: Scope, headers: Headers) -> ProblemError | None:
        path = scope["path"]
        if not any(path == place or path.startswith(f"{place}/") for place in (*GUARDED, "/openapi.json")):
            return None
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode("utf-8", "replace"), expected):
            return None
        return ProblemError(401, "token-needed", "Send the server's token as Authorization: Bearer ...", {"WWW-Authenticate": "Bearer"})

    return check


class _TooLargeError(Exception):
    pass


class BodyLimit(RequestMiddleware):
    """Refuse bodies over a number of bytes, whether they say their length or not."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        super().__init__(app)
        self.most = most

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        problem = ProblemError(413, "body-too-large", f"A body may have {self.most} bytes.", {"Connection": "close"})
        length = Headers(scope=scope).get("content-length", "0")
        if not length.isdecimal() or int(length) > self.most:
            await problem.response()(scope, receive, send)
            return
        read, over, started = 0, False, False

        async def counting() -> Message:
            nonlocal read, over
            message = await receive()
            read += len(message.get("body", b""))
            if read > self.most:
                over = True
                raise _TooLargeError
            return message

        async def replacing(message: Message) -> None:
            nonlocal started
            if over:  # whatever the application makes of a body that ended early
                return
            started = True
            await send(message)

        with suppress(_TooLargeError):
            await self.app(scope, counting, replacing)
        if over and not started:
            await problem.response()(scope, receive, send)


class AnswerTooLargeError(Exception):
    """An answer grew beyond its bound after it had begun: the connection is cut, so that nobody takes it for whole."""


class AnswerLimit(RequestMiddleware):
    """Bound the bytes of an answer: a problem instead of it where its length is said, else the end of the connection."""

    def __init__(self, app: ASGIApp, most: int, most_of_export: int) -> None:
        super().__init__(app)
        self.most = most
        self.most_of_export = most_of_export

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        most = self.most_of_export if is_export(scope) else self.most
        problem = ProblemError(422, "answer-too-large", f"An answer may have {most} bytes: ask for fewer rows, or in another form.")
        sent, refused = 0, False

        async def weighing(message: Message) -> None:
            nonlocal sent, refused
            if message["type"] == "http.response.start":
                refused = int(Headers(raw=message["headers"]).get("content-length", "0")) > most
                if refused:
                    await problem.response()(scope, receive, send)
            if refused:
                return
            sent += len(message.get("body", b""))
            if sent > most:
                raise AnswerTooLargeError
            await send(message)

        await self.app(scope, receive, weighing)


class Exports(RequestMiddleware):
    """Let few exports be at work, each for a time, beside the places of other requests; more are told to come back later."""

    def __init__(self, app: ASGIApp, places: int, seconds: float) -> None:
        super().__init__(app)
        self._free = places
        self._seconds = seconds

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not is_export(scope):
            await self.app(scope, receive, send)
            return
        if self._free == 0:
            problem = ProblemError(429, "busy", "Other exports are at work; try again.", {"Retry-After": str(RETRY_AFTER_S)})
            await problem.response()(scope, receive, send)
            return
        started = False

        async def watching(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        self._free -= 1
        try:
            async with asyncio.timeout(self._seconds):  # also for a client that does not read on
                await self.app(scope, receive, watching)
        except TimeoutError:
            if started:
                raise
            problem = ProblemError(504, "timeout", f"The export took longer than {self._seconds:g} s; narrow it by filters.")
            await problem.response()(scope, receive, send)
        finally:
            self._free += 1


def is_export(scope: Scope) -> bool:
    """Is this a request for an export?"""
    return str(scope["path"]).startswith(f"{EXPORT_PREFIX}/")


class Places(RequestMiddleware):
    """Let a number of requests work at a time; others wait, up to a number and a time. The page's files and exports need no place."""

    def __init__(self, app: ASGIApp, places: int, most_waiting: int, patience_s: float) -> None:
        super().__init__(app)
        self._free = asyncio.Semaphore(places)
        self._waiting = 0
        self._most_waiting = most_waiting
        self._patience_s = patience_s

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not scope["path"].startswith("/api") or is_export(scope):
            await self.app(scope, receive, send)
            return
        if not await self._enter():
            problem = ProblemError(429, "busy", "Too many requests wait already; try again.", {"Retry-After": str(RETRY_AFTER_S)})
            await problem.response()(scope, receive, send)
            return
        try:
            await self.app(scope, receive, send)
        finally:
            self._free.release()

    async def _enter(self) -> bool:
        if self._free.locked() and self._waiting >= self._most_waiting:
            return False
        self._waiting += 1
        try:
            await asyncio.wait_for(self._free.acquire(), self._patience_s)
        except TimeoutError:
            return False
        finally:
            self._waiting -= 1
        return True


def route_of(scope: MutableMapping[str, Any]) -> str:
    """Name what was asked for by the route's template: ids and parameters stay out of logs and metrics."""
    return str(getattr(scope.get("route"), "path", None) or "unknown")
