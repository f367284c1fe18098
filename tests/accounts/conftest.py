"""People for the tests of accounts, made without the slow hash of a password that no test types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from rowlock.accounts import service
from rowlock.accounts.model import Credentials

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import httpx

    from rowlock.accounts.model import User
    from rowlock.kernel.database import Database


@dataclass(frozen=True)
class Person:
    """A user who is signed in."""

    user: User
    http: httpx.AsyncClient
    headers: dict[str, str]

    async def ask(self, method: str, path: str, json: Any = None, **headers: str) -> httpx.Response:
        """Send a request with this person's token."""
        return await self.http.request(method, path, json=json, headers=self.headers | headers)

    async def found(self, name: str = "Orchestra") -> str:
        """Found an organization and return its path."""
        answer = await self.ask("POST", "/organizations", {"name": name})
        return f"/organizations/{answer.json()['id']}"

    async def hire(self, organization: str, other: Person, role: str) -> httpx.Response:
        """Make the other a member of the organization at this path."""
        return await self.ask("POST", f"{organization}/members", {"email": other.user.email, "role": role})

    async def key(self, organization: str, *scopes: str, **more: Any) -> dict[str, Any]:
        """Make an API key and return its record, the key included."""
        answer = await self.ask(
            "POST", f"{organization}/api-keys", {"name": "Door", "scopes": scopes, **more}
        )
        assert answer.status_code == 201, answer.text
        record: dict[str, Any] = answer.json()
        return record


@pytest.fixture
def join(db: Database, client: httpx.AsyncClient) -> Callable[[str], Awaitable[Person]]:
    """Return a function that signs up somebody called so and signs them in."""

    async def person(name: str) -> Person:
        async with db.transaction() as tx:
            user = await service.sign_up(
                tx, name=name, email=f"{name.lower()}@example.org", password_hash="none"
            )
            token, _ = await service.sign_in(tx, Credentials(user.id, "none"), days=1)
        return Person(user, client, {"Authorization": f"Bearer {token}"})

    return person
