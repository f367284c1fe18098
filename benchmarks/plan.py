"""What is measured: the cells, which targets run in each, and what every answer must be."""

from __future__ import annotations

from dataclasses import dataclass, replace

from benchmarks.machine import CORES

NOOP, GROUPED, PLAIN = "noop", "grouped", "plain"
# More servers would ask PostgreSQL for more connections than `rowlock serve` lets it have.
WORKERS_MAX = 8
# Which application of `benchmarks.targets` each target's server runs. The no-op has a server of its own as well, so
# that no registration's garbage lies in its way.
APPLICATIONS = {NOOP: "grouped", GROUPED: "grouped", PLAIN: "plain"}
TITLES = {NOOP: "no-op", GROUPED: "group commit", PLAIN: "plain"}

HOT, EXISTING, EVENTS, SOLD_OUT = "hot", "existing", "events", "sold-out"
ALONE = "one-process"  # as HOT, but each target has one server process only
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
        return (NOOP, GROUPED, PLAIN) if self.workload in {HOT, ALONE} else (GROUPED, PLAIN)

    @property
    def status(self) -> int:
        """The only status that its answers may have."""
        return 409 if self.workload == SOLD_OUT else 201

    def stand(self, target: str) -> str:
        """Name the server of a target that the load goes to."""
        return f"{target}, one process" if self.workload == ALONE else target


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured. A cell ends after `seconds` or `requests`, whichever comes first.

    Each target is served by `workers` processes that share a port, as an operator would do it.
    """

    workers: int = min(CORES, WORKERS_MAX)
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
        order = [Cell(HOT, MANY)]
        order += [Cell(ALONE, MANY)] if self.workers > 1 else []
        order += [Cell(EXISTING, MANY), Cell(EVENTS, MANY), Cell(SOLD_OUT, MANY)]
        order += [Cell(HOT, connections) for connections in CONNECTIONS if connections != MANY]
        return [cell for cell in order if self._wants(cell.name)]

    @property
    def stands(self) -> dict[str, tuple[str, int]]:
        """The servers that are needed, by name: of which target, and of how many processes."""
        return {
            cell.stand(target): (target, 1 if cell.workload == ALONE else self.workers)
            for cell in self.cells
            for target in cell.targets
        }

    @property
    def races(self) -> bool:
        """Tell whether the race is run."""
        return self._wants(RACE)

    @property
    def unknown(self) -> list[str]:
        """The names among `only` that name no cell."""
        alone = [replace(self, only=(name,)) for name in self.only]
        return [it.only[0] for it in alone if not (it.cells or it.races)]

    @property
    def servers(self) -> str:
        """Say how many server processes each target has."""
        return "one server process" if self.workers == 1 else f"{self.workers} server processes"

    def needs(self, workload: str, stand: str) -> bool:
        """Tell whether some cell brings this workload to this server."""
        return any(
            cell.workload == workload and stand in map(cell.stand, cell.targets) for cell in self.cells
        )

    def title(self, cell: Cell) -> str:
        """Name a cell for people."""
        of = {
            HOT: "one event",
            ALONE: "one process",
            EXISTING: f"{self.existing:,} there",
            EVENTS: f"{self.events:,} events",
            SOLD_OUT: "sold out",
        }
        return of[cell.workload]

    def _wants(self, name: str) -> bool:
        return not self.only or any(name == only or name.startswith(f"{only}@") for only in self.only)
