"""Migrations: numbered SQL files beside this module, applied once, in order, forward only.

One server migrates at a time (advisory lock); each file is one transaction; its checksum is kept, so that a file
edited after it was applied is refused instead of silently believed. Lock waits are short: a migration must never
queue behind a long transaction and make everybody else queue behind itself.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rowlock.kernel.database import Database, Transaction

_LOCK = 7_265_702_118
_TABLE = """
CREATE TABLE IF NOT EXISTS migration (
    number integer PRIMARY KEY,
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
)
"""


class MigrationError(Exception):
    """The database's schema and this program do not fit; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: `0001_foundation.sql` is number 1, name `foundation`."""

    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the text, in hexadecimal."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def all_migrations() -> list[Migration]:
    """Read the files that come with this program, in their order."""
    found = []
    for file in resources.files(__name__).iterdir():
        if file.name.endswith(".sql"):
            number, name = file.name.removesuffix(".sql").split("_", 1)
            found.append(Migration(int(number), name, file.read_text()))
    return sorted(found, key=lambda migration: migration.number)


async def migrate(db: Database) -> list[Migration]:
    """Bring the database to this program's schema; return what was applied, in order.

    Raises:
        MigrationError: a file was edited after it was applied, or the database is newer than this program.

    """
    applied: list[Migration] = []
    while True:
        async with db.transaction() as tx:
            todo = await _first_pending(tx)
            if todo is None:
                return applied
            await tx.execute(todo.sql)
            await tx.execute(
                "INSERT INTO migration (number, name, checksum) VALUES ($1, $2, $3)",
                todo.number,
                todo.name,
                todo.checksum,
            )
        applied.append(todo)


async def pending(db: Database) -> list[Migration]:
    """Return what `migrate` would apply, changing nothing."""
    async with db.connection() as connection:
        if await connection.fetch_value("SELECT to_regclass('migration')") is None:
            return all_migrations()
        done = {row["number"] for row in await connection.fetch("SELECT number FROM migration")}
    return [migration for migration in all_migrations() if migration.number not in done]


async def _first_pending(tx: Transaction) -> Migration | None:
    await tx.execute("SET LOCAL statement_timeout = '60s'; SET LOCAL lock_timeout = '60s'")
    await tx.fetch_value("SELECT pg_advisory_xact_lock($1::bigint)", _LOCK)
    await tx.execute("SET LOCAL lock_timeout = '2s'")
    await tx.execute(_TABLE)
    done = {row["number"]: row for row in await tx.fetch("SELECT number, name, checksum FROM migration")}
    known = all_migrations()
    if newer := sorted(set(done) - {migration.number for migration in known}):
        raise MigrationError(
            f"The database has migration {newer[-1]}, newer than this Rowlock. Install the newer one."
        )
    for migration in known:
        if migration.number not in done:
            return migration
        if done[migration.number]["checksum"] != migration.checksum:
            raise MigrationError(
                f"Migration {migration.number} was edited after it was applied. Put the file back."
            )
    return None
