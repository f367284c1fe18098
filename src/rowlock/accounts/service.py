"""Signing up and in, who a token belongs to, and the members and keys of organizations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rowlock.accounts import passwords, repository, rules
from rowlock.accounts.errors import AlreadyMember, EmailTaken, TooManyOrganizations, UserNotFound
from rowlock.accounts.model import ALLOWED, Caller, Organization, Permission, Role
from rowlock.accounts.rules import require, require_signed_in, require_user
from rowlock.kernel.errors import NotFound, Unauthenticated, ValidationFailed
from rowlock.kernel.ids import digest, new_id, new_secret
from rowlock.kernel.mail import person_key

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from uuid import UUID

    from rowlock.accounts.model import ApiKey, Credentials, Member, User
    from rowlock.kernel.database import Connection, Database, Transaction

# Decided in rules; other features ask here.
__all__ = ["require", "require_signed_in", "require_user"]

TOKEN_PREFIX = "rlt_"  # noqa: S105 - says what it is, opens nothing
KEY_PREFIX = "rlk_"
KEY_START_CHARACTERS = 10
# A token's permissions are read with every request, so they must have an end.
ORGANIZATIONS_MAX = 1000


async def identify(db: Database, token: str) -> Caller:
    """Return the user or the API key that a token belongs to, with its permissions.

    Raises:
        Unauthenticated: there is no such token, or it has expired or been revoked.

    """
    async with db.connection() as connection:
        if token.startswith(TOKEN_PREFIX):
            return await _user_of(connection, token)
        if token.startswith(KEY_PREFIX):
            return await _key_of(connection, token)
    raise Unauthenticated


async def sign_up(tx: Transaction, *, name: str, email: str, password_hash: str) -> User:
    """Add a user, and a personal organization with the same name that the user owns.

    Raises:
        EmailTaken: the address, in whatever letters, has a user already.

    """
    user = await repository.insert_user(
        tx,
        user_id=new_id(),
        name=name,
        email=email,
        person_key=person_key(email),
        password_hash=password_hash,
    )
    if user is None:
        raise EmailTaken
    organization_id = new_id()
    await repository.insert_organization(tx, organization_id, name, personal_user_id=user.id)
    await repository.insert_member(tx, organization_id, user.id, Role.OWNER)
    return user


async def check_password(db: Database, email: str, password: str) -> Credentials:
    """Return the credentials of the person who knows the password, for `sign_in`.

    Raises:
        Unauthenticated: the address or the password is wrong; neither the answer nor the work tells which.

    """
    async with db.connection() as connection:
        credentials = await repository.find_credentials(connection, person_key(email))
    matches = await passwords.verify(credentials.password_hash if credentials else None, password)
    if credentials is None or not matches:
        raise Unauthenticated("The e-mail address or the password is wrong.")
    if passwords.is_outdated(credentials.password_hash):
        newer = await passwords.hash_password(password)
        async with db.transaction() as tx:
            await repository.replace_password_hash(tx, credentials, newer)
    return credentials


async def sign_in(tx: Transaction, credentials: Credentials, days: int) -> tuple[str, datetime]:
    """Make an access token for checked credentials; return it and when it expires. Only its digest is kept."""
    token = new_secret(TOKEN_PREFIX)
    return token, await repository.insert_token(tx, digest(token), credentials.user_id, days)


async def sign_out(db: Database, token: str) -> None:
    """Make an access token worthless."""
    async with db.transaction() as tx:
        await repository.delete_token(tx, digest(token))


async def forget_expired(tx: Transaction, limit: int) -> int:
    """Delete at most `limit` access tokens that are past their time; return how many."""
    return await repository.delete_expired_tokens(tx, limit)


async def found_organization(tx: Transaction, user: User, name: str) -> Organization:
    """Add an organization that the user owns.

    Raises:
        TooManyOrganizations: the user belongs to ORGANIZATIONS_MAX already.

    """
    organization_id = new_id()
    created_at = await repository.insert_organization(tx, organization_id, name)
    await _join(tx, organization_id, user.id, Role.OWNER)
    return Organization(organization_id, name, personal=False, role=Role.OWNER, created_at=created_at)


async def organizations(
    connection: Connection, caller: Caller, *, after: UUID | None = None, limit: int
) -> list[Organization]:
    """Return the caller's organizations that come after one, in order of their ids."""
    user_id = caller.user.id if caller.user else None
    return await repository.list_organizations(
        connection, caller.permissions, user_id, after=after, limit=limit
    )


async def organization(connection: Connection, caller: Caller, organization_id: UUID) -> Organization:
    """Return one of the caller's organizations; whoever belongs to it may know it.

    Raises:
        NotFound: it is not the caller's own, or does not exist.

    """
    if not caller.belongs_to(organization_id):
        raise NotFound
    user_id = caller.user.id if caller.user else None
    found = await repository.list_organizations(connection, [organization_id], user_id, after=None, limit=1)
    return found[0]


async def members(
    connection: Connection, caller: Caller, organization_id: UUID, *, after: UUID | None, limit: int
) -> list[Member]:
    """Return members that come after one, in order of their users' ids.

    Raises:
        NotFound, Forbidden: the caller may not read the organization.

    """
    require(caller, organization_id, Permission.ORGANIZATION_READ)
    return await repository.list_members(connection, organization_id, after=after, limit=limit)


