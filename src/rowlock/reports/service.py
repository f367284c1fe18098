"""Verify: read-only, one snapshot, safe beside a running sale."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rowlock.reports import repository
from rowlock.reports.model import Finding, Verification

if TYPE_CHECKING:
    from rowlock.kernel.database import Database

ROWS_MAX = 100


async def verify(db: Database) -> Verification:
    """Recount orders, tickets and ledger against every counter, all as of one instant."""
    async with db.snapshot() as connection:
        findings = [
            Finding(check, await repository.breaking_rows(connection, check, ROWS_MAX))
            for check in repository.CHECKS
        ]
        return Verification(findings, await repository.counted(connection))
