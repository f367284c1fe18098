"""JSON over HTTP: users, tokens, organizations, members, API keys. The root of the paths is the application's."""

from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    WithJsonSchema,
)

from rowlock.accounts import passwords, service
from rowlock.accounts.model import ANONYMOUS, KEY_SCOPES, Caller, Permission, Role, User
from rowlock.kernel.database import Transaction
from rowlock.kernel.idempotency import Reply
from rowlock.kernel.mail import EMAIL_MAX_CHARACTERS, parse_email
from rowlock.kernel.paging import PAGE_DEFAULT, encode_cursor, page_by_id
from rowlock.web.auth import token_of, who
from rowlock.web.idempotency import answer_once
from rowlock.web.openapi import created, problems
from rowlock.web.parameters import ROOT, Cursor, Db, Limit, Name

PASSWORD_MAX_CHARACTERS = 200

# The handlers' names are the operation ids.
router = APIRouter(tags=["accounts"], generate_unique_id_function=lambda route: route.name)


async def _signed_in(caller: Annotated[Caller, Depends(who)]) -> Caller:
    return service.require_signed_in(caller)


async def _user(caller: Annotated[Caller, Depends(who)]) -> User:
    return service.require_user(caller)


def _key_scope(scope: Permission) -> Permission:
    if scope not in KEY_SCOPES:
        message = "An API key cannot have this scope."
        raise ValueError(message)
    return scope


def _unique(scopes: list[Permission]) -> list[Permission]:
    if len(set(scopes)) < len(scopes):
        message = "A scope is listed twice."
        raise ValueError(message)
    return scopes


def _utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        message = "This is too far away."
        raise ValueError(message) from None


