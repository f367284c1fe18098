"""Who is asking: reads the Bearer token. Whom it belongs to, `accounts` knows; the composition root hands it in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.requests import Request  # noqa: TC002 - FastAPI reads the annotation at run time

from rowlock.kernel.errors import Unauthenticated

if TYPE_CHECKING:
    from rowlock.kernel.database import Database

TOKEN_MAX_CHARACTERS = 200


async def database(request: Request) -> Database:
    """Return the database for everything but the sale's hot path; async, or FastAPI would send it to a thread."""
    db: Database = request.app.state.db
    return db


def token_of(request: Request) -> str | None:
    """Return the Bearer token of the Authorization header, None without the header.

    Raises:
        Unauthenticated: the header is not a Bearer token.

    """
    header = request.headers.get("authorization")
    if header is None:
        return None
    scheme, _, token = header.partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token or len(token) > TOKEN_MAX_CHARACTERS:
        raise Unauthenticated("Send the header `Authorization: Bearer <token>`.")
    return token


async def who(request: Request) -> Any:
    """Return the caller that the Authorization header names, or the anonymous one without the header.

    Raises:
        Unauthenticated: the header is not a Bearer token, or the token is unknown, expired or revoked.

    """
    token = token_of(request)
    return request.app.state.anonymous if token is None else await request.app.state.identify(token)
