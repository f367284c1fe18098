"""Keyset paging: a cursor is the last row's sort key, so a page costs the same however deep it lies."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

import msgspec

from rowlock.kernel.errors import ValidationFailed

T = TypeVar("T")

PAGE_DEFAULT = 20
PAGE_MAX = 100


@dataclass(frozen=True, slots=True)
class Page:
    """Which rows of a list are wanted: so many, after the one with this id."""

    after: UUID | None
    limit: int


def page_by_id(cursor: str | None, limit: int) -> Page:
    """Read the page of a list that is in the order of ids, and one row more, to know whether others follow.

    Raises:
        ValidationFailed: the cursor is not one of such a list.

    """
    (after,) = decode_cursor(cursor, tuple[UUID]) or (None,)
    return Page(after, limit + 1)


def encode_cursor(*key: Any) -> str:
    """Turn the last row's sort key into an opaque text."""
    return base64.urlsafe_b64encode(msgspec.json.encode(key)).decode().rstrip("=")


def decode_cursor(cursor: str | None, shape: type[T]) -> T | None:
    """Turn a cursor back into its sort key of the given tuple type; None is the first page.

    Raises:
        ValidationFailed: it is not a cursor of this list.

    """
    if cursor is None:
        return None
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        return msgspec.json.decode(base64.b64decode(padded, altchars=b"-_", validate=True), type=shape)
    except (binascii.Error, msgspec.MsgspecError, ValueError):
        raise ValidationFailed([{"pointer": "?cursor", "detail": "Not a cursor of this list."}]) from None
