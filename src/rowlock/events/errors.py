"""What events refuse."""

from __future__ import annotations

from rowlock.kernel.errors import Conflict


class BelowCommitted(Conflict):
    """The capacity cannot be less than the seats that are taken.

    `committed` counts them.
    """


class TooManyTicketTypes(Conflict):
    """This event has as many ticket types as one can."""
