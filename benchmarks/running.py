"""One run from an empty folder to results: PostgreSQL, the servers, the loads, the recounts, the race."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import machine
from benchmarks.measuring import measure_all
from benchmarks.plan import NOOP, Plan
from benchmarks.races import race
from benchmarks.results import Results
from benchmarks.stands import Stand, stands
from rowlock.cli.setting_up import opened
from rowlock.kernel.postgres import running
from rowlock.reports.service import verify

if TYPE_CHECKING:
    from collections.abc import Callable

    from rowlock.kernel.postgres import Postgres


async def run(plan: Plan, tell: Callable[[str], None]) -> Results:
    """Measure everything on a PostgreSQL of its own, with the settings of `rowlock serve`, and remove its traces.

    Raises:
        Stop, PostgresUnavailable, DatabaseUnavailable, OSError: a server could not be started or reached.

    """
    with tempfile.TemporaryDirectory(prefix="rowlock-bench-", ignore_cleanup_errors=True) as folder:
        results = Results(plan, machine.description())
        results.machine["fsync_ms"] = machine.sync_milliseconds(Path(folder))
        with running(Path(folder) / "data") as postgres:
            if plan.cells:
                await _measure(plan, postgres, results, tell)
            if plan.races:
                results.race = await race(postgres.url(), plan.rounds, tell)
                results.faults += results.race.faults()
        return results


async def _measure(plan: Plan, postgres: Postgres, results: Results, tell: Callable[[str], None]) -> None:
    assert postgres.pid is not None, "it has just been started"
    async with stands(postgres.url(), plan) as made:
        for stand in made.values():
            tell(f"preparing {stand.name}")
            await stand.prepare(plan)
            results.sign_up_megabytes[stand.name] = machine.peak_megabytes(stand.server.pid)
            machine.forget_peak(stand.server.pid)
        await _checkpoint(postgres.url())
        results.measurements += await measure_all(plan, made, postgres.pid, tell)
        for stand in made.values():
            results.peak_megabytes[stand.name] = machine.peak_megabytes(stand.server.pid)
        results.faults += [fault for it in results.measurements for fault in it.faults()]
        tell("recounting")
        for stand in made.values():
            if stand.target != NOOP:
                faults = await _recount(stand)
                results.verified[stand.name] = not faults
                results.faults += faults


async def _checkpoint(url: str) -> None:
    """Write out what the preparation left, or the first cells would be charged for it."""
    async with opened(url) as db, db.connection() as connection:
        await connection.fetch("CHECKPOINT")


async def _recount(stand: Stand) -> list[str]:
    """Say what differs between what was answered and what is stored, and inside of what is stored."""
    async with opened(stand.database_url) as db:
        verification = await verify(db)
    wrong = [
        f"{stand.name}: verify does not find: {it.check.sentence}" for it in verification.findings if it.rows
    ]
    if (stored := verification.counted["orders"]) != stand.acknowledged:
        wrong.append(f"{stand.name}: {stand.acknowledged} registrations were confirmed, {stored} are stored")
    return wrong
