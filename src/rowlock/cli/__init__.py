"""The `rowlock` command."""

from __future__ import annotations

from rowlock.cli.main import app

__all__ = ["app"]
