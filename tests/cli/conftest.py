"""What the tests of the commands share: a PostgreSQL that writes to disk before it says yes, and a way to run them."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Protocol

import pytest

from rowlock.kernel.postgres import running

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMAND_SECONDS = 120


class Rowlock(Protocol):
    """Runs `rowlock` with these arguments and environment variables in a process of its own."""

    def __call__(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture(scope="session")
def durable_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give a server as `rowlock serve` starts it: `verify` finds fault with one that could lose a commit."""
    with running(tmp_path_factory.mktemp("durable")) as server:
        yield server.url()


@pytest.fixture(scope="session")
def rowlock(durable_url: str) -> Rowlock:
    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "rowlock", *arguments],
            env={**os.environ, "ROWLOCK_DATABASE_URL": durable_url, **environment},
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=COMMAND_SECONDS,
            check=False,
        )

    return run
