"""A target ready to be measured: its database, its server, and the events that loads go to."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.plan import APPLICATIONS, EVENTS, EXISTING, SOLD_OUT, Plan
from benchmarks.seeding import fill
from rowlock.cli.client import Api
from rowlock.cli.organizer import sign_up
from rowlock.cli.servers import servers
from rowlock.cli.setting_up import opened
from rowlock.kernel.migrations import migrate
from rowlock.kernel.scratch import scratch_database

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rowlock.cli.organizer import Organizer
    from rowlock.cli.servers import ServerProcess

CHECKOUT = Path(__file__).resolve().parent.parent
SEATS = 1_000_000
SOLD_OUT_SEATS = 50


@dataclass(slots=True)
class Stand:
    """One target: a server over a database of its own. `acknowledged` counts registrations answered 201."""

    name: str
    target: str
    database_url: str
    server: ServerProcess
    organizer: Organizer
    acknowledged: int = 0
    event_ids: dict[str, list[str]] = field(default_factory=dict)

    async def event(self, seats: int = SEATS) -> str:
        """Publish an event and return its id."""
        made = await self.organizer.publish("Benchmark", seats)
        return str(made["id"])

    async def prepare(self, plan: Plan) -> None:
        """Make the events that stay for the whole run."""
        if plan.needs(EVENTS, self.name):
            self.event_ids[EVENTS] = [await self.event() for _ in range(plan.events)]
        if plan.needs(SOLD_OUT, self.name):
            self.event_ids[SOLD_OUT] = [await self._filled(SOLD_OUT_SEATS, SOLD_OUT_SEATS)]
        if plan.needs(EXISTING, self.name):
            self.event_ids[EXISTING] = [await self._filled(SEATS, plan.existing)]

    async def events_for(self, workload: str) -> list[str]:
        """Return the events that a load goes to: a fresh one for a hot event, so that it is empty each time."""
        return self.event_ids.get(workload) or [await self.event()]

    async def _filled(self, seats: int, people: int) -> str:
        event_id = await self.event(seats)
        await fill(self.database_url, event_id, people)
        self.acknowledged += people
        return event_id


@contextlib.asynccontextmanager
async def stands(server_url: str, plan: Plan) -> AsyncIterator[dict[str, Stand]]:
    """Run every server of the plan, each over a scratch database beside the one at `server_url`."""
    async with contextlib.AsyncExitStack() as stack:
        made: dict[str, Stand] = {}
        for name, (target, workers) in plan.stands.items():
            url = await stack.enter_async_context(scratch_database(server_url))
            async with opened(url) as db:
                await migrate(db)
            command = (sys.executable, "-m", "benchmarks.server", APPLICATIONS[target])
            environment = {"PYTHONPATH": str(CHECKOUT), "ROWLOCK_WORKERS": str(workers)}
            running = servers(url, 1, extra_env=environment, command=command)
            (server,) = stack.enter_context(running)
            api = await stack.enter_async_context(Api(server.url))
            made[name] = Stand(name, target, url, server, await sign_up(api))
        yield made
