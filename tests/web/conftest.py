"""What the tests of every route share."""

from __future__ import annotations

import pytest
from argon2 import PasswordHasher

from rowlock.accounts import passwords


@pytest.fixture(autouse=True)
def quick_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the hash of passwords quick: here people sign up often, and nobody guesses their passwords."""
    monkeypatch.setattr(passwords, "_hasher", PasswordHasher(time_cost=1, memory_cost=64, parallelism=1))
