"""Organizations, their members, and what each may do."""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING, Any

import pytest

from rowlock.accounts import service
from rowlock.accounts.model import ALLOWED, ANONYMOUS, KEY_SCOPES, Caller, Permission, Role
from rowlock.kernel.errors import Forbidden, NotFound, Problem, Unauthenticated
from rowlock.kernel.ids import new_id

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from uuid import UUID

    import httpx

    from rowlock.kernel.database import Database
    from tests.accounts.conftest import Person

    Join = Callable[[str], Awaitable[Person]]

WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted"


def apart_from_request(answer: httpx.Response) -> dict[str, Any]:
    body: dict[str, Any] = answer.json()
    return {name: value for name, value in body.items() if name != "request_id"}


async def roles(person: Person, organization: str) -> dict[str, str]:
    page = await person.ask("GET", f"{organization}/members")
    assert page.status_code == 200, page.text
    return {member["name"]: member["role"] for member in page.json()["items"]}


async def test_whoever_founds_an_organization_owns_it(join: Join) -> None:
    ada = await join("Ada")
    made = await ada.ask("POST", "/organizations", {"name": "Orchestra"})
    assert made.status_code == 201
    assert made.headers["location"] == f"/api/v1/organizations/{made.json()['id']}"
    assert (made.json()["name"], made.json()["personal"], made.json()["role"]) == (
        "Orchestra",
        False,
        "owner",
    )
    shown = await ada.ask("GET", f"/organizations/{made.json()['id']}")
    assert (shown.status_code, shown.json()) == (200, made.json())
    listed = await ada.ask("GET", "/organizations")
    assert [item["name"] for item in listed.json()["items"]] == ["Ada", "Orchestra"]
    assert listed.json()["next_cursor"] is None


async def test_a_repeated_founding_with_the_same_key_is_the_same_organization(join: Join) -> None:
    ada, bob = await join("Ada"), await join("Bob")
    key = {"Idempotency-Key": "k"}
    first = await ada.ask("POST", "/organizations", {"name": "Orchestra"}, **key)
    again = await ada.ask("POST", "/organizations", {"name": "Orchestra"}, **key)
    assert again.content == first.content
    assert again.headers["location"] == first.headers["location"]
    other = await bob.ask("POST", "/organizations", {"name": "Orchestra"}, **key)
    assert other.json()["id"] != first.json()["id"]


@pytest.mark.parametrize(
    "body", [{}, {"name": " "}, {"name": "x" * 201}, {"name": "a\0"}, {"name": "a", "id": 1}, []]
)
async def test_an_organization_needs_a_name(join: Join, body: Any) -> None:
    ada = await join("Ada")
    refused = await ada.ask("POST", "/organizations", body)
    assert (refused.status_code, refused.json()["code"]) == (422, "validation_failed")


async def test_nobody_belongs_to_more_organizations_than_a_request_can_read(join: Join, db: Database) -> None:
    ada, bob = await join("Ada"), await join("Bob")
    club = await bob.found()
    async with db.transaction() as tx:
        await tx.execute(
            "WITH made AS (INSERT INTO organization (id, name)"
            " SELECT gen_random_uuid(), 'Club' FROM generate_series(2, $2::int) RETURNING id)"
            " INSERT INTO member (organization_id, user_id, role) SELECT id, $1, 'door' FROM made",
            ada.user.id,
            service.ORGANIZATIONS_MAX,
        )
    founded = await ada.ask("POST", "/organizations", {"name": "One more"})
    assert (founded.status_code, founded.json()["code"]) == (409, "too_many_organizations")
    hired = await bob.hire(club, ada, "door")
    assert (hired.status_code, hired.json()["code"]) == (409, "too_many_organizations")
    me = await ada.ask("GET", "/users/me")
    assert len(me.json()["organizations"]) == service.ORGANIZATIONS_MAX


async def test_organizations_come_in_pages(join: Join) -> None:
    ada = await join("Ada")
    for number in range(4):
        await ada.found(f"Club {number}")
    names, cursor = [], ""
    while cursor is not None:
        page = (await ada.ask("GET", f"/organizations?limit=2{cursor and f'&cursor={cursor}'}")).json()
        names.append([item["name"] for item in page["items"]])
        cursor = page["next_cursor"]
    assert names == [["Ada", "Club 0"], ["Club 1", "Club 2"], ["Club 3"]]


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "limit=x", "cursor=x", "cursor=%F0%9F%8E%AB", "cursor=e30"]
)
async def test_a_page_that_cannot_be_is_refused(join: Join, query: str) -> None:
    ada = await join("Ada")
    club = await ada.found()
    for path in ("/organizations", f"{club}/members", f"{club}/api-keys"):
        refused = await ada.ask("GET", f"{path}?{query}")
        assert (refused.status_code, refused.json()["code"]) == (422, "validation_failed")
        assert refused.json()["errors"][0]["pointer"] == f"?{query.partition('=')[0]}"


