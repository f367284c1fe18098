"""Who may do what: every route of the API, every kind of caller, in one table."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from tests import make

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import httpx
    from fastapi import FastAPI

    from rowlock.kernel.database import Database
    from tests.make import Actor

# The organization "club" owns the event, the registration is the attendee's, and the target of each request is fresh.
#
# attendee   a user with a registration, member of nothing      stranger   the owner of another organization
# all, read  the club's API keys: with all scopes, and with events:read alone
# gone, old, junk   a revoked API key, an expired token, a token of nobody
TABLE = """
                                             no-  at-  stran
ROUTE                                        body tend ger  owner manag finan suppo door all  read gone old  junk
POST /users                                  201  201  201  201   201   201   201   201  201  201  201  201  201
POST /tokens                                 201  201  201  201   201   201   201   201  201  201  201  201  201
DELETE /tokens/current                       401  204  204  204   204   204   204   204  403  403  401  401  401
GET /users/me                                401  200  200  200   200   200   200   200  403  403  401  401  401
GET /users/me/registrations                  401  200  200  200   200   200   200   200  403  403  401  401  401

GET /organizations                           401  200  200  200   200   200   200   200  200  200  401  401  401
POST /organizations                          401  201  201  201   201   201   201   201  403  403  401  401  401
GET /organizations/{organization_id}         401  404  404  200   200   200   200   200  200  200  401  401  401
GET /organizations/{organization_id}/members 401  404  404  200   200   200   200   200  200  403  401  401  401
POST /organizations/{organization_id}/members
                                             401  404  404  201   403   403   403   403  403  403  401  401  401
PATCH /organizations/{organization_id}/members/{user_id}
                                             401  404  404  200   403   403   403   403  403  403  401  401  401
DELETE /organizations/{organization_id}/members/{user_id}
                                             401  404  404  204   403   403   403   403  403  403  401  401  401
GET /organizations/{organization_id}/api-keys
                                             401  404  404  200   403   403   403   403  403  403  401  401  401
POST /organizations/{organization_id}/api-keys
                                             401  404  404  201   403   403   403   403  403  403  401  401  401
DELETE /organizations/{organization_id}/api-keys/{key_id}
                                             401  404  404  200   403   403   403   403  403  403  401  401  401

GET /events                                  200  200  200  200   200   200   200   200  200  200  401  401  401
POST /events                                 401  404  404  201   201   403   403   403  201  403  401  401  401
GET /events/{event_id}                       200  200  200  200   200   200   200   200  200  200  401  401  401
GET /events/{event_id}?draft                 404  404  404  200   200   200   200   200  200  200  401  401  401
PATCH /events/{event_id}                     401  404  404  200   200   403   403   403  200  403  401  401  401
DELETE /events/{event_id}?draft              401  404  404  204   204   403   403   403  204  403  401  401  401
POST /events/{event_id}/publication?draft    401  404  404  200   200   403   403   403  200  403  401  401  401
POST /events/{event_id}/pause                401  404  404  200   200   403   403   403  200  403  401  401  401
POST /events/{event_id}/cancellation         401  404  404  200   200   403   403   403  200  403  401  401  401

GET /events/{event_id}/ticket-types          200  200  200  200   200   200   200   200  200  200  401  401  401
GET /events/{event_id}/ticket-types?draft    404  404  404  200   200   200   200   200  200  200  401  401  401
POST /events/{event_id}/ticket-types         401  404  404  201   201   403   403   403  201  403  401  401  401
GET /events/{event_id}/ticket-types/{ticket_type_id}
                                             200  200  200  200   200   200   200   200  200  200  401  401  401
GET /events/{event_id}/ticket-types/{ticket_type_id}?draft
                                             404  404  404  200   200   200   200   200  200  200  401  401  401

