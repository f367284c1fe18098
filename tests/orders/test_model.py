"""The whole API against a model of a few lines: whatever people do, in whatever order, the numbers agree.

Hypothesis writes the stories; it prints what to do to tell one again. The application runs on an event loop and a
database of its own, which is emptied before each story.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar
from uuid import UUID

import httpx
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from rowlock.app import create_app
from rowlock.kernel.database import open_database
from rowlock.kernel.migrations import migrate
from rowlock.kernel.scratch import scratch_database
from rowlock.kernel.settings import Settings
from tests import make
from tests.conftest import _EMPTY
from tests.recount import what_does_not_hold

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

    from rowlock.kernel.database import Database
    from rowlock.kernel.postgres import Postgres
    from tests.make import Actor

T = TypeVar("T")

PEOPLE = ("Ann", "Bob", "Cem", "Dan")
CALLERS = st.sampled_from(["nobody", "self", "key"])
KEYS = st.sampled_from(["k1", "k2", "k3"])
EVENTS_MAX = 2
TICKET_TYPES_MAX = 3
NUMBERS = st.integers(0, EVENTS_MAX - 1)
# Pauses and cancellations end the sale, after which a story has little left to tell: they are made rare.
RARELY = st.sampled_from([False, False, False, False, True])
STORIES = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
# What a run must have come upon to be worth anything.
MUST_BE_REACHED = {
    "registered",
    "sold_out",
    "already_registered",
    "not_on_sale",
    "draft looks missing",
    "registered by a user",
    "registered by a key",
    "registered again after a cancellation",
    "registered for a second ticket type",
    "cancelled",
    "cancelled again",
    "resized up",
    "resized down to what is taken",
    "below_committed",
    "registered after a resize of a full event",
    "published",
    "paused",
    "published again",
    "cancelled event with registrations",
    "cancelled event again",
    "deleted draft",
    "published event not deleted",
    "replayed",
    "replayed a success after sold out",
    "replayed sold out although a seat is free",
    "idempotency_mismatch",
    "a capacity of none",
}


class Theatre:
    """The application, on its own event loop, spoken to from synchronous code."""

    def __init__(self, server_url: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._stack = contextlib.AsyncExitStack()
        self.reached: Counter[str] = Counter()
        self.client, self.db = self.run(self._open(server_url))

    async def _open(self, server_url: str) -> tuple[httpx.AsyncClient, Database]:
        url = await self._stack.enter_async_context(scratch_database(server_url))
        db = await open_database(url, size=2)
        self._stack.push_async_callback(db.close)
        await migrate(db)
        app = create_app(Settings(database_url=url, sale_connections=2, other_connections=2))
        await self._stack.enter_async_context(app.router.lifespan_context(app))
        transport, base = httpx.ASGITransport(app), "http://rowlock.test/api/v1"
        return await self._stack.enter_async_context(
            httpx.AsyncClient(transport=transport, base_url=base)
        ), db

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for this."""
        return self._loop.run_until_complete(work)

    async def empty(self) -> None:
        """Forget every earlier story."""
        async with self.db.transaction() as tx:
            await tx.execute(_EMPTY)

    def close(self) -> None:
        """Drop the database."""
        self.run(self._stack.aclose())
        self._loop.close()


@dataclass
class Seat:
    """A registration as it should be."""

    id: str
    secret: str
    person: str
    owner: str | None
    ticket_type: str
    sequence: int
    status: str = "confirmed"
    shown: bytes = b""


@dataclass
class Show:
    """An event as it should be."""

    id: str
    capacity: int
    status: str
    ticket_types: list[str]
    sequence: int = 1
    seats: list[Seat] = field(default_factory=list)
    was_full_before_resize: bool = False

    @property
    def taken(self) -> list[Seat]:
        return [seat for seat in self.seats if seat.status == "confirmed"]

    @property
    def available(self) -> int:
        return self.capacity - len(self.taken)

    def next(self) -> int:
        """Count one more change of the seats."""
        self.sequence += 1
        return self.sequence


@dataclass(frozen=True)
class Told:
    """An answer that a key keeps, and the request it was given to."""

    show: Show
    body: dict[str, Any]
    caller: str
    person: str
    status: int
    content: bytes


