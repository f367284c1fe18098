"""The recount of `rowlock verify`, as tests ask for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rowlock.reports import service

if TYPE_CHECKING:
    from rowlock.kernel.database import Database

# The tests' PostgreSQL need not survive a power cut, so it does not write to disk before it says yes.
NOT_OF_TESTS = {"acknowledged_is_durable"}


async def what_does_not_hold(db: Database) -> list[str]:
    """Return a line for each thing that must hold and does not, with the rows that break it."""
    verification = await service.verify(db)
    return [
        f"{finding.check.name}: {finding.rows}"
        for finding in verification.findings
        if not finding.holds and finding.check.name not in NOT_OF_TESTS
    ]
