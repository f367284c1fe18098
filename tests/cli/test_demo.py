"""The demo tells its story in a pipe, and stops where the system does not do as told."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from rowlock.cli import app
from rowlock.cli.screen import Screen
from rowlock.cli.setting_up import Stop
from rowlock.cli.stage import Stage
from rowlock.cli.story import statements

if TYPE_CHECKING:
    from collections.abc import Callable
    from subprocess import CompletedProcess

    Rowlock = Callable[..., CompletedProcess[str]]


def test_the_demo_tells_the_whole_story_in_a_pipe(rowlock: Rowlock) -> None:
    done = rowlock("demo", FORCE_COLOR="1", TERM="xterm", COLUMNS="300")
    assert (done.returncode, done.stderr) == (0, "")
    for line in (
        "9 left",
        "8 left",
        "7 left",
        "409 already_registered",
        "ORDER BY event_id, id FOR UPDATE",
        "UPDATE capacity_pool",
        "confirmed 10   Event full 40   other 0   waiting 0",
        "seats equal tickets",
        "make serve",
    ):
        assert line in done.stdout
    assert "WRONG" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert set(map(ord, done.stdout)).isdisjoint({*range(32), 127} - {ord("\n")})


def test_the_demo_keeps_to_ascii_where_the_encoding_does(rowlock: Rowlock) -> None:
    done = rowlock("demo", PYTHONIOENCODING="ascii", COLUMNS="80")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii()
    assert "FOR UPDATE" in done.stdout


def test_a_claim_that_does_not_hold_stops_the_story() -> None:
    stage = Stage(Screen(), 0.0)
    stage.claim(holds=True, sentence="seats are free")
    with pytest.raises(Stop, match="seats are free"):
        stage.claim(holds=False, sentence="seats are free")


def test_statements_are_picked_out_of_a_log() -> None:
    lines = [
        "PostgreSQL is not JSON",
        json.dumps({"event": "COMMIT", "values": [], "ms": 0.5, "level": "info"}),
        json.dumps({"event": "answered", "ms": 1.0}),
        json.dumps([1]),
    ]
    assert statements(lines) == [("COMMIT", 0.5)]


@pytest.mark.parametrize("pause", ["-1", "61"])
def test_a_pause_out_of_range_is_refused(pause: str) -> None:
    done = CliRunner().invoke(app, ["demo", "--pause", pause])
    assert done.exit_code == 2
    assert "--pause" in done.stderr