async def test_members_see_each_other_and_come_in_pages(join: Join) -> None:
    ada, bob, cleo = await join("Ada"), await join("Bob"), await join("Cleo")
    club = await ada.found()
    added = await ada.hire(club, bob, "door")
    assert added.status_code == 201
    assert added.headers["location"] == f"/api/v1{club}/members/{bob.user.id}"
    assert (added.json()["user_id"], added.json()["role"]) == (str(bob.user.id), "door")
    await ada.hire(club, cleo, "manager")
    first = (await bob.ask("GET", f"{club}/members?limit=2")).json()
    assert [(item["name"], item["email"]) for item in first["items"]] == [
        ("Ada", "ada@example.org"),
        ("Bob", "bob@example.org"),
    ]
    second = (await bob.ask("GET", f"{club}/members?limit=2&cursor={first['next_cursor']}")).json()
    assert [item["name"] for item in second["items"]] == ["Cleo"]
    assert second["next_cursor"] is None


async def test_a_personal_organization_takes_members_too(join: Join) -> None:
    ada, bob = await join("Ada"), await join("Bob")
    home = (await ada.ask("GET", "/users/me")).json()["organizations"][0]["id"]
    assert (await ada.hire(f"/organizations/{home}", bob, "manager")).status_code == 201
    shown = await bob.ask("GET", f"/organizations/{home}")
    assert (shown.json()["personal"], shown.json()["role"]) == (True, "manager")


async def test_members_are_added_once_and_must_have_signed_up(join: Join) -> None:
    ada, bob = await join("Ada"), await join("Bob")
    club = await ada.found()
    await ada.hire(club, bob, "door")
    again = await ada.hire(club, bob, "owner")
    assert (again.status_code, again.json()["code"]) == (409, "already_member")
    assert (await roles(ada, club))["Bob"] == "door"
    unknown = await ada.ask("POST", f"{club}/members", {"email": "nobody@example.org", "role": "door"})
    assert (unknown.status_code, unknown.json()["code"]) == (404, "user_not_found")
    for body in (
        {"email": "bob@example.org", "role": "king"},
        {"email": "bob", "role": "door"},
        {"role": "door"},
    ):
        refused = await ada.ask("POST", f"{club}/members", body)
        assert (refused.status_code, refused.json()["code"]) == (422, "validation_failed")


async def test_a_repeated_addition_with_the_same_key_is_one_addition(join: Join) -> None:
    ada, _ = await join("Ada"), await join("Bob")
    club = await ada.found()
    body = {"email": "bob@example.org", "role": "door"}
    first = await ada.ask("POST", f"{club}/members", body, **{"Idempotency-Key": "m"})
    again = await ada.ask("POST", f"{club}/members", body, **{"Idempotency-Key": "m"})
    assert (again.status_code, again.content) == (201, first.content)


