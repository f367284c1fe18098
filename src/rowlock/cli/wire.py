"""HTTP/1.1 on the wire: requests as bytes, and bytes cut into answers.

An answer with a Content-Length is parsed by hand, since a load generator that shares the machine with the server it
measures takes its own cost out of the result. Any other answer (chunked, HTTP/1.0, interim) is left to httptools.
There is no HEAD and no TLS.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httptools
import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ANSWER_BYTES_MAX = 16 * 1024 * 1024
HEAD_BYTES_MAX = 64 * 1024

NO_HEADERS: Mapping[str, str] = MappingProxyType({})

_LENGTH = b"\r\ncontent-length:"
_BODILESS = (204, 304)
_UNSAFE = re.compile(r"[\x00-\x20\x7f]")
_UNSAFE_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


class ConnectionLost(ConnectionError):
    """The connection ended, or its answer could not be read, before the answer was complete."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is; `name` is what the Host header says."""

    host: str
    port: int
    name: str


def parse_address(base_url: str) -> Address:
    """Parse `http://host:port`. Raises ValueError for any other URL."""
    url = urlsplit(base_url)
    if url.scheme != "http" or not url.hostname or "@" in url.netloc or url.path.strip("/") or url.query:
        msg = f"a base URL is http://host:port, not {base_url!r}"
        raise ValueError(msg)
    return Address(url.hostname, url.port or 80, url.netloc)


def request(
    method: str,
    path: str,
    *,
    host: str,
    body: object | bytes | None = None,
    headers: Mapping[str, str] = NO_HEADERS,
) -> bytes:
    """Build the bytes of one request; a body that is not bytes is encoded as JSON, None is no body.

    Raises ValueError for HEAD, a path that is not absolute, control characters and all that is not ASCII.
    """
    tokens = (method, path, host, *headers)
    if method == "HEAD" or not path.startswith("/") or any(map(_UNSAFE.search, tokens)):
        msg = f"not a request this client can send: {method} {path!r} to {host!r}"
        raise ValueError(msg)
    if any(map(_UNSAFE_VALUE.search, headers.values())):
        msg = "control characters in a header value"
        raise ValueError(msg)
    lines = [f"{method} {path} HTTP/1.1", f"host: {host}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    payload = b""
    if body is not None:
        payload = body if isinstance(body, bytes) else msgspec.json.encode(body)
        if not any(name.lower() == "content-type" for name in headers):
            lines.append("content-type: application/json")
    if body is not None or method in ("POST", "PUT", "PATCH"):
        lines.append(f"content-length: {len(payload)}")
    return "\r\n".join(lines).encode("ascii") + b"\r\n\r\n" + payload


class Reader:
    """Cut the bytes of a connection into answers; `closing` tells that the one given is the server's last."""

    __slots__ = ("_full", "_held", "_needed", "_on_answer", "closing")

    def __init__(self, on_answer: Callable[[int, bytes, bytes], None]) -> None:
        self.closing = False
        self._on_answer = on_answer
        self._held = bytearray()
        self._needed = 0
        self._full: _FullReader | None = None

    def feed(self, data: bytes) -> None:
        """Take what arrived and give each answer it completes. Raises ConnectionLost if it is none."""
        if self._held:
            self._held += data
            if len(self._held) < self._needed:
                return
            data = bytes(self._held)
            self._held.clear()
        while data:
            if self._full is not None:
                self._feed_full(self._full, data)
                return
            head_end = data.find(b"\r\n\r\n")
            if head_end < 0:
                self._hold(data, len(data) + 1, HEAD_BYTES_MAX)
                return
            head = data[:head_end]
            lowered = head.lower()
            status = _status(lowered)
            length = _length(status, lowered)
            if length < 0:
                self._full = _FullReader()
                continue
            end = head_end + 4 + length
            if len(data) < end:
                self._hold(data, end, ANSWER_BYTES_MAX)
                return
            self.closing = b"\r\nconnection: close" in lowered
            self._on_answer(status, head, data[head_end + 4 : end])
            data = data[end:]

    def _hold(self, data: bytes, needed: int, bytes_max: int) -> None:
        if needed > bytes_max:
            msg = "the answer is too large"
            raise ConnectionLost(msg)
        self._held += data
        self._needed = needed

    def _feed_full(self, full: _FullReader, data: bytes) -> None:
        for status, head, body, closing in full.feed(data):
            self.closing = closing
            self._on_answer(status, head, body)


class _FullReader:
    """The httptools callbacks; once needed, it reads its connection to the end.

    An answer delimited only by the end of the connection can't be told from one cut short: none completes.
    """

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._answers: list[tuple[int, bytes, bytes, bool]] = []
        self._head = b""
        self._lines: list[bytes] = []
        self._body = bytearray()

    def feed(self, data: bytes) -> list[tuple[int, bytes, bytes, bool]]:
        """Give each (status, head, body, closing) that `data` completes. Raises ConnectionLost."""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            msg = f"not an HTTP answer: {error}"
            raise ConnectionLost(msg) from error
        if len(self._body) + sum(map(len, self._lines)) > ANSWER_BYTES_MAX:
            msg = "the answer is too large"
            raise ConnectionLost(msg)
        answers, self._answers = self._answers, []
        return answers

    def on_message_begin(self) -> None:
        self._lines = [b""]
        self._body.clear()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._lines.append(name + b":" + value)

    def on_headers_complete(self) -> None:
        # Taken here, not at the end: the trailers of a chunked answer are given as headers too.
        self._head = b"\r\n".join(self._lines)

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200:  # noqa: PLR2004 - below are interim answers, the real one follows
            closing = not self._parser.should_keep_alive()
            self._answers.append((status, self._head, bytes(self._body), closing))


def _status(head: bytes) -> int:
    return int(head[9:12]) if head.startswith(b"http/1.1 ") and head[9:12].isdigit() else 0


def _length(status: int, head: bytes) -> int:
    """Give the length of the body in bytes, or -1 where only a full parser can tell."""
    if status in _BODILESS:
        return 0
    at = head.find(_LENGTH)
    if at < 0 or status < 200 or b"\r\ntransfer-encoding:" in head:  # noqa: PLR2004 - an interim answer
        return -1
    line_end = head.find(b"\r\n", at + 17)
    digits = (head[at + 17 :] if line_end < 0 else head[at + 17 : line_end]).strip()
    return int(digits) if digits.isdigit() and len(digits) < 16 else -1  # noqa: PLR2004 - more digits are no length


def headers_of(head: bytes) -> dict[str, str]:
    """Parse an answer's head; names are lower case, repeated headers are joined by commas."""
    headers: dict[str, str] = {}
    for line in head.decode("latin-1").split("\r\n")[1:]:
        name, _, value = line.partition(":")
        name, value = name.strip().lower(), value.strip()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers
