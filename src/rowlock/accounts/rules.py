"""Who may do what, and when an organization would be left without an owner."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rowlock.accounts.errors import LastOwner
from rowlock.accounts.model import ALLOWED, Role
from rowlock.kernel.errors import Forbidden, NotFound, Unauthenticated

if TYPE_CHECKING:
    from uuid import UUID

    from rowlock.accounts.model import Caller, Permission, User


def require(caller: Caller, organization_id: UUID, permission: Permission) -> None:
    """Let pass whoever may do this in the organization.

    Raises:
        NotFound: the organization is not the caller's own; it looks as if it did not exist.
        Forbidden: it is, but the role or the key's scopes do not include this.

    """
    if not caller.belongs_to(organization_id):
        raise NotFound
    if not caller.may(permission, organization_id):
        raise Forbidden(f"This needs the permission {permission}.")


def require_role(role: Role | None, permission: Permission) -> None:
    """Let pass a member whose role allows this; None is no member.

    Raises:
        NotFound, Forbidden: as `require`.

    """
    if role is None:
        raise NotFound
    if permission not in ALLOWED[role]:
        raise Forbidden(f"This needs the permission {permission}.")


def require_signed_in(caller: Caller) -> Caller:
    """Return the caller, a user or a key.

    Raises:
        Unauthenticated: it is nobody we know.

    """
    if caller.user is None and not caller.permissions:
        raise Unauthenticated
    return caller


def require_user(caller: Caller) -> User:
    """Return the user who asks.

    Raises:
        Unauthenticated: it is nobody we know.
        Forbidden: it is an API key.

    """
    if caller.user is None:
        require_signed_in(caller)
        raise Forbidden("API keys are not users: sign in as a user for this.")
    return caller.user


def keep_an_owner(before: Role, after: Role | None, *, other_owner: bool) -> None:
    """Let pass a change of a member's role, None being its end, after which the organization still has an owner.

    Raises:
        LastOwner: it would have none.

    """
    if before is Role.OWNER and after is not Role.OWNER and not other_owner:
        raise LastOwner
