"""`rowlock serve`: the database, the schema, the server processes, and a clean end for all of them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import tempfile
from typing import TYPE_CHECKING, Annotated, Any

import typer
import uvicorn
from uvicorn.supervisors import Multiprocess

from rowlock.cli.setting_up import Stop, bring_up_to_date, database_url, one_clear_line
from rowlock.kernel import logs
from rowlock.kernel.settings import Settings, read_settings
from rowlock.web.protocol import Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

BACKLOG = 2048
GRACE_SECONDS = 15


@one_clear_line
def serve(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; 0.0.0.0 is every interface.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    workers: Annotated[int | None, typer.Option(help="Server processes that share the port.")] = None,
    database: Annotated[
        str | None, typer.Option("--database-url", help="PostgreSQL 15 or later; unset: an embedded one.")
    ] = None,
    log_sql: Annotated[
        bool | None, typer.Option("--log-sql", help="Log every SQL statement, the FOR UPDATE among them.")
    ] = None,
) -> None:
    """Serve the API, with everything it needs, until Ctrl-C.

    Without --database-url an embedded PostgreSQL is started; its data stay in ROWLOCK_DATA_DIR. The schema is brought
    up to date first.
    """
    settings = read_settings(host=host, port=port, workers=workers, database_url=database, log_sql=log_sql)
    logs.configure(level=settings.log_level, form=settings.log_format)
    with _stopping_softly(), contextlib.closing(listen(settings)) as listener, database_url(settings) as url:
        bring_up_to_date(url)
        _announce(settings, listener.getsockname()[1])
        _run(settings, url, listener)


def serve_on(listener: socket.socket, factory: str, *, workers: int) -> None:
    """Serve what `factory`, a name like `package.module:name`, makes, by so many processes, until a signal ends it.

    Raises:
        Stop: the only server process did not start.

    """
    config = uvicorn.Config(
        factory,
        factory=True,
        workers=workers,
        loop="uvloop",
        http=Protocol,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    if workers > 1:
        with (
            tempfile.TemporaryDirectory(prefix="rowlock-metrics-") as metrics_folder,
            _environment({"PROMETHEUS_MULTIPROC_DIR": metrics_folder}),
        ):
            Multiprocess(config, sockets=[listener]).run()
        return
    server = uvicorn.Server(config)
    server.run(sockets=[listener])
    if not server.started:
        raise Stop("The server did not start; its log, above, says why.")


def listen(settings: Settings) -> socket.socket:
    """Take the port before anything else is started, so that a taken one costs nothing.

    Raises:
        Stop: it cannot be had.

    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        reason = error.strerror or str(error)
        raise Stop(
            f"Cannot listen on {settings.host} port {settings.port}: {reason}."
            " Stop what uses it, or choose another port: PORT=9000 make serve, or --port 9000."
        ) from None
    listener.set_inheritable(True)
    return listener


def _run(settings: Settings, url: str, listener: socket.socket) -> None:
    chosen = {
        "ROWLOCK_DATABASE_URL": url,
        "ROWLOCK_LOG_SQL": str(settings.log_sql),
        "ROWLOCK_WORKERS": str(settings.workers),
    }
    with _environment(chosen):
        serve_on(listener, "rowlock.asgi:create", workers=settings.workers)


def _announce(settings: Settings, port: int) -> None:
    name = "localhost" if settings.host in {"127.0.0.1", "0.0.0.0", "::", "::1"} else settings.host  # noqa: S104
    address = f"http://{name}:{port}"
    own = settings.database_url is not None
    where = "your database (ROWLOCK_DATABASE_URL)" if own else str(settings.data_dir.resolve())
    typer.echo(f"Rowlock   {address}\nAPI docs  {address}/docs\nData      {where}\nCtrl-C stops it.")
    sys.stdout.flush()


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Hand what was chosen to the server processes, the way they read every setting."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def _stopping_softly() -> Iterator[None]:
    """Make a terminal's or a service manager's wish to end an orderly end: servers first, then the database.

    uvicorn drains on these signals and raises them again once it is done; by then they must not kill this process,
    which still has the database to stop.
    """

    def stop(_number: int, _frame: Any) -> None:
        raise KeyboardInterrupt

    wishes = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(wish, stop) for wish in wishes]
    try:
        with contextlib.suppress(KeyboardInterrupt):
            yield
        typer.echo("Stopped.")
    finally:
        for wish, handler in zip(wishes, before, strict=True):
            signal.signal(wish, handler)
