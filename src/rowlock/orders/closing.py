"""Cancelling a whole event: no more sales at once, then its registrations, in batches that can be resumed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import structs

from rowlock.accounts import service as accounts
from rowlock.accounts.model import Caller, Permission
from rowlock.allocation import service as allocation
from rowlock.allocation.model import Change, Reason, Shortage
from rowlock.events import service as events
from rowlock.events.model import Status
from rowlock.orders import repository
from rowlock.orders.placing import write_cancelled

if TYPE_CHECKING:
    from uuid import UUID

    from rowlock.allocation.rules import Allotment
    from rowlock.events.model import Event
    from rowlock.kernel.database import Connection, Database, Transaction

BATCH_MAX = 1000


async def cancel_event(tx: Transaction, caller: Caller, event_id: UUID) -> Event:
    """Cancel an event and its first registrations; `finish` does the rest. Idempotent.

    Raises:
        NotFound, Forbidden: it is not the caller's to cancel.
        InvalidState: it is a draft, which is deleted instead.

    """
    # Whose event it is never changes, so it may be asked before the lock: strangers cannot make a sale wait.
    event = await events.get_visible(tx, caller, event_id)
    accounts.require(caller, event.organization_id, Permission.EVENTS_WRITE)
    allotment = await allocation.lock(tx, [event_id])
    await events.mark_cancelled(tx, event_id)
    await _cancel_some(tx, allotment, event_id, caller.actor)
    return await events.get_visible(tx, caller, event_id)


async def finish(db: Database, event_id: UUID, actor: str = "system") -> int:
    """Cancel what a cancelled event still has of registrations, and nothing of another; return how many there were."""
    cancelled = 0
    while True:
        async with db.transaction() as tx:
            allotment = await allocation.lock(tx, [event_id])
            count = await _cancel_some(tx, allotment, event_id, actor)
        cancelled += count
        if count < BATCH_MAX:
            return cancelled


async def unfinished(connection: Connection, limit: int) -> list[UUID]:
    """Return cancelled events whose registrations are not all cancelled yet, because a server stopped amid."""
    return await repository.unfinished_cancellations(connection, limit)


async def _cancel_some(tx: Transaction, allotment: Allotment, event_id: UUID, actor: str) -> int:
    now, _ = await repository.now_and_active(tx, [])
    event = (await events.facts(tx, [event_id])).get(event_id)
    # Asked under the lock, whoever calls: after a cancellation that was refused there is nothing to finish.
    if event is None or event.status is not Status.CANCELLED:
        return 0
    cancelled = []
    for it in await repository.some_active(tx, event_id, BATCH_MAX):
        change = Change(
            event_id, event.ticket_types[it.ticket_type_id], Reason.EVENT_CANCELLED, actor, it.id, sold=-1
        )
        entries = allotment.apply(change)
        assert not isinstance(entries, Shortage), "giving back never fails"
        cancelled.append(
            structs.replace(it, status="cancelled", cancelled_at=now, sequence=entries[-1].sequence)
        )
    if cancelled:
        await write_cancelled(tx, cancelled)
        await allocation.save(tx, allotment)
    return len(cancelled)