class Story(RuleBasedStateMachine):
    """What may happen."""

    theatre: ClassVar[Theatre]

    def __init__(self) -> None:
        super().__init__()
        self.shows: list[Show] = []
        self.users: dict[str, Actor] = {}
        self.told: dict[tuple[str, str], Told] = {}
        self.numbers = count(1)

    def ask(
        self, method: str, path: str, actor: Actor | None, json: Any = None, **headers: str
    ) -> httpx.Response:
        sent = headers if actor is None else headers | actor.headers
        return self.theatre.run(self.theatre.client.request(method, path, json=json, headers=sent))

    def reach(self, state: str) -> None:
        self.theatre.reached[state] += 1

    def pick(self, number: int) -> Show:
        return self.shows[number % len(self.shows)]

    @initialize(capacity=st.integers(1, 2))
    def begin(self, capacity: int) -> None:
        async def people() -> tuple[Actor, Actor]:
            await self.theatre.empty()
            owner = await make.user(self.theatre.client, "Olga")
            return owner, await make.api_key(self.theatre.client, owner)

        self.owner, self.key = self.theatre.run(people())
        self.create_event(capacity, "published")

    @rule(name=st.sampled_from(PEOPLE))
    def sign_up(self, name: str) -> None:
        if name not in self.users:
            self.users[name] = self.theatre.run(make.user(self.theatre.client, name))

    @precondition(lambda self: len(self.shows) < EVENTS_MAX)
    @rule(capacity=st.integers(0, 3), status=st.sampled_from(["published", "draft"]))
    def create_event(self, capacity: int, status: str) -> None:
        body = {"title": "Jazz", "capacity": capacity, "status": status}
        answer = self.ask("POST", "/events", self.owner, body)
        if capacity == 0:
            assert_refused(answer, 422, "validation_failed")
            self.reach("a capacity of none")
            return
        assert answer.status_code == 201
        event_id = answer.json()["id"]
        [first] = self.ask("GET", f"/events/{event_id}/ticket-types", self.owner).json()["items"]
        self.shows.append(Show(event_id, capacity, status, [first["id"]]))

    @precondition(lambda self: self.shows)
    @rule(number=NUMBERS, person=st.sampled_from(PEOPLE), ticket_type=st.integers(-1, 2))
    def register_without_a_key(self, number: int, person: str, ticket_type: int) -> None:
        self._register(self.pick(number), person, "nobody", ticket_type, None)

    @precondition(lambda self: self.shows)
    @rule(number=NUMBERS, person=st.sampled_from(PEOPLE), caller=CALLERS, key=KEYS)
    def register_with_a_key(self, number: int, person: str, caller: str, key: str) -> None:
        self._register(self.pick(number), person, caller, -1, key)

    @precondition(lambda self: self.shows and self.users)
    @rule(number=NUMBERS, which=st.integers(0, len(PEOPLE)))
    def register_oneself(self, number: int, which: int) -> None:
        person = list(self.users)[which % len(self.users)]
        self._register(self.pick(number), person, "self", -1, None)

    @precondition(lambda self: any(seat.status == "cancelled" for show in self.shows for seat in show.seats))
    @rule(number=st.integers(0, 99), caller=CALLERS)
    def register_again_after_a_cancellation(self, number: int, caller: str) -> None:
        gone = [(show, seat) for show in self.shows for seat in show.seats if seat.status == "cancelled"]
        show, seat = gone[number % len(gone)]
        self._register(show, seat.person, caller, -1, None)

    @precondition(lambda self: self.told)
    @rule(number=st.integers(0, 99))
    def register_once_more_with_the_same_key(self, number: int) -> None:
        (_, key), told = list(self.told.items())[number % len(self.told)]
        self._send(told.show, told.body, told.caller, told.person, key)

    def _register(self, show: Show, person: str, caller: str, ticket_type: int, key: str | None) -> None:
        body: dict[str, Any] = {"event_id": show.id}
        if ticket_type >= 0:
            body["ticket_type_id"] = show.ticket_types[ticket_type % len(show.ticket_types)]
        if caller == "self" and person in self.users:
            caller = person
        else:
            caller = "key" if caller == "key" else "nobody"
            body |= {"name": person, "email": f"{person.upper()}@example.ORG"}
        self._send(show, body, caller, person, key)

    def _send(self, show: Show, body: dict[str, Any], caller: str, person: str, key: str | None) -> None:
        actor = {"nobody": None, "key": self.key}.get(caller) or self.users.get(caller)
        headers = {} if key is None else {"Idempotency-Key": key}
        answer = self.ask("POST", "/registrations", actor, body, **headers)
        told = self.told.get((caller, key or ""))
        if told is not None:
            self._see_replay(answer, told, body)
            return
        assert "idempotency-replayed" not in answer.headers
        self._see_registration(answer, show, body, caller, person)
        if key is not None and answer.status_code in {201, 409}:
            self.told[caller, key] = Told(show, body, caller, person, answer.status_code, answer.content)

    def _see_replay(self, answer: httpx.Response, told: Told, body: dict[str, Any]) -> None:
        if body != told.body:
            assert_refused(answer, 422, "idempotency_mismatch")
            self.reach("idempotency_mismatch")
            return
        assert answer.headers.get("idempotency-replayed") == "true"
        assert (answer.status_code, answer.content) == (told.status, told.content)
        self.reach("replayed")
        if told.status == 201 and told.show.available == 0:
            self.reach("replayed a success after sold out")
        if answer.json().get("code") == "sold_out" and told.show.available > 0:
            self.reach("replayed sold out although a seat is free")

    def _see_registration(
        self, answer: httpx.Response, show: Show, body: dict[str, Any], caller: str, person: str
    ) -> None:
        refusal = self._why_not(show, caller, person)
        if refusal is not None:
            assert_refused(answer, *refusal)
            self.reach(refusal[1] if refusal[1] != "not_found" else "draft looks missing")
            return
        assert answer.status_code == 201, answer.text
        made = answer.json()
        ticket_type = body.get("ticket_type_id", show.ticket_types[0])
        owner = caller if caller in PEOPLE else None
        seat = Seat(made["id"], made["secret"], person, owner, ticket_type, show.next())
        assert made["sequence"] == seat.sequence
        self.reach("registered")
        self.reach(
            "registered by a key" if caller == "key" else "registered by a user" if owner else "by nobody"
        )
        if any(other.person == person for other in show.seats):
            self.reach("registered again after a cancellation")
        if ticket_type != show.ticket_types[0]:
            self.reach("registered for a second ticket type")
        if show.was_full_before_resize:
            self.reach("registered after a resize of a full event")
        show.seats.append(seat)

    def _why_not(self, show: Show, caller: str, person: str) -> tuple[int, str] | None:
        if show not in self.shows or (show.status == "draft" and caller != "key"):
            return 404, "not_found"
        if show.status != "published":
            return 409, "not_on_sale"
        if any(seat.person == person for seat in show.taken):
            return 409, "already_registered"
        return (409, "sold_out") if show.available == 0 else None

    @precondition(lambda self: any(show.seats for show in self.shows))
    @rule(number=st.integers(0, 99), by=st.sampled_from(["secret", "organization", "key", "user"]))
    def cancel(self, number: int, by: str) -> None:
        seats = [(show, seat) for show in self.shows for seat in show.seats]
        show, seat = seats[number % len(seats)]
        actor = {"organization": self.owner, "key": self.key, "user": self.users.get(seat.owner or "")}.get(
            by
        )
        path = f"/registrations/{seat.id}" + (f"?secret={seat.secret}" if actor is None else "")
        answer = self.ask("DELETE", path, actor)
        assert answer.status_code == 200, answer.text
        if seat.status == "cancelled":
            self.reach("cancelled again")
            assert seat.shown in {b"", answer.content}
        else:
            self.reach("cancelled")
            seat.status, seat.sequence = "cancelled", show.next()
        assert (answer.json()["status"], answer.json()["sequence"]) == (seat.status, seat.sequence)
        seat.shown = answer.content

    @precondition(lambda self: self.shows)
    @rule(number=NUMBERS, capacity=st.integers(0, 4))
    def resize(self, number: int, capacity: int) -> None:
        show = self.pick(number)
        answer = self.ask("PATCH", f"/events/{show.id}", self.owner, {"capacity": capacity})
        if capacity == 0:
            assert_refused(answer, 422, "validation_failed")
        elif capacity < len(show.taken):
            assert_refused(answer, 409, "below_committed")
            assert answer.json()["committed"] == len(show.taken)
            self.reach("below_committed")
        else:
            assert answer.status_code == 200
            show.was_full_before_resize = show.available == 0 and capacity > show.capacity
            self._see_resize(show, capacity)

    def _see_resize(self, show: Show, capacity: int) -> None:
        if capacity == show.capacity:
            return
        if capacity > show.capacity:
            self.reach("resized up")
        elif capacity == len(show.taken):
            self.reach("resized down to what is taken")
        show.capacity = capacity
        show.next()

    @precondition(lambda self: self.shows)
    @rule(number=NUMBERS)
    def publish(self, number: int) -> None:
        show = self.pick(number)
        self._move(show, "publication", "published", {"draft", "paused", "published"})

    @precondition(lambda self: self.shows)
    @rule(number=NUMBERS, really=RARELY)
    def pause(self, number: int, *, really: bool) -> None:
        show = self.pick(number)
        if really:
            self._move(show, "pause", "paused", {"published", "paused"})

    def _move(self, show: Show, verb: str, status: str, before: set[str]) -> None:
        answer = self.ask("POST", f"/events/{show.id}/{verb}", self.owner)
        if show.status not in before:
            assert_refused(answer, 409, "invalid_state")
            return
        assert answer.json()["status"] == status
        self.reach("published again" if (show.status, status) == ("paused", "published") else status)
        show.status = status

    @precondition(lambda self: self.shows)
    @rule(number=NUMBERS, really=RARELY)
    def cancel_event(self, number: int, *, really: bool) -> None:
        show = self.pick(number)
        if not really and show.status != "cancelled":
            return
        answer = self.ask("POST", f"/events/{show.id}/cancellation", self.owner)
        if show.status == "draft":
            assert_refused(answer, 409, "invalid_state")
            return
        assert (answer.json()["status"], answer.json()["sold"]) == ("cancelled", 0)
        if show.status == "cancelled":
            self.reach("cancelled event again")
        elif show.taken:
            self.reach("cancelled event with registrations")
        show.status = "cancelled"
        for seat in show.taken:
            seat.status, seat.sequence = "cancelled", show.next()

    @precondition(lambda self: self.shows)
    @rule(number=NUMBERS)
    def delete_event(self, number: int) -> None:
        show = self.pick(number)
        answer = self.ask("DELETE", f"/events/{show.id}", self.owner)
        if show.status != "draft":
            assert_refused(answer, 409, "invalid_state")
            self.reach("published event not deleted")
            return
        assert answer.status_code == 204
        self.reach("deleted draft")
        self.shows.remove(show)
        assert_refused(self.ask("GET", f"/events/{show.id}", self.owner), 404, "not_found")

    @precondition(lambda self: any(len(show.ticket_types) < TICKET_TYPES_MAX for show in self.shows))
    @rule(number=NUMBERS)
    def add_ticket_type(self, number: int) -> None:
        show = self.pick(number)
        answer = self.ask(
            "POST", f"/events/{show.id}/ticket-types", self.owner, {"name": f"T{next(self.numbers)}"}
        )
        if show.status == "cancelled":
            assert_refused(answer, 409, "invalid_state")
            return
        assert answer.status_code == 201
        show.ticket_types.append(answer.json()["id"])

    @invariant()
    def the_numbers_agree(self) -> None:
        for show in self.shows:
            shown = self.ask("GET", f"/events/{show.id}", self.owner).json()
            assert [
                shown[name] for name in ("status", "capacity", "sold", "available", "held", "blocked")
            ] == [
                show.status,
                show.capacity,
                len(show.taken),
                show.available,
                0,
                0,
            ]
            types = self.ask("GET", f"/events/{show.id}/ticket-types?limit=100", self.owner).json()["items"]
            assert [(it["id"], it["available"]) for it in types] == [
                (it, show.available) for it in show.ticket_types
            ]
            listed = self.ask("GET", f"/events/{show.id}/registrations?limit=100", self.key).json()["items"]
            assert [
                (it["id"], it["attendee"]["name"], it["ticket_type_id"], it["status"], it["sequence"])
                for it in listed
            ] == [(it.id, it.person, it.ticket_type, it.status, it.sequence) for it in show.seats]

    def teardown(self) -> None:
        for name, user in self.users.items():
            mine = self.ask("GET", "/users/me/registrations?limit=100", user).json()["items"]
            owned = {seat.id: seat.status for show in self.shows for seat in show.seats if seat.owner == name}
            assert {it["id"]: it["status"] for it in mine} == owned
        assert self.theatre.run(self._last_sequences()) == {show.id: show.sequence for show in self.shows}
        assert self.theatre.run(what_does_not_hold(self.theatre.db)) == []

    async def _last_sequences(self) -> dict[str, int]:
        sql = "SELECT event_id, max(sequence) FROM ledger WHERE event_id = ANY($1::uuid[]) GROUP BY event_id"
        async with self.theatre.db.connection() as connection:
            rows = await connection.fetch(sql, [UUID(show.id) for show in self.shows])
        return {str(event_id): sequence for event_id, sequence in rows}


def assert_refused(answer: httpx.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json().get("code")) == (status, code), answer.text


@contextlib.contextmanager
def open_theatre(server_url: str) -> Iterator[Theatre]:
    theatre = Theatre(server_url)
    try:
        yield theatre
    finally:
        theatre.close()


def test_whatever_people_do_the_numbers_agree(postgres: Postgres) -> None:
    with open_theatre(postgres.url()) as theatre:
        Story.theatre = theatre
        run_state_machine_as_test(Story, settings=STORIES)
        print(sorted(theatre.reached.items(), key=lambda it: it[1]))  # noqa: T201 - shown when the next line fails
        assert MUST_BE_REACHED - set(theatre.reached) == set()
