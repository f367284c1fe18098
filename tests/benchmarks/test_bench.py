"""The benchmark measures nothing here: it only has to run through, and to be a fair judge of answers."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.goals import Goal, goals_of
from benchmarks.measuring import Measurement
from benchmarks.picture import draw
from benchmarks.plan import ALONE, GROUPED, HOT, NOOP, PLAIN, SOLD_OUT, TITLES, Cell, Plan
from benchmarks.requests import registrations
from benchmarks.results import Results
from rowlock.cli.load import LoadResult

if TYPE_CHECKING:
    from collections.abc import Sequence

CHECKOUT = Path(__file__).parents[2]
RUN_SECONDS = 180
CELLS = {
    ("hot", 1): 201,
    ("hot", 16): 201,
    ("hot", 64): 201,
    ("hot", 256): 201,
    ("one-process", 64): 201,
    ("existing", 64): 201,
    ("events", 64): 201,
    ("sold-out", 64): 409,
}
MACHINE = {"processor": "A processor", "cores": 2, "python": "3.11", "fsync_ms": 1.0}
SVG = "{http://www.w3.org/2000/svg}"


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=RUN_SECONDS,
        check=False,
    )


def load(
    rate: float = 100, *, p50: float = 1, p99: float = 2, errors: int = 0, **statuses: int
) -> LoadResult:
    counted = {int(name.strip("_")): count for name, count in statuses.items()}
    return LoadResult(100, 1, rate, p50, p99, p99, p99, counted, errors, 0.1)


def measurement(cell: Cell, target: str, of: LoadResult, repeat: int = 1) -> Measurement:
    return Measurement(cell, target, repeat, of, 100, 50, 10, 0.1, 0.0)


def results(measurements: Sequence[Measurement], plan: Plan) -> Results:
    return Results(plan, MACHINE, list(measurements))


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    folder = tmp_path_factory.mktemp("bench")
    few = "--workers 2 --repeats 1 --seconds 20 --requests 40 --existing 60 --events 5 --rounds 1"
    return bench(*few.split(), "--output", str(folder)), folder


def test_a_run_measures_every_cell_with_right_answers_only(
    smoke: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    ran, folder = smoke
    assert ran.returncode == 0, ran.stdout + ran.stderr
    document: dict[str, Any] = json.loads((folder / "latest.json").read_text())
    answered = {
        (it["median"]["cell"]["workload"], it["median"]["cell"]["connections"], it["median"]["target"]): [
            (each["load"]["statuses"], each["load"]["errors"]) for each in it["repeats"]
        ]
        for it in document["cells"]
    }
    wanted = {
        (workload, connections, target): [({str(status): 40}, 0)]
        for (workload, connections), status in CELLS.items()
        for target in (NOOP, GROUPED, PLAIN)
        if target != NOOP or workload in {HOT, ALONE}
    }
    assert answered == wanted
    assert document["plan"]["workers"] == 2
    assert document["verified"] == {
        GROUPED: True,
        PLAIN: True,
        f"{GROUPED}, one process": True,
        f"{PLAIN}, one process": True,
    }
    assert document["faults"] == []
    assert len(document["race"]["rounds_ms"]) == 1
    assert all(
        goal["reached"] in {True, False} for goal in document["goals"] if "memory" not in goal["sentence"]
    )


def test_a_run_prints_a_table_and_draws_a_picture(
    smoke: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    ran, folder = smoke
    for words in (
        "every design served by 2 server processes",
        "one event, 256",
        "one process, 64",
        "60 there, 64",
        "5 events, 64",
        "sold out, 64",
        "every recount holds",
        "goal",
    ):
        assert words in ran.stdout
    assert "\x1b" not in ran.stdout
    picture = ET.parse(folder / "latest.svg").getroot()  # noqa: S314 - written by ourselves
    assert picture.findtext(f"{SVG}title") == "Rowlock: group commit against the plain design"
    assert "256 connections, group commit" in (picture.findtext(f"{SVG}desc") or "")


def test_a_cell_that_does_not_exist_is_refused_before_anything_starts(tmp_path: Path) -> None:
    ran = bench("--only", "cold@7", "--output", str(tmp_path))
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith("rowlock: --only cold@7: there is no such cell.")


# The judge


@pytest.mark.parametrize(
    ("workload", "of", "fault"),
    [
        (HOT, load(_201=99, _503=1), "1 answers were 503 instead of 201"),
        (SOLD_OUT, load(_409=99, _201=1), "1 answers were 201 instead of 409"),
        (HOT, load(_201=99, errors=1), "1 requests got no answer"),
        (HOT, load(), "not one answer"),
    ],
)
def test_a_wrong_or_missing_answer_is_a_fault(workload: str, of: LoadResult, fault: str) -> None:
    (found,) = measurement(Cell(workload, 64), GROUPED, of).faults()
    assert found == f"{workload}@64, {GROUPED}, repeat 1: {fault}"


def test_right_answers_have_no_fault() -> None:
    assert measurement(Cell(HOT, 64), NOOP, load(_201=9)).faults() == []
    assert measurement(Cell(SOLD_OUT, 64), PLAIN, load(_409=9)).faults() == []


def test_ratios_are_medians_of_each_repeats_own_ratio() -> None:
    hot = Cell(HOT, 64)
    rates = {GROUPED: (600, 500, 1000), PLAIN: (100, 50, 500), NOOP: (1000, 1000, 1000)}
    found = [
        measurement(hot, target, load(rate), repeat)
        for target, row in rates.items()
        for repeat, rate in enumerate(row, 1)
    ]
    times, share, *others = goals_of(results(found, Plan(workers=1, only=("hot@64",))))
    assert (times.measured, times.reached) == (6, True)
    assert (share.measured, share.reached) == (0.6, True)
    assert {goal.reached for goal in others} == {None}


def test_one_process_is_judged_beside_all_and_by_its_own_figures() -> None:
    rates = {
        Cell(HOT, 64): {GROUPED: 600, PLAIN: 100, NOOP: 1000},
        Cell(ALONE, 64): {GROUPED: 200, PLAIN: 100, NOOP: 1000},
    }
    found = [
        measurement(cell, target, load(rate)) for cell, row in rates.items() for target, rate in row.items()
    ]
    goals = goals_of(results(found, Plan(workers=2)))
    assert [(goal.measured, goal.reached) for goal in goals[:4]] == [
        (6, True),
        (0.6, True),
        (2, False),
        (0.2, False),
    ]
    assert ["one process" in goal.sentence for goal in goals[:4]] == [False, False, True, True]


def test_waiting_is_compared_at_256_connections() -> None:
    crowd = Cell(HOT, 256)
    found = [
        measurement(crowd, GROUPED, load(p50=10, p99=30)),
        measurement(crowd, PLAIN, load(p50=20, p99=90)),
    ]
    goal = goals_of(results(found, Plan(workers=1, only=("hot@256",))))[2]
    assert (goal.measured, goal.reached) == (1.5, False)


def test_a_goal_is_reached_at_its_very_value() -> None:
    least, most = Goal("", 5, 5, is_least=True, unit=""), Goal("", 5, 5, is_least=False, unit="")
    assert (least.reached, most.reached) == (True, True)
    assert replace(least, measured=4.9).reached is False
    assert replace(most, measured=5.1).reached is False


# Plans, requests, pictures


def test_a_plan_leaves_out_what_is_not_asked_for() -> None:
    assert [cell.name for cell in Plan(only=("hot@64", "sold-out")).cells] == ["hot@64", "sold-out@64"]
    assert list(Plan(only=("sold-out",)).stands) == [GROUPED, PLAIN]
    assert (Plan(only=("race",)).cells, Plan(only=("race",)).races, Plan(only=("hot",)).races) == (
        [],
        True,
        False,
    )
    assert Plan(only=("hot", "hot@64", "race", "ho", "hot@65")).unknown == ["ho", "hot@65"]


def test_every_target_has_all_processes_and_beside_them_one() -> None:
    assert Plan(workers=3, only=("hot", "one-process")).stands == {
        NOOP: (NOOP, 3),
        GROUPED: (GROUPED, 3),
        PLAIN: (PLAIN, 3),
        f"{NOOP}, one process": (NOOP, 1),
        f"{GROUPED}, one process": (GROUPED, 1),
        f"{PLAIN}, one process": (PLAIN, 1),
    }
    assert Plan(workers=1, only=("one-process",)).unknown == ["one-process"]


def test_each_request_is_for_another_person_and_all_are_of_one_length() -> None:
    make = registrations("127.0.0.1:1", "/path", ["a", "b"], "guest")
    made = [make(number) for number in (0, 1, 123_456)]
    assert len({len(raw) for raw in made}) == 1
    for raw, number in zip(made, ("0000000", "0000001", "0123456"), strict=True):
        head, _, body = raw.partition(b"\r\n\r\n")
        assert f"content-length: {len(body)}".encode() in head
        wanted = {"name": f"Guest {number}", "email": f"guest-{number}@example.org"}
        assert {**json.loads(body), "event_id": ""} == {"event_id": "", **wanted}
    assert {json.loads(make(number).partition(b"\r\n\r\n")[2])["event_id"] for number in range(50)} == {
        "a",
        "b",
    }


@pytest.mark.parametrize("only", [("race",), ("hot@1",), ("sold-out",), ()])
def test_a_picture_is_drawn_of_whatever_was_measured(only: tuple[str, ...]) -> None:
    plan = Plan(only=only)
    found = [
        measurement(cell, target, load(10 * cell.connections, p99=0.5 * cell.connections))
        for cell in plan.cells
        for target in cell.targets
    ]
    drawn = draw(results(found, plan), "2026-01-02T03:04:05+00:00")
    words = " ".join(ET.fromstring(drawn).itertext())  # noqa: S314 - written by ourselves
    assert ("not measured" in words) == bool(only)
    assert all(title in words for title in TITLES.values() if not only)
