"""A stand-in for the driver's pool that stops before each statement, and what a statement may notice of another one."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping

# Time is none of the explorer's choices, so nothing may depend on how fast it goes.
_TIMEOUTS = ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")
_PATIENT = "".join(f"; SET LOCAL {name} = 0" for name in _TIMEOUTS)
_WRITES = re.compile(r"\b(?:INSERT INTO|UPDATE|DELETE FROM)\s+(\w+)")
_LOCKS = re.compile(r"\bFOR\s+(?:NO\s+KEY\s+)?(?:UPDATE|SHARE|KEY\s+SHARE)\b")
_STRONG = re.compile(r"\bDELETE FROM\b|\bFOR\s+UPDATE\b")
_WORD = re.compile(r"\w+")
_ADVISORY = re.compile(r"\bpg_(?:try_)?advisory\w+")
_SCHEMA = """
SELECT relname, ARRAY(SELECT confrelid::regclass::text FROM pg_constraint
                      WHERE conrelid = pg_class.oid AND contype = 'f') AS parents
FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
"""


@dataclass(frozen=True)
class Footprint:
    """Which tables a statement looks at, which it locks rows of, and whether rows that refer to those must wait."""

    sees: frozenset[str]
    takes: frozenset[str]
    parents: frozenset[str]
    strong: bool


class Schema:
    """Which tables there are, and which refer to which."""

    def __init__(self, parents: Mapping[str, Iterable[str]]) -> None:
        """Take the tables with those that their foreign keys point at."""
        self._parents = {table: frozenset(others) for table, others in parents.items()}

    @classmethod
    async def of(cls, raw: Any) -> Schema:
        """Ask the database."""
        return cls(dict(await raw.fetch(_SCHEMA)))

    def footprint(self, sql: str) -> Footprint:
        """Read a statement, roughly: too much does no harm, too little would."""
        advisory = {"advisory lock"} if _ADVISORY.search(sql) else set()
        sees = set(_WORD.findall(sql)) & self._parents.keys()
        takes = set(_WRITES.findall(sql)) & self._parents.keys()
        if _LOCKS.search(sql):
            takes |= sees
        if "DELETE FROM" in sql:
            takes |= self._below(takes)
        parents = {parent for table in takes for parent in self._parents[table]}
        return Footprint(
            frozenset(sees | takes | parents | advisory),
            frozenset(takes | advisory),
            frozenset(parents),
            bool(_STRONG.search(sql)),
        )

    def _below(self, tables: set[str]) -> set[str]:
        below = {table for table, parents in self._parents.items() if parents & tables} - tables
        return below | self._below(tables | below) if below else set()


class SteppingPool:
    """One real connection, whose every statement waits for a permission."""

    def __init__(self, raw: Any, letter: str, schema: Schema) -> None:
        """Wrap a driver's connection."""
        self.letter = letter
        self.pid: int = raw.get_server_pid()
        self.task: asyncio.Future[Any] | None = None
        self.blocked = False
        self.statements: list[str] = []
        self._raw = raw
        self._schema = schema
        self._free = False
        self._in_transaction = False
        self._held: frozenset[str] = frozenset()
        self._renew()

    async def acquire(self, *, timeout: float | None = None) -> SteppingPool:  # noqa: ARG002, ASYNC109 - as the driver's
        """Lend the connection."""
        return self

    def get_idle_size(self) -> int:
        """Say that the connection is there to be had."""
        return 1

    async def release(self, raw: SteppingPool) -> None:
        """Take it back as the driver's pool does: when a cancelled statement has ended, and out of its transaction."""
        assert raw is self
        if self._raw._protocol._is_cancelling():
            await self._raw._protocol._wait_for_cancellation()
        if self._raw.is_in_transaction():
            await self._raw.execute("ROLLBACK")

    async def execute(self, sql: str, *values: Any) -> Any:
        """Run a statement once it is let go."""
        return await self._once_let(self._raw.execute, sql, values)

    async def fetch(self, sql: str, *values: Any) -> Any:
        """Run a statement once it is let go."""
        return await self._once_let(self._raw.fetch, sql, values)

    async def fetchrow(self, sql: str, *values: Any) -> Any:
        """Run a statement once it is let go."""
        return await self._once_let(self._raw.fetchrow, sql, values)

    async def fetchval(self, sql: str, *values: Any) -> Any:
        """Run a statement once it is let go."""
        return await self._once_let(self._raw.fetchval, sql, values)

    def start(self, work: Awaitable[Hashable]) -> None:
        """Run an operation up to its first statement."""
        self.task = asyncio.ensure_future(work)
        self.task.add_done_callback(lambda _: self._arrive())

    def step(self) -> str:
        """Let one statement go and return it."""
        sql, go = self.statements[-1], self._go
        if self.ends:
            self._held = frozenset()
        else:
            self._held |= self.footprint.takes | self.footprint.parents
        self._renew()
        go.set_result(None)
        return sql

    def open(self) -> None:
        """Let everything go from now on."""
        self._free = True
        if not self._go.done():
            self._go.set_result(None)

    @property
    def running(self) -> bool:
        """Between two stops: a statement is under way, or the program is between statements."""
        return not self.here.done()

    @property
    def ready(self) -> bool:
        """Stopped before a statement."""
        return self.here.done() and self.task is not None and not self.task.done()

    @property
    def ends(self) -> bool:
        """Whether the next statement ends a transaction, or is one by itself that writes."""
        return self.statements[-1] in {"COMMIT", "ROLLBACK"} or not self._in_transaction

    def is_blind_to(self, other: SteppingPool) -> bool:
        """Tell whether neither's next statement can notice the other's, so that their order does not matter.

        Nobody sees what an open transaction has written. So two statements inside transactions notice each other by
        locks alone, and a plain SELECT not at all. The end of a transaction is noticed by whoever looks at a table
        that it wrote to, or that it locked rows of.
        """
        mine, theirs = self.footprint, other.footprint
        if self.ends or other.ends:
            sees = mine.sees | (self._held if self.ends else frozenset())
            shows = theirs.sees | (other._held if other.ends else frozenset())
            return not sees & shows
        return not (
            mine.takes & theirs.takes
            or (mine.strong and mine.takes & theirs.parents)
            or (theirs.strong and theirs.takes & mine.parents)
        )

    @property
    def footprint(self) -> Footprint:
        """What the next statement touches."""
        return self._schema.footprint(self.statements[-1])

    def _renew(self) -> None:
        loop = asyncio.get_running_loop()
        self.here: asyncio.Future[None] = loop.create_future()
        self._go: asyncio.Future[None] = loop.create_future()

    def _arrive(self) -> None:
        if not self.here.done():
            self.here.set_result(None)

    async def _once_let(self, call: Callable[..., Awaitable[Any]], sql: str, values: Iterable[Any]) -> Any:
        if sql.startswith("BEGIN"):
            self._in_transaction = True
            return await call(sql + (_PATIENT if "READ WRITE" in sql else ""))
        self.statements.append(sql)
        if not self._free:
            self._arrive()
            await self._go
        if sql in {"COMMIT", "ROLLBACK"}:
            self._in_transaction = False
        return await call(sql, *values)
