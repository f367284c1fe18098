"""Refusals as RFC 9457 `application/problem+json`. The one place that knows a kind's HTTP status."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import structlog
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from rowlock.kernel import errors
from rowlock.kernel.errors import Busy, Invalid, Problem, ValidationFailed
from rowlock.kernel.idempotency import Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from starlette.requests import Request

    Handler = Callable[[Request, Any], Coroutine[Any, Any, Response]]

MEDIA_TYPE = "application/problem+json"


class BodyTooLarge(Invalid):
    """The request body is too large."""


class MethodNotAllowed(Invalid):
    """This resource does not know the method."""


class InternalError(Problem):
    """Something went wrong on our side."""


STATUS: dict[type[Problem], int] = {
    errors.Invalid: 422,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.Limited: 429,
    errors.Busy: 503,
    BodyTooLarge: 413,
    MethodNotAllowed: 405,
    InternalError: 500,
}


def status_of(problem: Problem | type[Problem]) -> int:
    """Return a problem's HTTP status: that of its nearest ancestor in the table."""
    kind = problem if isinstance(problem, type) else type(problem)
    return next(STATUS[ancestor] for ancestor in kind.__mro__ if ancestor in STATUS)


def problem_reply(problem: Problem) -> Reply:
    """Render a problem: type, title, status, detail, code, request_id and the problem's own members."""
    body = {
        "type": f"/problems/{problem.code}",
        "title": problem.title,
        "status": status_of(problem),
        "detail": problem.detail or problem.title,
        "code": problem.code,
        "request_id": structlog.contextvars.get_contextvars().get("request_id"),
        **problem.extra,
    }
    return Reply(status_of(problem), msgspec.json.encode(body, enc_hook=str))


def respond(reply: Reply) -> Response:
    """Turn a reply into a response."""
    headers: dict[str, str] = {}
    if reply.location is not None:
        headers["Location"] = reply.location
    if reply.replayed:
        headers["Idempotency-Replayed"] = "true"
    refused = reply.status >= 400  # noqa: PLR2004
    return Response(
        reply.body, reply.status, headers, media_type=MEDIA_TYPE if refused else "application/json"
    )


def respond_to(problem: Problem) -> Response:
    """Turn a problem into a response."""
    response = respond(problem_reply(problem))
    if isinstance(problem, Busy | errors.Limited):
        seconds = problem.extra.get("retry_after_seconds", Busy.retry_after_seconds)
        response.headers["Retry-After"] = str(seconds)
    if isinstance(problem, errors.Unauthenticated):
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


async def on_problem(_request: Request, problem: Problem) -> Response:
    """Answer a refusal that a handler raised."""
    return respond_to(problem)


async def on_validation_error(_request: Request, error: RequestValidationError) -> Response:
    """Answer a body or a query that does not fit its schema, naming each field."""
    return respond_to(ValidationFailed([_field(item) for item in error.errors()]))


async def on_http_exception(_request: Request, error: HTTPException) -> Response:
    """Answer what the framework itself refuses: an unknown path, a wrong method, a body that is not JSON."""
    if error.status_code == 404:  # noqa: PLR2004
        return respond_to(errors.NotFound())
    if error.status_code == 405:  # noqa: PLR2004
        response = respond_to(MethodNotAllowed())
        response.headers.update(error.headers or {})
        return response
    return respond_to(ValidationFailed([{"pointer": "", "detail": str(error.detail)}]))


async def on_fault(_request: Request, _error: Exception) -> Response:
    """Answer a fault of the program in the form of all refusals; the edge, to which the fault goes on, logs it."""
    return respond_to(InternalError())


def handlers() -> dict[Any, Handler]:
    """Return the exception handlers of the application."""
    return {
        Problem: on_problem,
        RequestValidationError: on_validation_error,
        HTTPException: on_http_exception,
        Exception: on_fault,
    }


def all_problems() -> list[type[Problem]]:
    """Return every problem that this program can answer with, by code; the kinds that are only kinds are left out."""
    kinds = {errors.Problem, errors.Invalid, errors.Conflict, errors.Limited}
    found: dict[str, type[Problem]] = {}
    todo = [Problem]
    while todo:
        kind = todo.pop(0)
        todo += kind.__subclasses__()
        if kind not in kinds and kind.__module__.startswith("rowlock."):
            found.setdefault(kind.code, kind)
    return [found[code] for code in sorted(found)]


def _field(item: dict[str, Any]) -> dict[str, str]:
    where, *path = item["loc"]
    if item["type"] == "json_invalid":
        return {"pointer": "", "detail": "The body is not JSON."}
    if where == "body":
        pointer = "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path)
    else:
        pointer = f"?{path[0]}" if where == "query" else f"{where}:{path[0] if path else ''}"
    return {"pointer": pointer, "detail": str(item["msg"]).removeprefix("Value error, ")}
