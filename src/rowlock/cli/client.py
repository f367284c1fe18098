"""A cheap HTTP/1.1 client for JSON APIs of known shape: single calls, and a race that sends many at once.

There is no redirect and no retry: what to do about a failure is the caller's choice.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any, cast

import msgspec

from rowlock.cli.wire import Address, ConnectionLost, Reader, headers_of, parse_address, request

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Self

CONNECT_TIMEOUT_SECONDS = 10.0
CALL_TIMEOUT_SECONDS = 30.0
RACE_TIMEOUT_SECONDS = 60.0
# Below the five seconds after which uvicorn closes an idle connection: a request must not cross that close.
IDLE_SECONDS_MAX = 3.0
# Fewer than any listen backlog: a dropped SYN would be sent again only after a second.
OPENING_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer. Header names are lower case; `seconds` runs from the write to the last byte."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float

    def json(self) -> Any:
        """Decode the body. Raises msgspec.DecodeError if it is not JSON."""
        return msgspec.json.decode(self.body)


@dataclass(frozen=True, slots=True)
class Call:
    """A request not yet bound to a server. `token` is the bearer token, `key` the Idempotency-Key."""

    method: str
    path: str
    body: object | bytes | None = None
    token: str | None = None
    key: str | None = None

    def encode(self, host: str) -> bytes:
        """Build the bytes to send to `host`. Raises ValueError as `request` does."""
        headers = {}
        if self.token is not None:
            headers["authorization"] = f"Bearer {self.token}"
        if self.key is not None:
            headers["idempotency-key"] = self.key
        return request(self.method, self.path, host=host, body=self.body, headers=headers)


async def connect(host: str, port: int, *, timeout_seconds: float = CONNECT_TIMEOUT_SECONDS) -> Connection:
    """Open a connection. Raises OSError, of which TimeoutError is one, if the server can't be reached."""
    async with asyncio.timeout(timeout_seconds):
        _, connection = await asyncio.get_running_loop().create_connection(Connection, host, port)
    return connection


