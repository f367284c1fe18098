"""The embedded PostgreSQL: start, stop and join a server over one data directory."""

from rowlock.kernel.postgres.programs import PostgresUnavailable
from rowlock.kernel.postgres.server import DATABASE, Postgres, running

__all__ = ["DATABASE", "Postgres", "PostgresUnavailable", "running"]
