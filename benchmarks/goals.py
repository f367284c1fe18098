"""What is to be reached, and whether it is. All are ratios of one run, except the race and the memory."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.plan import (
    ALONE,
    EVENTS,
    EXISTING,
    GROUPED,
    HOT,
    MANY,
    NOOP,
    PLAIN,
    RACE_BUYERS,
    RACE_SEATS,
    RACE_SERVERS,
    Cell,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from benchmarks.measuring import Measurement
    from benchmarks.results import Results

CROWD = 256


@dataclass(frozen=True, slots=True)
class Goal:
    """One goal. `measured` is None if its cells were left out; `is_least` tells which side of `wanted` is good."""

    sentence: str
    measured: float | None
    wanted: float
    is_least: bool
    unit: str
    aim: float | None = None

    @property
    def reached(self) -> bool | None:
        """Tell whether it is reached; None if it was not measured."""
        if self.measured is None:
            return None
        return self.measured >= self.wanted if self.is_least else self.measured <= self.wanted


def goals_of(results: Results) -> list[Goal]:
    """Compare what was found with the goals. Ratios are the medians of each repeat's own ratio."""
    hot, alone, crowd = Cell(HOT, MANY), Cell(ALONE, MANY), Cell(HOT, CROWD)
    existing, events = Cell(EXISTING, MANY), Cell(EVENTS, MANY)

    def ratio(cell: Cell, target: str, against: Cell, other: str) -> float | None:
        return _ratio(results.of(cell, target), results.of(against, other), _rate, _rate)

    waits = _ratio(results.of(crowd, GROUPED), results.of(crowd, PLAIN), _p99, _p50)

    def designs(cell: Cell, where: str) -> list[Goal]:
        return [
            _at_least(5, where + "group commit against plain", ratio(cell, GROUPED, cell, PLAIN), "times"),
            _at_least(
                0.40, where + "share of the no-op's rate", ratio(cell, GROUPED, cell, NOOP), "%", aim=0.70
            ),
        ]

    there, many = f"{results.plan.existing:,} registrations there: ", f"{results.plan.events:,} events: "
    contest = f"race of {RACE_BUYERS} for {RACE_SEATS} over {RACE_SERVERS} servers: last answer"
    race_ms = results.race.median_ms if results.race else None
    return [
        *designs(hot, f"hot event, {MANY} connections: "),
        *(designs(alone, "… one process: ") if results.plan.workers > 1 else []),
        _at_most(1, f"{CROWD} connections: p99 of group commit against plain's median", waits, "times"),
        _at_least(
            0.90, there + "share of the empty event's rate", ratio(existing, GROUPED, hot, GROUPED), "%"
        ),
        _at_least(
            0.60, many + "share of one event's rate", ratio(events, GROUPED, hot, GROUPED), "%", aim=0.90
        ),
        _at_most(100, contest, race_ms, "ms"),
        _at_most(120, "most memory of a server process under load", _most(results.peak_megabytes), "MB"),
        _at_most(120, "… while it hashes a password", _most(results.sign_up_megabytes), "MB"),
    ]


def _at_least(
    wanted: float, sentence: str, measured: float | None, unit: str, *, aim: float | None = None
) -> Goal:
    return Goal(sentence, measured, wanted, is_least=True, unit=unit, aim=aim)


def _at_most(wanted: float, sentence: str, measured: float | None, unit: str) -> Goal:
    return Goal(sentence, measured, wanted, is_least=False, unit=unit)


def _ratio(
    over: Sequence[Measurement],
    under: Sequence[Measurement],
    above: Callable[[Measurement], float],
    below: Callable[[Measurement], float],
) -> float | None:
    pairs = list(zip(over, under, strict=False))  # different in length only where one was left out
    return median(above(a) / (below(b) or inf) for a, b in pairs) if pairs else None


def _most(megabytes: Mapping[str, float | None]) -> float | None:
    """Return the most that a server of the group commit took, whether it has one process or several."""
    taken = [megabytes.get(cell.stand(GROUPED)) for cell in (Cell(HOT, MANY), Cell(ALONE, MANY))]
    return max((it for it in taken if it is not None), default=None)


def _rate(it: Measurement) -> float:
    return it.load.rate


def _p50(it: Measurement) -> float:
    return it.load.p50_ms


def _p99(it: Measurement) -> float:
    return it.load.p99_ms
