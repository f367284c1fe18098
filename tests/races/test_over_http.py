"""Races through two server processes on one database: what people and organizers are told, and a recount after each."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
import pytest_asyncio

from rowlock.cli.client import Answer, Call, race
from rowlock.kernel.postgres import running
from tests.served import (
    CONFIRMED,
    Crowd,
    Site,
    cancellation,
    outcome_of,
    registration,
    site,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

ROUNDS = 20


@pytest.fixture(scope="module")
def durable_url() -> Iterator[str]:
    """Run a PostgreSQL as it is in earnest: the recount wants to see that it writes to disk before it says yes."""
    with (
        tempfile.TemporaryDirectory(prefix="rl") as folder,
        running(Path(folder) / "data", settings={"shared_buffers": "32MB"}) as postgres,
    ):
        yield postgres.url()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def two(durable_url: str) -> AsyncIterator[Site]:
    """Run two servers."""
    async with site(durable_url) as its:
        yield its


async def rush(two: Site, calls: list[Call]) -> list[Answer]:
    """Send all at once, spread over the servers; everybody must be answered."""
    answers = await race(two.urls, calls)
    lost = [answer for answer in answers if not isinstance(answer, Answer)]
    assert lost == []
    return [answer for answer in answers if isinstance(answer, Answer)]


def told(answers: list[Answer]) -> dict[tuple[int, str], int]:
    """Count the answers by status and what they say."""
    return dict(Counter((answer.status, outcome_of(answer)) for answer in answers))


async def ledger_of(two: Site, event_id: str) -> list[dict[str, Any]]:
    return await two.rows(
        "SELECT sequence, reason, total, sold FROM ledger WHERE event_id = $1 ORDER BY sequence",
        UUID(event_id),
    )


async def test_ten_of_fifty_get_the_ten_seats(two: Site) -> None:
    for _ in range(ROUNDS):
        event = await two.event(10)
        answers = await rush(two, [registration(event, f"p{number}") for number in range(50)])
        assert told(answers) == {(201, CONFIRMED): 10, (409, "sold_out"): 40}
        assert {it.json()["title"] for it in answers if it.status == 409} == {"Event full"}
        assert sorted(it.json()["sequence"] for it in answers if it.status == 201) == list(range(2, 12))
        assert await two.seats(event) == {"capacity": 10, "sold": 10, "available": 0}
        await two.require_clean()


async def test_a_person_who_asks_twenty_times_at_once_gets_one_seat(two: Site) -> None:
    for _ in range(ROUNDS):
        event = await two.event(10)
        calls = [registration(event, "ann" if number % 2 else "ANN") for number in range(20)]
        answers = await rush(two, calls)
        assert told(answers) == {(201, CONFIRMED): 1, (409, "already_registered"): 19}
        assert await two.seats(event) == {"capacity": 10, "sold": 1, "available": 9}
        await two.require_clean()


async def test_a_request_repeated_twenty_times_at_once_is_done_once(two: Site) -> None:
    for number in range(ROUNDS):
        event = await two.event(10)
        answers = await rush(two, [registration(event, "ann", key=f"key-{number}")] * 20)
        assert told(answers) == {(201, CONFIRMED): 20}
        assert len({answer.body for answer in answers}) == 1
        assert len({answer.headers["location"] for answer in answers}) == 1
        assert sum("idempotency-replayed" in answer.headers for answer in answers) == 19
        assert (await two.seats(event))["sold"] == 1
        await two.require_clean()


async def test_a_seat_that_is_given_back_twenty_times_at_once_comes_back_once(two: Site) -> None:
    for _ in range(ROUNDS):
        event = await two.event(10)
        (ann, _) = await rush(two, [registration(event, "ann"), registration(event, "bob")])
        answers = await rush(two, [cancellation(ann.json())] * 20)
        assert told(answers) == {(200, "cancelled"): 20}
        assert len({answer.body for answer in answers}) == 1
        assert await two.seats(event) == {"capacity": 10, "sold": 1, "available": 9}
        assert [it["reason"] for it in await ledger_of(two, event)].count("cancelled") == 1
        await two.require_clean()


async def test_seats_taken_away_during_a_rush_were_nobodys(two: Site) -> None:
    for number in range(10):
        event, fewer = await two.event(40), 3 + 4 * number
        calls = [registration(event, f"p{person}") for person in range(60)]
        # Sent somewhere among the others, so that it is decided before, amid and after them.
        place = 6 * number
        calls.insert(place, two.as_organizer("PATCH", f"/events/{event}", {"capacity": fewer}))
        answers = await rush(two, calls)
        resize = answers.pop(place)
        assert (resize.status, outcome_of(resize)) in {(200, "published"), (409, "below_committed")}
        capacity = fewer if resize.status == 200 else 40
        assert await two.seats(event) == {"capacity": capacity, "sold": capacity, "available": 0}
        assert told(answers) == {(201, CONFIRMED): capacity, (409, "sold_out"): 60 - capacity}
        ledger = await ledger_of(two, event)
        assert [it for it in ledger if it["sold"] > it["total"]] == []
        assert [it["reason"] for it in ledger].count("resized") == (resize.status == 200)
        await two.require_clean()


async def test_seats_added_to_a_sold_out_event_go_to_those_who_ask_after(two: Site) -> None:
    for _ in range(5):
        event = await two.event(5)
        async with Crowd(two, event) as crowd:
            await crowd.more("sold_out", 10)
            asked = time.perf_counter()
            answer = await two.call(two.as_organizer("PATCH", f"/events/{event}", {"capacity": 25}))
            answered = time.perf_counter()
            assert answer.status == 200
            await crowd.more(CONFIRMED, 25 - len(crowd.outcomes(CONFIRMED)))
            await crowd.whole("sold_out", 10)
        assert await two.seats(event) == {"capacity": 25, "sold": 25, "available": 0}
        assert await resized_at(two, event) == 7
        bought = sorted(crowd.outcomes(CONFIRMED), key=lambda it: int(it.made["sequence"]))
        assert all(it.returned > asked for it in bought[5:])
        # It cannot have been full again before the last who got a seat had asked for it.
        full_again = max(it.invoked for it in bought)
        assert all(it.returned > full_again for it in crowd.outcomes("sold_out") if it.invoked > answered)
        await two.require_clean()


async def resized_at(two: Site, event: str) -> int:
    (sequence,) = [it["sequence"] for it in await ledger_of(two, event) if it["reason"] == "resized"]
    return int(sequence)


async def test_nothing_is_sold_once_a_pause_is_answered(two: Site) -> None:
    event = await two.event(100_000)
    async with Crowd(two, event, clients=16) as crowd:
        published_at = time.perf_counter()
        for turn in range(20):
            await crowd.whole(CONFIRMED, 10)
            assert crowd.between(published_at, time.perf_counter()) == {CONFIRMED}
            url = two.urls[turn % 2]
            paused = await two.call(two.as_organizer("POST", f"/events/{event}/pause"), url)
            paused_at = time.perf_counter()
            sold = (await two.seats(event))["sold"]
            await crowd.whole("not_on_sale", 10)
            assert crowd.between(paused_at, time.perf_counter()) == {"not_on_sale"}
            assert (await two.seats(event))["sold"] == sold, "sold to somebody whom the pause overtook"
            published = await two.call(two.as_organizer("POST", f"/events/{event}/publication"), url)
            published_at = time.perf_counter()
            assert (paused.status, published.status) == (200, 200)
    assert {it.outcome for it in crowd.asked} == {CONFIRMED, "not_on_sale"}
    assert (await two.seats(event))["sold"] == len(crowd.outcomes(CONFIRMED))
    await two.require_clean()


async def test_a_cancelled_event_has_no_seat_left_sold(two: Site) -> None:
    for _ in range(5):
        event = await two.event(100_000)
        async with Crowd(two, event) as crowd:
            await crowd.more(CONFIRMED, 40)
            some = [it.made for it in crowd.outcomes(CONFIRMED)[:10]]
            answers = await rush(
                two,
                [two.as_organizer("POST", f"/events/{event}/cancellation")] * 2
                + [cancellation(it) for it in some],
            )
            await crowd.whole("not_on_sale", 10)
        assert {answer.status for answer in answers} == {200}
        assert {outcome_of(answer) for answer in answers} == {"cancelled"}
        assert {it.outcome for it in crowd.asked} == {CONFIRMED, "not_on_sale"}
        assert (await two.seats(event))["sold"] == 0
        orders = await two.rows("SELECT id::text, status FROM orders WHERE event_id = $1", UUID(event))
        assert {it["status"] for it in orders} == {"cancelled"}
        assert {it["id"] for it in orders} == {it.made["id"] for it in crowd.outcomes(CONFIRMED)}
        await two.require_clean()


async def test_a_locked_event_is_busy_and_never_sold_out_while_the_others_sell(durable_url: str) -> None:
    small = {"ROWLOCK_QUEUE_MAX": "5", "ROWLOCK_DEADLINE_SECONDS": "1"}
    async with site(durable_url, 1, small) as one:
        locked, free = await one.event(1000), await one.event(1000)
        calls = [registration(locked, f"p{number}", key=f"{locked}-{number}") for number in range(40)]
        async with one.db.transaction() as tx:
            await tx.fetch("SELECT id FROM capacity_pool WHERE event_id = $1 FOR UPDATE", UUID(locked))
            waiting = asyncio.create_task(rush(one, calls))
            others = [await one.call(registration(free, f"p{number}")) for number in range(10)]
            refused = await waiting
        assert {outcome_of(answer) for answer in others} == {CONFIRMED}
        assert {answer.status for answer in refused} == {503}
        assert {"busy", "outcome_unknown"} <= {outcome_of(answer) for answer in refused}
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
        # Only what was being committed when its time was up may have been done; a later request comes after it.
        assert outcome_of(await one.call(registration(locked, "late"))) == CONFIRMED
        sold = await one.rows("SELECT buyer_name FROM orders WHERE event_id = $1", UUID(locked))
        doubtful = {f"p{number}" for number, it in enumerate(refused) if outcome_of(it) == "outcome_unknown"}
        assert {it["buyer_name"] for it in sold} <= doubtful | {"late"}
        # Whoever asks again with the same key has one seat then.
        again = [await one.call(call) for call in calls]
        assert {outcome_of(answer) for answer in again} == {CONFIRMED}
        assert await one.seats(locked) == {"capacity": 1000, "sold": 41, "available": 959}
        await one.require_clean()
