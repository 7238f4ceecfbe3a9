"""Bodies: what comes in with a request, read within bounds and checked before anything looks at it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from starlette.requests import Request

from .problems import HttpProblem

if TYPE_CHECKING:
    from pydantic import BaseModel

MAX_BODY_BYTES = 1024 * 1024
MAX_NAME_CHARACTERS = 200
"""Of an id, and of whatever else names something."""
MAX_NESTING = 100
"""Levels of arrays and objects: far under what makes a parser, the codec or a reader run out of stack."""
MAX_ERRORS = 20
"""Of a body that is wrong in many places so many are told."""

M = TypeVar("M", bound="BaseModel")


async def read(request: Request, limit: int) -> bytes:
    """The body. Raises a 413 as soon as more than `limit` bytes have come in, whatever was announced."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise HttpProblem(413, f"the body is over the limit of {limit} bytes", kind="body-too-large")
    return bytes(body)


def parse_json(body: bytes) -> Any:
    """The body as JSON data. Raises a 400 for what is not JSON, or nested deeper than MAX_NESTING."""
    try:
        text = body.decode()
        data = json.loads(text, parse_constant=_no_constant)
    except ValueError as error:  # also text that is not UTF-8, and numbers with thousands of digits
        raise HttpProblem(400, f"the body is not JSON: {error}", kind="not-json") from None
    except RecursionError:
        raise _too_deep() from None
    if text.count("[") + text.count("{") > MAX_NESTING and _nesting(data) > MAX_NESTING:
        raise _too_deep()
    return data


async def read_json(request: Request, limit: int) -> Any:
    """The body as JSON data; None when there is none."""
    body = await read(request, limit)
    return parse_json(body) if body.strip() else None


async def read_fields(request: Request, model: type[M], limit: int) -> M:
    """The body as `model`; no body is an empty object. Raises a 422 that names every field that does not fit."""
    body = await read(request, limit)
    return check(model, parse_json(body) if body.strip() else {}, "body")


def query_fields(request: Request, model: type[M]) -> M:
    """The query string as `model`. Raises a 422 that names every parameter that does not fit."""
    return check(model, dict(request.query_params), "query")


def check(model: type[M], data: object, place: str) -> M:
    """`data` as `model`, or a 422."""
    from pydantic import ValidationError  # it is loaded by now: whoever has a model has imported it

    try:
        return model.model_validate(data)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        errors = [
            {"loc": [place, *map(_short, one["loc"])], "msg": one["msg"], "type": one["type"]}
            for one in found[:MAX_ERRORS]
        ]
        first = errors[0]
        where = ".".join(str(part) for part in first["loc"])
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        detail = f"{where}: {first['msg']}{more}"
        raise HttpProblem(422, detail, kind="invalid-request", errors=errors) from None


def header_of(request: Request, name: str, *, most: int = 255) -> str | None:
    """A header's value, if it is there. Raises a 400 for one that is empty or longer than `most` characters."""
    value = request.headers.get(name)
    if value is not None and not 0 < len(value) <= most:
        raise HttpProblem(400, f"the header {name} must have 1 to {most} characters", kind="invalid-header")
    return value


def lower_headers(request: Request) -> Mapping[str, str]:
    """All headers by lower-cased name; of one that comes several times the last."""
    return {name.lower(): value for name, value in request.headers.items()}


def _short(part: str | int) -> str | int:
    return part if isinstance(part, int) else part[:100]


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _too_deep() -> HttpProblem:
    return HttpProblem(400, f"the body is nested deeper than {MAX_NESTING} levels", kind="not-json")


def _nesting(data: Any) -> int:
    depth, level = 0, [data]
    while level := [one for one in level if isinstance(one, dict | list)]:
        depth += 1
        if depth > MAX_NESTING:
            break
        level = [one for holder in level for one in (holder.values() if isinstance(holder, dict) else holder)]
    return depth
