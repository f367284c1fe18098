"""Ticket types over HTTP."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest

from rowlock.events import service
from rowlock.events.rules import TICKET_TYPES_MAX
from tests import make

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import httpx

    from rowlock.kernel.database import Database
    from tests.make import Actor


async def test_an_event_has_a_ticket_type_from_the_start(client: httpx.AsyncClient, ann: Actor) -> None:
    event = await make.event(ann.http, ann, capacity=7)
    page = (await client.get(f"/events/{event['id']}/ticket-types")).json()
    (first,) = page["items"]
    assert page["next_cursor"] is None
    assert first == {
        "id": first["id"],
        "event_id": event["id"],
        "name": "Admission",
        "description": "",
        "price_cents": 0,
        "available": 7,
        "created_at": first["created_at"],
    }


async def test_another_ticket_type_draws_on_the_same_seats(
    client: httpx.AsyncClient, ann: Actor, sell: Callable[[str, int], Awaitable[None]]
) -> None:
    event = await make.event(ann.http, ann, capacity=7)
    path = f"/events/{event['id']}/ticket-types"
    answer = await ann.ask("POST", path, {"name": " Student ", "description": "With a card."})
    made = answer.json()
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/api/v1{path}/{made['id']}"
    assert (made["name"], made["description"], made["available"]) == ("Student", "With a card.", 7)
    await sell(event["id"], 2)
    items = (await client.get(path)).json()["items"]
    assert [(item["name"], item["available"]) for item in items] == [("Admission", 5), ("Student", 5)]
    assert (await client.get(f"{path}/{made['id']}")).json() == items[1]


async def test_a_ticket_type_that_does_not_exist(client: httpx.AsyncClient, ann: Actor) -> None:
    event, other = await make.event(ann.http, ann), await make.event(ann.http, ann)
    (elsewhere,) = (await client.get(f"/events/{other['id']}/ticket-types")).json()["items"]
    for ticket_type_id in (uuid4(), elsewhere["id"]):
        assert (await client.get(f"/events/{event['id']}/ticket-types/{ticket_type_id}")).status_code == 404
    assert (await client.get(f"/events/{uuid4()}/ticket-types")).status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": " "},
        {"name": "a\0"},
        {"name": "x" * 201},
        {"name": "VIP", "description": "x" * 2001},
        {"name": "VIP", "price_cents": 500},
        {"name": "VIP", "price_cents": 0},
    ],
)
async def test_a_wrong_ticket_type_is_refused(ann: Actor, body: dict[str, Any]) -> None:
    event = await make.event(ann.http, ann)
    answer = await ann.ask("POST", f"/events/{event['id']}/ticket-types", body)
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")


async def test_a_cancelled_event_gets_no_more_ticket_types(ann: Actor, db: Database) -> None:
    event = await make.event(ann.http, ann)
    async with db.transaction() as tx:
        await service.mark_cancelled(tx, UUID(event["id"]))
    answer = await ann.ask("POST", f"/events/{event['id']}/ticket-types", {"name": "VIP"})
    assert (answer.status_code, answer.json()["code"]) == (409, "invalid_state")


async def test_ticket_types_have_a_limit_that_no_rush_gets_past(
    client: httpx.AsyncClient, ann: Actor
) -> None:
    event = await make.event(ann.http, ann)
    path = f"/events/{event['id']}/ticket-types"
    rush = [ann.ask("POST", path, {"name": f"Type {index}"}) for index in range(TICKET_TYPES_MAX + 3)]
    answers = await asyncio.gather(*rush)
    refused = [answer.json()["code"] for answer in answers if answer.status_code != 201]
    assert refused == ["too_many_ticket_types"] * 4
    assert len((await client.get(f"{path}?limit=100")).json()["items"]) == TICKET_TYPES_MAX


async def test_ticket_types_come_in_pages(client: httpx.AsyncClient, ann: Actor) -> None:
    event = await make.event(ann.http, ann)
    path = f"/events/{event['id']}/ticket-types"
    for name in ("B", "C"):
        await ann.ask("POST", path, {"name": name})
    first = (await client.get(f"{path}?limit=2")).json()
    rest = (await client.get(path, params={"limit": 2, "cursor": first["next_cursor"]})).json()
    assert [item["name"] for item in first["items"] + rest["items"]] == ["Admission", "B", "C"]
    assert rest["next_cursor"] is None
    assert (await client.get(f"{path}?cursor=x")).status_code == 422
