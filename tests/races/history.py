"""A checker of histories: what clients saw, against the ledger, and nothing of the program in between.

Clients note when they asked and when they were answered, by one clock. The ledger says in which order things happened.
Then, for each event, in about n log n steps:

- its sequence numbers have no gap;
- whoever was answered before another asked comes first in the ledger;
- the ledger, replayed through a tiny model, sells no seat twice and none to a person who has one;
- each acknowledgement is in the ledger once, as it was answered; what nobody asked for, or was refused, is not;
- each "sold out" (and "already registered") is justified: at some instant between question and answer it was true.

The first three together are strict serializability; the last one catches what they cannot, a seat withheld.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

UNKNOWN = frozenset({"no_answer", "outcome_unknown"})
DONE = {"confirmed": "registered", "cancelled": "cancelled", "resized": "resized"}


@dataclass(frozen=True)
class Op:
    """One request as its client saw it. `order` is the registration that was made, or is to be cancelled."""

    event: str
    invoked: float
    returned: float
    outcome: str
    person: str = ""
    order: str | None = None
    sequence: int | None = None


@dataclass(frozen=True)
class Entry:
    """One line of the ledger, with the person of its order."""

    event: str
    sequence: int
    reason: str
    order: str | None
    person: str | None
    total: int
    sold: int


def check(ops: Iterable[Op], ledger: Iterable[Entry]) -> list[str]:
    """Return all that is wrong, a sentence each."""
    books: dict[str, _Book] = {}
    for op in ops:
        books.setdefault(op.event, _Book()).ops.append(op)
    for entry in sorted(ledger, key=lambda it: it.sequence):
        books.setdefault(entry.event, _Book()).entries.append(entry)
    return [f"{fault} (event {event})" for event, book in books.items() for fault in book.faults()]


@dataclass
class _Book:
    """One event's requests and entries."""

    ops: list[Op] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)

    def faults(self) -> list[str]:
        asked = self._asked()
        earliest, latest = _bounds(asked)
        return [
            *self._gaps(),
            *self._acknowledged(),
            *self._phantoms(asked),
            *self._replay(),
            *_out_of_order(self.entries, asked, earliest),
            *self._unjustified(earliest, latest),
        ]

    def _asked(self) -> list[tuple[float, float] | None]:
        """Return for each entry in which interval it happened, as its askers saw it; None if nobody asked.

        Of several who got the same answer (a second cancellation, a repeated key) one did it, and the others came
        later: it happened after the first asked and before the first was answered.
        """
        acknowledged: dict[int, list[Op]] = {}
        for op in self.ops:
            if op.sequence is not None:
                acknowledged.setdefault(op.sequence, []).append(op)
        unknown = [op for op in self.ops if op.outcome in UNKNOWN]
        intervals: list[tuple[float, float] | None] = []
        for entry in self.entries:
            if entry.reason == "opened":
                intervals.append((-inf, inf))
            elif group := acknowledged.get(entry.sequence):
                intervals.append((min(op.invoked for op in group), min(op.returned for op in group)))
            elif (one := next((op for op in unknown if _may_be(op, entry)), None)) is not None:
                unknown.remove(one)
                intervals.append((one.invoked, inf))
            else:
                intervals.append(None)
        return intervals

    def _gaps(self) -> list[str]:
        numbers = [entry.sequence for entry in self.entries]
        if numbers == list(range(1, len(numbers) + 1)):
            return []
        return ["gap: the sequence numbers are not 1, 2, 3 …"]

    def _acknowledged(self) -> list[str]:
        by_sequence = {entry.sequence: entry for entry in self.entries}
        faults = []
        for op in self.ops:
            if op.outcome not in DONE or op.sequence is None:
                continue
            entry = by_sequence.get(op.sequence)
            wanted = (DONE[op.outcome], op.order, op.person or None)
            if entry is None or (entry.reason, entry.order, entry.person) != wanted:
                faults.append(f"lost: {op} was acknowledged, the ledger has {entry}")
        return faults

    def _phantoms(self, asked: Sequence[tuple[float, float] | None]) -> list[str]:
        return [
            f"phantom: nobody asked for {entry}, or was told that it was done"
            for entry, interval in zip(self.entries, asked, strict=True)
            if interval is None
        ]

    def _replay(self) -> list[str]:
        """Let the model do what the ledger says."""
        holders: dict[str | None, str | None] = {}
        total, faults, ended = 0, [], set()
        for entry in self.entries:
            if entry.reason in {"opened", "resized"}:
                total = entry.total
            elif entry.reason == "registered":
                if entry.person in holders or entry.order in ended:
                    faults.append(f"twice: {entry.person} has a seat already at {entry}")
                holders[entry.person] = entry.order
            elif entry.reason == "cancelled":
                if holders.pop(entry.person, None) != entry.order:
                    faults.append(f"twice: {entry} gives back what nobody has")
                ended.add(entry.order)
            if len(holders) > total:
                faults.append(f"oversold: {len(holders)} seats of {total} at {entry}")
            if (entry.sold, entry.total) != (len(holders), total):
                faults.append(f"miscounted: {entry} should say {len(holders)} of {total}")
        return faults

    def _unjustified(self, earliest: Sequence[float], latest: Sequence[float]) -> list[str]:
        full: list[tuple[float, float]] = []
        active: dict[str | None, list[tuple[float, float]]] = {}
        since: dict[str | None, float] = {}
        for number, entry in enumerate(self.entries):
            # What an entry brought about was so until another's: at most from the earliest instant that the one can
            # have happened to the latest of the other.
            if entry.sold >= entry.total:
                full.append((earliest[number], latest[number + 1]))
            if entry.reason == "registered":
                since[entry.person] = earliest[number]
            elif entry.reason == "cancelled":
                active.setdefault(entry.person, []).append((since.pop(entry.person, -inf), latest[number]))
        for person, begin in since.items():
            active.setdefault(person, []).append((begin, inf))
        return [
            f"unjustified: at no instant of {op} was that so"
            for op in self.ops
            if op.outcome in {"sold_out", "already_registered"}
            and not any(
                begin <= op.returned and op.invoked <= end
                for begin, end in (full if op.outcome == "sold_out" else active.get(op.person, []))
            )
        ]


def _may_be(op: Op, entry: Entry) -> bool:
    if entry.reason == "registered":
        return op.order is None and op.person == entry.person
    return entry.reason == "cancelled" and op.order == entry.order


def _bounds(asked: Sequence[tuple[float, float] | None]) -> tuple[list[float], list[float]]:
    """Return the earliest and the latest instant of each entry, given its neighbours; `latest` has one for the end."""
    intervals = [interval or (-inf, inf) for interval in asked]
    earliest: list[float] = []
    for invoked, _ in intervals:
        earliest.append(max(invoked, earliest[-1] if earliest else -inf))
    latest = [inf]
    for _, returned in reversed(intervals):
        latest.append(min(returned, latest[-1]))
    return earliest, latest[::-1]


def _out_of_order(
    entries: Sequence[Entry], asked: Sequence[tuple[float, float] | None], earliest: Sequence[float]
) -> list[str]:
    return [
        f"out of order: {entry} was answered before an earlier one was asked for"
        for entry, interval, bound in zip(entries, asked, earliest, strict=True)
        if interval is not None and interval[1] < bound
    ]