async def test_roles_change_and_memberships_end(join: Join) -> None:
    ada, bob = await join("Ada"), await join("Bob")
    club = await ada.found()
    await ada.hire(club, bob, "door")
    changed = await ada.ask("PATCH", f"{club}/members/{bob.user.id}", {"role": "manager"})
    assert (changed.status_code, changed.json()["role"]) == (200, "manager")
    assert (await bob.ask("GET", club)).json()["role"] == "manager"
    refused = await ada.ask("PATCH", f"{club}/members/{bob.user.id}", {"role": "king"})
    assert (refused.status_code, refused.json()["code"]) == (422, "validation_failed")
    removed = await ada.ask("DELETE", f"{club}/members/{bob.user.id}")
    assert (removed.status_code, removed.content) == (204, b"")
    assert (await bob.ask("GET", club)).status_code == 404
    for answer in (
        await ada.ask("DELETE", f"{club}/members/{bob.user.id}"),
        await ada.ask("PATCH", f"{club}/members/{bob.user.id}", {"role": "door"}),
        await ada.ask("DELETE", f"{club}/members/{new_id()}"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_the_last_owner_stays_one(join: Join) -> None:
    ada, bob = await join("Ada"), await join("Bob")
    club = await ada.found()
    await ada.hire(club, bob, "manager")
    own = f"{club}/members/{ada.user.id}"
    for answer in (await ada.ask("PATCH", own, {"role": "manager"}), await ada.ask("DELETE", own)):
        assert (answer.status_code, answer.json()["code"]) == (409, "last_owner")
    assert (await ada.ask("PATCH", own, {"role": "owner"})).status_code == 200
    await ada.ask("PATCH", f"{club}/members/{bob.user.id}", {"role": "owner"})
    assert (await ada.ask("DELETE", own)).status_code == 204
    assert await roles(bob, club) == {"Bob": "owner"}


async def test_whoever_leaves_the_personal_organization_has_no_home(join: Join, db: Database) -> None:
    ada, bob = await join("Ada"), await join("Bob")
    token = ada.headers["Authorization"].removeprefix("Bearer ")
    home = (await service.identify(db, token)).home
    await ada.hire(f"/organizations/{home}", bob, "owner")
    assert (await bob.ask("DELETE", f"/organizations/{home}/members/{ada.user.id}")).status_code == 204
    caller = await service.identify(db, token)
    assert (caller.user, caller.home, caller.permissions) == (ada.user, None, {})
    assert (await ada.ask("GET", "/users/me")).json()["organizations"] == []
    assert (await ada.ask("GET", "/organizations")).json()["items"] == []


async def _two_owners(ada: Person, bob: Person, db: Database) -> tuple[UUID, Caller, Caller]:
    club = await ada.found()
    await ada.hire(club, bob, "owner")
    callers = [
        await service.identify(db, one.headers["Authorization"].removeprefix("Bearer ")) for one in (ada, bob)
    ]
    [organization_id] = [key for key in callers[1].permissions if club.endswith(str(key))]
    return organization_id, callers[0], callers[1]


@pytest.mark.parametrize("end", ["demotion", "removal"])
async def test_of_two_owners_who_end_each_other_at_once_one_stays(join: Join, db: Database, end: str) -> None:
    ada, bob = await join("Ada"), await join("Bob")
    organization_id, as_ada, as_bob = await _two_owners(ada, bob, db)

    async def put_down(caller: Caller, other: Person) -> None:
        if end == "demotion":
            await service.change_role(db, caller, organization_id, other.user.id, Role.DOOR)
        else:
            await service.remove_member(db, caller, organization_id, other.user.id)

    # Both were owners when they asked, and both wait for the lock before either goes on.
    outside = contextvars.copy_context()
    async with db.transaction() as holder:
        await holder.fetch_value("SELECT id FROM organization WHERE id = $1 FOR UPDATE", organization_id)
        attempts = (put_down(as_ada, bob), put_down(as_bob, ada))
        rivals = [asyncio.create_task(attempt, context=outside.copy()) for attempt in attempts]
        while await holder.fetch_value(WAITING) < len(rivals):
            assert not any(rival.done() for rival in rivals)
    outcomes = await asyncio.gather(*rivals, return_exceptions=True)
    [refusal] = [outcome for outcome in outcomes if outcome is not None]
    assert isinstance(refusal, Forbidden if end == "demotion" else NotFound)
    async with db.connection() as connection:
        owners = await connection.fetch_value(
            "SELECT count(*) FROM member WHERE organization_id = $1 AND role = 'owner'", organization_id
        )
    assert owners == 1


async def test_two_owners_who_step_down_at_once_leave_one(join: Join) -> None:
    ada, bob = await join("Ada"), await join("Bob")
    club = await ada.found()
    await ada.hire(club, bob, "owner")
    answers = await asyncio.gather(
        ada.ask("PATCH", f"{club}/members/{ada.user.id}", {"role": "manager"}),
        bob.ask("PATCH", f"{club}/members/{bob.user.id}", {"role": "manager"}),
    )
    assert sorted(answer.status_code for answer in answers) == [200, 409]
    assert sorted((await roles(ada, club)).values()) == ["manager", "owner"]


OWNERS_ALONE = [
    ("POST", "/members", {"email": "cleo@example.org", "role": "door"}),
    ("PATCH", "/members/{user_id}", {"role": "door"}),
    ("DELETE", "/members/{user_id}", None),
    ("POST", "/api-keys", {"name": "Door", "scopes": ["events:read"]}),
    ("GET", "/api-keys", None),
    ("DELETE", "/api-keys/{key_id}", None),
]
EVERY_PATH = [("GET", "", None), ("GET", "/members", None), *OWNERS_ALONE]


@pytest.mark.parametrize(("method", "path", "body"), OWNERS_ALONE)
@pytest.mark.parametrize("role", [role for role in Role if role is not Role.OWNER])
async def test_only_owners_change_an_organization(
    join: Join, method: str, path: str, body: dict[str, Any] | None, role: Role
) -> None:
    ada, bob = await join("Ada"), await join("Bob")
    club = await ada.found()
    await ada.hire(club, bob, role.value)
    key = await ada.key(club, "events:read")
    where = club + path.format(user_id=ada.user.id, key_id=key["id"])
    refused = await bob.ask(method, where, body)
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")


@pytest.mark.parametrize(("method", "path", "body"), EVERY_PATH)
async def test_a_foreign_organization_looks_like_none(
    join: Join, client: httpx.AsyncClient, method: str, path: str, body: dict[str, Any] | None
) -> None:
    ada, eve, _ = await join("Ada"), await join("Eve"), await join("Cleo")
    club = await ada.found()
    key = await ada.key(club, "events:read")
    path = path.format(user_id=ada.user.id, key_id=key["id"])
    foreign = await eve.ask(method, club + path, body)
    missing = await eve.ask(method, f"/organizations/{new_id()}{path}", body)
    assert foreign.status_code == missing.status_code == 404
    assert apart_from_request(foreign) == apart_from_request(missing)
    evil_key = await eve.key(await eve.found(), *sorted(KEY_SCOPES))
    by_key = await client.request(
        method, club + path, json=body, headers={"Authorization": f"Bearer {evil_key['key']}"}
    )
    assert (by_key.status_code, apart_from_request(by_key)) == (404, apart_from_request(missing))
    anonymous = await client.request(method, club + path, json=body)
    assert (anonymous.status_code, anonymous.json()["code"]) == (401, "unauthenticated")


async def test_a_foreign_member_or_key_cannot_be_reached_through_ones_own_organization(join: Join) -> None:
    ada, eve = await join("Ada"), await join("Eve")
    club, den = await ada.found(), await eve.found("Den")
    key = await ada.key(club, "events:read")
    for method, path in (("DELETE", f"/members/{ada.user.id}"), ("DELETE", f"/api-keys/{key['id']}")):
        foreign = await eve.ask(method, den + path)
        missing = await eve.ask(method, f"{den}/{path.split('/')[1]}/{new_id()}")
        assert foreign.status_code == missing.status_code == 404
        assert apart_from_request(foreign) == apart_from_request(missing)
    assert (await ada.ask("GET", f"{club}/api-keys")).json()["items"][0]["revoked_at"] is None


async def test_whoever_lost_the_role_gets_no_kept_answer(join: Join) -> None:
    ada, bob = await join("Ada"), await join("Bob")
    club = await ada.found()
    await ada.hire(club, bob, "owner")
    body = {"name": "Door", "scopes": ["events:read"]}
    assert (await bob.ask("POST", f"{club}/api-keys", body, **{"Idempotency-Key": "k"})).status_code == 201
    await ada.ask("PATCH", f"{club}/members/{bob.user.id}", {"role": "door"})
    assert (await bob.ask("POST", f"{club}/api-keys", body, **{"Idempotency-Key": "k"})).status_code == 403


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("permission", list(Permission))
def test_require_lets_pass_what_the_role_allows(role: Role, permission: Permission) -> None:
    own, foreign = new_id(), new_id()
    caller = Caller("user:x", permissions={own: ALLOWED[role]})
    for nobody in (ANONYMOUS, caller):
        with pytest.raises(NotFound):
            service.require(nobody, foreign, permission)
    if permission in ALLOWED[role]:
        service.require(caller, own, permission)
    else:
        with pytest.raises(Forbidden):
            service.require(caller, own, permission)


@pytest.mark.parametrize(
    ("caller", "problem"),
    [(ANONYMOUS, Unauthenticated), (Caller("key:x", permissions={new_id(): KEY_SCOPES}), Forbidden)],
)
def test_require_user_wants_a_user(caller: Caller, problem: type[Problem]) -> None:
    with pytest.raises(problem):
        service.require_user(caller)
