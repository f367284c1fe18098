"""The walls behind the program: what the database refuses whoever asks, and what every transaction is."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
import pytest_asyncio

import rowlock
from rowlock.events.model import Status
from rowlock.kernel import database
from rowlock.kernel.database import Database, DatabaseFault, UniqueViolation, open_database
from rowlock.kernel.ids import new_id
from rowlock.orders.model import Cancel, Registration, Request
from rowlock.orders.placing import place_many
from tests.races.stages import Stages, place
from tests.races.stepping import Schema, SteppingPool

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rowlock.accounts.model import Caller
    from rowlock.kernel.postgres import Postgres
    from tests.races.stages import Stage

SOURCE = Path(rowlock.__file__).parent
# These tell when the transaction or the statement began, perhaps before a long wait for a lock.
OLD_CLOCK = re.compile(
    r"\b(?:now|transaction_timestamp|statement_timestamp)\s*\(\s*\)"
    r"|\b(?:CURRENT_TIMESTAMP|CURRENT_DATE|CURRENT_TIME|LOCALTIMESTAMP|LOCALTIME)\b|'now'",
    re.IGNORECASE,
)
LOCK = re.compile(r"\bFOR (?:UPDATE|NO KEY UPDATE|SHARE|KEY SHARE)\b")
ONE_ROW = re.compile(r"WHERE id = \$1 FOR ")
IN_ORDER = re.compile(r"ORDER BY [\w, ]+(?: LIMIT \$\d+)? FOR ")


@pytest_asyncio.fixture(loop_scope="session")
async def stage(db: Database, owner: Caller) -> Stage:
    """Put an event on sale that has two seats, one of which is Zoe's."""
    return await Stages(db, owner, Status.PUBLISHED).fresh()


@pytest.mark.parametrize("sql", ["UPDATE ledger SET sold = 0", "DELETE FROM ledger", "TRUNCATE ledger"])
async def test_history_cannot_be_rewritten(db: Database, stage: Stage, sql: str) -> None:
    before = await _ledger(db, stage)
    with pytest.raises(DatabaseFault, match="RestrictViolationError"):
        await _run(db, sql)
    assert await _ledger(db, stage) == before != []


@pytest.mark.parametrize(
    ("change", "wall"),
    [
        ("sold = total + 1", "never_overbooked"),
        ("held = total", "never_overbooked"),
        ("blocked = total", "never_overbooked"),
        ("total = 0", "never_overbooked"),
        ("sold = -1", "sold_is_not_negative"),
        ("held = -1", "held_is_not_negative"),
        ("blocked = -1", "blocked_is_not_negative"),
        ("total = -1, sold = 0", "total_is_not_negative"),
    ],
)
async def test_counters_cannot_be_overbooked_by_hand(
    db: Database, stage: Stage, change: str, wall: str
) -> None:
    with pytest.raises(DatabaseFault) as refused:
        await _run(db, f"UPDATE capacity_pool SET {change} WHERE event_id = $1", stage.event_id)
    # Where two walls stand in the way PostgreSQL names the first by name.
    assert refused.value.constraint in {wall, "never_overbooked"}


async def test_the_ledger_takes_no_overbooked_entry(db: Database, stage: Stage) -> None:
    with pytest.raises(DatabaseFault, match="never_overbooked"):
        await _run(
            db,
            "INSERT INTO ledger (event_id, sequence, pool_id, reason, actor, total, held, sold, blocked)"
            " VALUES ($1, 99, $2, 'registered', 'somebody', 1, 0, 2, 0)",
            stage.event_id,
            new_id(),
        )


async def test_nobody_is_registered_twice_by_hand(db: Database, stage: Stage) -> None:
    again = (
        "INSERT INTO orders (event_id, id, status, buyer_name, buyer_email, person_key, secret_hash, sequence,"
        " created_at) SELECT event_id, $2, 'confirmed', 'Zoe', buyer_email, person_key, secret_hash, 99, created_at"
        " FROM orders WHERE event_id = $1 AND id = $3"
    )
    with pytest.raises(UniqueViolation) as refused:
        await _run(db, again, stage.event_id, new_id(), stage.zoe_id)
    assert refused.value.constraint == "one_active_registration_per_person"
    await place_many(db, [Cancel(stage.event_id, stage.zoe_id, "zoe")])
    assert isinstance((await place_many(db, [place(stage.event_id, "Zoe")]))[0], Registration)


