"""The state that operations on an event start from, and the recount of what they leave.

The event has two seats. Zoe has one of them, so that the other is the last one. `other` is a second event like it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from msgspec import structs

from rowlock.accounts.model import ANONYMOUS
from rowlock.events import service as events
from rowlock.events.model import NewEvent, Status
from rowlock.kernel.errors import Problem
from rowlock.kernel.idempotency import Key, Reply, make_key
from rowlock.kernel.ids import new_id
from rowlock.kernel.mail import person_key
from rowlock.orders.model import Place, Registration
from rowlock.orders.placing import place_many

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from uuid import UUID

    from rowlock.accounts.model import Caller
    from rowlock.kernel.database import Database, Transaction

AT_ONCE = 25

_LOOK = """
SELECT json_build_object(
    'events', (SELECT json_agg(it) FROM
        (SELECT id AS event_id, status, title FROM event WHERE id = ANY($1::uuid[])) AS it),
    'pools', (SELECT json_agg(it) FROM
        (SELECT event_id, total, held, sold, blocked, last_sequence FROM capacity_pool
         WHERE event_id = ANY($1::uuid[])) AS it),
    'types', (SELECT json_agg(it) FROM
        (SELECT event_id, name, (SELECT count(*) FROM ticket_type_pool AS draws
            WHERE draws.event_id = kind.event_id AND draws.ticket_type_id = kind.id) AS pools
         FROM ticket_type AS kind WHERE event_id = ANY($1::uuid[]) ORDER BY id) AS it),
    'orders', (SELECT json_agg(it) FROM
        (SELECT o.event_id, o.id, o.person_key, o.buyer_name, o.status, o.sequence, t.status AS ticket
         FROM orders AS o LEFT JOIN ticket AS t ON t.event_id = o.event_id AND t.order_id = o.id
         WHERE o.event_id = ANY($1::uuid[]) ORDER BY o.sequence) AS it),
    'ledger', (SELECT json_agg(it) FROM
        (SELECT event_id, sequence, reason, order_id, total, held, sold, blocked FROM ledger
         WHERE event_id = ANY($1::uuid[]) ORDER BY sequence) AS it)
)
"""
# By how much each reason changes total and sold.
_STEPS: dict[str, Callable[[int, int], bool]] = {
    "opened": lambda total, sold: sold == 0 and total >= 0,
    "registered": lambda total, sold: (total, sold) == (0, 1),
    "cancelled": lambda total, sold: (total, sold) == (0, -1),
    "event_cancelled": lambda total, sold: (total, sold) == (0, -1),
    "resized": lambda total, sold: sold == 0 and total != 0,
    "deleted": lambda total, sold: sold == 0 and total <= 0,
}


@dataclass(frozen=True)
class Stage:
    """Two events as operations find them, and who may do everything with them."""

    event_id: UUID
    other_id: UUID
    zoe_id: UUID
    owner: Caller

    def key(self, body: str) -> Key:
        """Make the same Idempotency-Key for whatever body."""
        return make_key("anonymous", f"key of {self.event_id}", body.encode())


class Stages:
    """Gives out events that nobody has touched; they are made some at a time because that is faster."""

    def __init__(self, db: Database, owner: Caller, status: Status) -> None:
        """Take the status in which the event is found; `other` is always on sale."""
        self._db, self._owner, self._status = db, owner, status
        self._made: list[Stage] = []

    async def fresh(self) -> Stage:
        """Return the next."""
        if not self._made:
            self._made = await self._make()
        return self._made.pop()

    async def look(self, stage: Stage) -> tuple[list[str], Hashable]:
        """Recount both events; return what is wrong with them, and their state without ids."""
        both = [stage.event_id, stage.other_id]
        async with self._db.connection() as connection:
            found = json.loads(await connection.fetch_value(_LOOK, both))
        rows = [
            {
                kind: [row for row in rows or () if row["event_id"] == str(event_id)]
                for kind, rows in found.items()
            }
            for event_id in both
        ]
        return recount(rows[0]) + recount(rows[1]), (_without_ids(rows[0]), _without_ids(rows[1]))

    async def _make(self) -> list[Stage]:
        first = Status.DRAFT if self._status is Status.DRAFT else Status.PUBLISHED
        async with self._db.transaction() as tx:
            ids = [
                (await self._new(tx, first), await self._new(tx, Status.PUBLISHED)) for _ in range(AT_ONCE)
            ]
        stages = [Stage(event_id, other_id, new_id(), self._owner) for event_id, other_id in ids]
        if first is Status.DRAFT:
            return stages
        zoes = [structs.replace(place(it.event_id, "Zoe"), order_id=it.zoe_id) for it in stages]
        assert all(isinstance(outcome, Registration) for outcome in await place_many(self._db, zoes))
        async with self._db.transaction() as tx:
            # By hand: a cancelled event with registrations is what a server leaves that stops amid.
            event_ids = [event_id for event_id, _ in ids]
            await tx.execute(
                "UPDATE event SET status = $2 WHERE id = ANY($1::uuid[])", event_ids, self._status
            )
        return stages

    async def _new(self, tx: Transaction, status: Status) -> UUID:
        new = NewEvent(None, status, 2, "Concert", "", "", "UTC", None, None)
        return (await events.create(tx, self._owner, new)).id


def recount(rows: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Return what does not add up in one event's rows."""
    orders, ledger = rows["orders"], rows["ledger"]
    active = [order for order in orders if order["status"] == "confirmed"]
    last_of = {entry["order_id"]: entry["sequence"] for entry in ledger}
    steps = zip([{"total": 0, "sold": 0}, *ledger], ledger, strict=False)
    holds = {
        "the ledger has no gap": [it["sequence"] for it in ledger] == list(range(1, len(ledger) + 1)),
        "each entry does what its reason says": all(
            _STEPS[after["reason"]](after["total"] - before["total"], after["sold"] - before["sold"])
            for before, after in steps
        ),
        "nobody is registered twice": len({order["person_key"] for order in active}) == len(active),
        "tickets follow their orders": all(
            order["ticket"] == {"confirmed": "valid", "cancelled": "void"}[order["status"]]
            for order in orders
        ),
        "orders know their last entry": all(
            order["sequence"] == last_of.get(order["id"]) for order in orders
        ),
        "ticket types draw on the pool": all(it["pools"] == 1 for it in rows["types"]),
        "an event has one pool": len(rows["pools"]) == len(rows["events"]),
        "only drafts go": bool(rows["events"]) or (not orders and ledger[-1]["reason"] == "deleted"),
    }
    for pool in rows["pools"]:
        holds |= {
            "never overbooked": pool["held"] + pool["sold"] + pool["blocked"] <= pool["total"],
            "the counters are the orders": (pool["held"], pool["sold"]) == (0, len(active)),
            "the counters are the ledger's": all(
                pool[it] == ledger[-1][it] for it in ("total", "held", "sold", "blocked")
            ),
            "the pool knows its last entry": pool["last_sequence"] == ledger[-1]["sequence"],
        }
    return [f"not so: {sentence}" for sentence, is_so in holds.items() if not is_so]


def _without_ids(rows: dict[str, list[dict[str, Any]]]) -> Hashable:
    return tuple(
        tuple(
            tuple((name, row[name]) for name in sorted(row) if not name.endswith("id")) for row in rows[kind]
        )
        for kind in sorted(rows)
    )


def place(event_id: UUID, name: str, *, email: str | None = None, key: Key | None = None) -> Place:
    """Make the request of somebody called so."""
    address = email or f"{name.lower()}@example.org"
    return Place(event_id, name, address, person_key(address), ANONYMOUS, key=key, render=_render)


def _render(_: Place, outcome: Registration | Problem) -> Reply:
    return refuse(outcome) if isinstance(outcome, Problem) else Reply(201, outcome.name.encode())


def refuse(problem: Problem) -> Reply:
    """Answer a problem."""
    return Reply(409, problem.code.encode())
