"""The documentation is true: its links lead somewhere, its commands run, what is made from the code is up to date."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pytest
import typer

from docs import generate
from rowlock.app import create_app
from rowlock.cli import app as commands
from rowlock.cli.servers import servers
from rowlock.kernel.postgres import running
from rowlock.kernel.scratch import scratch_database
from rowlock.kernel.settings import Settings
from rowlock.reports.repository import CHECKS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from rowlock.kernel.postgres import Postgres

ROOT = Path(__file__).parent.parent
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
REFERENCE = ROOT / "docs" / "reference"
WALK_SECONDS = 120

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"^## rowlock (\w+)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_COMMANDS = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def read(page: str) -> str:
    return (ROOT / page).read_text()


def anchors(text: str) -> set[str]:
    """Return what headings are linked by: lower case, spaces as hyphens, other punctuation gone, as GitHub does it."""
    headings = _HEADING.findall(_FENCE.sub("", text))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    dead = []
    for target in _LINK.findall(_FENCE.sub("", read(page))):
        place, _, anchor = unquote(target).partition("#")
        if re.match(r"[a-z]+:", place):
            continue
        file = (ROOT / page).parent / place if place else ROOT / page
        if not file.exists() or (anchor and anchor not in anchors(file.read_text())):
            dead.append(target)
    assert dead == []


def test_every_page_is_reached_from_the_index() -> None:
    docs = ROOT / "docs"
    linked = {(docs / target.partition("#")[0]).resolve() for target in _LINK.findall(read("docs/index.md"))}
    pages = {
        page for page in docs.glob("**/*.md") if page != docs / "index.md" and "benchmarks" not in page.parts
    }
    assert pages <= linked


@pytest.mark.parametrize("page", sorted(path.name for path in generate.pages()))
def test_what_is_made_from_the_code_is_up_to_date(page: str) -> None:
    path = REFERENCE / page
    assert path.read_text() == generate.pages()[path], "run `make docs`"


def test_the_api_page_names_every_route() -> None:
    page = read("docs/reference/api.md")
    document = create_app(Settings(database_url="postgresql://unused")).openapi()
    routes = {
        f"`{method.upper()} {path.removeprefix('/api/v1')}`"
        for path, operations in document["paths"].items()
        for method in operations
    }
    named = set(re.findall(r"`(?:GET|POST|PATCH|DELETE) /\S+`", page))
    places = ("/openapi.json", "/docs", "/problems/{code}", "/healthz", "/readyz", "/metrics")
    others = {f"`GET {place}`" for place in places}
    assert named == routes | others


def test_the_command_line_page_names_every_command_and_option() -> None:
    sections = dict(_COMMAND.findall(read("docs/reference/cli.md")))
    group = typer.main.get_command(commands)
    options = {
        name: {option for parameter in command.params for option in parameter.opts}
        for name, command in vars(group)["commands"].items()
    }
    named = {name: set(re.findall(r"^\| `(--[\w-]+)", text, re.MULTILINE)) for name, text in sections.items()}
    assert named == options


def test_the_ledger_page_names_every_check() -> None:
    page = read("docs/reference/ledger-and-verify.md")
    missing = [check.name for check in CHECKS if f"| `{check.name}` | {check.sentence} |" not in page]
    assert missing == []


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", read("Makefile"), re.MULTILINE))
    for page in PAGES:
        named = re.findall(r"(?:^|[`;&] ?|[A-Z]+=\S+ )make ([a-z]+)\b", read(page), re.MULTILINE)
        assert set(named) <= targets, page


def test_the_changelog_has_a_place_for_what_is_new() -> None:
    assert "\n## [Unreleased]\n" in read("CHANGELOG.md")


@pytest.fixture(scope="module")
def durable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """Run a PostgreSQL that writes to disk before it says yes, or the race's own recount would rightly complain."""
    with running(tmp_path_factory.mktemp("docs"), settings={"shared_buffers": "32MB"}) as server:
        yield server


# Rowlock itself needs neither, so that a machine without them can still run all other tests.
needs_curl = pytest.mark.skipif(
    not (shutil.which("curl") and shutil.which("bash")), reason="needs curl and bash"
)


@asynccontextmanager
async def walking(postgres: Postgres) -> AsyncIterator[tuple[str, dict[str, str]]]:
    """Run a server over an empty database; yield its host and port, and the environment to run commands in."""
    async with scratch_database(postgres.url()) as url:
        with servers(url, 1) as (server,):
            yield server.url.removeprefix("http://"), {"ROWLOCK_DATABASE_URL": url, "PATH": _path()}


@needs_curl
async def test_the_walk_of_the_readme_runs(durable: Postgres) -> None:
    walk = read("README.md").partition("\n## A walk\n")[2].partition("\n## ")[0]
    async with walking(durable) as (host, environment):
        said = run(walk, host, environment)
    assert statuses(said) == [201, 409, 201, 200, 200]
    assert re.findall(r"^\d+$", said, re.MULTILINE) == ["10", "9", "8", "9"]
    assert "OK: exactly 10 of 50 buyers got a seat" in said


@needs_curl
async def test_the_tutorial_runs(durable: Postgres) -> None:
    async with walking(durable) as (host, environment):
        said = run(read("docs/tutorial/first-event.md"), host, environment)
    assert statuses(said) == [201, 404, 200, 200, 201, 201, 409, 201, 409, 200, 200, 201, 409, 409]
    codes = re.findall(r'"code":"(\w+)"', said)
    assert codes == ["not_found", "already_registered", "sold_out", "below_committed", "not_on_sale"]
    assert re.findall(r"^\d+$", said, re.MULTILINE) == ["1", "2", "1"]
    assert len(re.findall(r"^HTTP/1.1 201", said, re.MULTILINE)) == 2
    assert said.lower().count("idempotency-replayed: true") == 1


def run(page: str, host: str, environment: dict[str, str]) -> str:
    """Paste a page's commands into bash, which reads them line by line, and return what was said."""
    pasted = "".join(_COMMANDS.findall(page)).replace("localhost:8080", host)
    pasted = pasted.replace("make simulate", f"'{sys.executable}' -m rowlock simulate </dev/null")
    bash = subprocess.run(
        ["bash", "-euo", "pipefail"],  # noqa: S607 - as people have it
        input=pasted,
        capture_output=True,
        text=True,
        env=environment,
        cwd=ROOT,
        timeout=WALK_SECONDS,
        check=False,
    )
    assert (bash.returncode, bash.stderr) == (0, ""), f"{bash.stdout}\n{bash.stderr}"
    return bash.stdout


def statuses(said: str) -> list[int]:
    return [int(status) for status in re.findall(r"} (\d{3})$", said, re.MULTILINE)]


def _path() -> str:
    """Return where bash finds curl and python3: anywhere, and this Python first."""
    return f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
