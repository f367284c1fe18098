"""Small chores of every server, done by one at a time: forget what expired, finish what broke off."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import structlog

from rowlock.accounts import service as accounts
from rowlock.kernel import idempotency
from rowlock.kernel.errors import Busy
from rowlock.orders import closing

if TYPE_CHECKING:
    from rowlock.kernel.database import Database

EVERY_SECONDS = 60.0
ROWS_MAX = 5000
_LOCK = 7_265_702_119

log = structlog.get_logger("rowlock.housekeeping")


async def run(db: Database) -> None:
    """Do the chores for ever; servers that start together do not do them together."""
    while True:
        await asyncio.sleep(EVERY_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, not a secret
        try:
            await do_chores(db)
        except Busy as busy:
            log.warning("the chores must wait", problem=busy.code)
        except Exception:
            log.exception("a chore failed")


async def do_chores(db: Database) -> None:
    """Forget expired answers and tokens; cancel the registrations that a broken-off event cancellation left."""
    async with db.transaction() as tx:
        if not await tx.fetch_value("SELECT pg_try_advisory_xact_lock($1::bigint)", _LOCK):
            return
        await idempotency.forget_expired(tx, ROWS_MAX)
        await accounts.forget_expired(tx, ROWS_MAX)
    async with db.connection() as connection:
        unfinished = await closing.unfinished(connection, ROWS_MAX)
    for event_id in unfinished:
        await closing.finish(db, event_id)
