"""Who is registered: the pure decision against a plain model, over batches of registrations and cancellations."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowlock.accounts.model import ANONYMOUS, Caller, Permission
from rowlock.allocation.model import Pool
from rowlock.allocation.rules import Allotment
from rowlock.events.model import EventFacts, Status
from rowlock.kernel.errors import Forbidden, NotFound, Problem
from rowlock.kernel.idempotency import IdempotencyMismatch, Key, Reply, make_key
from rowlock.orders.errors import AlreadyRegistered, NotOnSale, SoldOut
from rowlock.orders.model import Cancel, Known, Place, Registration, Request
from rowlock.orders.rules import decide

NOW = datetime(2026, 11, 25, tzinfo=UTC)
ORGANIZATION = UUID(int=77)
EVENTS = [UUID(int=1), UUID(int=2)]


def pool_of(event_id: UUID, seats: int) -> Pool:
    return Pool(event_id, UUID(int=100), total=seats, held=0, sold=0, blocked=0, last_sequence=1)


def facts(event_id: UUID, *, status: Status = Status.PUBLISHED) -> EventFacts:
    types = {UUID(int=200): (UUID(int=100),)}
    return EventFacts(event_id, ORGANIZATION, status, on_sale=status is Status.PUBLISHED, ticket_types=types)


def known(*events: EventFacts) -> Known:
    return Known(NOW, {it.id: it for it in events}, active=set(), registrations={})


def render(place: Place, outcome: Registration | Problem) -> Reply:
    if isinstance(outcome, Problem):
        return Reply(409, outcome.code.encode())
    return Reply(201, str(place.order_id).encode())


def place(
    person: str = "ann@example.org",
    event_id: UUID = EVENTS[0],
    *,
    caller: Caller = ANONYMOUS,
    key: Key | None = None,
    ticket_type_id: UUID | None = None,
) -> Place:
    return Place(event_id, "Ann", person, person, caller, ticket_type_id, key, render)


people = st.integers(0, 8).map(lambda number: f"p{number}@example.org")
wishes = st.lists(
    st.tuples(st.sampled_from(["register", "cancel"]), people, st.sampled_from(EVENTS)), max_size=60
)


@given(seats=st.tuples(st.integers(0, 5), st.integers(0, 5)), asked=wishes)
def test_a_batch_is_decided_as_if_its_requests_had_come_one_by_one(
    seats: tuple[int, int], asked: list[tuple[str, str, UUID]]
) -> None:
    """Never oversold, never withheld, in order of arrival: a dictionary and a counter say what must come out."""
    facts_read = known(*(facts(event_id) for event_id in EVENTS))
    left = dict(zip(EVENTS, seats, strict=True))
    taken: set[tuple[UUID, str]] = set()
    requests: list[Request] = []
    expected: list[str] = []
    for verb, person, event_id in asked:
        if verb == "register":
            requests.append(place(person, event_id))
            if (event_id, person) in taken:
                expected.append("already_registered")
            elif left[event_id] == 0:
                expected.append("sold_out")
            else:
                expected.append("confirmed")
                taken.add((event_id, person))
                left[event_id] -= 1

    decision = decide(
        requests, Allotment(pool_of(e, n) for e, n in zip(EVENTS, seats, strict=True)), facts_read
    )

    told = [it.code if isinstance(it, Problem) else it.status for it in decision.outcomes]
    assert told == expected
    assert {(it.event_id, it.person_key) for it in decision.placed} == taken


@given(seats=st.integers(1, 4), asked=wishes)
def test_a_seat_given_back_goes_to_the_next_who_asks(seats: int, asked: list[tuple[str, str, UUID]]) -> None:
    """Cancellations and registrations mixed, each batch on top of what the ones before it left."""
    event_id = EVENTS[0]
    pool, active, registrations = (
        pool_of(event_id, seats),
        set[tuple[UUID, str]](),
        dict[UUID, Registration](),
    )
    holders: dict[str, UUID] = {}
    for verb, person, _ in asked:
        request: Request
        if verb == "cancel" and person in holders:
            request, expected = Cancel(event_id, holders.pop(person), "anonymous"), "cancelled"
        else:
            request = place(person, event_id)
            expected = (
                "already_registered"
                if person in holders
                else "sold_out"
                if len(holders) == seats
                else "confirmed"
            )
        allotment = Allotment([pool])
        read = Known(NOW, {event_id: facts(event_id)}, active, registrations)
        [outcome] = decide([request], allotment, read).outcomes
        assert (outcome.code if isinstance(outcome, Problem) else outcome.status) == expected
        if isinstance(outcome, Registration) and outcome.status == "confirmed":
            holders[person] = outcome.id
            registrations[outcome.id] = outcome
        pool = allotment.pool(event_id, pool.id)
        assert pool.sold == len(holders)


def one(request: Request, read: Known, seats: int = 5) -> Registration | Problem | Reply:
    return decide([request], Allotment([pool_of(EVENTS[0], seats)]), read).outcomes[0]


def test_a_second_cancellation_answers_the_same_and_moves_nothing() -> None:
    read = known(facts(EVENTS[0]))
    allotment = Allotment([pool_of(EVENTS[0], 1)])
    [placed] = decide([place()], allotment, read).outcomes
    assert isinstance(placed, Registration)
    read.registrations[placed.id] = placed
    cancel = Cancel(EVENTS[0], placed.id, "anonymous")

    first, second = decide([cancel, cancel], allotment, read).outcomes

    assert first == second
    assert [entry.sold for entry in allotment.entries] == [1, 0]


@pytest.mark.parametrize("status", [Status.PAUSED, Status.CANCELLED, Status.ENDED])
def test_what_is_not_on_sale_is_not_sold(status: Status) -> None:
    assert isinstance(one(place(), known(facts(EVENTS[0], status=status))), NotOnSale)


def test_a_draft_looks_missing_to_strangers_and_not_on_sale_to_its_own() -> None:
    own = Caller("user:1", permissions={ORGANIZATION: frozenset(Permission)})

    assert isinstance(one(place(), known(facts(EVENTS[0], status=Status.DRAFT))), NotFound)
    assert isinstance(one(place(caller=own), known(facts(EVENTS[0], status=Status.DRAFT))), NotOnSale)
    assert isinstance(one(place(), known()), NotFound)


def test_a_key_needs_the_scope_to_register_people() -> None:
    reader = Caller("key:1", permissions={ORGANIZATION: frozenset({Permission.EVENTS_READ})})

    assert isinstance(one(place(caller=reader), known(facts(EVENTS[0]))), Forbidden)


def test_an_unknown_ticket_type_is_not_found() -> None:
    assert isinstance(one(place(ticket_type_id=UUID(int=5)), known(facts(EVENTS[0]))), NotFound)


def test_who_is_registered_hears_that_even_when_the_event_is_full() -> None:
    first, again, other = decide(
        [place(), place(), place("bob@example.org")],
        Allotment([pool_of(EVENTS[0], 1)]),
        known(facts(EVENTS[0])),
    ).outcomes

    assert isinstance(first, Registration)
    assert isinstance(again, AlreadyRegistered)
    assert isinstance(other, SoldOut)


def test_a_key_twice_in_one_batch_acts_once() -> None:
    key, other_body = make_key("anonymous", "k", b"body"), make_key("anonymous", "k", b"another")

    first, second, third = decide(
        [place(key=key), place(key=key), place("bob@example.org", key=other_body)],
        Allotment([pool_of(EVENTS[0], 5)]),
        known(facts(EVENTS[0])),
    ).outcomes

    assert isinstance(first, Reply)
    assert isinstance(second, Reply)
    assert (first.status, first.replayed, second.replayed) == (201, False, True)
    assert second.body == first.body
    assert isinstance(third, IdempotencyMismatch)


def test_an_answer_that_is_kept_comes_back_and_a_refusal_is_an_answer() -> None:
    key = make_key("anonymous", "k", b"body")
    full = decide([place(key=key)], Allotment([pool_of(EVENTS[0], 0)]), known(facts(EVENTS[0])))
    read = known(facts(EVENTS[0]))
    read.sealed[key.hash] = key.close(full.answers[key])

    again = one(place(key=key), read)

    assert again == Reply(409, b"sold_out", replayed=True)
