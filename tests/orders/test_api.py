"""Registrations over HTTP: made, refused, shown, cancelled, listed; and the cancellation of whole events."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest

from rowlock import housekeeping
from rowlock.accounts import service as accounts
from rowlock.orders import closing
from rowlock.web.problems import all_problems, status_of
from tests import make
from tests.recount import what_does_not_hold

if TYPE_CHECKING:
    import httpx

    from rowlock.kernel.database import Database
    from rowlock.kernel.settings import Settings
    from tests.make import Actor

PERSON = {"name": "Ann", "email": "ann@example.org"}


@pytest.fixture
async def olga(client: httpx.AsyncClient) -> Actor:
    """Return somebody who organizes events."""
    return await make.user(client, "Olga")


@pytest.fixture
async def jazz(client: httpx.AsyncClient, olga: Actor) -> dict[str, Any]:
    """Return an event of ten seats, on sale."""
    return await make.event(client, olga)


def without_request_id(answer: httpx.Response) -> dict[str, Any]:
    body: dict[str, Any] = answer.json()
    assert body.pop("request_id")
    return body


def pointers(answer: httpx.Response) -> list[str]:
    assert answer.json()["code"] == "validation_failed", answer.text
    return [error["pointer"] for error in answer.json()["errors"]]


def assert_problem(answer: httpx.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json().get("code")) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert {"type", "title", "status", "detail", "code", "request_id"} <= set(body)
    assert body["type"] == f"/problems/{code}"
    assert body["status"] == status
    assert body["request_id"] == answer.headers["x-request-id"]


async def seats(client: httpx.AsyncClient, event: dict[str, Any]) -> tuple[int, int]:
    shown = (await client.get(f"/events/{event['id']}")).json()
    return shown["sold"], shown["available"]


async def end(db: Database, event: dict[str, Any]) -> None:
    """Let an event end now, as the clock would."""
    async with db.transaction() as tx:
        sql = "UPDATE event SET starts_at = NULL, ends_at = clock_timestamp() WHERE id = $1"
        assert await tx.execute(sql, UUID(event["id"])) == 1


async def statuses(db: Database, event: dict[str, Any]) -> dict[str, int]:
    """Count an event's orders by status."""
    async with db.connection() as connection:
        rows = await connection.fetch(
            "SELECT status, count(*) FROM orders WHERE event_id = $1 GROUP BY status", UUID(event["id"])
        )
    return dict(tuple(row) for row in rows)


# Making


async def test_anyone_registers_for_a_published_event(
    client: httpx.AsyncClient, jazz: dict[str, Any]
) -> None:
    answer = await client.post("/registrations", json={"event_id": jazz["id"], **PERSON})
    made = answer.json()
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/api/v1/registrations/{made['id']}"
    assert made["link"] == f"{answer.headers['location']}?secret={made['secret']}"
    types = (await client.get(f"/events/{jazz['id']}/ticket-types")).json()["items"]
    assert {
        key: made[key] for key in ("event_id", "status", "attendee", "ticket_type_id", "cancelled_at")
    } == {
        "event_id": jazz["id"],
        "status": "confirmed",
        "attendee": PERSON,
        "ticket_type_id": types[0]["id"],
        "cancelled_at": None,
    }
    assert await seats(client, jazz) == (1, 9)


async def test_the_answer_is_what_the_secret_link_shows(
    client: httpx.AsyncClient, jazz: dict[str, Any]
) -> None:
    made = await make.registration(client, jazz)
    shown = await client.get(f"http://rowlock.test{made['link']}")
    assert shown.status_code == 200
    assert shown.json() == {key: value for key, value in made.items() if key not in {"secret", "link"}}


async def test_a_signed_in_user_may_leave_name_and_email_out(
    client: httpx.AsyncClient, jazz: dict[str, Any]
) -> None:
    bob = await make.user(client, "Bob")
    made = await make.registration(client, jazz, None, actor=bob)
    assert made["attendee"] == {"name": "Bob", "email": "bob@example.org"}
    assert (await bob.ask("GET", f"/registrations/{made['id']}")).status_code == 200


async def test_a_signed_in_user_may_call_themselves_otherwise(
    client: httpx.AsyncClient, jazz: dict[str, Any]
) -> None:
    bob = await make.user(client, "Bob")
    made = await bob.ask("POST", "/registrations", {"event_id": jazz["id"], "name": "Bobby"})
    assert made.json()["attendee"] == {"name": "Bobby", "email": "bob@example.org"}


async def test_a_member_who_registers_somebody_else_does_not_own_the_registration(
    client: httpx.AsyncClient, olga: Actor, jazz: dict[str, Any]
) -> None:
    made = await make.registration(client, jazz, "Ann", actor=olga)
    assert (await olga.ask("GET", "/users/me/registrations")).json()["items"] == []
    assert (await olga.ask("GET", f"/registrations/{made['id']}")).status_code == 200


