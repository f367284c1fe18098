"""The Idempotency-Key, on every POST route there is: a repeated request gets the first one's answer, and acts once."""

from __future__ import annotations

import asyncio
import contextvars
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID, uuid4

import pytest

from rowlock.accounts import service as accounts
from rowlock.kernel import database
from rowlock.kernel.idempotency import Reply, make_key, remember
from tests import make

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

    import httpx
    from fastapi import FastAPI

    from rowlock.kernel.database import Database
    from tests.make import Actor

T = TypeVar("T")

PREFIX = "/api/v1"
KEY = "key-of-this-test"


@dataclass(frozen=True)
class Case:
    """How to ask a route, and what it does.

    `effect` counts what it has done. `undo` takes that back where doing it twice would not show. `conflict` makes a
    state that the route refuses, `lifted` ends it. Ids stand in braces, `{event_id}`, everywhere.
    """

    route: str
    body: dict[str, Any] | None
    effect: str
    undo: str = ""
    conflict: str = ""
    lifted: str = ""
    status: int = 201
    anonymous: bool = False
    draft: bool = False


_TO = "UPDATE event SET status = '{}' WHERE id = '{{event_id}}'".format
CASES = [
    Case(
        "/users",
        {"name": "Zaphod Beeblebrox", "email": "zaphod@example.org", "password": "correct horse"},
        "SELECT count(*) FROM users WHERE name = 'Zaphod Beeblebrox'",
        conflict="UPDATE users SET person_key = 'zaphod@example.org' WHERE id = '{pat}'",
        lifted="UPDATE users SET person_key = 'pat@example.org' WHERE id = '{pat}'",
        anonymous=True,
    ),
    Case(
        "/tokens",
        {"email": "sign-in@example.org", "password": "correct horse"},
        "SELECT count(*) FROM access_token JOIN users ON users.id = user_id WHERE email = 'sign-in@example.org'",
        anonymous=True,
    ),
    Case(
        "/organizations",
        {"name": "Heart of Gold"},
        "SELECT count(*) FROM organization WHERE name = 'Heart of Gold'",
    ),
    Case(
        "/organizations/{organization_id}/members",
        {"email": "future-member@example.org", "role": "support"},
        "SELECT count(*) FROM member WHERE role = 'support'",
        conflict="INSERT INTO member (organization_id, user_id, role)"
        " VALUES ('{organization_id}', '{future_member}', 'door')",
        lifted="DELETE FROM member WHERE role = 'door'",
    ),
    Case(
        "/organizations/{organization_id}/api-keys",
        {"name": "Ticket shop", "scopes": ["events:read"]},
        "SELECT count(*) FROM api_key",
    ),
    Case(
        "/events",
        {"title": "Restaurant opening", "capacity": 5, "status": "published"},
        "SELECT count(*) FROM event WHERE title = 'Restaurant opening'",
    ),
    Case(
        "/events/{event_id}/publication",
        None,
        "SELECT count(*) FROM event WHERE status = 'published'",
        undo=_TO("draft"),
        conflict=_TO("cancelled"),
        lifted=_TO("draft"),
        status=200,
        draft=True,
    ),
    Case(
        "/events/{event_id}/pause",
        None,
        "SELECT count(*) FROM event WHERE status = 'paused'",
        undo=_TO("published"),
        conflict=_TO("draft"),
        lifted=_TO("published"),
        status=200,
    ),
    Case(
        "/events/{event_id}/cancellation",
        None,
        "SELECT count(*) FROM event WHERE status = 'cancelled'",
        undo=_TO("published"),
        conflict=_TO("draft"),
        lifted=_TO("published"),
        status=200,
    ),
    Case(
        "/events/{event_id}/ticket-types",
        {"name": "Royal box", "description": "With a view of the stage."},
        "SELECT count(*) FROM ticket_type WHERE name = 'Royal box'",
        conflict=_TO("cancelled"),
        lifted=_TO("published"),
    ),
    Case(
        "/registrations",
        {"event_id": "{event_id}", "name": "Arthur Dent", "email": "arthur@example.org"},
        "SELECT count(*) FROM orders WHERE status = 'confirmed'",
        conflict=_TO("paused"),
        lifted=_TO("published"),
    ),
]


