"""Runs the loads: in each repeat every cell, in each cell its targets in turn, so that drift hits all alike."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from benchmarks import machine, requests
from benchmarks.plan import NOOP, Cell, Plan
from rowlock.cli.load import LoadResult, load

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Self

    from benchmarks.stands import Stand

CREATED = 201


@dataclass(frozen=True, slots=True)
class Measurement:
    """One cell on one target once. CPU times are None where the system does not tell them.

    `elsewhere` is the share of the machine (0 to 1) that was used by programs which have no part in this.
    """

    cell: Cell
    target: str
    repeat: int
    load: LoadResult
    server_us: float | None
    postgres_us: float | None
    generator_us: float
    generator_share: float
    elsewhere: float | None

    def faults(self) -> list[str]:
        """Say what is wrong with the answers, if anything: a fast wrong answer is worth nothing."""
        wrong = {status: count for status, count in self.load.statuses.items() if status != self.cell.status}
        where = f"{self.cell.name}, {self.target}, repeat {self.repeat}"
        found = [
            f"{where}: {count} answers were {status} instead of {self.cell.status}"
            for status, count in wrong.items()
        ]
        if self.load.errors:
            found.append(f"{where}: {self.load.errors} requests got no answer")
        if not self.load.statuses:
            found.append(f"{where}: not one answer")
        return found


async def measure_all(
    plan: Plan, made: Mapping[str, Stand], postgres_pid: int, tell: Callable[[str], None]
) -> list[Measurement]:
    """Run the whole plan. Raises OSError if a server can't be reached."""
    done: list[Measurement] = []
    for repeat in range(1, plan.repeats + 1):
        for cell in plan.cells:
            for target in cell.targets:
                it = await measure(plan, cell, made[cell.stand(target)], repeat, postgres_pid)
                tell(
                    f"repeat {repeat} of {plan.repeats}  {cell.name:14} {target:8} {it.load.rate:9,.0f} a second"
                )
                done.append(it)
    return done


async def measure(plan: Plan, cell: Cell, stand: Stand, repeat: int, postgres_pid: int) -> Measurement:
    """Warm one target up and load it."""
    event_ids = await stand.events_for(cell.workload)
    await _load(cell, stand, event_ids, seconds=plan.warm_up_seconds, total=plan.requests)
    before = _Clocks.read(stand.server.pid, postgres_pid)
    result = await _load(cell, stand, event_ids, seconds=plan.seconds, total=plan.requests)
    after = _Clocks.read(stand.server.pid, postgres_pid)
    answers = max(1, sum(result.statuses.values()))
    return Measurement(
        cell,
        stand.target,
        repeat,
        result,
        server_us=_each(_between(before.server, after.server), answers),
        postgres_us=_each(_between(before.postgres, after.postgres), answers),
        generator_us=result.cpu_seconds / answers * 1e6,
        generator_share=result.cpu_seconds / result.seconds / machine.CORES,
        elsewhere=_elsewhere(before, after),
    )


async def _load(cell: Cell, stand: Stand, event_ids: list[str], *, seconds: float, total: int) -> LoadResult:
    path = requests.NOOP if stand.target == NOOP else requests.REGISTRATIONS
    host = stand.server.url.removeprefix("http://")
    make = requests.registrations(host, path, event_ids, f"guest-{secrets.token_hex(4)}")
    result = await load(stand.server.url, cell.connections, make, total=total, seconds=seconds)
    if stand.target != NOOP:
        stand.acknowledged += result.statuses.get(CREATED, 0)
    return result


class _Clocks(NamedTuple):
    """The CPU times of server, PostgreSQL, this process and the whole machine, and the wall's time."""

    server: float | None
    postgres: float | None
    own: float
    busy: float | None
    wall: float

    @classmethod
    def read(cls, server_pid: int, postgres_pid: int) -> Self:
        return cls(
            machine.cpu_seconds(server_pid),
            machine.cpu_seconds(postgres_pid),
            time.process_time(),
            machine.busy_seconds(),
            time.perf_counter(),
        )


def _elsewhere(before: _Clocks, after: _Clocks) -> float | None:
    server, postgres = _between(before.server, after.server), _between(before.postgres, after.postgres)
    busy = _between(before.busy, after.busy)
    if server is None or postgres is None or busy is None:
        return None
    others = busy - server - postgres - (after.own - before.own)
    return max(0.0, others) / ((after.wall - before.wall) * machine.CORES)


def _between(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before


def _each(seconds: float | None, answers: int) -> float | None:
    return None if seconds is None else seconds / answers * 1e6
