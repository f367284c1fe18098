"""Registrations over HTTP. POST is the hottest route of all, so it is a plain Starlette route with msgspec."""

import functools
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from fastapi import APIRouter, Query
from msgspec import Meta
from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import Response

from rowlock.accounts.api import CurrentUser, SignedIn, Who
from rowlock.accounts.model import Caller
from rowlock.events.api import EventOut, event_reply
from rowlock.kernel import metrics
from rowlock.kernel.database import Transaction
from rowlock.kernel.errors import Problem, ValidationFailed
from rowlock.kernel.idempotency import Reply
from rowlock.kernel.mail import EMAIL_MAX_CHARACTERS, parse_email, person_key
from rowlock.kernel.paging import PAGE_DEFAULT, encode_cursor, page_by_id
from rowlock.orders import closing, service
from rowlock.orders.model import Place, Registration
from rowlock.web.auth import who
from rowlock.web.body import clean, decode
from rowlock.web.idempotency import answer_once, key_of
from rowlock.web.openapi import created, problems
from rowlock.web.parameters import ROOT, Cursor, Db, Limit
from rowlock.web.problems import problem_reply, respond

router = APIRouter(tags=["registrations"])
SECRET_MAX_CHARACTERS = 200
Secret = Annotated[str | None, Query(max_length=SECRET_MAX_CHARACTERS, description="The secret of the link.")]

Name = Annotated[str, Meta(min_length=1, max_length=200, description="The attendee's name.")]
Email = Annotated[
    str, Meta(min_length=3, max_length=EMAIL_MAX_CHARACTERS, description="The attendee's e-mail.")
]


class NewRegistration(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A registration that is asked for. A signed-in user may leave name and e-mail out."""

    event_id: UUID
    name: Name | None = None
    email: Email | None = None
    ticket_type_id: UUID | None = None


class Attendee(BaseModel):
    """The person that a ticket names."""

    name: str
    email: str


class RegistrationOut(BaseModel):
    """A registration: an order of one free ticket."""

    model_config = ConfigDict(extra="forbid")

    id: UUID
    event_id: UUID
    status: str
    attendee: Attendee
    ticket_id: UUID
    ticket_type_id: UUID
    ticket_code: str
    sequence: int
    created_at: datetime
    cancelled_at: datetime | None


class RegistrationMade(RegistrationOut):
    """A new registration, with the secret that shows and cancels it without an account. It is told only once."""

    secret: str
    link: str


class RegistrationPage(BaseModel):
    """Some registrations, and where the next ones begin."""

    items: list[RegistrationOut]
    next_cursor: str | None


async def post_registration(request: Request) -> Response:
    """Register one person for an event."""
    caller: Caller = await who(request)
    body = await request.body()
    place = _place(decode(body, NewRegistration), caller, await key_of(request, caller.actor))
    try:
        outcome = await request.app.state.desk.submit(place)
    except Problem as problem:
        _counter(problem.code).inc()
        raise
    if isinstance(outcome, Reply):
        _counter("replayed" if outcome.replayed else str(outcome.status)).inc()
        return respond(outcome)
    if isinstance(outcome, Problem):
        _counter(outcome.code).inc()
        raise outcome
    _counter(outcome.status).inc()
    return respond(_render(place, outcome))


@functools.cache
def _counter(outcome: str) -> Any:
    """Find the counter of an outcome once; there are few."""
    return metrics.registrations.labels(outcome)


@router.get(
    "/registrations/{registration_id}", operation_id="get_registration", responses=problems(401, 403, 404)
)
async def get_registration(
    registration_id: UUID, caller: Who, db: Db, secret: Secret = None
) -> RegistrationOut:
    """Show a registration to its owner, its organization, or whoever has its secret link."""
    async with db.connection() as connection:
        return _out(await service.find(connection, caller, registration_id, secret))


@router.delete(
    "/registrations/{registration_id}", operation_id="cancel_registration", responses=problems(401, 403, 404)
)
async def delete_registration(
    registration_id: UUID, request: Request, caller: Who, db: Db, secret: Secret = None
) -> RegistrationOut:
    """Cancel a registration. A second call answers the same and moves nothing."""
    async with db.connection() as connection:
        registration = await service.find_to_cancel(connection, caller, registration_id, secret)
    return _out(await service.cancel(request.app.state.desk, registration, caller))


@router.get(
    "/events/{event_id}/registrations", operation_id="list_registrations", responses=problems(401, 403, 404)
)
async def get_registrations(
    event_id: UUID,
    caller: SignedIn,
    db: Db,
    status: Annotated[str | None, Query(pattern="^(confirmed|cancelled)$")] = None,
    limit: Limit = PAGE_DEFAULT,
    cursor: Cursor = None,
) -> RegistrationPage:
    """List an event's registrations, oldest first. For its organization only."""
    page = page_by_id(cursor, limit)
    async with db.connection() as connection:
        found = await service.of_event(connection, caller, event_id, status, page)
    return _page(found, limit)


@router.get("/users/me/registrations", operation_id="list_my_registrations", responses=problems(401, 403))
async def get_my_registrations(
    user: CurrentUser,
    db: Db,
    limit: Limit = PAGE_DEFAULT,
    cursor: Cursor = None,
) -> RegistrationPage:
    """List the signed-in user's registrations, newest first."""
    page = page_by_id(cursor, limit)
    async with db.connection() as connection:
        found = await service.of_user(connection, user, page)
    return _page(found, limit)


@router.post(
    "/events/{event_id}/cancellation",
    operation_id="cancel_event",
    tags=["events"],
    response_model=EventOut,
    responses=problems(401, 403, 404, 409),
)
async def post_cancellation(event_id: UUID, request: Request, caller: SignedIn, db: Db) -> Response:
    """Cancel an event and all its registrations. Calling again goes on where a broken call stopped."""

    async def work(tx: Transaction) -> Reply:
        return event_reply(await closing.cancel_event(tx, caller, event_id))

    response = await answer_once(request, caller.actor, work)
    await closing.finish(db, event_id, caller.actor)
    return response


def post_operation(document: dict[str, Any]) -> dict[str, Any]:
    """Describe `post_registration` for the OpenAPI document, adding its schemas to the document's."""
    template = "#/components/schemas/{name}"
    _, wanted = msgspec.json.schema_components([NewRegistration], ref_template=template)
    made = RegistrationMade.model_json_schema(ref_template="#/components/schemas/{model}")
    document["components"]["schemas"] |= {**wanted, **made.pop("$defs", {}), "RegistrationMade": made}
    answer = {"schema": {"$ref": template.format(name="RegistrationMade")}}
    responses = created(401, 403, 404)
    responses[201] |= {"description": "Registered.", "content": {"application/json": answer}}
    return {
        "tags": ["registrations"],
        "operationId": "create_registration",
        "summary": "Register one person for an event.",
        "description": (
            "Anyone may register for a published event. A signed-in user may leave name and e-mail out. "
            '409 is `sold_out` (title "Event full"), `already_registered` or `not_on_sale`.'
        ),
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": template.format(name="NewRegistration")}}},
        },
        "responses": {str(status): response for status, response in responses.items()},
    }


