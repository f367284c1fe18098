"""The database, with ownership of transactions said in types. The only module that knows the driver.

`Database`     I own transactions: I may begin one. A use case takes this.
`Transaction`  I take part in somebody's transaction: I read and write, never commit. A step takes this.
`Connection`   I only read.

Every transaction is READ COMMITTED, says so itself, and bounds its waits. After waiting for a row lock a statement at
READ COMMITTED sees what the previous holder committed; at REPEATABLE READ it would decide on the past.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from contextvars import ContextVar
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg
import structlog

from rowlock.kernel.errors import Busy, LockTimeout, OutcomeUnknown

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from types import TracebackType

Row = asyncpg.Record
ACQUIRE_SECONDS = 2.0
LOCK_TIMEOUT_MS = 2_000
STATEMENT_TIMEOUT_MS = 5_000
IDLE_TIMEOUT_MS = 10_000
RESOLVE_SECONDS = 5.0
ADMINISTER_SECONDS = 60.0

# For connections that only ever look rows up by their keys. Planned once instead of each time; and planned as for a
# big table even while it is still empty, for the plan that a fresh event's rush begins with must not scan its orders.
KEY_LOOKUPS = MappingProxyType(
    {
        "plan_cache_mode": "force_generic_plan",
        "enable_seqscan": "off",
        "enable_hashjoin": "off",
        "enable_mergejoin": "off",
        "enable_bitmapscan": "off",
        "enable_material": "off",
    }
)
NO_SETTINGS: Mapping[str, str] = MappingProxyType({})

_BEGIN = (
    "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;"
    f" SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS};"
    f" SET LOCAL statement_timeout = {STATEMENT_TIMEOUT_MS};"
    f" SET LOCAL idle_in_transaction_session_timeout = {IDLE_TIMEOUT_MS}"
)
_SNAPSHOT = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"

_LOST = (asyncpg.PostgresConnectionError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
_UNAVAILABLE = (
    *_LOST,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.TransactionRollbackError,
    TimeoutError,
)

log = structlog.get_logger("rowlock.database")
sql_log = structlog.get_logger("rowlock.sql")
_inside: ContextVar[bool] = ContextVar("inside_transaction", default=False)


class DatabaseUnavailable(Exception):
    """The database cannot be reached or is not fit; the message is one line for the operator."""


class UniqueViolation(Exception):
    """A row with the same key is there already. `constraint` names the rule it broke."""

    def __init__(self, constraint: str) -> None:
        """Keep the name of the constraint, by which a service tells one rule from another."""
        super().__init__(constraint)
        self.constraint = constraint


class DatabaseFault(Exception):
    """A statement was refused, which is a fault of this program.

    Says which kind of error and which constraint, and no more: the driver's own text may quote whole rows.
    """

    def __init__(self, error: Exception) -> None:
        """Keep what is harmless of the driver's error."""
        self.constraint: str | None = getattr(error, "constraint_name", None)
        sqlstate: str | None = getattr(error, "sqlstate", None)
        parts = (type(error).__name__, sqlstate, self.constraint and f"({self.constraint})")
        super().__init__(" ".join(part for part in parts if part))


class Connection:
    """Reads."""

    def __init__(self, raw: Any, *, log_sql: bool = False) -> None:
        """Wrap a driver's connection."""
        self._raw = raw
        self._log_sql = log_sql

    async def fetch(self, sql: str, *values: Any) -> list[Row]:
        """Run one statement and return all its rows."""
        with self._watch(sql, values):
            return await self._raw.fetch(sql, *values)  # type: ignore[no-any-return]

    async def fetch_one(self, sql: str, *values: Any) -> Row | None:
        """Run one statement and return its first row, or None."""
        with self._watch(sql, values):
            return await self._raw.fetchrow(sql, *values)  # type: ignore[no-any-return]

    async def fetch_value(self, sql: str, *values: Any) -> Any:
        """Run one statement and return the first column of its first row, or None."""
        with self._watch(sql, values):
            return await self._raw.fetchval(sql, *values)

    def _watch(self, sql: str, values: Sequence[Any]) -> contextlib.AbstractContextManager[None]:
        return _Logged(sql, values) if self._log_sql else _TRANSLATED


