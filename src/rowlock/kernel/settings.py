"""Settings: one frozen value, read from ROWLOCK_* by the mouths and by nobody else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class SettingsError(Exception):
    """Some settings are wrong; the message lists every one of them."""


def default_data_dir() -> Path:
    """Return where the embedded database lives unless told otherwise (XDG Base Directory Specification)."""
    return Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share").expanduser() / "rowlock"


class Settings(BaseSettings):
    """Everything an operator can set. Each field is the environment variable ROWLOCK_<NAME>."""

    model_config = SettingsConfigDict(env_prefix="ROWLOCK_", frozen=True, extra="ignore")

    database_url: str | None = Field(
        None, description="PostgreSQL 15 or later; unset: an embedded one is started."
    )
    data_dir: Path = Field(
        default_factory=default_data_dir, description="Where the embedded database keeps its data."
    )
    pg_bin: Path | None = Field(
        None, description="Folder with postgres and initdb; unset: the installed wheel's."
    )
    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 is every interface.")
    port: Annotated[int, Field(ge=0, le=65535, description="Port to listen on; 0 is any free one.")] = 8080
    workers: Annotated[int, Field(ge=1, le=64, description="Server processes that share the port.")] = 1
    log_sql: bool = Field(False, description="Log every SQL statement (texts among its values are left out).")
    log_format: Literal["auto", "console", "json"] = Field(
        "auto", description="auto: console on a terminal, else json."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least level that is logged."
    )
    sale_connections: Annotated[
        int, Field(ge=2, le=64, description="Database connections for registrations.")
    ] = 4
    other_connections: Annotated[
        int, Field(ge=2, le=64, description="Connections for all else, of each kind.")
    ] = 6
    queue_max: Annotated[
        int, Field(ge=1, le=100_000, description="Registrations that may wait; more get 503.")
    ] = 4000
    deadline_seconds: Annotated[
        float, Field(gt=0, le=60, description="Longest a registration waits for its answer.")
    ] = 8
    body_max_bytes: Annotated[int, Field(ge=1024, description="Largest request body; more gets 413.")] = (
        262_144
    )
    token_days: Annotated[int, Field(ge=1, le=365, description="How long a sign-in token is valid.")] = 30

    @field_validator("database_url")
    @classmethod
    def _is_postgresql(cls, value: str | None) -> str | None:
        if value and not value.startswith(("postgresql://", "postgres://")):
            message = "must begin with postgresql://"
            raise ValueError(message)
        return value or None


def read_settings(**given: Any) -> Settings:
    """Read the environment; what is given (a command's options) and not None wins.

    Raises:
        SettingsError: one line that names every wrong setting and what it should be.

    """
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        wrong = [
            f"ROWLOCK_{str(e['loc'][0]).upper()}: {e['msg'].removeprefix('Value error, ')}"
            for e in error.errors()
        ]
        raise SettingsError("Wrong settings. " + "; ".join(wrong)) from None
