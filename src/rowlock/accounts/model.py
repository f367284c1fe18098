"""Users, organizations, roles, keys, and the caller of a request."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from uuid import UUID


class Role(StrEnum):
    """What a member is in an organization."""

    OWNER = "owner"
    MANAGER = "manager"
    FINANCE = "finance"
    SUPPORT = "support"
    DOOR = "door"


class Permission(StrEnum):
    """What a role allows, and what an API key's scopes are made of."""

    ORGANIZATION_READ = "organization:read"
    ORGANIZATION_WRITE = "organization:write"
    EVENTS_READ = "events:read"
    EVENTS_WRITE = "events:write"
    REGISTRATIONS_READ = "registrations:read"
    REGISTRATIONS_WRITE = "registrations:write"


_READS = frozenset({Permission.ORGANIZATION_READ, Permission.EVENTS_READ, Permission.REGISTRATIONS_READ})
ALLOWED: Mapping[Role, frozenset[Permission]] = {
    Role.OWNER: frozenset(Permission),
    Role.MANAGER: frozenset(Permission) - {Permission.ORGANIZATION_WRITE},
    Role.FINANCE: _READS,
    Role.SUPPORT: _READS | {Permission.REGISTRATIONS_WRITE},
    Role.DOOR: frozenset({Permission.ORGANIZATION_READ, Permission.EVENTS_READ}),
}
KEY_SCOPES = frozenset(Permission) - {Permission.ORGANIZATION_WRITE}


@dataclass(frozen=True, slots=True)
class User:
    """A person who can sign in. `person_key` is the e-mail in the form that tells people apart."""

    id: UUID
    name: str
    email: str
    person_key: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: nobody we know, a user, or an API key that acts for its organization."""

    actor: str
    user: User | None = None
    permissions: Mapping[UUID, frozenset[Permission]] = field(default_factory=dict)
    home: UUID | None = None

    def may(self, permission: Permission, organization_id: UUID) -> bool:
        """Tell whether the caller may do this in the organization."""
        return permission in self.permissions.get(organization_id, frozenset())

    def belongs_to(self, organization_id: UUID) -> bool:
        """Tell whether the organization is the caller's own, so that it need not look like a missing one."""
        return organization_id in self.permissions


ANONYMOUS = Caller("anonymous")


@dataclass(frozen=True, slots=True)
class Organization:
    """The tenant: it owns events, members and keys. `role` is the caller's own in it; an API key has none."""

    id: UUID
    name: str
    personal: bool
    role: Role | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Member:
    """A user in an organization."""

    user_id: UUID
    name: str
    email: str
    role: Role
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Membership:
    """An organization as seen by one of its members."""

    organization_id: UUID
    role: Role
    personal: bool


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key that acts for its organization. It is shown once; `key_start` helps people to tell keys apart."""

    id: UUID
    organization_id: UUID
    name: str
    key_start: str
    scopes: tuple[Permission, ...]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a sign-in is checked against."""

    user_id: UUID
    password_hash: str
