"""What people do with registrations: register, look, cancel."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, TypeAlias

from rowlock.accounts import service as accounts
from rowlock.accounts.model import Caller, Permission, User
from rowlock.events import service as events
from rowlock.kernel.errors import NotFound, Problem
from rowlock.kernel.ids import digest
from rowlock.orders import repository
from rowlock.orders.model import Cancel, Registration, Request

if TYPE_CHECKING:
    from uuid import UUID

    from rowlock.kernel.batching import GroupCommit
    from rowlock.kernel.database import Connection
    from rowlock.kernel.idempotency import Reply
    from rowlock.kernel.paging import Page

Desk: TypeAlias = "GroupCommit[Request, Registration | Problem | Reply]"


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
        Forbidden: it is the caller's organization's, in which the caller may not read registrations.

    """
    registration = await repository.registration(connection, order_id)
    if registration is None:
        raise NotFound
    _require(registration, caller, secret, Permission.REGISTRATIONS_READ)
    return registration


async def find_to_cancel(
    connection: Connection, caller: Caller, order_id: UUID, secret: str | None
) -> Registration:
    """Return a registration that the caller may cancel.

    Raises:
        NotFound: there is none, or it is not the caller's business.
        Forbidden: it is the caller's organization's, in which the caller may not change registrations.

    """
    registration = await find(connection, caller, order_id, secret)
    _require(registration, caller, secret, Permission.REGISTRATIONS_WRITE)
    return registration


async def of_event(
    connection: Connection, caller: Caller, event_id: UUID, status: str | None, page: Page
) -> list[Registration]:
    """Return a page of an event's registrations to its organization, oldest first.

    Raises:
        NotFound: there is no such event, or it is another organization's.
        Forbidden: the caller may see the event, but not who comes.

    """
    event = await events.get_visible(connection, caller, event_id)
    accounts.require(caller, event.organization_id, Permission.REGISTRATIONS_READ)
    return await repository.registrations_of_event(connection, event_id, status, page)


async def of_user(connection: Connection, user: User, page: Page) -> list[Registration]:
    """Return a page of a user's own registrations, newest first."""
    return await repository.registrations_of_user(connection, user.id, page)


def _require(registration: Registration, caller: Caller, secret: str | None, permission: Permission) -> None:
    """Let pass the registration's owner, whoever has its secret, and those whom its organization permits it."""
    has_secret = secret is not None and hmac.compare_digest(digest(secret), registration.secret_hash)
    is_owner = caller.user is not None and registration.user_id == caller.user.id
    if not has_secret and not is_owner:
        accounts.require(caller, registration.organization_id, permission)