Who = Annotated[Caller, Depends(who)]
SignedIn = Annotated[Caller, Depends(_signed_in)]
CurrentUser = Annotated[User, Depends(_user)]
Email = Annotated[
    str,
    Field(min_length=3, max_length=EMAIL_MAX_CHARACTERS, json_schema_extra={"format": "email"}),
    AfterValidator(parse_email),
]
_HIDDEN = {"format": "password", "writeOnly": True}
Password = Annotated[str, Field(min_length=1, max_length=PASSWORD_MAX_CHARACTERS, json_schema_extra=_HIDDEN)]
NewPassword = Annotated[
    str, Field(min_length=8, max_length=PASSWORD_MAX_CHARACTERS, json_schema_extra=_HIDDEN)
]
Scope = Annotated[
    Permission, AfterValidator(_key_scope), WithJsonSchema({"type": "string", "enum": sorted(KEY_SCOPES)})
]
Scopes = Annotated[
    list[Scope], Field(min_length=1, json_schema_extra={"uniqueItems": True}), AfterValidator(_unique)
]


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Out(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class NewUser(_In):
    """A sign-up."""

    name: Name
    email: Email
    password: NewPassword


class UserOut(_Out):
    """A user."""

    id: UUID
    name: str
    email: str
    created_at: datetime


class SignIn(_In):
    """What a user signs in with."""

    email: Email
    password: Password


class TokenOut(_Out):
    """A token for the Authorization header. It is shown this once."""

    token: str
    token_type: str = "Bearer"  # noqa: S105 - the scheme's name
    expires_at: datetime


class MembershipOut(_Out):
    """An organization, and the user's role in it."""

    id: UUID
    name: str
    personal: bool
    role: Role


class Me(UserOut):
    """The user who asks."""

    organizations: list[MembershipOut]


class NewOrganization(_In):
    """An organization to be."""

    name: Name


class OrganizationOut(_Out):
    """An organization; `role` is the caller's own in it, null for an API key."""

    id: UUID
    name: str
    personal: bool
    role: Role | None
    created_at: datetime


class Organizations(BaseModel):
    """A page of organizations."""

    items: list[OrganizationOut]
    next_cursor: str | None


class NewMember(_In):
    """Who is to be a member, as what."""

    email: Email
    role: Role


class RoleChange(_In):
    """What a member is to be."""

    role: Role


class MemberOut(_Out):
    """A member."""

    user_id: UUID
    name: str
    email: str
    role: Role
    created_at: datetime


class Members(BaseModel):
    """A page of members."""

    items: list[MemberOut]
    next_cursor: str | None


class NewApiKey(_In):
    """An API key to be; without `expires_at` it is valid until it is revoked."""

    name: Name
    scopes: Scopes
    expires_at: Annotated[AwareDatetime, AfterValidator(_utc)] | None = None


class ApiKeyOut(_Out):
    """An API key without the key; `key_start` helps to tell keys apart."""

    id: UUID
    name: str
    key_start: str
    scopes: list[Scope]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


class CreatedApiKey(_Out):
    """A new API key. `key` is shown this once."""

    id: UUID
    name: str
    key: str
    key_start: str
    scopes: list[Scope]
    created_at: datetime
    expires_at: datetime | None


class ApiKeys(BaseModel):
    """A page of API keys."""

    items: list[ApiKeyOut]
    next_cursor: str | None


@router.post("/users", status_code=201, response_model=UserOut, responses=created())
async def create_user(request: Request, body: NewUser) -> Response:
    """Sign up. Every user has a personal organization from the start."""
    password_hash = await passwords.hash_password(body.password)

    async def work(tx: Transaction) -> Reply:
        user = await service.sign_up(tx, name=body.name, email=body.email, password_hash=password_hash)
        return _created(UserOut.model_validate(user), "/users/me")

    return await answer_once(request, ANONYMOUS.actor, work)


@router.post("/tokens", status_code=201, response_model=TokenOut, responses=created(401))
async def create_token(request: Request, db: Db, body: SignIn) -> Response:
    """Sign in."""
    credentials = await service.check_password(db, body.email, body.password)

    async def work(tx: Transaction) -> Reply:
        token, expires_at = await service.sign_in(tx, credentials, request.app.state.settings.token_days)
        return _created(TokenOut(token=token, expires_at=expires_at), "/tokens/current")

    return await answer_once(request, ANONYMOUS.actor, work)


@router.delete("/tokens/current", status_code=204, responses=problems(401, 403))
async def delete_token(request: Request, db: Db, _user: CurrentUser) -> None:
    """Sign out: the token of this request is worthless from now on."""
    await service.sign_out(db, token_of(request) or "")


@router.get("/users/me", responses=problems(401, 403))
async def get_me(db: Db, caller: SignedIn, user: CurrentUser) -> Me:
    """Return the user who asks."""
    async with db.connection() as connection:
        mine = await service.organizations(connection, caller, limit=service.ORGANIZATIONS_MAX)
    memberships = [MembershipOut.model_validate(organization) for organization in mine]
    return Me(
        id=user.id, name=user.name, email=user.email, created_at=user.created_at, organizations=memberships
    )


@router.get("/organizations", responses=problems(401))
async def list_organizations(
    db: Db, caller: SignedIn, limit: Limit = PAGE_DEFAULT, cursor: Cursor = None
) -> Organizations:
    """List the caller's organizations."""
    page = page_by_id(cursor, limit)
    async with db.connection() as connection:
        found = await service.organizations(connection, caller, after=page.after, limit=page.limit)
    items = [OrganizationOut.model_validate(organization) for organization in found[:limit]]
    return Organizations(items=items, next_cursor=encode_cursor(items[-1].id) if len(found) > limit else None)


@router.post("/organizations", status_code=201, response_model=OrganizationOut, responses=created(401, 403))
async def create_organization(
    request: Request, caller: SignedIn, user: CurrentUser, body: NewOrganization
) -> Response:
    """Add an organization that the caller owns."""

    async def work(tx: Transaction) -> Reply:
        organization = await service.found_organization(tx, user, body.name)
        return _created(OrganizationOut.model_validate(organization), f"/organizations/{organization.id}")

    return await answer_once(request, caller.actor, work)


@router.get("/organizations/{organization_id}", responses=problems(401, 404))
async def get_organization(db: Db, caller: SignedIn, organization_id: UUID) -> OrganizationOut:
    """Return an organization that the caller belongs to."""
    async with db.connection() as connection:
        return OrganizationOut.model_validate(await service.organization(connection, caller, organization_id))


@router.get("/organizations/{organization_id}/members", responses=problems(401, 403, 404))
async def list_members(
    db: Db, caller: SignedIn, organization_id: UUID, limit: Limit = PAGE_DEFAULT, cursor: Cursor = None
) -> Members:
    """List an organization's members."""
    page = page_by_id(cursor, limit)
    async with db.connection() as connection:
        found = await service.members(connection, caller, organization_id, after=page.after, limit=page.limit)
    items = [MemberOut.model_validate(member) for member in found[:limit]]
    return Members(items=items, next_cursor=encode_cursor(items[-1].user_id) if len(found) > limit else None)


@router.post(
    "/organizations/{organization_id}/members",
    status_code=201,
    response_model=MemberOut,
    responses=created(401, 403, 404),
)
async def add_member(request: Request, caller: SignedIn, organization_id: UUID, body: NewMember) -> Response:
    """Make a user a member. Owners may."""
    service.require(caller, organization_id, Permission.ORGANIZATION_WRITE)

    async def work(tx: Transaction) -> Reply:
        member = await service.add_member(tx, caller, organization_id, body.email, body.role)
        where = f"/organizations/{organization_id}/members/{member.user_id}"
        return _created(MemberOut.model_validate(member), where)

    return await answer_once(request, caller.actor, work)


@router.patch("/organizations/{organization_id}/members/{user_id}", responses=problems(401, 403, 404, 409))
async def change_member(
    db: Db, caller: SignedIn, organization_id: UUID, user_id: UUID, body: RoleChange
) -> MemberOut:
    """Give a member another role. Owners may; the last owner stays one."""
    return MemberOut.model_validate(
        await service.change_role(db, caller, organization_id, user_id, body.role)
    )


@router.delete(
    "/organizations/{organization_id}/members/{user_id}",
    status_code=204,
    responses=problems(401, 403, 404, 409),
)
async def remove_member(db: Db, caller: SignedIn, organization_id: UUID, user_id: UUID) -> None:
    """End a membership. Owners may; the last owner stays."""
    await service.remove_member(db, caller, organization_id, user_id)


@router.post(
    "/organizations/{organization_id}/api-keys",
    status_code=201,
    response_model=CreatedApiKey,
    responses=created(401, 403, 404),
)
async def create_api_key(
    request: Request, caller: SignedIn, organization_id: UUID, body: NewApiKey
) -> Response:
    """Add an API key that acts for the organization. Owners may. The key is shown this once."""
    service.require(caller, organization_id, Permission.ORGANIZATION_WRITE)

    async def work(tx: Transaction) -> Reply:
        key, secret = await service.create_api_key(
            tx, caller, organization_id, name=body.name, scopes=body.scopes, expires_at=body.expires_at
        )
        shown = CreatedApiKey(key=secret, **ApiKeyOut.model_validate(key).model_dump(exclude={"revoked_at"}))
        return _created(shown, f"/organizations/{organization_id}/api-keys/{key.id}")

    # The kept answer holds a secret: only the very credentials that got it open it again.
    return await answer_once(request, caller.actor, work, (token_of(request) or "").encode())


@router.get("/organizations/{organization_id}/api-keys", responses=problems(401, 403, 404))
async def list_api_keys(
    db: Db, caller: SignedIn, organization_id: UUID, limit: Limit = PAGE_DEFAULT, cursor: Cursor = None
) -> ApiKeys:
    """List an organization's API keys, also those that are over. Owners may."""
    page = page_by_id(cursor, limit)
    async with db.connection() as connection:
        found = await service.api_keys(
            connection, caller, organization_id, after=page.after, limit=page.limit
        )
    items = [ApiKeyOut.model_validate(key) for key in found[:limit]]
    return ApiKeys(items=items, next_cursor=encode_cursor(items[-1].id) if len(found) > limit else None)


@router.delete("/organizations/{organization_id}/api-keys/{key_id}", responses=problems(401, 403, 404))
async def revoke_api_key(db: Db, caller: SignedIn, organization_id: UUID, key_id: UUID) -> ApiKeyOut:
    """Make an API key worthless. Owners may; again is the same answer."""
    return ApiKeyOut.model_validate(await service.revoke_api_key(db, caller, organization_id, key_id))


def _created(shown: BaseModel, path: str) -> Reply:
    return Reply(201, shown.model_dump_json().encode(), ROOT + path)