def _place(new: NewRegistration, caller: Caller, key: Any) -> Place:
    """Complete a request: the signed-in user's own name and e-mail, fresh ids and secrets."""
    wrong: list[dict[str, str]] = []
    user = caller.user
    name = _checked(new.name, user.name if user else None, "/name", clean, wrong)
    email = _checked(new.email, user.email if user else None, "/email", parse_email, wrong)
    if wrong:
        raise ValidationFailed(wrong)
    return Place(new.event_id, name, email, person_key(email), caller, new.ticket_type_id, key, _render)


def _checked(
    given: str | None, own: str | None, pointer: str, check: Any, wrong: list[dict[str, str]]
) -> str:
    if given is None:
        if own is None:
            wrong.append({"pointer": pointer, "detail": "Field required, unless you are signed in."})
        return own or ""
    try:
        return str(check(given))
    except ValueError as error:
        wrong.append({"pointer": pointer, "detail": str(error)})
        return ""


def _render(place: Place, outcome: Registration | Problem) -> Reply:
    """Write the answer to a registration, by hand, since thousands are written each second."""
    if isinstance(outcome, Problem):
        return problem_reply(outcome)
    location = f"{ROOT}/registrations/{outcome.id}"
    body = {
        "id": outcome.id,
        "event_id": outcome.event_id,
        "status": outcome.status,
        "attendee": {"name": outcome.name, "email": outcome.email},
        "ticket_id": outcome.ticket_id,
        "ticket_type_id": outcome.ticket_type_id,
        "ticket_code": outcome.ticket_code,
        "sequence": outcome.sequence,
        "created_at": outcome.created_at,
        "cancelled_at": outcome.cancelled_at,
        "secret": place.secret,
        "link": f"{location}?secret={place.secret}",
    }
    return Reply(201, msgspec.json.encode(body), location)


def _out(it: Registration) -> RegistrationOut:
    return RegistrationOut(
        id=it.id,
        event_id=it.event_id,
        status=it.status,
        attendee=Attendee(name=it.name, email=it.email),
        ticket_id=it.ticket_id,
        ticket_type_id=it.ticket_type_id,
        ticket_code=it.ticket_code,
        sequence=it.sequence,
        created_at=it.created_at,
        cancelled_at=it.cancelled_at,
    )


def _page(found: list[Registration], limit: int) -> RegistrationPage:
    items = [_out(it) for it in found[:limit]]
    return RegistrationPage(
        items=items, next_cursor=encode_cursor(items[-1].id) if len(found) > limit else None
    )
