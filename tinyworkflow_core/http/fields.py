"""Fields: what the models of requests are made of.

They are pydantic's, and pydantic is a large part of a cold start: whoever needs a model imports it from
`run_requests.py` or `schedule_requests.py` where a request of its kind is read.
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from .bodies import MAX_NAME_CHARACTERS


class Fields(BaseModel):
    """The fields of a request: no other fields, and no types but those that are declared."""

    # Built when the first such request comes: a process sees few kinds of them.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)


class QueryFields(Fields):
    """Parameters of a query string: texts that stand for other types."""

    model_config = ConfigDict(strict=False)


def _moment(value: Any) -> Any:
    # Left to itself pydantic takes a number for seconds since 1970, which the documented format does not say.
    return datetime.fromisoformat(value) if isinstance(value, str) else value


Moment = Annotated[AwareDatetime, BeforeValidator(_moment)]
"""A moment as text: ISO 8601 with a zone."""

Text = Annotated[str, StringConstraints(min_length=1, max_length=MAX_NAME_CHARACTERS)]


def _attribute(value: Any) -> Any:
    match value:
        case bool() | float() if math.isfinite(value):
            return value
        case int() if -(2**63) <= value < 2**63:
            return value
        case str() if len(value) <= 1000 and value.isprintable():  # a lone surrogate is not
            return value
    raise ValueError("an attribute is a printable text of up to 1000 characters, a number of 64 bits, or a boolean")


Attributes = Annotated[dict[Text, Annotated[Any, AfterValidator(_attribute)]], Field(max_length=50)]
