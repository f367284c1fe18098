"""What an event may be, who may see it, and how it may change: pure decisions."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING
from zoneinfo import available_timezones

from rowlock.accounts.model import Permission
from rowlock.accounts.rules import require
from rowlock.events.errors import TooManyTicketTypes
from rowlock.events.model import Status
from rowlock.kernel.errors import InvalidState, ValidationFailed

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from rowlock.accounts.model import Caller
    from rowlock.events.model import EventRow, Listing

CAPACITY_MAX = 1_000_000
TICKET_TYPES_MAX = 50

# From which stored states an event may come into a new one. Each may come from itself: asking twice is no mistake.
BEFORE: dict[Status, tuple[Status, ...]] = {
    Status.PUBLISHED: (Status.DRAFT, Status.PAUSED, Status.PUBLISHED),
    Status.PAUSED: (Status.PUBLISHED, Status.PAUSED),
    Status.CANCELLED: (Status.PUBLISHED, Status.PAUSED),
}


@cache
def time_zones() -> frozenset[str]:
    """Return the names of the IANA time zone database. Reading them takes hundreds of files, so it is done once."""
    return frozenset(available_timezones())


def require_order_of_times(starts_at: datetime | None, ends_at: datetime | None) -> None:
    """Let pass an event that ends after it starts, as far as both are known.

    Raises:
        ValidationFailed: it does not.

    """
    if starts_at is not None and ends_at is not None and ends_at <= starts_at:
        raise ValidationFailed([{"pointer": "/ends_at", "detail": "An event ends after it starts."}])


def require_visible(caller: Caller, event: EventRow) -> None:
    """Let pass who may see the event: anyone, unless it is a draft.

    Raises:
        NotFound: it is a draft of an organization that is not the caller's.
        Forbidden: it is a draft of the caller's own organization, in which the caller may not read events.

    """
    if event.status is Status.DRAFT:
        require(caller, event.organization_id, Permission.EVENTS_READ)


def listed_statuses(listing: Listing, caller: Caller) -> frozenset[Status]:
    """Return the states that a list shows: all to the organization itself; to others what they can still come to.

    Past events are there for others who ask for them, by the status or by a time to start from.
    """
    wanted = frozenset(Status) if listing.status is None else frozenset({listing.status})
    if _is_own(listing.organization_id, caller):
        return wanted
    asks_for_past = listing.status is Status.ENDED or listing.starts_from is not None
    return wanted & (
        frozenset({Status.PUBLISHED}) | (frozenset({Status.ENDED}) if asks_for_past else frozenset())
    )


def require_room_for_ticket_type(event: EventRow, count: int) -> None:
    """Let pass an event that can have one more ticket type than the `count` it has.

    Raises:
        InvalidState: it is cancelled.
        TooManyTicketTypes: it has as many as one can.

    """
    if event.status is Status.CANCELLED:
        raise not_while(event.status)
    if count >= TICKET_TYPES_MAX:
        raise TooManyTicketTypes(f"An event has at most {TICKET_TYPES_MAX} ticket types.")


def not_while(status: Status, advice: str = "") -> InvalidState:
    """Make the refusal of what cannot be done in this state."""
    state = {Status.DRAFT: "is a draft", Status.ENDED: "has ended"}.get(status, f"is {status}")
    return InvalidState(f"The event {state}. {advice}".strip(), event_status=status)


def _is_own(organization_id: UUID | None, caller: Caller) -> bool:
    return organization_id is not None and caller.may(Permission.EVENTS_READ, organization_id)
