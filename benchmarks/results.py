"""What was found: medians over the repeats, ratios, and whether the goals are reached."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.goals import Goal
    from benchmarks.measuring import Measurement
    from benchmarks.plan import Cell, Plan
    from rowlock.cli.racing import Report


@dataclass(frozen=True, slots=True)
class Summary:
    """A cell on one target: the medians over its repeats, and the extremes of its rate."""

    cell: Cell
    target: str
    rate: float
    rate_min: float
    rate_max: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    server_us: float | None
    postgres_us: float | None
    generator_us: float
    generator_share: float


@dataclass(slots=True)
class Results:
    """Everything that a run found.

    `verified` says for each server's database whether the recount held. The peaks are the most memory of a process of
    each server: under load, and before, at the organizer's sign-up (a password's hash takes much for a moment).
    """

    plan: Plan
    machine: dict[str, Any]
    measurements: list[Measurement] = field(default_factory=list)
    race: Report | None = None
    peak_megabytes: dict[str, float | None] = field(default_factory=dict)
    sign_up_megabytes: dict[str, float | None] = field(default_factory=dict)
    verified: dict[str, bool] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def of(self, cell: Cell, target: str) -> list[Measurement]:
        """Return the repeats of a cell on one target, in their order."""
        return [it for it in self.measurements if (it.cell, it.target) == (cell, target)]

    def summaries(self) -> list[Summary]:
        """Return a summary for each cell and target, in the order of the plan."""
        return [summary(self.of(cell, target)) for cell in self.plan.cells for target in cell.targets]

    def elsewhere(self) -> float | None:
        """Return the median share of the machine that programs without part in this used."""
        return _median([it.elsewhere for it in self.measurements])


def summary(repeats: Sequence[Measurement]) -> Summary:
    """Reduce the repeats of one cell on one target to medians."""

    def middle(value: Callable[[Measurement], float]) -> float:
        return median(map(value, repeats))

    return Summary(
        cell=repeats[0].cell,
        target=repeats[0].target,
        rate=middle(lambda it: it.load.rate),
        rate_min=min(it.load.rate for it in repeats),
        rate_max=max(it.load.rate for it in repeats),
        p50_ms=middle(lambda it: it.load.p50_ms),
        p95_ms=middle(lambda it: it.load.p95_ms),
        p99_ms=middle(lambda it: it.load.p99_ms),
        server_us=_median([it.server_us for it in repeats]),
        postgres_us=_median([it.postgres_us for it in repeats]),
        generator_us=middle(lambda it: it.generator_us),
        generator_share=middle(lambda it: it.generator_share),
    )


def as_document(results: Results, goals: Sequence[Goal], taken_at: str) -> dict[str, Any]:
    """Write the results for programs."""
    race = results.race
    return {
        "taken_at": taken_at,
        "machine": results.machine,
        "elsewhere": results.elsewhere(),
        "plan": asdict(results.plan),
        "goals": [{**asdict(goal), "reached": goal.reached} for goal in goals],
        "cells": [
            {
                "name": it.cell.name,
                "median": asdict(it),
                "repeats": [asdict(each) for each in results.of(it.cell, it.target)],
            }
            for it in results.summaries()
        ],
        "race": race
        and {"rounds_ms": [it.last_answer_ms for it in race.rounds], "median_ms": race.median_ms},
        "peak_megabytes": results.peak_megabytes,
        "sign_up_megabytes": results.sign_up_megabytes,
        "verified": results.verified,
        "faults": results.faults,
    }


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None
