"""Why an order can be refused."""

from __future__ import annotations

from rowlock.kernel.errors import Conflict


class SoldOut(Conflict):
    """Event full."""


class AlreadyRegistered(Conflict):
    """This person is registered already."""


class NotOnSale(Conflict):
    """This event is not on sale."""
