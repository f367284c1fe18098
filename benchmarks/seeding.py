"""Fills an event with registrations before it is measured, by the application's own code in big batches.

Nothing is vacuumed or analysed afterwards by hand: a rush meets the tables as autovacuum has left them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from rowlock.accounts.model import ANONYMOUS
from rowlock.kernel.database import KEY_LOOKUPS, open_database
from rowlock.kernel.ids import digest, new_code, new_id, new_secret
from rowlock.orders.model import Place, Registration
from rowlock.orders.placing import place_many

if TYPE_CHECKING:
    from rowlock.kernel.errors import Problem
    from rowlock.kernel.idempotency import Reply

BATCH = 1_000


async def fill(database_url: str, event_id: str, people: int) -> None:
    """Register so many people for an event."""
    db = await open_database(database_url, size=1, planner=KEY_LOOKUPS)
    try:
        for begin in range(0, people, BATCH):
            batch = [_place(UUID(event_id), number) for number in range(begin, min(begin + BATCH, people))]
            outcomes = await place_many(db, batch)
            assert all(isinstance(it, Registration) for it in outcomes), "each of them is new, and has a seat"
    finally:
        await db.close()


def _place(event_id: UUID, number: int) -> Place:
    secret = new_secret()
    email = f"early-{number:07}@example.org"
    return Place(
        event_id=event_id,
        ticket_type_id=None,
        name=f"Early {number:07}",
        email=email,
        person_key=email,
        caller=ANONYMOUS,
        order_id=new_id(),
        ticket_id=new_id(),
        ticket_code=new_code(),
        secret=secret,
        secret_hash=digest(secret),
        key=None,
        render=_unanswered,
    )


def _unanswered(_place: Place, _outcome: Registration | Problem) -> Reply:
    message = "only an answer under an Idempotency-Key is written down, and these have none"
    raise NotImplementedError(message)
