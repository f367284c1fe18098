"""Identifiers and secrets."""

from __future__ import annotations

import base64
import hashlib
import secrets
from typing import TYPE_CHECKING

from uuid_utils.compat import uuid7

if TYPE_CHECKING:
    from uuid import UUID

# Crockford's alphabet: no I, L, O or U, so that a code can be read out at a door.
_TO_CROCKFORD = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", "0123456789ABCDEFGHJKMNPQRSTVWXYZ")


def new_id() -> UUID:
    """Make a UUIDv7 (RFC 9562): unique without asking anybody, and in order of time, so indexes grow at their end."""
    return uuid7()


def new_code() -> str:
    """Make a code of 80 random bits for people: sixteen characters in four groups, like 7K3M-9QXA-0V4D-ZZ18."""
    characters = base64.b32encode(secrets.token_bytes(10)).decode().translate(_TO_CROCKFORD)
    return f"{characters[:4]}-{characters[4:8]}-{characters[8:12]}-{characters[12:]}"


def new_secret(prefix: str = "") -> str:
    """Make a secret of 256 random bits, URL-safe. The prefix tells secret scanners and people what it opens."""
    return prefix + secrets.token_urlsafe(32)


def digest(secret: str) -> bytes:
    """Return what is kept of a secret: SHA-256, enough for 256 random bits (a password needs a slow hash)."""
    return hashlib.sha256(secret.encode()).digest()
