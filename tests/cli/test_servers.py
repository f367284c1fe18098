"""Server processes that really run, really die, and leave nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from typing import TYPE_CHECKING

import pytest

from rowlock.cli.client import Api
from rowlock.cli.sandbox import sandbox
from rowlock.cli.servers import servers
from rowlock.cli.setting_up import Stop
from rowlock.kernel.database import DatabaseUnavailable, create_database, drop_database, open_database
from rowlock.kernel.scratch import scratch_database, url_of

if TYPE_CHECKING:
    from rowlock.cli.servers import ServerProcess


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_servers_answer_log_their_sql_and_end_with_their_block(durable_url: str) -> None:
    seen: list[ServerProcess] = []
    with contextlib.suppress(LookupError):
        async with sandbox(durable_url, 2, log_sql=True) as box:
            seen += box.servers
            for url in box.base_urls:
                async with Api(url) as api:
                    assert (await api.call("GET", "/api/v1/events")).json()["items"] == []
            raise LookupError
    assert len({server.pid for server in seen}) == 2
    assert all("FROM event" in "\n".join(server.log_lines) for server in seen)
    assert not any(is_there(server.pid) for server in seen)
    with pytest.raises(DatabaseUnavailable, match="does not exist"):
        await open_database(box.database_url, size=1)


async def test_a_killed_server_is_dead_and_the_other_goes_on(durable_url: str) -> None:
    async with sandbox(durable_url, 2) as box:
        one, other = box.servers
        one.kill()
        assert not one.is_running
        assert not is_there(one.pid)
        async with Api(one.url) as api:
            with pytest.raises(ConnectionRefusedError):
                await api.call("GET", "/healthz")
        async with Api(other.url) as api:
            assert (await api.call("GET", "/readyz")).status == 200
        other.stop()
        assert not is_there(other.pid)


def test_a_server_without_its_database_is_one_clear_line() -> None:
    with pytest.raises(Stop) as stopped, servers("postgresql://nobody@127.0.0.1:9/nothing", 1):
        pass
    said = str(stopped.value)
    assert said.startswith("A server did not start: Cannot use the database:")
    assert "\n" not in said


async def test_a_scratch_database_is_fresh_and_gone_afterwards(durable_url: str) -> None:
    urls = set()
    for _ in range(2):
        async with scratch_database(durable_url) as url:
            urls.add(url)
            db = await open_database(url, size=1)
            async with db.transaction() as tx:
                await tx.execute("CREATE TABLE trace ()")
            # Left open: whoever is still in it does not keep it alive.
        with pytest.raises(DatabaseUnavailable, match="does not exist"):
            await open_database(url, size=1)
        await db.close()
    assert len(urls) == 2


async def test_who_may_not_create_a_database_is_told_what_to_do(durable_url: str) -> None:
    role = f"guest_{secrets.token_hex(4)}"
    db = await open_database(durable_url, size=1)
    try:
        async with db.transaction() as tx:
            await tx.execute(f"CREATE ROLE {role} LOGIN")
        guest = durable_url.replace("postgresql://rowlock@", f"postgresql://{role}@")
        with pytest.raises(Stop, match=r"permission denied to create database.*CREATEDB"):
            async with sandbox(guest, 1):
                pass
        async with db.transaction() as tx:
            await tx.execute(f"DROP ROLE {role}")
    finally:
        await db.close()


@pytest.mark.parametrize(
    ("url", "other"),
    [
        ("postgresql://rowlock@/rowlock?host=/a/b&port=5432", "postgresql://rowlock@/x?host=/a/b&port=5432"),
        ("postgresql:///here?dbname=there", "postgresql:///x"),
        (
            "postgres://u:p%40@[::1]:5433/here?sslmode=require",
            "postgres://u:p%40@[::1]:5433/x?sslmode=require",
        ),
        ("postgresql://host", "postgresql://host/x"),
    ],
)
def test_another_database_of_the_same_server(url: str, other: str) -> None:
    assert url_of(url, "x") == other


def test_a_database_that_is_not_there_can_be_dropped(durable_url: str) -> None:
    asyncio.run(drop_database(durable_url, "never_made"))


def test_a_database_is_not_made_twice(durable_url: str) -> None:
    with pytest.raises(DatabaseUnavailable, match="already exists"):
        asyncio.run(create_database(durable_url, "rowlock"))
