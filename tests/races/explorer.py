"""The interleaving explorer: runs two operations on a real PostgreSQL, one statement at a time, in every order.

All that operations share is in the database, so the order of their statements is all that chance decides: whoever has
tried every order has no luck left to hope for. The operations are the program's own, on a stand-in for the driver's
pool that stops before each statement until the explorer lets it go. A statement that waits for the other operation's
lock is seen by pg_blocking_pids. Whatever happened must equal one of the two serial orders, in outcomes and in state.

A schedule reads AABAB…: whose statement came when. BEGIN comes along with the statement after it; COMMIT is a step of
its own. Two neighbours that cannot notice each other are run in one order only, since swapping them changes nothing
(these are the sleep sets of Godefroid, Partial-Order Methods, 1996); `reduced=False` runs the swapped ones too.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from rowlock.kernel.database import Database
from rowlock.kernel.errors import Problem
from tests.races.stepping import Schema, SteppingPool

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable

State = TypeVar("State")
SCHEDULES_MAX = 1000
BLOCKED_AFTER_SECONDS = 0.001
SEED = 20260

_BLOCKED = "SELECT $1::int = ANY(pg_blocking_pids($2::int))"


@dataclass(frozen=True)
class Case(Generic[State]):
    """Two operations, the state they start from, and what is looked at after them.

    `fresh` makes a new state, each time equal but for its ids. An operation returns what its caller would be told, ids
    left out. `look` returns what is wrong with the state in itself, and the state, ids left out.
    """

    name: str
    fresh: Callable[[], Awaitable[State]]
    operations: tuple[Callable[[Database, State], Awaitable[Hashable]], ...]
    look: Callable[[State], Awaitable[tuple[list[str], Hashable]]]


@dataclass
class Run:
    """What became of one schedule."""

    schedule: str = ""
    outcomes: tuple[Hashable, ...] = ()
    state: Hashable = None
    faults: list[str] = field(default_factory=list)
    statements: list[str] = field(default_factory=list)
    branches: list[tuple[str, str]] = field(default_factory=list)
    redundant: bool = False

    @property
    def result(self) -> Hashable:
        """What a serial order must be able to give, too."""
        return self.outcomes, self.state


@dataclass
class Report:
    """What became of all schedules of a case."""

    name: str
    runs: list[Run]
    serial: list[Run]
    left: int
    redundant: int

    @property
    def violating(self) -> list[Run]:
        """The schedules after which something is wrong, or is as no serial order would have left it."""
        possible = {run.result for run in self.serial}
        return [run for run in self.runs if run.faults or run.result not in possible]

    def __str__(self) -> str:
        """Tell how many there were and show the first bad one."""
        bad = self.violating
        lines = [f"{self.name}: {len(bad)} of {len(self.runs)} schedules violate ({self.left} not tried)"]
        if bad:
            worst = min(bad, key=lambda run: len(run.schedule))
            lines += [f"  {worst.schedule}", f"    faults {worst.faults}", f"    gave {worst.result}"]
            lines += [f"    serial {run.schedule} gives {run.result}" for run in self.serial]
            lines += [f"    {statement}" for statement in worst.statements]
        return "\n".join(lines)


class Explorer:
    """Two connections to step on, and one to see who waits for whom."""

    def __init__(self, raw_a: Any, raw_b: Any, monitor: Any) -> None:
        """Take three of the driver's connections, for this alone."""
        self._raws = (raw_a, raw_b)
        self._monitor = monitor
        self._schema = Schema({})

    async def explore(
        self, case: Case[State], *, most: int = SCHEDULES_MAX, reduced: bool = True, seed: int = SEED
    ) -> Report:
        """Run every schedule of a case, or `most` of them drawn by `seed`, and both serial orders."""
        self._schema = await Schema.of(self._monitor)
        draw = random.Random(seed)  # noqa: S311 - must be repeatable
        serial = [await self.run(case), await self.run(case, "B" * SCHEDULES_MAX)]
        runs = {run.schedule: run for run in serial}
        todo, redundant = list(serial[0].branches), 0
        while todo and len(runs) < most:
            prefix, asleep = todo.pop(draw.randrange(len(todo)))
            run = await self.run(case, prefix, asleep if reduced else "")
            todo += run.branches
            redundant += run.redundant
            if not run.redundant:
                runs[run.schedule] = run
        return Report(case.name, list(runs.values()), serial, len(todo), redundant)

    async def run(self, case: Case[State], prefix: str = "", asleep: str = "") -> Run:
        """Follow a schedule as far as it goes, then let A go first wherever both can.

        A letter whose turn cannot come (it waits, or has ended) gives it to the other one. `asleep` need not
        go first after the prefix: another schedule shows what happens then.
        """
        state = await case.fresh()
        sides = [
            SteppingPool(raw, letter, self._schema) for raw, letter in zip(self._raws, "AB", strict=True)
        ]
        run = Run()
        try:
            for side, operation in zip(sides, case.operations, strict=True):
                side.start(operation(Database(cast("Any", side)), state))
            await self._go(sides, run, prefix, asleep)
            run.outcomes = tuple([_told(side.task, run.faults) for side in sides])
        finally:
            await _end(sides)
        wrong, run.state = await case.look(state)
        run.faults += wrong
        return run

    async def _go(self, sides: list[SteppingPool], run: Run, prefix: str, asleep: str) -> None:
        await self._settle(sides, run)
        while ready := [side for side in sides if side.ready]:
            wanted = prefix[len(run.schedule) : len(run.schedule) + 1]
            awake = [side for side in ready if wanted or side.letter != asleep]
            if not awake:
                run.redundant = True
                return
            if len(awake) > 1 and not wanted:
                first, second = awake
                sleeper = first.letter if first.is_blind_to(second) else ""
                run.branches.append((run.schedule + second.letter, sleeper))
            side = next((it for it in awake if it.letter == wanted), awake[0])
            sleeping = [it for it in ready if it.letter == asleep and it is not side and it.is_blind_to(side)]
            if not wanted and not sleeping:
                asleep = ""
            ended = side.ends
            run.schedule += side.letter
            run.statements.append(f"{side.letter}  {' '.join(side.step().split())[:100]}")
            if ended:
                for other in sides:
                    other.blocked = False
            await self._settle(sides, run)

    async def _settle(self, sides: list[SteppingPool], run: Run) -> None:
        """Wait until each side has stopped, has ended, or waits for the other one's lock."""
        while moving := [side for side in sides if side.running and not side.blocked]:
            arrived, _ = await asyncio.wait(
                [side.here for side in moving],
                timeout=BLOCKED_AFTER_SECONDS,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if arrived:
                continue
            for side in moving:
                (other,) = [it for it in sides if it is not side]
                # While the other moves, it may be just about to let go.
                if side.running and (other.blocked or not other.running):
                    side.blocked = await self._monitor.fetchval(_BLOCKED, other.pid, side.pid)
        if all(side.blocked for side in sides):
            run.faults.append("deadlock")
            await asyncio.wait([side.here for side in sides], return_when=asyncio.FIRST_COMPLETED)
            for side in sides:
                side.blocked = False
            await self._settle(sides, run)


def _told(task: asyncio.Future[Any] | None, faults: list[str]) -> Hashable:
    """Return what an operation told its caller: its outcome, or the code of its problem."""
    if task is None or not task.done():
        return None
    error = task.exception()
    if error is None:
        return cast("Hashable", task.result())
    if not isinstance(error, Problem):
        faults.append(f"unhandled {error!r}")
        return type(error).__name__
    return error.code


async def _end(sides: list[SteppingPool]) -> None:
    """Let a run that broke off roll back, so that the connections are clean for the next."""
    tasks = [side.task for side in sides if side.task is not None]
    for side in sides:
        if side.task is not None and not side.task.done():
            side.task.cancel()
        side.open()
    await asyncio.gather(*tasks, return_exceptions=True)