async def add_member(
    tx: Transaction, caller: Caller, organization_id: UUID, email: str, role: Role
) -> Member:
    """Make the user with this e-mail a member.

    Raises:
        NotFound, Forbidden: the caller may not change the organization.
        UserNotFound: nobody signed up with this address.
        AlreadyMember: the user is one.
        TooManyOrganizations: the user belongs to ORGANIZATIONS_MAX already.

    """
    await _lock_as_owner(tx, caller, organization_id)
    user_id = await repository.find_user_id(tx, person_key(email))
    if user_id is None:
        raise UserNotFound
    await _join(tx, organization_id, user_id, role)
    return await _member(tx, organization_id, user_id)


async def change_role(
    db: Database, caller: Caller, organization_id: UUID, user_id: UUID, role: Role
) -> Member:
    """Give a member another role.

    Raises:
        NotFound, Forbidden: the caller may not change the organization, or has no such member in it.
        LastOwner: nobody would own the organization any more.

    """
    async with db.transaction() as tx:
        await _lock_as_owner(tx, caller, organization_id)
        await _keep_an_owner(tx, organization_id, user_id, role)
        await repository.update_role(tx, organization_id, user_id, role)
        return await _member(tx, organization_id, user_id)


async def remove_member(db: Database, caller: Caller, organization_id: UUID, user_id: UUID) -> None:
    """End a membership.

    Raises:
        NotFound, Forbidden: the caller may not change the organization, or has no such member in it.
        LastOwner: nobody would own the organization any more.

    """
    async with db.transaction() as tx:
        await _lock_as_owner(tx, caller, organization_id)
        await _keep_an_owner(tx, organization_id, user_id, None)
        await repository.delete_member(tx, organization_id, user_id)


async def create_api_key(  # noqa: PLR0913 - what a key is made of
    tx: Transaction,
    caller: Caller,
    organization_id: UUID,
    *,
    name: str,
    scopes: Sequence[Permission],
    expires_at: datetime | None,
) -> tuple[ApiKey, str]:
    """Add an API key; return its record and the key itself, of which only the digest is kept.

    Raises:
        NotFound, Forbidden: the caller may not change the organization.
        ValidationFailed: `expires_at` is not in the future.

    """
    owner = await _lock_as_owner(tx, caller, organization_id)
    secret = new_secret(KEY_PREFIX)
    key = await repository.insert_api_key(
        tx,
        key_id=new_id(),
        organization_id=organization_id,
        name=name,
        key_hash=digest(secret),
        key_start=secret[:KEY_START_CHARACTERS],
        scopes=sorted(scopes),
        created_by=owner.id,
        expires_at=expires_at,
    )
    if key is None:
        raise ValidationFailed([{"pointer": "/expires_at", "detail": "This must be in the future."}])
    return key, secret


async def api_keys(
    connection: Connection, caller: Caller, organization_id: UUID, *, after: UUID | None, limit: int
) -> list[ApiKey]:
    """Return API keys that come after one, the oldest first; also those that are over.

    Raises:
        NotFound, Forbidden: the caller may not change the organization.

    """
    require(caller, organization_id, Permission.ORGANIZATION_WRITE)
    return await repository.list_api_keys(connection, organization_id, after=after, limit=limit)


async def revoke_api_key(db: Database, caller: Caller, organization_id: UUID, key_id: UUID) -> ApiKey:
    """Make an API key worthless; again is the same answer.

    Raises:
        NotFound, Forbidden: the caller may not change the organization, or it has no such key.

    """
    async with db.transaction() as tx:
        await _lock_as_owner(tx, caller, organization_id)
        key = await repository.revoke_api_key(tx, organization_id, key_id)
    if key is None:
        raise NotFound
    return key


async def _user_of(connection: Connection, token: str) -> Caller:
    found = await repository.find_user_by_token(connection, digest(token), ORGANIZATIONS_MAX)
    if found is None:
        raise Unauthenticated
    user, memberships = found
    permissions = {membership.organization_id: ALLOWED[membership.role] for membership in memberships}
    home = next((membership.organization_id for membership in memberships if membership.personal), None)
    return Caller(f"user:{user.id}", user, permissions, home)


async def _key_of(connection: Connection, token: str) -> Caller:
    key = await repository.find_key_by_hash(connection, digest(token))
    if key is None:
        raise Unauthenticated
    return Caller(f"key:{key.id}", None, {key.organization_id: frozenset(key.scopes)}, key.organization_id)


async def _lock_as_owner(tx: Transaction, caller: Caller, organization_id: UUID) -> User:
    """Lock the organization against other changes of its members, then ask again whether the caller is an owner.

    What was read before the lock may be over: two owners who demote each other both began as owners.
    """
    require(caller, organization_id, Permission.ORGANIZATION_WRITE)
    user = require_user(caller)
    await repository.lock_organization(tx, organization_id)
    role = await repository.find_role(tx, organization_id, user.id)
    rules.require_role(role, Permission.ORGANIZATION_WRITE)
    return user


async def _keep_an_owner(tx: Transaction, organization_id: UUID, user_id: UUID, role: Role | None) -> None:
    before = await repository.find_role(tx, organization_id, user_id)
    if before is None:
        raise NotFound
    other_owner = await repository.has_other_owner(tx, organization_id, user_id)
    rules.keep_an_owner(before, role, other_owner=other_owner)


async def _join(tx: Transaction, organization_id: UUID, user_id: UUID, role: Role) -> None:
    if not await repository.insert_member(tx, organization_id, user_id, role):
        raise AlreadyMember
    # Counted without a lock: a few more, added at the same instant, do no harm.
    if await repository.count_organizations(tx, user_id) > ORGANIZATIONS_MAX:
        raise TooManyOrganizations


async def _member(tx: Transaction, organization_id: UUID, user_id: UUID) -> Member:
    member = await repository.find_member(tx, organization_id, user_id)
    if member is None:
        raise NotFound
    return member
