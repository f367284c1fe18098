"""The SQL of events and ticket types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rowlock.events.model import EventFacts, EventRow, Status, TicketTypeRow

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime
    from uuid import UUID

    from rowlock.events.model import Listing, NewEvent
    from rowlock.kernel.database import Connection, Row, Transaction

# The one place that knows when an event has ended.
_HAS_ENDED = "coalesce(ends_at <= clock_timestamp(), false)"
_STATUS = f"CASE WHEN status IN ('published', 'paused') AND {_HAS_ENDED} THEN 'ended' ELSE status END"
_EVENT = (
    f"id, organization_id, {_STATUS} AS status, title, description, venue, time_zone, starts_at, ends_at,"
    " created_at, updated_at"
)
# What a text is looked for by: each of its words as PostgreSQL itself divides texts, so that a title finds its event
# whatever it is made of (2026.1, example.org); each as the beginning of a word, quoted as the type tsquery wants it.
_QUERY = (
    "(SELECT string_agg('''' || replace(replace(word, '\\', '\\\\'), '''', '''''') || ''':*', ' & ')::tsquery"
    " FROM unnest(tsvector_to_array(to_tsvector('simple', {}))) AS word)"
)
_TICKET_TYPE = (
    "event_id, id, name, description, price_cents, created_at, ARRAY(SELECT pool_id FROM ticket_type_pool AS draws"
    " WHERE draws.event_id = ticket_type.event_id AND draws.ticket_type_id = ticket_type.id) AS pool_ids"
)


async def insert_event(tx: Transaction, event_id: UUID, organization_id: UUID, new: NewEvent) -> None:
    """Add an event."""
    await tx.execute(
        "INSERT INTO event (id, organization_id, status, title, description, venue, time_zone, starts_at, ends_at)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        event_id,
        organization_id,
        new.status,
        new.title,
        new.description,
        new.venue,
        new.time_zone,
        new.starts_at,
        new.ends_at,
    )


async def read_event(connection: Connection, event_id: UUID) -> EventRow | None:
    """Return an event, or None."""
    row = await connection.fetch_one(f"SELECT {_EVENT} FROM event WHERE id = $1", event_id)
    return None if row is None else _event(row)


async def lock_event(tx: Transaction, event_id: UUID) -> EventRow | None:
    """Lock an event against other writers and return it as it is once the lock is held, or None.

    NO KEY: orders that are placed meanwhile refer to the row and need not wait.
    """
    row = await tx.fetch_one(
        f"SELECT {_EVENT} FROM event WHERE id = $1 FOR NO KEY UPDATE",
        event_id,
    )
    return None if row is None else _event(row)


async def read_organization(connection: Connection, event_id: UUID) -> UUID | None:
    """Return the organization that owns an event, which never changes; None without the event."""
    found: UUID | None = await connection.fetch_value(
        "SELECT organization_id FROM event WHERE id = $1", event_id
    )
    return found


async def read_events(
    connection: Connection,
    listing: Listing,
    statuses: Collection[Status],
    after: tuple[datetime | None, UUID] | None,
    limit: int,
) -> list[EventRow]:
    """Return events by their start, those without one last, from behind `after` (start and id)."""
    where, values = _conditions(listing, statuses, after)
    rows = await connection.fetch(
        f"SELECT {_EVENT} FROM event WHERE {where}"
        f" ORDER BY coalesce(starts_at, 'infinity'), id LIMIT ${len(values) + 1}",
        *values,
        limit,
    )
    return [_event(row) for row in rows]


async def update_event(tx: Transaction, event: EventRow) -> None:
    """Write what of an event can be edited."""
    await tx.execute(
        "UPDATE event SET title = $2, description = $3, venue = $4, time_zone = $5, starts_at = $6, ends_at = $7,"
        " updated_at = clock_timestamp() WHERE id = $1",
        event.id,
        event.title,
        event.description,
        event.venue,
        event.time_zone,
        event.starts_at,
        event.ends_at,
    )


async def move_event(tx: Transaction, event_id: UUID, before: Collection[Status], status: Status) -> bool:
    """Compare and set: bring an event that has not ended from one of the states `before` into `status`."""
    moved = await tx.execute(
        "UPDATE event SET status = $3,"
        " updated_at = CASE WHEN status = $3 THEN updated_at ELSE clock_timestamp() END"
        f" WHERE id = $1 AND status = ANY($2::text[]) AND NOT {_HAS_ENDED}",
        event_id,
        list(before),
        status,
    )
    return moved == 1


async def delete_draft(tx: Transaction, event_id: UUID) -> bool:
    """Compare and delete: remove an event, and with it its ticket types, if it is a draft."""
    return await tx.execute("DELETE FROM event WHERE id = $1 AND status = 'draft'", event_id) == 1


async def read_facts(connection: Connection, event_ids: Collection[UUID]) -> list[EventFacts]:
    """Return what decisions about seats rest on, of all these events in one statement."""
    rows = await connection.fetch(
        f"SELECT id, organization_id, status, status = 'published' AND NOT {_HAS_ENDED},"
        " draws.ticket_type_ids, draws.pool_ids"
        " FROM event CROSS JOIN LATERAL (SELECT array_agg(ticket_type_id) AS ticket_type_ids,"
        " array_agg(pool_id) AS pool_ids FROM ticket_type_pool WHERE event_id = event.id) AS draws"
        " WHERE id = ANY($1::uuid[])",
        list(event_ids),
    )
    return [
        EventFacts(event_id, organization_id, Status(status), on_sale, _grouped(ticket_type_ids, pool_ids))
        for event_id, organization_id, status, on_sale, ticket_type_ids, pool_ids in rows
    ]


async def insert_ticket_type(
    tx: Transaction, event_id: UUID, ticket_type_id: UUID, name: str, description: str
) -> None:
    """Add a free ticket type."""
    await tx.execute(
        "INSERT INTO ticket_type (event_id, id, name, description, price_cents) VALUES ($1, $2, $3, $4, 0)",
        event_id,
        ticket_type_id,
        name,
        description,
    )


async def insert_draws(
    tx: Transaction, event_id: UUID, ticket_type_id: UUID, pool_ids: Collection[UUID]
) -> None:
    """Say which pools a ticket type draws on."""
    await tx.execute(
        "INSERT INTO ticket_type_pool (event_id, ticket_type_id, pool_id) SELECT $1, $2, unnest($3::uuid[])",
        event_id,
        ticket_type_id,
        list(pool_ids),
    )


async def count_ticket_types(connection: Connection, event_id: UUID, limit: int) -> int:
    """Count an event's ticket types, up to `limit`."""
    count: int = await connection.fetch_value(
        "SELECT count(*) FROM (SELECT FROM ticket_type WHERE event_id = $1 LIMIT $2) AS counted",
        event_id,
        limit,
    )
    return count


