"""People who organize events, made without the slow hash of a password that no test types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from rowlock.accounts import service as accounts
from rowlock.accounts.repository import Credentials
from rowlock.allocation import service as allocation
from rowlock.allocation.model import Change, Reason

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import httpx

    from rowlock.kernel.database import Database


@dataclass(frozen=True)
class Person:
    """A user who is signed in, or an API key."""

    http: httpx.AsyncClient
    headers: dict[str, str]
    email: str = ""

    async def ask(self, method: str, path: str, json: Any = None, **headers: str) -> httpx.Response:
        """Send a request with this person's token."""
        return await self.http.request(method, path, json=json, headers=self.headers | headers)

    async def event(self, **fields: Any) -> dict[str, Any]:
        """Make a published event of ten seats, or what `fields` say, and return it."""
        answer = await self.ask(
            "POST", "/events", {"title": "Jazz", "capacity": 10, "status": "published", **fields}
        )
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made

    async def home(self) -> str:
        """Return the id of this person's own organization."""
        me = await self.ask("GET", "/users/me")
        found: str = me.json()["organizations"][0]["id"]
        return found

    async def key(self, *scopes: str) -> Person:
        """Make an API key of this person's own organization."""
        path = f"/organizations/{await self.home()}/api-keys"
        answer = await self.ask("POST", path, {"name": "Shop", "scopes": scopes})
        return Person(self.http, {"Authorization": f"Bearer {answer.json()['key']}"})


@pytest.fixture
def join(db: Database, client: httpx.AsyncClient) -> Callable[[str], Awaitable[Person]]:
    """Return a function that signs up somebody called so and signs them in."""

    async def person(name: str) -> Person:
        email = f"{name.lower()}@example.org"
        async with db.transaction() as tx:
            user = await accounts.sign_up(tx, name=name, email=email, password_hash="none")
            token, _ = await accounts.sign_in(tx, Credentials(user.id, "none"), days=1)
        return Person(client, {"Authorization": f"Bearer {token}"}, email)

    return person


@pytest.fixture
async def ann(join: Callable[[str], Awaitable[Person]]) -> Person:
    """Return an organizer."""
    return await join("Ann")


@pytest.fixture
async def bob(join: Callable[[str], Awaitable[Person]]) -> Person:
    """Return a stranger."""
    return await join("Bob")


@pytest.fixture
def sell(db: Database) -> Callable[[str, int], Awaitable[None]]:
    """Return a function that sells so many seats of an event, by the one door there is for it."""

    async def sold(event_id: str, seats: int) -> None:
        event = UUID(event_id)
        async with db.transaction() as tx:
            allotment = await allocation.lock(tx, [event])
            (pool,) = allotment.pools_of(event)
            allotment.apply(Change(event, (pool.id,), Reason.REGISTERED, "test", sold=seats))
            await allocation.save(tx, allotment)

    return sold


@pytest.fixture
def end(db: Database) -> Callable[[str], Awaitable[None]]:
    """Return a function that lets an event end now, as the clock would."""

    async def ended(event_id: str) -> None:
        async with db.transaction() as tx:
            await tx.execute(
                "UPDATE event SET starts_at = NULL, ends_at = clock_timestamp() WHERE id = $1", UUID(event_id)
            )

    return ended
