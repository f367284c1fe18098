"""kill -9, amid a load: of servers and of PostgreSQL. What was acknowledged is there, and nothing else."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from rowlock.cli.client import Answer, connect, race
from rowlock.cli.wire import parse_address
from rowlock.kernel.postgres import Postgres
from tests.served import CONFIRMED, NO_ANSWER, Asked, Crowd, Site, outcome_of, registration, site

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ROUNDS = 5
SEATS = 100_000
BUSY = {"busy", "outcome_unknown"}


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    """Run a PostgreSQL of the test's own, durable as in earnest."""
    with tempfile.TemporaryDirectory(prefix="rl") as folder:
        server = Postgres(Path(folder) / "data", settings={"shared_buffers": "32MB"})
        server.start()
        try:
            yield server
        finally:
            server.stop()


def faults(asked: Iterable[Asked], rows: Iterable[dict[str, Any]]) -> list[str]:
    """Compare what people were told with what the database has: id, person, sequence and status of each order."""
    orders = {row["id"]: (row["person"], row["sequence"], row["status"]) for row in rows}
    asked = list(asked)
    told = {it.made["id"]: it for it in asked if it.outcome == CONFIRMED}
    wrong = [
        f"acknowledged, but not so in the database: {it.made}, {orders.get(order)}"
        for order, it in told.items()
        if orders.get(order) != (f"{it.person}@example.org", it.made["sequence"], CONFIRMED)
    ]
    in_doubt = {f"{it.person}@example.org" for it in asked if it.outcome in {NO_ANSWER, "outcome_unknown"}}
    return wrong + [
        f"in the database, but told to nobody: {order}"
        for order, (person, _, _) in orders.items()
        if order not in told and person not in in_doubt
    ]


async def orders_of(its: Site, event: str) -> list[dict[str, Any]]:
    return await its.rows(
        "SELECT id::text, person_key AS person, sequence, status FROM orders WHERE event_id = $1", UUID(event)
    )


async def converge(its: Site, crowd: Crowd, event: str) -> None:
    """Compare; then let everybody without a seat ask again, and compare again."""
    assert faults(crowd.asked, await orders_of(its, event)) == []
    await its.require_clean()
    again = await crowd.ask_again(its.urls[0])
    assert {it.outcome for it in again} <= {CONFIRMED}
    everybody = [*crowd.outcomes(CONFIRMED), *again]
    orders = await orders_of(its, event)
    assert faults(everybody, orders) == []
    assert len(orders) == len(everybody) == len({it.person for it in everybody})
    assert await its.seats(event) == {
        "capacity": SEATS,
        "sold": len(orders),
        "available": SEATS - len(orders),
    }
    await its.require_clean()


async def test_a_killed_server_takes_no_acknowledged_seat_with_it(postgres: Postgres) -> None:
    async with site(postgres.url()) as its:
        for number in range(ROUNDS):
            event, victim = await its.event(SEATS), number % 2
            async with Crowd(its, event, clients=16) as crowd:
                await crowd.more(CONFIRMED, 100)
                its.servers[victim].kill()
                await crowd.more(CONFIRMED, 50)
                await its.restart(victim)
                await crowd.more(CONFIRMED, 50)
            assert {it.outcome for it in crowd.asked} == {CONFIRMED, NO_ANSWER}
            await converge(its, crowd, event)


async def test_a_killed_database_takes_no_acknowledged_seat_with_it(postgres: Postgres) -> None:
    async with site(postgres.url()) as its:
        servers = [server.pid for server in its.servers]
        for _ in range(ROUNDS):
            event = await its.event(SEATS)
            async with Crowd(its, event, clients=16) as crowd:
                await crowd.more(CONFIRMED, 100)
                await asyncio.to_thread(postgres.kill)
                await crowd.more("busy", 1)
                assert (await its.organizer.api.call("GET", f"/api/v1/events/{event}")).status == 503
                await asyncio.to_thread(postgres.start)
                await crowd.whole(CONFIRMED, 50)
            refused = [it for it in crowd.asked if it.outcome != CONFIRMED]
            assert {it.outcome for it in refused} <= BUSY
            assert {it.status for it in refused} == {503}
            await converge(its, crowd, event)
        assert [server.pid for server in its.servers] == servers
        assert all(server.is_running for server in its.servers)


