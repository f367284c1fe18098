"""What capacity is made of: pools, changes of their counters, and the ledger's entries.

Structs and not dataclasses: thousands are made each second of a rush, and a frozen dataclass takes ten times as long.
"""

from __future__ import annotations

from enum import StrEnum
from uuid import UUID

from msgspec import Struct


class Reason(StrEnum):
    """Why a pool's counters changed; the ledger keeps it."""

    OPENED = "opened"
    REGISTERED = "registered"
    CANCELLED = "cancelled"
    RESIZED = "resized"
    EVENT_CANCELLED = "event_cancelled"
    DELETED = "deleted"


class Pool(Struct, frozen=True):
    """A counted limit of one event. `held + sold + blocked <= total`, always."""

    event_id: UUID
    id: UUID
    total: int
    held: int
    sold: int
    blocked: int
    last_sequence: int

    @property
    def available(self) -> int:
        """Units that nobody has."""
        return self.total - self.committed

    @property
    def committed(self) -> int:
        """Units that somebody has."""
        return self.held + self.sold + self.blocked


class Change(Struct, frozen=True):
    """What is asked of some pools of one event: all of them, or nothing happens.

    `pool_ids` all get the same differences: a claim adds to sold (or held), a release takes away, a resize adds to
    total, a confirmation moves from held to sold. Units, not rows.
    """

    event_id: UUID
    pool_ids: tuple[UUID, ...]
    reason: Reason
    actor: str
    order_id: UUID | None = None
    total: int = 0
    held: int = 0
    sold: int = 0
    blocked: int = 0


class Entry(Struct, frozen=True):
    """One line of the ledger: a pool's counters after a change. `sequence` has no gaps within its event."""

    event_id: UUID
    sequence: int
    pool_id: UUID
    reason: Reason
    order_id: UUID | None
    actor: str
    total: int
    held: int
    sold: int
    blocked: int


class Shortage(Struct, frozen=True):
    """The answer to a change that does not fit: how many units the scarcest pool has left."""

    pool_id: UUID
    available: int
