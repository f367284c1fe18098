"""`python -m rowlock serve` as a process of its own: how it starts, how it ends, and what it says when it cannot."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

END_SECONDS = 60
PATIENCE_SECONDS = 60
POLL_SECONDS = 0.02
_HEALTH_CHECKS = 'rowlock_http_responses_total{endpoint="_healthz"'


class Served:
    """A `rowlock serve`, with its output."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        """Start it, with no ROWLOCK_* setting but those given."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ROWLOCK_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "rowlock", "serve", *arguments],
            env={**kept, "ROWLOCK_LOG_LEVEL": "warning", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.said = ""
        self.complained = ""

    def url(self) -> str:
        """Wait for the announcement, whose last line tells how to stop, and return the address in it."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said += line
            if "Ctrl-C" in line:
                break
        found = re.search(r"http://localhost:(\d+)\n", self.said)
        assert found, self.said + self.end()
        return f"http://127.0.0.1:{found[1]}"

    def end(self, number: signal.Signals = signal.SIGINT) -> str:
        """Ask it to end, if it still runs, wait for that, and return what it said on standard error."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.wait()

    def wait(self) -> str:
        """Wait for its end and return what it said on standard error."""
        said, self.complained = self.process.communicate(timeout=END_SECONDS)
        self.said += said
        return self.complained

    def workers(self) -> set[int]:
        """Return the server processes that it has started."""
        return {pid for pid in children(self.process.pid) if "spawn_main" in command(pid)}


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    """Return a function that starts servers; what a test leaves running is killed."""
    started: list[Served] = []

    def start(*arguments: str, **environment: str) -> Served:
        started.append(Served(*arguments, **environment))
        return started[-1]

    yield start
    for served in started:
        if served.process.poll() is None:
            served.end(signal.SIGTERM)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(served.process.pid, signal.SIGKILL)


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="rl") as folder:
        yield Path(folder) / "data"


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(POLL_SECONDS)


def postmaster(data_dir: Path) -> int | None:
    """Return the process id that the database has written down, if it has by now."""
    with contextlib.suppress(FileNotFoundError, IndexError):
        return int((data_dir / "pgdata" / "postmaster.pid").read_text().split()[0])
    return None


def get(url: str) -> httpx.Response:
    return httpx.get(url, timeout=PATIENCE_SECONDS)


def children(pid: int) -> set[int]:
    with contextlib.suppress(FileNotFoundError):
        return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}
    return set()


def command(pid: int) -> str:
    with contextlib.suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    return ""


