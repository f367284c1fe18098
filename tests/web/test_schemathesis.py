"""What the OpenAPI document promises, kept: Schemathesis reads it, asks what it allows and what it forbids, and judges.

Each operation is asked about things that exist, by the owner of all of them, so that its requests get past the door.
The requests are the same in every run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.core.result import Ok
from schemathesis.specs.openapi import checks

from rowlock.app import create_app
from rowlock.kernel.settings import Settings
from tests import make
from tests.theatre import Theatre, open_theatre

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rowlock.kernel.postgres import Postgres

SCHEMA = schemathesis.openapi.from_dict(create_app(Settings()).openapi())
OPERATIONS: dict[str, Any] = {
    found.ok().label: found.ok() for found in SCHEMA.get_all_operations() if isinstance(found, Ok)
}
EXAMPLES = {GenerationMode.POSITIVE: 20, GenerationMode.NEGATIVE: 15}
# Bodies that name something get the names of what there is: one made up never exists.
ABOUT_KNOWN = {
    "POST /api/v1/registrations",
    "POST /api/v1/events",
    "POST /api/v1/tokens",
    "POST /api/v1/organizations/{organization_id}/members",
}
CHECKS = [
    schemathesis.checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
]


@pytest.fixture(scope="module")
def theatre(postgres: Postgres) -> Iterator[Theatre]:
    with open_theatre(postgres.url()) as opened:
        yield opened


@dataclass(frozen=True)
class World:
    """Somebody with an organization, and one thing of each kind in it. `known` is what bodies may say of them."""

    token: str
    ids: dict[str, str]
    known: dict[str, str]


async def build(theatre: Theatre) -> World:
    client = theatre.client
    ann = await make.user(client, "Ann")
    club = await make.organization(client, ann, "Club")
    event = await make.event(client, ann, capacity=3, organization_id=club)
    registration = await make.registration(client, event, None, actor=ann)
    member = await make.member(client, ann, "door", club)
    key = await make.api_key(client, ann, "events:read", organization_id=club)
    ids = {
        "organization_id": club,
        "event_id": event["id"],
        "ticket_type_id": registration["ticket_type_id"],
        "registration_id": registration["id"],
        "user_id": member.id,
        "key_id": key.id,
    }
    new = {"email": "bob@example.org", "password": "correct horse"}
    assert (await client.post("/users", json={"name": "Bob", **new})).status_code == 201
    return World(ann.token, ids, {"event_id": event["id"], "organization_id": club, **new})


async def send(theatre: Theatre, case: schemathesis.Case[Any]) -> Any:
    wanted = case.as_transport_kwargs(base_url="http://rowlock.test")
    request: Any = requests.Request(**wanted).prepare()
    return await theatre.client.request(
        request.method, request.url, headers=dict(request.headers), content=request.body
    )


def plans() -> list[Any]:
    """Return each operation with each mode; what takes nothing cannot be asked anything wrong."""
    return [
        pytest.param(label, mode, id=f"{label} {mode.value}")
        for label, operation in OPERATIONS.items()
        for mode in GenerationMode
        if mode is GenerationMode.POSITIVE or [*operation.path_parameters, *operation.query, *operation.body]
    ]


@pytest.mark.parametrize(("label", "mode"), plans())
def test_an_operation_keeps_what_the_document_promises(
    theatre: Theatre, label: str, mode: GenerationMode
) -> None:
    theatre.empty()
    world = theatre.run(build(theatre))
    operation = OPERATIONS[label]
    path = {name: value for name, value in world.ids.items() if f"{{{name}}}" in operation.path}
    if mode is GenerationMode.NEGATIVE and not operation.body and not [*operation.query]:
        path = {}  # all that can be wrong is the path
    cases = operation.as_strategy(
        mode, path_parameters=path, headers={"Authorization": f"Bearer {world.token}"}
    )

    @settings(
        max_examples=EXAMPLES[mode],
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases)
    def ask(case: schemathesis.Case[Any]) -> None:
        if mode is GenerationMode.POSITIVE and label in ABOUT_KNOWN and isinstance(case.body, dict):
            case.body = case.body | {name: it for name, it in world.known.items() if name in case.body}
        answer = theatre.run(send(theatre, case))
        statuses.add(answer.status_code)
        case.validate_response(answer, checks=CHECKS)

    statuses: set[int] = set()
    ask()
    if mode is GenerationMode.POSITIVE:
        assert statuses & {200, 201, 204, 409}, "no request was understood and got past the door"