class Connection(asyncio.Protocol):
    """One keep-alive connection; requests may be sent without waiting, answers come in their order."""

    def __init__(self) -> None:
        self.closed = False
        self._reader = Reader(self._settle)
        self._waiting: deque[tuple[asyncio.Future[Answer], float]] = deque()
        self._gone = asyncio.get_running_loop().create_future()

    async def send(self, raw: bytes) -> Answer:
        """Send one request and wait for its answer. Raises ConnectionLost. Time limits are the caller's."""
        return await self.write(raw)

    def write(self, raw: bytes) -> asyncio.Future[Answer]:
        """Send one request now; its answer is to be awaited. Raises ConnectionLost if closed already."""
        if self.closed:
            msg = "the connection is closed"
            raise ConnectionLost(msg)
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((answer, perf_counter()))
        self._transport.write(raw)
        return answer

    def close(self) -> None:
        """Close now; requests without an answer get ConnectionLost."""
        self.closed = True
        self._transport.abort()

    async def wait_closed(self) -> None:
        """Wait until the socket is closed."""
        await asyncio.shield(self._gone)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport (called by the event loop)."""
        # uvloop's transports are no subclass of asyncio.Transport, so isinstance() would refuse them.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Read on (called by the event loop)."""
        try:
            self._reader.feed(data)
        except ConnectionLost as failure:
            self._fail(failure)
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail what still waits (called by the event loop)."""
        self.closed = True
        failure = ConnectionLost("the connection ended before the answer was complete")
        failure.__cause__ = exc
        self._fail(failure)
        self._gone.set_result(None)

    def _settle(self, status: int, head: bytes, body: bytes) -> None:
        if not self._waiting:
            msg = "an answer nobody asked for"
            raise ConnectionLost(msg)
        answer, started = self._waiting.popleft()
        seconds = perf_counter() - started
        if self._reader.closing:
            self.close()
        if not answer.done():
            answer.set_result(Answer(status, headers_of(head), body, seconds))

    def _fail(self, failure: ConnectionLost) -> None:
        while self._waiting:
            answer, _ = self._waiting.popleft()
            if not answer.done():
                answer.set_exception(failure)


class Api:
    """The JSON API at one base URL, over a pool of connections opened when first needed."""

    def __init__(
        self, base_url: str, *, connections_max: int = 32, timeout_seconds: float = CALL_TIMEOUT_SECONDS
    ) -> None:
        """Take `http://host:port`. Raises ValueError for any other URL."""
        self._address = parse_address(base_url)
        self._timeout_seconds = timeout_seconds
        self._slots = asyncio.Semaphore(connections_max)
        self._idle: list[tuple[Connection, float]] = []

    async def call(
        self,
        method: str,
        path: str,
        body: object | bytes | None = None,
        *,
        token: str | None = None,
        key: str | None = None,
    ) -> Answer:
        """Send one request and wait for its answer, whatever its status.

        Raises OSError: ConnectionLost, TimeoutError, or the failure to connect. Whether to try again is the
        caller's choice.
        """
        raw = Call(method, path, body, token, key).encode(self._address.name)
        async with asyncio.timeout(self._timeout_seconds), self._slots:
            connection = await self._take()
            try:
                answer = await connection.send(raw)
            except BaseException:
                # The late answer to an abandoned request must not be taken for the next one's.
                connection.close()
                raise
            self._idle.append((connection, perf_counter()))
            return answer

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop()[0].close()

    async def __aenter__(self) -> Self:
        """Give the API itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close, and wait for the sockets to be closed."""
        idle = [connection for connection, _ in self._idle]
        self._idle.clear()
        await _close(idle)

    async def _take(self) -> Connection:
        oldest = perf_counter() - IDLE_SECONDS_MAX
        while self._idle:
            connection, since = self._idle.pop()
            if not connection.closed and since > oldest:
                return connection
            connection.close()
        return await connect(self._address.host, self._address.port)


async def race(
    base_urls: Sequence[str],
    requests: Sequence[Call],
    *,
    on_start: Callable[[], None] | None = None,
    on_answer: Callable[[int, Answer | Exception], None] | None = None,
    timeout_seconds: float = RACE_TIMEOUT_SECONDS,
) -> list[Answer | Exception]:
    """Open a connection for each request, in turn over the servers, then send all at once.

    The results are in the order of the requests; a failure (OSError: to connect, ConnectionLost,
    TimeoutError) is a value in its place. `on_start` is called when all connections are open, `on_answer` for each
    result. Raises ValueError for a URL or a request that can't be sent, and an ExceptionGroup if `on_answer` raises.
    """
    deadline = asyncio.get_running_loop().time() + timeout_seconds
    addresses = [parse_address(url) for url in base_urls]
    targets = [addresses[index % len(addresses)] for index in range(len(requests))]
    raws = [call.encode(target.name) for call, target in zip(requests, targets, strict=True)]
    opening = asyncio.Semaphore(OPENING_AT_ONCE)
    connections: list[Connection] = []

    async def enter(target: Address) -> Connection | Exception:
        try:
            async with asyncio.timeout_at(deadline), opening:
                connections.append(connection := await connect(target.host, target.port))
                return connection
        except OSError as failure:
            return failure

    async def run(index: int, entrant: Connection | Exception) -> Answer | Exception:
        answer = await _heat(entrant, raws[index], deadline)
        if on_answer is not None:
            on_answer(index, answer)
        return answer

    try:
        entrants = await asyncio.gather(*map(enter, targets))
        if on_start is not None:
            on_start()
        # Tasks made together take their first step, the write, in one turn of the loop: the tightest barrier.
        async with asyncio.TaskGroup() as group:
            runs = [group.create_task(run(index, entrant)) for index, entrant in enumerate(entrants)]
    finally:
        await _close(connections)
    return [task.result() for task in runs]


async def _heat(entrant: Connection | Exception, raw: bytes, deadline: float) -> Answer | Exception:
    if isinstance(entrant, Exception):
        return entrant
    try:
        async with asyncio.timeout_at(deadline):
            return await entrant.send(raw)
    except OSError as failure:
        return failure


async def _close(connections: Sequence[Connection]) -> None:
    for connection in connections:
        connection.close()
    await asyncio.gather(*(connection.wait_closed() for connection in connections))
