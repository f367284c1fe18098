"""The SQL of capacity."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any

from rowlock.allocation.model import Entry, Pool

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from uuid import UUID

    from rowlock.kernel.database import Connection, Transaction


async def lock_pools(tx: Transaction, event_ids: Collection[UUID]) -> list[Pool]:
    """Lock all pools of the events, in the order of their ids, and return them as they are once the locks are held.

    By the primary key alone: after a wait PostgreSQL reads the locked row anew, but not what a join or a subquery saw.
    """
    rows = await tx.fetch(
        "SELECT event_id, id, total, held, sold, blocked, last_sequence FROM capacity_pool"
        " WHERE event_id = ANY($1::uuid[]) ORDER BY event_id, id FOR UPDATE",
        list(event_ids),
    )
    return [Pool(*row) for row in rows]


async def read_pools(connection: Connection, event_ids: Collection[UUID]) -> list[Pool]:
    """Return all pools of the events as last committed, without a lock: for showing, not for deciding."""
    rows = await connection.fetch(
        "SELECT event_id, id, total, held, sold, blocked, last_sequence FROM capacity_pool"
        " WHERE event_id = ANY($1::uuid[]) ORDER BY event_id, id",
        list(event_ids),
    )
    return [Pool(*row) for row in rows]


async def insert_pool(tx: Transaction, pool: Pool, name: str) -> None:
    """Add a pool with its counters."""
    await tx.execute(
        "INSERT INTO capacity_pool (event_id, id, name, total, held, sold, blocked, last_sequence)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        pool.event_id,
        pool.id,
        name,
        pool.total,
        pool.held,
        pool.sold,
        pool.blocked,
        pool.last_sequence,
    )


async def save(tx: Transaction, pools: Sequence[Pool], entries: Sequence[Entry]) -> None:
    """Write the counters of locked pools and append the ledger's entries about them, in one statement."""
    await tx.execute(
        "WITH saved AS (UPDATE capacity_pool SET total = new.total, held = new.held, sold = new.sold,"
        " blocked = new.blocked, last_sequence = new.last_sequence"
        " FROM unnest($1::uuid[], $2::uuid[], $3::int[], $4::int[], $5::int[], $6::int[], $7::bigint[])"
        " AS new (event_id, id, total, held, sold, blocked, last_sequence)"
        " WHERE capacity_pool.event_id = new.event_id AND capacity_pool.id = new.id)"
        " INSERT INTO ledger (event_id, sequence, pool_id, reason, order_id, actor, total, held, sold, blocked)"
        " SELECT * FROM unnest($8::uuid[], $9::bigint[], $10::uuid[], $11::text[], $12::uuid[], $13::text[],"
        " $14::int[], $15::int[], $16::int[], $17::int[])",
        *_columns(pools, ("event_id", "id", "total", "held", "sold", "blocked", "last_sequence")),
        *_columns(entries, _ENTRY),
    )


async def append_ledger(tx: Transaction, entries: Sequence[Entry]) -> None:
    """Append entries about pools that are written otherwise."""
    await tx.execute(
        "INSERT INTO ledger (event_id, sequence, pool_id, reason, order_id, actor, total, held, sold, blocked)"
        " SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::text[], $5::uuid[], $6::text[],"
        " $7::int[], $8::int[], $9::int[], $10::int[])",
        *_columns(entries, _ENTRY),
    )


async def delete_pools(tx: Transaction, event_id: UUID) -> None:
    """Remove an event's pools; their history stays in the ledger."""
    await tx.execute("DELETE FROM capacity_pool WHERE event_id = $1", event_id)


_ENTRY = (
    "event_id",
    "sequence",
    "pool_id",
    "reason",
    "order_id",
    "actor",
    "total",
    "held",
    "sold",
    "blocked",
)


def _columns(rows: Sequence[Pool] | Sequence[Entry], names: Sequence[str]) -> Iterator[list[Any]]:
    """Turn rows into one list a column, as unnest wants them."""
    return (list(map(attrgetter(name), rows)) for name in names)
