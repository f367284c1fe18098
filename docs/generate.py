"""Write the pages of docs/reference that are made from the code: `make docs`. A test sees that they are up to date."""  # noqa: INP001 - a script, not a package

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import REGISTRY

import rowlock.app  # noqa: F401 - with it come all problems of all features, and all metrics
from rowlock.accounts.model import ALLOWED, KEY_SCOPES, Permission
from rowlock.kernel.settings import Settings
from rowlock.web.problems import all_problems, status_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pydantic.fields import FieldInfo

    from rowlock.kernel.errors import Problem

REFERENCE = Path(__file__).parent / "reference"
MADE = "<!-- Made by `make docs` from {source}. Change it there. -->"

SETTINGS = """# Settings

{made}

Every setting is an environment variable, read once when a command starts. Where a command has an option of the same
name, the option wins. All wrong settings are named at once, in one line, and the command ends with exit code 1.

{table}

A yes is `true`, `1`, `yes` or `on`; a no is `false`, `0`, `no` or `off`.

`sale_connections` and `other_connections` count for each server process, beside one or two that a starting command
takes for a moment. The embedded PostgreSQL allows 200 connections in all.
"""

PROBLEMS = """# Problems

{made}

A request that is refused is answered by a problem: `application/problem+json`, as
[RFC 9457](https://www.rfc-editor.org/rfc/rfc9457) describes it. Programs should look at `code`: it stays. `title` is
for people and may be worded better one day; `detail` is about this one occurrence.

```json
{{
  "type": "/problems/sold_out",
  "title": "Event full",
  "status": 409,
  "detail": "No seat is left.",
  "code": "sold_out",
  "request_id": "01a210ad94827115b7851204d2993042",
  "available": 0
}}
```

`type` leads to a page of the server that explains the code. `request_id` is also in the header `X-Request-Id` and in
the server's log. 503 and 429 carry `Retry-After`, in seconds; 401 carries `WWW-Authenticate: Bearer`.

"Busy" is not "sold out": whoever cannot be served in time gets 503 and may come again; 409 `sold_out` is said only
when, at that moment, there was no seat.

{table}

## More about some of them

{sections}
"""

METRICS = """# Metrics

{made}

`GET /metrics` answers in Prometheus' text format. With several workers it answers for all of them. Names and labels are
part of the interface: dashboards are built on them. The usual `process_*` and `python_*` metrics are there too when one
process serves.

{table}

[Watch the locks](../howto/watch-the-locks.md) says which of them to look at when.
"""

ROLES = """# Roles and scopes

{made}

A member of an organization has one role. What it allows:

{table}

An API key has the scopes that it was given when it was made. It can have:

{scopes}

So a key can make neither members nor other keys.

Anybody, signed in or not, may see events that are not drafts and register for those that are on sale. The owner of a
registration, and whoever has its secret link, may see and cancel it.
"""


def pages() -> dict[Path, str]:
    """Return each page's place and what it should say."""
    return {
        REFERENCE / "settings.md": _settings(),
        REFERENCE / "problems.md": _problems(),
        REFERENCE / "metrics.md": _metrics(),
        REFERENCE / "roles.md": _roles(),
    }


def _settings() -> str:
    rows = [
        (f"`ROWLOCK_{name.upper()}`", _default(name, field), (field.description or "") + _bounds(field))
        for name, field in Settings.model_fields.items()
    ]
    table = _table(("variable", "default", "meaning"), rows)
    return SETTINGS.format(made=MADE.format(source="src/rowlock/kernel/settings.py"), table=table)


def _default(name: str, field: FieldInfo) -> str:
    if name == "data_dir":
        # As the XDG Base Directory Specification says, whoever is at home here.
        return "`$XDG_DATA_HOME/rowlock`, else `~/.local/share/rowlock`"
    value = field.get_default()
    return "unset" if value is None else f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _bounds(field: FieldInfo) -> str:
    signs = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
    bounds = [
        f"{words} {getattr(limit, sign):,}".replace(",", " ")
        for limit in field.metadata
        for sign, words in signs.items()
        if getattr(limit, sign, None) is not None
    ]
    return f" ({', '.join(bounds)})" if bounds else ""


def _problems() -> str:
    kinds = sorted(all_problems(), key=lambda kind: (status_of(kind), kind.code))
    table = _table(
        ("status", "code", "title"),
        [
            (
                str(status_of(kind)),
                f"[`{kind.code}`](#{kind.code})" if _more(kind) else f"`{kind.code}`",
                kind.title,
            )
            for kind in kinds
        ],
    )
    sections = "\n\n".join(f"### {kind.code}\n\n{more}" for kind in kinds if (more := _more(kind)))
    made = MADE.format(source="the problem classes in src/rowlock")
    return PROBLEMS.format(made=made, table=table, sections=sections)


def _more(kind: type[Problem]) -> str:
    """Return what a problem's docstring says after its title."""
    _, _, rest = (kind.__doc__ or "").strip().partition("\n")
    return "\n".join(line.strip() for line in rest.strip().splitlines())


def _metrics() -> str:
    families = [family for family in REGISTRY.collect() if family.name.startswith("rowlock_")]
    rows = []
    for family in sorted(families, key=lambda family: family.name):
        name = family.name + ("_total" if family.type == "counter" else "")
        collector = REGISTRY._names_to_collectors[family.name]  # noqa: SLF001 - labels are told only with samples
        labels = ", ".join(f"`{label}`" for label in getattr(collector, "_labelnames", ()))
        rows.append((f"`{name}`", family.type, labels, family.documentation))
    table = _table(("metric", "type", "labels", "meaning"), rows)
    return METRICS.format(made=MADE.format(source="src/rowlock/kernel/metrics.py"), table=table)


def _roles() -> str:
    rows = [
        (f"`{permission}`", *("yes" if permission in allowed else "" for allowed in ALLOWED.values()))
        for permission in Permission
    ]
    table = _table(("permission", *(f"`{role}`" for role in ALLOWED)), rows)
    scopes = "\n".join(f"- `{scope}`" for scope in sorted(KEY_SCOPES))
    made = MADE.format(source="src/rowlock/accounts/model.py")
    return ROLES.format(made=made, table=table, scopes=scopes)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(re.sub(r" {2,}", " ", f"| {' | '.join(line)} |") for line in lines)


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text)
