"""The SQL of orders and tickets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rowlock.orders.model import Registration

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime
    from uuid import UUID

    from rowlock.kernel.database import Connection, Transaction
    from rowlock.kernel.paging import Page

_ACTIVE = "('held', 'awaiting_payment', 'awaiting_approval', 'confirmed')"
_REGISTRATION = """
SELECT o.id, o.event_id, e.organization_id, o.status, t.attendee_name, t.attendee_email, o.person_key,
       o.buyer_user_id, t.id, t.ticket_type_id, t.code, o.secret_hash, o.sequence, o.created_at, o.cancelled_at
FROM orders o
JOIN event e ON e.id = o.event_id
JOIN ticket t ON t.event_id = o.event_id AND t.order_id = o.id
"""


async def now_and_active(
    tx: Transaction, people: Collection[tuple[UUID, str]]
) -> tuple[datetime, set[tuple[UUID, str]]]:
    """Return the time as it is now, after any wait for a lock, and which (event, person) have an active registration.

    Notes the transaction's number, too. People are looked up by a subquery for each, which the planner cannot turn
    into a join that reads the whole table.
    """
    rows = await tx.fetch(
        "SELECT clock_timestamp() AS now, pg_current_xact_id()::text AS xid, active.event_id, active.person_key"
        " FROM (VALUES (1)) AS once LEFT JOIN LATERAL (SELECT found.event_id, found.person_key"
        " FROM unnest($1::uuid[], $2::text[]) AS asked (event_id, person_key),"
        " LATERAL (SELECT o.event_id, o.person_key FROM orders o"
        " WHERE o.event_id = asked.event_id AND o.person_key = asked.person_key"
        f" AND o.status IN {_ACTIVE} ORDER BY o.event_id, o.person_key LIMIT 1) AS found) AS active ON true",
        [event_id for event_id, _ in people],
        [person for _, person in people],
    )
    tx.xid = rows[0]["xid"]
    now: datetime = rows[0]["now"]
    return now, {(row["event_id"], row["person_key"]) for row in rows if row["event_id"] is not None}


async def registrations_by_key(
    connection: Connection, keys: Collection[tuple[UUID, UUID]]
) -> dict[UUID, Registration]:
    """Return registrations by (event, order)."""
    rows = await connection.fetch(
        _REGISTRATION + "JOIN unnest($1::uuid[], $2::uuid[]) AS asked (event_id, id)"
        " ON asked.event_id = o.event_id AND asked.id = o.id",
        [event_id for event_id, _ in keys],
        [order_id for _, order_id in keys],
    )
    return {row[0]: Registration(*row) for row in rows}


async def registration(connection: Connection, order_id: UUID) -> Registration | None:
    """Return one registration, wherever it is."""
    row = await connection.fetch_one(_REGISTRATION + "WHERE o.id = $1", order_id)
    return None if row is None else Registration(*row)


async def registrations_of_event(
    connection: Connection, event_id: UUID, status: str | None, page: Page
) -> list[Registration]:
    """Return a page of an event's registrations, oldest first."""
    rows = await connection.fetch(
        _REGISTRATION + "WHERE o.event_id = $1 AND ($2::text IS NULL OR o.status = $2)"
        " AND ($3::uuid IS NULL OR o.id > $3) ORDER BY o.event_id, o.id LIMIT $4",
        event_id,
        status,
        page.after,
        page.limit,
    )
    return [Registration(*row) for row in rows]


async def registrations_of_user(connection: Connection, user_id: UUID, page: Page) -> list[Registration]:
    """Return a page of a user's registrations, newest first."""
    rows = await connection.fetch(
        _REGISTRATION
        + "WHERE o.buyer_user_id = $1 AND ($2::uuid IS NULL OR o.id < $2) ORDER BY o.id DESC LIMIT $3",
        user_id,
        page.after,
        page.limit,
    )
    return [Registration(*row) for row in rows]


async def some_active(tx: Transaction, event_id: UUID, limit: int) -> list[Registration]:
    """Return some of an event's confirmed registrations, oldest first."""
    rows = await tx.fetch(
        _REGISTRATION + "WHERE o.event_id = $1 AND o.status = 'confirmed' ORDER BY o.id LIMIT $2",
        event_id,
        limit,
    )
    return [Registration(*row) for row in rows]


async def insert_registrations(tx: Transaction, registrations: Sequence[Registration]) -> None:
    """Write new registrations: each an order and its one ticket, all in one statement.

    Raises:
        UniqueViolation: a person has an active registration for the event already.

    """
    await tx.execute(
        "WITH new AS (SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::uuid[],"
        " $7::text[], $8::bytea[], $9::bigint[], $10::timestamptz[], $11::uuid[], $12::uuid[], $13::text[])"
        " AS new (event_id, id, status, name, email, user_id, person_key, secret_hash, sequence, created_at,"
        " ticket_id, ticket_type_id, code)), placed AS ("
        " INSERT INTO orders (event_id, id, status, buyer_name, buyer_email, buyer_user_id, person_key, secret_hash,"
        " sequence, created_at) SELECT event_id, id, status, name, email, user_id, person_key, secret_hash, sequence,"
        " created_at FROM new)"
        " INSERT INTO ticket (event_id, id, order_id, ticket_type_id, status, attendee_name, attendee_email, code)"
        " SELECT event_id, ticket_id, id, ticket_type_id, 'valid', name, email, code FROM new",
        [it.event_id for it in registrations],
        [it.id for it in registrations],
        [it.status for it in registrations],
        [it.name for it in registrations],
        [it.email for it in registrations],
        [it.user_id for it in registrations],
        [it.person_key for it in registrations],
        [it.secret_hash for it in registrations],
        [it.sequence for it in registrations],
        [it.created_at for it in registrations],
        [it.ticket_id for it in registrations],
        [it.ticket_type_id for it in registrations],
        [it.ticket_code for it in registrations],
    )


async def cancel_orders(tx: Transaction, registrations: Sequence[Registration]) -> int:
    """Cancel confirmed orders; return how many still were confirmed, which under the lock is all of them."""
    return await tx.execute(
        "UPDATE orders SET status = 'cancelled', cancelled_at = new.cancelled_at, sequence = new.sequence"
        " FROM unnest($1::uuid[], $2::uuid[], $3::timestamptz[], $4::bigint[])"
        " AS new (event_id, id, cancelled_at, sequence)"
        " WHERE orders.event_id = new.event_id AND orders.id = new.id AND orders.status = $5",
        [it.event_id for it in registrations],
        [it.id for it in registrations],
        [it.cancelled_at for it in registrations],
        [it.sequence for it in registrations],
        "confirmed",  # as a value: as a constant it would lure the planner to the index of active registrations
    )


async def void_tickets(tx: Transaction, registrations: Sequence[Registration]) -> None:
    """Make the tickets of cancelled orders worthless."""
    await tx.execute(
        "UPDATE ticket SET status = 'void' FROM unnest($1::uuid[], $2::uuid[]) AS gone (event_id, order_id)"
        " WHERE ticket.event_id = gone.event_id AND ticket.order_id = gone.order_id",
        [it.event_id for it in registrations],
        [it.id for it in registrations],
    )


async def unfinished_cancellations(connection: Connection, limit: int) -> list[UUID]:
    """Return cancelled events that still have confirmed registrations."""
    rows = await connection.fetch(
        "SELECT e.id FROM event e WHERE e.status = 'cancelled' AND EXISTS"
        " (SELECT FROM capacity_pool p WHERE p.event_id = e.id AND p.sold > 0) ORDER BY e.id LIMIT $1",
        limit,
    )
    return [row["id"] for row in rows]
