"""What the explorer sets against each other of events and registrations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rowlock.events import service as events
from rowlock.events.model import Event, Status
from rowlock.kernel.errors import Problem
from rowlock.kernel.idempotency import Reply, once
from rowlock.orders import closing
from rowlock.orders.model import Cancel, Registration, Request
from rowlock.orders.placing import place_many
from tests.races.stages import place, refuse

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable

    from rowlock.kernel.database import Database, Transaction
    from tests.races.stages import Stage

    Ask = Callable[[Database, Stage], Awaitable[Hashable]]


def _told(outcome: Registration | Problem | Reply | Event) -> Hashable:
    """Return what the caller learns, ids left out."""
    match outcome:
        case Problem():
            return outcome.code
        case Reply():
            return outcome.status, outcome.body, outcome.replayed
        case Registration():
            return outcome.name, outcome.status, outcome.sequence
        case Event():
            return outcome.title, outcome.status, outcome.capacity, outcome.sold


def _register(name: str, *, email: str | None = None, with_key: bool = False, other: bool = False) -> Ask:
    async def ask(db: Database, stage: Stage) -> Hashable:
        key = stage.key(name) if with_key else None
        event_id = stage.other_id if other else stage.event_id
        return _told(*await place_many(db, [place(event_id, name, email=email, key=key)]))

    return ask


async def _cancel_zoe(db: Database, stage: Stage) -> Hashable:
    return _told(*await place_many(db, [Cancel(stage.event_id, stage.zoe_id, "zoe")]))


async def _batch(db: Database, stage: Stage) -> Hashable:
    requests: list[Request] = [
        place(stage.other_id, "Bob"),
        Cancel(stage.event_id, stage.zoe_id, "zoe"),
        place(stage.event_id, "Ann"),
        place(stage.event_id, "Bob"),
    ]
    return tuple(_told(outcome) for outcome in await place_many(db, requests))


def _change(details: dict[str, Any], capacity: int | None) -> Ask:
    async def ask(db: Database, stage: Stage) -> Hashable:
        return _told(await events.change(db, stage.owner, stage.event_id, details, capacity))

    return ask


async def _delete(db: Database, stage: Stage) -> Hashable:
    await events.delete(db, stage.owner, stage.event_id)
    return "deleted"


async def _finish(db: Database, stage: Stage) -> Hashable:
    return await closing.finish(db, stage.event_id)


def _post(work: Callable[[Transaction, Stage], Awaitable[Hashable]], *, with_key: bool = False) -> Ask:
    """Do as a POST handler does."""

    async def ask(db: Database, stage: Stage) -> Hashable:
        async def reply(tx: Transaction) -> Reply:
            return Reply(200, repr(await work(tx, stage)).encode())

        key = stage.key(work.__name__) if with_key else None
        return _told(await once(db, key, reply, refuse))

    return ask


async def _publish(tx: Transaction, stage: Stage) -> Hashable:
    # Not what it tells of seats: of the requests of one batch, some may come before it and some after.
    return (await events.publish(tx, stage.owner, stage.event_id)).status


async def _pause(tx: Transaction, stage: Stage) -> Hashable:
    return _told(await events.pause(tx, stage.owner, stage.event_id))


async def _add_ticket_type(tx: Transaction, stage: Stage) -> Hashable:
    added = await events.add_ticket_type(tx, stage.owner, stage.event_id, "Balcony", "")
    return added.name, added.available


async def _cancel_event(db: Database, stage: Stage) -> Hashable:
    async def work(tx: Transaction, stage: Stage) -> Hashable:
        return _told(await closing.cancel_event(tx, stage.owner, stage.event_id))

    told = await _post(work)(db, stage)
    await closing.finish(db, stage.event_id, stage.owner.actor)
    return told


@dataclass(frozen=True)
class Operation:
    """One thing that somebody asks for, and the states of an event in which asking for it is worth a try."""

    name: str
    ask: Ask
    begin: tuple[Status, ...] = ()


OPERATIONS = (
    Operation("register Ann", _register("Ann")),
    Operation("register Ann by another name", _register("Anna", email="ANN@example.org")),
    Operation("register Bob", _register("Bob")),
    Operation("register Ann with a key", _register("Ann", with_key=True)),
    Operation("register Bob with Ann's key", _register("Bob", with_key=True)),
    Operation("cancel Zoe", _cancel_zoe),
    Operation("four requests in a batch", _batch),
    Operation("resize down", _change({}, 1)),
    Operation("resize up", _change({}, 3)),
    Operation("edit the title", _change({"title": "Recital"}, None)),
    Operation("edit title and seats", _change({"title": "Opera"}, 1)),
    Operation("publish", _post(_publish), (Status.DRAFT, Status.PAUSED)),
    Operation("pause", _post(_pause), (Status.PUBLISHED,)),
    Operation("cancel the event", _cancel_event),
    Operation("finish a cancellation", _finish, (Status.CANCELLED,)),
    Operation("add a ticket type", _post(_add_ticket_type)),
    Operation("add a ticket type with Ann's key", _post(_add_ticket_type, with_key=True)),
    Operation("delete the draft", _delete, (Status.DRAFT,)),
)
# What has nothing to do with this event but the key that it is asked with.
ELSEWHERE = Operation("register Cid elsewhere with Ann's key", _register("Cid", with_key=True, other=True))
WITH_THE_KEY = tuple(operation for operation in OPERATIONS if "key" in operation.name)


def beginnings(one: Operation, other: Operation) -> tuple[Status, ...]:
    """Return the states of an event in which this pair is worth a try."""
    states = dict.fromkeys((*one.begin, *other.begin)) or {Status.PUBLISHED: None}
    # A cancellation is only ever finished of what is cancelled.
    return (Status.CANCELLED,) if Status.CANCELLED in states else tuple(states)
