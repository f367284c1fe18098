"""The one transaction in which orders are placed and cancelled, for all that arrived together."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rowlock.allocation import service as allocation
from rowlock.events import service as events
from rowlock.kernel import metrics
from rowlock.kernel.idempotency import again_if_answered, recall, remember
from rowlock.orders import repository, rules
from rowlock.orders.model import Cancel, Decision, Known, Place, Registration, Request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rowlock.allocation.rules import Allotment
    from rowlock.kernel.database import Database, Transaction
    from rowlock.kernel.errors import Problem
    from rowlock.kernel.idempotency import Reply


async def place_many(db: Database, requests: Sequence[Request]) -> Sequence[Registration | Problem | Reply]:
    """Decide requests in their order and commit them together; return one outcome each.

    The locks come first. Whatever the decision rests on is read after them, because before them it may be over.
    """
    return await again_if_answered(lambda: _place_all(db, requests))


async def _place_all(db: Database, requests: Sequence[Request]) -> Sequence[Registration | Problem | Reply]:
    async with db.transaction() as tx:
        started = time.perf_counter()
        allotment = await allocation.lock(tx, {request.event_id for request in requests})
        metrics.lock_wait_seconds.observe(time.perf_counter() - started)
        decision = rules.decide(requests, allotment, await _read(tx, requests))
        await _write(tx, allotment, decision)
    return decision.outcomes


async def _read(tx: Transaction, requests: Sequence[Request]) -> Known:
    places = [request for request in requests if isinstance(request, Place)]
    cancels = [request for request in requests if isinstance(request, Cancel)]
    keys = [place.key for place in places if place.key is not None]
    now, active = await repository.now_and_active(tx, {(it.event_id, it.person_key) for it in places})
    return Known(
        now=now,
        events=await events.facts(tx, {request.event_id for request in requests}),
        active=active,
        registrations=await repository.registrations_by_key(
            tx, {(it.event_id, it.order_id) for it in cancels}
        )
        if cancels
        else {},
        sealed=await recall(tx, keys) if keys else {},
    )


async def _write(tx: Transaction, allotment: Allotment, decision: Decision) -> None:
    if decision.cancelled:
        await write_cancelled(tx, decision.cancelled)
    if decision.placed:
        await repository.insert_registrations(tx, decision.placed)
    await allocation.save(tx, allotment)
    if decision.answers:
        await remember(tx, decision.answers)


async def write_cancelled(tx: Transaction, cancelled: Sequence[Registration]) -> None:
    """Write cancellations that were decided under the locks."""
    changed = await repository.cancel_orders(tx, cancelled)
    assert changed == len(cancelled), "an order changed its status without the lock of its event's pools"
    await repository.void_tickets(tx, cancelled)
