"""What people do with registrations: register, look, cancel."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from rowlock.accounts import service as accounts
from rowlock.accounts.model import Caller, Permission
from rowlock.events import service as events
from rowlock.kernel.batching import GroupCommit
from rowlock.kernel.errors import Forbidden, NotFound, Problem, Unauthenticated
from rowlock.kernel.ids import digest
from rowlock.orders import repository
from rowlock.orders.model import Cancel, Registration, Request

if TYPE_CHECKING:
    from uuid import UUID

    from rowlock.kernel.database import Connection
    from rowlock.kernel.idempotency import Reply

Desk = GroupCommit[Request, "Registration | Problem | Reply"]


async def cancel(desk: Desk, registration: Registration, caller: Caller) -> Registration:
    """Cancel a registration; a second time changes nothing and returns the same."""
    outcome = await desk.submit(Cancel(registration.event_id, registration.id, caller.actor))
    if isinstance(outcome, Problem):
        raise outcome
    assert isinstance(outcome, Registration), "a cancellation has no Idempotency-Key, so no kept answer"
    return outcome


async def find(connection: Connection, caller: Caller, order_id: UUID, secret: str | None) -> Registration:
    """Return a registration to its owner, its organization, or whoever has its secret link.

    Raises:
        NotFound: there is none, or it is not the caller's business.

    """
    registration = await repository.registration(connection, order_id)
    if registration is None or not _may(registration, caller, secret, Permission.REGISTRATIONS_READ):
        raise NotFound
    return registration


async def find_to_cancel(connection: Connection, caller: Caller, order_id: UUID, secret: str | None) -> Registration:
    """Return a registration that the caller may cancel.

    Raises:
        NotFound: there is none, or it is not the caller's business.
        Forbidden: the caller may see it, but not change it.

    """
    registration = await find(connection, caller, order_id, secret)
    if not _may(registration, caller, secret, Permission.REGISTRATIONS_WRITE):
        raise Forbidden
    return registration


async def of_event(
    connection: Connection, caller: Caller, event_id: UUID, *, status: str | None, after: UUID | None, limit: int
) -> list[Registration]:
    """Return a page of an event's registrations to its organization.

    Raises:
        NotFound: there is no such event, or it is another organization's.
        Unauthenticated, Forbidden: the caller may see the event, but not who comes.

    """
    event = await events.get_visible(connection, caller, event_id)
    if caller.user is None and not caller.permissions:
        raise Unauthenticated
    accounts.require(caller, event.organization_id, Permission.REGISTRATIONS_READ)
    return await repository.registrations_of_event(connection, event_id, status, after, limit)


async def of_user(connection: Connection, caller: Caller, *, before: UUID | None, limit: int) -> list[Registration]:
    """Return a page of the signed-in user's own registrations, newest first."""
    user = accounts.require_user(caller)
    return await repository.registrations_of_user(connection, user.id, before, limit)


def _may(registration: Registration, caller: Caller, secret: str | None, permission: Permission) -> bool:
    if secret is not None and hmac.compare_digest(digest(secret), registration.secret_hash):
        return True
    if caller.user is not None and registration.user_id == caller.user.id:
        return True
    return caller.may(permission, registration.organization_id)
