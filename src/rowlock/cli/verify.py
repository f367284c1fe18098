"""`rowlock verify`: show whether the seats equal the tickets."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from rowlock.cli.setting_up import Stop, database_url, one_clear_line, opened
from rowlock.kernel.migrations import pending
from rowlock.kernel.settings import read_settings
from rowlock.reports import service

if TYPE_CHECKING:
    from rowlock.reports.model import Verification


@one_clear_line
def verify(
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    database: Annotated[
        str | None, typer.Option("--database-url", help="PostgreSQL 15 or later; unset: the embedded one.")
    ] = None,
) -> None:
    """Recount orders, tickets and ledger against every counter.

    Reads one snapshot and changes nothing, so it may run beside a sale. Exit code 1 and the exact rows on any
    difference, 0 if there is none.
    """
    with database_url(read_settings(database_url=database)) as url:
        verification = asyncio.run(_verify(url))
    typer.echo(as_text(verification) if not as_json else as_json_text(verification))
    if not verification.holds:
        raise typer.Exit(1)


async def _verify(url: str) -> Verification:
    async with opened(url) as db:
        if missing := await pending(db):
            raise Stop(f"The schema lacks {len(missing)} migrations. Run `rowlock migrate` first.")
        return await service.verify(db)


def as_text(verification: Verification) -> str:
    """Write a verification for people."""
    lines = []
    for finding in verification.findings:
        lines.append(f"{'ok  ' if finding.holds else 'WRONG'}  {finding.check.sentence}")
        lines += [
            "       " + ", ".join(f"{name}={value}" for name, value in row.items()) for row in finding.rows
        ]
    counted = ", ".join(f"{number} {name}" for name, number in verification.counted.items())
    verdict = "Seats equal tickets." if verification.holds else "There are differences."
    return "\n".join([*lines, f"{verdict} Counted {counted}."])


def as_json_text(verification: Verification) -> str:
    """Write a verification for programs."""
    body = {
        "holds": verification.holds,
        "counted": verification.counted,
        "checks": [
            {"name": it.check.name, "sentence": it.check.sentence, "holds": it.holds, "rows": it.rows}
            for it in verification.findings
        ],
    }
    return msgspec.json.format(msgspec.json.encode(body, enc_hook=str)).decode()
