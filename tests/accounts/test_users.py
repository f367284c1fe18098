"""Signing up, in and out."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from argon2 import PasswordHasher

from rowlock.accounts import passwords, service
from rowlock.kernel.errors import Busy, Unauthenticated

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import httpx

    from rowlock.kernel.database import Database
    from tests.accounts.conftest import Person

    Join = Callable[[str], Awaitable[Person]]

ADA = {"name": " Ada Lovelace ", "email": "Ada@Example.ORG", "password": "correct horse"}


def apart_from_request(answer: httpx.Response) -> dict[str, Any]:
    body: dict[str, Any] = answer.json()
    return {name: value for name, value in body.items() if name != "request_id"}


async def signed_in(client: httpx.AsyncClient, **changed: str) -> httpx.Response:
    known = {"email": ADA["email"], "password": ADA["password"]}
    return await client.post("/tokens", json=known | changed)


async def test_who_signs_up_owns_a_personal_organization(client: httpx.AsyncClient) -> None:
    made = await client.post("/users", json=ADA)
    assert made.status_code == 201
    assert made.headers["location"] == "/api/v1/users/me"
    assert set(made.json()) == {"id", "name", "email", "created_at"}
    assert (made.json()["name"], made.json()["email"]) == ("Ada Lovelace", "Ada@example.org")

    token = await signed_in(client)
    assert token.status_code == 201
    assert token.json()["token"].startswith("rlt_")
    assert token.json()["token_type"] == "Bearer"
    me = await client.get("/users/me", headers={"Authorization": f"Bearer {token.json()['token']}"})
    assert me.status_code == 200
    assert me.json()["id"] == made.json()["id"]
    [organization] = me.json()["organizations"]
    assert (organization["name"], organization["personal"], organization["role"]) == (
        "Ada Lovelace",
        True,
        "owner",
    )


async def test_an_address_signs_up_once_in_whatever_letters(client: httpx.AsyncClient) -> None:
    await client.post("/users", json=ADA)
    again = await client.post("/users", json=ADA | {"email": "ADA@example.org"})
    assert (again.status_code, again.json()["code"]) == (409, "email_taken")


async def test_of_many_who_sign_up_with_one_address_at_once_one_succeeds(client: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(*(client.post("/users", json=ADA) for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409, 409, 409]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "  "),
        ("name", "x" * 201),
        ("name", "a\0b"),
        ("name", None),
        ("email", "nobody"),
        ("email", "a\0b@example.org"),
        ("email", "x" * 250 + "@example.org"),
        ("password", "seven77"),
        ("password", "x" * 201),
        ("admin", "yes"),
    ],
)
async def test_a_sign_up_that_is_not_valid_names_its_field(
    client: httpx.AsyncClient, field: str, value: str | None
) -> None:
    refused = await client.post("/users", json=ADA | {field: value})
    assert (refused.status_code, refused.json()["code"]) == (422, "validation_failed")
    assert [error["pointer"] for error in refused.json()["errors"]] == [f"/{field}"]


@pytest.mark.parametrize("field", ["name", "email", "password"])
async def test_half_a_character_is_refused(client: httpx.AsyncClient, field: str) -> None:
    body = f'{{"name": "Ada", "email": "ada@example.org", "password": "12345678", "{field}": "lone \\ud800 half"}}'
    refused = await client.post("/users", content=body, headers={"Content-Type": "application/json"})
    assert (refused.status_code, refused.json()["code"]) == (422, "validation_failed")


async def test_a_repeated_sign_up_with_the_same_key_is_the_same_user(client: httpx.AsyncClient) -> None:
    first = await client.post("/users", json=ADA, headers={"Idempotency-Key": "k"})
    again = await client.post("/users", json=ADA, headers={"Idempotency-Key": "k"})
    assert again.headers["idempotency-replayed"] == "true"
    assert (again.status_code, again.content) == (first.status_code, first.content)
    other = await client.post("/users", json=ADA | {"name": "Eve"}, headers={"Idempotency-Key": "k"})
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")


async def test_wrong_password_and_unknown_address_get_the_same_answer(client: httpx.AsyncClient) -> None:
    await client.post("/users", json=ADA)
    wrong = await signed_in(client, password="wrong horse")
    unknown = await signed_in(client, email="nobody@example.org")
    assert wrong.status_code == unknown.status_code == 401
    assert wrong.headers["www-authenticate"] == "Bearer"
    assert apart_from_request(wrong) == apart_from_request(unknown)


async def test_a_repeated_sign_in_with_the_same_key_is_the_same_token(client: httpx.AsyncClient) -> None:
    await client.post("/users", json=ADA)
    body = {"email": ADA["email"], "password": ADA["password"]}
    first = await client.post("/tokens", json=body, headers={"Idempotency-Key": "t"})
    again = await client.post("/tokens", json=body, headers={"Idempotency-Key": "t"})
    assert again.content == first.content
    assert (await signed_in(client)).json()["token"] != first.json()["token"]


async def test_accents_may_be_typed_in_either_form(client: httpx.AsyncClient) -> None:
    await client.post("/users", json=ADA | {"password": "caf\u00e9-au-lait"})
    assert (await signed_in(client, password="cafe\u0301-au-lait")).status_code == 201


async def test_an_outdated_hash_is_renewed_when_its_user_signs_in(
    client: httpx.AsyncClient, db: Database
) -> None:
    await client.post("/users", json=ADA)
    outdated = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash(ADA["password"])
    async with db.transaction() as tx:
        await tx.execute("UPDATE users SET password_hash = $1", outdated)
    assert (await signed_in(client)).status_code == 201
    async with db.connection() as connection:
        renewed = await connection.fetch_value("SELECT password_hash FROM users")
    assert renewed != outdated
    assert not passwords.is_outdated(renewed)
    assert (await signed_in(client)).status_code == 201


async def test_neither_password_nor_token_lies_in_the_clear(client: httpx.AsyncClient, db: Database) -> None:
    await client.post("/users", json=ADA, headers={"Idempotency-Key": "u"})
    body = {"email": ADA["email"], "password": ADA["password"]}
    answer = await client.post("/tokens", json=body, headers={"Idempotency-Key": "t"})
    async with db.connection() as connection:
        rows = [
            await connection.fetch(f"SELECT * FROM {table}")
            for table in ("users", "access_token", "idempotency_key")
        ]
    kept = repr([dict(row) for table in rows for row in table])
    assert ADA["password"] not in kept
    assert answer.json()["token"] not in kept
    assert "$argon2id$" in kept


async def test_whoever_signs_out_needs_a_new_token(join: Join) -> None:
    ada = await join("Ada")
    out = await ada.ask("DELETE", "/tokens/current")
    assert (out.status_code, out.content) == (204, b"")
    assert (await ada.ask("DELETE", "/tokens/current")).status_code == 401
    assert (await ada.ask("GET", "/users/me")).status_code == 401


async def test_unknown_and_expired_tokens_get_the_same_answer(
    join: Join, client: httpx.AsyncClient, db: Database
) -> None:
    ada = await join("Ada")
    async with db.transaction() as tx:
        await tx.execute("UPDATE access_token SET expires_at = clock_timestamp()")
    expired = await ada.ask("GET", "/users/me")
    assert expired.status_code == 401
    for token in ("rlt_unknown", "rlk_unknown", "unknown"):
        unknown = await client.get("/users/me", headers={"Authorization": f"Bearer {token}"})
        assert unknown.status_code == 401
        assert apart_from_request(unknown) == apart_from_request(expired)


@pytest.mark.parametrize("header", ["Basic YTpi", "Bearer", "Bearer ", "rlt_x", "Bearer " + "x" * 201])
async def test_what_is_no_bearer_token_is_refused(client: httpx.AsyncClient, header: str) -> None:
    refused = await client.get("/users/me", headers={"Authorization": header})
    assert (refused.status_code, refused.json()["code"]) == (401, "unauthenticated")


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/users/me"), ("DELETE", "/tokens/current"), ("GET", "/organizations")]
)
async def test_the_anonymous_must_sign_in(client: httpx.AsyncClient, method: str, path: str) -> None:
    refused = await client.request(method, path)
    assert (refused.status_code, refused.json()["code"]) == (401, "unauthenticated")
    assert refused.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/users/me", None),
        ("DELETE", "/tokens/current", None),
        ("POST", "/organizations", {"name": "Club"}),
    ],
)
async def test_an_api_key_is_no_user(
    join: Join, client: httpx.AsyncClient, method: str, path: str, body: dict[str, str] | None
) -> None:
    ada = await join("Ada")
    key = await ada.key(await ada.found(), "events:read")
    refused = await client.request(method, path, json=body, headers={"Authorization": f"Bearer {key['key']}"})
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    assert "keys are not users" in refused.json()["detail"]


async def test_expired_tokens_are_forgotten_a_few_at_a_time(join: Join, db: Database) -> None:
    ada, _, _ = await join("Ada"), await join("Bob"), await join("Cleo")
    async with db.transaction() as tx:
        await tx.execute(
            "UPDATE access_token SET expires_at = clock_timestamp() WHERE user_id <> $1", ada.user.id
        )
    for gone in (1, 1, 0):
        async with db.transaction() as tx:
            assert await service.forget_expired(tx, 1) == gone
    assert (await ada.ask("GET", "/users/me")).status_code == 200


async def test_when_too_many_wait_for_their_hash_more_are_told_so() -> None:
    waiting = [asyncio.create_task(passwords.hash_password("x")) for _ in range(passwords.WAITING_MAX)]
    await asyncio.sleep(0)
    with pytest.raises(Busy):
        await passwords.hash_password("x")
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert await passwords.hash_password("x")


async def test_what_is_not_a_token_of_ours_is_nobody(db: Database) -> None:
    with pytest.raises(Unauthenticated):
        await service.identify(db, "")
