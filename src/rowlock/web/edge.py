"""The outermost layer: request ids, limits on bodies, measurements, the access log, and the last catch for faults.

Pure ASGI: Starlette's BaseHTTPMiddleware costs a factor of three and cancels handlers whose client went away. The
hottest routes are served from here, past the framework's own layers, which cost more than all the rest of a
registration's Python.
"""

from __future__ import annotations

import functools
import re
import time
from typing import TYPE_CHECKING, Any, TypeAlias

import structlog
from starlette.requests import ClientDisconnect, Request

from rowlock.kernel import metrics
from rowlock.kernel.errors import Problem
from rowlock.kernel.ids import new_id
from rowlock.web.problems import BodyTooLarge, InternalError, respond_to

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

Handler: TypeAlias = "Callable[[Request], Awaitable[Response]]"

_SANE_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_SECURITY = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
]

log = structlog.get_logger("rowlock.http")


class Edge:
    """Wraps the application."""

    def __init__(self, app: ASGIApp, *, body_max_bytes: int, hot: Mapping[str, Handler]) -> None:
        """Take the application to wrap, the largest body it is to see, and the hot POST handlers by their paths."""
        self._app = app
        self._body_max_bytes = body_max_bytes
        self._hot = hot

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        request_id = _request_id(headers)
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        answer = _Answer(send, request_id)
        started = time.perf_counter()
        try:
            length = headers.get(b"content-length", b"0")
            if not length.isdigit() or int(length) > self._body_max_bytes:
                raise BodyTooLarge(f"At most {self._body_max_bytes} bytes.")  # noqa: TRY301 - answered like the others
            body = _Body(receive, self._body_max_bytes)
            hot = self._hot.get(scope["path"]) if scope["method"] == "POST" else None
            if hot is None:
                await self._app(scope, body, answer)
            else:
                scope["endpoint"] = hot
                await (await hot(Request(scope, body)))(scope, receive, answer)
        except Problem as problem:
            await answer.instead(respond_to(problem), scope, receive)
        except ClientDisconnect:
            log.info("the client went away")
        except Exception as error:
            log.exception("unexpected", error=type(error).__name__)
            await answer.instead(respond_to(InternalError()), scope, receive)
        finally:
            _note(scope, answer.status, time.perf_counter() - started)


class _Body:
    """Receives the body, but not without end. That it arrives in time, the protocol sees to."""

    def __init__(self, receive: Receive, body_max_bytes: int) -> None:
        self._receive = receive
        self._left = body_max_bytes

    async def __call__(self) -> Message:
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise BodyTooLarge
        return message


class _Answer:
    """Sends the answer, with our headers, and remembers its status."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._headers = [(b"x-request-id", request_id.encode()), *_SECURITY]
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = message["headers"]
            present = {name for name, _ in headers}
            headers += [header for header in self._headers if header[0] not in present]
        await self._send(message)

    async def instead(self, response: Any, scope: Scope, receive: Receive) -> None:
        """Send this response, unless another has begun already."""
        if not self.status:
            await response(scope, receive, self)


def _request_id(headers: dict[bytes, bytes]) -> str:
    """Keep a proxy's id if it is harmless, else make one."""
    given = headers.get(b"x-request-id", b"")
    return given.decode() if _SANE_ID.fullmatch(given) else new_id().hex


def _note(scope: Scope, status: int, seconds: float) -> None:
    endpoint = getattr(scope.get("endpoint"), "__name__", "unmatched")
    seconds_of, count_of = _measures(endpoint, status)
    seconds_of.observe(seconds)
    count_of.inc()
    log.info("answered", endpoint=endpoint, status=status, ms=round(seconds * 1000, 2))


@functools.cache
def _measures(endpoint: str, status: int) -> tuple[Any, Any]:
    """Find the measures of an endpoint once; there are few endpoints and few statuses."""
    return metrics.requests_seconds.labels(endpoint), metrics.responses.labels(endpoint, status)
