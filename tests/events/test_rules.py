"""Who may see what, and what an event may be."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from rowlock.accounts.model import ANONYMOUS, Caller, Permission
from rowlock.events import rules
from rowlock.events.errors import TooManyTicketTypes
from rowlock.events.model import EventRow, Listing, Status
from rowlock.kernel.errors import Forbidden, InvalidState, NotFound, ValidationFailed

HOME = uuid4()
MEMBER = Caller("user:1", permissions={HOME: frozenset({Permission.EVENTS_READ})})
KEY_WITHOUT_SCOPES = Caller("key:1", permissions={HOME: frozenset()})
NOW = datetime(2026, 5, 1, 19, tzinfo=UTC)


def event(status: Status) -> EventRow:
    return EventRow(uuid4(), HOME, status, "Jazz", "", "", "UTC", None, None, NOW, NOW)


@pytest.mark.parametrize("status", sorted(set(Status) - {Status.DRAFT}))
def test_anyone_sees_what_is_no_draft(status: Status) -> None:
    rules.require_visible(ANONYMOUS, event(status))


def test_a_draft_is_seen_by_its_organization_alone() -> None:
    rules.require_visible(MEMBER, event(Status.DRAFT))
    with pytest.raises(NotFound):
        rules.require_visible(ANONYMOUS, event(Status.DRAFT))
    with pytest.raises(Forbidden):
        rules.require_visible(KEY_WITHOUT_SCOPES, event(Status.DRAFT))


@pytest.mark.parametrize(
    ("listing", "shown"),
    [
        (Listing(), {Status.PUBLISHED}),
        (Listing(organization_id=HOME), {Status.PUBLISHED}),
        (Listing(starts_from=NOW), {Status.PUBLISHED, Status.ENDED}),
        (Listing(starts_from=NOW, status=Status.PUBLISHED), {Status.PUBLISHED}),
        (Listing(status=Status.ENDED), {Status.ENDED}),
        (Listing(status=Status.DRAFT), set()),
        (Listing(status=Status.PAUSED), set()),
    ],
)
def test_the_public_list(listing: Listing, shown: set[Status]) -> None:
    assert rules.listed_statuses(listing, ANONYMOUS) == shown


def test_an_organization_lists_its_events_in_every_state() -> None:
    assert rules.listed_statuses(Listing(organization_id=HOME), MEMBER) == set(Status)
    assert rules.listed_statuses(Listing(organization_id=HOME, status=Status.DRAFT), MEMBER) == {Status.DRAFT}


def test_a_member_gets_the_public_list_of_others() -> None:
    assert rules.listed_statuses(Listing(), MEMBER) == {Status.PUBLISHED}
    assert rules.listed_statuses(Listing(organization_id=uuid4()), MEMBER) == {Status.PUBLISHED}
    assert rules.listed_statuses(Listing(organization_id=HOME), KEY_WITHOUT_SCOPES) == {Status.PUBLISHED}


def test_an_event_ends_after_it_starts() -> None:
    rules.require_order_of_times(NOW, NOW + timedelta(seconds=1))
    rules.require_order_of_times(None, NOW)
    rules.require_order_of_times(NOW, None)
    with pytest.raises(ValidationFailed):
        rules.require_order_of_times(NOW, NOW)


def test_ticket_types_have_a_limit() -> None:
    rules.require_room_for_ticket_type(event(Status.DRAFT), rules.TICKET_TYPES_MAX - 1)
    with pytest.raises(TooManyTicketTypes):
        rules.require_room_for_ticket_type(event(Status.DRAFT), rules.TICKET_TYPES_MAX)
    with pytest.raises(InvalidState):
        rules.require_room_for_ticket_type(event(Status.CANCELLED), 0)


def test_a_refusal_says_the_state() -> None:
    assert str(rules.not_while(Status.ENDED, "Too late.")) == "The event has ended. Too late."
    assert str(rules.not_while(Status.DRAFT)) == "The event is a draft."
    assert rules.not_while(Status.CANCELLED).extra == {"event_status": Status.CANCELLED}
