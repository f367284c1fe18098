"""Transactions: committed or not, told which; no connection is lost, no wait is endless, no driver's text gets out."""

# ruff: noqa: PT012 - what raises is the end of a transaction, so its whole block is what is tried

from __future__ import annotations

import asyncio
import contextvars
import random
import traceback
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID, uuid4

import asyncpg
import pytest
from structlog.testing import capture_logs

from rowlock.kernel import database
from rowlock.kernel.database import Database, UniqueViolation, open_database
from rowlock.kernel.errors import Busy, LockTimeout, OutcomeUnknown, Problem
from rowlock.kernel.scratch import scratch_database
from tests import make
from tests.theatre import open_theatre

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    import httpx
    from fastapi import FastAPI

    from rowlock.kernel.postgres import Postgres

T = TypeVar("T")
SIZE = 4

# A COMMIT that waits for the advisory lock 1: the trigger of a row in `slow` runs when its transaction commits.
TABLES = """
CREATE TABLE fast (id uuid NOT NULL CONSTRAINT one_of_each PRIMARY KEY);
CREATE TABLE slow (id uuid NOT NULL);
CREATE FUNCTION wait_for_lock() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(1);
    RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER waits AFTER INSERT ON slow DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION wait_for_lock();
"""
PATIENT = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = '60s'"
IMPATIENT = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = '50ms'"


@pytest.fixture
async def room(postgres: Postgres) -> AsyncIterator[Database]:
    """Return an empty database of its own, with few connections."""
    async with scratch_database(postgres.url()) as url:
        opened = await open_database(url, size=SIZE)
        async with opened.transaction() as tx:
            await tx.execute(TABLES)
        yield opened
        await opened.close()


@pytest.fixture
async def one(postgres: Postgres) -> AsyncIterator[Database]:
    """Return a database with a single connection."""
    opened = await open_database(postgres.url(), size=1)
    yield opened
    await opened.close()


