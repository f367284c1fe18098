"""The commands that fit in a few lines."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from rowlock.app import create_app
from rowlock.cli.setting_up import bring_up_to_date, database_url, one_clear_line
from rowlock.kernel.settings import Settings, read_settings

DatabaseUrl = Annotated[
    str | None,
    typer.Option("--database-url", help="PostgreSQL 15 or later, postgresql://…; unset: the embedded one."),
]


@one_clear_line
def migrate(database_url_: DatabaseUrl = None) -> None:
    """Bring the database's schema up to date, and say what was done. `serve` does it by itself."""
    with database_url(read_settings(database_url=database_url_)) as url:
        applied = bring_up_to_date(url)
    for name in applied:
        typer.echo(f"applied {name}")
    if not applied:
        typer.echo("The schema is up to date.")


def openapi() -> None:
    """Print the OpenAPI 3.1 document of the API as JSON. Needs no database."""
    document = create_app(Settings(database_url="postgresql://unused")).openapi()
    typer.echo(msgspec.json.format(msgspec.json.encode(document), indent=2))
