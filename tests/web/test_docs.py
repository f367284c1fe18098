"""The documentation's page: it loads, it loads only from here, and the vendored files are what they claim to be."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

import httpx
import pytest
from starlette.applications import Starlette

from rowlock.web import docs, problems

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CHECKSUM = re.compile(r"([0-9a-f]{64})  (\S+)")
OURS = {"CHECKSUMS", "init.js"}


@pytest.fixture
async def site() -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of an application that has nothing but the documentation."""
    app = Starlette(routes=docs.routes(), exception_handlers=problems.handlers())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        yield client


def checksums() -> dict[str, str]:
    """Read CHECKSUMS: file name to SHA-256."""
    lines = (docs.FOLDER / "CHECKSUMS").read_text().splitlines()
    return {match[2]: match[1] for line in lines if (match := CHECKSUM.fullmatch(line))}


def test_every_vendored_file_has_its_checksum() -> None:
    actual = {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in docs.FOLDER.iterdir()
        if file.name not in OURS
    }
    assert actual == checksums()


def test_the_vendored_release_is_named() -> None:
    first = (docs.FOLDER / "CHECKSUMS").read_text().splitlines()[0]
    assert re.search(r"swagger-ui-dist \d+\.\d+\.\d+, unmodified", first)


async def test_everything_the_page_loads_is_here(site: httpx.AsyncClient) -> None:
    page = await site.get("/docs")
    assert page.status_code == 200
    assert "<title>Rowlock API</title>" in page.text
    loaded = re.findall(r'<(?:script src|link rel="stylesheet" href)="([^"]+)"', page.text)
    assert len(loaded) == len(docs.TYPES)
    for url in loaded:
        answer = await site.get(url)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == docs.TYPES[url.rpartition("/")[2]]
        assert answer.headers["x-content-type-options"] == "nosniff"


async def test_the_page_allows_no_other_origin_and_no_inline_script(site: httpx.AsyncClient) -> None:
    page = await site.get("/docs")
    policy = dict(rule.split(" ", 1) for rule in page.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == "'self'"
    assert policy["style-src"] == "'self'"
    assert policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert "://" not in page.text


async def test_a_file_is_sent_once_and_then_only_confirmed(site: httpx.AsyncClient) -> None:
    first = await site.get("/static/swagger-ui/swagger-ui.css")
    assert first.headers["cache-control"] == docs.CACHING
    again = await site.get(
        "/static/swagger-ui/swagger-ui.css", headers={"If-None-Match": first.headers["etag"]}
    )
    assert again.status_code == 304
    assert again.content == b""


@pytest.mark.parametrize(
    "name", ["CHECKSUMS", "LICENSE", "swagger-ui-bundle.js.map", "..%2Fdocs.py", "%2Fetc%2Fpasswd"]
)
async def test_no_other_file_is_sent(site: httpx.AsyncClient, name: str) -> None:
    answer = await site.get(f"/static/swagger-ui/{name}")
    assert answer.status_code == 404
    assert answer.json()["code"] == "not_found"
