"""`make bench`: the group commit, the plain design and a no-op, side by side in one run.

It prints a table and writes latest.json and latest.svg. Exit code 0 if everything was measured, whatever came of it;
1 if an answer was wrong or missing, or if a recount does not hold.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
import uvloop

from benchmarks.goals import goals_of
from benchmarks.picture import draw
from benchmarks.plan import WORKERS_MAX, Plan
from benchmarks.results import as_document
from benchmarks.running import run
from benchmarks.table import show
from rowlock.cli.racing import allow_open_files
from rowlock.cli.sandbox import ending_in_good_order
from rowlock.cli.screen import Screen
from rowlock.cli.setting_up import Stop, one_clear_line

if TYPE_CHECKING:
    from benchmarks.results import Results

FOLDER = Path(__file__).parent / "results"
QUICK = Plan(repeats=1, seconds=1.0, warm_up_seconds=0.2, existing=20_000, events=300, rounds=5)
CONNECTIONS_MAX = 256


@one_clear_line
def main(  # noqa: PLR0913, PLR0917 - as many arguments as options
    quick: Annotated[  # noqa: FBT002 - typer reads a flag so
        bool, typer.Option("--quick", help="A look in about a minute, not a result.")
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(min=1, max=WORKERS_MAX, help="Server processes of each target; unset: one a core."),
    ] = None,
    repeats: Annotated[int | None, typer.Option(min=1, help="How often each cell is measured.")] = None,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="How long a cell takes.")] = None,
    requests: Annotated[int | None, typer.Option(min=1, help="The most requests of a cell.")] = None,
    existing: Annotated[
        int | None, typer.Option(min=1, help="Registrations of the event that has many.")
    ] = None,
    events: Annotated[int | None, typer.Option(min=2, help="Events of the cell with many.")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Races.")] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Only this cell (hot@64) or kind (hot, race); may be repeated.")
    ] = None,
    output: Annotated[Path, typer.Option(file_okay=False, help="Where the results are written.")] = FOLDER,
) -> None:
    """Measure registrations per second on this machine, about six minutes long.

    The database lies in a temporary folder; TMPDIR chooses the disk, which matters.
    """
    given: dict[str, Any] = {"workers": workers, "repeats": repeats, "seconds": seconds, "requests": requests}
    given |= {"existing": existing, "events": events, "rounds": rounds}
    chosen = {name: value for name, value in given.items() if value is not None}
    plan = replace(QUICK if quick else Plan(), only=tuple(only or ()), **chosen)
    if plan.unknown:
        raise Stop(
            f"--only {plan.unknown[0]}: there is no such cell."
            " Try hot, hot@64, one-process, existing, events, sold-out, race."
        )
    allow_open_files(CONNECTIONS_MAX)
    output.mkdir(parents=True, exist_ok=True)
    with ending_in_good_order(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        results = runner.run(run(plan, _tell))
    _publish(results, output)
    if results.faults:
        raise typer.Exit(1)


def _publish(results: Results, output: Path) -> None:
    goals = goals_of(results)
    taken_at = datetime.now(UTC).isoformat(timespec="seconds")
    document = msgspec.json.encode(as_document(results, goals, taken_at))
    (output / "latest.json").write_bytes(msgspec.json.format(document) + b"\n")
    (output / "latest.svg").write_text(draw(results, taken_at), encoding="utf-8")
    screen = Screen()
    show(screen, results, goals)
    screen.say(f"Written: {output / 'latest.json'} and {output / 'latest.svg'}")


def _tell(line: str) -> None:
    """Say what is done just now, apart from the results."""
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    typer.run(main)
