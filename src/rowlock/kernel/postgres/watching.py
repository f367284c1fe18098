"""Watching over a server that runs for long: whatever ends it, a kill or a fault of its own, it comes back."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import structlog

from rowlock.kernel.postgres.programs import PostgresUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rowlock.kernel.postgres.server import Postgres

LOOK_SECONDS = 0.5
PAUSE_SECONDS_MAX = 30.0

log = structlog.get_logger("rowlock.postgres")


@contextmanager
def kept_running(server: Postgres) -> Iterator[None]:
    """Start the server again whenever it has ended, for as long as the block lasts."""
    is_over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(server, is_over), name="postgres-watcher", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        is_over.set()
        watcher.join()


def _watch(server: Postgres, is_over: threading.Event) -> None:
    """Look now and then; after a start that failed, less and less often."""
    pause = LOOK_SECONDS
    while not is_over.wait(pause):
        if server.pid is not None:
            continue
        log.warning("PostgreSQL has ended; starting it again")
        try:
            server.start()
            pause = LOOK_SECONDS
            log.warning("PostgreSQL is back")
        except PostgresUnavailable as error:
            pause = min(2 * pause, PAUSE_SECONDS_MAX)
            log.error("PostgreSQL does not come back", reason=str(error), next_try_seconds=pause)  # noqa: TRY400