async def test_an_anonymous_caller_must_say_who_comes(
    client: httpx.AsyncClient, jazz: dict[str, Any]
) -> None:
    refused = await client.post("/registrations", json={"event_id": jazz["id"]})
    assert_problem(refused, 422, "validation_failed")
    assert pointers(refused) == ["/name", "/email"]


async def test_an_api_key_must_say_who_comes(
    client: httpx.AsyncClient, olga: Actor, jazz: dict[str, Any]
) -> None:
    key = await make.api_key(client, olga)
    assert pointers(await key.ask("POST", "/registrations", {"event_id": jazz["id"]})) == ["/name", "/email"]
    await make.registration(client, jazz, "Ann", actor=key)


async def test_sequences_count_every_change_of_the_event(
    client: httpx.AsyncClient, jazz: dict[str, Any]
) -> None:
    ann = await make.registration(client, jazz, "Ann")
    bob = await make.registration(client, jazz, "Bob")
    gone = await client.delete(f"/registrations/{ann['id']}", params={"secret": ann["secret"]})
    eve = await make.registration(client, jazz, "Eve")
    opened = 1  # the ledger's first entry is the opening of the pool
    assert [it["sequence"] - opened for it in (ann, bob, gone.json(), eve)] == [1, 2, 3, 4]


async def test_the_last_seat_is_sold_and_no_more(client: httpx.AsyncClient, olga: Actor) -> None:
    small = await make.event(client, olga, capacity=1)
    await make.registration(client, small, "Ann")
    refused = await client.post(
        "/registrations", json={"event_id": small["id"], "name": "Bob", "email": "b@example.org"}
    )
    assert_problem(refused, 409, "sold_out")
    assert refused.json()["title"] == "Event full"
    assert refused.json()["available"] == 0
    assert await seats(client, small) == (1, 0)


async def test_many_at_once_get_exactly_the_seats_there_are(
    client: httpx.AsyncClient, olga: Actor, db: Database
) -> None:
    event = await make.event(client, olga, capacity=7)
    people = [{"event_id": event["id"], "name": f"P{n}", "email": f"p{n}@example.org"} for n in range(40)]
    answers = await asyncio.gather(*(client.post("/registrations", json=person) for person in people))
    codes = [answer.json().get("code", "made") for answer in answers]
    assert (codes.count("made"), codes.count("sold_out")) == (7, 33)
    assert sorted(answer.json()["sequence"] for answer in answers if answer.status_code == 201) == list(
        range(2, 9)
    )
    assert await what_does_not_hold(db) == []


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("ann@example.org", "Ann@Example.ORG"),
        ("ann@example.org", "  ANN@example.org "),
        ("jörg@example.org", "JÖRG@example.org"),
        ("stra\u00dfe@example.org", "STRASSE@example.org"),
        ("jo\u0308rg@example.org", "j\u00f6rg@example.org"),
        ("ann@bücher.example", "ann@xn--bcher-kva.example"),
    ],
)
async def test_one_person_registers_once_however_the_address_is_written(
    client: httpx.AsyncClient, jazz: dict[str, Any], first: str, second: str
) -> None:
    body = {"event_id": jazz["id"], "name": "Ann"}
    assert (await client.post("/registrations", json={**body, "email": first})).status_code == 201
    assert_problem(
        await client.post("/registrations", json={**body, "email": second}), 409, "already_registered"
    )
    assert await seats(client, jazz) == (1, 9)


async def test_one_person_who_registers_many_times_at_once_gets_one_seat(
    client: httpx.AsyncClient, jazz: dict[str, Any]
) -> None:
    body = {"event_id": jazz["id"], **PERSON}
    answers = await asyncio.gather(*(client.post("/registrations", json=body) for _ in range(20)))
    codes = [answer.json().get("code", "made") for answer in answers]
    assert (codes.count("made"), codes.count("already_registered")) == (1, 19)


