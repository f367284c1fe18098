"""Who organizes events here, and what happens to events that no route of theirs does."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from rowlock.allocation import service as allocation
from rowlock.allocation.model import Change, Reason
from tests import make

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import httpx

    from rowlock.kernel.database import Database
    from tests.make import Actor


@pytest.fixture
async def ann(client: httpx.AsyncClient) -> Actor:
    """Return an organizer."""
    return await make.user(client, "Ann")


@pytest.fixture
async def bob(client: httpx.AsyncClient) -> Actor:
    """Return a stranger."""
    return await make.user(client, "Bob")


@pytest.fixture
def sell(db: Database) -> Callable[[str, int], Awaitable[None]]:
    """Return a function that sells so many seats of an event, by the one door there is for it."""

    async def sold(event_id: str, seats: int) -> None:
        event = UUID(event_id)
        async with db.transaction() as tx:
            allotment = await allocation.lock(tx, [event])
            (pool,) = allotment.pools_of(event)
            allotment.apply(Change(event, (pool.id,), Reason.REGISTERED, "test", sold=seats))
            await allocation.save(tx, allotment)

    return sold


@pytest.fixture
def end(db: Database) -> Callable[[str], Awaitable[None]]:
    """Return a function that lets an event end now, as the clock would."""

    async def ended(event_id: str) -> None:
        async with db.transaction() as tx:
            await tx.execute(
                "UPDATE event SET starts_at = NULL, ends_at = clock_timestamp() WHERE id = $1", UUID(event_id)
            )

    return ended