async def test_a_database_that_does_not_wait_for_its_disk_is_found_out() -> None:
    careless = {"synchronous_commit": "off", "wal_writer_delay": "10s", "shared_buffers": "32MB"}
    with tempfile.TemporaryDirectory(prefix="rl") as folder:
        postgres = Postgres(Path(folder) / "data", settings=careless)
        postgres.start()
        try:
            async with site(postgres.url()) as its:
                event = await its.event(SEATS)
                assert await its.rows("CHECKPOINT") == []  # the event itself stays
                async with Crowd(its, event) as crowd:
                    await crowd.more(CONFIRMED, 100)
                    await asyncio.to_thread(postgres.kill)
                    await asyncio.to_thread(postgres.start)
                    await crowd.whole(CONFIRMED, 10)
                lost = faults(crowd.asked, await orders_of(its, event))
                assert any(fault.startswith("acknowledged") for fault in lost)
        finally:
            postgres.stop()


async def test_the_comparison_notices_what_is_lost_changed_or_made_up() -> None:
    def told(number: int, outcome: str = CONFIRMED) -> Asked:
        made = {"id": f"id{number}", "sequence": number} if outcome == CONFIRMED else {}
        return Asked(f"p{number}", "key", 0, 1, outcome, 201, made)

    def row(number: int, **changed: Any) -> dict[str, Any]:
        person = f"p{number}@example.org"
        return {"id": f"id{number}", "person": person, "sequence": number, "status": CONFIRMED} | changed

    assert faults([told(2), told(3)], [row(2), row(3)]) == []
    assert faults([told(2), told(3, NO_ANSWER)], [row(2)]) == []
    assert faults([told(2), told(3, NO_ANSWER)], [row(2), row(3)]) == []
    assert faults([told(2), told(3)], [row(2)])
    assert faults([told(2)], [row(2), row(3)])
    assert faults([told(2), told(3, "busy")], [row(2), row(3)])
    assert faults([told(2)], [row(2, sequence=3)])
    assert faults([told(2)], [row(2, status="cancelled")])
    assert faults([told(2)], [row(2, person="somebody@example.org")])


async def test_a_server_that_is_asked_to_end_answers_what_it_was_asked(postgres: Postgres) -> None:
    async with site(postgres.url(), 1) as its:
        (server,) = its.servers
        address, event = parse_address(server.url), await its.event(SEATS)
        calls = [registration(event, f"p{number}") for number in range(100)]
        async with its.db.transaction() as tx:
            await tx.fetch("SELECT id FROM capacity_pool WHERE event_id = $1 FOR UPDATE", UUID(event))
            waiting = asyncio.create_task(race([server.url], calls))
            async with asyncio.timeout(30):
                while await asked_of(its) < len(calls):
                    pass
            server.ask_to_end()
            await until_closed(address.host, address.port)
        answers = await waiting
        server.stop()
        assert server._process.returncode == 0
        # A batch that waited for the lock too long is answered, too: it says that it is busy.
        assert {outcome_of(answer) for answer in answers} <= {CONFIRMED, "busy"}
        sold = {it["id"] for it in await orders_of(its, event)}
        assert sold
        assert sold == {it.json()["id"] for it in answers if isinstance(it, Answer) and it.status == 201}
        await its.require_clean()


async def asked_of(its: Site) -> float:
    """Count the registrations that a server has taken or has waiting."""
    text = (await its.api(its.urls[0]).call("GET", "/metrics")).body.decode()
    numbers = dict(line.split() for line in text.splitlines() if not line.startswith("#"))
    return float(numbers["rowlock_batch_size_sum"]) + float(numbers["rowlock_queue_depth"])


async def until_closed(host: str, port: int) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                connection = await connect(host, port)
            except OSError:
                return
            connection.close()
            await connection.wait_closed()
