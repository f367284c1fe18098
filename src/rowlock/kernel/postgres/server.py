"""The server over one data directory, as one process owns it.

It listens on a Unix socket alone, in a folder that only its owner can enter, and trusts who gets there:
that user can read the very files of the database, so a password would guard nothing. `peer` would need a
name for the uid, which arbitrary uids of containers lack, and which differs inside the user namespace used
as root. TCP is refused twice, by listen_addresses and by pg_hba.conf.

Ownership is a lock on `data_dir/lock`, which ends with its process, however that ends. The server does not
end with it: the next owner adopts the server it finds, with the settings it has.
"""

from __future__ import annotations

import os
import re
import signal
import time
from contextlib import contextmanager, suppress
from types import MappingProxyType
from typing import TYPE_CHECKING
from urllib.parse import quote

from rowlock.kernel.postgres import cluster, files, wire
from rowlock.kernel.postgres.programs import PostgresUnavailable, Programs, find_programs

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Mapping
    from pathlib import Path

DATABASE = "rowlock"
POLL_SECONDS = 0.02
JOIN_POLL_SECONDS = 0.1  # the server logs it each time that the database is not there yet
START_SECONDS = 300  # crash recovery reads all of the log since the last checkpoint
LINGER_SECONDS = 8  # how long a killed server's process entry and memory may stay
LINGERING = r'lock file ".*" already exists|pre-existing shared memory block'
FAST_SHUTDOWN_SECONDS = 60  # it writes a checkpoint
IMMEDIATE_SHUTDOWN_SECONDS = 10

DEFAULTS: Mapping[str, str] = MappingProxyType(
    {
        "fsync": "on",
        "full_page_writes": "on",
        "synchronous_commit": "on",
        "max_connections": "200",
        "shared_buffers": "128MB",
        "deadlock_timeout": "200ms",
        "log_lock_waits": "on",
        "client_connection_check_interval": "1s",
        "default_transaction_isolation": "read committed",
        "timezone": "UTC",
        "log_timezone": "UTC",
    },
)
NO_SETTINGS: Mapping[str, str] = MappingProxyType({})


