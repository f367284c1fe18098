"""How large a batch should be, and whether it should wait for more.

Server and database work at the same time only if there are two groups of callers: while one group's batch is in the
database, the other's requests are read and its answers are written. So a batch takes half of the crowd: of those who
wait, and of those who were answered just now and will be back. And it does not leave while most of the crowd is still
on its way, or the first to come back would travel alone, and all the others behind them.
"""

from __future__ import annotations

SMALLEST_SHARE = 32


class Crowd:
    """Estimates how many callers there are. Callers that never come back are forgotten after a moment."""

    def __init__(self) -> None:
        """Begin with nobody."""
        self._returning = 0

    def arrived(self) -> None:
        """Note a request."""
        if self._returning:
            self._returning -= 1

    def answered(self, count: int) -> None:
        """Note callers that have their answers, and may be back soon."""
        self._returning += count

    def stays_away(self) -> None:
        """Note that they were waited for in vain."""
        self._returning = 0

    def is_on_its_way(self, ready: int) -> bool:
        """Tell whether less than a third is here."""
        return ready * 3 < ready + self._returning

    def share(self, ready: int) -> int:
        """Return how many should travel together."""
        return max(SMALLEST_SHARE, (ready + self._returning + 1) // 2)
