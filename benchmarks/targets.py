"""The servers that are compared: ours, the plain design, and a request that does nothing.

All three are the same application in the same server. `grouped` is what is shipped. `plain` replaces one object, the
desk that registrations are handed to, by the textbook design: one transaction a registration, SELECT … FOR UPDATE,
INSERT, UPDATE, COMMIT. It writes the same rows in as few statements as can be. Both have `POST /noop`, which decodes
the same body and touches nothing: the ceiling of this server on this machine.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import msgspec
from starlette.responses import Response

from rowlock.asgi import create
from rowlock.kernel.ids import digest
from rowlock.orders.api import NewRegistration
from rowlock.orders.errors import AlreadyRegistered, SoldOut
from rowlock.orders.model import Place, Registration
from rowlock.web.body import decode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

    from rowlock.app import Application
    from rowlock.kernel.database import Database

_LOCK = """
SELECT id, total, held, sold, blocked, last_sequence FROM capacity_pool WHERE event_id = $1 ORDER BY id FOR UPDATE
"""
_INSERT = """
WITH placed AS (
    INSERT INTO orders (event_id, id, status, buyer_name, buyer_email, person_key, secret_hash, sequence, created_at)
    VALUES ($1, $2, 'confirmed', $3, $4, $5, $6, $7, clock_timestamp())
    ON CONFLICT DO NOTHING RETURNING event_id, id, created_at
), type AS (
    SELECT id FROM ticket_type WHERE event_id = $1 ORDER BY id LIMIT 1
), admitted AS (
    INSERT INTO ticket (event_id, id, order_id, ticket_type_id, status, attendee_name, attendee_email, code)
    SELECT placed.event_id, $8, placed.id, type.id, 'valid', $3, $4, $9 FROM placed, type
), noted AS (
    INSERT INTO ledger (event_id, sequence, pool_id, reason, order_id, actor, total, held, sold, blocked)
    SELECT placed.event_id, $7, $10, 'registered', placed.id, 'anonymous', $11, $12, $13, $14 FROM placed
)
SELECT placed.created_at, type.id AS ticket_type_id FROM placed, type
"""
_UPDATE = "UPDATE capacity_pool SET sold = sold + 1, last_sequence = $3 WHERE event_id = $1 AND id = $2"


class PlainDesk:
    """One transaction a registration."""

    def __init__(self, db: Database, connections: int) -> None:
        """Take the database that registrations go to, and how many of its connections there are."""
        self._db = db
        # In order of arrival, and as long as it takes: waiting for the pool itself would end in 503 after two seconds.
        self._turn = asyncio.Semaphore(connections)

    async def submit(self, asked: Place) -> Registration | SoldOut | AlreadyRegistered:
        """Register one person."""
        async with self._turn, self._db.transaction() as tx:
            (pool,) = await tx.fetch(_LOCK, asked.event_id)
            if pool["held"] + pool["sold"] + pool["blocked"] >= pool["total"]:
                return SoldOut("No seat is left.", available=0)
            sequence = pool["last_sequence"] + 1
            row = await tx.fetch_one(
                _INSERT,
                asked.event_id,
                asked.order_id,
                asked.name,
                asked.email,
                asked.person_key,
                digest(asked.secret),
                sequence,
                asked.ticket_id,
                asked.ticket_code,
                pool["id"],
                pool["total"],
                pool["held"],
                pool["sold"] + 1,
                pool["blocked"],
            )
            if row is None:
                return AlreadyRegistered()
            await tx.execute(_UPDATE, asked.event_id, pool["id"], sequence)
        return Registration(
            id=asked.order_id,
            event_id=asked.event_id,
            organization_id=asked.event_id,
            status="confirmed",
            name=asked.name,
            email=asked.email,
            person_key=asked.person_key,
            user_id=None,
            ticket_id=asked.ticket_id,
            ticket_type_id=row["ticket_type_id"],
            ticket_code=asked.ticket_code,
            secret_hash=digest(asked.secret),
            sequence=sequence,
            created_at=row["created_at"],
        )

    async def close(self) -> None:
        """Nothing gathers here."""


async def _noop(request: Request) -> Response:
    new = decode(await request.body(), NewRegistration)
    return Response(msgspec.json.encode({"event_id": new.event_id}), 201, media_type="application/json")


def grouped() -> Application:
    """Build the application as it is shipped, and the no-op beside it."""
    app = create()
    app.hot["/noop"] = _noop
    return app


def plain() -> Application:
    """Build the same application with the plain design at its heart."""
    app = grouped()
    opened = app.router.lifespan_context

    @contextlib.asynccontextmanager
    async def lifespan(application: Application) -> AsyncIterator[None]:
        async with opened(application):
            grouping = application.state.desk
            application.state.desk = PlainDesk(
                application.state.sale, application.state.settings.sale_connections
            )
            yield
            application.state.desk = grouping

    app.router.lifespan_context = lifespan
    return app
