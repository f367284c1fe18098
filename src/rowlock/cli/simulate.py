"""`rowlock simulate`: fifty people want ten seats at the same instant. Exactly ten get one."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich import box
from rich.table import Table

from rowlock.cli.client import Api
from rowlock.cli.organizer import sign_up
from rowlock.cli.racing import Report, Round, Tally, allow_open_files, run_round
from rowlock.cli.sandbox import ending_in_good_order, recount, sandbox
from rowlock.cli.screen import Lines, Moving, Quiet, Screen
from rowlock.cli.setting_up import Stop, database_url, one_clear_line
from rowlock.cli.wire import parse_address
from rowlock.kernel.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rowlock.kernel.settings import Settings

BUYERS_MAX = 5_000
SEATS_MAX = 100_000
SERVERS_MAX = 16
ROUNDS_MAX = 1_000
SERVERS = 2
ROWS_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Plan:
    """What to simulate; `urls` are servers that run already, none means servers of our own."""

    buyers: int
    seats: int
    rounds: int
    servers: int
    urls: tuple[str, ...]


@one_clear_line
def simulate(
    buyers: Annotated[
        int, typer.Option(min=1, max=BUYERS_MAX, help="People who register at the same instant.")
    ] = 50,
    seats: Annotated[int, typer.Option(min=1, max=SEATS_MAX, help="Seats of the event.")] = 10,
    servers: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=SERVERS_MAX,
            help="Server processes to start and spread over.",
            show_default=str(SERVERS),
        ),
    ] = None,
    rounds: Annotated[
        int, typer.Option(min=1, max=ROUNDS_MAX, help="Races, each for an event of its own.")
    ] = 1,
    url: Annotated[
        list[str] | None,
        typer.Option(
            help="A server that runs already, http://host:port; give it again to spread over several."
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document and nothing else.")
    ] = False,
    database: Annotated[
        str | None, typer.Option("--database-url", help="PostgreSQL 15 or later; unset: the embedded one.")
    ] = None,
) -> None:
    """Let many buyers race for few seats over real HTTP, and prove that none is sold twice and none is left.

    Starts real server processes over a scratch database, opens a connection for each buyer, releases all at
    once, then counts: the answers, what the API lists, and `verify` over the database. Exit code 0 only if in every
    round exactly as many were confirmed as there are seats, and everybody else got 409 "Event full".

    Example: rowlock simulate --buyers 50 --seats 10 --rounds 20 --servers 4

    With --url it races against a server that runs already, and leaves its events there; `verify` then runs only
    if --database-url says where that server's data are.
    """
    if url and servers is not None:
        raise Stop("--servers starts servers, but with --url they run already. Leave one of the two out.")
    plan = Plan(buyers, seats, rounds, servers or SERVERS, tuple(_checked(it) for it in url or ()))
    settings = read_settings(database_url=database)
    allow_open_files(buyers)
    screen = Screen()
    with ending_in_good_order(), _show(screen, is_quiet=as_json) as show:
        report = _simulate(plan, settings, show)
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(as_document(plan, report), enc_hook=str)).decode())
    else:
        _tell(screen, plan, report)
    if not report.holds:
        raise typer.Exit(1)


def _checked(url: str) -> str:
    try:
        parse_address(url)
    except ValueError as error:
        raise Stop(f"--url: {error}.") from None
    return url


def _show(screen: Screen, *, is_quiet: bool) -> Quiet:
    if is_quiet:
        return Quiet()
    return Moving(screen) if screen.is_terminal else Lines(screen)


def _simulate(plan: Plan, settings: Settings, show: Quiet) -> Report:
    if plan.urls:
        return asyncio.run(_race(plan, plan.urls, settings.database_url, show))
    with database_url(settings) as url:
        return asyncio.run(_race_in_sandbox(plan, url, show))


async def _race_in_sandbox(plan: Plan, server_url: str, show: Quiet) -> Report:
    # Each server must be able to let all its buyers wait, or it would rightly answer some with 503.
    room = {"ROWLOCK_QUEUE_MAX": str(BUYERS_MAX)}
    async with sandbox(server_url, plan.servers, extra_env=room) as it:
        return await _race(plan, it.base_urls, it.database_url, show)


async def _race(plan: Plan, base_urls: Sequence[str], database: str | None, show: Quiet) -> Report:
    rounds: list[Round] = []
    async with Api(base_urls[0]) as api:
        organizer = await sign_up(api)
        for number in range(1, plan.rounds + 1):
            tally = Tally(plan.buyers, plan.seats)
            show.begin(number, plan.rounds, tally)
            rounds.append(await run_round(base_urls, organizer, f"Race {number}", tally))
            show.end(number, rounds[-1])
    return Report(rounds, await recount(database, rounds[-1].event_id) if database else None)


def _tell(screen: Screen, plan: Plan, report: Report) -> None:
    """Print the table and the verdict."""
    where = " and ".join(plan.urls) or f"{plan.servers} server processes over a scratch database"
    screen.say()
    screen.say(f"{plan.buyers} buyers for {plan.seats} seats, {_times(plan.rounds)}, on {where}", "bold")
    screen.say(_table(report))
    screen.say(f"verify: {_verified(report)}")
    faults = report.faults()
    for fault in faults[:ROWS_SHOWN]:
        screen.say(f"WRONG  {fault}", "bold red")
    if len(faults) > ROWS_SHOWN:
        screen.say(f"… and {len(faults) - ROWS_SHOWN} more", "red")
    screen.say(_verdict(plan, report), "bold green" if report.holds else "bold red")


def _table(report: Report) -> Table:
    columns = ("attempts", "confirmed", "Event full", "other", "last answer", "seats left")
    table = Table("", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        table.add_column(name, justify="right")
    for number, it in enumerate(report.rounds, 1):
        if number <= ROWS_SHOWN or it.faults():
            table.add_row(f"round {number}", *_cells([it]), f"{it.last_answer_ms:.1f} ms", str(it.available))
    if len(report.rounds) > 1:
        rounds = report.rounds
        left = str(sum(it.available for it in rounds))
        table.add_section()
        table.add_row(f"all {len(rounds)}", *_cells(rounds), f"median {report.median_ms:.1f} ms", left)
    return table


def _cells(rounds: Sequence[Round]) -> list[str]:
    numbers = _totals(rounds)
    return [str(numbers[name]) for name in ("attempts", "confirmed", "event_full", "other")]


def _totals(rounds: Sequence[Round]) -> dict[str, int]:
    return {
        "attempts": sum(it.buyers for it in rounds),
        "confirmed": sum(it.confirmed for it in rounds),
        "event_full": sum(it.full for it in rounds),
        "other": sum(sum(it.others.values()) for it in rounds),
    }


def _verified(report: Report) -> str:
    if report.verification is None:
        return "not run, as only the server knows its database (--database-url would tell); the API's numbers are above"
    counted = ", ".join(f"{number} {name}" for name, number in report.verification.counted.items())
    verdict = "every check holds" if report.verification.holds else "there are differences"
    return f"{len(report.verification.findings)} checks over {counted}: {verdict}"


def _verdict(plan: Plan, report: Report) -> str:
    if not report.holds:
        return "FAILED: seats and answers do not fit."
    winners = min(plan.buyers, plan.seats)
    others = plan.buyers - winners
    rest = f', and {others} got "Event full"' if others else ""
    when = "." if plan.rounds == 1 else ", every time."
    return f"OK: exactly {winners} of {plan.buyers} buyers got a seat{rest}{when}"


def _times(rounds: int) -> str:
    return "once" if rounds == 1 else f"{rounds} times"


def as_document(plan: Plan, report: Report) -> dict[str, Any]:
    """Write a report for programs."""
    verification = report.verification
    return {
        "buyers": plan.buyers,
        "seats": plan.seats,
        "servers": len(plan.urls) or plan.servers,
        "urls": plan.urls,
        "rounds": [
            {
                "round": number,
                **_totals([it]),
                "others": it.others,
                "last_answer_ms": round(it.last_answer_ms, 3),
                "available": it.available,
                "listed": len(it.listed_ids),
                "faults": it.faults(),
            }
            for number, it in enumerate(report.rounds, 1)
        ],
        "totals": {**_totals(report.rounds), "median_last_answer_ms": round(report.median_ms, 3)},
        "verify": {"ran": verification is not None}
        | ({"holds": verification.holds, "counted": verification.counted} if verification else {}),
        "holds": report.holds,
        "faults": report.faults(),
    }
