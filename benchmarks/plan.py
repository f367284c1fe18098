"""What is measured: the cells, which targets run in each, and what every answer must be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

NOOP, GROUPED, PLAIN = "noop", "grouped", "plain"
# Which application of `benchmarks.targets` each target's server runs. The no-op has a server of its own as well, so
# that no registration's garbage lies in its way.
APPLICATIONS = {NOOP: "grouped", GROUPED: "grouped", PLAIN: "plain"}
TITLES = {NOOP: "no-op", GROUPED: "group commit", PLAIN: "plain"}

HOT, EXISTING, EVENTS, SOLD_OUT = "hot", "existing", "events", "sold-out"
CONNECTIONS = (1, 16, 64, 256)
MANY = 64
RACE = "race"
RACE_BUYERS, RACE_SEATS, RACE_SERVERS = 50, 10, 2


@dataclass(frozen=True, slots=True)
class Cell:
    """One load: a workload with so many connections, on each of its targets."""

    workload: str
    connections: int

    @property
    def name(self) -> str:
        """How the cell is called on the command line and in the results."""
        return f"{self.workload}@{self.connections}"

    @property
    def targets(self) -> tuple[str, ...]:
        """The targets it runs on, in turn. A no-op knows no difference between events."""
        return (NOOP, GROUPED, PLAIN) if self.workload == HOT else (GROUPED, PLAIN)

    @property
    def status(self) -> int:
        """The only status that its answers may have."""
        return 409 if self.workload == SOLD_OUT else 201


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured. A cell ends after `seconds` or `requests`, whichever comes first."""

    repeats: int = 3
    seconds: float = 4.0
    warm_up_seconds: float = 0.6
    requests: int = 200_000
    existing: int = 100_000
    events: int = 1_000
    rounds: int = 20
    only: tuple[str, ...] = ()

    @property
    def cells(self) -> list[Cell]:
        """The cells in their order: those that are compared with one another lie side by side."""
        order = [Cell(HOT, MANY), Cell(EXISTING, MANY), Cell(EVENTS, MANY), Cell(SOLD_OUT, MANY)]
        order += [Cell(HOT, connections) for connections in CONNECTIONS if connections != MANY]
        return [cell for cell in order if self._wants(cell.name)]

    @property
    def targets(self) -> list[str]:
        """The targets that need a server."""
        return [it for it in APPLICATIONS if any(it in cell.targets for cell in self.cells)]

    @property
    def races(self) -> bool:
        """Tell whether the race is run."""
        return self._wants(RACE)

    def needs(self, workload: str) -> bool:
        """Tell whether some cell has this workload."""
        return any(cell.workload == workload for cell in self.cells)

    def title(self, cell: Cell) -> str:
        """Name a cell for people."""
        of = {
            HOT: "one event",
            EXISTING: f"{self.existing:,} there",
            EVENTS: f"{self.events:,} events",
            SOLD_OUT: "sold out",
        }
        return of[cell.workload]

    def _wants(self, name: str) -> bool:
        return not self.only or any(name == only or name.startswith(f"{only}@") for only in self.only)


def unknown(only: Sequence[str]) -> list[str]:
    """Return the names among `only` that name no cell."""
    return [name for name in only if not (Plan(only=(name,)).cells or Plan(only=(name,)).races)]
