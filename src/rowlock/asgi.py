"""The mouth of a server process: `uvicorn --factory rowlock.asgi:create`, with ROWLOCK_* in its environment."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

from rowlock.app import create_app
from rowlock.kernel import logs
from rowlock.kernel.settings import read_settings

if TYPE_CHECKING:
    from rowlock.app import Application


# The collector looks at what was made since it last looked. Requests make thousands of objects and drop them all, so
# it need not look as often as in a program that makes few.
GC_THRESHOLDS = (50_000, 20, 20)


def create() -> Application:
    """Read the settings and build the application."""
    settings = read_settings()
    logs.configure(level=settings.log_level, form=settings.log_format)
    app = create_app(settings)
    # What is here now stays for good: the garbage collector need not look at it again and again during a rush.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    return app
