"""The commands, each in its own module."""

from __future__ import annotations

from typing import Annotated

import typer

from rowlock import __version__
from rowlock.cli import demo, serve, simulate, small, verify

app = typer.Typer(
    name="rowlock",
    help="Event registration and ticketing that never oversells and never withholds a free seat.",
    no_args_is_help=True,
    # Paragraphs of a docstring are filled to the width; otherwise each of its lines would break by itself.
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Every setting is an environment variable too: ROWLOCK_DATABASE_URL, ROWLOCK_DATA_DIR, ROWLOCK_PORT …",
)


def _show_version(value: bool) -> None:  # noqa: FBT001 - typer calls it so
    if value:
        typer.echo(f"rowlock {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    pass


app.command("serve")(serve.serve)
app.command("migrate")(small.migrate)
app.command("openapi")(small.openapi)
app.command("verify")(verify.verify)
app.command("simulate")(simulate.simulate)
app.command("demo")(demo.demo)
