"""The steps by which other features change capacity inside their own transaction: lock, decide, save."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rowlock.allocation import repository
from rowlock.allocation.model import Change, Pool, Reason
from rowlock.allocation.rules import Allotment
from rowlock.kernel.ids import new_id

if TYPE_CHECKING:
    from collections.abc import Collection
    from uuid import UUID

    from rowlock.kernel.database import Connection, Transaction


async def lock(tx: Transaction, event_ids: Collection[UUID]) -> Allotment:
    """Lock all pools of the events and return what may be decided about them.

    Call it first in the transaction: what was read before the lock may be over by the time the lock is held.

    Raises:
        LockTimeout: somebody else kept a lock too long.

    """
    return Allotment(await repository.lock_pools(tx, event_ids))


async def save(tx: Transaction, allotment: Allotment) -> None:
    """Write what was decided: the pools' counters and the ledger's entries."""
    if allotment.entries:
        await repository.save(tx, allotment.changed(), allotment.entries)


async def open_pool(tx: Transaction, event_id: UUID, total: int, *, actor: str, name: str = "seats") -> Pool:
    """Give a new event its first pool."""
    pool = Pool(event_id, new_id(), total=0, held=0, sold=0, blocked=0, last_sequence=0)
    allotment = Allotment([pool])
    allotment.apply(Change(event_id, (pool.id,), Reason.OPENED, actor, total=total))
    opened = allotment.pool(event_id, pool.id)
    await repository.insert_pool(tx, opened, name)
    await repository.append_ledger(tx, allotment.entries)
    return opened


async def close_pools(tx: Transaction, allotment: Allotment, event_id: UUID, *, actor: str) -> None:
    """Take away the locked pools of an event that nobody has a seat of."""
    for pool in allotment.pools_of(event_id):
        allotment.apply(Change(event_id, (pool.id,), Reason.DELETED, actor, total=-pool.total))
    await repository.append_ledger(tx, allotment.entries)
    await repository.delete_pools(tx, event_id)


async def pools(connection: Connection, event_ids: Collection[UUID]) -> dict[UUID, list[Pool]]:
    """Return the events' pools as last committed: for showing, not for deciding."""
    found: dict[UUID, list[Pool]] = {event_id: [] for event_id in event_ids}
    for pool in await repository.read_pools(connection, event_ids):
        found[pool.event_id].append(pool)
    return found
