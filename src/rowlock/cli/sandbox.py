"""A whole Rowlock for a short while: a scratch database and real servers over it, gone when the block ends."""

from __future__ import annotations

import contextlib
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

import typer

from rowlock.accounts.model import ANONYMOUS
from rowlock.cli.servers import ServerProcess, servers
from rowlock.cli.setting_up import Stop, opened
from rowlock.events import service as events
from rowlock.kernel.database import DatabaseUnavailable
from rowlock.kernel.errors import NotFound, Problem
from rowlock.kernel.migrations import migrate, pending
from rowlock.kernel.scratch import scratch_database
from rowlock.reports import service as reports

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from rowlock.reports.model import Verification

INTERRUPTED = 130  # what a shell says of a command that Ctrl-C ended


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A migrated scratch database, and the servers over it."""

    database_url: str
    servers: list[ServerProcess]

    @property
    def base_urls(self) -> list[str]:
        """Where the servers are."""
        return [server.url for server in self.servers]


@contextlib.asynccontextmanager
async def sandbox(
    server_url: str, count: int, *, log_sql: bool = False, extra_env: Mapping[str, str] | None = None
) -> AsyncIterator[Sandbox]:
    """Make a database beside the one at `server_url`, and run `count` servers over it.

    Raises:
        Stop, DatabaseUnavailable: something of that cannot be had; nothing is left.

    """
    async with contextlib.AsyncExitStack() as stack:
        try:
            url = await stack.enter_async_context(scratch_database(server_url))
        except DatabaseUnavailable as error:
            raise Stop(
                f"Cannot create a scratch database: {error}. Give the user of ROWLOCK_DATABASE_URL the right CREATEDB,"
                " or leave it unset to use the embedded PostgreSQL."
            ) from None
        async with opened(url) as db:
            await migrate(db)
        yield Sandbox(
            url, stack.enter_context(servers(url, count, log_sql=log_sql, extra_env=extra_env or {}))
        )


async def recount(database_url: str, event_id: str) -> Verification:
    """Run `verify` over the database, having seen that this event of the API is in it.

    Raises:
        Stop: it is not, or the recount cannot be made.

    """
    async with opened(database_url) as db:
        if await pending(db):
            raise Stop("The database of ROWLOCK_DATABASE_URL lacks migrations, so it is not the server's.")
        try:
            async with db.connection() as connection:
                await events.get_visible(connection, ANONYMOUS, UUID(event_id))
            return await reports.verify(db)
        except NotFound:
            raise Stop(
                "The database of ROWLOCK_DATABASE_URL is not the server's: the event is not in it."
            ) from None
        except Problem as problem:
            raise Stop(f"verify could not be run: {problem}") from None


@contextlib.contextmanager
def ending_in_good_order() -> Iterator[None]:
    """Make Ctrl-C, a service manager's SIGTERM and a closed terminal unwind the block, which ends what it started."""

    def stop(_number: int, _frame: Any) -> None:
        raise KeyboardInterrupt

    wishes = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(wish, stop) for wish in wishes]
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("Stopped.", err=True)
        raise typer.Exit(INTERRUPTED) from None
    finally:
        for wish, handler in zip(wishes, before, strict=True):
            signal.signal(wish, handler)
