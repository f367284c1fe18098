"""The results for people, in a terminal or in a pipe."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from benchmarks.plan import TITLES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.goals import Goal
    from benchmarks.results import Results, Summary
    from rowlock.cli.screen import Screen

NUMBERS = ("a second", "spread", "p50 ms", "p99 ms", "server", "database", "load", "share")
QUIET = 0.10  # as much of the machine others may use before the numbers are doubtful


def show(screen: Screen, results: Results, goals: Sequence[Goal]) -> None:
    """Print the table, the goals, and what was wrong."""
    screen.say()
    if results.measurements:
        screen.say(_cells(screen, results))
        screen.say(_remarks(results), "dim")
    screen.say(_goals(screen, goals))
    for fault in results.faults:
        screen.say(f"WRONG  {fault}", "bold red")
    if not results.faults:
        screen.say("Every answer was right" + (", and every recount holds." if results.verified else "."))


def _cells(screen: Screen, results: Results) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), collapse_padding=True)
    for name in ("load, connections", "design"):
        table.add_column(name, no_wrap=True)
    for name in NUMBERS:
        table.add_column(name, justify="right", no_wrap=True)
    last = None
    for it in results.summaries():
        is_new = it.cell != last
        if is_new and last is not None:
            table.add_section()
        last = it.cell
        name = f"{results.plan.title(it.cell)}, {it.cell.connections}" if is_new else ""
        table.add_row(name, TITLES[it.target], *map(screen.plain, _numbers(it)))
    return table


def _numbers(it: Summary) -> list[str]:
    return [
        f"{it.rate:,.0f}",
        f"±{(it.rate_max - it.rate_min) / 2 / (it.rate or 1):.0%}",
        f"{it.p50_ms:.1f}",
        f"{it.p99_ms:.1f}",
        _microseconds(it.server_us),
        _microseconds(it.postgres_us),
        _microseconds(it.generator_us),
        f"{it.generator_share:.0%}",
    ]


def _microseconds(value: float | None) -> str:
    return "?" if value is None else f"{value:,.0f}"


def _remarks(results: Results) -> str:
    found = results.machine
    plan = results.plan
    repeats = f"Medians of {plan.repeats} repeats" if plan.repeats > 1 else "One repeat"
    alone = " (one process: by a single one)" if plan.workers > 1 else ""
    lines = [
        f"{repeats} of {plan.seconds:g} s; every design served by {plan.servers}{alone}.",
        "server, database, load: microseconds of CPU a request of all server processes together, of",
        "PostgreSQL and of the load generator; share: how much of the machine the generator used.",
        f"{found['processor']}, {found['cores']} cores; Python {found['python']}; fsync {found['fsync_ms']:.2f} ms.",
    ]
    if (elsewhere := results.elsewhere()) is not None:
        doubt = " Too much: these numbers are doubtful." if elsewhere > QUIET else ""
        lines.append(f"Other programs used {elsewhere:.0%} of the machine meanwhile.{doubt}")
    return "\n".join(lines)


def _goals(screen: Screen, goals: Sequence[Goal]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("goal", "wanted", "measured", "reached"):
        table.add_column(name, justify="left" if name == "goal" else "right", overflow="fold")
    styles = {True: "green", False: "bold red", None: "dim"}
    for goal in goals:
        reached = {True: "yes", False: "no", None: "not measured"}[goal.reached]
        measured = "" if goal.measured is None else amount(goal.measured, goal.unit)
        row = (goal.sentence, wanted(goal), measured, reached)
        table.add_row(*map(screen.plain, row), style=styles[goal.reached])
    return table


def wanted(goal: Goal) -> str:
    """Say what is wanted: at least or at most so much, and what is aimed at."""
    text = ("≥ " if goal.is_least else "≤ ") + amount(goal.wanted, goal.unit)
    return text + (f" (aim {amount(goal.aim, goal.unit)})" if goal.aim else "")


def amount(value: float, unit: str) -> str:
    """Write a number with its unit; a share is written in percent."""
    if unit == "%":
        return f"{value:.0%}"
    return f"{value:.3g} {unit}" if value < 1000 else f"{value:,.0f} {unit}"  # noqa: PLR2004 - else 1e+03
