"""How the demo shows things: acts under rules, requests with their answers, and a claim for each that is checked."""

from __future__ import annotations

import asyncio
import re
from http import HTTPStatus
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from rowlock.cli.organizer import PROBLEM_STATUS_MIN, members, said
from rowlock.cli.setting_up import Stop

if TYPE_CHECKING:
    from rowlock.cli.client import Answer, Call
    from rowlock.cli.screen import Screen

# So that a request with a name fits beside them on a terminal of 80 columns.
ANSWER_COLUMNS = 22
SEATS_COLUMNS = 17
_ID = re.compile(r"([0-9a-f]{8})-[0-9a-f-]{27}")
_SECRET = re.compile(r"secret=[^&]+")
_CLAUSE = re.compile(r" (?=(?:FROM|WHERE|ORDER BY|SET|INSERT INTO|SELECT)\b)")
_BOLD = ("SELECT", "FROM", "WHERE", "ORDER BY", "WITH", "UPDATE", "SET", "INSERT INTO")
CLAUSES_MAX = 5


class Stage:
    """Where the story is played; it stops with exit code 1 at the first answer that is not as claimed."""

    def __init__(self, screen: Screen, pause_seconds: float) -> None:
        """Take where to show, and how long to wait between the acts."""
        self.screen = screen
        self._pause_seconds = pause_seconds

    async def begin(self, number: int, title: str) -> None:
        """Begin an act."""
        if number > 1:
            await asyncio.sleep(self._pause_seconds)
        self.say()
        self.screen.rule(f"{number}  {title}")

    def end(self) -> None:
        """End the last act."""
        self.say()
        self.screen.rule()

    def say(self, text: str = "", style: str = "") -> None:
        """Say a sentence."""
        self.screen.say(text, style)

    def claim(self, holds: bool, sentence: str) -> None:  # noqa: FBT001 - as an assertion takes it
        """Go on only if what the story claims is so.

        Raises:
            Stop: it is not.

        """
        if not holds:
            raise Stop(f"The running system differs from the story, which claims: {sentence}")

    def exchange(
        self, call: Call, answer: Answer, *, who: str = "", seats: tuple[int, int] | None = None
    ) -> None:
        """Show a request, its answer, and the seats that the API says are left afterwards."""
        is_refused = answer.status >= PROBLEM_STATUS_MIN
        request = Text.assemble(
            (call.method, "bold"), " ", self._short(call.path), (f" {who}" if who else "", "cyan")
        )
        phrase = said(answer) if is_refused else f"{answer.status} {HTTPStatus(answer.status).phrase}"
        row = Table.grid(expand=True, padding=(0, 1))
        row.add_column(ratio=1, no_wrap=True, overflow=self.screen.overflow)
        row.add_column(width=ANSWER_COLUMNS, no_wrap=True)
        row.add_column(width=SEATS_COLUMNS, no_wrap=True)
        left = self.screen.seats(*seats) if seats else Text("")
        row.add_row(request, Text(phrase, "yellow" if is_refused else "green"), left)
        self.screen.say(row)
        if is_refused:
            self.say(f'     "{members(answer).get("title", "")}"', "dim")

    def statement(self, sql: str, milliseconds: float) -> None:
        """Show an SQL statement, a clause a line, none wider than the screen."""
        clauses = _CLAUSE.split(sql)
        width = self.screen.console.width - 6
        for number, clause in enumerate(clauses[:CLAUSES_MAX]):
            text = Text(("   " if number else "") + self.screen.plain(clause))
            text.truncate(width, overflow=self.screen.overflow)
            text.highlight_words(["FOR UPDATE"], "bold black on yellow")
            text.highlight_words(_BOLD, "bold")
            self.screen.say(Text.assemble("  ", text))
        more = "  …" if len(clauses) > CLAUSES_MAX else ""
        self.say(f"{more}  ({milliseconds:.2f} ms)", "dim")

    def _short(self, path: str) -> str:
        """Shorten ids, and leave secrets out."""
        return self.screen.plain(_SECRET.sub("secret=…", _ID.sub(r"\1…", path)))
