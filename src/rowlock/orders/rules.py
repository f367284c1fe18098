"""Who is registered and who is refused: pure decisions, in order of arrival, over what was read under the locks."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from msgspec import structs

from rowlock.accounts.model import Permission
from rowlock.allocation.model import Change, Reason, Shortage
from rowlock.kernel.errors import Conflict, Forbidden, NotFound, Problem
from rowlock.kernel.idempotency import IdempotencyMismatch, Key, Reply
from rowlock.kernel.ids import digest
from rowlock.orders.errors import AlreadyRegistered, NotOnSale, SoldOut
from rowlock.orders.model import Cancel, Decision, Known, Place, Registration, Request

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from rowlock.allocation.rules import Allotment
    from rowlock.events.model import EventFacts


def decide(requests: Sequence[Request], allotment: Allotment, known: Known) -> Decision:
    """Decide each request in turn; later ones see what earlier ones took. `known` is used up."""
    decision = Decision()
    answered: dict[bytes, Key] = {}
    for request in requests:
        decision.outcomes.append(_decide_one(request, allotment, known, decision, answered))
    return decision


def _decide_one(
    request: Request, allotment: Allotment, known: Known, decision: Decision, answered: dict[bytes, Key]
) -> Registration | Problem | Reply:
    try:
        if isinstance(request, Cancel):
            return _cancel(request, allotment, known, decision)
        if (earlier := _earlier_answer(request.key, known, decision, answered)) is not None:
            return earlier
        outcome: Registration | Problem
        try:
            outcome = _place(request, allotment, known, decision)
        except Conflict as conflict:
            outcome = conflict
        if request.key is None or request.render is None:
            return outcome
        reply = decision.answers[request.key] = request.render(request, outcome)
        answered[request.key.hash] = request.key
    except Problem as problem:
        return problem
    return reply


def _earlier_answer(
    key: Key | None, known: Known, decision: Decision, answered: dict[bytes, Key]
) -> Reply | None:
    if key is None:
        return None
    if (sealed := known.sealed.get(key.hash)) is not None:
        return key.open(sealed)
    if (first := answered.get(key.hash)) is None:
        return None
    if first.seal != key.seal:
        raise IdempotencyMismatch
    return replace(decision.answers[first], replayed=True)


def _place(request: Place, allotment: Allotment, known: Known, decision: Decision) -> Registration:
    event = _event_on_sale(request, known)
    ticket_type_id = request.ticket_type_id or event.default_ticket_type_id
    if ticket_type_id not in event.ticket_types:
        raise NotFound("The event has no such ticket type.")
    if (event.id, request.person_key) in known.active:
        raise AlreadyRegistered
    change = Change(
        event.id,
        event.ticket_types[ticket_type_id],
        Reason.REGISTERED,
        request.caller.actor,
        request.order_id,
        sold=1,
    )
    granted = allotment.apply(change)
    if isinstance(granted, Shortage):
        raise SoldOut("No seat is left.", available=granted.available)
    registration = Registration(
        id=request.order_id,
        event_id=event.id,
        organization_id=event.organization_id,
        status="confirmed",
        name=request.name,
        email=request.email,
        person_key=request.person_key,
        user_id=_owner(request, event.organization_id),
        ticket_id=request.ticket_id,
        ticket_type_id=ticket_type_id,
        ticket_code=request.ticket_code,
        secret_hash=digest(request.secret),
        sequence=granted[-1].sequence,
        created_at=known.now,
    )
    known.active.add((event.id, request.person_key))
    decision.placed.append(registration)
    return registration


def _event_on_sale(request: Place, known: Known) -> EventFacts:
    event = known.events.get(request.event_id)
    caller = request.caller
    if event is None or (event.status == "draft" and not caller.belongs_to(event.organization_id)):
        raise NotFound
    is_key = caller.user is None and caller.belongs_to(event.organization_id)
    if is_key and not caller.may(Permission.REGISTRATIONS_WRITE, event.organization_id):
        raise Forbidden(f"The API key lacks the scope {Permission.REGISTRATIONS_WRITE}.")
    if not event.on_sale:
        raise NotOnSale
    return event


def _owner(request: Place, organization_id: UUID) -> UUID | None:
    """Return who owns it: the signed-in person, except a member who registers somebody else for the organization."""
    user = request.caller.user
    if user is None:
        return None
    for_another = user.person_key != request.person_key
    if for_another and request.caller.may(Permission.REGISTRATIONS_WRITE, organization_id):
        return None
    return user.id


def _cancel(request: Cancel, allotment: Allotment, known: Known, decision: Decision) -> Registration:
    registration = known.registrations.get(request.order_id)
    if registration is None:
        raise NotFound
    if registration.status != "confirmed":
        return registration
    pool_ids = known.events[registration.event_id].ticket_types[registration.ticket_type_id]
    released = allotment.apply(
        Change(registration.event_id, pool_ids, Reason.CANCELLED, request.actor, registration.id, sold=-1)
    )
    assert not isinstance(released, Shortage), "giving back never fails"
    cancelled = structs.replace(
        registration, status="cancelled", cancelled_at=known.now, sequence=released[-1].sequence
    )
    known.registrations[registration.id] = cancelled
    known.active.discard((registration.event_id, registration.person_key))
    decision.cancelled.append(cancelled)
    return cancelled
