"""The race of the mission: fifty buyers at once for ten seats, over two servers as `rowlock serve` runs them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.plan import RACE_BUYERS, RACE_SEATS, RACE_SERVERS
from rowlock.cli.client import Api
from rowlock.cli.organizer import sign_up
from rowlock.cli.racing import Report, Tally, run_round
from rowlock.cli.sandbox import recount, sandbox

if TYPE_CHECKING:
    from collections.abc import Callable


async def race(server_url: str, rounds: int, tell: Callable[[str], None]) -> Report:
    """Run so many rounds after one to warm up, and recount. Raises Stop."""
    done = []
    async with sandbox(server_url, RACE_SERVERS) as it, Api(it.base_urls[0]) as api:
        organizer = await sign_up(api)
        for number in range(rounds + 1):
            tally = Tally(RACE_BUYERS, RACE_SEATS)
            done.append(await run_round(it.base_urls, organizer, f"Race {number}", tally))
        verification = await recount(it.database_url, done[0].event_id)
    report = Report(done[1:], verification)
    tell(f"race of {RACE_BUYERS} for {RACE_SEATS}: {report.median_ms:.0f} ms in the median of {rounds}")
    return report
