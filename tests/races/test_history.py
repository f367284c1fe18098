"""A mixed load through two servers, and the history of it checked; and the checker itself checked, by sown faults."""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest_asyncio

from rowlock.cli.client import Answer, Call
from rowlock.kernel.postgres import running
from tests.races.history import Entry, Op, check
from tests.served import API, Site, outcome_of, registration, site

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

SEED = 20260
CLIENTS = 32
OPERATIONS = 3000
PEOPLE = 60
HOT_SEATS, SEATS = 30, 12
NOTHING_DONE = {"busy"}

History = tuple[list[Op], list[Entry]]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def two() -> AsyncIterator[Site]:
    """Run two servers over a PostgreSQL as it is in earnest."""
    with (
        tempfile.TemporaryDirectory(prefix="rl") as folder,
        running(Path(folder) / "data", settings={"shared_buffers": "32MB"}) as postgres,
    ):
        async with site(postgres.url()) as its:
            yield its


class Mix:
    """Clients that register and cancel at random, the same people for the same events, and note what they see."""

    def __init__(self, two: Site, events: list[str]) -> None:
        """Take the events, the hot one first."""
        self.ops: list[Op] = []
        self._two = two
        self._events = events
        self._made: dict[str, list[dict[str, Any]]] = {event: [] for event in events}

    async def client(self, number: int, operations: int) -> None:
        """Do so many operations, one after the other."""
        chance = random.Random(SEED + number)  # noqa: S311 - to be repeatable
        for turn in range(operations):
            event = self._events[0] if chance.random() < 0.5 else chance.choice(self._events[1:])
            made = self._made[event]
            if made and chance.random() < 0.45:
                one = chance.choice(made)
                if chance.random() < 0.7:  # else somebody will cancel it again
                    made.remove(one)
                await self._cancel(event, one, chance.choice(self._two.urls))
            elif chance.random() < 0.1:
                person, key = f"p{chance.randrange(PEOPLE)}", f"{SEED}-{number}-{turn}"
                await asyncio.gather(*(self._register(event, person, url, key) for url in self._two.urls))
            else:
                person = f"p{chance.randrange(PEOPLE)}"
                await self._register(event, person, chance.choice(self._two.urls))

    async def _register(self, event: str, person: str, url: str, key: str | None = None) -> None:
        invoked = time.perf_counter()
        answer = await self._ask(registration(event, person, key), url)
        op = Op(event, invoked, time.perf_counter(), outcome_of(answer), f"{person}@example.org")
        if op.outcome == "confirmed" and isinstance(answer, Answer):
            it = answer.json()
            op = replace(op, order=it["id"], sequence=it["sequence"])
            self._made[event].append(it)
        self.ops.append(op)

    async def _cancel(self, event: str, made: dict[str, Any], url: str) -> None:
        invoked = time.perf_counter()
        path = f"{API}/registrations/{made['id']}?secret={made['secret']}"
        answer = await self._ask(Call("DELETE", path), url)
        op = Op(
            event, invoked, time.perf_counter(), outcome_of(answer), made["attendee"]["email"], made["id"]
        )
        if op.outcome == "cancelled" and isinstance(answer, Answer):
            op = replace(op, sequence=answer.json()["sequence"])
        self.ops.append(op)

    async def _ask(self, call: Call, url: str) -> Answer | Exception:
        try:
            return await self._two.call(call, url)
        except OSError as error:
            return error


async def ledger_of(two: Site, events: list[str]) -> list[Entry]:
    rows = await two.rows(
        "SELECT l.event_id::text, l.sequence, l.reason, l.order_id::text, o.person_key, l.total, l.sold"
        " FROM ledger l LEFT JOIN orders o ON o.event_id = l.event_id AND o.id = l.order_id"
        " WHERE l.event_id = ANY($1::uuid[]) ORDER BY l.event_id, l.sequence",
        [UUID(event) for event in events],
    )
    return [Entry(*row.values()) for row in rows]


