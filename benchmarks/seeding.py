"""Fills an event with registrations before it is measured, by the application's own code in big batches.

Nothing is vacuumed or analysed afterwards by hand: a rush meets the tables as autovacuum has left them.
"""

from __future__ import annotations

from uuid import UUID

from rowlock.accounts.model import ANONYMOUS
from rowlock.kernel.database import KEY_LOOKUPS, open_database
from rowlock.orders.model import Place, Registration
from rowlock.orders.placing import place_many

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
    email = f"early-{number:07}@example.org"
    return Place(event_id, f"Early {number:07}", email, email, ANONYMOUS)
