"""The composition root of HTTP: routes, the outermost layer, and what lives as long as the server."""

from __future__ import annotations

import asyncio
import contextlib
import os
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog
from fastapi import FastAPI
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from rowlock import __version__, housekeeping
from rowlock.accounts import api as accounts_api
from rowlock.accounts import service as accounts
from rowlock.accounts.model import ANONYMOUS
from rowlock.events import api as events_api
from rowlock.kernel import metrics
from rowlock.kernel.batching import GroupCommit
from rowlock.kernel.database import KEY_LOOKUPS, open_database
from rowlock.kernel.errors import Busy, NotFound
from rowlock.orders import api as orders_api
from rowlock.orders.placing import place_many
from rowlock.web import docs, problems
from rowlock.web.edge import Edge, Handler
from rowlock.web.openapi import complete
from rowlock.web.parameters import ROOT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

    from rowlock.kernel.settings import Settings

READY_SECONDS = 1.0
log = structlog.get_logger("rowlock.app")


def create_app(settings: Settings) -> Application:
    """Build the application; it opens its database when it starts."""
    app = Application(
        title="Rowlock",
        version=__version__,
        summary="Event registration that never oversells and never withholds a free seat.",
        docs_url=None,
        redoc_url=None,
        lifespan=partial(_lifespan, settings=settings),
        exception_handlers=problems.handlers(),
    )
    app.body_max_bytes = settings.body_max_bytes
    app.hot[f"{ROOT}/registrations"] = orders_api.post_registration
    app.router.routes += [
        Route(f"{ROOT}/registrations", orders_api.post_registration, methods=["POST"]),
        Route("/healthz", _healthz),
        Route("/readyz", _readyz),
        Route("/metrics", _metrics),
        Route("/problems/{code}", _problem),
        *docs.routes(),
    ]
    for feature in (accounts_api, events_api, orders_api):
        app.include_router(feature.router, prefix=ROOT)
    return app


class Application(FastAPI):
    """The framework's application, with our outermost layer outside of the framework's own."""

    def __init__(self, **kwargs: Any) -> None:
        """Take the framework's arguments."""
        super().__init__(**kwargs)
        self.body_max_bytes = 0
        self.hot: dict[str, Handler] = {}

    def build_middleware_stack(self) -> ASGIApp:
        """Put the edge around everything."""
        return Edge(super().build_middleware_stack(), body_max_bytes=self.body_max_bytes, hot=self.hot)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Go to the edge at once: what the framework does before, each request would pay for."""
        if self.middleware_stack is None:
            self.middleware_stack = self.build_middleware_stack()
        scope["app"] = self
        await self.middleware_stack(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document, the plain route's operation included."""
        if self.openapi_schema is None:
            document = super().openapi()
            document["paths"].setdefault(f"{ROOT}/registrations", {})["post"] = orders_api.post_operation(
                document
            )
            self.openapi_schema = complete(document)
        return self.openapi_schema


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI, settings: Settings) -> AsyncIterator[None]:
    """Open the databases' bulkheads, the sale's and that of everything else, and start the housekeeping."""
    assert settings.database_url is not None, "the mouth that starts the server finds the database first"
    connect = partial(open_database, settings.database_url, log_sql=settings.log_sql)
    db, sale = (
        await connect(size=settings.other_connections),
        await connect(size=settings.sale_connections, planner=KEY_LOOKUPS),
    )
    desk: Any = GroupCommit(
        partial(place_many, sale),
        key=lambda request: request.event_id,
        lanes=settings.sale_connections,
        queue_max=settings.queue_max,
        deadline_seconds=settings.deadline_seconds,
        gauge=metrics.BatchGauge(),
    )
    app.state.settings, app.state.db, app.state.sale, app.state.desk = settings, db, sale, desk
    app.state.anonymous = ANONYMOUS
    app.state.identify = partial(accounts.identify, db)
    chores = asyncio.create_task(housekeeping.run(db))
    try:
        yield
    finally:
        chores.cancel()
        await desk.close()
        await asyncio.gather(chores, return_exceptions=True)
        await asyncio.gather(db.close(), sale.close())


async def _healthz(_request: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def _readyz(request: Request) -> Response:
    try:
        async with asyncio.timeout(READY_SECONDS), request.app.state.db.connection() as connection:
            await connection.fetch_value("SELECT 1")
    except (Busy, TimeoutError):
        return problems.respond_to(Busy("The database does not answer."))
    return JSONResponse({"status": "ready"})


async def _metrics(request: Request) -> Response:
    for name in ("db", "sale"):
        pool = getattr(request.app.state, name)
        metrics.pool_connections.labels(name, "idle").set(pool.idle())
        metrics.pool_connections.labels(name, "open").set(pool.size())
    return Response(metrics.exposition(os.environ), media_type="text/plain; version=0.0.4; charset=utf-8")


async def _problem(request: Request) -> Response:
    """Explain a problem: the `type` of every refusal leads here."""
    for kind in problems.all_problems():
        if kind.code == request.path_params["code"]:
            return PlainTextResponse(
                f"{kind.title} ({problems.status_of(kind)} {kind.code})\n\n{kind.__doc__}\n"
            )
    raise NotFound
