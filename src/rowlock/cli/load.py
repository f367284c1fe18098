"""A steady load for the benchmark: so many requests always in flight, driven without a task per request.

Each lane is a connection whose protocol callbacks write the next request, so that the load generator's own cost,
which comes out of the result where it shares the machine with the server, stays small.
"""

from __future__ import annotations

import asyncio
from array import array
from dataclasses import dataclass
from math import ceil
from time import perf_counter, process_time
from typing import TYPE_CHECKING, cast

from rowlock.cli.client import CONNECT_TIMEOUT_SECONDS, OPENING_AT_ONCE
from rowlock.cli.wire import Address, ConnectionLost, Reader, parse_address

if TYPE_CHECKING:
    from collections.abc import Callable

# What a load still waits for the answers in flight when its time is up.
DRAIN_SECONDS = 5.0
FRUITLESS_CONNECTIONS_MAX = 10
RECONNECT_PAUSE_SECONDS_MAX = 1.0


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What a load did: `requests` is the sum of `statuses` and `errors`.

    `rate` is complete answers per second. `errors` counts requests that got no complete answer and
    reconnections that failed. Latencies (nearest rank; 0 without an answer) run from the write to the last
    byte, so connecting is not in them. `cpu_seconds` is that of this whole process during `seconds`.
    """

    requests: int
    seconds: float
    rate: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    statuses: dict[int, int]
    errors: int
    cpu_seconds: float


async def load(
    base_url: str,
    connections: int,
    make_request: Callable[[int], bytes],
    *,
    total: int,
    seconds: float,
    on_body: Callable[[int, bytes], None] | None = None,
) -> LoadResult:
    """Keep `connections` requests in flight until `total` are sent or `seconds` are over.

    The last answers are waited for. `make_request` gets 0, 1, 2, … and gives the bytes to send; `on_body`
    gets each status and body, at a cost; what they raise ends the load. Raises OSError if the server can't be
    reached at the start; a connection lost later is counted as an error and opened again, until ten in a row
    bring no answer. The clocks start when all connections are open.
    """
    if connections < 1 or total < 1:
        msg = "a load needs at least one connection and one request"
        raise ValueError(msg)
    run = _Run(parse_address(base_url), make_request, on_body, total)
    drivers: list[asyncio.Task[None]] = []
    try:
        lanes = await run.open_all(min(connections, total))
        started_cpu, started = process_time(), perf_counter()
        run.deadline = started + seconds
        drivers += [asyncio.create_task(run.drive(lane)) for lane in lanes]
        done, _ = await asyncio.wait(
            drivers, timeout=seconds + DRAIN_SECONDS, return_when=asyncio.FIRST_EXCEPTION
        )
        wall, cpu = perf_counter() - started, process_time() - started_cpu
        for driver in done:
            driver.result()
    finally:
        run.cut()
        for driver in drivers:
            driver.cancel()
        await asyncio.gather(*drivers, return_exceptions=True)
    return run.result(wall, cpu)


class _Run:
    """What the lanes of one load share: where to, how much is left, and the books."""

    def __init__(
        self,
        address: Address,
        make_request: Callable[[int], bytes],
        on_body: Callable[[int, bytes], None] | None,
        total: int,
    ) -> None:
        self.make_request = make_request
        self.on_body = on_body
        self.total = total
        self.deadline = 0.0
        self.begun = 0
        self.errors = 0
        self.statuses: dict[int, int] = {}
        self.latencies = array("d")
        self._address = address
        self._opening = asyncio.Semaphore(OPENING_AT_ONCE)
        self._lanes: set[_Lane] = set()

    async def open_all(self, lanes: int) -> list[_Lane]:
        """Open that many lanes. Raises the first OSError, once no other is on its way."""
        opened = await asyncio.gather(*(self._open() for _ in range(lanes)), return_exceptions=True)
        for lane in opened:
            if isinstance(lane, BaseException):
                raise lane
        return [lane for lane in opened if isinstance(lane, _Lane)]

    async def _open(self) -> _Lane:
        async with self._opening, asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
            _, lane = await asyncio.get_running_loop().create_connection(
                lambda: _Lane(self), self._address.host, self._address.port
            )
        self._lanes.add(lane)
        return lane

    async def drive(self, lane: _Lane | None) -> None:
        """Run one lane after the other until the load is spent or too many in a row bring nothing."""
        fruitless = 0
        while True:
            fruitful = lane is not None and await lane.run()
            if lane is not None:
                self._lanes.discard(lane)
            fruitless = 0 if fruitful else fruitless + 1
            if self.spent(perf_counter()) or fruitless == FRUITLESS_CONNECTIONS_MAX:
                return
            await asyncio.sleep(min(RECONNECT_PAUSE_SECONDS_MAX, 0.01 * 2**fruitless) if fruitless else 0)
            try:
                lane = await self._open()
            except OSError:
                lane = None
                self.begun += 1
                self.errors += 1

    def spent(self, now: float) -> bool:
        """Tell whether no further request is to be sent."""
        return self.begun >= self.total or now >= self.deadline

    def cut(self) -> None:
        """Close the lanes still open; what they have in flight is lost."""
        for lane in self._lanes:
            lane.cut()

    def result(self, seconds: float, cpu_seconds: float) -> LoadResult:
        """Close the books."""
        ordered = sorted(self.latencies)

        def at(share: float) -> float:
            return ordered[ceil(share * len(ordered)) - 1] * 1000 if ordered else 0.0

        return LoadResult(
            requests=len(ordered) + self.errors,
            seconds=seconds,
            rate=len(ordered) / seconds,
            p50_ms=at(0.50),
            p95_ms=at(0.95),
            p99_ms=at(0.99),
            max_ms=at(1.0),
            statuses=dict(sorted(self.statuses.items())),
            errors=self.errors,
            cpu_seconds=cpu_seconds,
        )


class _Lane(asyncio.Protocol):
    """One connection of a load: each complete answer writes the next request, with no task in between."""

    __slots__ = ("_fruitful", "_in_flight", "_over", "_reader", "_run", "_sent", "_transport")

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._reader = Reader(self._note if run.on_body is None else self._note_body)
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._fruitful = self._in_flight = False
        self._sent = 0.0

    async def run(self) -> bool:
        """Send and receive until the connection is gone; True if it brought an answer."""
        if not self._over.done():
            self._next(perf_counter())
        await self._over
        return self._fruitful

    def cut(self) -> None:
        """Close now; a request in flight is an error."""
        self._lose()
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
        except ConnectionLost:
            self.cut()
        except Exception as failure:  # noqa: BLE001 - a caller's hook raised; the loop would only log it
            if not self._over.done():
                self._over.set_exception(failure)
            self.cut()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - any end is the same to a load
        self._lose()
        if not self._over.done():
            self._over.set_result(None)

    def _note(self, status: int, head: bytes, body: bytes) -> None:  # noqa: ARG002 - the shape of an on_answer
        now = perf_counter()
        if not self._in_flight:
            msg = "an answer nobody asked for"
            raise ConnectionLost(msg)
        run = self._run
        run.latencies.append(now - self._sent)
        run.statuses[status] = run.statuses.get(status, 0) + 1
        self._in_flight = False
        self._fruitful = True
        self._next(now)

    def _note_body(self, status: int, head: bytes, body: bytes) -> None:
        self._note(status, head, body)
        if self._run.on_body is not None:
            self._run.on_body(status, body)

    def _next(self, now: float) -> None:
        run = self._run
        if self._reader.closing or run.begun >= run.total or now >= run.deadline:
            self._transport.abort()
            return
        raw = run.make_request(run.begun)
        run.begun += 1
        self._in_flight = True
        self._sent = perf_counter()
        self._transport.write(raw)

    def _lose(self) -> None:
        if self._in_flight:
            self._in_flight = False
            self._run.errors += 1
