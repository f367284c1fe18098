"""What the OpenAPI document says about refusals, new things and tokens; FastAPI alone would describe its own errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from rowlock.web.problems import MEDIA_TYPE, STATUS

if TYPE_CHECKING:
    from fastapi import FastAPI

ALWAYS = (422, 503)
_SCHEMA = "#/components/schemas/Problem"
_TITLES = {status: f"{kind.title}." for kind, status in STATUS.items()}
_TEXT = {"schema": {"type": "string"}}
_HEADERS = {
    401: {"WWW-Authenticate": {"description": "Always Bearer.", **_TEXT}},
    429: {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}},
    503: {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}},
}


class FieldProblem(BaseModel):
    """One field that is not valid."""

    pointer: str = Field(
        description="JSON Pointer into the body, `?name` of a query parameter, or `header:Name`."
    )
    detail: str


class ProblemBody(BaseModel):
    """A refused request (RFC 9457). `code` is the stable part; some problems have members of their own."""

    model_config = ConfigDict(extra="allow", title="Problem")

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str | None
    errors: list[FieldProblem] = Field(default=[], description="Only of `validation_failed`.")


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe a handler's refusals, for its `responses`; 422 and 503 are always possible and need not be given."""
    return {status: _refusal(status) for status in sorted({*statuses, *ALWAYS})}


def created(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe a POST that makes something: the 201's headers, and its refusals; 409 is always possible too.

    A repeated request whose first one still runs gets `idempotency_in_progress`.
    """
    headers = {
        "Location": {"description": "Where the new thing lives.", **_TEXT},
        "Idempotency-Replayed": {"description": "`true` on the answer of an earlier request.", **_TEXT},
    }
    return {201: {"headers": headers}, **problems(409, *statuses)}


def describe(app: FastAPI) -> None:
    """Make the application serve its document completed; call it when all routes are there."""
    generate = app.openapi
    app.openapi = lambda: app.openapi_schema or complete(generate())  # type: ignore[method-assign]


def complete(document: dict[str, Any]) -> dict[str, Any]:
    """Add what the handlers' descriptions refer to: the schema of problems, and Bearer tokens as the way to sign in."""
    components = document.setdefault("components", {})
    schema = ProblemBody.model_json_schema(ref_template="#/components/schemas/{model}")
    components.setdefault("schemas", {}).update({**schema.pop("$defs", {}), "Problem": schema})
    components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{}, {"bearer": []}]
    return document


def _refusal(status: int) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "description": _TITLES[status],
        "content": {MEDIA_TYPE: {"schema": {"$ref": _SCHEMA}}},
    }
    if status in _HEADERS:
        answer["headers"] = _HEADERS[status]
    return answer