async def test_what_clients_saw_is_what_the_ledger_says(two: Site) -> None:
    events = [await two.event(HOT_SEATS), *[await two.event(SEATS) for _ in range(4)]]
    mix = Mix(two, events)
    await asyncio.gather(*(mix.client(number, OPERATIONS // CLIENTS) for number in range(CLIENTS)))
    history = mix.ops, await ledger_of(two, events)

    seen = Counter(op.outcome for op in mix.ops)
    assert set(seen) == {"confirmed", "cancelled", "sold_out", "already_registered"}
    assert min(seen.values()) >= 50, f"some outcome is too rare to have been tried: {seen}"
    assert check(*history) == []
    await two.require_clean()
    unnoticed = [name for name, sow in FAULTS.items() if not _names(check(*sow(*history)), name)]
    assert unnoticed == []


def _names(faults: list[str], name: str) -> bool:
    return any(fault.startswith(name) for fault in faults)


# Positive controls: each makes a copy of a good history in which one thing is wrong.


def _without(ops: list[Op], ledger: list[Entry]) -> History:
    """Lose an acknowledged registration without a trace: all later numbers and counters close the gap."""
    gone = _last_registered(ledger)
    event = [it for it in ledger if it.event == gone.event]
    later = {it.sequence for it in event if it.sequence > gone.sequence}
    kept = [
        replace(it, sequence=it.sequence - 1, sold=it.sold - 1) if it.sequence in later else it
        for it in event
        if it != gone
    ]
    seen = [
        replace(op, sequence=op.sequence - 1) if op.event == gone.event and op.sequence in later else op
        for op in ops
        if op.sequence is not None or op.event != gone.event
    ]
    return seen, [it for it in ledger if it.event != gone.event] + kept


def _gap(ops: list[Op], ledger: list[Entry]) -> History:
    return ops, [it for it in ledger if it.sequence != 2]


def _phantom(ops: list[Op], ledger: list[Entry]) -> History:
    """Give somebody a seat that nobody asked for, or that was refused."""
    last = _last_registered(ledger)
    refused = [replace(op, outcome="sold_out", sequence=None) if op.order == last.order else op for op in ops]
    return refused, ledger


def _swapped(ops: list[Op], ledger: list[Entry]) -> History:
    """Let two registrations change places, for clients and ledger alike: only real time tells."""
    registered = [op for op in ops if op.outcome == "confirmed" and op.event == ledger[0].event]
    first = min(registered, key=lambda op: op.sequence or 0)
    last = max(registered, key=lambda op: op.sequence or 0)
    assert first.returned < last.invoked
    places = {first.sequence: last.sequence, last.sequence: first.sequence}

    def moved(number: int | None) -> Any:
        return places.get(number, number)

    return (
        [replace(op, sequence=moved(op.sequence)) if op.event == first.event else op for op in ops],
        [replace(it, sequence=moved(it.sequence)) if it.event == first.event else it for it in ledger],
    )


def _twice(ops: list[Op], ledger: list[Entry]) -> History:
    """Give somebody who has a seat a second one."""
    last = _last_registered(ledger)
    end = max(it.sequence for it in ledger if it.event == last.event)
    return ops, [*ledger, replace(last, sequence=end + 1, order="another", sold=last.sold + 1)]


def _oversold(ops: list[Op], ledger: list[Entry]) -> History:
    """Have one seat fewer, as if the event had been resized below what was sold."""
    return ops, [replace(it, total=it.total - 1) for it in ledger]


def _miscounted(ops: list[Op], ledger: list[Entry]) -> History:
    last = _last_registered(ledger)
    return ops, [replace(it, sold=it.sold - 1) if it == last else it for it in ledger]


def _withheld(ops: list[Op], ledger: list[Entry]) -> History:
    """Tell somebody "sold out" before anybody had asked for a seat."""
    begin = min(op.invoked for op in ops)
    return [*ops, Op(ledger[0].event, begin - 2, begin - 1, "sold_out", "early@example.org")], ledger


def _last_registered(ledger: list[Entry]) -> Entry:
    """Return an entry whose registration was not cancelled after it, so that its fault stands alone."""
    last = {it.order: it for it in ledger}
    return [it for it in last.values() if it.reason == "registered"][-1]


FAULTS: dict[str, Callable[[list[Op], list[Entry]], History]] = {
    "lost": _without,
    "gap": _gap,
    "phantom": _phantom,
    "out of order": _swapped,
    "twice": _twice,
    "oversold": _oversold,
    "miscounted": _miscounted,
    "unjustified": _withheld,
}


def test_an_answer_that_got_lost_may_have_been_done_or_not() -> None:
    ledger = [Entry("e", 1, "opened", None, None, 1, 0), Entry("e", 2, "registered", "r", "ann", 1, 1)]
    asked = Op("e", 1.0, 2.0, "no_answer", "ann")
    assert check([asked], ledger) == []
    assert check([asked], ledger[:1]) == []
    assert _names(check([replace(asked, person="bob")], ledger), "phantom")


def test_of_answers_to_the_same_effect_the_first_counts() -> None:
    ledger = [
        Entry("e", 1, "opened", None, None, 1, 0),
        Entry("e", 2, "registered", "r", "ann", 1, 1),
        Entry("e", 3, "cancelled", "r", "ann", 1, 0),
        Entry("e", 4, "registered", "s", "bob", 1, 1),
    ]
    ops = [
        Op("e", 1.0, 2.0, "confirmed", "ann", "r", 2),
        Op("e", 3.0, 4.0, "cancelled", "ann", "r", 3),
        Op("e", 5.0, 6.0, "confirmed", "bob", "s", 4),
        Op("e", 7.0, 8.0, "cancelled", "ann", "r", 3),
    ]
    assert check(ops, ledger) == []
    # It was full before the cancellation, and is again since Bob asked, but not in between.
    assert (
        check([*ops, Op("e", 2.5, 2.6, "sold_out", "eve"), Op("e", 6.5, 6.6, "sold_out", "eve")], ledger)
        == []
    )
    assert _names(check([*ops, Op("e", 4.5, 4.6, "sold_out", "eve")], ledger), "unjustified")
    assert _names(check([*ops, Op("e", 4.5, 4.6, "already_registered", "ann")], ledger), "unjustified")
