"""JSON over HTTP: events and their ticket types."""

import re
from datetime import UTC, datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from rowlock.accounts.api import SignedIn, Who
from rowlock.events import service
from rowlock.events.model import Event, Listing, NewEvent, Status, TicketType
from rowlock.events.rules import CAPACITY_MAX, time_zones
from rowlock.kernel.database import Transaction
from rowlock.kernel.errors import ValidationFailed
from rowlock.kernel.idempotency import Reply
from rowlock.kernel.paging import PAGE_DEFAULT, decode_cursor, encode_cursor, page_by_id
from rowlock.web.idempotency import answer_once
from rowlock.web.openapi import created, problems
from rowlock.web.parameters import ROOT, Cursor, Db, Limit, Name

SEARCH_MAX_CHARACTERS = 200
_DATE_AND_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d")

# The handlers' names are the operation ids.
router = APIRouter(tags=["events"], generate_unique_id_function=lambda route: route.name)


def _date_and_time(value: object) -> object:
    """Refuse what pydantic would take for a time, too: numbers of seconds, and dates."""
    if not isinstance(value, str) or not _DATE_AND_TIME.match(value):
        message = "A date and time with its offset from UTC, like 2026-05-01T19:00:00+02:00."
        raise ValueError(message)
    return value


def _utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        message = "The offset from UTC is missing: write 2026-05-01T19:00:00+02:00, or Z at the end for UTC."
        raise ValueError(message)
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        message = "This is too far away."
        raise ValueError(message) from None


def _known_time_zone(name: str) -> str:
    if name not in time_zones():
        message = "Not a name of the IANA time zone database, like Europe/Berlin."
        raise ValueError(message)
    return name


