"""The API's pages for people: Swagger UI on `/openapi.json`, from files that come with the program.

Nothing is fetched from anywhere else, and the page's policy makes the browser refuse to.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.staticfiles import StaticFiles

from rowlock.kernel.errors import NotFound

if TYPE_CHECKING:
    from starlette.requests import Request

FOLDER = Path(__file__).parent / "static" / "swagger-ui"
TYPES = {
    "init.js": "text/javascript; charset=utf-8",
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "swagger-ui.css": "text/css; charset=utf-8",
}
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Rowlock API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/static/swagger-ui/swagger-ui.css">
<script src="/static/swagger-ui/swagger-ui-bundle.js" defer></script>
<script src="/static/swagger-ui/init.js" defer></script>
</head>
<body>
<main id="swagger-ui"></main>
<noscript>This page needs JavaScript. What it shows is written in <a href="/openapi.json">/openapi.json</a>.</noscript>
</body>
</html>
"""
# Swagger UI needs no inline style (it sets them through the DOM); its style sheet's icons are data: images.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# An hour, then the browser asks with If-None-Match; the names carry no version, so not for ever.
CACHING = "public, max-age=3600"

_files = StaticFiles(directory=FOLDER)


def routes() -> list[Route]:
    """Return the routes of the page and of the files it loads."""
    return [Route("/docs", _page), Route("/static/swagger-ui/{name}", _file)]


async def _page(_request: Request) -> Response:
    return HTMLResponse(PAGE, headers={"Content-Security-Policy": POLICY})


async def _file(request: Request) -> Response:
    """Send one of the files that the page loads, and no other of the folder.

    Raises:
        NotFound: the page loads no such file.

    """
    name = request.path_params["name"]
    if name not in TYPES:
        raise NotFound
    response = await _files.get_response(name, request.scope)
    response.headers["Cache-Control"] = CACHING
    response.headers["X-Content-Type-Options"] = "nosniff"
    if response.status_code == 200:  # noqa: PLR2004 - a 304 has no body to name the type of
        response.headers["Content-Type"] = TYPES[name]
    return response
