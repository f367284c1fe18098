"""uvicorn's HTTP protocol with two things it lacks: answers in one system call, and an end to slow requests."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

REQUEST_SECONDS = 15.0


class CorkedTransport:
    """A transport that gathers what is written until the event loop comes round.

    uvicorn writes an answer's head and its body apart, and each write is a system call. For short answers that is a
    tenth of a server's whole time.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        """Wrap a connection's transport."""
        self._transport = transport
        self._parts: list[bytes] = []
        self._call_soon = asyncio.get_running_loop().call_soon

    def write(self, data: bytes) -> None:
        """Take bytes to send."""
        if not self._parts:
            self._call_soon(self._uncork)
        self._parts.append(data)

    def close(self) -> None:
        """Send what is left, then close."""
        self._uncork()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        """Leave everything else to the transport itself."""
        return getattr(self._transport, name)

    def _uncork(self) -> None:
        if self._parts:
            parts, self._parts = self._parts, []
            self._transport.write(b"".join(parts))


class Protocol(HttpToolsProtocol):
    """One connection. A request must have arrived whole within 15 seconds of its first byte, or it is closed.

    Without that, clients that send a byte now and then could hold connections, and their memory, for ever.
    """

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin a connection; its first request is expected at once."""
        super().connection_made(CorkedTransport(transport))  # type: ignore[arg-type]
        self._expect()

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._expect()

    def on_message_complete(self) -> None:
        """Have a whole request."""
        self._relax()
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """End a connection."""
        self._relax()
        super().connection_lost(exc)

    def _expect(self) -> None:
        self._relax()
        self._deadline = self.loop.call_later(REQUEST_SECONDS, self.transport.close)

    def _relax(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
