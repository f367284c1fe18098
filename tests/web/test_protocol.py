"""The protocol over real sockets: answers come whole, and slow requests come to an end."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
import uvicorn
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from rowlock.web import protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

PATIENCE_SECONDS = 20
HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"


async def _echo(request: Request) -> Response:
    return Response(b"<" + await request.body() + b">")


@pytest_asyncio.fixture(loop_scope="session")
async def port(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    """Serve an echo, with little patience."""
    monkeypatch.setattr(protocol, "REQUEST_SECONDS", 0.3)
    app = Starlette(routes=[Route("/", _echo, methods=["POST"])])
    config = uvicorn.Config(app, http=protocol.Protocol, log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not server.started:  # noqa: ASYNC110 - uvicorn has no event to wait for
                await asyncio.sleep(0.01)
        yield listener.getsockname()[1]
        server.should_exit = True
        await serving


async def said(port: int, *parts: bytes) -> bytes:
    """Send parts of a request, each in a packet of its own, and return all that comes until the connection ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for part in parts:
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(0.02)
    async with asyncio.timeout(PATIENCE_SECONDS):
        answer = await reader.read()
    writer.close()
    return answer


async def test_an_answer_comes_whole(port: int) -> None:
    answer = await said(port, HEAD + b"Connection: close\r\n\r\n", b"hello")

    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\n<hello>")


async def test_requests_in_one_packet_are_answered_in_their_order(port: int) -> None:
    first, last = HEAD + b"\r\nfirst", HEAD + b"Connection: close\r\n\r\nagain"

    answer = await said(port, first + last)

    assert answer.index(b"<first>") < answer.index(b"<again>")


@pytest.mark.parametrize(
    "parts",
    [(), (b"POST / HT",), (HEAD,), (HEAD + b"\r\n",), (HEAD + b"\r\nhel",)],
    ids=["nothing", "a line's half", "no end of the head", "no body", "half a body"],
)
async def test_a_request_that_does_not_arrive_is_not_waited_for(port: int, parts: tuple[bytes, ...]) -> None:
    assert b"200 OK" not in await said(port, *parts)
