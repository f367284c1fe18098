"""What is asked of orders, and what they are."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from msgspec import Struct, field

from rowlock.accounts.model import Caller
from rowlock.events.model import EventFacts
from rowlock.kernel.errors import Problem
from rowlock.kernel.idempotency import Key, Reply
from rowlock.kernel.ids import new_code, new_id, new_secret


class Registration(Struct, frozen=True):
    """An order of one free ticket, with its attendee. `sequence` is the ledger's number of its last change."""

    id: UUID
    event_id: UUID
    organization_id: UUID
    status: str
    name: str
    email: str
    person_key: str
    user_id: UUID | None
    ticket_id: UUID
    ticket_type_id: UUID
    ticket_code: str
    secret_hash: bytes
    sequence: int
    created_at: datetime
    cancelled_at: datetime | None = None


class Place(Struct, frozen=True):
    """A registration that is asked for. Its ids and secrets are drawn with it, so that deciding stays pure.

    With an Idempotency-Key, `render` writes the answer that is kept.
    """

    event_id: UUID
    name: str
    email: str
    person_key: str
    caller: Caller
    ticket_type_id: UUID | None = None
    key: Key | None = None
    render: Callable[[Place, Registration | Problem], Reply] | None = None
    order_id: UUID = field(default_factory=new_id)
    ticket_id: UUID = field(default_factory=new_id)
    ticket_code: str = field(default_factory=new_code)
    secret: str = field(default_factory=new_secret)


class Cancel(Struct, frozen=True):
    """A cancellation of a registration that the caller may cancel."""

    event_id: UUID
    order_id: UUID
    actor: str
    key: None = None


Request = Place | Cancel


class Known(Struct):
    """What a decision rests on, all of it read while the pools' locks are held."""

    now: datetime
    events: dict[UUID, EventFacts]
    active: set[tuple[UUID, str]]
    registrations: dict[UUID, Registration]
    sealed: dict[bytes, bytes] = field(default_factory=dict)


class Decision(Struct):
    """One outcome a request, in their order, and what is to be written."""

    outcomes: list[Registration | Problem | Reply] = field(default_factory=list)
    placed: list[Registration] = field(default_factory=list)
    cancelled: list[Registration] = field(default_factory=list)
    answers: dict[Key, Reply] = field(default_factory=dict)
