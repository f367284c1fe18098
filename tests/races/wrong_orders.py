"""Registrations whose statements come in an order that looks right and is not: what the explorer must catch.

They have tables of their own without constraints, so that nothing but the order of statements keeps them right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rowlock.kernel.ids import new_id

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable
    from uuid import UUID

    from rowlock.kernel.database import Database, Transaction

    Register = Callable[[Transaction, UUID, str], Awaitable[str]]
    Ask = Callable[[Database, UUID], Awaitable[Hashable]]

CREATE = (
    "CREATE TABLE wrong_pool (id uuid PRIMARY KEY, total int);"
    " CREATE TABLE wrong_order (pool_id uuid, person text)"
)
DROP = "DROP TABLE wrong_pool, wrong_order"

LOCK = "SELECT id FROM wrong_pool WHERE id = $1 FOR UPDATE"
_IS_FULL = """
SELECT (SELECT count(*) FROM wrong_order WHERE pool_id = $1) >= (SELECT total FROM wrong_pool WHERE id = $1)
"""
_IS_THERE = "SELECT EXISTS (SELECT FROM wrong_order WHERE pool_id = $1 AND person = $2)"
_INSERT = "INSERT INTO wrong_order (pool_id, person) VALUES ($1, $2)"
_ALL_IN_ONE = """
WITH locked AS (SELECT id, total FROM wrong_pool WHERE id = $1 FOR UPDATE),
     counted AS (SELECT count(*) AS taken, count(*) FILTER (WHERE person = $2) AS own
                 FROM wrong_order WHERE pool_id = $1)
INSERT INTO wrong_order (pool_id, person) SELECT id, $2 FROM locked, counted WHERE taken < total AND own = 0
"""


@dataclass(frozen=True)
class Halls:
    """Makes pools of `total` seats, and looks at what became of them."""

    db: Database
    total: int

    async def fresh(self) -> UUID:
        """Make the next pool and return its id."""
        pool_id = new_id()
        async with self.db.transaction() as tx:
            await tx.execute("INSERT INTO wrong_pool (id, total) VALUES ($1, $2)", pool_id, self.total)
        return pool_id

    async def look(self, pool_id: UUID) -> tuple[list[str], Hashable]:
        """Return what is wrong, and who is registered."""
        async with self.db.connection() as connection:
            rows = await connection.fetch(
                "SELECT person FROM wrong_order WHERE pool_id = $1 ORDER BY 1", pool_id
            )
        people = tuple(row["person"] for row in rows)
        overbooked = ["overbooked"] * (len(people) > self.total)
        return overbooked + ["somebody is registered twice"] * (len(set(people)) < len(people)), people


async def lock_then_check(tx: Transaction, pool_id: UUID, person: str) -> str:
    """Do it right: whatever counts is read under the lock."""
    await tx.fetch(LOCK, pool_id)
    if await tx.fetch_value(_IS_THERE, pool_id, person):
        return "already_registered"
    if await tx.fetch_value(_IS_FULL, pool_id):
        return "sold_out"
    await tx.execute(_INSERT, pool_id, person)
    return "confirmed"


async def check_then_lock(tx: Transaction, pool_id: UUID, person: str) -> str:
    """Read both conditions, then lock, and believe what was read."""
    if await tx.fetch_value(_IS_THERE, pool_id, person):
        return "already_registered"
    if await tx.fetch_value(_IS_FULL, pool_id):
        return "sold_out"
    await tx.fetch(LOCK, pool_id)
    await tx.execute(_INSERT, pool_id, person)
    return "confirmed"


async def look_for_the_person_then_lock(tx: Transaction, pool_id: UUID, person: str) -> str:
    """Count the seats under the lock, but look for the person before it."""
    if await tx.fetch_value(_IS_THERE, pool_id, person):
        return "already_registered"
    await tx.fetch(LOCK, pool_id)
    if await tx.fetch_value(_IS_FULL, pool_id):
        return "sold_out"
    await tx.execute(_INSERT, pool_id, person)
    return "confirmed"


async def count_then_lock(tx: Transaction, pool_id: UUID, person: str) -> str:
    """Look for the person under the lock, but count the seats before it."""
    is_full = await tx.fetch_value(_IS_FULL, pool_id)
    await tx.fetch(LOCK, pool_id)
    if await tx.fetch_value(_IS_THERE, pool_id, person):
        return "already_registered"
    if is_full:
        return "sold_out"
    await tx.execute(_INSERT, pool_id, person)
    return "confirmed"


async def all_in_one_statement(tx: Transaction, pool_id: UUID, person: str) -> str:
    """Lock, count and insert in one statement, which sees what was committed before it began to wait."""
    return "confirmed" if await tx.execute(_ALL_IN_ONE, pool_id, person) else "refused"


async def lock_in_a_snapshot(tx: Transaction, pool_id: UUID, person: str) -> str:
    """Lock first, but at REPEATABLE READ: all that follows sees the time before the wait."""
    await tx.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    return await lock_then_check(tx, pool_id, person)


def asked_by(person: str, register: Register) -> Ask:
    """Make an operation of it."""

    async def ask(db: Database, pool_id: UUID) -> Hashable:
        async with db.transaction() as tx:
            return await register(tx, pool_id, person)

    return ask
