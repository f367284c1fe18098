"""Builders of what tests need to be there: people, organizations, members, keys, events, registrations.

All go through the API, except that people sign up and in past it: the hash of a password takes long, and no test of
anything else types one. `await make.user(client, "Ann")` returns somebody who can `ask`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

import httpx

from rowlock.accounts import service as accounts
from rowlock.accounts.model import KEY_SCOPES, Credentials

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import FastAPI

_numbers = count(1)


@dataclass(frozen=True)
class Actor:
    """Somebody with a token: a user, or an API key. `organization_id` is the personal one, or the key's."""

    http: httpx.AsyncClient
    id: str
    name: str
    token: str
    organization_id: str
    email: str = ""

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers that say who asks."""
        return {"Authorization": f"Bearer {self.token}"}

    async def ask(self, method: str, path: str, json: Any = None, **headers: str) -> httpx.Response:
        """Send a request with this token; `headers` are further ones."""
        return await self.http.request(method, path, json=json, headers=self.headers | headers)


async def user(client: httpx.AsyncClient, name: str = "Ann", email: str | None = None) -> Actor:
    """Sign up somebody, and sign them in. Their e-mail is made from the name unless it is given."""
    db = application(client).state.db
    address = email or f"{name.lower()}@example.org"
    async with db.transaction() as tx:
        made = await accounts.sign_up(tx, name=name, email=address, password_hash="none")
        token, _ = await accounts.sign_in(tx, Credentials(made.id, "none"), days=1)
    home = (await accounts.identify(db, token)).home
    return Actor(client, str(made.id), name, token, str(home), address)


async def organization(client: httpx.AsyncClient, owner: Actor, name: str = "Orchestra") -> str:
    """Found an organization and return its id."""
    made = await client.post("/organizations", json={"name": name}, headers=owner.headers)
    return str(_created(made)["id"])


async def member(
    client: httpx.AsyncClient,
    owner: Actor,
    role: str,
    organization_id: str | None = None,
    name: str | None = None,
) -> Actor:
    """Sign up somebody with this role in the owner's organization, the personal one unless another is named."""
    new = await user(client, name or f"{role.title()}{next(_numbers)}")
    path = f"/organizations/{organization_id or owner.organization_id}/members"
    _created(await client.post(path, json={"email": new.email, "role": role}, headers=owner.headers))
    return new


async def api_key(
    client: httpx.AsyncClient,
    owner: Actor,
    *scopes: str,
    organization_id: str | None = None,
    name: str = "Shop",
) -> Actor:
    """Make an API key of the owner's organization; without scopes named it has all that a key can have."""
    home = organization_id or owner.organization_id
    body = {"name": name, "scopes": list(scopes) or sorted(KEY_SCOPES)}
    made = _created(await client.post(f"/organizations/{home}/api-keys", json=body, headers=owner.headers))
    return Actor(client, made["id"], name, made["key"], home)


async def event(
    client: httpx.AsyncClient, owner: Actor, capacity: int = 10, status: str = "published", **fields: Any
) -> dict[str, Any]:
    """Make an event, on sale unless `status` says otherwise, and return it."""
    body = {"title": "Jazz", "capacity": capacity, "status": status, **fields}
    return _created(await client.post("/events", json=body, headers=owner.headers))


async def ticket_type(
    client: httpx.AsyncClient, owner: Actor, event_id: str, name: str = "Balcony"
) -> dict[str, Any]:
    """Add a ticket type to an event and return it."""
    path = f"/events/{event_id}/ticket-types"
    return _created(await client.post(path, json={"name": name}, headers=owner.headers))


async def registration(
    client: httpx.AsyncClient,
    event: Mapping[str, Any],
    name: str | None = "Ann",
    *,
    actor: Actor | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """Register somebody called so for an event and return the registration, its secret included.

    Nobody is signed in unless `actor` is; `name=None` leaves name and e-mail to the signed-in user's own.
    """
    person = {} if name is None else {"name": name, "email": f"{name.lower()}@example.org"}
    body = {"event_id": event["id"], **person, **fields}
    return _created(await client.post("/registrations", json=body, headers=actor.headers if actor else {}))


def application(client: httpx.AsyncClient) -> FastAPI:
    """Return the application that a client of the fixtures speaks to."""
    transport = client._transport
    assert isinstance(transport, httpx.ASGITransport), (
        "the builders work beside the application, not over a network"
    )
    app: Any = transport.app
    return app  # type: ignore[no-any-return]


def _created(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made