@pytest.mark.parametrize(
    "name",
    [
        "Zoë Ünal",
        "李小龍",
        "محمد",
        "\U0001f469\u200d\U0001f680 Ripley",
        "O'Neill; DROP TABLE orders; --",
        "<script>alert(1)</script>",
        'a"b\\c',
        "x" * 200,
        "é" * 200,
        "\U0001f600" * 200,
        "e\u0301",
    ],
)
async def test_names_are_kept_as_they_are(client: httpx.AsyncClient, jazz: dict[str, Any], name: str) -> None:
    body = {"event_id": jazz["id"], "name": name, "email": "ann@example.org"}
    made = (await client.post("/registrations", json=body)).json()
    assert made["attendee"]["name"] == name
    shown = await client.get(f"/registrations/{made['id']}", params={"secret": made["secret"]})
    assert shown.json()["attendee"]["name"] == name


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", "   "),
        ("name", "\t\n\u3000"),
        ("name", "a\0b"),
        ("name", "\0"),
        ("name", "x" * 201),
        ("name", "x" * 300),
        ("name", 7),
        ("name", ["Ann"]),
        ("name", True),
        ("email", ""),
        ("email", "ann"),
        ("email", "ann@"),
        ("email", "@example.org"),
        ("email", "ann@localhost"),
        ("email", "ann@@example.org"),
        ("email", "ann example@example.org"),
        ("email", "ann@example..org"),
        ("email", "ann\0@example.org"),
        ("email", "ann@example.org\nbcc: eve@example.org"),
        ("email", "a" * 65 + "@example.org"),
        ("email", "a" * 300),
        ("email", 5),
        ("event_id", "1"),
        ("event_id", ""),
        ("event_id", None),
        ("event_id", 5),
        ("event_id", "{0}"),
        ("ticket_type_id", "no"),
        ("ticket_type_id", 5),
    ],
)
async def test_a_field_that_is_not_valid_is_named(
    client: httpx.AsyncClient, jazz: dict[str, Any], field: str, value: Any
) -> None:
    refused = await client.post("/registrations", json={"event_id": jazz["id"], **PERSON} | {field: value})
    assert_problem(refused, 422, "validation_failed")
    assert pointers(refused) == [f"/{field}"]
    assert await seats(client, jazz) == (0, 10)


async def test_all_that_is_wrong_is_named_at_once(client: httpx.AsyncClient) -> None:
    refused = await client.post("/registrations", json={"name": 7, "email": [], "a/b~c": 1})
    assert sorted(pointers(refused)) == ["/a~1b~0c", "/email", "/event_id", "/name"]
    refused = await client.post(
        "/registrations", json={"event_id": str(uuid4()), "name": " ", "email": "ann"}
    )
    assert pointers(refused) == ["/name", "/email"]


@pytest.mark.parametrize(
    "field",
    [
        "id",
        "status",
        "sequence",
        "created_at",
        "cancelled_at",
        "ticket_id",
        "ticket_code",
        "secret",
        "attendee",
        "organization_id",
        "user_id",
        "price_cents",
        "Name",
    ],
)
async def test_unknown_and_read_only_fields_are_refused(
    client: httpx.AsyncClient, jazz: dict[str, Any], field: str
) -> None:
    refused = await client.post("/registrations", json={"event_id": jazz["id"], **PERSON, field: "x"})
    assert refused.status_code == 422
    assert pointers(refused) == [f"/{field}"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nonsense",
        b"null",
        b"7",
        b'"text"',
        b"[]",
        b"[{}]",
        b"\xff\xfe{",
        b'{"name": "\xff"}',
        b'{"name": "\\ud800"}',
        b'{"email": "\\ud800@example.org"}',
        b'{"event_id": 5, "name": "\\ud800"}',
        b'{"event_id": 5',
        b'{"event_id": 5, "name": NaN}',
        b'{"name": 1e400}',
        b'{"name": "Ann"} {}',
        b"[" * 5000,
        b'{"name":' * 5000,
        b'{"x": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"name": ' + b"9" * 5000 + b"}",
        b"name=Ann&email=ann@example.org",
    ],
)
async def test_a_body_that_is_not_a_json_object_is_refused(client: httpx.AsyncClient, body: bytes) -> None:
    refused = await client.post("/registrations", content=body, headers={"Content-Type": "application/json"})
    assert_problem(refused, 422, "validation_failed")