class Transaction(Connection):
    """Reads and writes inside a transaction that somebody else owns."""

    xid: str | None = None

    async def execute(self, sql: str, *values: Any) -> int:
        """Run one statement and return how many rows it touched.

        Raises:
            UniqueViolation: the row is there already.

        """
        with self._watch(sql, values):
            status: str = await self._raw.execute(sql, *values)
        last = status.rsplit(" ", 1)[-1]
        return int(last) if last.isdigit() else 0

    async def remember_xid(self) -> None:
        """Ask for this transaction's number, so that a COMMIT whose answer gets lost can be looked up."""
        self.xid = await self.fetch_value("SELECT pg_current_xact_id()::text")


class Database:
    """A pool of connections, and the right to begin transactions on them."""

    def __init__(self, pool: asyncpg.Pool[Row], *, log_sql: bool = False) -> None:
        """Wrap an open pool; see `open_database`."""
        self._pool = pool
        self._log_sql = log_sql

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """Begin a transaction; leaving the block commits, an exception rolls back.

        Raises:
            LockTimeout, Busy: a lock, a connection or the database did not come in time. Nothing was done.
            OutcomeUnknown: the connection broke during COMMIT, and the database could not be asked what became of it.

        """
        async with self._borrowed() as raw:
            tx = Transaction(raw, log_sql=self._log_sql)
            await self._control(tx, _BEGIN)
            try:
                yield tx
            except BaseException:
                await _roll_back(tx)
                raise
            await self._commit(tx)

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Borrow a connection for single reads, each of the newest committed state."""
        async with self._borrowed() as raw:
            yield Connection(raw, log_sql=self._log_sql)

    @contextlib.asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Connection]:
        """Read several statements of one and the same instant. Nothing can be written."""
        async with self._borrowed() as raw:
            tx = Transaction(raw, log_sql=self._log_sql)
            await self._control(tx, _SNAPSHOT)
            try:
                yield tx
            finally:
                await _roll_back(tx)

    async def close(self) -> None:
        """Give back every connection."""
        try:
            await asyncio.wait_for(self._pool.close(), timeout=5)
        except TimeoutError:
            self._pool.terminate()

    def idle(self) -> int:
        """Count connections that nobody uses now."""
        return self._pool.get_idle_size()

    def size(self) -> int:
        """Count open connections."""
        return self._pool.get_size()

    @contextlib.asynccontextmanager
    async def _borrowed(self) -> AsyncIterator[Any]:
        if _inside.get():
            message = "a transaction inside a transaction: pass the one you have"
            raise RuntimeError(message)
        with _TRANSLATED:
            # A timeout costs a task; where a connection is idle there is nothing to wait for.
            raw = await self._pool.acquire(timeout=None if self.idle() else ACQUIRE_SECONDS)
        token = _inside.set(True)
        try:
            yield raw
        finally:
            _inside.reset(token)
            await self._pool.release(raw)  # which no cancellation can interrupt: the driver shields it

    async def _control(self, tx: Transaction, sql: str) -> None:
        with tx._watch(sql, ()):  # noqa: SLF001 - same module, and features must not see the raw connection
            await tx._raw.execute(sql)  # noqa: SLF001

    async def _commit(self, tx: Transaction) -> None:
        """Commit, and never cancel it: a cancelled COMMIT may or may not have happened, and nobody would know."""
        commit = asyncio.ensure_future(self._control(tx, "COMMIT"))
        try:
            await asyncio.shield(commit)
        except asyncio.CancelledError:
            with contextlib.suppress(Exception):
                await asyncio.shield(commit)
            raise
        except Busy:
            log.warning("the connection broke during COMMIT")
            await self._resolve(tx.xid)

    async def _resolve(self, xid: str | None) -> None:
        """Find out what became of a COMMIT whose answer was lost."""
        if xid is None:
            raise OutcomeUnknown
        for _ in range(int(RESOLVE_SECONDS / 0.25)):
            with contextlib.suppress(*_UNAVAILABLE):
                async with asyncio.timeout(1):
                    status = await self._pool.fetchval("SELECT pg_xact_status($1::text::xid8)", xid)
                if status == "committed":
                    return
                if status == "aborted":
                    raise Busy
            await asyncio.sleep(0.25)
        raise OutcomeUnknown


class _Raw(asyncpg.Connection):
    """Nothing here changes a session's settings, so the round trip that would put them back is saved."""

    def get_reset_query(self) -> str:
        return ""


