"""The embedded PostgreSQL: start, stop and join a server over one data directory."""

from rowlock.kernel.postgres.programs import PostgresUnavailable
from rowlock.kernel.postgres.server import DATABASE, Postgres, running
from rowlock.kernel.postgres.watching import kept_running

__all__ = ["DATABASE", "Postgres", "PostgresUnavailable", "kept_running", "running"]
