"""The rule of capacity, against every sequence of changes that Hypothesis can think of."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from rowlock.allocation.model import Change, Pool, Reason, Shortage
from rowlock.allocation.rules import decide

EVENT = UUID(int=1)
POOLS = [UUID(int=number) for number in (11, 12)]

totals = st.integers(min_value=0, max_value=6)
steps = st.tuples(
    st.sampled_from(["claim", "hold", "release", "confirm", "resize"]),
    st.lists(st.sampled_from(POOLS), min_size=1, max_size=2, unique=True),
    st.integers(min_value=1, max_value=4),
)


def pool(pool_id: UUID, total: int) -> Pool:
    return Pool(EVENT, pool_id, total=total, held=0, sold=0, blocked=0, last_sequence=0)


def change(kind: str, pool_ids: list[UUID], units: int) -> Change:
    differences: dict[str, Any] = {
        "claim": {"sold": units},
        "hold": {"held": units},
        "release": {"sold": -units},
        "confirm": {"held": -units, "sold": units},
        "resize": {"total": units - 2},
    }[kind]
    reason = Reason.RESIZED if kind == "resize" else Reason.REGISTERED
    return Change(EVENT, tuple(pool_ids), reason, "test", **differences)


def possible(asked: Change, counters: dict[UUID, dict[str, int]]) -> bool:
    """Tell whether a caller could ask for it: nobody gives back what nobody has."""
    return all(
        counters[pool_id]["sold"] + asked.sold >= 0
        and counters[pool_id]["held"] + asked.held >= 0
        and counters[pool_id]["total"] + asked.total >= 0
        for pool_id in asked.pool_ids
    )


def fits(asked: Change, counters: dict[UUID, dict[str, int]]) -> bool:
    return all(
        counters[p]["sold"] + asked.sold + counters[p]["held"] + asked.held
        <= counters[p]["total"] + asked.total
        for p in asked.pool_ids
    )


@given(st.tuples(totals, totals), st.lists(steps, max_size=40))
def test_every_change_that_fits_is_granted_and_no_other(
    sizes: tuple[int, int], wishes: list[tuple[str, list[UUID], int]]
) -> None:
    counters = {p: {"total": size, "held": 0, "sold": 0} for p, size in zip(POOLS, sizes, strict=True)}
    asked: list[Change] = []
    granted: list[bool] = []
    for wish in wishes:
        candidate = change(*wish)
        if not possible(candidate, counters):
            continue
        asked.append(candidate)
        granted.append(fits(candidate, counters))
        if granted[-1]:
            for p in candidate.pool_ids:
                counters[p]["total"] += candidate.total
                counters[p]["held"] += candidate.held
                counters[p]["sold"] += candidate.sold

    allotment, outcomes = decide([pool(p, size) for p, size in zip(POOLS, sizes, strict=True)], asked)

    assert [not isinstance(outcome, Shortage) for outcome in outcomes] == granted
    for p in POOLS:
        after = allotment.pool(EVENT, p)
        assert {"total": after.total, "held": after.held, "sold": after.sold} == counters[p]
        assert after.available >= 0


@given(st.tuples(totals, totals), st.lists(steps, max_size=40))
def test_the_ledger_counts_without_gaps_and_ends_where_the_pools_do(
    sizes: tuple[int, int], wishes: list[tuple[str, list[UUID], int]]
) -> None:
    start = [
        structs.replace(pool(p, size), last_sequence=number)
        for p, size, number in zip(POOLS, sizes, (4, 7), strict=True)
    ]
    claims = [change(kind, pools, units) for kind, pools, units in wishes if kind in {"claim", "hold"}]

    allotment, _ = decide(start, claims)

    assert [entry.sequence for entry in allotment.entries] == list(range(8, 8 + len(allotment.entries)))
    for after in allotment.changed():
        last = [entry for entry in allotment.entries if entry.pool_id == after.id][-1]
        assert (last.total, last.held, last.sold, last.blocked) == (
            after.total,
            after.held,
            after.sold,
            after.blocked,
        )
        assert last.sequence == after.last_sequence


@given(seats=st.integers(0, 20), people=st.integers(0, 40))
def test_who_comes_first_is_served_first(seats: int, people: int) -> None:
    claims = [change("claim", [POOLS[0]], 1) for _ in range(people)]

    _, outcomes = decide([pool(POOLS[0], seats)], claims)

    served = [not isinstance(outcome, Shortage) for outcome in outcomes]
    assert served == [True] * min(seats, people) + [False] * max(0, people - seats)


def test_a_change_that_one_pool_cannot_bear_leaves_the_others_alone() -> None:
    both = change("claim", POOLS, 2)

    allotment, [outcome] = decide([pool(POOLS[0], 5), pool(POOLS[1], 1)], [both])

    assert outcome == Shortage(POOLS[1], 1)
    assert allotment.entries == []
    assert allotment.pool(EVENT, POOLS[0]).sold == 0
