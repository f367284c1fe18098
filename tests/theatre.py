"""The application on an event loop and a database of its own, for tests that are not asynchronous themselves."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, TypeVar

import httpx

from rowlock.app import create_app
from rowlock.kernel.database import open_database
from rowlock.kernel.migrations import migrate
from rowlock.kernel.scratch import scratch_database
from rowlock.kernel.settings import Settings
from tests.conftest import EMPTY

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

    from rowlock.kernel.database import Database

T = TypeVar("T")
CONNECTIONS = 2


class Theatre:
    """An application that is spoken to from synchronous code."""

    def __init__(self, server_url: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._stack = contextlib.AsyncExitStack()
        self.client, self.db = self.run(self._open(server_url))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for this."""
        return self._loop.run_until_complete(work)

    def empty(self) -> None:
        """Forget all that has happened."""
        self.run(self._empty())

    def close(self) -> None:
        """Drop the database."""
        self.run(self._stack.aclose())
        self._loop.close()

    async def _open(self, server_url: str) -> tuple[httpx.AsyncClient, Database]:
        url = await self._stack.enter_async_context(scratch_database(server_url))
        db = await open_database(url, size=CONNECTIONS)
        self._stack.push_async_callback(db.close)
        await migrate(db)
        app = create_app(
            Settings(database_url=url, sale_connections=CONNECTIONS, other_connections=CONNECTIONS)
        )
        await self._stack.enter_async_context(app.router.lifespan_context(app))
        transport, base = httpx.ASGITransport(app), "http://rowlock.test/api/v1"
        return await self._stack.enter_async_context(
            httpx.AsyncClient(transport=transport, base_url=base)
        ), db

    async def _empty(self) -> None:
        async with self.db.transaction() as tx:
            await tx.execute(EMPTY)


@contextlib.contextmanager
def open_theatre(server_url: str) -> Iterator[Theatre]:
    """Open the application on a fresh database of this server, and close it however the block ends."""
    theatre = Theatre(server_url)
    try:
        yield theatre
    finally:
        theatre.close()
