"""The ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import FastAPI

from tracestore._version import __version__
from tracestore.api import open_archive
from tracestore.serve import metrics, middleware, openapi, problems
from tracestore.serve.routes import cypher, export, health, outputs, page, queries, traces
from tracestore.serve.settings import ServeSettings

if TYPE_CHECKING:
    from tracestore.api import GraphStore

DESCRIPTION = "Which earlier tokens drove this output token? Traces of language models, asked over HTTP. Everything only reads."


def create_app(graph: GraphStore, settings: ServeSettings) -> FastAPI:
    """Make the application over an open store, which it closes when it ends.

    Raises BadInputError and ArchiveError when there is no archive where the settings say.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        graph.close()

    app = FastAPI(title="tracestore", version=__version__, description=DESCRIPTION, docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.graph, app.state.settings, app.state.metrics = graph, settings, metrics.Metrics()
    app.state.archive = None if settings.archive is None else open_archive(settings.archive)
    problems.install(app)
    for router in (traces.router, outputs.router, queries.make_router(), export.router, cypher.router, health.router):
        app.include_router(router)
    page.install(app)
    openapi.install(app)
    # the last one added is the outermost
    app.add_middleware(middleware.AnswerLimit, most=settings.max_answer_bytes, most_of_export=settings.max_export_bytes)
    app.add_middleware(middleware.Exports, places=settings.exports, seconds=settings.export_timeout_s)
    app.add_middleware(middleware.Places, places=settings.concurrency, most_waiting=settings.max_waiting, patience_s=settings.timeout_s)
    app.add_middleware(middleware.BodyLimit, most=settings.max_body_bytes)
    if settings.token is not None:
        app.add_middleware(middleware.Guard, check=middleware.token_check(settings.token))
    if settings.allowed_hosts is not None:
        app.add_middleware(middleware.Guard, check=middleware.host_check(settings.allowed_hosts))
    app.add_middleware(middleware.LastResort)
    app.add_middleware(middleware.Headed)
    app.add_middleware(metrics.Measured, metrics=app.state.metrics)
    return app
