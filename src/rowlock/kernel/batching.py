"""Group commit: callers that arrive together are served by one transaction, and each gets its own outcome.

Callers await `submit(request)`. While one batch is in its transaction the next gathers, so the batch grows with the
load; a single caller waits for nobody, and under load at most two milliseconds are waited for others (see `pacing`).
Requests are queued by key (an event); a key is in one batch at a time, so its requests are decided in the
order they came. A busy key travels alone and never takes the last lane, so that others do not wait for it; quiet keys
travel together, because a batch over many keys costs little more than over one.

A batch that fails is halved until the request that poisons it is alone: only that caller gets the error.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from contextvars import Context
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import structlog

from rowlock.kernel.errors import Busy, LockTimeout, OutcomeUnknown
from rowlock.kernel.pacing import SMALLEST_SHARE, Crowd

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable, Sequence

Request = TypeVar("Request")
Outcome = TypeVar("Outcome")
BATCH_MAX = 256
BUSY_KEY = SMALLEST_SHARE
GATHER_SECONDS = 0.002
# This part of the queue no key can fill alone: others get through, however long that key's own batch hangs.
QUEUE_PARTS = 4

log = structlog.get_logger("rowlock.batching")


class Gauge(Protocol):
    """What a batcher tells about itself."""

    def batch(self, size: int) -> None:
        """Note that a batch of `size` requests was formed."""

    def waiting(self, count: int) -> None:
        """Note that `count` requests wait now."""


@dataclass(slots=True, eq=False)
class _Waiter(Generic[Request, Outcome]):
    request: Request
    key: Hashable
    answer: asyncio.Future[Outcome]
    taken: bool = field(default=False)
    timer: asyncio.TimerHandle | None = field(default=None)


class GroupCommit(Generic[Request, Outcome]):
    """Gathers requests into batches and gives each caller its outcome."""

    def __init__(  # noqa: PLR0913 - each is a limit that somebody must choose
        self,
        commit: Callable[[Sequence[Request]], Awaitable[Sequence[Outcome]]],
        *,
        key: Callable[[Request], Hashable],
        lanes: int,
        queue_max: int,
        deadline_seconds: float,
        gauge: Gauge,
    ) -> None:
        """Take the function that decides and commits a batch: as many outcomes as requests, in their order."""
        self._commit = commit
        self._key = key
        self._lanes = lanes
        self._queue_max = queue_max
        self._key_max = queue_max - queue_max // QUEUE_PARTS
        self._deadline_seconds = deadline_seconds
        self._gauge = gauge
        self._queues: OrderedDict[Hashable, deque[_Waiter[Request, Outcome]]] = OrderedDict()
        self._waiting = 0
        self._being_served: set[Hashable] = set()
        self._stuck: set[Hashable] = set()
        self._busy_lanes = 0
        self._batches: set[asyncio.Task[None]] = set()
        self._pump_is_due = False
        self._crowd = Crowd()
        self._patience: asyncio.TimerHandle | None = None
        self._closed = False

    async def submit(self, request: Request) -> Outcome:
        """Wait for the batch that serves this request, and return its outcome.

        Raises:
            Busy: the queue, or the key's share of it, is full; or the deadline passed before a batch took the request.
                Nothing was done.
            OutcomeUnknown: the deadline passed while the batch was being committed, which goes on regardless.

        """
        key = self._key(request)
        if self._closed or self._waiting >= self._queue_max or self._waiting_for(key) >= self._key_max:
            raise Busy
        loop = asyncio.get_running_loop()
        waiter: _Waiter[Request, Outcome] = _Waiter(request, key, loop.create_future())
        waiter.timer = loop.call_later(self._deadline_seconds, self._give_up, waiter)
        self._queues.setdefault(key, deque()).append(waiter)
        self._waiting += 1
        self._crowd.arrived()
        self._pump_soon()
        try:
            return await waiter.answer
        finally:
            waiter.timer.cancel()

    async def close(self) -> None:
        """Refuse what comes, finish what is here."""
        self._closed = True
        while self._batches or self._queues:
            self._pump_now()
            await asyncio.wait(self._batches) if self._batches else await asyncio.sleep(0)

    def _waiting_for(self, key: Hashable) -> int:
        queue = self._queues.get(key)
        return len(queue) if queue else 0

    def _pump_soon(self) -> None:
        """Form batches once per turn of the event loop, so that requests read in the same turn travel together."""
        if not self._pump_is_due:
            self._pump_is_due = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        self._pump_is_due = False
        self._gauge.waiting(self._waiting)
        if not self._is_worth_waiting():
            self._form_batches()

    def _pump_now(self) -> None:
        self._patience = None
        self._crowd.stays_away()
        self._form_batches()

    def _is_worth_waiting(self) -> bool:
        """Tell whether nothing can leave now, or so little of what is coming that it should wait a moment."""
        ready = self._ready()
        if ready == 0 or not self._crowd.is_on_its_way(ready):
            if self._patience is not None:
                self._patience.cancel()
                self._patience = None
            return ready == 0
        if self._patience is None:
            self._patience = asyncio.get_running_loop().call_later(GATHER_SECONDS, self._pump_now)
        return True

    def _ready(self) -> int:
        return sum(len(queue) for key, queue in self._queues.items() if key not in self._being_served)

    def _form_batches(self) -> None:
        most = min(BATCH_MAX, self._crowd.share(self._ready()))
        while len(self._batches) < self._lanes:
            batch, busy = self._next_batch(most)
            if not batch:
                break
            keys = {waiter.key for waiter in batch}
            self._being_served |= keys
            self._busy_lanes += busy
            self._gauge.batch(len(batch))
            # In a context of its own, for a batch belongs to no single request.
            task = asyncio.create_task(self._run(batch, keys, busy=busy), context=Context())
            self._batches.add(task)

    def _next_batch(self, most: int) -> tuple[list[_Waiter[Request, Outcome]], bool]:
        """Take one busy or stuck key alone (and say so), or as many quiet ones as fit, oldest queue first."""
        batch: list[_Waiter[Request, Outcome]] = []
        lane_for_busy = self._busy_lanes < self._lanes - 1
        for key, queue in list(self._queues.items()):
            if key in self._being_served:
                continue
            if len(queue) >= BUSY_KEY or key in self._stuck:
                if lane_for_busy and not batch:
                    return self._take(key, queue, most), True
                continue
            batch += self._take(key, queue, most - len(batch))
            if len(batch) >= most:
                break
        return batch, False

    def _take(
        self, key: Hashable, queue: deque[_Waiter[Request, Outcome]], most: int
    ) -> list[_Waiter[Request, Outcome]]:
        taken: list[_Waiter[Request, Outcome]] = []
        while queue and len(taken) < most:
            waiter = queue.popleft()
            self._waiting -= 1
            if not waiter.answer.done():
                waiter.taken = True
                taken.append(waiter)
        if not queue:
            del self._queues[key]
        else:
            self._queues.move_to_end(key)
        return taken

    async def _run(self, batch: list[_Waiter[Request, Outcome]], keys: set[Hashable], *, busy: bool) -> None:
        task = asyncio.current_task()

        def make_way() -> None:
            if task in self._batches:
                self._batches.remove(task)
                self._being_served -= keys
                self._busy_lanes -= busy
                self._crowd.answered(len(batch))
                self._pump()

        try:
            await self._serve(batch, make_way)
        finally:
            make_way()

    async def _serve(
        self, batch: list[_Waiter[Request, Outcome]], make_way: Callable[[], None] = lambda: None
    ) -> None:
        """Commit a batch and answer its callers, after sending the next one off: the database must not wait for us."""
        try:
            outcomes = await self._commit([waiter.request for waiter in batch])
        except Exception as error:  # noqa: BLE001 - whatever it is, its caller must hear it and the others must not
            await self._serve_in_parts(batch, error)
            return
        self._stuck.difference_update(waiter.key for waiter in batch)
        make_way()
        for waiter, outcome in zip(batch, outcomes, strict=True):
            if not waiter.answer.done():
                waiter.answer.set_result(outcome)

    async def _serve_in_parts(self, batch: list[_Waiter[Request, Outcome]], error: Exception) -> None:
        """Halve a failed batch, by keys where it has several: one locked event must not fail the others."""
        keys = list(dict.fromkeys(waiter.key for waiter in batch))
        hopeless = isinstance(error, Busy) and not (isinstance(error, LockTimeout) and len(keys) > 1)
        if len(batch) == 1 or hopeless:
            if not isinstance(error, Busy):
                log.error("a request failed in its batch", exc_info=error)
            if isinstance(error, LockTimeout):
                self._stuck.update(keys)
            for waiter in batch:
                if not waiter.answer.done():
                    waiter.answer.set_exception(error)
            return
        if len(keys) > 1:
            first_half = set(keys[: len(keys) // 2])
            parts = [[w for w in batch if w.key in first_half], [w for w in batch if w.key not in first_half]]
        else:
            parts = [batch[: len(batch) // 2], batch[len(batch) // 2 :]]
        for part in parts:
            await self._serve(part)

    def _give_up(self, waiter: _Waiter[Request, Outcome]) -> None:
        if waiter.answer.done():
            return
        waiter.answer.set_exception(OutcomeUnknown() if waiter.taken else Busy())
        if not waiter.taken:
            # The dead must not fill the queue. Cheap: all have the same patience, so it is the first of its queue.
            queue = self._queues[waiter.key]
            queue.remove(waiter)
            self._waiting -= 1
            if not queue:
                del self._queues[waiter.key]