POST /registrations                          201  201  201  201   201   201   201   201  201  403  401  401  401
POST /registrations?draft                    404  404  404  409   409   409   409   409  409  403  401  401  401
GET /events/{event_id}/registrations         401  404  404  200   200   200   200   403  200  403  401  401  401
GET /registrations/{registration_id}         404  200  404  200   200   200   200   403  200  403  401  401  401
DELETE /registrations/{registration_id}      404  200  404  200   200   403   200   403  200  403  401  401  401
"""
ACTORS = "nobody attendee stranger owner manager finance support door all read gone old junk".split()
TOKENS_OF_NOBODY = {"gone", "old", "junk"}
PREFIX = "/api/v1"
PASSWORD = "correct horse"


def read_table() -> dict[str, dict[str, int]]:
    """Return the wanted status of each route and actor; a route may stand on a line of its own."""
    rows = {}
    text = TABLE.split("\n", 3)[3]
    for route, statuses in re.findall(r"^([A-Z]+ \S+)\s+((?:\d{3}\s+)+)", text, re.MULTILINE):
        rows[route] = dict(zip(ACTORS, map(int, statuses.split()), strict=True))
    return rows


ROWS = read_table()
_numbers = count(1)


@dataclass(frozen=True)
class World:
    """Two organizations, and everybody who may ask."""

    client: httpx.AsyncClient
    club: str
    actors: dict[str, dict[str, str]]
    attendee: Actor
    owner: Actor


@dataclass(frozen=True)
class Target:
    """What a request is about: the ids in its path, and its body."""

    ids: dict[str, str]
    body: Any = None


async def build(client: httpx.AsyncClient, db: Database) -> World:
    owner, attendee, stranger = [await make.user(client, name) for name in ("Owner", "Attendee", "Stranger")]
    club = await make.organization(client, owner, "Club")
    await make.organization(client, stranger, "Rivals")
    roles = {
        role: await make.member(client, owner, role, club)
        for role in ("manager", "finance", "support", "door")
    }
    keys = {
        "all": await make.api_key(client, owner, organization_id=club),
        "read": await make.api_key(client, owner, "events:read", organization_id=club),
        "gone": await make.api_key(client, owner, organization_id=club),
    }
    await owner.ask("DELETE", f"/organizations/{club}/api-keys/{keys['gone'].id}")
    old = await make.member(client, owner, "owner", club)
    async with db.transaction() as tx:
        sql = "UPDATE access_token SET expires_at = clock_timestamp() WHERE user_id = $1"
        assert await tx.execute(sql, old.id) == 1
    people = {"attendee": attendee, "stranger": stranger, "owner": owner, **roles, **keys, "old": old}
    actors = {name: actor.headers for name, actor in people.items()}
    junk = {"Authorization": "Bearer rlt_nobody"}
    return World(client, club, {"nobody": {}, **actors, "junk": junk}, attendee, owner)


async def a_club(world: World, _status: str) -> Target:
    return Target({"organization_id": world.club})


async def an_event(world: World, status: str) -> Target:
    made = await make.event(world.client, world.owner, status=status, organization_id=world.club)
    return Target({"event_id": made["id"]})


async def a_registration(world: World, status: str) -> Target:
    event = {"id": (await an_event(world, status)).ids["event_id"]}
    made = await make.registration(world.client, event, None, actor=world.attendee)
    return Target({"registration_id": made["id"]})


async def a_ticket_type(world: World, status: str) -> Target:
    event = await an_event(world, status)
    made = await make.ticket_type(world.client, world.owner, event.ids["event_id"])
    return Target({"event_id": made["event_id"], "ticket_type_id": made["id"]})


async def a_member(world: World, _status: str) -> Target:
    member = await make.member(world.client, world.owner, "door", world.club)
    return Target({"organization_id": world.club, "user_id": member.id})


async def a_key(world: World, _status: str) -> Target:
    key = await make.api_key(world.client, world.owner, "events:read", organization_id=world.club)
    return Target({"organization_id": world.club, "key_id": key.id})


async def nothing(_world: World, _status: str) -> Target:
    return Target({})


async def a_sign_up(_world: World, _status: str) -> Target:
    return Target({}, {"name": "New", "email": f"new{next(_numbers)}@example.org", "password": PASSWORD})


async def a_sign_in(world: World, status: str) -> Target:
    new = (await a_sign_up(world, status)).body
    assert (await world.client.post("/users", json=new)).status_code == 201
    return Target({}, {"email": new["email"], "password": PASSWORD})


async def a_future_member(world: World, _status: str) -> Target:
    new = await make.user(world.client, f"New{next(_numbers)}")
    return Target({"organization_id": world.club}, {"email": new.email, "role": "door"})


async def an_order(world: World, status: str) -> Target:
    event = await an_event(world, status)
    return Target(
        {}, {"event_id": event.ids["event_id"], "name": "Ann", "email": f"ann{next(_numbers)}@example.org"}
    )


async def a_club_of_the_body(world: World, _status: str) -> Target:
    return Target({}, {"title": "Jazz", "capacity": 10, "organization_id": world.club})


# What each route is asked about, and its body; the others need none.
TARGETS: dict[str, tuple[Callable[[World, str], Awaitable[Target]], Any]] = {
    "POST /users": (a_sign_up, None),
    "POST /tokens": (a_sign_in, None),
    "POST /organizations": (nothing, {"name": "Orchestra"}),
    "POST /organizations/{organization_id}/members": (a_future_member, None),
    "PATCH /organizations/{organization_id}/members/{user_id}": (a_member, {"role": "support"}),
    "DELETE /organizations/{organization_id}/members/{user_id}": (a_member, None),
    "POST /organizations/{organization_id}/api-keys": (a_club, {"name": "Shop", "scopes": ["events:read"]}),
    "DELETE /organizations/{organization_id}/api-keys/{key_id}": (a_key, None),
    "POST /events": (a_club_of_the_body, None),
    "PATCH /events/{event_id}": (an_event, {"title": "Blues", "capacity": 11}),
    "POST /events/{event_id}/ticket-types": (an_event, {"name": "Balcony"}),
    "POST /registrations": (an_order, None),
}
BY_ID = {
    "{ticket_type_id}": a_ticket_type,
    "{event_id}": an_event,
    "{registration_id}": a_registration,
    "{organization_id}": a_club,
}


async def target_of(world: World, row: str) -> Target:
    route, _, draft = row.partition("?")
    by_id = next((build for name, build in BY_ID.items() if name in route), nothing)
    build_target, body = TARGETS.get(route, (by_id, None))
    target = await build_target(world, "draft" if draft else "published")
    return target if body is None else replace(target, body=body)


async def ask(world: World, row: str, target: Target, actor: str) -> httpx.Response:
    method, path = row.partition("?")[0].split()
    return await world.client.request(
        method, path.format(**target.ids), json=target.body, headers=world.actors[actor]
    )


def without_request_id(answer: httpx.Response) -> dict[str, Any]:
    body: dict[str, Any] = answer.json()
    body.pop("request_id")
    return body


def test_every_route_has_its_row(app: FastAPI) -> None:
    routes = {
        f"{method.upper()} {path.removeprefix(PREFIX)}"
        for path, operations in app.openapi()["paths"].items()
        for method in operations
    }
    assert {row.partition("?")[0] for row in ROWS} == routes


@pytest.mark.parametrize("row", ROWS)
async def test_who_may(client: httpx.AsyncClient, db: Database, row: str) -> None:
    world = await build(client, db)
    found = {}
    for actor in ACTORS:
        answer = await ask(world, row, await target_of(world, row), actor)
        found[actor] = answer.status_code
        if answer.status_code == 401:
            assert answer.headers["www-authenticate"] == "Bearer"
    assert found == ROWS[row]


@pytest.mark.parametrize("row", [row for row in ROWS if "{" in row or "POST /registrations?draft" in row])
async def test_what_is_somebody_elses_looks_like_what_is_missing(
    client: httpx.AsyncClient, db: Database, row: str
) -> None:
    world = await build(client, db)
    target = await target_of(world, row)
    answers = []
    if ROWS[row]["stranger"] == 404:
        answers.append(await ask(world, row, target, "stranger"))
    for name in target.ids:
        missing = replace(target, ids=target.ids | {name: str(uuid4())})
        answers += [await ask(world, row, missing, actor) for actor in ("stranger", "owner")]
    if not target.ids:
        missing = replace(target, body=target.body | {"event_id": str(uuid4())})
        answers += [await ask(world, row, missing, actor) for actor in ("stranger", "owner")]
    assert [answer.status_code for answer in answers] == [404] * len(answers)
    assert all(without_request_id(answer) == without_request_id(answers[0]) for answer in answers)


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Basic YTpi", "rlt_x", "Bearer " + "x" * 201, "Bearer a b"]
)
async def test_what_is_no_bearer_token_is_refused(client: httpx.AsyncClient, header: str) -> None:
    for path in ("/events", f"/registrations/{uuid4()}"):
        answer = await client.get(path, headers={"Authorization": header})
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")


async def test_a_token_works_however_its_scheme_is_written(client: httpx.AsyncClient) -> None:
    ann = await make.user(client, "Ann")
    for header in (f"bearer {ann.token}", f"BEARER   {ann.token} "):
        assert (await client.get("/users/me", headers={"Authorization": header})).status_code == 200


async def test_a_member_who_leaves_may_no_more(client: httpx.AsyncClient, db: Database) -> None:
    world = await build(client, db)
    manager = await make.member(client, world.owner, "manager", world.club)
    event = await make.event(client, world.owner, organization_id=world.club)
    assert (await manager.ask("PATCH", f"/events/{event['id']}", {"title": "Blues"})).status_code == 200
    await world.owner.ask("DELETE", f"/organizations/{world.club}/members/{manager.id}")
    assert (await manager.ask("PATCH", f"/events/{event['id']}", {"title": "Jazz"})).status_code == 404
