"""Real server processes on loopback, for `simulate`, `demo` and the tests; they end with their block."""

from __future__ import annotations

import contextlib
import http.client
import os
import subprocess
import sys
import tempfile
import time
import weakref
from types import MappingProxyType
from typing import IO, TYPE_CHECKING

from rowlock.cli.setting_up import Stop
from rowlock.cli.wire import Address, parse_address

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

READY_SECONDS = 30.0
STOP_SECONDS = 20.0  # a little more than a server gives the requests that it still answers
KILL_SECONDS = 10.0
POLL_SECONDS = 0.02
HTTP_SECONDS = 2.0
NOTHING: Mapping[str, str] = MappingProxyType({})
SERVE = (sys.executable, "-m", "rowlock", "serve", "--port", "0")


class ServerProcess:
    """One `rowlock serve` process, or another that announces itself so, on 127.0.0.1, on a port of its own."""

    def __init__(
        self, database_url: str, environment: Mapping[str, str], command: Sequence[str] = SERVE
    ) -> None:
        """Start the process; `wait_until_ready` must follow."""
        self._whole_log: str | None = None
        # Nameless files, closed by `_collect`; pipes would have to be read all the time.
        self._out, self._log = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115
        for file in (self._out, self._log):
            weakref.finalize(self, file.close)
        self._address: Address | None = None
        # The database's URL may hold a password, and everybody can read the arguments of a process. A session of
        # its own, because the terminal's Ctrl-C is for the command, which then ends its servers in good order.
        self._process = subprocess.Popen(  # noqa: S603 - our own program, no shell
            command,
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=self._log,
            env={**environment, "ROWLOCK_DATABASE_URL": database_url},
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def url(self) -> str:
        """The base URL, `http://127.0.0.1:port`."""
        assert self._address is not None, "the server is not ready yet"
        return f"http://{self._address.name}"

    @property
    def log_lines(self) -> list[str]:
        """What it has logged so far, a JSON object a line; after its end, all of it."""
        return (_text(self._log) if self._whole_log is None else self._whole_log).splitlines()

    @property
    def is_running(self) -> bool:
        """Tell whether the process lives."""
        return self._process.poll() is None

    def wait_until_ready(self, deadline: float) -> None:
        """Wait until it answers requests, at most until `deadline` (of `time.monotonic`).

        Raises:
            Stop: it ended instead, with the last line that it said; or it took too long.

        """
        while not self._is_ready():
            if not self.is_running:
                raise Stop(f"A server did not start: {self._last_line()}")
            if time.monotonic() > deadline:
                raise Stop(f"A server was not ready after {READY_SECONDS:.0f} seconds: {self._last_line()}")
            time.sleep(POLL_SECONDS)

    def kill(self) -> None:
        """End it at once with SIGKILL, as a crash would."""
        self._process.kill()
        self._process.wait(KILL_SECONDS)
        self._collect()

    def stop(self) -> None:
        """Ask it to end (SIGTERM) and wait for that; one that does not is killed."""
        self.ask_to_end()
        try:
            self._process.wait(STOP_SECONDS)
            self._collect()
        except subprocess.TimeoutExpired:
            self.kill()

    def ask_to_end(self) -> None:
        """Send SIGTERM, unless it has ended already."""
        self._process.terminate()

    def _is_ready(self) -> bool:
        if self._address is None:
            first, newline, _ = _text(self._out).partition("\n")
            if not newline:
                return False
            self._address = parse_address(first.split()[-1].replace("//localhost", "//127.0.0.1"))
        connection = http.client.HTTPConnection(self._address.host, self._address.port, timeout=HTTP_SECONDS)
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/readyz")
            return connection.getresponse().status == http.HTTPStatus.OK
        return False

    def _collect(self) -> None:
        """Keep the log of the process that has ended, and give the files back."""
        if self._whole_log is None:
            self._whole_log = _text(self._log)
            self._out.close()
            self._log.close()

    def _last_line(self) -> str:
        said = [line for line in self.log_lines if line.strip()]
        return said[-1].removeprefix("rowlock: ") if said else "it said nothing."


@contextlib.contextmanager
def servers(
    url: str,
    count: int,
    *,
    log_sql: bool = False,
    extra_env: Mapping[str, str] = NOTHING,
    command: Sequence[str] = SERVE,
) -> Iterator[list[ServerProcess]]:
    """Run `count` servers over the database at `url`, ready when the block begins, ended when it is left.

    Raises:
        Stop: one of them did not start; its own last line says why.

    """
    environment = {**_environment(log_sql=log_sql), **extra_env}
    started: list[ServerProcess] = []
    deadline = time.monotonic() + READY_SECONDS
    try:
        for _ in range(count):
            started.append(  # noqa: PERF401 - each must be known before the next fails
                ServerProcess(url, environment, command)
            )
        for server in started:
            server.wait_until_ready(deadline)
        yield started
    finally:
        for server in started:
            server.ask_to_end()
        for server in started:
            server.stop()


def _environment(*, log_sql: bool) -> dict[str, str]:
    """Return this process's environment, but with what the servers' announcement and logs are read by settled."""
    kept = {name: value for name, value in os.environ.items() if name != "PROMETHEUS_MULTIPROC_DIR"}
    return kept | {
        "ROWLOCK_HOST": "127.0.0.1",
        "ROWLOCK_WORKERS": "1",
        "ROWLOCK_LOG_SQL": str(log_sql),
        "ROWLOCK_LOG_FORMAT": "json",
        "ROWLOCK_LOG_LEVEL": "info" if log_sql else "warning",
        "PYTHONUTF8": "1",
    }


def _text(file: IO[bytes]) -> str:
    # pread, because the descriptor's position is shared with the process that writes there.
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode(errors="replace")
