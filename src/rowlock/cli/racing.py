"""The race: more buyers than seats, all at once, over real HTTP; and the judgement of what came of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING

from rowlock.cli.client import Answer, Call, race
from rowlock.cli.organizer import members
from rowlock.cli.setting_up import Stop

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rowlock.cli.organizer import Organizer
    from rowlock.reports.model import Verification

CONFIRMED = "confirmed"
EVENT_FULL = "Event full"
OTHER_FILES = 200  # what a process has open beside its connections to buyers


@dataclass(slots=True)
class Tally:
    """The outcomes of a race as they come in, each buyer's in its place; None is still to come."""

    buyers: int
    seats: int
    outcomes: list[str | None] = field(init=False)
    started: float = 0.0
    ended: float = 0.0

    def __post_init__(self) -> None:
        """Begin with nobody's outcome."""
        self.outcomes = [None] * self.buyers

    def start(self) -> None:
        """Note that all connections are open, and the requests go out."""
        self.started = self.ended = perf_counter()

    def note(self, buyer: int, answer: Answer | Exception) -> None:
        """Note one buyer's answer."""
        self.ended = perf_counter()
        self.outcomes[buyer] = outcome_of(answer)

    @property
    def milliseconds(self) -> float:
        """From the release of the first request to the last answer so far."""
        return (self.ended - self.started) * 1000

    def count(self, outcome: str) -> int:
        """Count the buyers with this outcome so far."""
        return self.outcomes.count(outcome)

    @property
    def others(self) -> int:
        """Count the buyers that got any other answer than the two that are right."""
        return self.buyers - self.count(CONFIRMED) - self.count(EVENT_FULL) - self.outcomes.count(None)


@dataclass(frozen=True, slots=True)
class Round:
    """One race, and what the API says of its event afterwards. `last_answer_ms` runs from the release of all."""

    event_id: str
    seats: int
    outcomes: dict[str, int]
    confirmed_ids: frozenset[str]
    listed_ids: frozenset[str]
    available: int
    last_answer_ms: float

    @property
    def buyers(self) -> int:
        """How many raced."""
        return sum(self.outcomes.values())

    @property
    def confirmed(self) -> int:
        """How many were told that they have a seat."""
        return self.outcomes.get(CONFIRMED, 0)

    @property
    def full(self) -> int:
        """How many were told that the event is full."""
        return self.outcomes.get(EVENT_FULL, 0)

    @property
    def others(self) -> dict[str, int]:
        """Count every other answer, by what it was."""
        return {name: count for name, count in self.outcomes.items() if name not in {CONFIRMED, EVENT_FULL}}

    def faults(self) -> list[str]:
        """Say what is wrong, a sentence each: neither a seat too many nor one too few, and nobody left in doubt."""
        expected = min(self.seats, self.buyers)
        unlisted, unknown = self.confirmed_ids - self.listed_ids, self.listed_ids - self.confirmed_ids
        found = [
            (self.confirmed != expected, f"{self.confirmed} were confirmed, {expected} should have been"),
            (
                len(self.confirmed_ids) != self.confirmed,
                f"{self.confirmed} were confirmed with only {len(self.confirmed_ids)} different ids",
            ),
            (
                self.available != self.seats - self.confirmed,
                f"{self.available} seats are left of {self.seats}",
            ),
            (bool(unlisted), f"{len(unlisted)} confirmed registrations are not in the API's list"),
            (bool(unknown), f"{len(unknown)} registrations in the API's list were confirmed to nobody"),
            *((True, f"{count} got {name}") for name, count in self.others.items()),
        ]
        return [sentence for is_wrong, sentence in found if is_wrong]


@dataclass(frozen=True, slots=True)
class Report:
    """All rounds, and the recount over the database; None if it could not be run, the API's word being all there is."""

    rounds: Sequence[Round]
    verification: Verification | None

    @property
    def holds(self) -> bool:
        """Tell whether every seat went to exactly one buyer, in every round."""
        return bool(self.rounds) and not self.faults()

    @property
    def median_ms(self) -> float:
        """The median over the rounds of the time to the last answer."""
        return median(it.last_answer_ms for it in self.rounds)

    def faults(self) -> list[str]:
        """Say what is wrong, a sentence each."""
        of_rounds = [
            f"round {number}: {fault}" for number, it in enumerate(self.rounds, 1) for fault in it.faults()
        ]
        findings = self.verification.findings if self.verification else []
        return of_rounds + [f"verify does not find: {it.check.sentence}" for it in findings if not it.holds]


def outcome_of(answer: Answer | Exception) -> str:
    """Name what a buyer was told; only a real confirmation and a real "Event full" are called so."""
    if isinstance(answer, Exception):
        return f"no answer ({type(answer).__name__})"
    body = members(answer)
    if answer.status == 201 and body.get("status") == CONFIRMED:  # noqa: PLR2004 - Created
        return CONFIRMED
    if (answer.status, body.get("code"), body.get("title")) == (409, "sold_out", EVENT_FULL):
        return EVENT_FULL
    return f"{answer.status} {body.get('code', '')}".strip()


async def run_round(base_urls: Sequence[str], organizer: Organizer, title: str, tally: Tally) -> Round:
    """Publish an event, let all buyers register at once, spread over the servers, and ask the API what came of it.

    Raises:
        Stop: the organizer's own requests were not answered as they should be.

    """
    event = await organizer.publish(title, tally.seats)
    calls = [_registration(event["id"], buyer) for buyer in range(1, tally.buyers + 1)]
    answers = await race(base_urls, calls, on_start=tally.start, on_answer=tally.note)
    confirmed = [it for it in answers if isinstance(it, Answer) and outcome_of(it) == CONFIRMED]
    return Round(
        event_id=event["id"],
        seats=tally.seats,
        outcomes=dict(Counter(map(outcome_of, answers))),
        confirmed_ids=frozenset(it.json()["id"] for it in confirmed),
        listed_ids=await organizer.confirmed_ids(event["id"]),
        available=await organizer.available(event["id"]),
        last_answer_ms=tally.milliseconds,
    )


def allow_open_files(connections: int) -> None:
    """Raise the limit of open files so that this many connections fit; servers started later inherit it.

    Raises:
        Stop: the operating system does not allow it.

    """
    try:
        import resource  # noqa: PLC0415 - there is none on Windows
    except ImportError:
        return
    needed = connections + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    except (ValueError, OSError):
        raise Stop(
            f"{connections} buyers need {needed} open files, and at most {hard} are allowed here."
            f" Take at most {hard - OTHER_FILES} buyers, or raise the limit: ulimit -Hn {needed}."
        ) from None


def _registration(event_id: str, buyer: int) -> Call:
    body = {"event_id": event_id, "name": f"Buyer {buyer}", "email": f"buyer-{buyer}@example.org"}
    return Call("POST", "/api/v1/registrations", body)
