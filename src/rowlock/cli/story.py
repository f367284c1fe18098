"""The acts of the demo. Each shows real answers of the running system and claims something about them."""

from __future__ import annotations

import secrets
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from rowlock.cli.client import Call
from rowlock.cli.organizer import Organizer, answered, members, sign_up
from rowlock.cli.racing import Tally, run_round
from rowlock.cli.sandbox import recount
from rowlock.cli.screen import Moving, Quiet

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from rowlock.cli.client import Answer, Api
    from rowlock.cli.sandbox import Sandbox
    from rowlock.cli.stage import Stage

SEATS = 10
RACE_BUYERS = 50
PEOPLE = ("Ada Lovelace", "Grace Hopper", "Alan Turing")
REGISTRATIONS = "/api/v1/registrations"


class Statement(NamedTuple):
    """An SQL statement as a server logged it."""

    sql: str
    milliseconds: float


class Story:
    """What the acts hand on to one another."""

    organizer: Organizer
    event_id: str

    def __init__(self, stage: Stage, box: Sandbox, apis: list[Api]) -> None:
        """Begin with nobody and nothing."""
        self.stage = stage
        self.box = box
        self.apis = apis
        self.last: dict[str, Any] = {}
        self.log_begins = 0

    async def send(self, call: Call, *, who: str = "", server: int = 0) -> Answer:
        """Send a request, and show it with its answer and the seats left."""
        answer = await answered(self.apis[server], call)
        self.stage.exchange(call, answer, who=who, seats=(await self.left(), SEATS))
        return answer

    async def left(self) -> int:
        """Ask the API how many seats are left."""
        return await self.organizer.available(self.event_id)

    async def claim_left(self, seats: int) -> None:
        """Claim how many seats are left."""
        left = await self.left()
        self.stage.claim(left == seats, f"{seats} seats are left (the API says {left})")


async def opens(story: Story) -> None:
    """Sign up, and publish an event."""
    story.organizer = await sign_up(story.apis[0])
    event = await story.organizer.publish("An evening about row locks", SEATS)
    story.event_id = event["id"]
    title, status = event["title"], event["status"]
    story.stage.say(f'POST /api/v1/users, /api/v1/tokens, /api/v1/events: "{title}" is {status}.')
    story.stage.screen.say(story.stage.screen.seats(event["available"], event["capacity"]))
    story.stage.claim(event["available"] == event["capacity"] == SEATS, f"{SEATS} seats are free")


async def people_register(story: Story) -> None:
    """Register three people, and one of them once more."""
    for number, name in enumerate(PEOPLE, 1):
        story.log_begins = len(story.box.servers[0].log_lines)
        answer = await story.send(_registration(story.event_id, name), who=name)
        story.stage.claim(answer.status == HTTPStatus.CREATED, f"{name} gets a seat")
        await story.claim_left(SEATS - number)
        story.last = members(answer)
    again = await story.send(_registration(story.event_id, PEOPLE[0]), who=PEOPLE[0])
    is_refused = again.status == HTTPStatus.CONFLICT and members(again).get("code") == "already_registered"
    story.stage.claim(is_refused, "the same person is refused a second seat")
    await story.claim_left(SEATS - len(PEOPLE))


async def locks(story: Story) -> None:
    """Show the two statements of the last registration that the whole project is about."""
    story.stage.say(f"From the log of server {story.box.servers[0].pid} (rowlock serve --log-sql):", "dim")
    logged = statements(story.box.servers[0].log_lines[story.log_begins :])
    locking = _first(logged, lambda sql: "FROM capacity_pool" in sql and sql.endswith("FOR UPDATE"))
    saving = _first(logged[locking + 1 :], lambda sql: "capacity_pool SET" in sql) + locking + 1
    committing = _first(logged[saving + 1 :], lambda sql: sql == "COMMIT") + saving + 1
    in_order = -1 < locking < saving < committing < len(logged)
    story.stage.claim(in_order, "the seats are locked, then their counters written, then committed")
    for number in (locking, saving):
        story.stage.statement(*logged[number])
    story.stage.say(
        "Whoever comes at the same time waits at the first statement, and then sees what the second left."
    )


