"""OpenAPI 3.1: what this process answers, as a document that is made from the models that check it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from importlib import import_module
from typing import Any, Literal, NotRequired

from starlette.requests import Request
from typing_extensions import TypedDict

from .answers import Json
from .operations import Html, Operation, Raw, documented_problems

_PARAMETER = re.compile(r"\{(\w+)(?::\w+)?\}")
_REFERENCE = "#/components/schemas/{model}"


_LONGEST = {"Idempotency-Key": 255, "If-Match": 1000}
"""Characters of the headers that must not be empty where they are sent."""


class ProblemError(TypedDict):
    """One field that does not fit."""

    loc: list[str | int]
    msg: str
    type: str


class Problem(TypedDict):
    """An error by RFC 9457. `type` is urn:tinyworkflow:problem:KIND, or about:blank where the status says all."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    run_id: NotRequired[str]
    errors: NotRequired[list[ProblemError]]


def openapi_operation(operations: Sequence[Operation]) -> Operation:
    """The operation that describes the others and itself. The document is made at its first call, once."""
    made: dict[str, Any] = {}

    async def endpoint(request: Request) -> Json:
        if not made:
            made.update(document([*operations, itself]))
        root = request.scope.get("root_path", "")
        return Json(made | {"servers": [{"url": root}]} if root else made)

    itself = Operation(
        method="GET",
        path="/openapi.json",
        endpoint=endpoint,
        summary="This document",
        scope=None,
        answers={200: dict[str, Any]},
    )
    return itself


def document(operations: Iterable[Operation]) -> dict[str, Any]:
    """The OpenAPI 3.1 document of these operations."""
    operations = list(operations)
    schemas, definitions = _schemas(operations)
    paths: dict[str, dict[str, Any]] = {}
    for one in operations:
        path = paths.setdefault(_PARAMETER.sub(r"{\1}", one.path), {})
        path[one.method.lower()] = _operation(one, schemas)
    version = sys.modules[__name__.partition(".")[0]].__version__
    return {
        "openapi": "3.1.0",
        "info": {"title": "TinyWorkflow Core", "version": version, "summary": "Durable workflows over HTTP."},
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": dict(sorted(definitions.items())),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


_Key = tuple[int, Literal["validation", "serialization"]]
_Schemas = Mapping[_Key, dict[str, Any]]


def _schemas(operations: Sequence[Operation]) -> tuple[_Schemas, dict[str, Any]]:
    """Each type's schema by its identity and direction, and what the schemas refer to by name."""
    from pydantic import TypeAdapter

    found: dict[_Key, TypeAdapter[Any]] = {(id(Problem), "serialization"): TypeAdapter(Problem)}
    for one in operations:
        for kind in (_model(one.query), _model(one.body)):
            if kind not in (None, Raw):
                found[id(kind), "validation"] = TypeAdapter(kind)
        for kind in one.answers.values():
            if kind not in (None, Html):
                found[id(kind), "serialization"] = TypeAdapter(kind)
    inputs = [(key, key[1], adapter) for key, adapter in found.items()]
    made, rest = TypeAdapter.json_schemas(inputs, ref_template=_REFERENCE)
    return {key: schema for (key, _), schema in made.items()}, rest.get("$defs", {})


def _model(named: Any) -> Any:
    """The class that an operation names; what it holds itself stays."""
    if not isinstance(named, str):
        return named
    module, _, name = named.partition(".")
    return getattr(import_module(f".{module}", __package__), name)


def _operation(one: Operation, schemas: _Schemas) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": _operation_id(one),
        "summary": one.summary,
        "tags": [one.path.strip("/").split("/")[1 if one.path.startswith("/v1/") else 0]],
        "parameters": [*_path_parameters(one), *_query_parameters(one, schemas), *_header_parameters(one)],
        "responses": _responses(one, schemas),
        "security": [] if one.scope is None else [{"bearer": []}, {"key": []}],
    }
    if one.scope is not None:
        described["x-scope"] = one.scope.value
    if one.body is Raw:
        described["requestBody"] = {"required": True, "content": {"*/*": {}}}
    elif one.body is not None:
        schema = schemas[id(_model(one.body)), "validation"]
        described["requestBody"] = {
            "required": one.body_required,
            "content": {"application/json": {"schema": schema}},
        }
    return described


def _operation_id(one: Operation) -> str:
    words = re.sub(r"[^a-z0-9]+", "_", _PARAMETER.sub(r"by_\1", one.path.removeprefix("/v1")).lower()).strip("_")
    return f"{one.method.lower()}_{words}"


def _path_parameters(one: Operation) -> list[dict[str, Any]]:
    return [
        {
            "name": found[1],
            "in": "path",
            "required": True,
            "schema": {"type": "string", "minLength": 1},
            **({"description": "It may contain slashes."} if ":path" in found[0] else {}),
        }
        for found in _PARAMETER.finditer(one.path)
    ]


def _query_parameters(one: Operation, schemas: _Schemas) -> list[dict[str, Any]]:
    if one.query is None:
        return []
    schema = _model(one.query).model_json_schema(ref_template=_REFERENCE)
    required = schema.get("required", ())
    return [
        {"name": name, "in": "query", "required": name in required, "schema": _not_null(field)}
        for name, field in schema.get("properties", {}).items()
    ]


def _not_null(field: dict[str, Any]) -> dict[str, Any]:
    """A parameter's schema: it is there or not, and never null."""
    kinds = [kind for kind in field.get("anyOf", ()) if kind.get("type") != "null"]
    if not kinds:
        return field
    rest = {name: value for name, value in field.items() if name not in ("anyOf", "default")}
    return rest | (kinds[0] if len(kinds) == 1 else {"anyOf": kinds})


def _header_parameters(one: Operation) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "header",
            "required": False,
            "description": meaning,
            "schema": {"type": "string", **({"minLength": 1, "maxLength": _LONGEST[name]} if name in _LONGEST else {})},
        }
        for name, meaning in one.headers.items()
    ]


def _responses(one: Operation, schemas: _Schemas) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, kind in one.answers.items():
        answer: dict[str, Any] = {"description": HTTPStatus(status).phrase}
        if kind is Html:
            answer["content"] = {"text/html": {"schema": {"type": "string"}}}
        elif kind is not None:
            answer["content"] = {"application/json": {"schema": schemas[id(kind), "serialization"]}}
        responses[str(status)] = answer
    problem = {"application/problem+json": {"schema": schemas[id(Problem), "serialization"]}}
    for status in documented_problems(one):
        responses.setdefault(str(status), {"description": HTTPStatus(status).phrase, "content": problem})
    return dict(sorted(responses.items()))
