"""The SQL of accounts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rowlock.accounts.model import (
    ApiKey,
    Credentials,
    Member,
    Membership,
    Organization,
    Permission,
    Role,
    User,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from rowlock.kernel.database import Connection, Row, Transaction


async def insert_user(  # noqa: PLR0913 - one a column
    tx: Transaction, *, user_id: UUID, name: str, email: str, person_key: str, password_hash: str
) -> User | None:
    """Add a user and return it; None if the e-mail is taken."""
    row = await tx.fetch_one(
        "INSERT INTO users (id, name, email, person_key, password_hash) VALUES ($1, $2, $3, $4, $5)"
        " ON CONFLICT ON CONSTRAINT one_user_per_email DO NOTHING"
        " RETURNING id, name, email, person_key, created_at",
        user_id,
        name,
        email,
        person_key,
        password_hash,
    )
    return User(*row) if row else None


async def find_credentials(connection: Connection, person_key: str) -> Credentials | None:
    """Return what the sign-in of this person is checked against."""
    row = await connection.fetch_one("SELECT id, password_hash FROM users WHERE person_key = $1", person_key)
    return Credentials(*row) if row else None


async def find_user_id(connection: Connection, person_key: str) -> UUID | None:
    """Return the user with this e-mail."""
    found: UUID | None = await connection.fetch_value(
        "SELECT id FROM users WHERE person_key = $1", person_key
    )
    return found


async def replace_password_hash(tx: Transaction, old: Credentials, password_hash: str) -> None:
    """Replace a hash by a newer one of the same password, unless it has changed meanwhile."""
    await tx.execute(
        "UPDATE users SET password_hash = $3 WHERE id = $1 AND password_hash = $2",
        old.user_id,
        old.password_hash,
        password_hash,
    )


async def insert_token(tx: Transaction, token_hash: bytes, user_id: UUID, days: int) -> datetime:
    """Add an access token and return when it expires."""
    expires_at: datetime = await tx.fetch_value(
        "INSERT INTO access_token (token_hash, user_id, expires_at)"
        " VALUES ($1, $2, clock_timestamp() + make_interval(days => $3)) RETURNING expires_at",
        token_hash,
        user_id,
        days,
    )
    return expires_at


async def delete_token(tx: Transaction, token_hash: bytes) -> None:
    """Remove an access token."""
    await tx.execute("DELETE FROM access_token WHERE token_hash = $1", token_hash)


async def delete_expired_tokens(tx: Transaction, limit: int) -> int:
    """Remove at most `limit` expired access tokens, passing over those that another does; return how many."""
    return await tx.execute(
        "DELETE FROM access_token WHERE token_hash IN (SELECT token_hash FROM access_token"
        " WHERE expires_at <= clock_timestamp() ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED)",
        limit,
    )


async def find_user_by_token(
    connection: Connection, token_hash: bytes, memberships_max: int
) -> tuple[User, list[Membership]] | None:
    """Return whose valid token it is, and the organizations of this user, the oldest memberships first."""
    rows = await connection.fetch(
        "SELECT users.id, users.name, users.email, users.person_key, users.created_at,"
        " member.organization_id, member.role, organization.personal_user_id = users.id AS personal"
        " FROM access_token JOIN users ON users.id = access_token.user_id"
        " LEFT JOIN member ON member.user_id = users.id"
        " LEFT JOIN organization ON organization.id = member.organization_id"
        " WHERE access_token.token_hash = $1 AND access_token.expires_at > clock_timestamp()"
        " ORDER BY member.created_at LIMIT $2",
        token_hash,
        memberships_max,
    )
    if not rows:
        return None
    user = User(*(rows[0][name] for name in ("id", "name", "email", "person_key", "created_at")))
    memberships = [
        Membership(row["organization_id"], Role(row["role"]), bool(row["personal"]))
        for row in rows
        if row["organization_id"] is not None
    ]
    return user, memberships


async def find_key_by_hash(connection: Connection, key_hash: bytes) -> ApiKey | None:
    """Return a key that is neither revoked nor expired."""
    row = await connection.fetch_one(
        "SELECT id, organization_id, name, key_start, scopes, created_at, expires_at, revoked_at FROM api_key"
        " WHERE key_hash = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > clock_timestamp())",
        key_hash,
    )
    return _api_key(row) if row else None


async def insert_organization(
    tx: Transaction, organization_id: UUID, name: str, *, personal_user_id: UUID | None = None
) -> datetime:
    """Add an organization and return when that was."""
    created_at: datetime = await tx.fetch_value(
        "INSERT INTO organization (id, name, personal_user_id) VALUES ($1, $2, $3) RETURNING created_at",
        organization_id,
        name,
        personal_user_id,
    )
    return created_at


async def list_organizations(
    connection: Connection, ids: Collection[UUID], user_id: UUID | None, *, after: UUID | None, limit: int
) -> list[Organization]:
    """Return those of the organizations that come after one, in order of their ids, with the user's role in each."""
    rows = await connection.fetch(
        "SELECT organization.id, organization.name, organization.personal_user_id IS NOT NULL AS personal,"
        " member.role, organization.created_at FROM organization"
        " LEFT JOIN member ON member.organization_id = organization.id AND member.user_id = $2"
        " WHERE organization.id = ANY($1::uuid[]) AND ($3::uuid IS NULL OR organization.id > $3)"
        " ORDER BY organization.id LIMIT $4",
        list(ids),
        user_id,
        after,
        limit,
    )
    return [
        Organization(**{**row, "role": None if row["role"] is None else Role(row["role"])})
        for row in map(dict, rows)
    ]


