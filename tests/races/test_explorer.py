"""Every pair of operations in every order of their statements is as if one had come after the other."""

from __future__ import annotations

import os
from itertools import combinations_with_replacement
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from tests.races import account_operations, wrong_orders
from tests.races.account_operations import Houses
from tests.races.explorer import Case
from tests.races.operations import ELSEWHERE, OPERATIONS, WITH_THE_KEY, beginnings
from tests.races.stages import Stages
from tests.races.wrong_orders import Halls, asked_by
from tests.recount import what_does_not_hold

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from uuid import UUID

    from rowlock.accounts.model import Caller
    from rowlock.events.model import Status
    from rowlock.kernel.database import Database
    from tests.races.explorer import Explorer, Report
    from tests.races.operations import Operation
    from tests.races.stages import Stage
    from tests.races.wrong_orders import Register

    Note = Callable[[str, object], None]
    Pair = tuple[Operation, Operation]
    Control = tuple[Register, str, int]

# EVERY_ORDER=1 makes it ten times as long: also the orders that differ by what nobody can notice.
REDUCED = "EVERY_ORDER" not in os.environ
PAIRS = [
    *combinations_with_replacement(OPERATIONS, 2),
    *((ELSEWHERE, operation) for operation in (*WITH_THE_KEY, ELSEWHERE)),
]
ACCOUNT_PAIRS = list(combinations_with_replacement(account_operations.OPERATIONS, 2))
SOME_PAIRS = [
    ("register Ann", "resize down"),
    ("register Bob", "publish"),
    ("edit the title", "add a ticket type"),
]
WRONG = [
    (wrong_orders.check_then_lock, "Bob", 1),
    (wrong_orders.check_then_lock, "Ann", 2),
    (wrong_orders.look_for_the_person_then_lock, "Ann", 2),
    (wrong_orders.count_then_lock, "Bob", 1),
    (wrong_orders.all_in_one_statement, "Bob", 1),
    (wrong_orders.all_in_one_statement, "Ann", 2),
    (wrong_orders.lock_in_a_snapshot, "Bob", 1),
    (wrong_orders.lock_in_a_snapshot, "Ann", 2),
]


@pytest_asyncio.fixture(loop_scope="session")
async def scratch(db: Database) -> AsyncIterator[Database]:
    async with db.transaction() as tx:
        await tx.execute(wrong_orders.CREATE)
    yield db
    async with db.transaction() as tx:
        await tx.execute(wrong_orders.DROP)


def _name(pair: Pair) -> str:
    return " | ".join(operation.name for operation in pair)


@pytest.mark.parametrize("pair", PAIRS, ids=_name)
async def test_two_operations_on_an_event_are_as_if_one_came_after_the_other(
    explorer: Explorer, db: Database, owner: Caller, pair: Pair, record_property: Note
) -> None:
    for status in beginnings(*pair):
        report = await explorer.explore(_case(db, owner, status, pair), reduced=REDUCED)
        _hold(report, record_property)
    assert await what_does_not_hold(db) == []


@pytest.mark.parametrize("pair", ACCOUNT_PAIRS, ids=" | ".join)
async def test_two_operations_on_an_organization_are_as_if_one_came_after_the_other(
    explorer: Explorer, db: Database, pair: tuple[str, str], record_property: Note
) -> None:
    houses = Houses(db)
    asks = tuple(account_operations.OPERATIONS[name] for name in pair)
    case = Case(" | ".join(pair), houses.fresh, asks, houses.look)
    report = await explorer.explore(case, reduced=REDUCED)
    _hold(report, record_property)


@pytest.mark.parametrize("control", WRONG)
async def test_a_wrong_order_is_caught(
    explorer: Explorer, scratch: Database, control: Control, record_property: Note
) -> None:
    case = _control(scratch, *control)
    report = await explorer.explore(case, reduced=False)
    record_property("violating", f"{report.name}: {len(report.violating)} of {len(report.runs)}")
    assert report.violating, f"nothing was noticed: {report}"
    first = report.violating[0]
    again = await explorer.run(case, first.schedule)
    assert (again.schedule, again.result) == (first.schedule, first.result), "a schedule can be run again"


@pytest.mark.parametrize(("second", "seats"), [("Bob", 1), ("Ann", 2)])
async def test_the_right_order_is_not(
    explorer: Explorer, scratch: Database, second: str, seats: int, record_property: Note
) -> None:
    case = _control(scratch, wrong_orders.lock_then_check, second, seats)
    report = await explorer.explore(case, reduced=False)
    _hold(report, record_property)


async def test_locks_in_two_orders_are_a_deadlock(explorer: Explorer, scratch: Database) -> None:
    halls = Halls(scratch, 1)

    async def two() -> tuple[UUID, UUID]:
        return await halls.fresh(), await halls.fresh()

    async def look(_: tuple[UUID, UUID]) -> tuple[list[str], None]:
        return [], None

    def lock(first: int, second: int) -> Callable[[Database, tuple[UUID, UUID]], Awaitable[None]]:
        async def ask(db: Database, ids: tuple[UUID, UUID]) -> None:
            async with db.transaction() as tx:
                await tx.fetch(wrong_orders.LOCK, ids[first])
                await tx.fetch(wrong_orders.LOCK, ids[second])

        return ask

    sorted_locks = await explorer.explore(Case("sorted", two, (lock(0, 1), lock(0, 1)), look))
    unsorted_locks = await explorer.explore(Case("unsorted", two, (lock(0, 1), lock(1, 0)), look))
    assert sorted_locks.violating == []
    assert {tuple(run.faults) for run in unsorted_locks.violating} == {("deadlock",)}
    assert {outcome for run in unsorted_locks.violating for outcome in run.outcomes} == {None, "busy"}


@pytest.mark.parametrize("names", SOME_PAIRS, ids=" | ".join)
async def test_leaving_out_swaps_of_blind_neighbours_loses_nothing(
    explorer: Explorer, db: Database, owner: Caller, names: tuple[str, str]
) -> None:
    one, other = (next(it for it in OPERATIONS if it.name == name) for name in names)
    case = _case(db, owner, beginnings(one, other)[0], (one, other))
    less, more = await explorer.explore(case), await explorer.explore(case, reduced=False)
    assert len(less.runs) < len(more.runs)
    assert {run.result for run in less.runs} == {run.result for run in more.runs}
    assert more.violating == []


@pytest.mark.parametrize("control", WRONG)
async def test_leaving_out_swaps_catches_the_wrong_orders_too(
    explorer: Explorer, scratch: Database, control: Control
) -> None:
    case = _control(scratch, *control)
    less, more = await explorer.explore(case), await explorer.explore(case, reduced=False)
    assert {run.result for run in less.runs} == {run.result for run in more.runs}


def _case(db: Database, owner: Caller, status: Status, pair: Pair) -> Case[Stage]:
    stages = Stages(db, owner, status)
    asks = tuple(operation.ask for operation in pair)
    return Case(f"{_name(pair)} ({status})", stages.fresh, asks, stages.look)


def _control(db: Database, register: Register, second: str, seats: int) -> Case[UUID]:
    halls = Halls(db, seats)
    asks = asked_by("Ann", register), asked_by(second, register)
    return Case(f"Ann | {second}, {register.__name__}", halls.fresh, asks, halls.look)


def _hold(report: Report, record_property: Note) -> None:
    record_property("schedules", f"{report.name}: {len(report.runs)}, {report.left} not tried")
    bad = report.violating
    assert not bad, str(report)
    assert len(report.runs) >= 2, "both serial orders were run"
