"""The embedded PostgreSQL, with real servers: what it survives, whom it refuses, and what it says then."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import rowlock
from rowlock.kernel.postgres import DATABASE, Postgres, PostgresUnavailable, running, wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FAST = {"fsync": "off", "synchronous_commit": "off", "shared_buffers": "16MB"}
NOBODY = 65534
CHILD_SECONDS = 60
SOURCE = Path(rowlock.__file__).parents[1]
SECOND_START_SECONDS = 1

OWNER = """
import sys, time
from pathlib import Path
from rowlock.kernel.postgres import Postgres
server = Postgres(Path(sys.argv[1]), settings={"fsync": "off", "shared_buffers": "16MB"})
server.start()
print(server.pid, flush=True)
sys.stdin.read()
server.stop()
print("stopped", flush=True)
"""


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """Yield a short path: the folders pytest makes are so long that the socket would move elsewhere."""
    with tempfile.TemporaryDirectory(prefix="rl") as folder:
        yield Path(folder) / "data"


@pytest.fixture(scope="module")
def shared_data_dir() -> Iterator[Path]:
    """Yield one data directory for the tests that leave it whole: initdb takes a second."""
    with tempfile.TemporaryDirectory(prefix="rl") as folder:
        yield Path(folder) / "data"


@pytest.fixture
def server(shared_data_dir: Path) -> Iterator[Postgres]:
    """Yield a started server, stopped afterwards whatever became of it."""
    server = Postgres(shared_data_dir, settings=FAST)
    server.start()
    yield server
    server.stop()


def execute(server: Postgres, sql: str, database: str = DATABASE) -> str | None:
    """Run one statement and return the SQLSTATE of its refusal, if any."""
    url = server.url()
    folder = url.partition("?host=")[2].partition("&")[0]
    return wire.ask(Path(folder), database, sql)


def wait_until(is_so: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def owner(data_dir: Path) -> Iterator[subprocess.Popen[str]]:
    """Yield another process that owns a running server; its first line of output is the server's pid."""
    child = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(data_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        yield child
        if child.poll() is None:
            child.communicate(timeout=CHILD_SECONDS)  # the end of its input tells it to stop


def first_line(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


def test_data_stays_over_stop_and_start(server: Postgres) -> None:
    assert execute(server, "CREATE TABLE kept (id int)") is None
    pid = server.pid
    server.stop()
    assert server.pid is None
    begin = time.monotonic()
    server.start()
    assert time.monotonic() - begin < SECOND_START_SECONDS
    assert server.pid not in {None, pid}
    assert execute(server, "SELECT * FROM kept") is None


def test_restart_keeps_the_lock_and_the_data(server: Postgres) -> None:
    assert execute(server, "CREATE TABLE rested (id int)") is None
    server.restart()
    assert execute(server, "SELECT * FROM rested") is None


def test_start_and_stop_may_be_repeated(server: Postgres) -> None:
    pid = server.pid
    server.start()
    assert server.pid == pid
    server.stop()
    server.stop()
    assert server.pid is None


def test_nobody_else_can_enter(server: Postgres) -> None:
    for folder in (server.data_dir, server.data_dir / "pgdata", server.data_dir / "socket"):
        assert folder.stat().st_mode & 0o077 == 0, folder
    assert server.log_file.stat().st_mode & 0o077 == 0
    rules = (server.data_dir / "pgdata" / "pg_hba.conf").read_text().splitlines()
    hosts = [rule.split() for rule in rules if rule.startswith("host")]
    assert hosts
    assert all(rule[-1] == "reject" for rule in hosts)


def test_settings_given_win_and_the_others_hold(server: Postgres) -> None:
    expected = {"fsync": "off", "timezone": "UTC", "full_page_writes": "on", "data_checksums": "on"}
    for setting, value in expected.items():
        assert execute(server, f"SELECT 1 / (current_setting('{setting}') = '{value}')::int") is None, setting


def test_a_dropped_database_is_made_again(server: Postgres) -> None:
    assert execute(server, f"DROP DATABASE {DATABASE} WITH (FORCE)", "postgres") is None
    server.restart()
    assert execute(server, "SELECT 1") is None


def test_committed_rows_survive_a_kill_of_the_server(data_dir: Path) -> None:
    server = Postgres(data_dir)  # with its own, durable settings
    server.start()
    try:
        assert execute(server, "CREATE TABLE kept AS SELECT 1 AS id") is None
        pid = server.pid
        server.kill()
        assert server.pid is None
        server.start()
        assert server.pid not in {None, pid}
        assert execute(server, "SELECT 1 / (SELECT count(*) FROM kept)") is None
    finally:
        server.stop()


def test_a_server_that_lost_its_owner_is_adopted_and_stopped(
    data_dir: Path, owner: subprocess.Popen[str]
) -> None:
    pid = int(first_line(owner))
    owner.kill()
    owner.wait(CHILD_SECONDS)
    server = Postgres(data_dir, settings=FAST)
    server.start()
    try:
        assert server.pid == pid
        assert execute(server, "SELECT 1") is None
    finally:
        server.stop()
    wait_until(lambda: not is_running(pid))
    assert not (data_dir / "pgdata" / "postmaster.pid").exists()


def test_an_adopted_server_can_be_killed_and_started_again(
    data_dir: Path, owner: subprocess.Popen[str]
) -> None:
    pid = int(first_line(owner))
    owner.kill()
    owner.wait(CHILD_SECONDS)
    server = Postgres(data_dir, settings=FAST)
    server.start()
    try:
        server.kill()
        server.start()
        assert server.pid not in {None, pid}
    finally:
        server.stop()


def test_a_pid_file_left_by_a_crash_that_names_another_process(server: Postgres) -> None:
    server.kill()
    pid_file = server.data_dir / "pgdata" / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
    server.start()
    assert server.pid not in {None, os.getpid()}


def test_a_second_owner_is_refused(data_dir: Path, owner: subprocess.Popen[str]) -> None:
    pid = int(first_line(owner))
    with pytest.raises(PostgresUnavailable) as refusal:
        Postgres(data_dir).start()
    assert str(refusal.value) == (
        f"The data directory {data_dir} is already in use by another Rowlock (process {owner.pid}). "
        "Stop it, or choose another with ROWLOCK_DATA_DIR."
    )
    assert is_running(pid)


def test_running_joins_and_leaves_the_server_of_another(data_dir: Path, owner: subprocess.Popen[str]) -> None:
    pid = int(first_line(owner))
    with running(data_dir) as server:
        assert server.pid == pid
        assert execute(server, "SELECT 1") is None
        server.kill()  # not ours to kill
    assert is_running(pid)
    stopped, _ = owner.communicate(timeout=CHILD_SECONDS)
    assert stopped == "stopped\n"
    assert not is_running(pid)


def test_running_waits_for_an_owner_that_is_still_starting(
    data_dir: Path, owner: subprocess.Popen[str]
) -> None:
    wait_until((data_dir / "lock").exists)
    wait_until(lambda: (data_dir / "lock").read_text() != "")
    with running(data_dir) as server:
        assert server.pid == int(first_line(owner))


def test_running_starts_and_stops_its_own(data_dir: Path) -> None:
    with running(data_dir, settings=FAST) as server:
        pid = server.pid
        assert pid is not None
        assert execute(server, "SELECT 1") is None
    assert not is_running(pid)


def test_the_server_does_not_hear_the_terminal(server: Postgres) -> None:
    assert server.pid is not None
    assert os.getsid(server.pid) == server.pid


@pytest.mark.parametrize("name", ["x" * 120, "with, comma and ' quote"])
def test_a_path_that_no_socket_can_have(tmp_path: Path, name: str) -> None:
    with running(tmp_path / name, settings=FAST) as server:
        assert execute(server, "SELECT 1") is None
        folder = Path(server.url().partition("?host=")[2].partition("&")[0])
        assert folder.stat().st_mode & 0o077 == 0
    assert not folder.exists()


def test_a_data_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    data_dir = tmp_path / "file" / "x"
    with pytest.raises(PostgresUnavailable) as refusal:
        Postgres(data_dir).start()
    assert str(refusal.value).startswith(f"Cannot use the data directory {data_dir}: Not a directory")
    assert "ROWLOCK_DATA_DIR" in str(refusal.value)


def test_another_major_version_is_refused(data_dir: Path) -> None:
    (data_dir / "pgdata").mkdir(parents=True)
    (data_dir / "pgdata" / "PG_VERSION").write_text("12\n")
    with pytest.raises(
        PostgresUnavailable, match=r"was made by PostgreSQL 12, but this .* Dump it .* restore it"
    ):
        Postgres(data_dir).start()


def test_a_failed_initdb_leaves_nothing_in_the_way(data_dir: Path) -> None:
    (data_dir / "pgdata.new-1" / "left").mkdir(parents=True)  # by a start that was killed
    broken = data_dir.parent / "bin"
    broken.mkdir()
    for program, script in (
        ("postgres", "echo 'postgres (PostgreSQL) 18.6'"),
        ("initdb", "echo 'FATAL:  no space'; echo 'HINT:  Tidy.'; echo 'FATAL:  no sense'; exit 1"),
    ):
        (broken / program).write_text(f"#!/bin/sh\n{script}\n")
        (broken / program).chmod(0o755)
    with pytest.raises(PostgresUnavailable, match=r"^The database cannot be made in .*: no space\. Tidy\.$"):
        Postgres(data_dir, bin_dir=broken).start()
    with running(data_dir, settings=FAST) as server:
        assert execute(server, "SELECT 1") is None
    assert not list(data_dir.glob("pgdata.new*"))


def test_a_server_that_ends_at_once_says_why(server: Postgres) -> None:
    server.stop()
    broken = Postgres(server.data_dir, settings={"shared_buffers": "nonsense"})
    with pytest.raises(PostgresUnavailable, match=r'did not start: .*"shared_buffers".*postgres\.log\.$'):
        broken.start()
    server.start()  # the lock was given back
    assert execute(server, "SELECT 1") is None


def test_no_programs(tmp_path: Path) -> None:
    with pytest.raises(PostgresUnavailable, match=r"no PostgreSQL in ROWLOCK_PG_BIN=.*ROWLOCK_DATABASE_URL"):
        Postgres(tmp_path / "data", bin_dir=tmp_path).start()


def test_programs_of_a_version_that_is_too_old(tmp_path: Path) -> None:
    for program in ("postgres", "initdb"):
        (tmp_path / program).write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 14.9'\n")
        (tmp_path / program).chmod(0o755)
    with pytest.raises(PostgresUnavailable, match=r"needs PostgreSQL 15 or later, and .* has 14\."):
        Postgres(tmp_path / "data", bin_dir=tmp_path).start()


def test_a_log_that_has_grown_too_long_begins_anew(server: Postgres) -> None:
    server.stop()
    with server.log_file.open("r+b") as log:
        log.truncate(20_000_000)
    server.start()
    assert server.log_file.stat().st_size < 1_000_000


@pytest.mark.skipif(
    not Path("/usr/lib/postgresql").is_dir(), reason="there is no PostgreSQL of Debian's here"
)
def test_the_oldest_supported_version_at_hand(data_dir: Path) -> None:
    folders = Path("/usr/lib/postgresql").glob("*/bin")
    oldest = min(folders, key=lambda folder: int(folder.parent.name))
    with running(data_dir, settings=FAST, bin_dir=oldest) as server:
        assert execute(server, "SELECT 1") is None


def reachable_python(uid: int) -> str | None:
    """Return a Python that another user can run and that finds Rowlock, or None."""
    for python in (sys.executable, shutil.which("python3", path="/usr/bin:/usr/local/bin")):
        try:
            subprocess.run(
                [python or "", "-c", "import rowlock.kernel.postgres"],
                user=uid,
                group=uid,
                extra_groups=[],
                env=child_environment(),
                capture_output=True,
                check=True,
                timeout=CHILD_SECONDS,
            )
        except (OSError, subprocess.SubprocessError):
            continue
        return python
    return None


def child_environment() -> dict[str, str]:
    packages = [entry for entry in sys.path if entry.endswith("site-packages")]
    return {"PATH": "/usr/bin:/bin", "PYTHONPATH": os.pathsep.join([str(SOURCE), *packages])}


@pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can become other users; all other tests ran as this one"
)
@pytest.mark.parametrize("uid", [pytest.param(NOBODY, id="named"), pytest.param(54321, id="nameless")])
def test_as_an_ordinary_user(uid: int) -> None:
    python = reachable_python(uid)
    if python is None:
        pytest.skip("no Python that finds Rowlock can be run by another user")
    with tempfile.TemporaryDirectory(prefix="rl") as folder:
        os.chown(folder, uid, uid)
        child = subprocess.run(
            [python, "-c", OWNER, f"{folder}/data"],
            user=uid,
            group=uid,
            extra_groups=[],
            env=child_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=CHILD_SECONDS,
            check=False,
        )
        assert child.stdout.endswith("stopped\n"), child.stderr
        assert (Path(folder) / "data" / "pgdata").stat().st_uid == uid


FORBID_NAMESPACES = """
import ctypes, platform, struct
# A seccomp filter as containers have it: unshare (272 on x86_64) fails with EPERM. See seccomp(2).
steps = [(0x20, 0, 0, 0), (0x15, 0, 1, 272), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7FFF0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
program = ctypes.create_string_buffer(struct.pack("HP", len(steps), ctypes.addressof(code)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, program, 0, 0) == 0
"""


@pytest.mark.skipif(
    os.geteuid() != 0 or sys.platform != "linux" or os.uname().machine != "x86_64",
    reason="it is about root on Linux, and knows the system call's number on x86_64",
)
def test_root_without_namespaces_runs_it_as_another_user() -> None:
    with tempfile.TemporaryDirectory(prefix="rl") as folder:
        Path(folder).chmod(0o755)
        command = [sys.executable, "-c", FORBID_NAMESPACES + OWNER, f"{folder}/data"]
        for _start in ("first", "second"):
            child = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=CHILD_SECONDS,
                check=False,
            )
            if "run Rowlock as an ordinary user" in child.stderr:
                pytest.skip("PostgreSQL's programs cannot be reached by other users here")
            assert child.stdout.endswith("stopped\n"), child.stderr
        assert (Path(folder) / "data" / "pgdata").stat().st_uid != 0


@pytest.mark.skipif(
    os.geteuid() != 0 or sys.platform != "linux" or os.uname().machine != "x86_64",
    reason="it is about root on Linux, and knows the system call's number on x86_64",
)
def test_root_without_any_way_says_what_to_do() -> None:
    with tempfile.TemporaryDirectory(prefix="rl") as folder:  # closed to all others
        child = subprocess.run(
            [sys.executable, "-c", FORBID_NAMESPACES + OWNER, f"{folder}/data"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=CHILD_SECONDS,
            check=False,
        )
    assert "PostgreSQL does not run as root" in child.stderr
    assert "run Rowlock as an ordinary user" in child.stderr
    assert "ROWLOCK_DATABASE_URL" in child.stderr


def test_an_interrupted_start_leaves_no_server(data_dir: Path, owner: subprocess.Popen[str]) -> None:
    pid_file = data_dir / "pgdata" / "postmaster.pid"
    wait_until(lambda: pid_file.exists() or any(data_dir.glob("pgdata.new-*")))
    owner.send_signal(signal.SIGINT)
    owner.wait(CHILD_SECONDS)
    assert not pid_file.exists()
    with running(data_dir, settings=FAST) as server:
        assert execute(server, "SELECT 1") is None
