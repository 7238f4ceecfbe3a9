"""Approval forms: whether the data of a decision fits the form that the question was asked with.

It is checked against the JSON schema that stands in the question, not against the model that it was made from: that
schema is what was shown to the person, it is the same after the next deployment, the function that people reach needs
none of the workflows' code, and no code of theirs runs for a stranger's data. What only the model can say (its own
validators) the workflow asks of it: `Model.model_validate(answer.data)`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from typing import Any

from .errors import InvalidInputError

MAX_ERRORS = 20
"""Of data that is wrong in many places so many are told."""

_FORMATS: dict[str, Callable[[str], object]] = {
    "date": date.fromisoformat,
    "date-time": datetime.fromisoformat,
    "time": time.fromisoformat,
}

_KINDS = {
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
    "object": "an object",
    "array": "a list",
    "null": "nothing",
}


def check_data(schema: Mapping[str, Any], data: Any) -> None:
    """Returns when `data` (plain JSON data) fits. Raises InvalidInputError; `loc` of its errors begins with "data"."""
    from jsonschema import Draft202012Validator, FormatChecker  # only where a form is used: no part of a cold start
    from referencing import Registry

    checker = FormatChecker(formats=("email", "uuid"))
    for name, parse in _FORMATS.items():
        checker.checks(name, raises=ValueError)(_parses(parse))
    # An empty registry: a reference out of the schema is an error, and never a request to somewhere.
    validator = Draft202012Validator(schema, format_checker=checker, registry=Registry())
    found = sorted(validator.iter_errors(data), key=lambda error: [str(part) for part in error.absolute_path])
    if not found:
        return
    listed = {tuple(error.absolute_path) for error in found if error.validator in ("enum", "const")}
    errors = [
        one
        for error in found
        # Of a choice it is enough to hear what there is to choose from.
        if not (error.validator == "type" and tuple(error.absolute_path) in listed)
        for one in _told(error)
    ]
    first, more = errors[0], f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    where = ".".join(str(part) for part in first["loc"])
    raise InvalidInputError(f"{where}: {first['msg']}{more}", errors[:MAX_ERRORS])


def _parses(parse: Callable[[str], object]) -> Callable[[object], bool]:
    def fits(value: object) -> bool:
        if isinstance(value, str):
            parse(value)
        return True

    return fits


def _told(error: Any) -> list[dict[str, Any]]:
    loc = ["data", *(part if isinstance(part, int) else str(part)[:100] for part in error.absolute_path)]
    if error.validator == "required":
        missing = [one for one in error.validator_value if one not in error.instance]
        return [{"loc": [*loc, one], "msg": "is required", "type": "required"} for one in missing]
    if error.validator == "additionalProperties":
        known = error.schema.get("properties", {})
        return [
            {"loc": [*loc, one[:100]], "msg": "is not asked for", "type": "additionalProperties"}
            for one in error.instance
            if one not in known
        ]
    return [{"loc": loc, "msg": _words(error), "type": str(error.validator)}]


def _words(error: Any) -> str:
    """What is wrong, for whoever filled in the form, without repeating what was filled in."""
    limit = error.validator_value
    match error.validator:
        case "type":
            kinds = [limit] if isinstance(limit, str) else limit
            return f"must be {' or '.join(_KINDS.get(one, one) for one in kinds)}"
        case "enum":
            return f"must be one of {', '.join(map(str, limit))}"
        case "const":
            return f"must be {limit}"
        case "minimum":
            return f"must be at least {limit}"
        case "exclusiveMinimum":
            return f"must be more than {limit}"
        case "maximum":
            return f"must be at most {limit}"
        case "exclusiveMaximum":
            return f"must be less than {limit}"
        case "minLength":
            return f"must have at least {limit} character{'' if limit == 1 else 's'}"
        case "maxLength":
            return f"must have at most {limit} characters"
        case "format":
            return f"must be a valid {limit}"
        case "anyOf" | "oneOf" if error.context:
            # Of an optional field: what speaks against the value, not that it is not null.
            told = [_words(one) for one in error.context if one.validator_value != "null"]
            return " or ".join(dict.fromkeys(told)) or "does not fit"
        case other:
            return f"does not fit ({other}: {str(limit)[:100]})"
