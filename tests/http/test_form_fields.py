"""Form fields: what a model asks for becomes fields, and what is typed into them its data again."""

from __future__ import annotations

from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field
from referencing.exceptions import Unresolvable

from tinyworkflow_core.approval_forms import check_data
from tinyworkflow_core.errors import InvalidInputError
from tinyworkflow_core.http.form_fields import fields_of, read_data


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Part(BaseModel):
    name: str


class Everything(BaseModel):
    text: str = Field(title="Some text", description="Any you like", max_length=50)
    long: str = Field("initial", max_length=5000)
    count: int = Field(ge=1, le=9)
    ratio: float = 0.5
    price: Decimal
    agreed: bool = False
    maybe: bool | None = None
    colour: Colour
    level: Literal[1, 2]
    day: date
    moment: datetime | None = None
    clock: time | None = None
    nickname: str | None = None
    part: Part
    parts: list[Part] = []


SCHEMA = Everything.model_json_schema()
TYPED = {
    "data.text": "a\r\nb", "data.long": "", "data.count": " 3 ", "data.ratio": "", "data.price": "1.50",
    "data.agreed": "on", "data.maybe": "false", "data.colour": '"red"', "data.level": "2", "data.day": "2026-02-28",
    "data.moment": "2026-02-28T12:30", "data.clock": "", "data.nickname": "", "data.part": '{"name": "wheel"}',
    "data.parts": "[]",
}  # fmt: skip


def test_each_type_has_its_kind_of_field() -> None:
    kinds = {one.name: one.kind for one in fields_of(SCHEMA)}
    assert kinds == {
        "text": "text", "long": "longtext", "count": "integer", "ratio": "number", "price": "text",
        "agreed": "checkbox", "maybe": "choice", "colour": "choice", "level": "choice", "day": "date",
        "moment": "datetime", "clock": "time", "nickname": "text", "part": "json", "parts": "json",
    }  # fmt: skip
    fields = {one.name: one for one in fields_of(SCHEMA)}
    assert [name for name, one in fields.items() if one.required] == [
        "text", "count", "price", "colour", "level", "day", "part",
    ]  # fmt: skip
    text = fields["text"]
    assert (text.label, text.hint, text.attributes) == ("Some text", "Any you like", {"maxlength": "50"})
    assert fields["colour"].choices == (('"red"', "red"), ('"blue"', "blue"))
    assert (fields["long"].initial, fields["ratio"].initial, fields["parts"].initial) == ("initial", "0.5", "[]")


def test_what_is_typed_becomes_data_that_fits_the_model() -> None:
    data = read_data(fields_of(SCHEMA), TYPED)
    check_data(SCHEMA, data)
    assert Everything.model_validate(data) == Everything(
        text="a\nb", long="", count=3, price=Decimal("1.50"), agreed=True, maybe=False, colour=Colour.RED, level=2,
        day=date(2026, 2, 28), moment=datetime(2026, 2, 28, 12, 30), part=Part(name="wheel"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text", "place", "words"),
    [
        ("text", " ", ["text"], "is required"),
        ("text", "x" * 51, ["text"], "must have at most 50 characters"),
        ("count", "three", ["count"], "must be a whole number"),
        ("count", "2.5", ["count"], "must be a whole number"),
        ("count", "0", ["count"], "must be at least 1"),
        ("count", "1e999", ["count"], "must be a whole number"),
        ("count", "NaN", ["count"], "must be a whole number"),
        ("count", "true", ["count"], "must be a whole number"),
        ("ratio", "1e999", ["ratio"], "must be a number"),
        ("maybe", "perhaps", ["maybe"], "must be true or false"),
        ("colour", '"green"', ["colour"], "must be one of red, blue"),
        ("level", "3", ["level"], "must be one of 1, 2"),
        ("day", "2026-02-30", ["day"], "must be a valid date"),
        ("moment", "soon", ["moment"], "must be a valid date-time"),
        ("part", '{"name": 1}', ["part", "name"], "must be text"),
        ("part", "{wheel", ["part"], "must be JSON"),
        ("part", "[" * 100_000, ["part"], "must be JSON"),
        ("parts", '[{"name": "a"}, {}]', ["parts", 1, "name"], "is required"),
    ],
)
def test_what_does_not_fit_is_told_at_its_field_and_in_words(name: str, text: str, place: Any, words: str) -> None:
    with pytest.raises(InvalidInputError) as raised:
        check_data(SCHEMA, read_data(fields_of(SCHEMA), TYPED | {f"data.{name}": text}))
    (error,) = raised.value.errors
    assert error["loc"] == ["data", *place]
    assert words in error["msg"]


def test_data_that_is_no_object_is_typed_as_json() -> None:
    (field,) = fields_of({"type": "array", "items": {"type": "integer"}, "title": "Numbers"})
    assert (field.kind, field.input_name, field.label) == ("json", "data", "Numbers")
    assert read_data([field], {"data": "[1, 2]"}) == [1, 2]


def test_a_reference_out_of_the_schema_is_never_followed() -> None:
    with pytest.raises(Unresolvable):
        check_data({"$ref": "http://127.0.0.1:9/schema"}, {})
