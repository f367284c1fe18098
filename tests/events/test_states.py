"""From draft to its end: publication, pause, cancellation, and the clock."""

from __future__ import annotations

import asyncio
from contextvars import Context
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest

from rowlock.allocation import service as allocation
from rowlock.events import service
from rowlock.events.model import Status
from rowlock.kernel.errors import InvalidState, NotFound
from tests import make

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import httpx

    from rowlock.events.model import EventFacts
    from rowlock.kernel.database import Database
    from tests.make import Actor


async def cancel(db: Database, event_id: str) -> bool:
    async with db.transaction() as tx:
        return await service.mark_cancelled(tx, UUID(event_id))


async def facts(db: Database, *event_ids: str) -> dict[UUID, EventFacts]:
    async with db.connection() as connection:
        return await service.facts(connection, [UUID(event_id) for event_id in event_ids])


async def move(person: Actor, event_id: str, to: str) -> httpx.Response:
    return await person.ask("POST", f"/events/{event_id}/{to}")


async def test_an_event_is_published_paused_and_published_again(ann: Actor) -> None:
    event = await make.event(ann.http, ann, status="draft")
    for to, status in [("publication", "published"), ("pause", "paused"), ("publication", "published")]:
        answer = await move(ann, event["id"], to)
        assert (answer.status_code, answer.json()["status"]) == (200, status)
        again = await move(ann, event["id"], to)
        assert (again.status_code, again.json()) == (200, answer.json())
        assert (await ann.ask("GET", f"/events/{event['id']}")).json() == answer.json()


async def test_a_draft_cannot_be_paused(ann: Actor) -> None:
    event = await make.event(ann.http, ann, status="draft")
    answer = await move(ann, event["id"], "pause")
    assert (answer.status_code, answer.json()["code"]) == (409, "invalid_state")
    assert (await ann.ask("GET", f"/events/{event['id']}")).json() == event


async def test_what_is_over_stays_over(
    ann: Actor, db: Database, end: Callable[[str], Awaitable[None]]
) -> None:
    ended, cancelled = await make.event(ann.http, ann), await make.event(ann.http, ann)
    await end(ended["id"])
    await cancel(db, cancelled["id"])
    for event, status in [(ended, "ended"), (cancelled, "cancelled")]:
        for to in ("publication", "pause"):
            answer = await move(ann, event["id"], to)
            assert (answer.status_code, answer.json()["code"]) == (409, "invalid_state")
            assert answer.json()["event_status"] == status
        assert (await ann.ask("DELETE", f"/events/{event['id']}")).status_code == 409
        assert (await ann.ask("GET", f"/events/{event['id']}")).json()["status"] == status


async def test_a_later_end_brings_an_event_back(ann: Actor, end: Callable[[str], Awaitable[None]]) -> None:
    event = await make.event(ann.http, ann)
    await end(event["id"])
    answer = await ann.ask("PATCH", f"/events/{event['id']}", {"ends_at": "2999-01-01T00:00:00Z"})
    assert answer.json()["status"] == "published"


async def test_a_draft_whose_time_is_over_remains_a_draft(
    ann: Actor, end: Callable[[str], Awaitable[None]]
) -> None:
    draft = await make.event(ann.http, ann, status="draft")
    await end(draft["id"])
    assert (await ann.ask("GET", f"/events/{draft['id']}")).json()["status"] == "draft"
    assert (await move(ann, draft["id"], "publication")).json()["code"] == "invalid_state"


async def test_a_pause_waits_for_the_sale_in_hand(ann: Actor, db: Database) -> None:
    event = await make.event(ann.http, ann)
    async with db.transaction() as tx:
        await allocation.lock(tx, [UUID(event["id"])])
        # A context of its own: the request is no part of this transaction.
        pause = asyncio.create_task(move(ann, event["id"], "pause"), context=Context())
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        while await tx.fetch_value(waiting) == 0:
            assert not pause.done()
        assert (await service.facts(tx, [UUID(event["id"])]))[UUID(event["id"])].on_sale
    assert (await pause).json()["status"] == "paused"


async def test_a_draft_is_either_published_or_deleted(ann: Actor, db: Database) -> None:
    for _ in range(5):
        draft = await make.event(ann.http, ann, status="draft")
        deleted, published = await asyncio.gather(
            ann.ask("DELETE", f"/events/{draft['id']}"), move(ann, draft["id"], "publication")
        )
        assert (deleted.status_code, published.status_code) in {(204, 404), (409, 200)}
        async with db.connection() as connection:
            pools = (await allocation.pools(connection, [UUID(draft["id"])]))[UUID(draft["id"])]
        assert len(pools) == (published.status_code == 200)


async def test_an_event_is_cancelled_by_one_call_alone(ann: Actor, db: Database) -> None:
    event = await make.event(ann.http, ann)
    outcomes = await asyncio.gather(*(cancel(db, event["id"]) for _ in range(5)))
    assert sorted(outcomes) == [False, False, False, False, True]
    assert (await ann.ask("GET", f"/events/{event['id']}")).json()["status"] == "cancelled"


async def test_a_paused_event_can_be_cancelled(ann: Actor, db: Database) -> None:
    event = await make.event(ann.http, ann)
    await move(ann, event["id"], "pause")
    assert await cancel(db, event["id"])


async def test_what_cannot_be_cancelled(
    ann: Actor, db: Database, end: Callable[[str], Awaitable[None]]
) -> None:
    draft, ended = await make.event(ann.http, ann, status="draft"), await make.event(ann.http, ann)
    await end(ended["id"])
    for event in (draft, ended):
        with pytest.raises(InvalidState):
            await cancel(db, event["id"])
    with pytest.raises(NotFound):
        await cancel(db, str(uuid4()))


async def test_facts_of_many_events(ann: Actor, db: Database, end: Callable[[str], Awaitable[None]]) -> None:
    published, draft, paused, ended, cancelled = [
        await make.event(ann.http, ann, status="draft" if index == 1 else "published") for index in range(5)
    ]
    await move(ann, paused["id"], "pause")
    await end(ended["id"])
    await cancel(db, cancelled["id"])
    events = [published, draft, paused, ended, cancelled]
    found = await facts(db, *(event["id"] for event in events), str(uuid4()))
    assert len(found) == 5
    assert [found[UUID(event["id"])].status for event in events] == [
        Status.PUBLISHED,
        Status.DRAFT,
        Status.PAUSED,
        Status.PUBLISHED,
        Status.CANCELLED,
    ]
    assert [found[UUID(event["id"])].on_sale for event in events] == [True, False, False, False, False]
    assert {str(event.organization_id) for event in found.values()} == {ann.organization_id}


async def test_facts_name_the_ticket_types_and_their_pools(ann: Actor, db: Database) -> None:
    event = await make.event(ann.http, ann)
    path = f"/events/{event['id']}/ticket-types"
    await ann.ask("POST", path, {"name": "Student"})
    ids = [UUID(item["id"]) for item in (await ann.ask("GET", path)).json()["items"]]
    async with db.connection() as connection:
        (pool,) = (await allocation.pools(connection, [UUID(event["id"])]))[UUID(event["id"])]
    (found,) = (await facts(db, event["id"])).values()
    assert list(found.ticket_types.items()) == [(ids[0], (pool.id,)), (ids[1], (pool.id,))]
    assert found.default_ticket_type_id == ids[0]


async def test_no_facts_of_no_events(db: Database) -> None:
    assert await facts(db) == {}
