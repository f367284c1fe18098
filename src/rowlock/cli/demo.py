"""`rowlock demo`: the whole story in less than a minute, told by the running system."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Annotated

import typer

from rowlock.cli.client import Api
from rowlock.cli.racing import allow_open_files
from rowlock.cli.sandbox import ending_in_good_order, sandbox
from rowlock.cli.screen import Screen
from rowlock.cli.setting_up import database_url, one_clear_line
from rowlock.cli.stage import Stage
from rowlock.cli.story import ACTS, RACE_BUYERS, Story
from rowlock.kernel.settings import read_settings

if TYPE_CHECKING:
    from rowlock.kernel.settings import Settings

SERVERS = 2
PAUSE_SECONDS = 0.4
PAUSE_SECONDS_MAX = 60.0


@one_clear_line
def demo(
    pause: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=PAUSE_SECONDS_MAX,
            help="Seconds between the acts.",
            show_default=f"{PAUSE_SECONDS} on a terminal, else 0",
        ),
    ] = None,
    database: Annotated[
        str | None, typer.Option("--database-url", help="PostgreSQL 15 or later; unset: the embedded one.")
    ] = None,
) -> None:
    """Show the whole story: seats going down, the row lock, the race for the last seats, and the proof.

    Everything shown is a real answer of two server processes over a scratch database, which is dropped at the end.
    Exit code 1 if any answer differs from what the story claims.

    Example: rowlock demo --pause 3
    """
    settings = read_settings(database_url=database)
    screen = Screen()
    if pause is None:
        pause = PAUSE_SECONDS if screen.is_terminal else 0.0
    allow_open_files(RACE_BUYERS)
    with ending_in_good_order():
        _tell(settings, Stage(screen, pause))


def _tell(settings: Settings, stage: Stage) -> None:
    started = time.monotonic()
    stage.say("Starting PostgreSQL and two Rowlock servers …", "dim")
    with database_url(settings) as url:
        asyncio.run(_play(url, stage))
    stage.say(
        f"All of it took {time.monotonic() - started:.1f} seconds, starting and stopping included.", "dim"
    )
    stage.say("Next:  make serve             start Rowlock, then open http://localhost:8080/docs and try it")
    stage.say("       rowlock simulate -h   your own race: more buyers, more servers, more rounds")
    stage.say("       rowlock verify        recount your own database at any time")
    stage.say("       README.md             how it works, and why it is right")


async def _play(server_url: str, stage: Stage) -> None:
    async with AsyncExitStack() as stack:
        box = await stack.enter_async_context(sandbox(server_url, SERVERS, log_sql=True))
        apis = [await stack.enter_async_context(Api(url)) for url in box.base_urls]
        story = Story(stage, box, apis)
        for number, (title, act) in enumerate(ACTS, 1):
            await stage.begin(number, title)
            await act(story)
    stage.end()
