"""Idempotency keys: a repeated request gets the first one's answer, and acts once.

The answer is kept in the transaction of its effect, so that there is never one without the other. It is kept sealed:
encrypted with a key derived from the whole request (caller, Idempotency-Key, method, path, body), of which only a hash
of caller and key is stored. So the same request opens its answer, another body cannot (which is how a mismatch shows),
and whoever reads the table learns neither names nor secrets.

Reading an answer writes to its row: an acknowledgement must end in a commit that was waited for, or a failover could
lose what has been acknowledged twice.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from rowlock.kernel.database import UniqueViolation
from rowlock.kernel.errors import Conflict, Invalid, LockTimeout

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping

    from rowlock.kernel.database import Database, Transaction

T = TypeVar("T")

KEY_MAX_CHARACTERS = 255
KEPT_DAYS = 7
ONE_ANSWER_PER_KEY = "idempotency_key_pkey"
_NONCE_BYTES = 12


class IdempotencyMismatch(Invalid):
    """This Idempotency-Key was used for another request."""


class IdempotencyInProgress(Conflict):
    """The first request with this Idempotency-Key is still running."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer as the caller gets it: HTTP status, JSON body, and where the new thing lives."""

    status: int
    body: bytes
    location: str | None = None
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class Key:
    """An Idempotency-Key together with the request that carries it."""

    hash: bytes
    seal: bytes

    def close(self, reply: Reply) -> bytes:
        """Seal an answer, so that only the same request can read it."""
        nonce = os.urandom(_NONCE_BYTES)
        text = msgspec.msgpack.encode((reply.status, reply.body, reply.location))
        return nonce + AESGCM(self.seal).encrypt(nonce, text, self.hash)

    def open(self, sealed: bytes) -> Reply:
        """Read a sealed answer.

        Raises:
            IdempotencyMismatch: it belongs to another request.

        """
        try:
            text = AESGCM(self.seal).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], self.hash)
        except InvalidTag:
            raise IdempotencyMismatch from None
        status, body, location = msgspec.msgpack.decode(text, type=tuple[int, bytes, str | None])
        return Reply(status, body, location, replayed=True)


def make_key(caller: str, key: str, *request: bytes) -> Key:
    """Make a key from who asks, the header's text, and everything that makes the request the same request."""
    scope = msgspec.msgpack.encode((caller, key))
    return Key(
        hash=hashlib.blake2b(scope, digest_size=32, person=b"rowlock-key").digest(),
        seal=hashlib.blake2b(
            msgspec.msgpack.encode((scope, *request)), digest_size=32, person=b"rowlock-seal"
        ).digest(),
    )


async def recall(tx: Transaction, keys: Collection[Key]) -> dict[bytes, bytes]:
    """Return the sealed answers that are kept, by key hash, and touch their rows."""
    rows = await tx.fetch(
        "UPDATE idempotency_key SET replayed_at = clock_timestamp()"
        " WHERE key_hash = ANY($1::bytea[]) AND created_at > clock_timestamp() - make_interval(days => $2)"
        " RETURNING key_hash, answer",
        sorted(key.hash for key in keys),
        KEPT_DAYS,
    )
    return {row["key_hash"]: row["answer"] for row in rows}


async def remember(tx: Transaction, answers: Mapping[Key, Reply]) -> None:
    """Keep answers. An expired one of the same key gives way.

    Raises:
        UniqueViolation: somebody else answered a request with the same key meanwhile; do the transaction again.

    """
    hashes = [key.hash for key in answers]
    await tx.execute(
        "DELETE FROM idempotency_key WHERE key_hash = ANY($1::bytea[])"
        " AND created_at <= clock_timestamp() - make_interval(days => $2)",
        hashes,
        KEPT_DAYS,
    )
    await tx.execute(
        "INSERT INTO idempotency_key (key_hash, answer) SELECT * FROM unnest($1::bytea[], $2::bytea[])",
        hashes,
        [key.close(reply) for key, reply in answers.items()],
    )


async def once(
    db: Database,
    key: Key | None,
    work: Callable[[Transaction], Awaitable[Reply]],
    refuse: Callable[[Conflict], Reply],
) -> Reply:
    """Run `work` in one transaction, at most once per key; a repeated request gets the answer of the first.

    A conflict is an answer too and is kept: it had no effect, so it is kept in a transaction of its own.

    Raises:
        IdempotencyMismatch: the key was used for another request.
        IdempotencyInProgress: the first request still runs.
        Problem: whatever `work` raises.

    """
    if key is None:
        async with db.transaction() as tx:
            await tx.remember_xid()
            return await work(tx)
    return await again_if_answered(lambda: _once(db, key, work, refuse))


async def again_if_answered(attempt: Callable[[], Awaitable[T]]) -> T:
    """Make an attempt, and one more if meanwhile somebody else answered a request with the same key.

    Registrations wait for their events' locks and all else for the key's own, so two requests with one key need not
    wait for each other; then the primary key tells the later one, which finds the answer the second time.
    """
    try:
        return await attempt()
    except UniqueViolation as violation:
        if violation.constraint != ONE_ANSWER_PER_KEY:
            raise
        return await attempt()


async def _once(
    db: Database,
    key: Key,
    work: Callable[[Transaction], Awaitable[Reply]],
    refuse: Callable[[Conflict], Reply],
) -> Reply:
    try:
        async with db.transaction() as tx:
            if (known := await _claim(tx, key)) is not None:
                return known
            await tx.remember_xid()
            reply = await work(tx)
            await remember(tx, {key: reply})
            return reply
    except IdempotencyInProgress:
        raise
    except Conflict as conflict:
        refusal = refuse(conflict)
    async with db.transaction() as tx:
        if (known := await _claim(tx, key)) is not None:
            return known
        await remember(tx, {key: refusal})
    return refusal


async def forget_expired(tx: Transaction, limit: int) -> int:
    """Delete at most `limit` answers that are past their time; return how many."""
    return await tx.execute(
        "DELETE FROM idempotency_key WHERE key_hash IN (SELECT key_hash FROM idempotency_key"
        " WHERE created_at <= clock_timestamp() - make_interval(days => $1) ORDER BY created_at LIMIT $2)",
        KEPT_DAYS,
        limit,
    )


async def _claim(tx: Transaction, key: Key) -> Reply | None:
    """Wait for others with the same key, then return the answer that is kept, if any."""
    try:
        await tx.fetch_value(
            "SELECT pg_advisory_xact_lock($1::bigint)", int.from_bytes(key.hash[:8], signed=True)
        )
    except LockTimeout:
        raise IdempotencyInProgress from None
    sealed = (await recall(tx, [key])).get(key.hash)
    return None if sealed is None else key.open(sealed)
