"""The picture: rate and waiting by the number of connections, and what different events do to the rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks import svg
from benchmarks.plan import ALONE, CONNECTIONS, EXISTING, GROUPED, HOT, MANY, NOOP, PLAIN, SOLD_OUT, TITLES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from benchmarks.plan import Cell, Plan
    from benchmarks.results import Results, Summary

WIDTH, HEIGHT = 960, 706
TOP, BOTTOM = 128, 360
PANEL_WIDTH = 376
BARS_TOP, BARS_LEFT, BARS_RIGHT = 448, 190, 800
BAR, BAR_GAP = 17, 10
SERIES = (GROUPED, PLAIN, NOOP)
NAMES = {GROUPED: "group commit", PLAIN: "plain: one transaction each", NOOP: "no-op: the server's ceiling"}


@dataclass(frozen=True, slots=True)
class Panel:
    """One number of each summary over the connections, and perhaps its extremes over the repeats."""

    left: int
    title: str
    value: Callable[[Summary], float]
    extremes: Callable[[Summary], tuple[float, float]] | None = None


RATES = Panel(
    64,
    "Registrations per second, one event",
    lambda it: it.rate,
    lambda it: (it.rate_min or it.rate, it.rate_max),
)
WAITS = Panel(544, "99 of 100 answers within, milliseconds", lambda it: it.p99_ms)


def draw(results: Results, taken_at: str) -> str:
    """Draw the results as an SVG document."""
    found = results.summaries()
    by_connections = [it for it in found if it.cell.workload == HOT]
    at_many = [it for it in found if it.cell.connections == MANY and it.target != NOOP]
    machine = results.machine
    where = (
        f"{machine['processor']}, {machine['cores']} cores for server, PostgreSQL and load;"
        f" durable commits, fsync {machine['fsync_ms']:.2f} ms; {taken_at[:10]}"
    )
    parts = [
        svg.text(32, 40, f"Registrations over HTTP, {results.plan.servers}", kind="head"),
        svg.text(32, 62, where, kind="soft"),
        *_legend(),
        *_panel(RATES, by_connections),
        *_panel(WAITS, by_connections),
        *_bars(results, at_many),
    ]
    return svg.page(
        WIDTH, HEIGHT, "Rowlock: group commit against the plain design", _description(results), parts
    )


def _legend() -> list[str]:
    parts, x = [], 38.0
    for target in SERIES:
        parts += [svg.mark(x, 84, target), svg.text(x + 12, 88, NAMES[target])]
        x += 44 + 6.6 * len(NAMES[target])
    return parts


def _panel(panel: Panel, found: Sequence[Summary]) -> list[str]:
    """Draw a panel over the number of connections, which grows by a factor from column to column."""
    left, right = panel.left, panel.left + PANEL_WIDTH
    parts = [svg.text(left - 32, TOP - 12, panel.title, kind="panel")]
    found = [it for it in found if panel.value(it) > 0]
    if not found:
        return [*parts, svg.text(left, TOP + 20, "not measured", kind="soft")]
    extremes = [end for it in found for end in (panel.extremes(it) if panel.extremes else ())]
    scale = svg.LogScale.over([*extremes, *(panel.value(it) for it in found)], BOTTOM, TOP)
    columns = [it for it in CONNECTIONS if any(it == each.cell.connections for each in found)]
    step = PANEL_WIDTH / len(columns)
    x_of = {connections: left + step * (number + 0.5) for number, connections in enumerate(columns)}
    for tick in scale.ticks():
        parts.append(svg.line(left, scale(tick), right, scale(tick), "grid"))
        parts.append(svg.text(left - 8, scale(tick) + 4, f"{tick:,g}", kind="soft", anchor="end"))
    parts += [svg.text(x, BOTTOM + 20, str(it), kind="soft", anchor="middle") for it, x in x_of.items()]
    axis = "connections (both scales are logarithmic)"
    parts.append(svg.text((left + right) / 2, BOTTOM + 38, axis, kind="soft", anchor="middle"))
    for target in reversed(SERIES):
        parts += _series(panel, target, [it for it in found if it.target == target], scale, x_of)
    for connections, x in x_of.items():
        column = sorted((it for it in found if it.cell.connections == connections), key=panel.value)
        parts += _values(x, [(scale(panel.value(it)), _short(panel.value(it))) for it in column])
    return parts


def _series(
    panel: Panel, target: str, found: Sequence[Summary], scale: svg.LogScale, x_of: Mapping[int, float]
) -> list[str]:
    """Draw one target's line, with its extremes over the repeats where the panel shows them."""
    found = sorted(found, key=lambda it: it.cell.connections)
    points = [(x_of[it.cell.connections], scale(panel.value(it))) for it in found]
    parts = [svg.path(points, target)]
    if panel.extremes is not None:
        ends = [(x_of[it.cell.connections], *map(scale, panel.extremes(it))) for it in found]
        parts += [svg.line(x, low, x, high, f"spread {target}") for x, low, high in ends]
    return parts + [svg.mark(x, y, target) for x, y in points]


def _values(x: float, column: Sequence[tuple[float, str]]) -> list[str]:
    """Write the values of one column: the greatest above its point, the least below, one between at its side."""
    parts = []
    for number, (y, words) in enumerate(column):
        if number == len(column) - 1:
            parts.append(svg.text(x, y - 11, words, kind="value", anchor="middle"))
        elif number == 0:
            parts.append(svg.text(x, y + 21, words, kind="value", anchor="middle"))
        else:
            parts.append(svg.text(x + 9, y + 4, words, kind="value"))
    return parts


def _bars(results: Results, found: Sequence[Summary]) -> list[str]:
    """Draw the rates of the kinds of events; bars, so the scale begins at zero."""
    top = BARS_TOP
    parts = [svg.text(32, top - 18, f"Answers per second by kind of event, {MANY} connections", kind="panel")]
    if not found:
        return [*parts, svg.text(BARS_LEFT, top + 14, "not measured", kind="soft")]
    most = max(it.rate for it in found)
    for cell in dict.fromkeys(it.cell for it in found):
        title = _kind(cell, results.plan)
        parts.append(svg.text(BARS_LEFT - 10, top + BAR + 5, title, anchor="end"))
        for it in (it for it in found if it.cell == cell):
            width = it.rate / most * (BARS_RIGHT - BARS_LEFT)
            parts.append(svg.bar(BARS_LEFT, top, width, BAR, it.target))
            parts.append(svg.text(BARS_LEFT + width + 8, top + BAR - 4, f"{it.rate:,.0f}", kind="value"))
            top += BAR + 1
        top += BAR_GAP
    return parts


def _kind(cell: Cell, plan: Plan) -> str:
    names = {
        HOT: "one empty event",
        ALONE: "… with one process",
        EXISTING: f"one with {plan.existing:,}",
        SOLD_OUT: "a sold-out one",
    }
    return names.get(cell.workload, f"{plan.events:,} events")


def _description(results: Results) -> str:
    """Say the picture in words: every number in it."""
    return " ".join(
        f"{results.plan.title(it.cell)}, {it.cell.connections} connections, {TITLES[it.target]}:"
        f" {it.rate:,.0f} a second, p99 {it.p99_ms:.3g} ms."
        for it in results.summaries()
    )


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"  # noqa: PLR2004 - three digits either way