async def lock_organization(tx: Transaction, organization_id: UUID) -> None:
    """Lock an organization against others who change who is in it.

    NO KEY UPDATE excludes its like as UPDATE does, and lets those pass whose new rows refer to the organization.
    """
    await tx.fetch_value("SELECT id FROM organization WHERE id = $1 FOR NO KEY UPDATE", organization_id)


async def find_role(connection: Connection, organization_id: UUID, user_id: UUID) -> Role | None:
    """Return a member's role."""
    role = await connection.fetch_value(
        "SELECT role FROM member WHERE organization_id = $1 AND user_id = $2", organization_id, user_id
    )
    return None if role is None else Role(role)


async def has_other_owner(connection: Connection, organization_id: UUID, user_id: UUID) -> bool:
    """Tell whether the organization has an owner besides this user."""
    other: bool = await connection.fetch_value(
        "SELECT EXISTS (SELECT FROM member WHERE organization_id = $1 AND user_id <> $2 AND role = 'owner')",
        organization_id,
        user_id,
    )
    return other


async def count_organizations(connection: Connection, user_id: UUID) -> int:
    """Count the organizations that a user belongs to."""
    organizations: int = await connection.fetch_value(
        "SELECT count(*) FROM member WHERE user_id = $1", user_id
    )
    return organizations


async def insert_member(tx: Transaction, organization_id: UUID, user_id: UUID, role: Role) -> bool:
    """Add a member; False if the user is one already."""
    added = await tx.execute(
        "INSERT INTO member (organization_id, user_id, role) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        organization_id,
        user_id,
        role.value,
    )
    return added == 1


async def update_role(tx: Transaction, organization_id: UUID, user_id: UUID, role: Role) -> None:
    """Give a member another role."""
    await tx.execute(
        "UPDATE member SET role = $3 WHERE organization_id = $1 AND user_id = $2",
        organization_id,
        user_id,
        role.value,
    )


async def delete_member(tx: Transaction, organization_id: UUID, user_id: UUID) -> None:
    """Remove a member."""
    await tx.execute(
        "DELETE FROM member WHERE organization_id = $1 AND user_id = $2", organization_id, user_id
    )


async def find_member(connection: Connection, organization_id: UUID, user_id: UUID) -> Member | None:
    """Return a member."""
    row = await connection.fetch_one(
        "SELECT users.id AS user_id, users.name, users.email, member.role, member.created_at"
        " FROM member JOIN users ON users.id = member.user_id"
        " WHERE member.organization_id = $1 AND member.user_id = $2",
        organization_id,
        user_id,
    )
    return _member(row) if row else None


async def list_members(
    connection: Connection, organization_id: UUID, *, after: UUID | None, limit: int
) -> list[Member]:
    """Return members that come after one, in order of their users' ids."""
    rows = await connection.fetch(
        "SELECT users.id AS user_id, users.name, users.email, member.role, member.created_at"
        " FROM member JOIN users ON users.id = member.user_id"
        " WHERE member.organization_id = $1 AND ($2::uuid IS NULL OR member.user_id > $2)"
        " ORDER BY member.user_id LIMIT $3",
        organization_id,
        after,
        limit,
    )
    return [_member(row) for row in rows]


async def insert_api_key(  # noqa: PLR0913 - one a column
    tx: Transaction,
    *,
    key_id: UUID,
    organization_id: UUID,
    name: str,
    key_hash: bytes,
    key_start: str,
    scopes: Sequence[Permission],
    created_by: UUID,
    expires_at: datetime | None,
) -> ApiKey | None:
    """Add a key and return it; None if its end is not in the future."""
    row = await tx.fetch_one(
        "INSERT INTO api_key (id, organization_id, name, key_hash, key_start, scopes, created_by, expires_at)"
        " SELECT $1, $2, $3, $4, $5, $6, $7, $8::timestamptz"
        " WHERE $8::timestamptz IS NULL OR $8::timestamptz > clock_timestamp()"
        " RETURNING id, organization_id, name, key_start, scopes, created_at, expires_at, revoked_at",
        key_id,
        organization_id,
        name,
        key_hash,
        key_start,
        [scope.value for scope in scopes],
        created_by,
        expires_at,
    )
    return _api_key(row) if row else None


async def list_api_keys(
    connection: Connection, organization_id: UUID, *, after: UUID | None, limit: int
) -> list[ApiKey]:
    """Return keys that come after one, the oldest first."""
    rows = await connection.fetch(
        "SELECT id, organization_id, name, key_start, scopes, created_at, expires_at, revoked_at FROM api_key"
        " WHERE organization_id = $1 AND ($2::uuid IS NULL OR id > $2) ORDER BY id LIMIT $3",
        organization_id,
        after,
        limit,
    )
    return [_api_key(row) for row in rows]


async def revoke_api_key(tx: Transaction, organization_id: UUID, key_id: UUID) -> ApiKey | None:
    """End a key's validity, once, and return it; None if the organization has no such key."""
    row = await tx.fetch_one(
        "UPDATE api_key SET revoked_at = coalesce(revoked_at, clock_timestamp())"
        " WHERE organization_id = $1 AND id = $2"
        " RETURNING id, organization_id, name, key_start, scopes, created_at, expires_at, revoked_at",
        organization_id,
        key_id,
    )
    return _api_key(row) if row else None


def _member(row: Row) -> Member:
    values: Mapping[str, Any] = {**row, "role": Role(row["role"])}
    return Member(**values)


def _api_key(row: Row) -> ApiKey:
    values: Mapping[str, Any] = {**row, "scopes": tuple(Permission(scope) for scope in row["scopes"])}
    return ApiKey(**values)
