"""Just enough of PostgreSQL's protocol to ask a server on a Unix socket whether it is there.

The driver could do this, but it is heavy to start and belongs to `kernel.database` alone; `pg_isready` and
`createdb` cost a process each and are not in every server package.
Source: PostgreSQL manual, "Frontend/Backend Protocol", Message Formats.
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PORT = 5432  # only a part of the socket's file name: nothing listens on TCP
USER = "rowlock"
CONNECT_TIMEOUT_SECONDS = 10
SQL_TIMEOUT_SECONDS = 120

INVALID_CATALOG_NAME = "3D000"
CANNOT_CONNECT_NOW = "57P03"  # starting up or shutting down
TOO_MANY_CONNECTIONS = "53300"
_PROTOCOL_3_0 = 196608
_UNEXPECTED = "08P01"


def socket_file(folder: Path) -> Path:
    """Return the socket that a server puts into its socket folder."""
    return folder / f".s.PGSQL.{PORT}"


def is_listening(folder: Path, pid: int) -> bool:
    """Tell whether process `pid` itself listens here: a stale pid file may name any process."""
    try:
        with _connect(folder) as connection:
            if not hasattr(socket, "SO_PEERCRED"):
                return True
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            return bool(struct.unpack("3i", credentials)[0] == pid)
    except (BlockingIOError, TimeoutError):
        return True  # too busy to take the connection, but there
    except OSError:
        return False


def ask(folder: Path, database: str, sql: str | None = None) -> str | None:
    """Connect, run `sql` if given, and return the SQLSTATE of the refusal, or None if all went well.

    Raises:
        OSError: nobody listens there, or it hung up.

    """
    with _connect(folder) as connection:
        parameters = f"user\0{USER}\0database\0{database}\0\0".encode()
        connection.sendall(struct.pack("!ii", len(parameters) + 8, _PROTOCOL_3_0) + parameters)
        refused = _outcome(connection)
        if refused is None and sql is not None:
            connection.settimeout(SQL_TIMEOUT_SECONDS)
            connection.sendall(_message(b"Q", sql.encode() + b"\0"))
            refused = _outcome(connection)
        if refused is None:
            connection.sendall(_message(b"X", b""))
        return refused


def refusal(folder: Path, database: str) -> str | None:
    """Return why a database refuses a connection, as `ask` does; nobody there is CANNOT_CONNECT_NOW too."""
    try:
        return ask(folder, database)
    except OSError:
        return CANNOT_CONNECT_NOW


def _connect(folder: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(CONNECT_TIMEOUT_SECONDS)
    try:
        connection.connect(str(socket_file(folder)))
    except OSError:
        connection.close()
        raise
    return connection


def _outcome(connection: socket.socket) -> str | None:
    """Read up to ReadyForQuery or the first error."""
    for kind, body in _messages(connection):
        if kind == b"E":
            return _sqlstate(body)
        if kind == b"R" and body[:4] != b"\0\0\0\0":  # anything but AuthenticationOk
            return _UNEXPECTED
        if kind == b"Z":
            break
    return None


def _messages(connection: socket.socket) -> Iterator[tuple[bytes, bytes]]:
    while True:
        kind, length = struct.unpack("!ci", _receive(connection, 5))
        yield kind, _receive(connection, length - 4)


def _receive(connection: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        chunk = connection.recv(size - len(received))
        if not chunk:
            message = "the server closed the connection"
            raise ConnectionResetError(message)
        received += chunk
    return received


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


def _sqlstate(error_body: bytes) -> str:
    fields = (field for field in error_body.split(b"\0") if field)
    return next((field[1:].decode() for field in fields if field[:1] == b"C"), _UNEXPECTED)