async def open_database(
    url: str, *, size: int, log_sql: bool = False, planner: Mapping[str, str] = NO_SETTINGS
) -> Database:
    """Open a pool of at most `size` connections to the database at `url`, with settings for its query planner.

    Raises:
        DatabaseUnavailable: it cannot be reached, is older than PostgreSQL 15, or the URL is wrong.

    """
    try:
        pool = await asyncpg.create_pool(
            url,
            min_size=1,
            max_size=size,
            timeout=5,
            command_timeout=60,
            max_inactive_connection_lifetime=0,
            connection_class=_Raw,
            server_settings={"application_name": "rowlock", "timezone": "UTC", "jit": "off", **planner},
        )
    except (*_UNAVAILABLE, asyncpg.PostgresError, ValueError) as error:
        raise DatabaseUnavailable(_why(error)) from None
    async with pool.acquire() as raw:
        major = raw.get_server_version().major
    if major < 15:  # noqa: PLR2004 - the oldest release that is tested
        await pool.close()
        raise DatabaseUnavailable(f"PostgreSQL {major} is too old. Rowlock needs PostgreSQL 15 or later.")
    return Database(pool, log_sql=log_sql)


async def create_database(url: str, name: str) -> None:
    """Create an empty database on the server at `url`.

    Raises:
        DatabaseUnavailable: the server cannot be reached, or its user may not create one.

    """
    await _administer(url, f'CREATE DATABASE "{_plain(name)}" TEMPLATE template0')


async def drop_database(url: str, name: str) -> None:
    """Drop a database of the server at `url`, and cut off whoever is still in it.

    Raises:
        DatabaseUnavailable: the server cannot be reached, or the database is not its user's.

    """
    await _administer(url, f'DROP DATABASE IF EXISTS "{_plain(name)}" WITH (FORCE)')


async def _administer(url: str, sql: str) -> None:
    """Run what cannot run in a transaction, on a connection of its own."""
    try:
        raw = await asyncpg.connect(url, timeout=5, server_settings={"application_name": "rowlock"})
        try:
            await raw.execute(sql, timeout=ADMINISTER_SECONDS)
        finally:
            await raw.close(timeout=5)
    except (*_UNAVAILABLE, asyncpg.PostgresError, ValueError) as error:
        raise DatabaseUnavailable(_why(error)) from None


def _plain(name: str) -> str:
    assert name.isidentifier(), "the names of databases are ours, and need no quoting rules"
    return name


class _Translated(contextlib.AbstractContextManager[None]):
    """Turns the driver's errors into ours: what may be tried again is Busy, all else is a fault of the program.

    A class, for it stands around every statement, and a generator would take four times as long.
    """

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            return
        if isinstance(error, asyncpg.LockNotAvailableError):
            raise LockTimeout from None
        if isinstance(error, asyncpg.UniqueViolationError):
            raise UniqueViolation(error.constraint_name or "") from None
        # The driver says that it cannot send a value by a kind of the error that it has for lost connections.
        if isinstance(error, _UNAVAILABLE) and not isinstance(error, ValueError):
            log.warning("the database did not answer", error=type(error).__name__)
            raise Busy from None
        if isinstance(error, asyncpg.PostgresError | asyncpg.InterfaceError):
            raise DatabaseFault(error) from None


class _Logged(_Translated):
    """Logs a statement, too, with how long it took."""

    def __init__(self, sql: str, values: Sequence[Any]) -> None:
        self._sql = sql
        self._values = values
        self._started = time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        spent_ms = round((time.perf_counter() - self._started) * 1000, 2)
        sql_log.info(" ".join(self._sql.split()), values=_without_texts(self._values), ms=spent_ms)
        super().__exit__(kind, error, trace)


_TRANSLATED = _Translated()


async def _roll_back(tx: Transaction) -> None:
    """Roll back; a connection that cannot is closed by the pool, which ends its transaction just as well."""
    with contextlib.suppress(*_UNAVAILABLE, asyncpg.PostgresError):
        await asyncio.shield(tx._raw.execute("ROLLBACK"))  # noqa: SLF001


def _without_texts(values: Sequence[Any]) -> list[Any]:
    """Show numbers, ids and truths; hide texts and bytes, which may be personal or secret."""
    return [_shown(value) for value in values]


def _shown(value: Any) -> Any:
    if isinstance(value, list | tuple | set | frozenset):
        shown = [_shown(item) for item in value]
        return shown if len(shown) <= 8 else [*shown[:8], f"… {len(shown)} in all"]  # noqa: PLR2004
    if isinstance(value, UUID):
        return str(value)
    return value if value is None or isinstance(value, bool | int | float) else "…"


def _why(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return text[0] if text else type(error).__name__