async def test_a_huge_body_is_refused(
    client: httpx.AsyncClient, jazz: dict[str, Any], settings: Settings
) -> None:
    body = {"event_id": jazz["id"], "name": "x" * settings.body_max_bytes, "email": "ann@example.org"}
    assert_problem(await client.post("/registrations", json=body), 413, "body_too_large")

    async def chunks() -> Any:
        for _ in range(5):
            yield b"x" * (settings.body_max_bytes // 4)

    refused = await client.post("/registrations", content=chunks())
    assert "content-length" not in refused.request.headers
    assert_problem(refused, 413, "body_too_large")


@pytest.mark.parametrize("form", [str, lambda it: str(it).upper(), lambda it: it.hex])
async def test_ids_are_read_in_every_form_of_a_uuid(
    client: httpx.AsyncClient, jazz: dict[str, Any], form: Any
) -> None:
    written = form(UUID(jazz["id"]))
    made = await client.post("/registrations", json={"event_id": written, **PERSON})
    assert (made.status_code, made.json()["event_id"]) == (201, jazz["id"])
    registration = form(UUID(made.json()["id"]))
    shown = await client.get(f"/registrations/{registration}", params={"secret": made.json()["secret"]})
    assert shown.json()["id"] == made.json()["id"]


async def test_a_ticket_type_is_chosen(client: httpx.AsyncClient, olga: Actor, jazz: dict[str, Any]) -> None:
    balcony = await make.ticket_type(client, olga, jazz["id"])
    made = await make.registration(client, jazz, "Ann", ticket_type_id=balcony["id"])
    assert made["ticket_type_id"] == balcony["id"]
    first = await make.registration(client, jazz, "Bob", ticket_type_id=None)
    assert first["ticket_type_id"] != balcony["id"]


async def test_a_ticket_type_of_another_event_looks_missing(
    client: httpx.AsyncClient, olga: Actor, jazz: dict[str, Any]
) -> None:
    other = await make.event(client, olga)
    [foreign] = (await client.get(f"/events/{other['id']}/ticket-types")).json()["items"]
    body = {"event_id": jazz["id"], **PERSON}
    refused = await client.post("/registrations", json=body | {"ticket_type_id": foreign["id"]})
    assert_problem(refused, 404, "not_found")
    missing = await client.post("/registrations", json=body | {"ticket_type_id": str(uuid4())})
    assert without_request_id(refused) == without_request_id(missing)
    assert await seats(client, jazz) == (0, 10)


@pytest.mark.parametrize("status", ["paused", "ended", "cancelled"])
async def test_what_is_not_on_sale_is_not_sold(
    client: httpx.AsyncClient, olga: Actor, jazz: dict[str, Any], db: Database, status: str
) -> None:
    if status == "ended":
        await end(db, jazz)
    else:
        await olga.ask("POST", f"/events/{jazz['id']}/{'pause' if status == 'paused' else 'cancellation'}")
    assert (await client.get(f"/events/{jazz['id']}")).json()["status"] == status
    refused = await client.post("/registrations", json={"event_id": jazz["id"], **PERSON})
    assert_problem(refused, 409, "not_on_sale")


async def test_a_paused_event_sells_again_once_it_is_published(
    client: httpx.AsyncClient, olga: Actor, jazz: dict[str, Any]
) -> None:
    await olga.ask("POST", f"/events/{jazz['id']}/pause")
    await olga.ask("POST", f"/events/{jazz['id']}/publication")
    await make.registration(client, jazz)


async def test_a_draft_looks_missing_to_strangers(client: httpx.AsyncClient, olga: Actor) -> None:
    draft = await make.event(client, olga, status="draft")
    stranger = await make.user(client, "Stranger")
    for headers in ({}, stranger.headers):
        body = {"event_id": draft["id"], **PERSON}
        refused = await client.post("/registrations", json=body, headers=headers)
        missing = await client.post("/registrations", json=body | {"event_id": str(uuid4())}, headers=headers)
        assert_problem(refused, 404, "not_found")
        assert without_request_id(refused) == without_request_id(missing)
    own = await olga.ask("POST", "/registrations", {"event_id": draft["id"], **PERSON})
    assert_problem(own, 409, "not_on_sale")


async def test_a_token_that_is_not_valid_is_refused_before_anything_else(client: httpx.AsyncClient) -> None:
    refused = await client.post(
        "/registrations", content=b"{", headers={"Authorization": "Bearer rlt_nobody"}
    )
    assert_problem(refused, 401, "unauthenticated")
    assert refused.headers["www-authenticate"] == "Bearer"


# Showing and cancelling


async def test_a_wrong_secret_looks_like_a_missing_registration(
    client: httpx.AsyncClient, jazz: dict[str, Any]
) -> None:
    made = await make.registration(client, jazz)
    for method in ("GET", "DELETE"):
        missing = await client.request(method, f"/registrations/{uuid4()}?secret={made['secret']}")
        assert_problem(missing, 404, "not_found")
        for secret in (
            "",
            "?secret=",
            "?secret=wrong",
            f"?secret={made['secret']}x",
            "?secret=%00",
            "?secret=%ED%A0%80",
        ):
            refused = await client.request(method, f"/registrations/{made['id']}{secret}")
            assert_problem(refused, 404, "not_found")
            assert without_request_id(refused) == without_request_id(missing)
    assert await seats(client, jazz) == (1, 9)


async def test_one_secret_does_not_open_another_registration(
    client: httpx.AsyncClient, jazz: dict[str, Any]
) -> None:
    ann, bob = await make.registration(client, jazz, "Ann"), await make.registration(client, jazz, "Bob")
    refused = await client.delete(f"/registrations/{bob['id']}", params={"secret": ann["secret"]})
    assert_problem(refused, 404, "not_found")


async def test_a_secret_that_is_too_long_is_named(client: httpx.AsyncClient) -> None:
    assert pointers(await client.get(f"/registrations/{uuid4()}", params={"secret": "x" * 201})) == [
        "?secret"
    ]


async def test_an_id_that_is_not_one_is_named(olga: Actor) -> None:
    for method, path in [
        ("GET", "/registrations/1"),
        ("DELETE", "/registrations/1"),
        ("GET", "/events/1/registrations"),
        ("POST", "/events/1/cancellation"),
    ]:
        refused = await olga.ask(method, path)
        assert refused.status_code == 422
        assert pointers(refused)[0].startswith("path:"), refused.text


async def test_cancelling_gives_the_seat_back_once(
    client: httpx.AsyncClient, jazz: dict[str, Any], db: Database
) -> None:
    made = await make.registration(client, jazz)
    path = f"/registrations/{made['id']}?secret={made['secret']}"
    first = await client.delete(path)
    assert first.status_code == 200
    shown = first.json()
    assert shown == {key: value for key, value in made.items() if key not in {"secret", "link"}} | {
        "status": "cancelled",
        "sequence": made["sequence"] + 1,
        "cancelled_at": shown["cancelled_at"],
    }
    assert shown["cancelled_at"] > made["created_at"]
    assert await seats(client, jazz) == (0, 10)
    second = await client.delete(path)
    assert (second.status_code, second.content) == (200, first.content)
    assert (await client.get(path)).content == first.content
    assert await seats(client, jazz) == (0, 10)
    assert await what_does_not_hold(db) == []


async def test_many_cancellations_at_once_give_back_one_seat(
    client: httpx.AsyncClient, jazz: dict[str, Any], db: Database
) -> None:
    made = await make.registration(client, jazz)
    path = f"/registrations/{made['id']}?secret={made['secret']}"
    answers = await asyncio.gather(*(client.delete(path) for _ in range(20)))
    assert {(answer.status_code, answer.content) for answer in answers} == {(200, answers[0].content)}
    assert await seats(client, jazz) == (0, 10)
    assert await what_does_not_hold(db) == []


async def test_who_has_cancelled_registers_again(
    client: httpx.AsyncClient, olga: Actor, db: Database
) -> None:
    small = await make.event(client, olga, capacity=1)
    first = await make.registration(client, small)
    await client.delete(f"/registrations/{first['id']}", params={"secret": first["secret"]})
    second = await make.registration(client, small)
    assert second["id"] != first["id"]
    assert second["ticket_code"] != first["ticket_code"]
    old = await client.get(f"/registrations/{first['id']}", params={"secret": first["secret"]})
    assert old.json()["status"] == "cancelled"
    assert await seats(client, small) == (1, 0)
    assert await what_does_not_hold(db) == []


async def test_a_late_second_cancellation_does_not_touch_the_new_registration(
    client: httpx.AsyncClient, jazz: dict[str, Any]
) -> None:
    first = await make.registration(client, jazz)
    path = f"/registrations/{first['id']}?secret={first['secret']}"
    await client.delete(path)
    await make.registration(client, jazz)
    assert (await client.delete(path)).status_code == 200
    assert await seats(client, jazz) == (1, 9)


@pytest.mark.parametrize("status", ["paused", "ended"])
async def test_a_registration_is_cancelled_also_when_nothing_is_sold(
    client: httpx.AsyncClient, olga: Actor, jazz: dict[str, Any], db: Database, status: str
) -> None:
    made = await make.registration(client, jazz)
    await (end(db, jazz) if status == "ended" else olga.ask("POST", f"/events/{jazz['id']}/pause"))
    gone = await client.delete(f"/registrations/{made['id']}", params={"secret": made["secret"]})
    assert gone.json()["status"] == "cancelled"
    assert await seats(client, jazz) == (0, 10)


async def test_who_may_see_and_cancel(client: httpx.AsyncClient, olga: Actor, jazz: dict[str, Any]) -> None:
    bob = await make.user(client, "Bob")
    stranger = await make.user(client, "Stranger")
    finance = await make.member(client, olga, "finance")
    path = f"/registrations/{(await make.registration(client, jazz, None, actor=bob))['id']}"
    assert_problem(await stranger.ask("GET", path), 404, "not_found")
    assert_problem(await stranger.ask("DELETE", path), 404, "not_found")
    assert (await finance.ask("GET", path)).status_code == 200
    assert_problem(await finance.ask("DELETE", path), 403, "forbidden")
    assert (await olga.ask("GET", path)).status_code == 200
    assert (await bob.ask("DELETE", path)).json()["status"] == "cancelled"


# Lists


async def test_an_organization_lists_its_events_registrations_in_pages(
    client: httpx.AsyncClient, olga: Actor, jazz: dict[str, Any]
) -> None:
    other = await make.event(client, olga)
    await make.registration(client, other, "Eve")
    made = [await make.registration(client, jazz, name) for name in ("Ann", "Bob", "Cem", "Dan", "Eve")]
    path = f"/events/{jazz['id']}/registrations"
    assert (await olga.ask("GET", path)).json()["next_cursor"] is None
    found, cursor = [], ""
    for size in (2, 2, 1):
        page = (await olga.ask("GET", f"{path}?limit=2{cursor}")).json()
        assert len(page["items"]) == size
        found += page["items"]
        cursor = f"&cursor={page['next_cursor']}"
    assert cursor == "&cursor=None"
    assert found == [{k: v for k, v in it.items() if k not in {"secret", "link"}} for it in made]
    empty = (await olga.ask("GET", f"/events/{(await make.event(client, olga))['id']}/registrations")).json()
    assert empty == {"items": [], "next_cursor": None}


async def test_a_list_is_filtered_by_status(
    client: httpx.AsyncClient, olga: Actor, jazz: dict[str, Any]
) -> None:
    ann, bob = await make.registration(client, jazz, "Ann"), await make.registration(client, jazz, "Bob")
    await olga.ask("DELETE", f"/registrations/{ann['id']}")
    path = f"/events/{jazz['id']}/registrations"
    for status, wanted in [("confirmed", [bob["id"]]), ("cancelled", [ann["id"]])]:
        listed = (await olga.ask("GET", f"{path}?status={status}")).json()["items"]
        assert [it["id"] for it in listed] == wanted
    assert [it["id"] for it in (await olga.ask("GET", path)).json()["items"]] == [ann["id"], bob["id"]]
    assert pointers(await olga.ask("GET", f"{path}?status=held")) == ["?status"]


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("limit=0", "?limit"),
        ("limit=101", "?limit"),
        ("limit=x", "?limit"),
        ("cursor=x", "?cursor"),
        ("cursor=", "?cursor"),
        ("cursor=%00", "?cursor"),
        ("cursor=WyJ4Il0", "?cursor"),
        ("cursor=WzFd", "?cursor"),
    ],
)
async def test_a_wrong_page_is_refused(olga: Actor, jazz: dict[str, Any], query: str, pointer: str) -> None:
    for path in (f"/events/{jazz['id']}/registrations", "/users/me/registrations"):
        assert pointers(await olga.ask("GET", f"{path}?{query}")) == [pointer]


