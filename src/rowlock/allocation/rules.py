"""Who gets what: pure decisions over locked pools, in order of arrival."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rowlock.allocation.model import Change, Entry, Pool, Shortage

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from uuid import UUID


class Allotment:
    """Locked pools, and what has been decided about them so far in this transaction.

    Holds all pools of each of its events. Nothing is written until the allotment is saved.
    """

    def __init__(self, pools: Iterable[Pool]) -> None:
        """Start from the pools as they were read under their locks."""
        self.entries: list[Entry] = []
        self._pools: dict[tuple[UUID, UUID], Pool] = {}
        self._sequences: dict[UUID, int] = {}
        for pool in pools:
            self._pools[pool.event_id, pool.id] = pool
            self._sequences[pool.event_id] = max(pool.last_sequence, self._sequences.get(pool.event_id, 0))

    def pool(self, event_id: UUID, pool_id: UUID) -> Pool:
        """Return a pool as decided so far."""
        return self._pools[event_id, pool_id]

    def pools_of(self, event_id: UUID) -> list[Pool]:
        """Return the event's pools as decided so far."""
        return [pool for (event, _), pool in self._pools.items() if event == event_id]

    def changed(self) -> list[Pool]:
        """Return the pools that at least one entry is about."""
        touched = dict.fromkeys((entry.event_id, entry.pool_id) for entry in self.entries)
        return [self._pools[key] for key in touched]

    def apply(self, change: Change) -> Sequence[Entry] | Shortage:
        """Grant a change and return its entries, one a pool; or refuse it whole and change nothing."""
        before = [self._pools[change.event_id, pool_id] for pool_id in sorted(change.pool_ids)]
        sequence = self._sequences[change.event_id]
        after = [_after(pool, change, sequence + number) for number, pool in enumerate(before, 1)]
        if min(pool.available for pool in after) < 0:
            short = [pool for pool, then in zip(before, after, strict=True) if then.available < 0]
            scarcest = min(short, key=lambda pool: pool.available)
            return Shortage(scarcest.id, scarcest.available)
        return [self._record(pool, change) for pool in after]

    def _record(self, pool: Pool, change: Change) -> Entry:
        assert min(pool.total, pool.held, pool.sold, pool.blocked) >= 0, "a release of what nobody has"
        self._sequences[pool.event_id] = pool.last_sequence
        self._pools[pool.event_id, pool.id] = pool
        entry = Entry(
            pool.event_id,
            pool.last_sequence,
            pool.id,
            change.reason,
            change.order_id,
            change.actor,
            pool.total,
            pool.held,
            pool.sold,
            pool.blocked,
        )
        self.entries.append(entry)
        return entry


def decide(
    pools: Iterable[Pool], changes: Iterable[Change]
) -> tuple[Allotment, list[Sequence[Entry] | Shortage]]:
    """Decide changes one after the other, in order of arrival, each whole or not at all."""
    allotment = Allotment(pools)
    return allotment, [allotment.apply(change) for change in changes]


def _after(pool: Pool, change: Change, sequence: int) -> Pool:
    return Pool(
        pool.event_id,
        pool.id,
        pool.total + change.total,
        pool.held + change.held,
        pool.sold + change.sold,
        pool.blocked + change.blocked,
        sequence,
    )
