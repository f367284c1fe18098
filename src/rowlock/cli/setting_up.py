"""What every command does before its own work: read settings, find the database, say in one line what is wrong."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import sys
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from rowlock.kernel.database import DatabaseUnavailable, open_database
from rowlock.kernel.migrations import MigrationError, migrate
from rowlock.kernel.postgres import PostgresUnavailable, kept_running, running
from rowlock.kernel.settings import Settings, SettingsError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from rowlock.kernel.database import Database

Result = TypeVar("Result")
EXPECTED = (SettingsError, DatabaseUnavailable, MigrationError, PostgresUnavailable)


class Stop(Exception):
    """A command cannot go on; the message is one line that says what to do."""


def one_clear_line(command: Callable[..., Result]) -> Callable[..., Result]:
    """Make a command end with one line and exit code 1 where something outside the program is missing or wrong."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Result:
        try:
            return command(*args, **kwargs)
        except (*EXPECTED, Stop) as error:
            sys.stderr.write(f"rowlock: {' '.join(str(error).split())}\n")
            raise typer.Exit(1) from None

    return wrapped


@contextlib.contextmanager
def database_url(settings: Settings) -> Iterator[str]:
    """Yield the URL of the operator's database, or of the embedded one, which is started and kept running."""
    if settings.database_url is not None:
        yield settings.database_url
        return
    with running(settings.data_dir, bin_dir=settings.pg_bin) as postgres, kept_running(postgres):
        yield postgres.url()


@contextlib.asynccontextmanager
async def opened(url: str, *, size: int = 2, log_sql: bool = False) -> AsyncIterator[Database]:
    """Open a database for as long as the block lasts.

    Raises:
        DatabaseUnavailable: it cannot be reached.

    """
    try:
        db = await open_database(url, size=size, log_sql=log_sql)
    except DatabaseUnavailable as error:
        raise DatabaseUnavailable(f"Cannot use the database: {error} Check ROWLOCK_DATABASE_URL.") from None
    try:
        yield db
    finally:
        await db.close()


def bring_up_to_date(url: str) -> list[str]:
    """Apply the migrations that are missing; return their names."""

    async def run() -> list[str]:
        async with opened(url) as db:
            return [f"{it.number:04}_{it.name}" for it in await migrate(db)]

    return asyncio.run(run())
