"""What the handlers of all features take: the database, pages, and texts that PostgreSQL can keep."""

from typing import Annotated

from fastapi import Depends, Query
from pydantic import StringConstraints

from rowlock.kernel.database import Database
from rowlock.kernel.paging import PAGE_MAX
from rowlock.web.auth import database

ROOT = "/api/v1"
CURSOR_MAX_CHARACTERS = 200
# PostgreSQL keeps no NUL; at least one character must be left when the spaces around are gone.
_SOME_TEXT = r"^[^\x00]*[^\s\x00][^\x00]*$"

Db = Annotated[Database, Depends(database)]
Limit = Annotated[int, Query(ge=1, le=PAGE_MAX)]
Cursor = Annotated[str | None, Query(max_length=CURSOR_MAX_CHARACTERS)]
Name = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200, pattern=_SOME_TEXT)
]
