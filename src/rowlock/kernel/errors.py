"""Problems: refusals a caller can understand, each declared once, by kind.

A problem is a class: its name is the stable code (`SoldOut` is `sold_out`), the first line of its docstring is the
title that people read, its kind decides the HTTP status and the exit code. Only the faces know those numbers.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar


class Problem(Exception):
    """Something went wrong."""

    code: ClassVar[str] = "problem"
    title: ClassVar[str] = "Something went wrong"

    def __init__(self, detail: str | None = None, **extra: Any) -> None:
        """Keep the sentence for this one occurrence and the members that a program may read beside it."""
        super().__init__(detail or self.title)
        self.detail = detail
        self.extra = extra

    def __init_subclass__(cls) -> None:
        """Derive code and title, so that neither can drift from the class.

        A class that states its code is but a shade of its base, of use inside the program: callers see the base.
        """
        if "code" not in cls.__dict__:
            cls.code = re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()
            cls.title = (cls.__doc__ or cls.__name__).strip().splitlines()[0].rstrip(".")


class Invalid(Problem):
    """The request is not valid."""


class Unauthenticated(Problem):
    """Sign in, or send a valid token."""


class Forbidden(Problem):
    """You may not do this."""


class NotFound(Problem):
    """There is no such thing."""


class Conflict(Problem):
    """The request does not fit the present state."""


class Limited(Problem):
    """Too many requests."""


class Busy(Problem):
    """The server is busy. Try again."""

    retry_after_seconds = 1


class ValidationFailed(Invalid):
    """Some fields are not valid.

    `errors` lists each one as {"pointer": "/capacity", "detail": "…"}, the pointer being a JSON Pointer (RFC 6901)
    into the request body, or `?name` for a query parameter.
    """

    def __init__(self, errors: list[dict[str, str]]) -> None:
        """Take the list of fields; the detail names the first, for people who read only one line."""
        first = errors[0]
        where = first["pointer"] or "body"
        super().__init__(f"{where}: {first['detail']}", errors=errors)


class InvalidState(Conflict):
    """The present state does not allow this."""


class LockTimeout(Busy):
    """Somebody else works on the same rows."""

    code = Busy.code


class OutcomeUnknown(Busy):
    """The answer was lost on the way. Ask again with the same Idempotency-Key.

    The work may or may not have been done: the database went away, or the deadline passed, while it was committing.
    """
