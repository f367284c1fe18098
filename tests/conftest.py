"""One real PostgreSQL for each test process, one migrated database in it, emptied after each test.

ROWLOCK_PG_BIN=/usr/lib/postgresql/15/bin make test: against another release than the wheel's.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
import pytest_asyncio
import structlog

from rowlock.app import create_app
from rowlock.kernel.database import Database, open_database
from rowlock.kernel.migrations import migrate
from rowlock.kernel.postgres import Postgres, running
from rowlock.kernel.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from fastapi import FastAPI

# A test's database need not survive a power cut; tests that kill PostgreSQL start one of their own that does.
FAST = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
TABLES = (
    "idempotency_key ledger ticket orders ticket_type_pool ticket_type capacity_pool event"
    " api_key access_token member organization users"
).split()
EMPTY = "SET LOCAL session_replication_role = replica;" + ";".join(f"DELETE FROM {table}" for table in TABLES)


@pytest.fixture(scope="session", autouse=True)
def plain_logs() -> None:
    """Show errors as Python does: the pretty form takes seconds for each, as it prints the values of all variables."""
    plain = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*structlog.get_config()["processors"][:-1], plain])


# A process that a script started in the background ignores Ctrl-C, and so would all that the tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    programs = Path(os.environ["ROWLOCK_PG_BIN"]) if "ROWLOCK_PG_BIN" in os.environ else None
    with running(tmp_path_factory.mktemp("pg"), settings=FAST, bin_dir=programs) as server:
        yield server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def pool(postgres: Postgres) -> AsyncIterator[Database]:
    database = await open_database(postgres.url(), size=40)
    await migrate(database)
    yield database
    await database.close()


@pytest_asyncio.fixture(loop_scope="session")
async def db(pool: Database) -> AsyncIterator[Database]:
    yield pool
    async with pool.transaction() as tx:
        await tx.execute(EMPTY)


@pytest.fixture(scope="session")
def settings(postgres: Postgres) -> Settings:
    return Settings(database_url=postgres.url(), log_format="json", log_level="error")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def app(settings: Settings, pool: Database) -> AsyncIterator[FastAPI]:  # noqa: ARG001 - the schema must be there
    application = create_app(settings)
    async with application.router.lifespan_context(application):
        yield application


@pytest_asyncio.fixture(loop_scope="session")
async def client(app: FastAPI, db: Database) -> AsyncIterator[httpx.AsyncClient]:  # noqa: ARG001 - emptied afterwards
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://rowlock.test/api/v1") as http:
        yield http