@dataclass
class Stage:
    """A case made ready: who asks, and the ids that its texts name."""

    client: httpx.AsyncClient
    db: Database
    case: Case
    ann: Actor
    pat: Actor
    ids: dict[str, str] = field(default_factory=dict)

    def filled(self, it: Any) -> Any:
        """Put the ids into a text, or into the texts of a body."""
        if isinstance(it, dict):
            return {name: self.filled(value) for name, value in it.items()}
        return it.format(**self.ids) if isinstance(it, str) else it

    async def ask(
        self, key: str | bytes | None = KEY, *, caller: Actor | None = None, **more: Any
    ) -> httpx.Response:
        """Send the case's request; `path` and `json` may be others."""
        headers = (
            {} if self.case.anonymous else {b"Authorization": f"Bearer {(caller or self.ann).token}".encode()}
        )
        if key is not None:
            headers[b"Idempotency-Key"] = key if isinstance(key, bytes) else key.encode()
        path = more.get("path", self.filled(self.case.route))
        body = more.get("json", self.filled(self.case.body))
        return await self.client.post(path, json=body, headers=headers)

    async def count(self) -> int:
        """Count what the route has done so far."""
        async with self.db.connection() as connection:
            found: int = await connection.fetch_value(self.filled(self.case.effect))
        return found

    async def run(self, sql: str) -> None:
        """Run a statement of the case, if it has one."""
        if sql:
            async with self.db.transaction() as tx:
                await tx.execute(self.filled(sql))


@pytest.fixture
async def stage(client: httpx.AsyncClient, db: Database, case: Case) -> Stage:
    ann, pat = await make.user(client, "Ann"), await make.user(client, "Pat")
    future_member = await make.user(client, "Future", "future-member@example.org")
    club = await make.organization(client, ann, "Club")
    body = {"email": pat.email, "role": "owner"}
    assert (await ann.ask("POST", f"/organizations/{club}/members", body)).status_code == 201
    status = "draft" if case.draft else "published"
    event = await make.event(client, ann, status=status, organization_id=club)
    if case.route == "/tokens":
        new = {"name": "Sign", "email": "sign-in@example.org", "password": "correct horse"}
        assert (await client.post("/users", json=new)).status_code == 201
    ids = {"organization_id": club, "event_id": event["id"], "pat": pat.id, "future_member": future_member.id}
    return Stage(client, db, case, ann, pat, ids)