async def test_who_may_list_an_events_registrations(
    client: httpx.AsyncClient, olga: Actor, jazz: dict[str, Any]
) -> None:
    path = f"/events/{jazz['id']}/registrations"
    stranger = await make.user(client, "Stranger")
    assert_problem(await client.get(path), 401, "unauthenticated")
    refused = await stranger.ask("GET", path)
    assert_problem(refused, 404, "not_found")
    assert without_request_id(refused) == without_request_id(
        await stranger.ask("GET", f"/events/{uuid4()}/registrations")
    )
    assert_problem(await (await make.member(client, olga, "door")).ask("GET", path), 403, "forbidden")
    assert (
        await (await make.api_key(client, olga, "registrations:read")).ask("GET", path)
    ).status_code == 200


async def test_users_list_their_own_registrations_newest_first(
    client: httpx.AsyncClient, olga: Actor
) -> None:
    bob, eve = await make.user(client, "Bob"), await make.user(client, "Eve")
    events = [await make.event(client, olga, title=f"Event {n}") for n in range(3)]
    made = [await make.registration(client, event, None, actor=bob) for event in events]
    await make.registration(client, events[0], None, actor=eve)
    await bob.ask("DELETE", f"/registrations/{made[0]['id']}")
    first = (await bob.ask("GET", "/users/me/registrations?limit=2")).json()
    second = (await bob.ask("GET", f"/users/me/registrations?limit=2&cursor={first['next_cursor']}")).json()
    assert [it["id"] for it in first["items"] + second["items"]] == [it["id"] for it in reversed(made)]
    assert second["next_cursor"] is None
    assert second["items"][0]["status"] == "cancelled"
    assert_problem(await client.get("/users/me/registrations"), 401, "unauthenticated")
    key = await make.api_key(client, olga)
    assert_problem(await key.ask("GET", "/users/me/registrations"), 403, "forbidden")


