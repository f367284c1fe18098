"""Identifiers and secrets."""

from __future__ import annotations

import base64
import hashlib
import os
from typing import TYPE_CHECKING

from uuid_utils.compat import uuid7

if TYPE_CHECKING:
    from uuid import UUID

_PAGE_BYTES = 4096
# Crockford's alphabet: no I, L, O or U, so that a code can be read out at a door.
_TO_CROCKFORD = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", "0123456789ABCDEFGHJKMNPQRSTVWXYZ")


class _Entropy:
    """The system's random numbers, fetched by the page: a system call for each secret is a tenth of a registration."""

    def __init__(self) -> None:
        self._page = b""
        self._next = 0
        os.register_at_fork(after_in_child=self._forget)

    def draw(self, count: int) -> bytes:
        """Return `count` random bytes that nobody else gets, up to a page's size."""
        if self._next + count > len(self._page):
            self._page, self._next = os.urandom(_PAGE_BYTES), 0
        self._next += count
        return self._page[self._next - count : self._next]

    def _forget(self) -> None:
        """Leave the rest of the page to the parent: a forked child must not draw the same numbers."""
        self._page = b""


_entropy = _Entropy()


def new_id() -> UUID:
    """Make a UUIDv7 (RFC 9562): unique without asking anybody, and in order of time, so indexes grow at their end."""
    return uuid7()


def new_code() -> str:
    """Make a code of 80 random bits for people: sixteen characters in four groups, like 7K3M-9QXA-0V4D-ZZ18."""
    characters = base64.b32encode(_entropy.draw(10)).decode().translate(_TO_CROCKFORD)
    return f"{characters[:4]}-{characters[4:8]}-{characters[8:12]}-{characters[12:]}"


def new_secret(prefix: str = "") -> str:
    """Make a secret of 256 random bits, URL-safe. The prefix tells secret scanners and people what it opens."""
    return prefix + base64.urlsafe_b64encode(_entropy.draw(32)).rstrip(b"=").decode()


def digest(secret: str) -> bytes:
    """Return what is kept of a secret: SHA-256, enough for 256 random bits (a password needs a slow hash)."""
    return hashlib.sha256(secret.encode()).digest()
