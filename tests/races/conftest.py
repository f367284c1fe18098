"""An explorer for the session, and somebody who owns an organization."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest_asyncio

from rowlock.accounts import service as accounts
from rowlock.accounts.model import ALLOWED, Caller, Role
from rowlock.kernel.database import Database, open_database
from tests.races.explorer import Explorer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rowlock.kernel.postgres import Postgres


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def explorer(postgres: Postgres, pool: Database) -> AsyncIterator[Explorer]:  # noqa: ARG001 - the schema must be there
    database = await open_database(postgres.url(), size=3)
    raws = [await database._pool.acquire() for _ in range(3)]
    yield Explorer(*raws)
    for raw in raws:
        await database._pool.release(raw)
    await database.close()


@pytest_asyncio.fixture(loop_scope="session")
async def owner(db: Database) -> Caller:
    async with db.transaction() as tx:
        user = await accounts.sign_up(tx, name="Olga", email="olga@example.org", password_hash="none")
        home = await accounts.found_organization(tx, user, "Concerts")
    return Caller(f"user:{user.id}", user, {home.id: ALLOWED[Role.OWNER]}, home.id)