# The cancellation of an event


async def test_cancelling_an_event_cancels_its_registrations_and_again_is_the_same(
    client: httpx.AsyncClient, olga: Actor, jazz: dict[str, Any], db: Database
) -> None:
    ann, bob = await make.registration(client, jazz, "Ann"), await make.registration(client, jazz, "Bob")
    other = await make.event(client, olga)
    await make.registration(client, other)
    await client.delete(f"/registrations/{ann['id']}", params={"secret": ann["secret"]})
    first = await olga.ask("POST", f"/events/{jazz['id']}/cancellation")
    assert first.status_code == 200
    assert [first.json()[key] for key in ("id", "status", "sold", "available")] == [
        jazz["id"],
        "cancelled",
        0,
        10,
    ]
    again = await olga.ask("POST", f"/events/{jazz['id']}/cancellation")
    assert (again.status_code, again.content) == (200, first.content)
    gone = await client.get(f"/registrations/{bob['id']}", params={"secret": bob["secret"]})
    assert (gone.json()["status"], gone.json()["sequence"]) == ("cancelled", 5)
    assert await statuses(db, jazz) == {"cancelled": 2}
    assert await seats(client, other) == (1, 9)
    assert await what_does_not_hold(db) == []


async def test_a_cancelled_events_registration_is_cancelled_again_as_ever(
    client: httpx.AsyncClient, olga: Actor, jazz: dict[str, Any]
) -> None:
    made = await make.registration(client, jazz)
    await olga.ask("POST", f"/events/{jazz['id']}/cancellation")
    path = f"/registrations/{made['id']}?secret={made['secret']}"
    assert (await client.delete(path)).content == (await client.get(path)).content


