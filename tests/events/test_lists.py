"""Finding events: pages, filters, search."""

from __future__ import annotations

import asyncio
from contextvars import Context
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest

from rowlock.accounts.model import ANONYMOUS
from rowlock.events import service
from rowlock.events.model import Listing
from rowlock.kernel.paging import encode_cursor
from tests import make

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import httpx

    from rowlock.kernel.database import Database
    from tests.make import Actor

SOME_ID = "0199d5f0-7d1c-7aaa-8000-000000000000"


async def titles(asker: Actor | httpx.AsyncClient, **query: Any) -> list[str]:
    http = asker.http if hasattr(asker, "http") else asker
    headers = asker.headers if hasattr(asker, "http") else {}
    answer = await http.get("/events", params=query, headers=headers)
    assert answer.status_code == 200, answer.text
    return [item["title"] for item in answer.json()["items"]]


async def walk(client: httpx.AsyncClient, **query: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await client.get("/events", params={**query, **cursor})).json()
        found += page["items"]
        if page["next_cursor"] is None:
            return found
        cursor = {"cursor": page["next_cursor"]}


async def test_events_come_by_their_start(client: httpx.AsyncClient, ann: Actor) -> None:
    await make.event(ann.http, ann, title="some day")
    await make.event(ann.http, ann, title="second", starts_at="2999-01-02T00:00:00Z")
    await make.event(ann.http, ann, title="first", starts_at="2999-01-01T00:00:00Z")
    await make.event(ann.http, ann, title="another day")
    assert await titles(client) == ["first", "second", "some day", "another day"]


async def test_the_list_shows_what_an_event_shows(
    client: httpx.AsyncClient, ann: Actor, sell: Callable[[str, int], Awaitable[None]]
) -> None:
    event = await make.event(ann.http, ann)
    await sell(event["id"], 4)
    page = (await client.get("/events")).json()
    assert page == {"items": [(await client.get(f"/events/{event['id']}")).json()], "next_cursor": None}
    assert (page["items"][0]["sold"], page["items"][0]["available"]) == (4, 6)


async def test_only_published_events_that_have_not_ended_are_listed(
    client: httpx.AsyncClient, ann: Actor, bob: Actor, end: Callable[[str], Awaitable[None]]
) -> None:
    await make.event(ann.http, ann, title="draft", status="draft")
    await make.event(ann.http, ann, title="published", starts_at="2020-01-01T00:00:00Z")
    await ann.ask("POST", f"/events/{(await make.event(ann.http, ann, title='paused'))['id']}/pause")
    await end((await make.event(ann.http, ann, title="ended"))["id"])
    home = ann.organization_id
    assert await titles(client) == ["published"]
    assert await titles(bob, organization_id=home) == ["published"]
    assert await titles(ann) == ["published"]
    assert await titles(client, status="ended") == ["ended"]
    assert await titles(client, starts_from="2000-01-01T00:00:00Z") == ["published", "ended"]
    assert await titles(client, status="draft") == await titles(client, status="paused") == []
    assert await titles(ann, organization_id=home) == ["published", "draft", "paused", "ended"]
    for status in ("draft", "published", "paused", "ended"):
        assert await titles(ann, organization_id=home, status=status) == [status]
    assert await titles(ann, organization_id=bob.organization_id) == []
    assert await titles(ann, organization_id=uuid4()) == []


async def test_a_key_lists_its_organization_if_it_may_read(ann: Actor) -> None:
    await make.event(ann.http, ann, title="draft", status="draft")
    home = ann.organization_id
    assert await titles(await make.api_key(ann.http, ann, "events:read"), organization_id=home) == ["draft"]
    assert await titles(await make.api_key(ann.http, ann, "registrations:read"), organization_id=home) == []


async def test_a_span_of_time(client: httpx.AsyncClient, ann: Actor) -> None:
    for day in (1, 2, 3):
        await make.event(ann.http, ann, title=f"day {day}", starts_at=f"2999-01-0{day}T00:00:00Z")
    await make.event(ann.http, ann, title="some day")
    assert await titles(client, starts_from="2999-01-02T00:00:00Z") == ["day 2", "day 3", "some day"]
    assert await titles(client, starts_before="2999-01-03T01:00:00+01:00") == ["day 1", "day 2"]
    both = {"starts_from": "2999-01-02T00:00:00Z", "starts_before": "2999-01-03T00:00:00Z"}
    assert await titles(client, **both) == ["day 2"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("jazz", ["jazz"]),
        ("JAZ", ["jazz"]),
        ("evening jazz", ["jazz"]),
        ("jazz blanket berlin", ["jazz"]),
        ("azz", []),
        ("jazz chess", []),
        ("o'neill", ["jazz"]),
        ("'", ["jazz", "pycon"]),
        (" \t&|!():*<->\\ ", ["jazz", "pycon"]),
        ("jazz & !evening", ["jazz"]),
        ("jazz:* | chess", []),
        ("2026.1", ["pycon"]),
        ("python.org", ["pycon"]),
        ("pycon 2026.1, at python.org/about", ["pycon"]),
        ("c:\\temp\\new", ["pycon"]),
        ("münch", ["pycon"]),
        ("हिन्दी", ["pycon"]),
        ("100%", []),
    ],
)
async def test_search(client: httpx.AsyncClient, ann: Actor, text: str, found: list[str]) -> None:
    jazz = await make.event(
        ann.http, ann, title="Evening Jazz", venue="Berlin", description="O'Neill brings a blanket."
    )
    pycon = await make.event(
        ann.http,
        ann,
        title="PyCon 2026.1, at python.org/about",
        venue="München",
        description="हिन्दी c:\\temp\\new",
    )
    names = {jazz["title"]: "jazz", pycon["title"]: "pycon"}
    assert [names[title] for title in await titles(client, q=text)] == found