def of_cases(cases: Iterable[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", list(cases), ids=lambda case: case.route)


each_route = of_cases(CASES)


def assert_replayed(answer: httpx.Response, first: httpx.Response) -> None:
    assert answer.headers.get("idempotency-replayed") == "true"
    assert (answer.status_code, answer.content) == (first.status_code, first.content)
    for header in ("location", "content-type"):
        assert answer.headers.get(header) == first.headers.get(header)


def assert_acted(answer: httpx.Response, status: int) -> None:
    """See that the route itself answered; what can be done once only it may have refused, but anew."""
    assert "idempotency-replayed" not in answer.headers
    assert answer.status_code in {status, 409}, answer.text
    assert answer.json().get("code") not in {"idempotency_mismatch", "idempotency_in_progress"}


def assert_mismatch(answer: httpx.Response) -> None:
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_mismatch")
    assert "idempotency-replayed" not in answer.headers


def test_every_post_route_has_its_case(app: FastAPI) -> None:
    routes = {path for path, operations in app.openapi()["paths"].items() if "post" in operations}
    assert {PREFIX + case.route for case in CASES} == routes


@each_route
async def test_without_a_key_every_request_acts(stage: Stage) -> None:
    assert_acted(first := await stage.ask(None), stage.case.status)
    assert first.status_code == stage.case.status
    await stage.run(stage.case.undo)
    assert_acted(await stage.ask(None), stage.case.status)
    async with stage.db.connection() as connection:
        assert await connection.fetch_value("SELECT count(*) FROM idempotency_key") == 0


@each_route
async def test_the_same_request_gets_the_same_answer_and_acts_once(stage: Stage) -> None:
    first = await stage.ask()
    assert_acted(first, stage.case.status)
    assert (first.status_code, await stage.count()) == (stage.case.status, 1)
    assert ("location" in first.headers) == (stage.case.status == 201)
    await stage.run(stage.case.undo)
    count = await stage.count()
    for _ in range(2):
        assert_replayed(await stage.ask(), first)
    assert await stage.count() == count


@each_route
async def test_two_at_once_act_once(stage: Stage) -> None:
    first, second = await asyncio.gather(stage.ask(), stage.ask())
    if "idempotency-replayed" in first.headers:
        first, second = second, first
    assert_acted(first, stage.case.status)
    assert_replayed(second, first)
    assert (first.status_code, await stage.count()) == (stage.case.status, 1)


@each_route
async def test_another_body_does_not_fit_the_key(stage: Stage) -> None:
    await stage.ask()
    count = await stage.count()
    other = {**stage.filled(stage.case.body or {}), "name": "Somebody else", "title": "Something else"}
    wanted = {name: value for name, value in other.items() if name in (stage.case.body or {"name": ""})}
    if stage.case.route == "/tokens":
        wanted = {"email": "other@example.org", "password": "correct horse"}
        assert (await stage.client.post("/users", json={"name": "Other", **wanted})).status_code == 201
    if stage.case.route.endswith("/members"):
        wanted = {"email": "future-member@example.org", "role": "door"}
    assert_mismatch(await stage.ask(json=wanted))
    assert await stage.count() == count


@each_route
async def test_another_path_does_not_fit_the_key(stage: Stage) -> None:
    await stage.ask()
    if stage.case.anonymous:
        body = {"event_id": stage.ids["event_id"], "name": "Arthur", "email": "arthur@example.org"}
        assert_mismatch(await stage.ask(path="/registrations", json=body))
        return
    assert_mismatch(
        await stage.ask(path=f"/events/{stage.ids['event_id']}/ticket-types", json={"name": "Stalls"})
    )
    if stage.case.route != "/registrations":
        body = {"event_id": stage.ids["event_id"]}
        assert_mismatch(await stage.ask(path="/registrations", json=body))


@of_cases(case for case in CASES if not case.anonymous)
async def test_another_caller_with_the_same_key_acts(stage: Stage) -> None:
    first = await stage.ask()
    await stage.run(stage.case.undo)
    assert_acted(await stage.ask(caller=stage.pat), stage.case.status)
    assert_replayed(await stage.ask(), first)


# A sign-in and a new API key meet no conflict.
@of_cases(case for case in CASES if case.route != "/tokens" and not case.route.endswith("/api-keys"))
async def test_a_conflict_is_an_answer_and_stays_one(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    body = stage.filled(stage.case.body)
    if stage.case.route == "/organizations":
        monkeypatch.setattr(accounts, "ORGANIZATIONS_MAX", 1)
    elif stage.case.route == "/events":
        body = body | {"ends_at": "2020-01-01T00:00:00Z"}
    await stage.run(stage.case.conflict)
    first = await stage.ask(json=body)
    assert (first.status_code, "idempotency-replayed" in first.headers) == (409, False)
    assert first.headers["content-type"] == "application/problem+json"
    assert await stage.count() == 0
    monkeypatch.undo()
    await stage.run(stage.case.lifted)
    assert_replayed(await stage.ask(json=body), first)
    assert await stage.count() == 0
    if stage.case.route != "/events":
        assert (await stage.ask("another-key")).status_code == stage.case.status


@each_route
@pytest.mark.parametrize("key", ["", "x" * 256, "schl\u00fcssel".encode(), b"\xff", "a\tb"])
async def test_what_is_no_key_is_refused(stage: Stage, key: str | bytes) -> None:
    refused = await stage.ask(key)
    assert (refused.status_code, refused.json()["code"]) == (422, "validation_failed")
    assert [error["pointer"] for error in refused.json()["errors"]] == ["header:Idempotency-Key"]
    assert await stage.count() == 0


@each_route
async def test_the_longest_key_is_a_key(stage: Stage) -> None:
    first = await stage.ask("x" * 255)
    assert_replayed(await stage.ask("x" * 255), first)


@each_route
async def test_an_answer_is_forgotten_after_a_week(stage: Stage) -> None:
    first = await stage.ask()
    await stage.run("UPDATE idempotency_key SET created_at = created_at - interval '8 days'")
    await stage.run(stage.case.undo)
    again = await stage.ask()
    assert_acted(again, stage.case.status)
    if stage.case.status == again.status_code == 201:
        assert again.content != first.content
    assert_replayed(await stage.ask(), again)


@each_route
async def test_a_kept_answer_tells_nothing_to_who_reads_the_table(stage: Stage) -> None:
    answer = await stage.ask()
    async with stage.db.connection() as connection:
        rows = await connection.fetch("SELECT key_hash, answer FROM idempotency_key")
    assert len(rows) == 1
    kept = b"".join(part for row in rows for part in row)
    texts = [KEY, *_texts(answer.json()), *_texts(stage.filled(stage.case.body or {})), *stage.ids.values()]
    assert [text for text in texts if len(text) > 3 and text.encode() in kept] == []
    ids = [UUID(it).bytes for it in stage.ids.values()]
    assert [it for it in ids if it in kept] == []


@of_cases(case for case in CASES if case.body is not None)
async def test_a_request_that_is_not_valid_leaves_its_key_free(stage: Stage) -> None:
    refused = await stage.ask(json=stage.filled(stage.case.body) | {"unknown": 1})
    assert refused.status_code == 422
    assert (await stage.ask()).status_code == stage.case.status


@of_cases(case for case in CASES if case.route != "/registrations")
async def test_who_waits_too_long_for_the_first_request_is_told_so(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_BEGIN", "BEGIN; SET LOCAL lock_timeout = '50ms'")
    caller = "anonymous" if stage.case.anonymous else f"user:{stage.ann.id}"
    lock = int.from_bytes(make_key(caller, KEY).hash[:8], signed=True)
    async with stage.db.transaction() as tx:
        await tx.fetch_value("SELECT pg_advisory_xact_lock($1::bigint)", lock)
        refused = await elsewhere(stage.ask())
    assert (refused.status_code, refused.json()["code"]) == (409, "idempotency_in_progress")
    answer = await stage.ask()
    assert_acted(answer, stage.case.status)
    assert (answer.status_code, await stage.count()) == (stage.case.status, 1)


@each_route
@pytest.mark.parametrize("same", [True, False])
async def test_another_server_that_answers_the_key_at_the_same_time_is_heeded(
    stage: Stage, *, same: bool
) -> None:
    path = PREFIX + stage.filled(stage.case.route)
    sent = stage.client.build_request("POST", path, json=stage.filled(stage.case.body)).content
    caller = "anonymous" if stage.case.anonymous else f"user:{stage.ann.id}"
    more = [stage.ann.token.encode()] if stage.case.route.endswith("/api-keys") else []
    key = make_key(caller, KEY, b"POST", path.encode(), sent if same else b"other", *more)
    async with stage.db.transaction() as tx:
        await remember(tx, {key: Reply(201, b'{"made":"elsewhere"}', "/elsewhere")})
        waiting = elsewhere(stage.ask())
        await until_somebody_waits_for(stage.db, "transactionid")
    answer = await waiting
    if same:
        assert (answer.status_code, answer.json()) == (201, {"made": "elsewhere"})
        assert answer.headers["idempotency-replayed"] == "true"
    else:
        assert_mismatch(answer)
    assert await stage.count() == 0


@of_cases(CASES[-1:])
async def test_one_key_for_many_events_at_once_registers_for_one(stage: Stage) -> None:
    events = [await make.event(stage.client, stage.ann) for _ in range(5)]
    bodies = [stage.filled(stage.case.body) | {"event_id": event["id"]} for event in events]
    answers = await asyncio.gather(*(stage.ask(json=body) for body in bodies))
    codes = [answer.json().get("code", "made") for answer in answers]
    assert (codes.count("made"), codes.count("idempotency_mismatch")) == (1, 4)
    assert await stage.count() == 1


@of_cases(CASES[-1:])
async def test_a_missing_event_is_not_kept_as_an_answer(stage: Stage) -> None:
    body = stage.filled(stage.case.body) | {"event_id": str(uuid4())}
    assert (await stage.ask(json=body)).status_code == 404
    assert (await stage.ask()).status_code == 201


@of_cases(CASES[-1:])
async def test_sold_out_is_kept_and_a_seat_that_comes_free_changes_nothing(stage: Stage) -> None:
    small = await make.event(stage.client, stage.ann, capacity=1)
    taken = await make.registration(stage.client, small, "Bob")
    body = stage.filled(stage.case.body) | {"event_id": small["id"]}
    first = await stage.ask(json=body)
    assert first.json()["code"] == "sold_out"
    await stage.ann.ask("DELETE", f"/registrations/{taken['id']}")
    assert_replayed(await stage.ask(json=body), first)
    assert (await stage.ask("another-key", json=body)).status_code == 201


def elsewhere(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Let somebody else do this: a task that does not know of the transaction that its maker is in."""
    return asyncio.get_running_loop().create_task(work, context=contextvars.Context())


async def until_somebody_waits_for(db: Database, kind: str) -> None:
    """Ask until somebody waits for a lock of this kind."""
    async with asyncio.timeout(20):
        while not await elsewhere(_waiting(db, kind)):
            pass


async def _waiting(db: Database, kind: str) -> int:
    async with db.connection() as connection:
        sql = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = $1"
        found: int = await connection.fetch_value(sql, kind)
    return found


def _texts(it: Any) -> list[str]:
    if isinstance(it, dict | list):
        return [text for part in (it.values() if isinstance(it, dict) else it) for text in _texts(part)]
    return [it] if isinstance(it, str) else []
