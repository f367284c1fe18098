"""Group commit, with a commit function that the test opens and closes by hand."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from rowlock.kernel.batching import BATCH_MAX, BUSY_KEY, GroupCommit
from rowlock.kernel.errors import Busy, LockTimeout, OutcomeUnknown

if TYPE_CHECKING:
    from collections.abc import Sequence


class Gauge:
    def __init__(self) -> None:
        self.batches: list[int] = []
        self.most_waiting = 0

    def batch(self, size: int) -> None:
        self.batches.append(size)

    def waiting(self, count: int) -> None:
        self.most_waiting = max(self.most_waiting, count)


class Store:
    """Commits batches of (key, number) when the gate is open, and keeps what it committed."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered = asyncio.Event()
        self.batches: list[list[tuple[str, int]]] = []
        self.committed: list[tuple[str, int]] = []
        self.poison: dict[tuple[str, int], Exception] = {}

    async def commit(self, requests: Sequence[tuple[str, int]]) -> Sequence[int]:
        self.batches.append(list(requests))
        self.entered.set()
        await self.gate.wait()
        for request in requests:
            if request in self.poison:
                raise self.poison[request]
        self.committed += requests
        return [number * 10 for _, number in requests]


def batcher(store: Store, gauge: Gauge | None = None, **limits: Any) -> GroupCommit[tuple[str, int], int]:
    chosen = {"lanes": 2, "queue_max": 10_000, "deadline_seconds": 30.0} | limits
    return GroupCommit(store.commit, key=lambda request: request[0], gauge=gauge or Gauge(), **chosen)


async def test_what_arrives_together_is_committed_together_and_each_gets_its_own() -> None:
    store, gauge = Store(), Gauge()
    desk = batcher(store, gauge)

    outcomes = await asyncio.gather(*(desk.submit(("a", number)) for number in range(20)))

    assert outcomes == [number * 10 for number in range(20)]
    assert gauge.batches == [20]


async def test_while_one_batch_commits_the_next_gathers_in_order_of_arrival() -> None:
    store = Store()
    store.gate.clear()
    desk = batcher(store)
    first = asyncio.create_task(desk.submit(("a", 0)))
    await store.entered.wait()
    rest = [asyncio.create_task(desk.submit(("a", number))) for number in range(1, 30)]
    await asyncio.sleep(0)
    store.gate.set()
    await asyncio.gather(first, *rest)

    assert store.batches == [[("a", 0)], [("a", number) for number in range(1, 30)]]


async def test_a_busy_key_never_takes_the_last_lane() -> None:
    store = Store()
    store.gate.clear()
    desk = batcher(store, lanes=2)
    hot = [asyncio.create_task(desk.submit(("hot", number))) for number in range(BUSY_KEY * 3)]
    other_hot = [asyncio.create_task(desk.submit(("hotter", number))) for number in range(BUSY_KEY)]
    await store.entered.wait()
    store.entered.clear()
    quiet = [asyncio.create_task(desk.submit((f"quiet{number}", number))) for number in range(5)]
    await store.entered.wait()

    assert [{key for key, _ in batch} for batch in store.batches] == [
        {"hot"},
        {"quiet0", "quiet1", "quiet2", "quiet3", "quiet4"},
    ]
    store.gate.set()
    await asyncio.gather(*hot, *other_hot, *quiet)


async def test_a_poisoned_request_fails_alone() -> None:
    store = Store()
    store.poison = {("a", 7): RuntimeError("poison")}
    desk = batcher(store)

    outcomes = await asyncio.gather(
        *(desk.submit(("a", number)) for number in range(20)), return_exceptions=True
    )

    assert [number for number, it in enumerate(outcomes) if isinstance(it, RuntimeError)] == [7]
    assert sorted(store.committed) == [("a", number) for number in range(20) if number != 7]


async def test_a_locked_key_does_not_fail_the_others_of_its_batch() -> None:
    store = Store()
    store.poison = {("locked", 1): LockTimeout()}
    desk = batcher(store)

    free, locked, also_free = await asyncio.gather(
        desk.submit(("x", 1)), desk.submit(("locked", 1)), desk.submit(("y", 2)), return_exceptions=True
    )

    assert (free, also_free) == (10, 20)
    assert isinstance(locked, LockTimeout)


