"""Passwords: argon2id, in two threads of their own, so that a rush takes neither all threads nor all memory.

Each hash takes 12 MiB and three passes (one of the equivalent settings of the OWASP Password Storage Cheat Sheet),
so that a server process that signs people in stays small. Never hash inside a transaction: whoever waits for its
locks or its connection would wait for the hash as well.
"""

from __future__ import annotations

import asyncio
import functools
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import VerificationError

from rowlock.kernel.errors import Busy
from rowlock.kernel.ids import new_secret

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

THREADS = 2
WAITING_MAX = 200

_hasher = PasswordHasher(time_cost=3, memory_cost=12 * 1024, parallelism=1)
_threads = ThreadPoolExecutor(THREADS, thread_name_prefix="password")
_places = asyncio.BoundedSemaphore(WAITING_MAX)


async def hash_password(password: str) -> str:
    """Return what is kept of a password.

    Raises:
        Busy: too many others wait.

    """
    return await _in_thread(lambda: _hasher.hash(_bytes(password)))


async def verify(password_hash: str | None, password: str) -> bool:
    """Tell whether it is the password; None, for a user that does not exist, costs the same work and is False.

    Raises:
        Busy: too many others wait.

    """
    return await _in_thread(lambda: _matches(password_hash, password))


def is_outdated(password_hash: str) -> bool:
    """Tell whether the hash was made with other parameters than today's."""
    return _hasher.check_needs_rehash(password_hash)


def _matches(password_hash: str | None, password: str) -> bool:
    # Asked for in every case: the first to need it must not be told from others by the time it takes to make it.
    nobody = _hash_of_nobody()
    try:
        _hasher.verify(nobody if password_hash is None else password_hash, _bytes(password))
    except VerificationError:
        return False
    return password_hash is not None


@functools.cache
def _hash_of_nobody() -> str:
    return _hasher.hash(new_secret())


def _bytes(password: str) -> bytes:
    """Make the same bytes of what looks the same: keyboards differ in how they compose an é (NIST SP 800-63B)."""
    return unicodedata.normalize("NFKC", password).encode()


async def _in_thread(work: Callable[[], T]) -> T:
    if _places.locked():
        raise Busy
    async with _places:
        return await asyncio.get_running_loop().run_in_executor(_threads, work)
