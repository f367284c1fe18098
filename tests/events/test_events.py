"""Making, showing, changing and deleting events over HTTP."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest

from rowlock.allocation import service as allocation
from tests import make

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import httpx

    from rowlock.kernel.database import Database
    from tests.make import Actor

SOME_ID = "0199d5f0-7d1c-7aaa-8000-000000000000"
FIELDS: dict[str, Any] = {
    "title": "Jazz in the park",
    "capacity": 100,
    "starts_at": "2999-05-01T19:00:00+02:00",
    "ends_at": "2999-05-01T22:00:00+02:00",
    "time_zone": "Europe/Berlin",
    "venue": "Park",
    "description": "Bring a blanket.",
}


def without_request_id(answer: httpx.Response) -> dict[str, Any]:
    body: dict[str, Any] = answer.json()
    body.pop("request_id")
    return body


async def ledger(db: Database, event_id: str) -> list[tuple[int, str, int, int]]:
    async with db.connection() as connection:
        rows = await connection.fetch(
            "SELECT sequence, reason, total, sold FROM ledger WHERE event_id = $1 ORDER BY sequence",
            UUID(event_id),
        )
    return [tuple(row) for row in rows]


async def test_an_event_is_made_with_its_seats(ann: Actor, db: Database) -> None:
    answer = await ann.ask("POST", "/events", FIELDS)
    made = answer.json()
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/api/v1/events/{made['id']}"
    assert made == FIELDS | {
        "id": made["id"],
        "organization_id": ann.organization_id,
        "status": "draft",
        "starts_at": "2999-05-01T17:00:00Z",
        "ends_at": "2999-05-01T20:00:00Z",
        "available": 100,
        "sold": 0,
        "held": 0,
        "blocked": 0,
        "created_at": made["created_at"],
        "updated_at": made["created_at"],
    }
    assert (await ann.ask("GET", f"/events/{made['id']}")).json() == made
    assert await ledger(db, made["id"]) == [(1, "opened", 100, 0)]


async def test_an_event_needs_only_a_title_and_a_capacity(ann: Actor) -> None:
    made = (await ann.ask("POST", "/events", {"title": "  Chess  ", "capacity": 1})).json()
    assert made["title"] == "Chess"
    assert (made["time_zone"], made["venue"], made["starts_at"]) == ("UTC", "", None)


async def test_a_key_makes_events_of_its_organization(ann: Actor) -> None:
    key = await make.api_key(ann.http, ann, "events:write")
    made = (await key.ask("POST", "/events", FIELDS)).json()
    assert made["organization_id"] == ann.organization_id


async def test_an_event_is_made_once_per_idempotency_key(ann: Actor) -> None:
    first = await ann.ask("POST", "/events", FIELDS, **{"Idempotency-Key": "a"})
    again = await ann.ask("POST", "/events", FIELDS, **{"Idempotency-Key": "a"})
    assert again.headers["idempotency-replayed"] == "true"
    assert (again.content, again.headers["location"]) == (first.content, first.headers["location"])
    assert len((await ann.ask("GET", f"/events?organization_id={ann.organization_id}")).json()["items"]) == 1


async def test_who_may_not_make_events(client: httpx.AsyncClient, ann: Actor, bob: Actor) -> None:
    assert (await client.post("/events", json=FIELDS)).status_code == 401
    foreign = FIELDS | {"organization_id": bob.organization_id}
    assert (await ann.ask("POST", "/events", foreign)).status_code == 404
    unknown = FIELDS | {"organization_id": SOME_ID}
    assert without_request_id(await ann.ask("POST", "/events", unknown)) == without_request_id(
        await ann.ask("POST", "/events", foreign)
    )
    reader = await make.api_key(ann.http, ann, "events:read")
    assert (await reader.ask("POST", "/events", FIELDS)).json()["code"] == "forbidden"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("title", ""),
        ("title", " \t "),
        ("title", "x" * 201),
        ("title", "a\0b"),
        ("title", "\ud800"),
        ("title", None),
        ("title", 7),
        ("capacity", 0),
        ("capacity", -1),
        ("capacity", 1_000_001),
        ("capacity", 10**30),
        ("capacity", "10"),
        ("capacity", True),
        ("capacity", None),
        ("capacity", 1.5),
        ("starts_at", "2999-05-01T19:00:00"),
        ("starts_at", "2999-05-01"),
        ("starts_at", "soon"),
        ("starts_at", 5),
        ("starts_at", "5"),
        ("starts_at", "0001-01-01T00:00:00+14:00"),
        ("ends_at", "2999-05-01T19:00:00+02:00"),
        ("time_zone", "Europe/Atlantis"),
        ("time_zone", "../../etc/passwd"),
        ("time_zone", ""),
        ("time_zone", None),
        ("venue", "x" * 501),
        ("venue", "\0"),
        ("venue", None),
        ("description", "x" * 20_001),
        ("description", None),
        ("status", "paused"),
        ("status", "cancelled"),
        ("organization_id", "mine"),
        ("id", SOME_ID),
        ("available", 5),
        ("sold", 0),
        ("price_cents", 100),
        ("\ud800", 1),
    ],
)
async def test_a_wrong_field_is_named(ann: Actor, field: str, value: Any) -> None:
    answer = await ann.http.post(
        "/events",
        content=json.dumps(FIELDS | {field: value}),
        headers=ann.headers | {"Content-Type": "application/json"},
    )
    assert answer.status_code == 422, answer.text
    assert answer.json()["code"] == "validation_failed"
    if field.isascii():
        assert [error["pointer"] for error in answer.json()["errors"]] == [f"/{field}"]


async def test_a_naive_time_is_refused_with_what_is_missing(ann: Actor) -> None:
    answer = await ann.ask("POST", "/events", FIELDS | {"starts_at": "2999-05-01T19:00:00"})
    assert answer.json()["detail"].startswith("/starts_at: The offset from UTC is missing")


async def test_an_event_that_has_ended_is_not_published(ann: Actor) -> None:
    past: dict[str, Any] = {"title": "Past", "capacity": 1, "ends_at": "2001-01-01T00:00:00Z"}
    assert (await make.event(ann.http, ann, **past, status="draft"))["status"] == "draft"
    answer = await ann.ask("POST", "/events", past | {"status": "published"})
    assert (answer.status_code, answer.json()["code"]) == (409, "invalid_state")
    assert len((await ann.ask("GET", f"/events?organization_id={ann.organization_id}")).json()["items"]) == 1


async def test_a_foreign_draft_looks_as_if_it_did_not_exist(
    client: httpx.AsyncClient, ann: Actor, bob: Actor
) -> None:
    draft = await make.event(ann.http, ann, status="draft")
    for method, tail, body in [
        ("GET", "", None),
        ("PATCH", "", {"capacity": 5}),
        ("PATCH", "", {"title": "Mine"}),
        ("DELETE", "", None),
        ("POST", "/publication", None),
        ("POST", "/pause", None),
        ("GET", "/ticket-types", None),
        ("POST", "/ticket-types", {"name": "VIP"}),
    ]:
        foreign = await bob.ask(method, f"/events/{draft['id']}{tail}", body)
        missing = await bob.ask(method, f"/events/{uuid4()}{tail}", body)
        assert foreign.status_code == missing.status_code == 404
        assert without_request_id(foreign) == without_request_id(missing)
    assert (await client.get(f"/events/{draft['id']}")).status_code == 404
    assert (await client.get(f"/events/{draft['id']}/ticket-types")).status_code == 404
    assert (await ann.ask("GET", f"/events/{draft['id']}")).json() == draft


async def test_a_key_without_the_scope_may_not_read_its_own_drafts(ann: Actor) -> None:
    draft = await make.event(ann.http, ann, status="draft")
    key = await make.api_key(ann.http, ann, "registrations:read")
    assert (await key.ask("GET", f"/events/{draft['id']}")).json()["code"] == "forbidden"


async def test_anyone_sees_a_published_event(client: httpx.AsyncClient, ann: Actor) -> None:
    event = await make.event(ann.http, ann)
    assert (await client.get(f"/events/{event['id']}")).json() == event


async def test_who_may_not_write_an_event(client: httpx.AsyncClient, ann: Actor, bob: Actor) -> None:
    event = await make.event(ann.http, ann)
    reader = await make.api_key(ann.http, ann, "events:read")
    for method, tail, body in [
        ("PATCH", "", {"capacity": 5}),
        ("DELETE", "", None),
        ("POST", "/publication", None),
        ("POST", "/pause", None),
        ("POST", "/ticket-types", {"name": "VIP"}),
    ]:
        path = f"/events/{event['id']}{tail}"
        assert (await client.request(method, path, json=body)).status_code == 401
        assert (await bob.ask(method, path, body)).status_code == 404
        assert (await reader.ask(method, path, body)).status_code == 403


async def test_details_change_one_by_one(ann: Actor) -> None:
    event = await make.event(ann.http, ann, **FIELDS)
    changed = (await ann.ask("PATCH", f"/events/{event['id']}", {"title": " Blues ", "venue": ""})).json()
    assert changed == event | {"title": "Blues", "venue": "", "updated_at": changed["updated_at"]}
    assert changed["updated_at"] > event["updated_at"]
    assert (await ann.ask("GET", f"/events/{event['id']}")).json() == changed


async def test_times_can_be_cleared_and_nothing_else(ann: Actor) -> None:
    event = await make.event(ann.http, ann, **FIELDS)
    path = f"/events/{event['id']}"
    changed = (await ann.ask("PATCH", path, {"starts_at": None, "ends_at": None})).json()
    assert (changed["starts_at"], changed["ends_at"]) == (None, None)
    for field in ("title", "capacity", "time_zone", "venue", "description"):
        assert (await ann.ask("PATCH", path, {field: None})).status_code == 422


async def test_a_change_of_nothing_changes_nothing(ann: Actor, db: Database) -> None:
    event = await make.event(ann.http, ann)
    for same in ({}, {"title": event["title"], "capacity": event["capacity"]}):
        assert (await ann.ask("PATCH", f"/events/{event['id']}", same)).json() == event
    assert await ledger(db, event["id"]) == [(1, "opened", 10, 0)]


@pytest.mark.parametrize(
    "body",
    [
        {"status": "published"},
        {"available": 3},
        {"sold": 0},
        {"id": SOME_ID},
        {"organization_id": SOME_ID},
        {"colour": "red"},
        {"capacity": 0},
        {"capacity": 1_000_001},
        {"title": " "},
        {"time_zone": "Mars/Olympus"},
        {"ends_at": "2999-05-01T22:00:00"},
        {"ends_at": "2001-01-01T00:00:00Z"},
        {"starts_at": "2999-05-01T22:00:00+02:00"},
        [],
        "capacity",
    ],
)
async def test_a_wrong_change_is_refused_whole(ann: Actor, body: Any) -> None:
    event = await make.event(ann.http, ann, **FIELDS)
    both = {"venue": "Elsewhere", **body} if isinstance(body, dict) else body
    answer = await ann.ask("PATCH", f"/events/{event['id']}", both)
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")
    assert (await ann.ask("GET", f"/events/{event['id']}")).json() == event


async def test_the_capacity_changes_with_the_ledger(
    ann: Actor, db: Database, sell: Callable[[str, int], Awaitable[None]]
) -> None:
    event = await make.event(ann.http, ann, capacity=10)
    await sell(event["id"], 3)
    grown = (await ann.ask("PATCH", f"/events/{event['id']}", {"capacity": 12})).json()
    assert (grown["capacity"], grown["available"], grown["sold"]) == (12, 9, 3)
    full = (await ann.ask("PATCH", f"/events/{event['id']}", {"capacity": 3, "title": "Full"})).json()
    assert (full["capacity"], full["available"], full["title"]) == (3, 0, "Full")
    assert await ledger(db, event["id"]) == [
        (1, "opened", 10, 0),
        (2, "registered", 10, 3),
        (3, "resized", 12, 3),
        (4, "resized", 3, 3),
    ]


async def test_the_capacity_stays_above_what_is_taken(
    ann: Actor, db: Database, sell: Callable[[str, int], Awaitable[None]]
) -> None:
    event = await make.event(ann.http, ann, capacity=10)
    await sell(event["id"], 4)
    answer = await ann.ask("PATCH", f"/events/{event['id']}", {"capacity": 3, "title": "Smaller"})
    assert (answer.status_code, answer.json()["code"], answer.json()["committed"]) == (
        409,
        "below_committed",
        4,
    )
    left = (await ann.ask("GET", f"/events/{event['id']}")).json()
    assert (left["capacity"], left["available"], left["title"]) == (10, 6, event["title"])
    assert len(await ledger(db, event["id"])) == 2


async def test_changes_of_capacity_at_once_leave_ledger_and_pool_in_step(ann: Actor, db: Database) -> None:
    event = await make.event(ann.http, ann, capacity=10)
    path = f"/events/{event['id']}"
    wanted = [20, 30, 40, 50, 60, 70]
    answers = await asyncio.gather(*(ann.ask("PATCH", path, {"capacity": seats}) for seats in wanted))
    assert [answer.json()["capacity"] for answer in answers] == wanted
    entries = await ledger(db, event["id"])
    assert [sequence for sequence, *_ in entries] == list(range(1, 8))
    assert sorted(total for _, _, total, _ in entries) == [10, *wanted]
    async with db.connection() as connection:
        (pool,) = (await allocation.pools(connection, [UUID(event["id"])]))[UUID(event["id"])]
    assert (pool.last_sequence, pool.total) == (7, entries[-1][2])


async def test_times_changed_at_once_stay_in_order(ann: Actor) -> None:
    event = await make.event(ann.http, ann, **FIELDS)
    path = f"/events/{event['id']}"
    answers = await asyncio.gather(
        ann.ask("PATCH", path, {"starts_at": "2999-05-01T19:45:00Z"}),
        ann.ask("PATCH", path, {"ends_at": "2999-05-01T19:30:00Z"}),
    )
    assert sorted(answer.status_code for answer in answers) == [200, 422]


async def test_a_draft_is_deleted_and_its_history_stays(ann: Actor, db: Database) -> None:
    draft = await make.event(ann.http, ann, status="draft")
    answer = await ann.ask("DELETE", f"/events/{draft['id']}")
    assert (answer.status_code, answer.content) == (204, b"")
    assert (await ann.ask("GET", f"/events/{draft['id']}")).status_code == 404
    assert (await ann.ask("DELETE", f"/events/{draft['id']}")).status_code == 404
    assert await ledger(db, draft["id"]) == [(1, "opened", 10, 0), (2, "deleted", 0, 0)]
    async with db.connection() as connection:
        for table in ("capacity_pool", "ticket_type", "ticket_type_pool"):
            assert await connection.fetch_value(f"SELECT count(*) FROM {table}") == 0


async def test_what_was_published_is_not_deleted(ann: Actor, db: Database) -> None:
    event = await make.event(ann.http, ann)
    answer = await ann.ask("DELETE", f"/events/{event['id']}")
    assert (answer.status_code, answer.json()["code"]) == (409, "invalid_state")
    assert "cancel the event instead" in answer.json()["detail"]
    assert answer.json()["event_status"] == "published"
    assert (await ann.ask("GET", f"/events/{event['id']}")).json() == event
    assert len(await ledger(db, event["id"])) == 1


async def test_an_id_that_is_none_is_refused(ann: Actor) -> None:
    answer = await ann.ask("GET", "/events/jazz")
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")