async def test_a_database_that_is_away_is_asked_once_a_batch() -> None:
    store = Store()
    store.poison = {("a", 0): Busy()}
    desk = batcher(store)

    outcomes = await asyncio.gather(*(desk.submit(("a", n)) for n in range(20)), return_exceptions=True)

    assert all(isinstance(it, Busy) for it in outcomes)
    assert len(store.batches) == 1


async def test_a_full_queue_says_busy_at_once() -> None:
    store = Store()
    store.gate.clear()
    desk = batcher(store, queue_max=3)
    first = asyncio.create_task(desk.submit(("a", 0)))
    await store.entered.wait()
    waiting = [asyncio.create_task(desk.submit(("a", number))) for number in range(1, 4)]
    await asyncio.sleep(0)

    with pytest.raises(Busy):
        await desk.submit(("a", 4))
    store.gate.set()
    assert await asyncio.gather(first, *waiting) == [0, 10, 20, 30]


async def test_a_key_whose_batch_hangs_leaves_room_for_others() -> None:
    store = Store()
    store.gate.clear()
    desk = batcher(store, queue_max=4)
    hanging = [asyncio.create_task(desk.submit(("a", 0)))]
    await store.entered.wait()
    hanging += [asyncio.create_task(desk.submit(("a", number))) for number in range(1, 4)]
    await asyncio.sleep(0)

    with pytest.raises(Busy):
        await desk.submit(("a", 4))
    other = asyncio.create_task(desk.submit(("b", 5)))
    store.gate.set()
    assert await asyncio.gather(*hanging, other) == [0, 10, 20, 30, 50]


async def test_a_key_whose_lock_does_not_come_travels_alone_until_it_does() -> None:
    store = Store()
    desk = batcher(store)
    store.poison["a", 1] = LockTimeout()
    with pytest.raises(LockTimeout):
        await desk.submit(("a", 1))
    await asyncio.gather(desk.submit(("a", 2)), desk.submit(("b", 3)))
    await asyncio.gather(desk.submit(("a", 4)), desk.submit(("b", 5)))

    assert store.batches == [[("a", 1)], [("a", 2)], [("b", 3)], [("a", 4), ("b", 5)]]


async def test_those_whose_time_is_up_make_room_in_the_queue() -> None:
    store = Store()
    store.gate.clear()
    desk = batcher(store, queue_max=1, deadline_seconds=0.01)
    hanging = asyncio.create_task(desk.submit(("a", 0)))
    await store.entered.wait()
    with pytest.raises(Busy):
        await desk.submit(("a", 1))  # after its deadline, in the queue

    last = asyncio.create_task(desk.submit(("a", 2)))
    await asyncio.sleep(0)
    assert not last.done()
    store.gate.set()
    outcomes = await asyncio.gather(hanging, last, return_exceptions=True)
    assert (type(outcomes[0]), outcomes[1]) == (OutcomeUnknown, 20)


async def test_a_deadline_before_the_batch_does_nothing_and_one_during_it_stops_nothing() -> None:
    store = Store()
    store.gate.clear()
    desk = batcher(store, deadline_seconds=0.02)
    in_batch = asyncio.create_task(desk.submit(("a", 1)))
    await store.entered.wait()
    in_queue = asyncio.create_task(desk.submit(("a", 2)))

    with pytest.raises(OutcomeUnknown):
        await in_batch
    with pytest.raises(Busy) as refusal:
        await in_queue
    assert not isinstance(refusal.value, OutcomeUnknown)
    store.gate.set()
    await desk.close()
    assert store.committed == [("a", 1)]


async def test_a_caller_that_goes_away_does_not_tear_its_batch_down() -> None:
    store = Store()
    store.gate.clear()
    desk = batcher(store)
    leaving, staying = (asyncio.create_task(desk.submit(("a", number))) for number in (1, 2))
    await store.entered.wait()
    leaving.cancel()
    store.gate.set()

    assert await staying == 20
    assert store.committed == [("a", 1), ("a", 2)]


async def test_closing_finishes_what_is_here_and_refuses_what_comes() -> None:
    store = Store()
    desk = batcher(store)
    here = [asyncio.create_task(desk.submit(("a", number))) for number in range(BATCH_MAX + 5)]
    await asyncio.sleep(0)

    await desk.close()

    assert len(await asyncio.gather(*here)) == BATCH_MAX + 5
    with pytest.raises(Busy):
        await desk.submit(("a", 0))
