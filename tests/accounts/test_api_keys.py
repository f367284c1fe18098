"""API keys: made once, shown once, limited, revoked for good."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from rowlock.accounts import service
from rowlock.accounts.model import Credentials, Permission
from rowlock.kernel.errors import Unauthenticated

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import httpx

    from rowlock.kernel.database import Database
    from tests.accounts.conftest import Person

    Join = Callable[[str], Awaitable[Person]]

DOOR = {"name": "Door", "scopes": ["events:read", "registrations:read"]}


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def test_a_key_is_shown_once_and_acts_for_its_organization(join: Join, db: Database) -> None:
    ada = await join("Ada")
    club = await ada.found()
    made = await ada.ask("POST", f"{club}/api-keys", DOOR)
    assert made.status_code == 201
    record = made.json()
    assert set(record) == {"id", "name", "key", "key_start", "scopes", "created_at", "expires_at"}
    assert made.headers["location"] == f"/api/v1{club}/api-keys/{record['id']}"
    assert record["key"].startswith("rlk_")
    assert record["key"].startswith(record["key_start"])

    listed = await ada.ask("GET", f"{club}/api-keys")
    assert record["key"] not in listed.text
    [item] = listed.json()["items"]
    assert item == {name: value for name, value in record.items() if name != "key"} | {"revoked_at": None}

    caller = await service.identify(db, record["key"])
    organization_id = UUID(club.rsplit("/", 1)[1])
    assert (caller.actor, caller.user, caller.home) == (f"key:{record['id']}", None, organization_id)
    assert caller.permissions == {organization_id: {Permission.EVENTS_READ, Permission.REGISTRATIONS_READ}}


async def test_a_key_sees_its_own_organization_and_no_more_than_its_scopes(
    join: Join, client: httpx.AsyncClient
) -> None:
    ada = await join("Ada")
    club = await ada.found()
    reader = bearer((await ada.key(club, "organization:read"))["key"])
    other = bearer((await ada.key(club, "events:read"))["key"])
    shown = await client.get(club, headers=other)
    assert (shown.status_code, shown.json()["role"]) == (200, None)
    listed = await client.get("/organizations", headers=other)
    assert [item["name"] for item in listed.json()["items"]] == ["Orchestra"]
    assert (await client.get(f"{club}/members", headers=reader)).status_code == 200
    assert (await client.get(f"{club}/members", headers=other)).status_code == 403
    assert (await client.get(f"{club}/api-keys", headers=reader)).status_code == 403
    assert (await client.post(f"{club}/api-keys", headers=reader, json=DOOR)).status_code == 403


async def test_a_repeated_request_gets_the_same_key_but_only_with_the_same_credentials(
    join: Join, db: Database
) -> None:
    ada = await join("Ada")
    club = await ada.found()
    first = await ada.ask("POST", f"{club}/api-keys", DOOR, **{"Idempotency-Key": "k"})
    again = await ada.ask("POST", f"{club}/api-keys", DOOR, **{"Idempotency-Key": "k"})
    assert (again.status_code, again.content) == (201, first.content)
    assert len((await ada.ask("GET", f"{club}/api-keys")).json()["items"]) == 1

    async with db.transaction() as tx:
        token, _ = await service.sign_in(tx, Credentials(ada.user.id, "none"), days=1)
    elsewhere = await ada.ask("POST", f"{club}/api-keys", DOOR, **{"Idempotency-Key": "k"}, **bearer(token))
    assert (elsewhere.status_code, elsewhere.json()["code"]) == (422, "idempotency_mismatch")


async def test_a_revoked_key_opens_nothing_and_stays_revoked(
    join: Join, client: httpx.AsyncClient, db: Database
) -> None:
    ada = await join("Ada")
    club = await ada.found()
    record = await ada.key(club, "organization:read")
    first = await ada.ask("DELETE", f"{club}/api-keys/{record['id']}")
    assert first.status_code == 200
    assert first.json()["revoked_at"] is not None
    assert "key" not in first.json()
    again = await ada.ask("DELETE", f"{club}/api-keys/{record['id']}")
    assert (again.status_code, again.json()) == (200, first.json())
    assert (await client.get(club, headers=bearer(record["key"]))).status_code == 401
    with pytest.raises(Unauthenticated):
        await service.identify(db, record["key"])


async def test_an_expired_key_opens_nothing(join: Join, client: httpx.AsyncClient, db: Database) -> None:
    ada = await join("Ada")
    club = await ada.found()
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    record = await ada.key(club, "organization:read", expires_at=tomorrow)
    assert datetime.fromisoformat(record["expires_at"]) == datetime.fromisoformat(tomorrow)
    assert (await client.get(club, headers=bearer(record["key"]))).status_code == 200
    async with db.transaction() as tx:
        await tx.execute("UPDATE api_key SET expires_at = clock_timestamp()")
    assert (await client.get(club, headers=bearer(record["key"]))).status_code == 401


@pytest.mark.parametrize(
    ("changed", "pointer"),
    [
        ({"name": ""}, "/name"),
        ({"scopes": []}, "/scopes"),
        ({"scopes": ["events:read", "events:read"]}, "/scopes"),
        ({"scopes": ["everything"]}, "/scopes/0"),
        ({"scopes": ["events:read", "organization:write"]}, "/scopes/1"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "/expires_at"),
        ({"expires_at": "2999-01-01T00:00:00"}, "/expires_at"),
        ({"expires_at": "9999-12-31T23:59:59-12:00"}, "/expires_at"),
        ({"key": "rlk_mine"}, "/key"),
    ],
)
async def test_a_key_that_is_not_valid_names_its_field(
    join: Join, changed: dict[str, Any], pointer: str
) -> None:
    ada = await join("Ada")
    club = await ada.found()
    refused = await ada.ask("POST", f"{club}/api-keys", DOOR | changed)
    assert (refused.status_code, refused.json()["code"]) == (422, "validation_failed")
    assert [error["pointer"] for error in refused.json()["errors"]] == [pointer]
    assert (await ada.ask("GET", f"{club}/api-keys")).json()["items"] == []


async def test_keys_come_in_pages(join: Join) -> None:
    ada = await join("Ada")
    club = await ada.found()
    made = [(await ada.key(club, "events:read"))["id"] for _ in range(3)]
    first = (await ada.ask("GET", f"{club}/api-keys?limit=2")).json()
    second = (await ada.ask("GET", f"{club}/api-keys?limit=2&cursor={first['next_cursor']}")).json()
    assert [item["id"] for item in first["items"] + second["items"]] == made
    assert second["next_cursor"] is None


async def test_the_document_describes_every_refusal_as_a_problem(client: httpx.AsyncClient) -> None:
    document = (await client.get("http://rowlock.test/openapi.json")).json()
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            refusals = {
                status: answer for status, answer in operation["responses"].items() if status >= "400"
            }
            assert {"422", "503"} <= set(refusals), path
            assert all(answer["content"] == problem for answer in refusals.values()), path
    assert "HTTPValidationError" not in document["components"]["schemas"]
    post = document["paths"]["/api/v1/users"]["post"]
    assert post["operationId"] == "create_user"
    assert "Location" in post["responses"]["201"]["headers"]
