"""The race through real processes, and the judge who must not be fooled."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from rowlock.cli import app, racing
from rowlock.cli.client import Answer
from rowlock.cli.racing import CONFIRMED, EVENT_FULL, Report, Round, Tally, allow_open_files, outcome_of
from rowlock.cli.sandbox import sandbox
from rowlock.cli.setting_up import Stop
from rowlock.kernel.database import open_database
from rowlock.reports.model import Check, Finding, Verification

if TYPE_CHECKING:
    from collections.abc import Callable
    from subprocess import CompletedProcess

    Rowlock = Callable[..., CompletedProcess[str]]

HOLDS = Verification([Finding(Check("seats", "Seats equal tickets.", "SELECT 1"), [])])
DIFFERS = Verification([Finding(Check("seats", "Seats equal tickets.", "SELECT 1"), [{"pool": 1}])])


def race(
    confirmed: int = 10, full: int = 40, *, left: int = 0, listed: int | None = None, **others: int
) -> Round:
    """Make a race of fifty for ten seats, right unless something else is said."""
    ids = [str(number) for number in range(100)]
    return Round(
        event_id="e",
        seats=10,
        outcomes={CONFIRMED: confirmed, EVENT_FULL: full, **others},
        confirmed_ids=frozenset(ids[:confirmed]),
        listed_ids=frozenset(ids[: confirmed if listed is None else listed]),
        available=left,
        last_answer_ms=1.0,
    )


def answer(status: int, /, **body: Any) -> Answer:
    return Answer(status, {}, json.dumps(body).encode(), 0.001)


# The judge


def test_a_right_race_has_no_faults() -> None:
    assert race().faults() == []
    assert Report([race(), race()], HOLDS).holds
    assert Report([race()], None).holds


def test_fewer_buyers_than_seats_all_get_one() -> None:
    assert race(4, 0, left=6).faults() == []
    assert race(3, 1, left=7).faults() == ["3 were confirmed, 4 should have been"]


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        (race(11, 39, left=-1), "11 were confirmed, 10 should have been"),
        (race(11, 39, left=0, listed=10), "0 seats are left of 10"),
        (race(9, 41, left=1), "9 were confirmed, 10 should have been"),
        (race(10, 39, **{"503 busy": 1}), "1 got 503 busy"),
        (race(10, 39, **{"no answer (ConnectionLost)": 1}), "1 got no answer (ConnectionLost)"),
        (race(10, 40, left=1), "1 seats are left of 10"),
        (race(10, 40, listed=9), "1 confirmed registrations are not in the API's list"),
        (race(10, 40, listed=11), "1 registrations in the API's list were confirmed to nobody"),
    ],
)
def test_a_wrong_race_is_found_out(wrong: Round, fault: str) -> None:
    assert fault in wrong.faults()
    report = Report([race(), wrong], HOLDS)
    assert not report.holds
    assert f"round 2: {fault}" in report.faults()


def test_one_registration_confirmed_to_two_buyers_is_found_out() -> None:
    twice = Round("e", 2, {CONFIRMED: 2}, frozenset({"a"}), frozenset({"a"}), 0, 1.0)
    assert "2 were confirmed with only 1 different ids" in twice.faults()


def test_a_recount_that_differs_is_not_ok() -> None:
    assert Report([race()], DIFFERS).faults() == ["verify does not find: Seats equal tickets."]
    assert not Report([race()], DIFFERS).holds


def test_no_race_at_all_is_not_ok() -> None:
    assert not Report([], HOLDS).holds


@pytest.mark.parametrize(
    ("given", "outcome"),
    [
        (answer(201, status="confirmed", id="1"), CONFIRMED),
        (answer(201, status="held"), "201"),
        (answer(200, status="confirmed"), "200"),
        (answer(409, code="sold_out", title="Event full"), EVENT_FULL),
        (answer(409, code="sold_out", title="Sold out"), "409 sold_out"),
        (answer(409, code="already_registered", title="Event full"), "409 already_registered"),
        (answer(503, code="busy"), "503 busy"),
        (Answer(502, {}, b"<html>", 0.1), "502"),
        (Answer(201, {}, b"[]", 0.1), "201"),
        (ConnectionResetError(), "no answer (ConnectionResetError)"),
    ],
)
def test_only_the_two_right_answers_have_a_name(given: Answer | Exception, outcome: str) -> None:
    assert outcome_of(given) == outcome


def test_a_tally_counts_who_is_still_waiting() -> None:
    tally = Tally(buyers=4, seats=1)
    tally.start()
    tally.note(2, answer(201, status="confirmed"))
    tally.note(0, answer(503, code="busy"))
    assert (tally.count(CONFIRMED), tally.count(EVENT_FULL), tally.others, tally.outcomes.count(None)) == (
        1,
        0,
        1,
        2,
    )


# The command


def test_three_races_on_two_servers_as_json(rowlock: Rowlock) -> None:
    done = rowlock("simulate", "--json", "--rounds", "3", "--servers", "2")
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert [(it["confirmed"], it["event_full"], it["other"]) for it in report["rounds"]] == [(10, 40, 0)] * 3
    assert [(it["available"], it["listed"]) for it in report["rounds"]] == [(0, 10)] * 3
    assert report["totals"]["attempts"] == 150
    assert report["verify"]["ran"]
    assert report["verify"]["holds"]
    assert report["verify"]["counted"]["tickets"] == 30
    assert report["holds"]


def test_a_pipe_gets_plain_lines(rowlock: Rowlock) -> None:
    done = rowlock(
        "simulate", "--buyers", "5", "--seats", "7", "--servers", "1", FORCE_COLOR="1", TERM="xterm"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "Round 1: 5 confirmed, 0 Event full, 0 other;" in done.stdout
    assert done.stdout.endswith("OK: exactly 5 of 5 buyers got a seat.\n")
    assert set(map(ord, done.stdout)).isdisjoint({*range(32), 127} - {ord("\n")})


async def test_a_running_server_is_raced_and_its_database_recounted_if_known(
    rowlock: Rowlock, durable_url: str
) -> None:
    async with sandbox(durable_url, 1) as box:
        arguments = ("simulate", "--url", box.base_urls[0], "--buyers", "9", "--seats", "4", "--json")
        known = rowlock(*arguments, ROWLOCK_DATABASE_URL=box.database_url)
        unknown = rowlock(*arguments, ROWLOCK_DATABASE_URL="")
        strange = rowlock(*arguments)
    assert json.loads(known.stdout)["verify"]["holds"]
    assert json.loads(unknown.stdout)["verify"] == {"ran": False}
    assert (known.returncode, unknown.returncode, strange.returncode) == (0, 0, 1)
    assert "is not the server's" in strange.stderr


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--buyers", "0"),
        ("--buyers", "5001"),
        ("--seats", "0"),
        ("--seats", "100001"),
        ("--servers", "17"),
        ("--rounds", "1001"),
    ],
)
def test_numbers_out_of_range_are_refused(option: str, value: str) -> None:
    done = CliRunner().invoke(app, ["simulate", option, value])
    assert done.exit_code == 2
    assert f"Invalid value for '{option}'" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--url", "https://h"), "rowlock: --url: a base URL is http://host:port, not 'https://h'.\n"),
        (("--url", "http://127.0.0.1:9"), "rowlock: POST /api/v1/users got no answer: "),
        (
            ("--url", "http://127.0.0.1:9", "--servers", "2"),
            "rowlock: --servers starts servers, but with --url",
        ),
        (("--database-url", "mysql://h"), "rowlock: Wrong settings. ROWLOCK_DATABASE_URL: must begin with"),
        (("--database-url", "postgresql://127.0.0.1:9/x"), "rowlock: Cannot create a scratch database: "),
    ],
)
def test_what_is_wrong_is_one_clear_line(arguments: tuple[str, ...], line: str) -> None:
    done = CliRunner().invoke(app, ["simulate", *arguments])
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1


def test_too_few_open_files_are_more_or_a_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource  # noqa: PLC0415 - only where it is

    limits: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    monkeypatch.setattr(resource, "setrlimit", lambda _, both: limits.append(both))
    allow_open_files(50)
    allow_open_files(2000)
    assert limits == [(2000 + racing.OTHER_FILES, 4096)]

    def refuse(*_: object) -> None:
        raise ValueError

    monkeypatch.setattr(resource, "setrlimit", refuse)
    with pytest.raises(Stop, match="at most 4096 are allowed here"):
        allow_open_files(5000)


@pytest.mark.parametrize("wish", [signal.SIGINT, signal.SIGTERM])
async def test_an_interrupted_race_leaves_nothing_behind(durable_url: str, wish: signal.Signals) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "rowlock", "simulate", "--rounds", "1000", "--servers", "1"),
        env={**os.environ, "ROWLOCK_DATABASE_URL": durable_url},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    async with asyncio.timeout(60):
        assert (await process.stdout.readline()).startswith(b"Round 1: 10 confirmed")
        process.send_signal(wish)
        _, said = await process.communicate()
    assert (process.returncode, said) == (130, b"Stopped.\n")
    db = await open_database(durable_url, size=1)
    async with db.connection() as connection:
        assert (
            await connection.fetch("SELECT datname FROM pg_database WHERE datname LIKE 'rowlock\\_scratch%'")
            == []
        )
    await db.close()
