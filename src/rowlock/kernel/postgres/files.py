"""The files around an embedded PostgreSQL: who holds them, where the socket is, what the log says."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rowlock.kernel.postgres.programs import PostgresUnavailable, RunAs, is_unused
from rowlock.kernel.postgres.wire import socket_file

if TYPE_CHECKING:
    from collections.abc import Iterator

SOCKET_PATH_MAX_BYTES = 99  # the kernel's limits are 107 bytes on Linux and 103 on macOS
LOG_MAX_BYTES = 10_000_000
_PID_FILE_LINES = 8


class DataDirectoryInUse(PostgresUnavailable):
    """Another process holds the data directory."""


@dataclass(frozen=True)
class PidFile:
    """What a postmaster writes about itself into postmaster.pid."""

    pid: int
    socket_folder: Path
    is_ready: bool


@contextmanager
def plain_errors(data_dir: Path) -> Iterator[None]:
    """Turn what the operating system says about files into one line for people."""
    try:
        yield
    except OSError as error:
        about = f" ({error.filename})" if error.filename and str(error.filename) != str(data_dir) else ""
        message = f"Cannot use the data directory {data_dir}: {error.strerror or error}{about}. "
        raise PostgresUnavailable(message + "Mend that, or choose another with ROWLOCK_DATA_DIR.") from error


def make_data_directory(data_dir: Path) -> None:
    """Make the data directory, closed to others; one that already has other things in it is left as it is."""
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    if is_unused(data_dir):
        data_dir.chmod(0o700)


def lock(data_dir: Path) -> int:
    """Take the data directory for this process and return the descriptor that holds it until it is closed.

    Raises:
        DataDirectoryInUse: another process, or another object in this one, holds it.

    """
    import fcntl  # noqa: PLC0415 (there is none on Windows, where this module must still be importable)

    descriptor = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 20, 0).decode().strip() or "unknown"
        os.close(descriptor)
        message = (
            f"The data directory {data_dir} is already in use by another Rowlock (process {holder}). "
            "Stop it, or choose another with ROWLOCK_DATA_DIR."
        )
        raise DataDirectoryInUse(message) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def socket_folder(data_dir: Path, run_as: RunAs) -> Path:
    """Return a folder for the socket that only its owner can enter; made if missing."""
    folder = data_dir / "socket"
    if not _is_usable(folder):
        folder = _short_folder(data_dir)
    make_private(folder, run_as)
    return folder


def _short_folder(data_dir: Path) -> Path:
    name = f"rowlock-{hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]}"
    last = "/tmp"  # noqa: S108 (our folder in it is made 0700, or checked to be that and ours)
    places = (os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), last)
    folders = [Path(place) / name for place in places if place and Path(place).is_dir()]
    return next((folder for folder in folders if _is_usable(folder)), Path(last) / name)


def _is_usable(socket_folder: Path) -> bool:
    # A comma separates folders, in PostgreSQL's setting and in the driver's URL: no way to quote one in both.
    is_plain = re.fullmatch(r"[\w./@+=-]+", str(socket_folder), re.ASCII) is not None
    return is_plain and len(os.fsencode(socket_file(socket_folder))) <= SOCKET_PATH_MAX_BYTES


def make_private(folder: Path, run_as: RunAs) -> None:
    """Make a folder that only PostgreSQL's user can enter, or see that it is one."""
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != run_as.uid or found.st_mode & 0o077:
            message = f"{folder} must be a folder that only user {run_as.uid} can enter. Remove it."
            raise PostgresUnavailable(message) from None
    else:
        hand_over(folder, run_as)


def hand_over(folder: Path, run_as: RunAs) -> None:
    """Give a folder of ours to PostgreSQL's user, if that is another one."""
    if run_as.uid != os.geteuid():
        os.chown(folder, run_as.uid, run_as.gid)


def read_pid_file(cluster: Path) -> PidFile | None:
    """Read postmaster.pid; None while there is none or it is not complete.

    Source: PostgreSQL manual, "Database File Layout"; the lines are numbered in src/include/utils/pidfile.h.
    """
    try:
        lines = (cluster / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return None
    if len(lines) < _PID_FILE_LINES:
        return None
    return PidFile(int(lines[0]), Path(lines[4]), lines[7].strip() == "ready")


def open_log(log_file: Path) -> int:
    """Open the log for appending, or start it anew when it has grown too long."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(log_file, flags, 0o600)
    if os.fstat(descriptor).st_size > LOG_MAX_BYTES:
        os.ftruncate(descriptor, 0)
    return descriptor


def complaint(text: str) -> str:
    """Return what PostgreSQL's output says went wrong first, with its hint; the rest is consequence."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    wrong = [line for line in lines if re.search(r"\b(FATAL|PANIC|ERROR|error):", line)]
    hints = [line for line in lines if "HINT:" in line] if wrong else []
    said = [*wrong[:1], *hints[:1]] or lines[-1:] or ["it said nothing"]
    return " ".join(
        re.sub(r"^.*?\b(FATAL|PANIC|ERROR|error|HINT):\s*", "", line).rstrip(".") + "." for line in said
    )