async def read_ticket_types(
    connection: Connection, event_id: UUID, after: UUID | None, limit: int
) -> list[TicketTypeRow]:
    """Return an event's ticket types by id, from behind `after`."""
    rows = await connection.fetch(
        f"SELECT {_TICKET_TYPE} FROM ticket_type"
        " WHERE event_id = $1 AND id > coalesce($2, '00000000-0000-0000-0000-000000000000'::uuid)"
        " ORDER BY id LIMIT $3",
        event_id,
        after,
        limit,
    )
    return [_ticket_type(row) for row in rows]


async def read_ticket_type(
    connection: Connection, event_id: UUID, ticket_type_id: UUID
) -> TicketTypeRow | None:
    """Return a ticket type, or None."""
    row = await connection.fetch_one(
        f"SELECT {_TICKET_TYPE} FROM ticket_type WHERE event_id = $1 AND id = $2",
        event_id,
        ticket_type_id,
    )
    return None if row is None else _ticket_type(row)


def _conditions(
    listing: Listing, statuses: Collection[Status], after: tuple[datetime | None, UUID] | None
) -> tuple[str, list[Any]]:
    """Write only the conditions that are asked for: `$1 IS NULL OR …` would hide the indexes from the planner."""
    values: list[Any] = [list(statuses)]
    conditions = [f"{_STATUS} = ANY($1::text[])"]
    possible = [
        ("organization_id = {}", listing.organization_id),
        ("coalesce(starts_at, 'infinity') >= {}", listing.starts_from),
        ("coalesce(starts_at, 'infinity') < {}", listing.starts_before),
        (f"words @@ {_QUERY}", listing.text),
    ]
    for condition, value in possible:
        if value is not None:
            values.append(value)
            conditions.append(condition.format(f"${len(values)}"))
    if after is not None:
        values += after
        start, last_id = len(values) - 1, len(values)
        conditions.append(
            f"(coalesce(starts_at, 'infinity'), id) > (coalesce(${start}::timestamptz, 'infinity'), ${last_id}::uuid)"
        )
    return " AND ".join(conditions), values


def _event(row: Row) -> EventRow:
    event_id, organization_id, status, *rest = row
    return EventRow(event_id, organization_id, Status(status), *rest)


def _ticket_type(row: Row) -> TicketTypeRow:
    event_id, ticket_type_id, name, description, price_cents, created_at, pool_ids = row
    return TicketTypeRow(
        event_id, ticket_type_id, name, description, price_cents, created_at, tuple(pool_ids)
    )


def _grouped(ticket_type_ids: list[UUID] | None, pool_ids: list[UUID] | None) -> dict[UUID, tuple[UUID, ...]]:
    """Gather each ticket type's pools, in the order of ids: sorted here, as most events have one of each."""
    grouped: dict[UUID, tuple[UUID, ...]] = {}
    for ticket_type_id, pool_id in sorted(zip(ticket_type_ids or (), pool_ids or (), strict=True)):
        grouped[ticket_type_id] = (*grouped.get(ticket_type_id, ()), pool_id)
    return grouped
