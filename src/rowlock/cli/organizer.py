"""An organizer as the API sees one: signs up, publishes events, asks what became of them."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import msgspec

from rowlock.cli.client import Call
from rowlock.cli.setting_up import Stop

if TYPE_CHECKING:
    from rowlock.cli.client import Answer, Api

PAGE = 100
PAGES_MAX = 10_000
PROBLEM_STATUS_MIN = 400


class Organizer:
    """A signed-in user of one API."""

    def __init__(self, api: Api, token: str) -> None:
        """Take the API and the user's token; see `sign_up`."""
        self.api = api
        self.token = token

    async def publish(self, title: str, seats: int) -> dict[str, Any]:
        """Publish an event and return it. Raises Stop."""
        event = {"title": title, "capacity": seats, "status": "published"}
        return await asked(self.api, Call("POST", "/api/v1/events", event, self.token), wanted=201)

    async def available(self, event_id: str) -> int:
        """Return how many seats the API says are left. Raises Stop."""
        event = await asked(self.api, Call("GET", f"/api/v1/events/{event_id}", token=self.token))
        return int(event["available"])

    async def confirmed_ids(self, event_id: str) -> frozenset[str]:
        """Return the ids of all registrations that the API lists as confirmed. Raises Stop."""
        path = f"/api/v1/events/{event_id}/registrations?status=confirmed&limit={PAGE}"
        ids: set[str] = set()
        cursor = ""
        for _ in range(PAGES_MAX):
            page = await asked(self.api, Call("GET", path + cursor, token=self.token))
            ids.update(item["id"] for item in page["items"])
            if page["next_cursor"] is None:
                return frozenset(ids)
            cursor = f"&cursor={page['next_cursor']}"
        raise Stop(f"{path} has no end.")


async def sign_up(api: Api) -> Organizer:
    """Make a new user and sign in. Raises Stop."""
    person = {"email": f"organizer-{secrets.token_hex(8)}@example.org", "password": secrets.token_urlsafe(18)}
    await asked(api, Call("POST", "/api/v1/users", {"name": "Olive Organizer", **person}), wanted=201)
    session = await asked(api, Call("POST", "/api/v1/tokens", person), wanted=201)
    return Organizer(api, session["token"])


async def asked(api: Api, call: Call, *, wanted: int = 200) -> dict[str, Any]:
    """Send one request and return its answer's members.

    Raises:
        Stop: there is no answer, or one with another status.

    """
    answer = await answered(api, call)
    if answer.status != wanted:
        raise Stop(f"{call.method} {call.path} answered {said(answer)} instead of {wanted}.")
    return members(answer)


async def answered(api: Api, call: Call) -> Answer:
    """Send one request and return its answer, whatever it is.

    Raises:
        Stop: there is none.

    """
    try:
        return await api.call(call.method, call.path, call.body, token=call.token, key=call.key)
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise Stop(f"{call.method} {call.path} got no answer: {reason}") from None


def members(answer: Answer) -> dict[str, Any]:
    """Return the members of a JSON object; nothing of anything else, so that looking one up tells."""
    try:
        body = answer.json()
    except msgspec.DecodeError:
        return {}
    return body if isinstance(body, dict) else {}


def said(answer: Answer) -> str:
    """Say an answer in a few words: its status, and a problem's code."""
    code = members(answer).get("code", "") if answer.status >= PROBLEM_STATUS_MIN else ""
    return f"{answer.status} {code}".strip()
