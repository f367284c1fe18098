"""`verify` against faults sown on purpose: each check must catch its own, with the rows that are wrong.

The faults are sown by SQL in a database of their own, whose constraints and triggers are taken away before: with them
most of these faults cannot be made at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest
import pytest_asyncio

from rowlock.app import create_app
from rowlock.kernel.database import Database, open_database
from rowlock.kernel.migrations import migrate
from rowlock.kernel.scratch import scratch_database
from rowlock.kernel.settings import Settings
from rowlock.reports.repository import CHECKS
from rowlock.reports.service import verify
from tests import make
from tests.recount import what_does_not_hold

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rowlock.kernel.postgres import Postgres

NO_WALLS = """
ALTER TABLE capacity_pool DROP CONSTRAINT never_overbooked, DROP CONSTRAINT sold_is_not_negative;
ALTER TABLE ledger DROP CONSTRAINT never_overbooked;
ALTER TABLE ticket DROP CONSTRAINT one_ticket_per_code;
DROP INDEX one_active_registration_per_person;
ALTER TABLE ledger DISABLE TRIGGER ledger_is_append_only;
"""

# What is done to the books, and the checks that must notice. Ann and Bob are registered, Cy has cancelled.
FAULTS: dict[str, tuple[str, set[str]]] = {
    "a pool gives out more than it has": (
        "UPDATE capacity_pool SET total = 1",
        {"never_overbooked", "seats_equal_ledger"},
    ),
    "a counter drifts": (
        "UPDATE capacity_pool SET sold = sold + 1",
        {"seats_equal_tickets", "seats_equal_ledger"},
    ),
    "a seat is kept for nobody": (
        "UPDATE capacity_pool SET held = 1",
        {"seats_equal_tickets", "seats_equal_ledger"},
    ),
    "a pool forgets its last entry": (
        "UPDATE capacity_pool SET last_sequence = last_sequence - 1",
        {"seats_equal_ledger"},
    ),
    "a pool vanishes": (
        "DELETE FROM capacity_pool",
        {"seats_equal_tickets", "seats_equal_ledger"},
    ),
    "an entry vanishes from the ledger": (
        "DELETE FROM ledger WHERE sequence = 2",
        {
            "ledger_has_no_gaps",
            "ledger_steps_fit_their_reasons",
            "orders_equal_ledger",
            "orders_name_their_entry",
        },
    ),
    "an entry says more than there was": (
        "UPDATE ledger SET sold = total + 1 WHERE sequence = 3",
        {"ledger_never_overbooked", "ledger_steps_fit_their_reasons", "orders_equal_ledger"},
    ),
    "an entry's reason is another": (
        "UPDATE ledger SET reason = 'cancelled' WHERE sequence = 2",
        {"ledger_steps_fit_their_reasons"},
    ),
    "an entry names an order that nobody made": (
        "UPDATE ledger SET order_id = gen_random_uuid() WHERE sequence = 2",
        {"orders_equal_ledger", "orders_name_their_entry"},
    ),
    "an order vanishes, its ticket with it": (
        "DELETE FROM ticket WHERE attendee_name = 'Ann'; DELETE FROM orders WHERE buyer_name = 'Ann'",
        {"seats_equal_tickets", "orders_equal_ledger", "orders_name_their_entry"},
    ),
    "an order names another entry": (
        "UPDATE orders SET sequence = 99 WHERE buyer_name = 'Ann'",
        {"orders_name_their_entry"},
    ),
    "a cancelled order comes back to life": (
        "UPDATE orders SET status = 'confirmed', cancelled_at = NULL WHERE buyer_name = 'Cy'",
        {"tickets_follow_their_orders"},
    ),
    "a ticket of a cancelled order still lets in": (
        "UPDATE ticket SET status = 'valid' WHERE attendee_name = 'Cy'",
        {"tickets_follow_their_orders"},
    ),
    "a ticket of a confirmed order lets nobody in": (
        "UPDATE ticket SET status = 'void' WHERE attendee_name = 'Ann'",
        {"tickets_follow_their_orders", "seats_equal_tickets", "orders_equal_ledger"},
    ),
    "somebody is registered twice": (
        "UPDATE orders SET person_key = 'ann@example.org' WHERE buyer_name = 'Bob'",
        {"one_active_registration_per_person"},
    ),
    "two tickets have one code": (
        "UPDATE ticket SET code = 'SAME'",
        {"one_ticket_per_code"},
    ),
}


@pytest_asyncio.fixture(loop_scope="session")
async def books(postgres: Postgres) -> AsyncIterator[Database]:
    """Yield a database with an event of three seats; Ann and Bob are registered, Cy has cancelled."""
    async with scratch_database(postgres.url()) as url:
        db = await open_database(url, size=4)
        await migrate(db)
        app = create_app(Settings(database_url=url, log_level="error"))
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(
                transport=transport, base_url="http://rowlock.test/api/v1"
            ) as client:
                await _three_register_and_one_cancels(client)
        yield db
        await db.close()


async def _three_register_and_one_cancels(client: httpx.AsyncClient) -> None:
    event = await make.event(client, await make.user(client, "Olga"), capacity=3)
    for name in ("Ann", "Bob"):
        await make.registration(client, event, name)
    cy = await make.registration(client, event, "Cy")
    cancelled = await client.delete(f"/registrations/{cy['id']}", params={"secret": cy["secret"]})
    assert cancelled.status_code == 200


async def broken_checks(db: Database) -> set[str]:
    verification = await verify(db)
    return {it.check.name for it in verification.findings if not it.holds} - {
        "the_walls_stand",
        "acknowledged_is_durable",
    }


async def sow(db: Database, fault: str) -> None:
    async with db.transaction() as tx:
        await tx.execute(NO_WALLS)
        await tx.execute(fault)


async def test_honest_books_are_found_in_order(books: Database) -> None:
    assert await what_does_not_hold(books) == []
    counted = (await verify(books)).counted
    assert counted == {"events": 1, "pools": 1, "orders": 3, "tickets": 3, "entries": 5}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_in_the_books_is_found(books: Database, fault: str) -> None:
    sql, expected = FAULTS[fault]

    await sow(books, sql)

    assert await broken_checks(books) == expected


async def test_a_finding_shows_the_rows_that_are_wrong(books: Database) -> None:
    await sow(books, "UPDATE capacity_pool SET sold = 3")

    findings: dict[str, Any] = {it.check.name: it.rows for it in (await verify(books)).findings}

    (row,) = findings["seats_equal_tickets"]
    assert (row["sold"], row["sold_tickets"]) == (3, 2)


async def test_walls_that_were_torn_down_are_missed(books: Database) -> None:
    await sow(books, "DROP TRIGGER ledger_is_never_truncated ON ledger")

    (finding,) = [it for it in (await verify(books)).findings if it.check.name == "the_walls_stand"]

    assert {row["wall"] for row in finding.rows} == {
        "never_overbooked on capacity_pool",
        "never_overbooked on ledger",
        "one_active_registration_per_person",
        "one_ticket_per_code",
        "ledger_is_append_only",
        "ledger_is_never_truncated",
    }


async def test_a_database_that_forgets_on_a_power_cut_is_not_called_durable(books: Database) -> None:
    (finding,) = [it for it in (await verify(books)).findings if it.check.name == "acknowledged_is_durable"]

    assert [row["name"] for row in finding.rows] == ["fsync", "full_page_writes", "synchronous_commit"]


async def test_verify_writes_nothing(books: Database) -> None:
    async with books.snapshot() as connection:
        assert await connection.fetch_value("SHOW transaction_read_only") == "on"
        assert await connection.fetch_value("SHOW transaction_isolation") == "repeatable read"


def test_every_check_has_a_fault_that_it_catches() -> None:
    caught = set().union(*(checks for _, checks in FAULTS.values()))

    assert caught | {"the_walls_stand", "acknowledged_is_durable"} == {check.name for check in CHECKS}
