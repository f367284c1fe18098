"""A database for a short while, on a server that others use too: for demonstrations and for tests."""

from __future__ import annotations

import contextlib
import secrets
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode, urlsplit

from rowlock.kernel.database import create_database, drop_database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@contextlib.asynccontextmanager
async def scratch_database(server_url: str) -> AsyncIterator[str]:
    """Create an empty database beside the one at `server_url`, yield its URL, drop it however the block ends.

    Raises:
        DatabaseUnavailable: the server cannot be reached, or its user may not create databases.

    """
    name = f"rowlock_scratch_{secrets.token_hex(8)}"
    await create_database(server_url, name)
    try:
        yield url_of(server_url, name)
    finally:
        await drop_database(server_url, name)


def url_of(server_url: str, database: str) -> str:
    """Return the URL of another database of the same server."""
    parts = urlsplit(server_url)
    # libpq lets a parameter name the database too, and it wins over the path.
    kept = [(name, value) for name, value in parse_qsl(parts.query) if name not in {"dbname", "database"}]
    # Put together by hand: urlunsplit drops the slashes of a URL without a host, postgresql:///rowlock.
    return f"{parts.scheme}://{parts.netloc}/{database}?{urlencode(kept, safe='/')}".rstrip("?")
