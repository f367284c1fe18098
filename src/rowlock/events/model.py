"""Events and ticket types, as people see them and as a decision about seats needs them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime
    from uuid import UUID

    from rowlock.allocation.model import Pool


class Status(StrEnum):
    """Where an event is in its life. `ended` is never stored: the clock says it of what is published or paused."""

    DRAFT = "draft"
    PUBLISHED = "published"
    PAUSED = "paused"
    CANCELLED = "cancelled"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class NewEvent:
    """What an event is made from. Without an organization it goes to the caller's home."""

    organization_id: UUID | None
    status: Status
    capacity: int
    title: str
    description: str
    venue: str
    time_zone: str
    starts_at: datetime | None
    ends_at: datetime | None


@dataclass(frozen=True, slots=True)
class EventRow:
    """An event without its seats, which another table counts."""

    id: UUID
    organization_id: UUID
    status: Status
    title: str
    description: str
    venue: str
    time_zone: str
    starts_at: datetime | None
    ends_at: datetime | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Event(EventRow):
    """An event with its seats, in units."""

    capacity: int
    available: int
    sold: int
    held: int
    blocked: int

    @classmethod
    def of(cls, row: EventRow, pools: Iterable[Pool]) -> Event:
        """Put together what two tables know."""
        pools = list(pools)
        return cls(
            **{field.name: getattr(row, field.name) for field in fields(EventRow)},
            capacity=sum(pool.total for pool in pools),
            available=sum(pool.available for pool in pools),
            sold=sum(pool.sold for pool in pools),
            held=sum(pool.held for pool in pools),
            blocked=sum(pool.blocked for pool in pools),
        )


@dataclass(frozen=True, slots=True)
class EventFacts:
    """What a decision about an event's seats rests on.

    `status` is the stored one; `on_sale` has asked the clock. `ticket_types` says, in the order of their ids, which
    pools each one draws on.
    """

    id: UUID
    organization_id: UUID
    status: Status
    on_sale: bool
    ticket_types: Mapping[UUID, tuple[UUID, ...]]

    @property
    def default_ticket_type_id(self) -> UUID:
        """The ticket type of a registration that names none: the event's first."""
        return next(iter(self.ticket_types))


@dataclass(frozen=True, slots=True)
class TicketTypeRow:
    """A ticket type and the pools it draws on. Price in cents."""

    event_id: UUID
    id: UUID
    name: str
    description: str
    price_cents: int
    created_at: datetime
    pool_ids: tuple[UUID, ...]


@dataclass(frozen=True, slots=True)
class TicketType:
    """What is sold. `available` is what its scarcest pool has left, in units."""

    event_id: UUID
    id: UUID
    name: str
    description: str
    price_cents: int
    created_at: datetime
    available: int


@dataclass(frozen=True, slots=True)
class Listing:
    """Which events are asked for; None asks for any."""

    text: str | None = None
    starts_from: datetime | None = None
    starts_before: datetime | None = None
    organization_id: UUID | None = None
    status: Status | None = None