async def test_a_search_finds_every_title_by_itself(client: httpx.AsyncClient, ann: Actor) -> None:
    for title in (
        "a-b/c_d",
        "It's 5 o'clock!",
        "1.5e3 -7 +4",
        "<b>bold</b>",
        "me@example.org",
        "\\'\\",
        "Ωmega ½",
    ):
        await make.event(ann.http, ann, title=title)
        assert title in await titles(client, q=title)


@pytest.mark.parametrize(
    "query",
    [
        {"q": "a\0b"},
        {"q": "x" * 201},
        {"starts_from": "2999-01-01T00:00:00"},
        {"starts_from": "2999-01-01"},
        {"starts_before": "0001-01-01T00:00:00+14:00"},
        {"starts_before": "5"},
        {"organization_id": "mine"},
        {"status": "deleted"},
        {"limit": "0"},
        {"limit": "101"},
        {"limit": "many"},
        {"cursor": "nonsense"},
        {"cursor": "é"},
        {"cursor": encode_cursor("2999-01-01T00:00:00", SOME_ID)},
        {"cursor": encode_cursor("0001-01-01T00:00:00+14:00", SOME_ID)},
        {"cursor": encode_cursor(SOME_ID)},
        {"cursor": encode_cursor(None, "7")},
        {"cursor": encode_cursor(None, None)},
    ],
)
async def test_a_wrong_query_is_refused(client: httpx.AsyncClient, query: dict[str, str]) -> None:
    answer = await client.get("/events", params=query)
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")
    assert [error["pointer"] for error in answer.json()["errors"]] == [f"?{name}" for name in query]


async def test_pages_show_every_event_once_while_others_arrive(client: httpx.AsyncClient, ann: Actor) -> None:
    there = set()
    for index in range(24):
        start = None if index % 4 == 0 else f"2999-01-0{index % 3 + 1}T00:00:00Z"
        there.add((await make.event(ann.http, ann, title=f"event {index}", starts_at=start))["id"])

    async def add() -> None:
        for index in range(24):
            await make.event(
                ann.http, ann, title=f"late {index}", starts_at=f"2999-01-0{index % 3 + 1}T00:00:00Z"
            )

    arriving = asyncio.create_task(add())
    found: list[str] = []
    while not arriving.done():
        found = [item["id"] for item in await walk(client, limit=5)]
        assert len(found) == len(set(found))
        assert there <= set(found)
    await arriving
    assert len(await walk(client, limit=5)) == 48


async def test_an_event_that_is_gone_does_not_stop_the_walk(ann: Actor) -> None:
    home = ann.organization_id
    events = [await make.event(ann.http, ann, title=str(index), status="draft") for index in range(4)]
    page = (await ann.ask("GET", f"/events?organization_id={home}&limit=2")).json()
    await ann.ask("DELETE", f"/events/{events[1]['id']}")
    rest = await titles(ann, organization_id=home, cursor=page["next_cursor"])
    assert rest == ["2", "3"]


async def test_the_last_page_has_no_cursor(client: httpx.AsyncClient, ann: Actor) -> None:
    await make.event(ann.http, ann)
    await make.event(ann.http, ann)
    assert (await client.get("/events?limit=2")).json()["next_cursor"] is None
    assert (await client.get("/events?limit=1")).json()["next_cursor"] is not None


async def test_the_counters_are_of_one_instant(ann: Actor, db: Database) -> None:
    """A list is read in two statements; what commits between them must not show in one of them alone."""
    event = await make.event(ann.http, ann, capacity=10)
    async with db.snapshot() as connection:
        await connection.fetch_value("SELECT 1 FROM event")
        # A context of its own: the request is no part of this snapshot.
        later = ann.ask("PATCH", f"/events/{event['id']}", {"capacity": 20, "title": "Later"})
        assert (await asyncio.create_task(later, context=Context())).status_code == 200
        (seen,) = await service.listed(connection, ANONYMOUS, Listing(), limit=5)
        assert (seen.id, seen.title, seen.capacity) == (UUID(event["id"]), event["title"], 10)
