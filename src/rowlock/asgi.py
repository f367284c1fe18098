"""The mouth of a server process: `uvicorn --factory rowlock.asgi:create`, with ROWLOCK_* in its environment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rowlock.app import create_app
from rowlock.kernel import logs
from rowlock.kernel.settings import read_settings

if TYPE_CHECKING:
    from fastapi import FastAPI


def create() -> FastAPI:
    """Read the settings and build the application."""
    settings = read_settings()
    logs.configure(level=settings.log_level, form=settings.log_format)
    return create_app(settings)