@pytest.mark.parametrize("keyed", [{}, {"Idempotency-Key": "k"}])
async def test_a_refused_cancellation_cancels_nothing(
    client: httpx.AsyncClient, olga: Actor, jazz: dict[str, Any], db: Database, keyed: dict[str, str]
) -> None:
    await make.registration(client, jazz)
    await end(db, jazz)
    for _ in range(2):
        refused = await olga.ask("POST", f"/events/{jazz['id']}/cancellation", **keyed)
        assert (refused.status_code, refused.json()["code"]) == (409, "invalid_state")
    assert await statuses(db, jazz) == {"confirmed": 1}
    assert await seats(client, jazz) == (1, 9)


async def test_a_replayed_refusal_cancels_nothing(
    client: httpx.AsyncClient, olga: Actor, db: Database
) -> None:
    event = await make.event(client, olga, status="draft")
    key = {"Idempotency-Key": "k"}
    assert (await olga.ask("POST", f"/events/{event['id']}/cancellation", **key)).status_code == 409
    await olga.ask("POST", f"/events/{event['id']}/publication")
    await make.registration(client, event)
    replayed = await olga.ask("POST", f"/events/{event['id']}/cancellation", **key)
    assert (replayed.status_code, replayed.headers["idempotency-replayed"]) == (409, "true")
    assert await statuses(db, event) == {"confirmed": 1}
    gone = await make.event(client, olga, status="draft")
    await olga.ask("POST", f"/events/{gone['id']}/cancellation", **{"Idempotency-Key": "gone"})
    await olga.ask("DELETE", f"/events/{gone['id']}")
    replayed = await olga.ask("POST", f"/events/{gone['id']}/cancellation", **{"Idempotency-Key": "gone"})
    assert (replayed.status_code, replayed.headers["idempotency-replayed"]) == (409, "true")


async def test_a_draft_is_deleted_and_not_cancelled(client: httpx.AsyncClient, olga: Actor) -> None:
    draft = await make.event(client, olga, status="draft")
    assert_problem(await olga.ask("POST", f"/events/{draft['id']}/cancellation"), 409, "invalid_state")


async def test_strangers_do_not_cancel_events(
    client: httpx.AsyncClient, olga: Actor, jazz: dict[str, Any]
) -> None:
    stranger = await make.user(client, "Stranger")
    refused = await stranger.ask("POST", f"/events/{jazz['id']}/cancellation")
    assert_problem(refused, 404, "not_found")
    missing = await stranger.ask("POST", f"/events/{uuid4()}/cancellation")
    assert without_request_id(refused) == without_request_id(missing)
    support = await make.member(client, olga, "support")
    assert_problem(await support.ask("POST", f"/events/{jazz['id']}/cancellation"), 403, "forbidden")
    assert (await client.get(f"/events/{jazz['id']}")).json()["status"] == "published"


async def test_an_event_of_more_than_a_thousand_registrations_is_cancelled_whole(
    client: httpx.AsyncClient, olga: Actor, db: Database
) -> None:
    many = closing.BATCH_MAX + 5
    event = await make.event(client, olga, capacity=many)
    people = [{"event_id": event["id"], "name": f"P{n}", "email": f"p{n}@example.org"} for n in range(many)]
    answers = await asyncio.gather(*(client.post("/registrations", json=person) for person in people))
    assert {answer.status_code for answer in answers} == {201}
    assert (await olga.ask("POST", f"/events/{event['id']}/cancellation")).status_code == 200
    assert await statuses(db, event) == {"cancelled": many}
    assert await seats(client, event) == (0, many)
    assert await what_does_not_hold(db) == []


