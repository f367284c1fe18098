"""The bytes that are sent. They are prepared, so that making a request costs the load generator next to nothing."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from rowlock.cli.wire import request

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

REGISTRATIONS = "/api/v1/registrations"
NOOP = "/noop"
DIGITS = 7
GAP = "~" * DIGITS
TURNS = 1 << 14


def registrations(host: str, path: str, event_ids: Sequence[str], prefix: str) -> Callable[[int], bytes]:
    """Return what makes the requests 0, 1, 2, …, each for another person, spread over the events at random.

    The same numbers give the same order of events in each run. `prefix` must be new for each load.
    """
    templates = [_template(host, path, event_id, prefix) for event_id in event_ids]
    if len(templates) == 1:
        only = templates[0]
        return lambda number: only % (number, number)
    dice = random.Random(len(templates))  # noqa: S311 - not a secret
    turns = [dice.choice(templates) for _ in range(TURNS)]
    return lambda number: turns[number % TURNS] % (number, number)


def _template(host: str, path: str, event_id: str, prefix: str) -> bytes:
    """Return a request with two gaps for numbers of fixed width, so that its length is always the same."""
    body = {"event_id": event_id, "name": f"Guest {GAP}", "email": f"{prefix}-{GAP}@example.org"}
    raw = request("POST", path, host=host, body=body)
    assert b"%" not in raw, "the gaps are the only signs of this kind"
    return raw.replace(GAP.encode(), f"%0{DIGITS}d".encode())
