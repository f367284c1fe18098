"""Structured logs: one event a line, JSON for machines, colours for a terminal. No names, e-mails, codes or tokens."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec
import structlog

if TYPE_CHECKING:
    from collections.abc import MutableMapping


def configure(*, level: str, form: str) -> None:
    """Send our logs and the libraries' to standard error, in one form (`auto`, `console`, `json`)."""
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if form == "console" or (form == "auto" and sys.stderr.isatty()):
        last: list[Any] = [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        ]
        factory: Any = structlog.WriteLoggerFactory(sys.stderr)
    else:
        last = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=_json)]
        factory = structlog.BytesLoggerFactory(Gathered(sys.stderr.buffer))  # type: ignore[arg-type]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=factory,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    processors = [_library, *last_as_text(last)]
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=processors, foreign_pre_chain=shared))
    logging.basicConfig(handlers=[handler], level=max(number, logging.WARNING), force=True)


class Gathered:
    """A stream that is flushed once per turn of the event loop: a rush writes thousands of lines a second."""

    def __init__(self, stream: BinaryIO) -> None:
        """Wrap the stream that lines go to."""
        self._stream = stream
        self._flush_is_due = False

    def write(self, line: bytes) -> None:
        """Take a line."""
        self._stream.write(line)

    def flush(self) -> None:
        """Flush at the end of this turn, or at once where no event loop runs."""
        if self._flush_is_due:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._stream.flush()
            return
        self._flush_is_due = True
        loop.call_soon(self._flush_now)

    def _flush_now(self) -> None:
        self._flush_is_due = False
        self._stream.flush()


def last_as_text(last: list[Any]) -> list[Any]:
    """Do as the renderer does, for the standard library's handlers, which want texts."""
    return [*last, lambda _logger, _name, line: line.decode() if isinstance(line, bytes) else line]


def _json(event: Any, **_: Any) -> bytes:
    return msgspec.json.encode(event, enc_hook=str)


def _library(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    record = event.pop("_record", None)
    event.pop("_from_structlog", None)
    return {**event, "logger": record.name if record else "?"}
