"""E-mail addresses: checked by form, never by asking the network."""

from __future__ import annotations

import re
import unicodedata

from email_validator import EmailNotValidError, validate_email

EMAIL_MAX_CHARACTERS = 254
# The form that nearly every address has; the library is asked about the others (quotes, other alphabets).
_PLAIN = re.compile(
    r"[A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z][A-Za-z0-9-]{0,61}[A-Za-z0-9]"
)
_LOCAL_MAX_CHARACTERS = 64


def parse_email(text: str) -> str:
    """Return the address in its normal form: spaces around it gone, its domain in lower case.

    Raises:
        ValueError: it has not the form of an e-mail address (RFC 5321, RFC 6531) with a dot in its domain.

    """
    address = text.strip()
    if len(address) > EMAIL_MAX_CHARACTERS:
        message = f"An e-mail address has at most {EMAIL_MAX_CHARACTERS} characters."
        raise ValueError(message)
    local, _, domain = address.rpartition("@")
    if len(local) <= _LOCAL_MAX_CHARACTERS and _PLAIN.fullmatch(address) and "--" not in domain:
        return f"{local}@{domain.lower()}"
    try:
        normal = validate_email(
            address, check_deliverability=False, globally_deliverable=False, strict=True
        ).normalized
    except EmailNotValidError as error:
        raise ValueError(str(error)) from None
    if "." not in normal.rpartition("@")[2] or len(normal) > EMAIL_MAX_CHARACTERS:
        message = "The part after the @-sign is not complete; it should have a dot, like example.org."
        raise ValueError(message)
    return normal


def person_key(address: str) -> str:
    """Return what tells people apart: the address case-folded, so that Ann@Example.org is ann@example.org."""
    return unicodedata.normalize("NFC", address.casefold())
