"""What accounts refuse."""

from __future__ import annotations

from rowlock.kernel.errors import Conflict, NotFound


class EmailTaken(Conflict):
    """Somebody signed up with this e-mail address already."""


class UserNotFound(NotFound):
    """Nobody signed up with this e-mail address."""


class AlreadyMember(Conflict):
    """This user is a member already."""


class LastOwner(Conflict):
    """An organization keeps at least one owner."""


class TooManyOrganizations(Conflict):
    """This user belongs to as many organizations as one can."""