Moment = Annotated[datetime, BeforeValidator(_date_and_time), AfterValidator(_utc)]
TimeZone = Annotated[str, AfterValidator(_known_time_zone)]
Capacity = Annotated[int, Field(strict=True, ge=1, le=CAPACITY_MAX)]
_TEXT = r"^[^\x00]*$"
Venue = Annotated[str, StringConstraints(strip_whitespace=True, max_length=500, pattern=_TEXT)]
Description = Annotated[str, StringConstraints(strip_whitespace=True, max_length=20_000, pattern=_TEXT)]
ShortDescription = Annotated[str, StringConstraints(strip_whitespace=True, max_length=2_000, pattern=_TEXT)]
Search = Annotated[str | None, Query(max_length=SEARCH_MAX_CHARACTERS, pattern=_TEXT)]


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Out(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class NewEventIn(_In):
    """An event to be. Without `organization_id` it goes to the caller's personal organization, or the API key's."""

    title: Name
    capacity: Capacity
    starts_at: Moment | None = None
    ends_at: Moment | None = None
    time_zone: TimeZone = "UTC"
    venue: Venue = ""
    description: Description = ""
    organization_id: UUID | None = None
    status: Literal["draft", "published"] = "draft"


class EventChange(_In):
    """What is to change; what is left out stays. Only `starts_at` and `ends_at` can be cleared, with null."""

    # A factory, so that the schema offers no default for what is simply left out.
    title: Name = Field(default_factory=str)
    capacity: Capacity = Field(default_factory=int)
    starts_at: Moment | None = Field(default_factory=lambda: None)
    ends_at: Moment | None = Field(default_factory=lambda: None)
    time_zone: TimeZone = Field(default_factory=str)
    venue: Venue = Field(default_factory=str)
    description: Description = Field(default_factory=str)


class EventOut(_Out):
    """An event. `available` is what is left of `capacity` after `sold`, `held` and `blocked`."""

    id: UUID
    organization_id: UUID
    title: str
    description: str
    venue: str
    time_zone: str
    starts_at: datetime | None
    ends_at: datetime | None
    status: Status
    capacity: int
    available: int
    sold: int
    held: int
    blocked: int
    created_at: datetime
    updated_at: datetime


class Events(BaseModel):
    """A page of events."""

    items: list[EventOut]
    next_cursor: str | None


class NewTicketType(_In):
    """A free ticket type to be."""

    name: Name
    description: ShortDescription = ""


class TicketTypeOut(_Out):
    """A ticket type. `available` is what the scarcest of its pools has left."""

    id: UUID
    event_id: UUID
    name: str
    description: str
    price_cents: int
    available: int
    created_at: datetime


class TicketTypes(BaseModel):
    """A page of ticket types."""

    items: list[TicketTypeOut]
    next_cursor: str | None


@router.post("/events", status_code=201, response_model=EventOut, responses=created(401, 403, 404))
async def create_event(request: Request, caller: SignedIn, body: NewEventIn) -> Response:
    """Make an event."""
    new = NewEvent(**{**dict(body), "status": Status(body.status)})

    async def work(tx: Transaction) -> Reply:
        return event_reply(await service.create(tx, caller, new), 201)

    return await answer_once(request, caller.actor, work)


@router.get("/events", responses=problems(401))
async def list_events(
    db: Db,
    caller: Who,
    q: Search = None,
    starts_from: Annotated[Moment | None, Query()] = None,
    starts_before: Annotated[Moment | None, Query()] = None,
    organization_id: UUID | None = None,
    status: Status | None = None,
    limit: Limit = PAGE_DEFAULT,
    cursor: Cursor = None,
) -> Events:
    """List events by their start; those without one come last.

    Published events that have not ended; past ones too with `starts_from` or `status=ended`. With the caller's own
    `organization_id`, its events in every state. `q` looks for words of title, venue and description by their
    beginnings.
    """
    listing = Listing(q, starts_from, starts_before, organization_id, status)
    after = _after(cursor)
    async with db.snapshot() as connection:
        found = await service.listed(connection, caller, listing, after=after, limit=limit + 1)
    items = [EventOut.model_validate(event) for event in found[:limit]]
    last = items[-1] if len(found) > limit else None
    return Events(items=items, next_cursor=last and encode_cursor(last.starts_at, last.id))


@router.get("/events/{event_id}", responses=problems(401, 403, 404))
async def get_event(db: Db, caller: Who, event_id: UUID) -> EventOut:
    """Return an event. Drafts are there for their organization only."""
    async with db.snapshot() as connection:
        return EventOut.model_validate(await service.get_visible(connection, caller, event_id))


@router.patch("/events/{event_id}", responses=problems(401, 403, 404, 409))
async def change_event(db: Db, caller: SignedIn, event_id: UUID, body: EventChange) -> EventOut:
    """Change an event. The capacity cannot go below the seats that are taken."""
    details = body.model_dump(exclude_unset=True)
    capacity = details.pop("capacity", None)
    return EventOut.model_validate(await service.change(db, caller, event_id, details, capacity))


@router.delete("/events/{event_id}", status_code=204, responses=problems(401, 403, 404, 409))
async def delete_event(db: Db, caller: SignedIn, event_id: UUID) -> None:
    """Delete a draft. What has been published is cancelled instead."""
    await service.delete(db, caller, event_id)


@router.post(
    "/events/{event_id}/publication", response_model=EventOut, responses=problems(401, 403, 404, 409)
)
async def publish_event(request: Request, caller: SignedIn, event_id: UUID) -> Response:
    """Put a draft or a paused event on sale. A second call answers the same."""

    async def work(tx: Transaction) -> Reply:
        return event_reply(await service.publish(tx, caller, event_id))

    return await answer_once(request, caller.actor, work)


@router.post("/events/{event_id}/pause", response_model=EventOut, responses=problems(401, 403, 404, 409))
async def pause_event(request: Request, caller: SignedIn, event_id: UUID) -> Response:
    """Take a published event off sale until it is published again. A second call answers the same."""

    async def work(tx: Transaction) -> Reply:
        return event_reply(await service.pause(tx, caller, event_id))

    return await answer_once(request, caller.actor, work)


@router.get("/events/{event_id}/ticket-types", responses=problems(401, 403, 404))
async def list_ticket_types(
    db: Db, caller: Who, event_id: UUID, limit: Limit = PAGE_DEFAULT, cursor: Cursor = None
) -> TicketTypes:
    """List an event's ticket types, oldest first."""
    page = page_by_id(cursor, limit)
    async with db.snapshot() as connection:
        found = await service.ticket_types(connection, caller, event_id, after=page.after, limit=page.limit)
    items = [TicketTypeOut.model_validate(ticket_type) for ticket_type in found[:limit]]
    return TicketTypes(items=items, next_cursor=encode_cursor(items[-1].id) if len(found) > limit else None)


@router.post(
    "/events/{event_id}/ticket-types",
    status_code=201,
    response_model=TicketTypeOut,
    responses=created(401, 403, 404),
)
async def create_ticket_type(
    request: Request, caller: SignedIn, event_id: UUID, body: NewTicketType
) -> Response:
    """Add a free ticket type, which draws on the same seats as the others."""

    async def work(tx: Transaction) -> Reply:
        return _ticket_type_reply(
            await service.add_ticket_type(tx, caller, event_id, body.name, body.description)
        )

    return await answer_once(request, caller.actor, work)


@router.get("/events/{event_id}/ticket-types/{ticket_type_id}", responses=problems(401, 403, 404))
async def get_ticket_type(db: Db, caller: Who, event_id: UUID, ticket_type_id: UUID) -> TicketTypeOut:
    """Return a ticket type."""
    async with db.snapshot() as connection:
        found = await service.get_ticket_type(connection, caller, event_id, ticket_type_id)
    return TicketTypeOut.model_validate(found)


def event_reply(event: Event, status: int = 200) -> Reply:
    """Render an event; a new one (201) with the place where it lives."""
    body = EventOut.model_validate(event).model_dump_json().encode()
    return Reply(status, body, f"{ROOT}/events/{event.id}" if status == 201 else None)  # noqa: PLR2004 - HTTP's Created


def _ticket_type_reply(made: TicketType) -> Reply:
    body = TicketTypeOut.model_validate(made).model_dump_json().encode()
    return Reply(201, body, f"{ROOT}/events/{made.event_id}/ticket-types/{made.id}")


def _after(cursor: str | None) -> tuple[datetime | None, UUID] | None:
    """Read a cursor of the list of events; a forged time is refused like any other text that is no cursor."""
    after = decode_cursor(cursor, tuple[datetime | None, UUID])
    if after is None:
        return None
    start, event_id = after
    try:
        return start and _utc(start), event_id
    except ValueError:
        raise ValidationFailed([{"pointer": "?cursor", "detail": "Not a cursor of this list."}]) from None