class Postgres:
    """A PostgreSQL server over one data directory, owned by this object from start() to stop()."""

    def __init__(
        self,
        data_dir: Path,
        *,
        settings: Mapping[str, str] = NO_SETTINGS,
        bin_dir: Path | None = None,
    ) -> None:
        """Describe the server; nothing happens before start().

        `settings` are PostgreSQL's own and win over DEFAULTS. `bin_dir` (ROWLOCK_PG_BIN) holds postgres and
        initdb.
        """
        self.data_dir = data_dir.expanduser().absolute()
        self.log_file = self.data_dir / "postgres.log"
        self._cluster = self.data_dir / "pgdata"
        self._settings = {**DEFAULTS, **settings}
        self._bin_dir = bin_dir
        self._lock: int | None = None
        self._owner_pid = 0
        self._child: subprocess.Popen[bytes] | None = None
        self._pid: int | None = None
        self._socket_folder: Path | None = None

    @property
    def pid(self) -> int | None:
        """The postmaster's process id while it runs."""
        return self._pid if self._is_alive() else None

    def url(self, database: str = DATABASE) -> str:
        """Return the address of one of its databases, for the driver and for psql."""
        if self._socket_folder is None:
            message = "The embedded PostgreSQL has not been started."
            raise PostgresUnavailable(message)
        folder = quote(str(self._socket_folder), safe="/")
        # The port is said although it is the default, which PGPORT would change.
        return f"postgresql://{wire.USER}@/{quote(database, safe='')}?host={folder}&port={wire.PORT}"

    def start(self) -> None:
        """Make the cluster if there is none, start or adopt the server, wait until it accepts connections.

        Raises:
            PostgresUnavailable: it cannot be had; nothing is left running.

        """
        if os.name != "posix":
            message = "The embedded PostgreSQL needs Linux or macOS. Set ROWLOCK_DATABASE_URL instead."
            raise PostgresUnavailable(message)
        with files.plain_errors(self.data_dir):
            self._claim()
            try:
                if not self._is_alive():
                    self._start_claimed()
            except BaseException:  # also KeyboardInterrupt: a half-started server must not stay
                self.stop()
                raise

    def stop(self) -> None:
        """Shut the server down and give the data directory back; a server that was joined is left alone."""
        if self._lock is None or not self._is_owner():
            return
        try:
            self._shut_down()
        finally:
            os.close(self._lock)
            self._lock = None
            if self._socket_folder is not None and self._socket_folder.parent != self.data_dir:
                with suppress(OSError):
                    self._socket_folder.rmdir()

    def restart(self) -> None:
        """Shut the server down and start it again, without letting anybody in between."""
        if self._is_owner():
            self._shut_down()
        self.start()

    def kill(self) -> None:
        """Kill the server with SIGKILL, as a crash would; start() recovers it."""
        if self._is_owner():
            self._end(signal.SIGKILL, LINGER_SECONDS)

    def start_or_join(self) -> None:
        """Own the server as start() does, or use the one of the process that owns the data directory.

        Raises:
            PostgresUnavailable: neither can be had.

        """
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                return self.start()
            except files.DataDirectoryInUse:
                with files.plain_errors(self.data_dir):
                    if self._join():
                        return None
                if time.monotonic() > deadline:
                    raise
            time.sleep(JOIN_POLL_SECONDS)

    def _claim(self) -> None:
        if self._lock is None:
            files.make_data_directory(self.data_dir)
            self._lock = files.lock(self.data_dir)
            self._owner_pid = os.getpid()

    def _is_owner(self) -> bool:
        # A forked worker that unwinds its stack must not stop the server of its parent.
        return self._lock is not None and self._owner_pid == os.getpid()

    def _start_claimed(self) -> None:
        owner = cluster.owner(self._cluster)
        programs = find_programs(self._bin_dir, self.data_dir, owner)
        if owner is None:
            cluster.create(self._cluster, programs, is_durable=self._settings["fsync"] != "off")
        else:
            cluster.check(self._cluster, programs)
        deadline = time.monotonic() + LINGER_SECONDS
        while True:
            said = self._adopt_or_spawn(programs)
            if said is None:
                break
            if not re.search(LINGERING, said) or time.monotonic() > deadline:
                message = f"PostgreSQL did not start: {said} More may be in {self.log_file}."
                raise PostgresUnavailable(message)
            time.sleep(5 * POLL_SECONDS)
        self._create_database(is_new=owner is None)

    def _adopt_or_spawn(self, programs: Programs) -> str | None:
        """Get a server up to accepting connections; return what it said if it ended instead."""
        if (found := self._find_server()) is not None:
            self._child, self._pid, self._socket_folder = None, found.pid, found.socket_folder
            return None if self._wait_until_accepting() else 'lock file "postmaster.pid" already exists.'
        self._socket_folder = files.socket_folder(self.data_dir, programs.run_as)
        log = files.open_log(self.log_file)
        try:
            begin = os.fstat(log).st_size
            options = [part for setting in self._server_settings() for part in ("-c", setting)]
            arguments = ("-D", str(self._cluster), *options)
            self._child = programs.spawn("postgres", *arguments, stdout=log, stderr=log)
        finally:
            os.close(log)
        self._pid = self._child.pid
        if self._wait_until_accepting():
            return None
        with self.log_file.open(errors="replace") as lines:
            lines.seek(begin)
            return files.complaint(lines.read())

    def _server_settings(self) -> list[str]:
        place = {
            "listen_addresses": "",
            "port": str(wire.PORT),
            "unix_socket_directories": str(self._socket_folder),
            "unix_socket_permissions": "0700",
            "logging_collector": "off",
        }
        return [f"{name}={value}" for name, value in {**self._settings, **place}.items()]

    def _find_server(self) -> files.PidFile | None:
        found = files.read_pid_file(self._cluster)
        return found if found and wire.is_listening(found.socket_folder, found.pid) else None

    def _wait_until_accepting(self) -> bool:
        """Wait until the server accepts connections; False if it ended."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            # The pid file is asked first, as the server would log each connection refused during recovery.
            found = files.read_pid_file(self._cluster)
            if (
                found
                and found.pid == self._pid
                and found.is_ready
                and wire.refusal(found.socket_folder, "postgres") != wire.CANNOT_CONNECT_NOW
            ):
                return True
            if not self._is_alive():
                return False
            time.sleep(POLL_SECONDS)
        message = f"PostgreSQL was not ready after {START_SECONDS} seconds. See {self.log_file}."
        raise PostgresUnavailable(message)

    def _join(self) -> bool:
        found = self._find_server()
        if found is None or not found.is_ready:
            return False
        # Its owner may be about to create the database: joined only when it is there.
        if wire.refusal(found.socket_folder, DATABASE) not in (None, wire.TOO_MANY_CONNECTIONS):
            return False
        self._pid, self._socket_folder = found.pid, found.socket_folder
        return True

    def _create_database(self, *, is_new: bool) -> None:
        """Create the database if it is missing; asked at each start, as a crash may have come before it."""
        folder = self._socket_folder
        if folder is None or not (is_new or wire.refusal(folder, DATABASE) == wire.INVALID_CATALOG_NAME):
            return
        refused = wire.ask(folder, "postgres", f"CREATE DATABASE {DATABASE}")
        if refused is not None:
            message = f"The database cannot be created (SQLSTATE {refused}). See {self.log_file}."
            raise PostgresUnavailable(message)

    def _is_alive(self) -> bool:
        if self._child is not None:
            return self._child.poll() is None
        if self._pid is None or self._socket_folder is None:
            return False
        return wire.is_listening(self._socket_folder, self._pid)

    def _shut_down(self) -> None:
        # Whichever it takes, no committed row is lost: the later two leave it to recovery.
        if self._end(signal.SIGINT, FAST_SHUTDOWN_SECONDS):
            return
        if not self._end(signal.SIGQUIT, IMMEDIATE_SHUTDOWN_SECONDS):
            self._end(signal.SIGKILL, LINGER_SECONDS)

    def _end(self, number: signal.Signals, patience_seconds: float) -> bool:
        """Send a signal and wait for the end; False if it did not come in time."""
        if self._pid is None or not self._is_alive():
            return True
        with suppress(ProcessLookupError):
            os.kill(self._pid, number)
        deadline = time.monotonic() + patience_seconds
        while self._is_alive():
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS / 4)
        return True


@contextmanager
def running(
    data_dir: Path,
    *,
    settings: Mapping[str, str] = NO_SETTINGS,
    bin_dir: Path | None = None,
) -> Iterator[Postgres]:
    """Use the server over this data directory: another process's, which goes on, or our own, which ends."""
    server = Postgres(data_dir, settings=settings, bin_dir=bin_dir)
    server.start_or_join()
    try:
        yield server
    finally:
        server.stop()