@pytest.mark.parametrize("finisher", ["housekeeping", "second call"])
async def test_a_cancellation_that_broke_off_is_finished(
    olga: Actor, jazz: dict[str, Any], db: Database, monkeypatch: pytest.MonkeyPatch, finisher: str
) -> None:
    for name in ("Ann", "Bob", "Cem", "Dan", "Eve"):
        await make.registration(olga.http, jazz, name)
    monkeypatch.setattr(closing, "BATCH_MAX", 2)
    caller = await accounts.identify(db, olga.token)
    async with db.transaction() as tx:
        await closing.cancel_event(tx, caller, UUID(jazz["id"]))
    assert await statuses(db, jazz) == {"cancelled": 2, "confirmed": 3}
    assert await what_does_not_hold(db) == []
    if finisher == "housekeeping":
        await housekeeping.do_chores(db)
    else:
        await olga.ask("POST", f"/events/{jazz['id']}/cancellation")
    assert await statuses(db, jazz) == {"cancelled": 5}
    assert await seats(olga.http, jazz) == (0, 10)
    assert await what_does_not_hold(db) == []


async def test_housekeeping_leaves_other_events_alone(
    client: httpx.AsyncClient, jazz: dict[str, Any], db: Database
) -> None:
    await make.registration(client, jazz)
    await end(db, jazz)
    await housekeeping.do_chores(db)
    assert await statuses(db, jazz) == {"confirmed": 1}


async def test_a_sale_that_races_a_cancellation_leaves_nobody_registered(
    client: httpx.AsyncClient, olga: Actor, db: Database
) -> None:
    event = await make.event(client, olga, capacity=100)
    people = [{"event_id": event["id"], "name": f"P{n}", "email": f"p{n}@example.org"} for n in range(60)]
    sales = [asyncio.create_task(client.post("/registrations", json=person)) for person in people]
    cancellation = await olga.ask("POST", f"/events/{event['id']}/cancellation")
    assert cancellation.status_code == 200
    codes = {answer.json().get("code", "made") for answer in await asyncio.gather(*sales)}
    assert codes <= {"made", "not_on_sale"}
    assert "confirmed" not in await statuses(db, event)
    assert await what_does_not_hold(db) == []


# Problems

TITLES = {
    "validation_failed": (422, "Some fields are not valid"),
    "unauthenticated": (401, "Sign in, or send a valid token"),
    "forbidden": (403, "You may not do this"),
    "not_found": (404, "There is no such thing"),
    "sold_out": (409, "Event full"),
    "already_registered": (409, "This person is registered already"),
    "not_on_sale": (409, "This event is not on sale"),
    "invalid_state": (409, "The present state does not allow this"),
    "below_committed": (409, "The capacity cannot be less than the seats that are taken"),
    "idempotency_mismatch": (422, "This Idempotency-Key was used for another request"),
    "idempotency_in_progress": (409, "The first request with this Idempotency-Key is still running"),
    "busy": (503, "The server is busy. Try again"),
    "body_too_large": (413, "The request body is too large"),
}


async def test_the_codes_that_people_build_on_keep_status_and_title() -> None:
    known = {kind.code: (status_of(kind), kind.title) for kind in all_problems()}
    assert {code: known.get(code) for code in TITLES} == TITLES


async def test_every_problem_is_explained_where_its_type_leads(client: httpx.AsyncClient) -> None:
    for kind in all_problems():
        answer = await client.get(f"http://rowlock.test/problems/{kind.code}")
        assert answer.status_code == 200
        assert kind.title in answer.text
    assert_problem(await client.get("http://rowlock.test/problems/nonsense"), 404, "not_found")


async def test_a_request_id_that_is_harmless_comes_back(client: httpx.AsyncClient) -> None:
    answer = await client.get(f"/registrations/{uuid4()}", headers={"X-Request-Id": "proxy-7_a.b"})
    assert answer.headers["x-request-id"] == answer.json()["request_id"] == "proxy-7_a.b"
    for odd in ("", "a b", "x" * 65, "<b>", "a;b"):
        answer = await client.get(f"/registrations/{uuid4()}", headers={"X-Request-Id": odd})
        assert answer.headers["x-request-id"] == answer.json()["request_id"] != odd


async def test_a_method_that_a_resource_does_not_know_is_refused(client: httpx.AsyncClient) -> None:
    refused = await client.put("/registrations", json={})
    assert_problem(refused, 405, "method_not_allowed")
    assert refused.headers["allow"] == "POST"
