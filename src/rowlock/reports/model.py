"""What a verification finds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must hold. `sql` returns the rows for which it does not; `$1` is how many are wanted at most."""

    name: str
    sentence: str
    sql: str


@dataclass(frozen=True, slots=True)
class Finding:
    """A check with the rows that break it; none is good."""

    check: Check
    rows: list[dict[str, Any]]

    @property
    def holds(self) -> bool:
        """Tell whether nothing breaks it."""
        return not self.rows


@dataclass(frozen=True, slots=True)
class Verification:
    """All findings of one instant, and how much was counted for them."""

    findings: list[Finding]
    counted: dict[str, int] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Tell whether every check holds."""
        return all(finding.holds for finding in self.findings)
