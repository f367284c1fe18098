"""What is done with events, and the steps by which orders learn about them and cancel them."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rowlock.accounts import service as accounts
from rowlock.accounts.model import Permission
from rowlock.allocation import service as allocation
from rowlock.allocation.model import Change, Reason, Shortage
from rowlock.events import repository, rules
from rowlock.events.errors import BelowCommitted
from rowlock.events.model import Event, EventRow, Status, TicketType
from rowlock.kernel.errors import NotFound
from rowlock.kernel.ids import new_id

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime
    from uuid import UUID

    from rowlock.accounts.model import Caller
    from rowlock.allocation.model import Pool
    from rowlock.allocation.rules import Allotment
    from rowlock.events.model import EventFacts, Listing, NewEvent, TicketTypeRow
    from rowlock.kernel.database import Connection, Database, Transaction

DEFAULT_TICKET_TYPE = "Admission"


async def create(tx: Transaction, caller: Caller, new: NewEvent) -> Event:
    """Make an event with its pool of seats and its first ticket type.

    Raises:
        NotFound, Forbidden: the organization is not the caller's, or the caller may not write its events.
        ValidationFailed: it ends before it starts.
        InvalidState: it is to be published, but has ended.

    """
    organization_id = new.organization_id or caller.home
    if organization_id is None:
        raise NotFound
    accounts.require(caller, organization_id, Permission.EVENTS_WRITE)
    rules.require_order_of_times(new.starts_at, new.ends_at)
    event_id = new_id()
    await repository.insert_event(tx, event_id, organization_id, new)
    pool = await allocation.open_pool(tx, event_id, new.capacity, actor=caller.actor)
    await _insert_ticket_type(tx, event_id, DEFAULT_TICKET_TYPE, "", [pool.id])
    event = Event.of(await _existing(tx, event_id), [pool])
    if event.status is Status.ENDED:
        raise rules.not_while(event.status, "It cannot be published.")
    return event


async def listed(
    connection: Connection,
    caller: Caller,
    listing: Listing,
    *,
    after: tuple[datetime | None, UUID] | None = None,
    limit: int,
) -> list[Event]:
    """Return a page of the events that the caller may see, by start and id.

    Takes a snapshot's connection, so that the counters are of the same instant as the events.
    """
    if listing.text is not None and not re.search(r"\w", listing.text):
        listing = replace(listing, text=None)
    statuses = rules.listed_statuses(listing, caller)
    rows = await repository.read_events(connection, listing, statuses, after, limit) if statuses else []
    pools = await allocation.pools(connection, [row.id for row in rows])
    return [Event.of(row, pools[row.id]) for row in rows]


async def get_visible(connection: Connection, caller: Caller, event_id: UUID) -> Event:
    """Return an event that the caller may see.

    Raises:
        NotFound: there is none, or it is a draft of somebody else's.
        Forbidden: it is a draft of the caller's organization, which the caller may not read.

    """
    row = await _existing(connection, event_id)
    rules.require_visible(caller, row)
    return await _with_seats(connection, row)


async def change(
    db: Database, caller: Caller, event_id: UUID, details: Mapping[str, Any], capacity: int | None
) -> Event:
    """Edit an event: the fields in `details`, and the capacity unless it is None.

    Raises:
        NotFound, Forbidden: it is not the caller's to edit.
        ValidationFailed: it would end before it starts.
        BelowCommitted: more seats are taken than the new capacity has.

    """
    async with db.connection() as connection:
        await _require_writer(connection, caller, event_id)
    async with db.transaction() as tx:
        # Locked first and only then read: what is decided below must not rest on what another writer has replaced.
        allotment = None if capacity is None else await allocation.lock(tx, [event_id])
        row = await _locked(tx, event_id)
        changed = replace(row, **details)
        rules.require_order_of_times(changed.starts_at, changed.ends_at)
        if allotment is not None and capacity is not None:
            _resize(allotment, event_id, capacity, caller.actor)
            await allocation.save(tx, allotment)
        if changed != row or (allotment is not None and allotment.entries):
            await repository.update_event(tx, changed)
        return await _with_seats(tx, await _existing(tx, event_id))


async def publish(tx: Transaction, caller: Caller, event_id: UUID) -> Event:
    """Put a draft or a paused event on sale. Idempotent.

    Raises:
        NotFound, Forbidden: it is not the caller's to publish.
        InvalidState: it is cancelled or has ended.

    """
    await _require_writer(tx, caller, event_id)
    return await _moved(tx, event_id, Status.PUBLISHED, "It cannot be published.")


async def pause(tx: Transaction, caller: Caller, event_id: UUID) -> Event:
    """Take a published event off sale for a while. Idempotent. Once it is answered, no more seats are sold.

    Raises:
        NotFound, Forbidden: it is not the caller's to pause.
        InvalidState: it is a draft, is cancelled, or has ended.

    """
    await _require_writer(tx, caller, event_id)
    # A sale that read "published" holds this lock until it commits.
    await allocation.lock(tx, [event_id])
    return await _moved(tx, event_id, Status.PAUSED, "Only a published event can be paused.")


async def delete(db: Database, caller: Caller, event_id: UUID) -> None:
    """Delete a draft; the ledger keeps its history.

    Raises:
        NotFound, Forbidden: it is not the caller's to delete.
        InvalidState: it is not a draft; what has been published is cancelled instead.

    """
    async with db.connection() as connection:
        await _require_writer(connection, caller, event_id)
    async with db.transaction() as tx:
        allotment = await allocation.lock(tx, [event_id])
        if not await repository.delete_draft(tx, event_id):
            status = (await _existing(tx, event_id)).status
            raise rules.not_while(status, "Only a draft can be deleted: cancel the event instead.")
        await allocation.close_pools(tx, allotment, event_id, actor=caller.actor)


async def mark_cancelled(tx: Transaction, event_id: UUID) -> bool:
    """Bring a published or paused event to its early end; tell whether this call did. The step of a cancellation.

    The caller has locked the event's pools and checked who asks, and gives back the seats.

    Raises:
        NotFound: there is no such event.
        InvalidState: it is a draft, which is deleted instead, or has ended.

    """
    row = await _locked(tx, event_id)
    if row.status is Status.CANCELLED:
        return False
    if not await repository.move_event(tx, event_id, rules.BEFORE[Status.CANCELLED], Status.CANCELLED):
        advice = "Delete it instead." if row.status is Status.DRAFT else "It cannot be cancelled."
        raise rules.not_while((await _existing(tx, event_id)).status, advice)
    return True


async def facts(connection: Connection, event_ids: Collection[UUID]) -> dict[UUID, EventFacts]:
    """Return what decisions about the events' seats rest on, in one round trip; unknown events are left out.

    Call it once the pools' locks are held, in the same transaction.
    """
    return {event.id: event for event in await repository.read_facts(connection, event_ids)}


async def add_ticket_type(
    tx: Transaction, caller: Caller, event_id: UUID, name: str, description: str
) -> TicketType:
    """Add a free ticket type that draws on all of the event's seats.

    Raises:
        NotFound, Forbidden: it is not the caller's to edit.
        InvalidState: the event is cancelled.
        TooManyTicketTypes: it has as many as one can.

    """
    await _require_writer(tx, caller, event_id)
    # The event's lock makes the count last: without it two calls could both find room for one.
    row = await _locked(tx, event_id)
    count = await repository.count_ticket_types(tx, event_id, rules.TICKET_TYPES_MAX)
    rules.require_room_for_ticket_type(row, count)
    pools = (await allocation.pools(tx, [event_id]))[event_id]
    ticket_type_id = await _insert_ticket_type(tx, event_id, name, description, [pool.id for pool in pools])
    return await _ticket_type(tx, event_id, ticket_type_id)


async def ticket_types(
    connection: Connection, caller: Caller, event_id: UUID, *, after: UUID | None = None, limit: int
) -> list[TicketType]:
    """Return a page of the ticket types of an event that the caller may see, by id. Takes a snapshot's connection.

    Raises:
        NotFound, Forbidden: as `get_visible`.

    """
    rules.require_visible(caller, await _existing(connection, event_id))
    rows = await repository.read_ticket_types(connection, event_id, after, limit)
    pools = (await allocation.pools(connection, [event_id]))[event_id]
    return [_with_available(row, pools) for row in rows]


async def get_ticket_type(
    connection: Connection, caller: Caller, event_id: UUID, ticket_type_id: UUID
) -> TicketType:
    """Return a ticket type of an event that the caller may see. Takes a snapshot's connection.

    Raises:
        NotFound, Forbidden: there is none, or as `get_visible`.

    """
    rules.require_visible(caller, await _existing(connection, event_id))
    return await _ticket_type(connection, event_id, ticket_type_id)


async def _moved(tx: Transaction, event_id: UUID, status: Status, advice: str) -> Event:
    done = await repository.move_event(tx, event_id, rules.BEFORE[status], status)
    row = await _existing(tx, event_id)
    if not done:
        raise rules.not_while(row.status, advice)
    return await _with_seats(tx, row)


async def _require_writer(connection: Connection, caller: Caller, event_id: UUID) -> None:
    """Check the permission before any lock is asked for: strangers cannot make a sale wait."""
    organization_id = await repository.read_organization(connection, event_id)
    if organization_id is None:
        raise NotFound
    accounts.require(caller, organization_id, Permission.EVENTS_WRITE)


async def _existing(connection: Connection, event_id: UUID) -> EventRow:
    row = await repository.read_event(connection, event_id)
    if row is None:
        raise NotFound
    return row


async def _locked(tx: Transaction, event_id: UUID) -> EventRow:
    row = await repository.lock_event(tx, event_id)
    if row is None:
        raise NotFound
    return row


async def _with_seats(connection: Connection, row: EventRow) -> Event:
    return Event.of(row, (await allocation.pools(connection, [row.id]))[row.id])


def _resize(allotment: Allotment, event_id: UUID, capacity: int, actor: str) -> None:
    """Decide on another capacity. An event has one pool today."""
    (pool,) = allotment.pools_of(event_id)
    if capacity == pool.total:
        return
    outcome = allotment.apply(
        Change(event_id, (pool.id,), Reason.RESIZED, actor, total=capacity - pool.total)
    )
    if isinstance(outcome, Shortage):
        taken = f"{pool.committed} seats are taken." if pool.committed != 1 else "1 seat is taken."
        raise BelowCommitted(taken, committed=pool.committed)


async def _insert_ticket_type(
    tx: Transaction, event_id: UUID, name: str, description: str, pool_ids: Collection[UUID]
) -> UUID:
    ticket_type_id = new_id()
    await repository.insert_ticket_type(tx, event_id, ticket_type_id, name, description)
    await repository.insert_draws(tx, event_id, ticket_type_id, pool_ids)
    return ticket_type_id


async def _ticket_type(connection: Connection, event_id: UUID, ticket_type_id: UUID) -> TicketType:
    row = await repository.read_ticket_type(connection, event_id, ticket_type_id)
    if row is None:
        raise NotFound
    return _with_available(row, (await allocation.pools(connection, [event_id]))[event_id])


def _with_available(row: TicketTypeRow, pools: Collection[Pool]) -> TicketType:
    return TicketType(
        event_id=row.event_id,
        id=row.id,
        name=row.name,
        description=row.description,
        price_cents=row.price_cents,
        created_at=row.created_at,
        available=min(pool.available for pool in pools if pool.id in row.pool_ids),
    )
