"""What the explorer sets against each other in accounts: what two owners of one organization do to each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rowlock.accounts import service as accounts
from rowlock.accounts.model import ALLOWED, Caller, Permission, Role
from rowlock.kernel.ids import new_id

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable
    from uuid import UUID

    from rowlock.accounts.model import User
    from rowlock.kernel.database import Database

    Ask = Callable[[Database, "House"], Awaitable[Hashable]]

_LOOK = """
SELECT (SELECT array_agg(users.name || ' is ' || member.role ORDER BY users.name)
        FROM member JOIN users ON users.id = member.user_id WHERE organization_id = $1) AS members,
       (SELECT count(*) FROM users WHERE person_key = $2) AS doras,
       (SELECT count(*) FROM organization JOIN users ON users.id = personal_user_id WHERE person_key = $2) AS homes,
       (SELECT array_agg(name ORDER BY name) FROM api_key WHERE organization_id = $1) AS keys
"""


@dataclass(frozen=True)
class House:
    """An organization that Ann and Bob own. Carl has an account; Dora would like one."""

    id: UUID
    people: dict[str, User]

    def caller(self, name: str) -> Caller:
        """Return one of the two owners as a caller."""
        user = self.people[name]
        return Caller(f"user:{user.id}", user, {self.id: ALLOWED[Role.OWNER]})

    @property
    def dora(self) -> str:
        """Dora's address."""
        return f"dora.{self.id}@example.org"


@dataclass(frozen=True)
class Houses:
    """Founds organizations, and looks at what became of them."""

    db: Database

    async def fresh(self) -> House:
        """Found the next."""
        async with self.db.transaction() as tx:
            people = {
                name: await accounts.sign_up(
                    tx, name=name, email=f"{name}.{new_id()}@example.org", password_hash="none"
                )
                for name in ("Ann", "Bob", "Carl")
            }
            house = House((await accounts.found_organization(tx, people["Ann"], "House")).id, people)
            await accounts.add_member(tx, house.caller("Ann"), house.id, people["Bob"].email, Role.OWNER)
        return house

    async def look(self, house: House) -> tuple[list[str], Hashable]:
        """Return what is wrong, and who is what."""
        async with self.db.connection() as connection:
            row = await connection.fetch_one(_LOOK, house.id, house.dora)
        assert row is not None
        members = tuple(row["members"] or ())
        is_owned = any(member.endswith("owner") for member in members)
        return [] if is_owned else ["nobody owns the organization"], (
            members,
            row["doras"],
            row["homes"],
            tuple(row["keys"] or ()),
        )


async def sign_up(db: Database, house: House) -> Hashable:
    """Sign up Dora."""
    async with db.transaction() as tx:
        return (await accounts.sign_up(tx, name="Dora", email=house.dora, password_hash="none")).name


def demote(by: str, whom: str) -> Ask:
    """Make an owner a manager."""

    async def ask(db: Database, house: House) -> Hashable:
        caller, user_id = house.caller(by), house.people[whom].id
        return (await accounts.change_role(db, caller, house.id, user_id, Role.MANAGER)).role

    return ask


def remove(by: str, whom: str) -> Ask:
    """End a membership."""

    async def ask(db: Database, house: House) -> Hashable:
        await accounts.remove_member(db, house.caller(by), house.id, house.people[whom].id)
        return "removed"

    return ask


def add_carl(by: str, role: Role) -> Ask:
    """Make Carl a member."""

    async def ask(db: Database, house: House) -> Hashable:
        async with db.transaction() as tx:
            return (
                await accounts.add_member(tx, house.caller(by), house.id, house.people["Carl"].email, role)
            ).role

    return ask


async def make_a_key(db: Database, house: House) -> Hashable:
    """Let Bob make an API key."""
    async with db.transaction() as tx:
        scopes, caller = [Permission.EVENTS_READ], house.caller("Bob")
        key, _ = await accounts.create_api_key(
            tx, caller, house.id, name="Door", scopes=scopes, expires_at=None
        )
        return key.name


OPERATIONS: dict[str, Ask] = {
    "Dora signs up": sign_up,
    "Ann demotes Bob": demote("Ann", "Bob"),
    "Bob demotes Ann": demote("Bob", "Ann"),
    "Ann steps down": demote("Ann", "Ann"),
    "Ann removes Bob": remove("Ann", "Bob"),
    "Bob removes Ann": remove("Bob", "Ann"),
    "Bob leaves": remove("Bob", "Bob"),
    "Ann adds Carl": add_carl("Ann", Role.OWNER),
    "Bob adds Carl": add_carl("Bob", Role.DOOR),
    "Bob makes a key": make_a_key,
}
