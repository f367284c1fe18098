"""What a command shows: colours and a moving picture on a terminal, plain lines everywhere else."""

from __future__ import annotations

import os
import shutil
import sys
from itertools import groupby
from typing import TYPE_CHECKING, Self

from rich.console import Console, Group
from rich.live import Live
from rich.rule import Rule
from rich.text import Text

from rowlock.cli.racing import CONFIRMED, EVENT_FULL, Tally

if TYPE_CHECKING:
    from rich.console import OverflowMethod, RenderableType

    from rowlock.cli.racing import Round

WIDTH_MAX = 100
PICTURES_A_SECOND = 20
BAR = 60


class Screen:
    """Standard output, as wide as the terminal, but at most 100 columns."""

    def __init__(self) -> None:
        """Look at standard output once: a terminal or not, UTF-8 or not."""
        self.is_terminal = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self.console = Console(
            # Said, not found out: FORCE_COLOR and its like would put control characters into a pipe.
            force_terminal=self.is_terminal,
            color_system="auto" if self.is_terminal else None,
            width=min(WIDTH_MAX, shutil.get_terminal_size((WIDTH_MAX, 24)).columns),
            legacy_windows=False,
            highlight=False,
            markup=False,
            emoji=False,
        )
        is_unicode = "utf" in self.console.encoding
        self.taken, self.free, self.refused, self._line = "■□·─" if is_unicode else "#.--"
        self.dots = "…" if is_unicode else "..."
        self.overflow: OverflowMethod = "ellipsis" if is_unicode else "crop"

    def say(self, text: RenderableType = "", style: str = "") -> None:
        """Print text, with nothing that this output cannot show."""
        if isinstance(text, str):
            text = self.plain(text)
        self.console.print(text, style=style or None)

    def rule(self, title: str = "") -> None:
        """Draw a line over the whole width."""
        self.console.print(
            Rule(Text(self.plain(title), "bold"), characters=self._line, align="left", style="cyan")
        )

    def plain(self, text: str) -> str:
        """Replace what the output's encoding cannot show."""
        encoding = self.console.encoding
        return text.replace("…", self.dots).encode(encoding, "replace").decode(encoding)

    def seats(self, left: int, total: int) -> Text:
        """Draw seats: taken ones and free ones."""
        length = min(total, BAR)
        # A bar that is too short for all seats must still show the last free one.
        free = -(-left * length // total) if total else 0
        return Text.assemble(
            (self.taken * (length - free), "cyan"), (self.free * free, "dim"), f" {left} left"
        )

    def race(self, tally: Tally) -> Group:
        """Draw a race as it stands: each buyer (if there are few), the seats, and the numbers."""
        confirmed, full = tally.count(CONFIRMED), tally.count(EVENT_FULL)
        numbers = Text.assemble(
            ("confirmed ", ""), (f"{confirmed}", "bold green"), ("   Event full ", ""), (f"{full}", "bold yellow"),
            ("   other ", ""), (f"{tally.others}", "bold red" if tally.others else ""),
            ("   waiting ", ""), f"{tally.outcomes.count(None)}",
            ("   last answer after ", ""), (f"{tally.milliseconds:.1f} ms", "bold"),
        )  # fmt: skip
        lines = [_labelled("seats", self.seats(max(tally.seats - confirmed, 0), tally.seats)), numbers]
        if tally.buyers <= BAR:
            lines.insert(0, _labelled("buyers", self._buyers(tally)))
        return Group(*lines)

    def _buyers(self, tally: Tally) -> Text:
        signs = {CONFIRMED: (self.taken, "green"), EVENT_FULL: (self.refused, "yellow"), None: (" ", "")}
        key = f"  {self.taken} a seat  {self.refused} full"
        drawn = (
            (len(list(group)), signs.get(it, ("!", "bold red"))) for it, group in groupby(tally.outcomes)
        )
        return Text.assemble(*((sign * count, style) for count, (sign, style) in drawn), (key, "dim"))


class Quiet:
    """Shows nothing of the races."""

    def __enter__(self) -> Self:
        """Begin to show."""
        return self

    def __exit__(self, *_: object) -> None:
        """Show no more."""

    def begin(self, number: int, rounds: int, tally: Tally) -> None:
        """Take note that a race begins, which `tally` will follow."""

    def end(self, number: int, it: Round) -> None:
        """Take note of how it ended."""


class Lines(Quiet):
    """Shows a line for each race once it is over."""

    def __init__(self, screen: Screen) -> None:
        """Take where to show."""
        self._screen = screen

    def end(self, number: int, it: Round) -> None:
        """Print the race's line."""
        self._screen.say(
            f"Round {number}: {it.confirmed} confirmed, {it.full} Event full, {sum(it.others.values())} other;"
            f" last answer after {it.last_answer_ms:.1f} ms; {it.available} seats left."
        )


class Moving(Quiet):
    """Shows the race that runs, on a terminal; the last picture of the last race stays."""

    def __init__(self, screen: Screen) -> None:
        """Take where to show."""
        self._screen = screen
        self._title = ""
        self._tally: Tally | None = None
        self._live = Live(
            get_renderable=self._picture, console=screen.console, refresh_per_second=PICTURES_A_SECOND
        )

    def __enter__(self) -> Self:
        """Begin to draw."""
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the last picture."""
        self._live.stop()

    def begin(self, number: int, rounds: int, tally: Tally) -> None:
        """Draw this race from now on."""
        self._title = f"Round {number} of {rounds}" if rounds > 1 else ""
        self._tally = tally

    def _picture(self) -> RenderableType:
        if self._tally is None:
            return Text(self._screen.plain("Starting the servers …"), "dim")
        race = self._screen.race(self._tally)
        return Group(Text(self._title, "bold"), race) if self._title else race


def _labelled(name: str, text: Text) -> Text:
    return Text.assemble(f"{name:8}", text)