def elsewhere(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Let somebody else do this: a task that does not know of the transaction that its maker is in."""
    return asyncio.get_running_loop().create_task(work, context=contextvars.Context())


async def value(db: Database, sql: str, *values: Any) -> Any:
    async with db.connection() as connection:
        return await connection.fetch_value(sql, *values)


async def until(db: Database, sql: str) -> None:
    """Ask until it is true."""
    async with asyncio.timeout(30):
        while not await elsewhere(value(db, sql)):
            pass


SOMEBODY_WAITS = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND locktype = 'advisory')"
ALL_ARE_IDLE = (
    "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()"
    " AND pid <> pg_backend_pid() AND backend_type = 'client backend' AND state <> 'idle')"
)


async def assert_all_connections_are_well(db: Database) -> None:
    """See that nobody is in a transaction, and that all connections can be had at once."""
    await until(db, ALL_ARE_IDLE)
    assert db.idle() == db.size() <= SIZE
    everybody = asyncio.Barrier(SIZE)

    async def work() -> None:
        async with db.transaction() as tx:
            await everybody.wait()
            assert await tx.fetch_value("SELECT 1") == 1

    await asyncio.gather(*(work() for _ in range(SIZE)))


# What a transaction is


async def test_leaving_the_block_commits_and_an_exception_rolls_back(room: Database) -> None:
    kept, gone = uuid4(), uuid4()
    async with room.transaction() as tx:
        assert await tx.execute("INSERT INTO fast VALUES ($1)", kept) == 1
    with pytest.raises(ZeroDivisionError):
        async with room.transaction() as tx:
            await tx.execute("INSERT INTO fast VALUES ($1)", gone)
            raise ZeroDivisionError
    assert await value(room, "SELECT array_agg(id) FROM fast") == [kept]


async def test_a_transaction_is_read_committed_and_bounds_its_waits_whatever_the_defaults(
    room: Database,
) -> None:
    async with room.transaction() as tx:
        name = await tx.fetch_value("SELECT current_database()")
        await tx.execute(f"ALTER DATABASE \"{name}\" SET default_transaction_isolation = 'serializable'")
        await tx.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    await value(
        room,
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    async with room.transaction() as tx:
        shown = [
            await tx.fetch_value(f"SHOW {name}")
            for name in (
                "transaction_isolation",
                "transaction_read_only",
                "lock_timeout",
                "statement_timeout",
                "idle_in_transaction_session_timeout",
            )
        ]
    assert shown == ["read committed", "off", "2s", "5s", "10s"]


async def test_a_snapshot_sees_one_instant_and_writes_nothing(room: Database) -> None:
    async with room.snapshot() as snapshot:
        before = await snapshot.fetch_value("SELECT count(*) FROM fast")

        async def write() -> None:
            async with room.transaction() as tx:
                await tx.execute("INSERT INTO fast VALUES ($1)", uuid4())

        await elsewhere(write())
        assert await snapshot.fetch_value("SELECT count(*) FROM fast") == before == 0
    assert await value(room, "SELECT count(*) FROM fast") == 1
    with pytest.raises(Busy):
        async with room.snapshot() as snapshot:
            await snapshot.fetch("INSERT INTO fast VALUES ($1) RETURNING id", uuid4())
    await assert_all_connections_are_well(room)


async def test_transactions_are_never_nested(room: Database) -> None:
    async with room.transaction() as tx:
        for inner in (room.transaction, room.connection, room.snapshot):
            with pytest.raises(RuntimeError, match="inside a transaction"):
                async with inner():
                    pass
        assert await tx.fetch_value("SELECT 1") == 1
    async with room.connection():
        with pytest.raises(RuntimeError, match="inside a transaction"):
            async with room.transaction():
                pass
    await assert_all_connections_are_well(room)


async def test_a_second_row_with_the_same_key_names_the_rule_it_breaks(room: Database) -> None:
    it = uuid4()
    with pytest.raises(UniqueViolation) as caught:
        async with room.transaction() as tx:
            await tx.execute("INSERT INTO fast VALUES ($1)", it)
            await tx.execute("INSERT INTO fast VALUES ($1)", it)
    assert caught.value.constraint == "one_of_each"
    assert await value(room, "SELECT count(*) FROM fast") == 0


async def test_logged_statements_hide_texts(postgres: Postgres) -> None:
    talkative = await open_database(postgres.url(), size=1, log_sql=True)
    with capture_logs() as logs:
        async with talkative.transaction() as tx:
            await tx.fetch("SELECT $1::text, $2::text[], $3::int, $4::bytea", "Ann", ["Bob"], 7, b"secret")
    await talkative.close()
    [line] = [line for line in logs if line["event"].startswith("SELECT")]
    assert line["values"] == ["…", ["…"], 7, "…"]
    assert not any(name in str(logs) for name in ("Ann", "Bob", "secret"))


# Waits that end


async def test_a_lock_that_does_not_come_is_said_to_be_one(
    room: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    it = uuid4()
    async with room.transaction() as tx:
        await tx.execute("INSERT INTO fast VALUES ($1)", it)
    monkeypatch.setattr(database, "_BEGIN", IMPATIENT)

    async def take() -> None:
        async with room.transaction() as tx:
            await tx.fetch("SELECT id FROM fast FOR UPDATE")

    async with room.transaction() as tx:
        await tx.fetch("SELECT id FROM fast FOR UPDATE")
        with pytest.raises(LockTimeout):
            await elsewhere(take())
    await take()
    await assert_all_connections_are_well(room)


async def test_a_sale_behind_a_lock_is_busy_and_never_sold_out(
    client: httpx.AsyncClient, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_BEGIN", IMPATIENT)
    ann = await make.user(client, "Ann")
    locked, free = await make.event(client, ann, capacity=1), await make.event(client, ann)
    person = {"name": "Bob", "email": "bob@example.org"}

    async def register(event: dict[str, Any]) -> httpx.Response:
        return await client.post("/registrations", json={"event_id": event["id"], **person})

    async with db.transaction() as tx:
        await tx.fetch("SELECT id FROM capacity_pool WHERE event_id = $1 FOR UPDATE", UUID(locked["id"]))
        answers = await elsewhere(_all(register(locked), register(free), register(locked)))
    assert [answer.status_code for answer in answers] == [503, 201, 503]
    refused = answers[0]
    assert refused.json()["code"] == "busy"
    assert refused.headers["retry-after"] == "1"
    assert refused.headers["content-type"] == "application/problem+json"
    assert (await register(locked)).status_code == 201


async def test_other_writes_behind_a_lock_are_busy_too(
    client: httpx.AsyncClient, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_BEGIN", IMPATIENT)
    ann = await make.user(client, "Ann")
    event = await make.event(client, ann)
    made = await make.registration(client, event, "Bob")
    async with db.transaction() as tx:
        await tx.fetch("SELECT id FROM capacity_pool WHERE event_id = $1 FOR UPDATE", UUID(event["id"]))
        answers = await elsewhere(
            _all(
                ann.ask("DELETE", f"/registrations/{made['id']}"),
                ann.ask("PATCH", f"/events/{event['id']}", {"capacity": 20}),
                ann.ask("POST", f"/events/{event['id']}/pause", **{"Idempotency-Key": "p"}),
                ann.ask("POST", f"/events/{event['id']}/cancellation", **{"Idempotency-Key": "c"}),
            )
        )
    assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(503, "busy")}
    assert {answer.headers["retry-after"] for answer in answers} == {"1"}
    shown = (await client.get(f"/events/{event['id']}")).json()
    assert (shown["status"], shown["capacity"], shown["sold"]) == ("published", 10, 1)
    assert (
        await ann.ask("POST", f"/events/{event['id']}/pause", **{"Idempotency-Key": "p"})
    ).status_code == 200


async def test_a_connection_that_does_not_come_is_busy(
    one: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "ACQUIRE_SECONDS", 0.05)
    async with one.transaction():
        with pytest.raises(Busy):
            await elsewhere(value(one, "SELECT 1"))
    assert await value(one, "SELECT 1") == 1


async def test_no_connection_is_503_for_callers(
    client: httpx.AsyncClient, app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = await make.user(client, "Ann")
    monkeypatch.setattr(database, "ACQUIRE_SECONDS", 0.05)
    size = app.state.settings.other_connections
    everybody, done = asyncio.Barrier(size + 1), asyncio.Event()

    async def hold() -> None:
        async with app.state.db.connection():
            await everybody.wait()
            await done.wait()

    holders = [elsewhere(hold()) for _ in range(size)]
    await everybody.wait()
    answers = await _all(client.get("/events"), ann.ask("POST", "/events", {"title": "Jazz", "capacity": 1}))
    done.set()
    await asyncio.gather(*holders)
    assert {(it.status_code, it.json()["code"], it.headers["retry-after"]) for it in answers} == {
        (503, "busy", "1")
    }
    assert (await client.get("/events")).status_code == 200


# Callers who go away


async def test_tasks_that_are_cancelled_anywhere_leave_nothing_behind(room: Database) -> None:
    chance = random.Random(7)  # noqa: S311 - the same points in every run

    async def work() -> None:
        async with room.transaction() as tx:
            await tx.execute("INSERT INTO fast VALUES ($1)", uuid4())
            await tx.fetch_value("SELECT count(*) FROM fast")
            await tx.execute("INSERT INTO fast VALUES ($1)", uuid4())

    async def cancel_somewhere() -> BaseException | None:
        task = asyncio.create_task(work())
        for _ in range(chance.randrange(60)):
            await asyncio.sleep(0)
        task.cancel()
        [outcome] = await asyncio.gather(task, return_exceptions=True)
        return outcome

    outcomes = []
    for _ in range(50):
        outcomes += await asyncio.gather(*(cancel_somewhere() for _ in range(SIZE)))
    assert len(outcomes) == 200
    assert {type(outcome) for outcome in outcomes} == {asyncio.CancelledError, type(None)}
    await assert_all_connections_are_well(room)
    assert await value(room, "SELECT count(*) % 2 FROM fast") == 0


async def test_clients_that_disconnect_anywhere_leave_nothing_behind(
    client: httpx.AsyncClient, app: FastAPI
) -> None:
    chance = random.Random(11)  # noqa: S311 - the same points in every run
    ann = await make.user(client, "Ann")
    event = await make.event(client, ann, capacity=1000)

    async def leave_somewhere(number: int) -> None:
        person = {"event_id": event["id"], "name": "Bob", "email": f"bob{number}@example.org"}
        requests = [
            lambda: ann.ask(
                "POST", "/events", {"title": "Jazz", "capacity": 1}, **{"Idempotency-Key": f"e{number}"}
            ),
            lambda: ann.ask("PATCH", f"/events/{event['id']}", {"capacity": 1000 + number}),
            lambda: client.post("/registrations", json=person, headers={"Idempotency-Key": f"r{number}"}),
        ]
        task = asyncio.create_task(requests[number % 3]())
        for _ in range(chance.randrange(100)):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    for start in range(0, 90, 6):
        await asyncio.gather(*(leave_somewhere(number) for number in range(start, start + 6)))
    await until(app.state.db, ALL_ARE_IDLE)
    for pool in (app.state.db, app.state.sale):
        assert pool.idle() == pool.size()
    shown = (await client.get(f"/events/{event['id']}")).json()
    listed = (await ann.ask("GET", f"/events/{event['id']}/registrations?limit=100")).json()["items"]
    assert shown["sold"] == len(listed)
    for number in range(2, 90, 3):
        person = {"event_id": event["id"], "name": "Bob", "email": f"bob{number}@example.org"}
        answer = await client.post("/registrations", json=person, headers={"Idempotency-Key": f"r{number}"})
        assert answer.status_code == 201


async def test_a_cancellation_during_commit_waits_for_it_and_keeps_the_connection(
    room: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_BEGIN", PATIENT)
    async with room.transaction() as holder:
        await holder.fetch_value("SELECT pg_advisory_xact_lock(1)")
        task = elsewhere(_insert_slowly(room))
        await until(room, SOMEBODY_WAITS)
        task.cancel()
        await elsewhere(value(room, "SELECT 1"))
        assert not task.done()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await value(room, "SELECT count(*) FROM slow") == 1
    await assert_all_connections_are_well(room)


# Connections that break


async def test_a_connection_that_breaks_before_commit_has_done_nothing(room: Database) -> None:
    with pytest.raises(Busy) as caught:
        async with room.transaction() as tx:
            await tx.execute("INSERT INTO fast VALUES ($1)", uuid4())
            await tx.remember_xid()
            await _terminate(room, tx)
    assert not isinstance(caught.value, OutcomeUnknown)
    assert await value(room, "SELECT count(*) FROM fast") == 0
    await assert_all_connections_are_well(room)


async def test_a_connection_that_breaks_in_the_middle_is_busy(room: Database) -> None:
    with pytest.raises(Busy):
        async with room.transaction() as tx:
            await _terminate(room, tx)
            await tx.execute("INSERT INTO fast VALUES ($1)", uuid4())
    await assert_all_connections_are_well(room)


async def test_a_connection_that_breaks_during_commit_is_looked_up(
    room: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_BEGIN", PATIENT)
    async with room.transaction() as holder:
        await holder.fetch_value("SELECT pg_advisory_xact_lock(1)")
        task = elsewhere(_insert_slowly(room))
        await until(room, SOMEBODY_WAITS)
        await holder.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE NOT granted AND locktype = 'advisory'"
        )
        with pytest.raises(Busy) as caught:
            await task
    assert not isinstance(caught.value, OutcomeUnknown)
    assert await value(room, "SELECT count(*) FROM slow") == 0
    await assert_all_connections_are_well(room)


async def test_a_commit_whose_answer_got_lost_is_looked_up_even_without_a_spare_connection(
    one: Database,
) -> None:
    async with one.transaction() as tx:
        xid = await tx.fetch_value("SELECT pg_current_xact_id()::text")
        tx.xid = xid
        tx._raw = Lossy(tx._raw)
    assert await value(one, "SELECT pg_xact_status($1::text::xid8)", xid) == "committed"


async def test_many_commits_whose_answers_got_lost_at_once_are_all_looked_up(room: Database) -> None:
    everybody = asyncio.Barrier(SIZE)

    async def work() -> None:
        async with room.transaction() as tx:
            await tx.execute("INSERT INTO fast VALUES ($1)", uuid4())
            await tx.remember_xid()
            tx._raw = Lossy(tx._raw)
            await everybody.wait()

    await asyncio.gather(*(work() for _ in range(SIZE)))
    assert await value(room, "SELECT count(*) FROM fast") == SIZE
    await assert_all_connections_are_well(room)


async def test_a_commit_that_nobody_can_look_up_is_unknown(
    room: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OutcomeUnknown):
        async with room.transaction() as tx:
            await tx.execute("INSERT INTO fast VALUES ($1)", uuid4())
            tx._raw = Lossy(tx._raw)
    monkeypatch.setattr(database, "RESOLVE_SECONDS", 0)
    with pytest.raises(OutcomeUnknown):
        async with room.transaction() as tx:
            await tx.execute("INSERT INTO fast VALUES ($1)", uuid4())
            await tx.remember_xid()
            tx._raw = Lossy(tx._raw)
    await assert_all_connections_are_well(room)


def test_a_registration_whose_commit_breaks_is_made_once_when_asked_again(postgres: Postgres) -> None:
    with open_theatre(postgres.url()) as theatre:

        async def story() -> None:
            client, db = theatre.client, theatre.db
            event = await make.event(client, await make.user(client, "Ann"))
            async with db.transaction() as tx:
                await tx.execute(
                    TABLES + "CREATE CONSTRAINT TRIGGER waits AFTER INSERT ON orders"
                    " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wait_for_lock();"
                )
            body = {"event_id": event["id"], "name": "Bob", "email": "bob@example.org"}
            headers = {"Idempotency-Key": "k"}
            async with db.transaction() as holder:
                await holder.fetch_value("SELECT pg_advisory_xact_lock(1)")
                asked = elsewhere(client.post("/registrations", json=body, headers=headers))
                await until(db, SOMEBODY_WAITS)
                await holder.fetch(
                    "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE NOT granted AND locktype = 'advisory'"
                )
                answer = await asked
            assert (answer.status_code, answer.json()["code"]) == (503, "busy")
            again = await client.post("/registrations", json=body, headers=headers)
            assert again.status_code == 201
            assert "idempotency-replayed" not in again.headers
            assert await value(db, "SELECT count(*) FROM orders") == 1

        theatre.run(story())


# Faults


async def test_a_fault_of_the_program_stays_one(room: Database) -> None:
    for fault in ("SELECT 1 / 0", "nonsense", "SELECT * FROM nowhere"):
        with pytest.raises(Exception, match=r".+") as caught:
            async with room.transaction() as tx:
                await tx.execute(fault)
        assert not isinstance(caught.value, Problem)
    await assert_all_connections_are_well(room)


def test_callers_never_see_what_the_database_says(postgres: Postgres) -> None:
    with open_theatre(postgres.url()) as theatre:

        async def story() -> list[httpx.Response]:
            client = theatre.client
            ann = await make.user(client, "Ann")
            event = await make.event(client, ann)
            made = await make.registration(client, event, "Bob")
            async with theatre.db.transaction() as tx:
                await tx.execute("ALTER TABLE ticket RENAME TO lost_tickets")
                await tx.execute("ALTER TABLE ticket_type RENAME TO lost_types")
            return [
                await client.post(
                    "/registrations", json={"event_id": event["id"], "name": "Cem", "email": "c@example.org"}
                ),
                await client.get(made["link"].removeprefix("/api/v1")),
                await ann.ask("DELETE", f"/registrations/{made['id']}"),
                await ann.ask("GET", f"/events/{event['id']}/registrations"),
                await ann.ask("POST", f"/events/{event['id']}/cancellation"),
                await ann.ask(
                    "POST", "/events", {"title": "Jazz", "capacity": 1}, **{"Idempotency-Key": "k"}
                ),
            ]

        answers = theatre.run(story())
    for answer in answers:
        assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
        body = answer.json()
        assert body["code"] == "internal_error"
        assert set(body) == {"type", "title", "status", "detail", "code", "request_id"}
        assert not any(
            word in answer.text.lower() for word in ("ticket", "relation", "select", "insert", "asyncpg")
        )


class Lossy:
    """A connection that commits, and breaks before it says so."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def __getattr__(self, name: str) -> Any:
        """Be like the connection in all else."""
        return getattr(self._raw, name)

    async def execute(self, sql: str, *values: Any) -> Any:
        """Run one statement."""
        answer = await self._raw.execute(sql, *values)
        if sql == "COMMIT":
            self._raw.terminate()
            message = "connection was closed in the middle of operation"
            raise asyncpg.ConnectionDoesNotExistError(message)
        return answer


async def _all(*work: Coroutine[Any, Any, T]) -> list[T]:
    return await asyncio.gather(*work)


async def _insert_slowly(db: Database) -> None:
    async with db.transaction() as tx:
        await tx.execute("INSERT INTO slow VALUES ($1)", uuid4())
        await tx.remember_xid()


async def _terminate(db: Database, tx: database.Transaction) -> None:
    """Let somebody else end a transaction's connection, and wait until it is gone."""
    pid = await tx.fetch_value("SELECT pg_backend_pid()")
    await elsewhere(value(db, "SELECT pg_terminate_backend($1)", pid))
    await until(db, f"SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = {pid})")


async def test_a_refused_statement_says_which_rule_and_never_what_it_held(room: Database) -> None:
    with pytest.raises(database.DatabaseFault) as caught:
        async with room.transaction() as tx:
            await tx.execute("CREATE TEMP TABLE strict (name text CONSTRAINT short CHECK (length(name) < 4))")
            await tx.execute("INSERT INTO strict VALUES ($1)", "Ada Lovelace")

    told = "".join(traceback.format_exception(caught.value))
    assert "CheckViolationError 23514 (short)" in told
    assert "Lovelace" not in str(caught.value)
    assert "Failing row" not in told
    await assert_all_connections_are_well(room)


async def test_a_value_that_cannot_be_sent_is_our_fault_and_no_reason_to_try_again(room: Database) -> None:
    with pytest.raises(database.DatabaseFault):
        async with room.connection() as connection:
            await connection.fetch_value("SELECT $1::int", "Ada Lovelace")
    await assert_all_connections_are_well(room)