async def cancels(story: Story) -> None:
    """Cancel a registration twice."""
    left = await story.left()
    for who in ("", "again"):
        answer = await story.send(Call("DELETE", story.last["link"]), who=who)
        is_cancelled = answer.status == HTTPStatus.OK and members(answer).get("status") == "cancelled"
        story.stage.claim(is_cancelled, "the registration is cancelled")
        await story.claim_left(left + 1)


async def races(story: Story) -> None:
    """Let many people register for few seats at once."""
    tally = Tally(RACE_BUYERS, SEATS)
    screen = story.stage.screen
    with Moving(screen) if screen.is_terminal else Quiet() as show:
        show.begin(1, 1, tally)
        outcome = await run_round(story.box.base_urls, story.organizer, "Ten seats, fifty people", tally)
    if not screen.is_terminal:
        screen.say(screen.race(tally))
    faults = outcome.faults()
    right = f'exactly {SEATS} are confirmed and {RACE_BUYERS - SEATS} are told "Event full"'
    story.stage.claim(not faults, f"{right}; but {', '.join(faults)}")
    story.stage.say(
        f'Exactly {outcome.confirmed} confirmed, {outcome.full} times "Event full", nobody in doubt.'
    )


async def repeats(story: Story) -> None:
    """Send a request with an Idempotency-Key, and once more as if its answer had been lost."""
    left = await story.left()
    call = _registration(story.event_id, "Edsger Dijkstra", key=secrets.token_urlsafe(16))
    first = await story.send(call, who="with a key", server=0)
    second = await story.send(call, who="other server", server=1)
    story.stage.claim(first.status == second.status == HTTPStatus.CREATED, "both requests are answered 201")
    story.stage.claim(first.body == second.body, "both answers are the same, byte for byte")
    replayed = second.headers.get("idempotency-replayed")
    story.stage.claim(replayed == "true", "the second answer says that it is a repetition")
    await story.claim_left(left - 1)
    code = members(first).get("ticket_code")
    story.stage.say(
        f"Both {len(first.body)} bytes are the same, ticket {code} in them. One seat was taken, not two."
    )


async def verifies(story: Story) -> None:
    """Recount everything."""
    verification = await recount(story.box.database_url, story.event_id)
    for finding in verification.findings:
        story.stage.say(f"{'ok   ' if finding.holds else 'WRONG'} {finding.check.sentence}")
    counted = ", ".join(f"{number} {name}" for name, number in verification.counted.items())
    story.stage.claim(verification.holds, "every check holds")
    story.stage.say(f"rowlock verify: seats equal tickets. Counted {counted}.", "bold green")


ACTS: tuple[tuple[str, Callable[[Story], Awaitable[None]]], ...] = (
    ("An organizer opens an event with ten seats", opens),
    ("Three people register; one of them tries it again", people_register),
    ("What PostgreSQL was asked: first the lock, then the count", locks),
    ("A cancellation frees one seat; cancelling twice frees no second one", cancels),
    ("Fifty people want ten seats at the same instant, on two servers", races),
    ("An answer got lost: the same Idempotency-Key gets the same answer again", repeats),
    ("The proof: recount everything", verifies),
)


def statements(log_lines: list[str]) -> list[Statement]:
    """Pick the SQL statements out of a server's log."""
    found = []
    for line in log_lines:
        try:
            logged = msgspec.json.decode(line)
        except msgspec.DecodeError:
            continue
        if isinstance(logged, dict) and "values" in logged and "ms" in logged:
            found.append(Statement(str(logged["event"]), float(logged["ms"])))
    return found


def _first(logged: list[Statement], wanted: Callable[[str], bool]) -> int:
    """Return the place of the first statement that is wanted, or one after the last."""
    return next((number for number, it in enumerate(logged) if wanted(it.sql)), len(logged))


def _registration(event_id: str, name: str, key: str | None = None) -> Call:
    email = f"{name.lower().replace(' ', '.')}@example.org"
    return Call("POST", REGISTRATIONS, {"event_id": event_id, "name": name, "email": email}, key=key)