async def test_a_transaction_is_read_committed_whatever_the_default(postgres: Postgres) -> None:
    own = await open_database(postgres.url(), size=1)
    async with own._pool.acquire() as raw:
        await raw.execute(
            "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY"
        )
    async with own.connection() as connection:
        assert await connection.fetch_value("SHOW transaction_isolation") == "serializable"
    async with own.transaction() as tx:
        assert await tx.fetch_value("SHOW transaction_isolation") == "read committed"
        assert await tx.fetch_value("SHOW transaction_read_only") == "off"
    await own.close()


async def test_a_transaction_bounds_its_waits(db: Database) -> None:
    async with db.transaction() as tx:
        rows = await tx.fetch(
            "SELECT name, setting::int AS ms FROM pg_settings"
            " WHERE name IN ('lock_timeout', 'statement_timeout', 'idle_in_transaction_session_timeout')"
        )
    assert {row["name"]: row["ms"] for row in rows} == {
        "lock_timeout": database.LOCK_TIMEOUT_MS,
        "statement_timeout": database.STATEMENT_TIMEOUT_MS,
        "idle_in_transaction_session_timeout": database.IDLE_TIMEOUT_MS,
    }
    assert 0 < database.LOCK_TIMEOUT_MS < database.STATEMENT_TIMEOUT_MS < database.IDLE_TIMEOUT_MS


async def test_placing_locks_before_it_reads(postgres: Postgres, stage: Stage) -> None:
    own = await open_database(postgres.url(), size=1)
    async with own._pool.acquire() as raw:
        recorder = SteppingPool(raw, "A", Schema({}))
        recorder.open()
        requests: list[Request] = [place(stage.event_id, "Ann"), Cancel(stage.event_id, stage.zoe_id, "zoe")]
        await place_many(Database(cast("Any", recorder)), requests)
    await own.close()
    first, *others, last = recorder.statements
    assert first.endswith(
        " FROM capacity_pool WHERE event_id = ANY($1::uuid[]) ORDER BY event_id, id FOR UPDATE"
    )
    assert not any(LOCK.search(statement) for statement in others)
    assert last == "COMMIT"


def test_no_statement_asks_an_old_clock() -> None:
    assert [text for text in _sql() if OLD_CLOCK.search(text)] == []


def test_rows_are_locked_in_order() -> None:
    locking = [text for text in _sql() if LOCK.search(text)]
    assert len(locking) >= 2, "the scan finds the locks that are there"
    assert [text for text in locking if not (ONE_ROW.search(text) or IN_ORDER.search(text))] == []


def _sql() -> Iterator[str]:
    """Return every text in the source that could be SQL: the literals of the modules, and the migrations.

    The command line shows statements, but has none of its own.
    """
    for file in SOURCE.rglob("*.sql"):
        yield re.sub(r"--.*", "", file.read_text())
    for file in (file for file in SOURCE.rglob("*.py") if file.parent.name != "cli"):
        tree = ast.parse(file.read_text())
        prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        parts = {
            id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values
        }
        for node in ast.walk(tree):
            if id(node) in prose | parts:
                continue
            if isinstance(node, ast.JoinedStr):
                yield "".join(
                    str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


async def _run(db: Database, sql: str, *values: Any) -> None:
    async with db.transaction() as tx:
        await tx.execute(sql, *values)


async def _ledger(db: Database, stage: Stage) -> list[tuple[Any, ...]]:
    async with db.connection() as connection:
        rows = await connection.fetch(
            "SELECT sequence, reason, sold FROM ledger WHERE event_id = $1 ORDER BY sequence", stage.event_id
        )
    return [tuple(row) for row in rows]
