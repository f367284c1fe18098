"""The Idempotency-Key header of POST requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import Response  # noqa: TC002 - part of a handler's signature

from rowlock.kernel import idempotency
from rowlock.kernel.errors import ValidationFailed
from rowlock.kernel.idempotency import KEY_MAX_CHARACTERS, Key, Reply, make_key
from rowlock.web.auth import database
from rowlock.web.problems import problem_reply, respond

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

    from rowlock.kernel.database import Transaction


async def key_of(request: Request, caller: str, *more: bytes) -> Key | None:
    """Return the request's idempotency key, scoped to the caller; None without the header.

    Raises:
        ValidationFailed: the key is empty, too long, or not printable ASCII.

    """
    header = request.headers.get("idempotency-key")
    if header is None:
        return None
    if not (0 < len(header) <= KEY_MAX_CHARACTERS and header.isascii() and header.isprintable()):
        detail = f"1 to {KEY_MAX_CHARACTERS} printable ASCII characters."
        raise ValidationFailed([{"pointer": "header:Idempotency-Key", "detail": detail}])
    body = await request.body()
    return make_key(caller, header, request.method.encode(), request.url.path.encode(), body, *more)


async def answer_once(
    request: Request, caller: str, work: Callable[[Transaction], Awaitable[Reply]], *more: bytes
) -> Response:
    """Run `work` in one transaction, at most once per Idempotency-Key, and respond.

    `more` binds the kept answer to further parts of the request, such as the credentials of an answer that is secret.
    """
    key = await key_of(request, caller, *more)
    return respond(await idempotency.once(await database(request), key, work, problem_reply))
