"""JSON bodies of the hottest routes, decoded by msgspec: twice as fast as the framework's own way.

On the happy path one call does it; only a refused body is looked at again, field by field, to name all that is wrong.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from rowlock.kernel.errors import ValidationFailed

Shape = TypeVar("Shape", bound=msgspec.Struct)
# Beside its own error msgspec lets these through: bytes that are no UTF-8, and brackets nested a thousand deep.
_NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def decode(body: bytes, shape: type[Shape]) -> Shape:
    """Decode a JSON object.

    Raises:
        ValidationFailed: it is not JSON, or some fields are missing, unknown or wrong.

    """
    try:
        return msgspec.json.decode(body, type=shape)
    except msgspec.ValidationError as error:
        raise ValidationFailed(_all_that_is_wrong(body, shape, str(error))) from None
    except _NOT_JSON:
        raise ValidationFailed([_not_json()]) from None


def clean(text: str) -> str:
    """Strip the spaces around a text and refuse NUL, which PostgreSQL cannot keep.

    Raises:
        ValueError: nothing is left, or there is a NUL.

    """
    stripped = text.strip()
    if not stripped or "\0" in stripped:
        message = "A text that is not empty and has no NUL character."
        raise ValueError(message)
    return stripped


def _all_that_is_wrong(body: bytes, shape: type[msgspec.Struct], first: str) -> list[dict[str, str]]:
    try:
        raw = msgspec.json.decode(body)
    except msgspec.ValidationError:
        return [{"pointer": "", "detail": first}]  # a number that no type can hold
    except _NOT_JSON:
        return [_not_json()]  # the first fault of a field came before that of the text
    if not isinstance(raw, dict):
        return [{"pointer": "", "detail": "The body is not a JSON object."}]
    fields = {field.encode_name: field for field in msgspec.structs.fields(shape)}
    wrong = [(name, "Unknown field.") for name in raw if name not in fields]
    for name, field in fields.items():
        if name in raw:
            wrong += [(name, detail) for detail in _refusal(raw[name], field.type)]
        elif field.required:
            wrong.append((name, "Field required."))
    return [{"pointer": f"/{_escaped(name)}", "detail": detail} for name, detail in wrong] or [
        {"pointer": "", "detail": first}
    ]


def _not_json() -> dict[str, str]:
    return {"pointer": "", "detail": "The body is not JSON."}


def _refusal(value: Any, wanted: Any) -> list[str]:
    try:
        msgspec.convert(value, wanted)
    except msgspec.ValidationError as error:
        return [str(error)]
    return []


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
