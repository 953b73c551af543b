"""Prometheus metrics of one server, and its access log: method, route, status, milliseconds. Never an id, a parameter or a text."""

from __future__ import annotations

import logging
import time
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tracestore.serve.middleware import RequestMiddleware, route_of

access: Final = logging.getLogger("tracestore.serve.access")

MEDIA_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_BUCKETS: Final = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """The numbers of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        names = ("method", "route", "status")
        self.requests = Counter("tracestore_http_requests", "Requests answered.", names, registry=self.registry)
        self.seconds = Histogram(
            "tracestore_http_request_seconds", "Seconds to answer.", ("route",), buckets=_BUCKETS, registry=self.registry
        )
        self.open = Gauge("tracestore_http_open_requests", "Requests being answered or waiting.", registry=self.registry)

    def text(self) -> bytes:
        """Give all in Prometheus' text format."""
        return generate_latest(self.registry)


class Measured(RequestMiddleware):
    """Count and time every request."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        super().__init__(app)
        self.metrics = metrics

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        status = 0
        started = time.perf_counter()

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with self.metrics.open.track_inprogress():
            try:
                await self.app(scope, receive, noting)
            finally:
                seconds = time.perf_counter() - started
                method = scope["method"] if scope["method"] in _METHODS else "other"
                self.metrics.requests.labels(method, route_of(scope), str(status)).inc()
                self.metrics.seconds.labels(route_of(scope)).observe(seconds)
                access.info("%s %s %s %.1f ms", method, route_of(scope), status, 1000 * seconds)
