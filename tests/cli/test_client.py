"""The cheap client against a real uvicorn server, and against raw servers that answer badly."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from rowlock.cli.client import Answer, Api, Call, Connection, connect, race
from rowlock.cli.load import FRUITLESS_CONNECTIONS_MAX, LoadResult, load
from rowlock.cli.wire import ConnectionLost, request

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nETag: Ab\r\n\r\nhi"
CUT = b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nhi"
GET = request("GET", "/", host="test")

Reply = Callable[[asyncio.StreamWriter], Awaitable[None]]


async def echo(asked: Request) -> JSONResponse:
    """Tell what was asked."""
    names = ("authorization", "idempotency-key", "content-type", "host")
    headers = {name: asked.headers.get(name) for name in names}
    return JSONResponse({"body": (await asked.body()).decode(), "headers": headers}, status_code=201)


async def empty(_: Request) -> Response:
    """Give a 204."""
    return Response(status_code=204)


async def chunked(_: Request) -> StreamingResponse:
    """Give a body of unknown length."""

    async def parts() -> AsyncIterator[bytes]:
        for part in (b'{"a"', b":", b"1}"):
            yield part
            await asyncio.sleep(0)

    return StreamingResponse(parts(), media_type="application/json")


async def last(_: Request) -> JSONResponse:
    """Give an answer and close."""
    return JSONResponse({}, headers={"connection": "close"})


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    """Serve the routes above with uvicorn in a thread."""
    routes = [
        Route("/echo", echo, methods=["GET", "POST"]),
        Route("/empty", empty),
        Route("/chunked", chunked),
        Route("/last", last),
    ]
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(
            Starlette(routes=routes), log_level="warning", lifespan="off", timeout_graceful_shutdown=5
        )
    )
    # The kernel queues connections from here on, so no test has to wait until uvicorn accepts them.
    listener.listen(2048)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join()
    listener.close()


@asynccontextmanager
async def raw_server(reply: Reply) -> AsyncIterator[int]:
    """Serve on a port: `reply` to each request head, until it closes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while not writer.is_closing():
                await reader.readuntil(b"\r\n\r\n")
                await reply(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def saying(*segments: bytes, close: bool = False) -> Reply:
    """Build a reply that sends each of `segments` on its own."""

    async def reply(writer: asyncio.StreamWriter) -> None:
        for segment in segments:
            writer.write(segment)
            await writer.drain()
            # One turn of the loop, which client and server share, lets the client read this segment alone.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        if close:
            writer.close()

    return reply


def asked(reply: Reply, times: int = 1) -> list[Answer]:
    """Send GETs one after the other on one connection to a server that so replies."""

    async def run() -> list[Answer]:
        async with raw_server(reply) as port:
            connection = await connect("127.0.0.1", port)
            try:
                return [await connection.send(GET) for _ in range(times)]
            finally:
                connection.close()
                await connection.wait_closed()

    return asyncio.run(run())


def loaded(reply: Reply, *, connections: int = 2, total: int = 40, seconds: float = 20.0) -> LoadResult:
    """Load a server that so replies."""

    async def run() -> LoadResult:
        async with raw_server(reply) as port:
            return await load(
                f"http://127.0.0.1:{port}", connections, lambda _: GET, total=total, seconds=seconds
            )

    return asyncio.run(run())


def closed_port() -> int:
    """Find a port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# What is sent


def test_request_encodes_the_body_as_json() -> None:
    raw = request("POST", "/events", host="h:1", body={"seats": 2}, headers={"x-a": "b"})
    assert raw == (
        b"POST /events HTTP/1.1\r\nhost: h:1\r\nx-a: b\r\ncontent-type: application/json\r\n"
        b'content-length: 11\r\n\r\n{"seats":2}'
    )


def test_request_takes_bytes_as_they_are_and_keeps_the_given_type() -> None:
    raw = request("PUT", "/", host="h", body=b"a,b", headers={"Content-Type": "text/csv"})
    assert raw == b"PUT / HTTP/1.1\r\nhost: h\r\nContent-Type: text/csv\r\ncontent-length: 3\r\n\r\na,b"


def test_request_without_body_has_a_length_only_where_one_is_expected() -> None:
    assert request("GET", "/", host="h") == b"GET / HTTP/1.1\r\nhost: h\r\n\r\n"
    assert request("POST", "/", host="h") == b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n\r\n"


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("HEAD", "/", {}),
        ("GET", "events", {}),
        ("GET", "/a b", {}),
        ("GET", "/\r\nx: y", {}),
        ("GET", "/é", {}),
        ("GET", "/", {"x": "a\r\nb: c"}),
        ("GET", "/", {"x\r\n": "a"}),
    ],
)
def test_request_refuses_what_would_not_arrive_as_meant(
    method: str, path: str, headers: dict[str, str]
) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - of three sources, one of them the codec
        request(method, path, host="h", headers=headers)


@pytest.mark.parametrize(
    "url", ["https://h:1", "h:1", "http://", "http://h:1/api", "http://u@h:1", "http://h:1?a=b", "http://h:x"]
)
def test_api_refuses_another_kind_of_base_url(url: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the port's message is the standard library's
        Api(url)


# What comes back


def test_api_gives_status_headers_and_body(base_url: str) -> None:
    async def run() -> Answer:
        async with Api(base_url) as api:
            return await api.call("POST", "/echo", {"a": 1}, token="t", key="k")

    answer = asyncio.run(run())
    assert answer.status == 201
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["content-length"] == str(len(answer.body))
    assert answer.seconds > 0
    assert answer.json() == {
        "body": '{"a":1}',
        "headers": {
            "authorization": "Bearer t",
            "idempotency-key": "k",
            "content-type": "application/json",
            "host": base_url.removeprefix("http://"),
        },
    }


def test_api_reads_empty_chunked_and_last_answers_in_turn(base_url: str) -> None:
    async def run() -> list[Answer]:
        async with Api(base_url) as api:
            paths = ("/empty", "/echo", "/chunked", "/empty", "/echo", "/last", "/echo", "/missing")
            return [await api.call("GET", path) for path in paths]

    answers = asyncio.run(run())
    assert [answer.status for answer in answers] == [204, 201, 200, 204, 201, 200, 201, 404]
    assert answers[0].body == answers[3].body == b""
    assert answers[2].json() == {"a": 1}
    assert answers[2].headers["transfer-encoding"] == "chunked"
    assert answers[4].json()["headers"]["host"]


def test_api_uses_a_connection_again_and_opens_more_for_calls_at_once() -> None:
    writers: set[asyncio.StreamWriter] = set()

    async def reply(writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        writer.write(OK)

    async def run() -> tuple[int, int]:
        async with raw_server(reply) as port, Api(f"http://127.0.0.1:{port}", connections_max=3) as api:
            for _ in range(5):
                await api.call("GET", "/")
            in_turn = len(writers)
            await asyncio.gather(*(api.call("GET", "/") for _ in range(9)))
            return in_turn, len(writers)

    assert asyncio.run(run()) == (1, 3)


def test_api_leaves_a_connection_that_was_idle_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rowlock.cli.client.IDLE_SECONDS_MAX", 0)
    writers: set[asyncio.StreamWriter] = set()

    async def reply(writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        writer.write(OK)

    async def run() -> None:
        async with raw_server(reply) as port:
            api = Api(f"http://127.0.0.1:{port}")
            for _ in range(3):
                await api.call("GET", "/")
            api.close()

    asyncio.run(run())
    assert len(writers) == 3


def test_api_gives_up_after_its_timeout() -> None:
    async def run() -> None:
        async with (
            raw_server(saying(b"HTTP/1.1 200 OK\r\n")) as port,
            Api(f"http://127.0.0.1:{port}", timeout_seconds=0.05) as api,
        ):
            await api.call("GET", "/")

    with pytest.raises(TimeoutError):
        asyncio.run(run())


def test_header_values_keep_their_case_and_repeated_headers_are_joined() -> None:
    (answer,) = asked(saying(b"HTTP/1.1 200 OK\r\nVary: A\r\nContent-Length:2\r\nVARY:  b \r\n\r\nhi"))
    assert answer.headers == {"vary": "A, b", "content-length": "2"}


def test_an_answer_byte_by_byte_is_one_answer() -> None:
    answers = asked(saying(*(bytes([byte]) for byte in OK)), times=2)
    assert [(answer.status, answer.headers["etag"], answer.body) for answer in answers] == [
        (200, "Ab", b"hi")
    ] * 2


def test_a_chunked_answer_byte_by_byte_is_one_answer_without_its_trailer() -> None:
    raw = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nETag: Ab\r\n\r\n"
        b"3\r\nabc\r\n2\r\nde\r\n0\r\nX-Trailer: t\r\n\r\n"
    )
    answers = asked(saying(*(bytes([byte]) for byte in raw)), times=2)
    assert [answer.body for answer in answers] == [b"abcde"] * 2
    assert answers[0].headers == {"transfer-encoding": "chunked", "etag": "Ab"}


def test_a_large_answer_in_many_segments_is_whole() -> None:
    body = bytes(range(256)) * 4096
    (answer,) = asked(saying(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body), body))
    assert answer.body == body


@pytest.mark.parametrize(
    "interim", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early\r\nLink: a\r\n\r\n"]
)
def test_an_interim_answer_is_passed_over(interim: bytes) -> None:
    assert [answer.status for answer in asked(saying(interim + OK), times=2)] == [200, 200]


def test_answers_in_one_segment_go_to_their_requests_in_order() -> None:
    heads = 0
    no_content = b"HTTP/1.1 204 No Content\r\n\r\n"
    missing = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"

    async def reply(writer: asyncio.StreamWriter) -> None:
        nonlocal heads
        heads += 1
        if heads == 3:
            writer.write(OK + no_content + missing)

    async def run() -> list[Answer]:
        async with raw_server(reply) as port:
            connection = await connect("127.0.0.1", port)
            answers = await asyncio.gather(*(connection.write(GET) for _ in range(3)))
            connection.close()
            await connection.wait_closed()
            return answers

    assert [answer.status for answer in asyncio.run(run())] == [200, 204, 404]


# What goes wrong


@pytest.mark.parametrize(
    "reply",
    [
        saying(close=True),
        saying(b"HTTP/1.1 20", close=True),
        saying(CUT, close=True),
        saying(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab", close=True),
        saying(b"HTTP/1.1 200 OK\r\n\r\nuntil the end", close=True),
    ],
)
def test_a_connection_closed_before_the_answer_is_complete_is_lost(reply: Reply) -> None:
    with pytest.raises(ConnectionLost, match="ended before the answer was complete"):
        asked(reply)


@pytest.mark.parametrize(
    ("segment", "message"),
    [
        (b"220 mail.example ESMTP\r\n\r\n", "not an HTTP answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "not an HTTP answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n", "too large"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000, "too large"),
    ],
)
def test_a_malformed_answer_loses_the_connection(segment: bytes, message: str) -> None:
    with pytest.raises(ConnectionLost, match=message):
        asked(saying(segment))


def test_a_chunked_answer_too_large_loses_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rowlock.cli.wire.ANSWER_BYTES_MAX", 60)
    with pytest.raises(ConnectionLost, match="too large"):
        asked(saying(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40\r\n" + b"x" * 64))


def test_an_answer_nobody_asked_for_closes_the_connection() -> None:
    async def run() -> tuple[Answer, bool]:
        async with raw_server(saying(OK + OK)) as port:
            connection = await connect("127.0.0.1", port)
            answer = await connection.send(GET)
            await connection.wait_closed()
            return answer, connection.closed

    answer, closed = asyncio.run(run())
    assert answer.status == 200
    assert closed


def test_a_closed_connection_refuses_to_send(base_url: str) -> None:
    async def run() -> Connection:
        host, port = base_url.removeprefix("http://").split(":")
        connection = await connect(host, int(port))
        await connection.send(request("GET", "/last", host="test"))
        await connection.wait_closed()
        return connection

    connection = asyncio.run(run())
    assert connection.closed
    with pytest.raises(ConnectionLost):
        connection.write(GET)


# Race


def test_race_has_all_requests_on_their_way_at_once_and_keeps_the_order() -> None:
    racers = 100
    numbers: list[int] = []
    seen: list[tuple[int, Answer | Exception]] = []
    all_came = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = (await reader.readline()).split()[1].strip(b"/")
        numbers.append(int(number))
        # No request is answered before the last has come: a race that sent them in turn would never end.
        if len(numbers) == racers:
            all_came.set()
        await all_came.wait()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(number) + number)
        await reader.read()
        writer.close()

    async def run() -> list[Answer | Exception]:
        async with (
            await asyncio.start_server(serve, "127.0.0.1", 0) as one,
            await asyncio.start_server(serve, "127.0.0.1", 0) as other,
        ):
            urls = [f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}" for server in (one, other)]
            calls = [Call("GET", f"/{number}") for number in range(racers)]
            return await race(urls, calls, on_answer=lambda index, answer: seen.append((index, answer)))

    answers = asyncio.run(run())
    assert sorted(numbers) == list(range(racers))
    assert [answer.json() for answer in answers if isinstance(answer, Answer)] == list(range(racers))
    assert sorted(seen, key=lambda each: each[0]) == list(enumerate(answers))


def test_race_gives_each_failure_as_a_value_in_its_place() -> None:
    async def run() -> list[Answer | Exception]:
        async with (
            raw_server(saying(OK)) as good,
            raw_server(saying(CUT, close=True)) as bad,
            raw_server(saying(CUT)) as slow,
        ):
            urls = [f"http://127.0.0.1:{port}" for port in (good, bad, slow, closed_port())]
            return await race(urls, [Call("GET", "/")] * 8, timeout_seconds=1.0)

    kinds = [type(answer) for answer in asyncio.run(run())]
    assert kinds == [Answer, ConnectionLost, TimeoutError, ConnectionRefusedError] * 2


def test_race_of_nobody_is_empty() -> None:
    assert asyncio.run(race(["http://127.0.0.1:1"], [])) == []


# Load


def test_load_sends_the_total_and_counts_each_answer(base_url: str) -> None:
    numbers: list[int] = []
    bodies: list[tuple[int, bytes]] = []

    def make_request(number: int) -> bytes:
        numbers.append(number)
        return request("GET", "/echo" if number % 3 else "/chunked", host="test")

    def on_body(status: int, body: bytes) -> None:
        bodies.append((status, body))

    result = asyncio.run(load(base_url, 4, make_request, total=150, seconds=60.0, on_body=on_body))
    assert numbers == list(range(150))
    assert result.statuses == {200: 50, 201: 100}
    assert (result.requests, result.errors) == (150, 0)
    assert result.rate == pytest.approx(150 / result.seconds)
    assert 0 < result.p50_ms <= result.p95_ms <= result.p99_ms <= result.max_ms
    assert result.cpu_seconds > 0
    assert bodies.count((200, b'{"a":1}')) == 50


def test_load_opens_no_more_connections_than_requests() -> None:
    result = loaded(saying(OK), connections=10, total=3)
    assert (result.requests, result.statuses) == (3, {200: 3})


def test_load_ends_when_its_time_is_up() -> None:
    result = loaded(saying(OK), total=10**9, seconds=0.2)
    assert 0 < result.requests < 10**9
    assert result.requests == sum(result.statuses.values())


def test_load_goes_on_when_the_server_closes_after_each_answer() -> None:
    reply = saying(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n", close=True)
    result = loaded(reply)
    assert (result.requests, result.statuses, result.errors) == (40, {200: 40}, 0)


def test_load_counts_answers_cut_short_and_reconnects() -> None:
    heads = 0

    async def reply(writer: asyncio.StreamWriter) -> None:
        nonlocal heads
        heads += 1
        await saying(CUT if heads % 4 == 0 else OK, close=heads % 4 == 0)(writer)

    result = loaded(reply)
    assert (result.requests, result.statuses, result.errors) == (40, {200: 30}, 10)


def test_load_counts_malformed_answers_as_errors() -> None:
    result = loaded(saying(b"nonsense\r\n\r\n"), connections=1, total=3)
    assert (result.requests, result.statuses, result.errors) == (3, {}, 3)


def test_load_gives_up_a_lane_that_brings_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rowlock.cli.load.RECONNECT_PAUSE_SECONDS_MAX", 0)
    result = loaded(saying(CUT, close=True), connections=2, total=1000)
    assert result.statuses == {}
    assert result.requests == result.errors == 2 * FRUITLESS_CONNECTIONS_MAX
    assert (result.rate, result.max_ms) == (0.0, 0.0)


def test_load_counts_requests_still_unanswered_after_the_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rowlock.cli.load.DRAIN_SECONDS", 0.01)
    result = loaded(saying(CUT), connections=3, total=100, seconds=0.2)
    assert (result.requests, result.statuses, result.errors) == (3, {}, 3)


def test_load_counts_failed_reconnections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rowlock.cli.load.RECONNECT_PAUSE_SECONDS_MAX", 0)

    async def run() -> LoadResult:
        server: asyncio.Server

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            server.close()
            writer.write(OK)
            await reader.readuntil(b"\r\n\r\n")
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        return await load(f"http://127.0.0.1:{port}", 1, lambda _: GET, total=100, seconds=20.0)

    result = asyncio.run(run())
    assert result.statuses == {200: 1}
    assert result.errors == 1 + FRUITLESS_CONNECTIONS_MAX
    assert result.requests == sum(result.statuses.values()) + result.errors


def test_load_raises_if_nobody_listens() -> None:
    with pytest.raises(ConnectionRefusedError):
        asyncio.run(load(f"http://127.0.0.1:{closed_port()}", 2, lambda _: GET, total=5, seconds=5.0))


@pytest.mark.parametrize("failing_at", [0, 7])
def test_load_raises_what_its_caller_s_functions_raise(base_url: str, failing_at: int) -> None:
    def make_request(number: int) -> bytes:
        if number == failing_at:
            raise LookupError(number)
        return request("GET", "/empty", host="test")

    with pytest.raises(LookupError):
        asyncio.run(load(base_url, 3, make_request, total=100, seconds=20.0))


@pytest.mark.parametrize(("connections", "total"), [(0, 1), (1, 0)])
def test_load_refuses_an_empty_load(connections: int, total: int) -> None:
    with pytest.raises(ValueError, match="at least one"):
        asyncio.run(load("http://127.0.0.1:1", connections, lambda _: GET, total=total, seconds=1.0))