def using(data_dir: Path) -> list[str]:
    """Return the commands of all processes that name this folder."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [line for line in map(command, pids) if str(data_dir) in line]


def an_event(url: str) -> dict[str, Any]:
    """Sign up, publish an event and register for it; return the registration."""
    person = {"name": "Ann", "email": "ann@example.org", "password": "correct horse battery"}
    with httpx.Client(base_url=f"{url}/api/v1", timeout=PATIENCE_SECONDS) as http:
        assert http.post("/users", json=person).status_code == 201
        token = http.post("/tokens", json={name: person[name] for name in ("email", "password")}).json()[
            "token"
        ]
        signed_in = {"Authorization": f"Bearer {token}"}
        event = {"title": "Jazz", "capacity": 3, "status": "published"}
        made = http.post("/events", json=event, headers=signed_in).json()
        body = {"event_id": made["id"], "name": "Bob", "email": "bob@example.org"}
        answer = http.post("/registrations", json=body)
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()
        return found


@pytest.mark.parametrize("wish", [signal.SIGINT, signal.SIGTERM])
def test_it_starts_its_database_and_stops_it_and_finds_its_data_again(
    serve: Callable[..., Served], data_dir: Path, wish: signal.Signals
) -> None:
    first = serve("--port", "0", ROWLOCK_DATA_DIR=str(data_dir))
    made = an_event(first.url())
    assert using(data_dir)
    assert first.end(wish) == ""
    assert first.process.returncode == 0
    assert str(data_dir) in first.said
    assert using(data_dir) == []
    assert not (data_dir / "pgdata" / "postmaster.pid").exists()

    second = serve("--port", "0", ROWLOCK_DATA_DIR=str(data_dir))
    found = get(second.url() + made["link"]).json()
    assert found == {name: value for name, value in made.items() if name not in {"secret", "link"}}
    assert second.end(wish) == ""
    assert second.process.returncode == 0
    assert using(data_dir) == []


def test_its_database_comes_back_when_it_is_killed(serve: Callable[..., Served], data_dir: Path) -> None:
    served = serve("--port", "0", ROWLOCK_DATA_DIR=str(data_dir))
    url = served.url()
    made = an_event(url)
    killed = postmaster(data_dir)
    assert killed is not None

    os.kill(killed, signal.SIGKILL)
    until(lambda: postmaster(data_dir) not in {killed, None})
    until(lambda: get(f"{url}/readyz").status_code == 200)

    assert get(url + made["link"]).json()["status"] == "confirmed"
    assert "starting it again" in served.end()
    assert served.process.returncode == 0


def test_a_second_one_on_the_same_port_says_so_and_starts_nothing(
    serve: Callable[..., Served], data_dir: Path
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        served = serve("--port", str(port), ROWLOCK_DATA_DIR=str(data_dir))
        assert_one_line(served, rf"Cannot listen on 127\.0\.0\.1 port {port}: .*choose another port.*")
    assert not data_dir.exists()


def test_a_data_directory_that_cannot_be_made_is_named(serve: Callable[..., Served], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    place = tmp_path / "file" / "data"
    served = serve("--port", "0", ROWLOCK_DATA_DIR=str(place))
    assert_one_line(served, rf"Cannot use the data directory {place}: .*ROWLOCK_DATA_DIR.*")


def test_a_database_that_cannot_be_reached_is_said(serve: Callable[..., Served]) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # taken, but nobody listens
        url = f"postgresql://rowlock:secret@127.0.0.1:{closed.getsockname()[1]}/rowlock"
        served = serve("--port", "0", ROWLOCK_DATABASE_URL=url)
        assert_one_line(served, r"Cannot use the database: .*Check ROWLOCK_DATABASE_URL.*")
    assert "secret" not in served.complained


def test_all_wrong_settings_are_named_at_once(serve: Callable[..., Served], data_dir: Path) -> None:
    served = serve(ROWLOCK_PORT="abc", ROWLOCK_WORKERS="0", ROWLOCK_DATA_DIR=str(data_dir))
    assert_one_line(served, r"Wrong settings\. ROWLOCK_PORT: .*; ROWLOCK_WORKERS: .*")
    assert not data_dir.exists()


def assert_one_line(served: Served, pattern: str) -> None:
    complaint = served.wait()
    assert re.fullmatch(rf"rowlock: {pattern}\n", complaint), complaint
    assert served.process.returncode == 1
    assert served.said == ""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="it looks for processes in /proc")
def test_two_workers_share_the_port_count_together_and_replace_each_other(
    serve: Callable[..., Served], data_dir: Path, tmp_path: Path
) -> None:
    served = serve("--port", "0", ROWLOCK_DATA_DIR=str(data_dir), ROWLOCK_WORKERS="2", TMPDIR=str(tmp_path))
    url = served.url()
    made = an_event(url)
    until(lambda: asked_at_once(url, 4) and len(measured_by(tmp_path, "counter")) == 2)
    counted = health_checks(url)
    assert asked_at_once(url, 50)
    assert health_checks(url) == counted + 50

    before = served.workers()
    assert len(before) == 2
    victim = min(before)
    os.kill(victim, signal.SIGKILL)
    until(lambda: len(served.workers() - {victim}) == 2)
    for _ in range(20):
        assert get(url + made["link"]).status_code == 200
    # What the dead one counted stays; of what it had open and waiting nothing is left.
    assert health_checks(url) == counted + 50
    assert victim in measured_by(tmp_path, "counter")
    assert victim not in measured_by(tmp_path, "gauge")
    served.end()
    assert served.process.returncode == 0
    assert using(data_dir) == []
    assert list(tmp_path.glob("rowlock-metrics-*")) == []


def health_checks(url: str) -> float:
    """Return how many health checks all workers together say that they have answered."""
    lines = get(f"{url}/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(_HEALTH_CHECKS))


def asked_at_once(url: str, number: int) -> bool:
    """Ask for the health over so many connections at once, so that both workers get some."""
    with ThreadPoolExecutor(number) as threads:
        return all(threads.map(lambda _: get(f"{url}/healthz").status_code == 200, range(number)))


def measured_by(folder: Path, kind: str) -> set[int]:
    """Return the processes whose measurements of a kind are kept."""
    return {int(file.stem.split("_")[-1]) for file in folder.glob(f"rowlock-metrics-*/{kind}*.db")}
