"""Real server processes over a real PostgreSQL, and crowds of people who register with them."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from dataclasses import dataclass, field
from itertools import count
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

from rowlock.cli import servers as processes
from rowlock.cli.client import Answer, Api, Call
from rowlock.cli.organizer import Organizer, members, sign_up
from rowlock.cli.servers import READY_SECONDS, ServerProcess, servers
from rowlock.cli.verify import as_text
from rowlock.kernel.database import Database, open_database
from rowlock.reports.service import verify

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

API = "/api/v1"
NOTHING: Mapping[str, str] = MappingProxyType({})
POLL_SECONDS = 0.01
PATIENCE_SECONDS = 60.0
# After a refusal a client lets others go first, so that a server which is away is not asked thousands of times.
PAUSE_SECONDS = 0.05
NO_ANSWER = "no_answer"
CONFIRMED = "confirmed"


async def until(is_so: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> None:
    """Wait until something is so. The deadline only ends a test that would never end."""
    async with asyncio.timeout(seconds):
        while not is_so():  # noqa: ASYNC110 - what is waited for is outside of this process
            await asyncio.sleep(POLL_SECONDS)


def registration(event_id: str, person: str, key: str | None = None) -> Call:
    """Ask for a seat for somebody; a person is the part of the e-mail before the @."""
    body = {"event_id": event_id, "name": person, "email": f"{person}@example.org"}
    return Call("POST", f"{API}/registrations", body, key=key)


def cancellation(made: dict[str, Any]) -> Call:
    """Ask to cancel a registration by its secret link."""
    return Call("DELETE", made["link"])


def outcome_of(answer: Answer | Exception) -> str:
    """Name what was answered: a registration's status, a problem's code, or that there was no answer."""
    if isinstance(answer, Exception):
        return NO_ANSWER
    body = members(answer)
    return str(body.get("code") or body.get("status") or answer.status)


@dataclass
class Site:
    """Some servers over one database, and an organizer who is signed in."""

    servers: list[ServerProcess]
    database_url: str
    db: Database
    environment: Mapping[str, str]
    token: str = ""
    apis: dict[str, Api] = field(default_factory=dict)

    @property
    def urls(self) -> list[str]:
        """Where the servers are, those too that are down."""
        return [server.url for server in self.servers]

    @property
    def organizer(self) -> Organizer:
        """The organizer, as a client of some server that runs."""
        running = next(server for server in self.servers if server.is_running)
        return Organizer(self.api(running.url), self.token)

    def api(self, url: str) -> Api:
        """Return a client of one server."""
        return self.apis.setdefault(url, Api(url, connections_max=64))

    async def call(self, call: Call, url: str | None = None) -> Answer:
        """Ask one server, the first if none is named. Raises OSError."""
        return await self.api(url or self.urls[0]).call(
            call.method, call.path, call.body, token=call.token, key=call.key
        )

    async def event(self, seats: int) -> str:
        """Publish an event and return its id."""
        made = await self.organizer.publish("Jazz", seats)
        return str(made["id"])

    def as_organizer(self, method: str, path: str, body: object = None) -> Call:
        """Ask for something that only the organizer may do."""
        return Call(method, f"{API}{path}", body, token=self.token)

    async def seats(self, event_id: str) -> dict[str, int]:
        """Return the counters of an event that the API shows."""
        answer = await self.organizer.api.call("GET", f"{API}/events/{event_id}")
        return {name: answer.json()[name] for name in ("capacity", "sold", "available")}

    async def rows(self, sql: str, *values: Any) -> list[dict[str, Any]]:
        """Read the database, past all servers."""
        async with self.db.connection() as connection:
            return [dict(row) for row in await connection.fetch(sql, *values)]

    async def require_clean(self) -> None:
        """Recount everything."""
        verification = await verify(self.db)
        assert verification.holds, as_text(verification)

    async def restart(self, number: int) -> None:
        """Start a server in the place of one that was killed; its address is a new one."""
        environment = {**processes._environment(log_sql=False), **self.environment}
        started = ServerProcess(self.database_url, environment)
        try:
            await asyncio.to_thread(started.wait_until_ready, time.monotonic() + READY_SECONDS)
        except BaseException:
            started.kill()
            raise
        # `servers` gave its own list, and ends whatever is in it.
        self.servers[number] = started


@contextlib.asynccontextmanager
async def site(
    url: str, servers_count: int = 2, environment: Mapping[str, str] = NOTHING
) -> AsyncIterator[Site]:
    """Run servers over the database at `url`; they end with the block."""
    with servers(url, servers_count, extra_env=environment) as started:
        db = await open_database(url, size=8)
        its = Site(started, url, db, environment)
        try:
            its.token = (await sign_up(its.api(started[0].url))).token
            yield its
        finally:
            for api in its.apis.values():
                await api.__aexit__()
            await db.close()


@dataclass(frozen=True)
class Asked:
    """One request of a crowd: when it began and ended (one monotonic clock), and what was answered."""

    person: str
    key: str
    invoked: float
    returned: float
    outcome: str
    status: int
    made: dict[str, Any]


class Crowd:
    """Clients of all servers, each registering one new person after the other until the block ends.

    Everybody has an Idempotency-Key, with which those who got no good answer may ask again.
    """

    def __init__(self, site: Site, event_id: str, *, clients: int = 8) -> None:
        """Begin with nobody; the clients start with the block."""
        self.asked: list[Asked] = []
        self._site = site
        self._event_id = event_id
        self._clients = clients
        self._numbers = count()
        self._name = secrets.token_hex(4)
        self._is_over = False
        self._tasks: list[asyncio.Task[None]] = []

    def outcomes(self, outcome: str) -> list[Asked]:
        """Return the requests that were answered so."""
        return [asked for asked in self.asked if asked.outcome == outcome]

    def between(self, begin: float, end: float) -> set[str]:
        """Return what was answered to those who asked after `begin` and had their answer before `end`."""
        return {asked.outcome for asked in self.asked if asked.invoked > begin and asked.returned < end}

    async def more(self, outcome: str, number: int) -> None:
        """Wait until so many more requests than now have been answered so."""
        before = len(self.outcomes(outcome))
        await until(lambda: len(self.outcomes(outcome)) >= before + number)

    async def whole(self, outcome: str, number: int) -> None:
        """Wait for so many answers of this kind to requests that begin from now on."""
        now = time.perf_counter()
        await until(lambda: sum(asked.invoked > now for asked in self.outcomes(outcome)) >= number)

    async def ask_again(self, url: str) -> list[Asked]:
        """Let everybody who has no seat yet ask one server again, with the same key; return what each heard."""
        without = [asked for asked in self.asked if asked.outcome != CONFIRMED]
        again: list[Asked] = []
        for start in range(0, len(without), self._clients):
            some = without[start : start + self._clients]
            again += await asyncio.gather(*(self._ask(asked.person, url, asked.key) for asked in some))
        return again

    async def __aenter__(self) -> Self:
        """Let the clients start."""
        self._tasks = [asyncio.create_task(self._client(number)) for number in range(self._clients)]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Let each client have its last answer."""
        self._is_over = True
        await asyncio.gather(*self._tasks)

    async def _client(self, number: int) -> None:
        for turn in count(number):
            if self._is_over:
                return
            urls = self._site.urls
            person = f"{self._name}-{next(self._numbers)}"
            asked = await self._ask(person, urls[turn % len(urls)], secrets.token_hex(8))
            self.asked.append(asked)
            if asked.outcome != CONFIRMED:
                await asyncio.sleep(PAUSE_SECONDS)

    async def _ask(self, person: str, url: str, key: str) -> Asked:
        invoked = time.perf_counter()
        try:
            answer: Answer | Exception = await self._site.call(registration(self._event_id, person, key), url)
        except OSError as error:
            answer = error
        returned = time.perf_counter()
        outcome = outcome_of(answer)
        status = answer.status if isinstance(answer, Answer) else 0
        made = members(answer) if isinstance(answer, Answer) and outcome == CONFIRMED else {}
        return Asked(person, key, invoked, returned, outcome, status, made)
