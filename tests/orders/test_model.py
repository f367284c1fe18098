"""The whole API against a model of a few lines: whatever people do, in whatever order, the numbers agree.

Hypothesis writes the stories; it prints what to do to tell one again. The application runs on an event loop and a
database of its own, which is emptied before each story.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import UUID

import pytest
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

from tests import make
from tests.recount import what_does_not_hold
from tests.theatre import Theatre, open_theatre

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import httpx

    from rowlock.kernel.postgres import Postgres
    from tests.make import Actor

PEOPLE = ("Ann", "Bob", "Cem", "Dan", "Eve")
CALLERS = st.sampled_from(["nobody", "self", "key"])
KEYS = st.sampled_from(["k1", "k2", "k3"])
BY = st.sampled_from(["secret", "organization", "key", "user"])
EVENTS_MAX = 2
TICKET_TYPES_MAX = 3
NUMBERS = st.integers(0, EVENTS_MAX - 1)
# Pauses and cancellations end the sale, after which a story has little left to tell: they are made rare.
RARELY = st.sampled_from([False, False, False, True])
STORIES = settings(
    max_examples=90,
    stateful_step_count=40,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
# What stories written at random must come upon to be worth anything, and how often at least.
MUST_BE_REACHED_OFTEN = {
    "registered",
    "sold_out",
    "already_registered",
    "not_on_sale",
    "cancelled",
    "replayed",
}
OFTEN = 5
# What must be come upon at all.
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
    def gone(self) -> list[Seat]:
        return [seat for seat in self.seats if seat.status == "cancelled"]

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
    reached: ClassVar[Counter[str]]

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
        self.reached[state] += 1

    def pick(self, number: int) -> Show:
        return self.shows[number % len(self.shows)]

    @initialize(capacity=st.integers(1, 2), registered=st.integers(0, 2), cancelled=st.integers(0, 1))
    def begin(self, capacity: int, registered: int, cancelled: int) -> None:
        async def people() -> tuple[Actor, Actor]:
            owner = await make.user(self.theatre.client, "Olga")
            return owner, await make.api_key(self.theatre.client, owner)

        self.theatre.empty()
        self.owner, self.key = self.theatre.run(people())
        self.create_event(capacity, "published")
        for person in PEOPLE[:registered]:
            self._register(self.shows[0], person, "nobody", -1, None)
        for _ in self.shows[0].taken[:cancelled]:
            self.cancel(0, "secret")

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

    @precondition(lambda self: any(show.gone for show in self.shows))
    @rule(number=st.integers(0, 99), caller=CALLERS)
    def register_again_after_a_cancellation(self, number: int, caller: str) -> None:
        gone = [(show, seat) for show in self.shows for seat in show.gone]
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

    @precondition(lambda self: any(show.taken for show in self.shows))
    @rule(number=st.integers(0, 99), by=BY)
    def cancel(self, number: int, by: str) -> None:
        seats = [(show, seat) for show in self.shows for seat in show.taken]
        self._cancel(*seats[number % len(seats)], by)

    @precondition(lambda self: any(show.gone for show in self.shows))
    @rule(number=st.integers(0, 99), by=BY)
    def cancel_again(self, number: int, by: str) -> None:
        seats = [(show, seat) for show in self.shows for seat in show.gone]
        self._cancel(*seats[number % len(seats)], by)

    def _cancel(self, show: Show, seat: Seat, by: str) -> None:
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

    @precondition(lambda self: any(show.status != "published" for show in self.shows))
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
    @rule(number=NUMBERS, really=RARELY)
    def delete_event(self, number: int, *, really: bool) -> None:
        drafts = [show for show in self.shows if show.status == "draft"]
        if not drafts and not really:
            return
        show = drafts[number % len(drafts)] if drafts else self.pick(number)
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


# A story that comes upon everything. The others are written anew in each run, and come upon what they come upon.
OVERTURE: list[Callable[[Story], None]] = [
    lambda story: story.begin(1, 0, 0),
    lambda story: story.create_event(0, "published"),
    lambda story: story.create_event(2, "draft"),
    lambda story: story.register_without_a_key(1, "Ann", -1),
    lambda story: story.delete_event(1, really=True),
    lambda story: story.delete_event(0, really=True),
    lambda story: story.sign_up("Bob"),
    lambda story: story.register_oneself(0, 0),
    lambda story: story.register_with_a_key(0, "Ann", "nobody", "k1"),
    lambda story: story.register_without_a_key(0, "Bob", -1),
    lambda story: story.resize(0, 2),
    lambda story: story.register_once_more_with_the_same_key(0),
    lambda story: story.resize(0, 1),
    lambda story: story.resize(0, 3),
    lambda story: story.register_with_a_key(0, "Cem", "key", "k2"),
    lambda story: story.register_with_a_key(0, "Dan", "key", "k2"),
    lambda story: story.add_ticket_type(0),
    lambda story: story.register_without_a_key(0, "Dan", 1),
    lambda story: story.register_once_more_with_the_same_key(1),
    lambda story: story.resize(0, 1),
    lambda story: story.cancel(0, "secret"),
    lambda story: story.cancel_again(0, "organization"),
    lambda story: story.register_again_after_a_cancellation(0, "nobody"),
    lambda story: story.pause(0, really=True),
    lambda story: story.register_without_a_key(0, "Eve", -1),
    lambda story: story.publish(0),
    lambda story: story.create_event(1, "draft"),
    lambda story: story.publish(1),
    lambda story: story.cancel_event(0, really=True),
    lambda story: story.cancel_event(0, really=True),
]


@pytest.fixture
def stage(postgres: Postgres) -> Iterator[None]:
    """Open the theatre for stories."""
    with open_theatre(postgres.url()) as theatre:
        Story.theatre, Story.reached = theatre, Counter()
        yield


def test_a_story_that_comes_upon_everything(stage: None) -> None:  # noqa: ARG001 - opened for it
    story = Story()
    for happen in OVERTURE:
        happen(story)
        story.the_numbers_agree()
    story.teardown()
    assert MUST_BE_REACHED - set(Story.reached) == set()


def test_whatever_people_do_the_numbers_agree(stage: None) -> None:  # noqa: ARG001 - opened for it
    run_state_machine_as_test(Story, settings=STORIES)
    print(Story.reached)  # noqa: T201 - shown when the next line fails
    assert {name for name, times in Story.reached.items() if times >= OFTEN} >= MUST_BE_REACHED_OFTEN
