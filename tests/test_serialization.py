"""Codec: what goes in comes out, equal and of the same type; what cannot is refused by name."""

from __future__ import annotations

import dataclasses
import enum
import functools
import importlib
import itertools
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

import pydantic
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tinyworkflow_core.errors import ActivityError, ApplicationError, PayloadTooLargeError, SerializationError
from tinyworkflow_core.sealing import Sealing
from tinyworkflow_core.serialization import Codec, Failure, digest

codec = Codec()
BERLIN = ZoneInfo("Europe/Berlin")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"
    AZURE = "blue"  # noqa: PIE796 an alias, on purpose


class Level(enum.IntEnum):
    LOW = 1


class Mood(enum.StrEnum):
    GOOD = "good"


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: Any
    y: Any = 0


class FussyPair(NamedTuple("_Pair", [("a", int), ("b", int)])):
    """A named tuple that is not made from its own items."""

    def __new__(cls, both: int) -> FussyPair:
        return super().__new__(cls, both, both)


@dataclasses.dataclass(frozen=True, slots=True)
class Leg:
    flight: str
    seats: tuple[Any, ...] = ()
    note: Any = None


@dataclasses.dataclass
class Counted:
    """A second construction would count twice."""

    n: int
    doubled: int = dataclasses.field(init=False, default=0)

    def __post_init__(self) -> None:
        self.n += 1
        self.doubled = self.n * 2


class Order(pydantic.BaseModel):
    number: int = pydantic.Field(alias="orderNumber")
    lines: list[Any] = []
    when: Any = None

    @functools.cached_property
    def total(self) -> int:
        return len(self.lines)


class Open(pydantic.BaseModel, extra="allow"):
    name: str


class Names(pydantic.RootModel[list[str]]):
    pass


class Hooked(pydantic.BaseModel):
    name: str
    _label: str = pydantic.PrivateAttr(default="none")
    _unset: str = pydantic.PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        self.name = self.name + "!"


T = TypeVar("T")


class Box(pydantic.BaseModel, Generic[T]):
    content: T


class IntBox(Box[int]):
    pass


class Outer:
    class Inner(enum.Enum):
        ONE = 1


# --- round trips -------------------------------------------------------------------------------------

any_text = st.text(st.characters(codec=None))  # with lone surrogates
zones = st.sampled_from([UTC, timezone(timedelta(hours=-3, minutes=-30)), BERLIN, ZoneInfo("America/New_York")])
moments = st.one_of(
    st.datetimes(),
    st.datetimes(datetime(1800, 1, 1), datetime(9000, 1, 1), timezones=zones),
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    any_text,
    st.binary(),
    moments,
    st.dates(),
    st.times(timezones=st.one_of(st.none(), zones)),
    st.timedeltas(),
    st.decimals(allow_nan=False),
    st.uuids(),
    st.sampled_from([*Colour, *Level, *Mood, Outer.Inner.ONE]),
    st.sampled_from([Rights(0), Rights.READ, Rights.READ | Rights.WRITE]),
)
hashable = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.tuples(inner, inner),
        st.frozensets(inner, max_size=3),
        st.builds(Point, inner, inner),
    ),
    max_leaves=5,
)
keys = st.one_of(st.sampled_from(["$", "v", "c", "key"]), hashable)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner),
        st.sets(hashable, max_size=3),
        st.frozensets(hashable, max_size=3),
        st.dictionaries(any_text, inner, max_size=3),
        st.dictionaries(keys, inner, max_size=3),
        st.builds(Point, inner, inner),
        st.builds(Leg, any_text, st.tuples(inner), inner),
        st.builds(lambda n, when: Order(orderNumber=n, when=when), st.integers(), inner),
        st.builds(lambda extra: Open(name="n", **{"$": extra, "other": extra}), inner),
    ),
    max_leaves=12,
)


def has_surrogate_pair(text: str) -> bool:
    return any("\ud800" <= a <= "\udbff" and "\udc00" <= b <= "\udfff" for a, b in pairwise(text))


def same(one: object, other: object) -> bool:
    """Equal, and of the same types all the way down (in Python 1 == 1.0 == True)."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict) and isinstance(other, dict):
        pairs = zip(one.items(), other.items(), strict=False)
        return len(one) == len(other) and all(same(list(a), list(b)) for a, b in pairs)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, datetime) and isinstance(other, datetime):
        return one.isoformat() == other.isoformat() and one.tzinfo == other.tzinfo
    if isinstance(one, float) and isinstance(other, float):
        return repr(one) == repr(other)
    if isinstance(one, Decimal) and isinstance(other, Decimal):
        return one.as_tuple() == other.as_tuple()
    if isinstance(one, Leg) and isinstance(other, Leg):
        return same(dataclasses.astuple(one), dataclasses.astuple(other))
    if isinstance(one, pydantic.BaseModel) and isinstance(other, pydantic.BaseModel):
        return one == other and one.model_fields_set == other.model_fields_set and same(dict(one), dict(other))
    return one == other


@settings(deadline=None)
@given(value=values)
@example(value={"$": "enum", "c": "os:system", "v": "true"})
@example(value={"a": {"$": None}, 1: 2, None: 3})
@example(value="\ud800 alone")
@example(value=-0.0)
def test_every_storable_value_comes_back_equal_and_of_the_same_type(value: object) -> None:
    try:
        text = codec.encode(value)
    except SerializationError as refused:
        if "pair of surrogates" in str(refused):
            return
        raise
    text.encode()  # UTF-8, whatever was in it
    back = codec.decode(text)
    assert same(back, value), (back, value)
    assert codec.encode(back) == text


@settings(deadline=None)
@given(text=any_text)
@example(text="\ud83d\ude00")
def test_a_text_is_kept_as_it_is_or_refused(text: str) -> None:
    if has_surrogate_pair(text):
        with pytest.raises(SerializationError, match="pair of surrogates"):
            codec.encode({"text": text})
    else:
        assert codec.decode(codec.encode({"text": text})) == {"text": text}


@pytest.mark.parametrize("number", [float("inf"), float("-inf"), float("nan")])
def test_numbers_that_json_lacks_are_kept(number: float) -> None:
    text = codec.encode([number])
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert repr(codec.decode(text)) == repr([number])


@pytest.mark.parametrize("fold", [0, 1])
def test_both_occurrences_of_a_repeated_hour_are_told_apart(fold: int) -> None:
    before = datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN, fold=fold)
    back = codec.decode(codec.encode(before))
    assert back.fold == fold
    assert back.tzinfo is BERLIN
    assert back.utcoffset() == timedelta(hours=2 - fold)


def test_a_moment_in_the_hour_that_summer_time_skips_is_kept() -> None:
    for fold in (0, 1):
        before = datetime(2026, 3, 29, 2, 30, tzinfo=BERLIN, fold=fold)
        back = codec.decode(codec.encode(before))
        assert (back.isoformat(), back.fold) == (before.isoformat(), fold)


def test_a_time_of_day_keeps_its_zone() -> None:
    before = time(9, 0, tzinfo=BERLIN)
    back = codec.decode(codec.encode(before))
    assert back == before
    assert back.tzinfo is BERLIN


def test_flags_that_are_set_together_come_back() -> None:
    assert codec.decode(codec.encode(Rights.READ | Rights.WRITE)) is Rights.READ | Rights.WRITE
    assert codec.decode(codec.encode(Rights(0))) is Rights(0)


def test_an_alias_of_an_enum_member_comes_back_as_the_member() -> None:
    assert codec.decode(codec.encode(Colour.AZURE)) is Colour.BLUE


def test_a_named_tuple_comes_back_without_its_constructor() -> None:
    back = codec.decode(codec.encode(FussyPair(7)))
    assert type(back) is FussyPair
    assert back == (7, 7)


def test_a_dataclass_comes_back_without_running_post_init_again() -> None:
    back = codec.decode(codec.encode(Counted(1)))
    assert back == Counted(1)
    assert (back.n, back.doubled) == (2, 4)


# --- pydantic ----------------------------------------------------------------------------------------


def test_a_model_with_an_alias_comes_back_with_the_fields_that_were_set() -> None:
    before = Order(orderNumber=7)
    back = codec.decode(codec.encode(before))
    assert back == before
    assert back.model_fields_set == {"number"}
    assert back.model_dump(by_alias=True, exclude_unset=True) == {"orderNumber": 7}


def test_a_model_keeps_what_is_extra() -> None:
    before = Open(name="a", **{"more": date(2026, 1, 1), "$": "tag"})
    back = codec.decode(codec.encode(before))
    assert back == before
    assert back.more == date(2026, 1, 1)
    assert codec.plain(codec.encode(before)) == {"name": "a", "more": "2026-01-01", "$": "tag"}


def test_a_root_model_comes_back() -> None:
    assert codec.decode(codec.encode(Names(["a", "b"]))) == Names(["a", "b"])


def test_hooks_of_a_model_are_not_run_again_and_private_attributes_have_their_defaults() -> None:
    back = codec.decode(codec.encode(Hooked(name="ada")))
    assert back.name == "ada!"
    assert back._label == "none"
    assert back == Hooked(name="ada")


def test_looking_at_a_cached_property_does_not_change_what_is_stored() -> None:
    order = Order(orderNumber=7)
    before = codec.encode(order)
    assert order.total == 0
    assert codec.encode(order) == before


def test_a_parametrised_model_is_refused_unless_it_has_a_name_of_its_own() -> None:
    assert codec.decode(codec.encode(IntBox(content=1))) == IntBox(content=1)
    with pytest.raises(SerializationError, match=r"\$\.box is a .*Box\[str\].*found again"):
        codec.encode({"box": Box[str](content="a")})


# --- classes that change -----------------------------------------------------------------------------


def import_shop(folder: Path, source: str) -> Any:
    (folder / "tinyworkflow_test_shop.py").write_text(source)
    importlib.invalidate_caches()
    sys.modules.pop("tinyworkflow_test_shop", None)
    return importlib.import_module("tinyworkflow_test_shop")


def test_a_field_that_was_added_has_its_default_and_one_that_was_removed_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # both sources may carry the same second
    head = "import dataclasses, pydantic\n"
    shop = import_shop(
        tmp_path,
        f"{head}@dataclasses.dataclass\nclass Item:\n    old: int\n    kept: int\n"
        "class Bill(pydantic.BaseModel):\n    old: int\n    kept: int\n",
    )
    item, bill = codec.encode(shop.Item(old=1, kept=2)), codec.encode(shop.Bill(old=1, kept=2))

    shop = import_shop(
        tmp_path,
        f"{head}@dataclasses.dataclass\nclass Item:\n    kept: int\n    new: list[int] = dataclasses.field("
        "default_factory=lambda: [3])\n"
        "class Bill(pydantic.BaseModel):\n    kept: int\n    more: int = 4\n"
        "    new: list[int] = pydantic.Field(default_factory=lambda: [3])\n",
    )
    assert codec.decode(item) == shop.Item(kept=2, new=[3])
    assert codec.decode(bill) == shop.Bill(kept=2, new=[3], more=4)

    import_shop(tmp_path, "")
    for text in (item, bill):
        with pytest.raises(SerializationError, match="tinyworkflow_test_shop:"):
            codec.decode(text)
    sys.modules.pop("tinyworkflow_test_shop")


# --- what is not storable ----------------------------------------------------------------------------


def local_class() -> object:
    @dataclasses.dataclass
    class Local:
        n: int = 1

    return Local()


class Masked:
    """Its name leads to another class."""


@pytest.mark.parametrize(
    ("make", "place", "reason"),
    [
        (lambda: {"a": [1, {"f": lambda: 1}]}, "$.a[1].f", "function"),
        (local_class, "$ ", "made inside a function"),
        (lambda: (1, object()), "$[1]", "builtins.object"),
        (lambda: Leg("LH1", note=[bytearray(b"x")]), "$.note[0]", "builtins.bytearray"),
        (lambda: Open(name="a", cb=print), "$.cb", "builtin_function_or_method"),
        (lambda: {1: {2: iter([])}}, "$[1][2]", "list_iterator"),
        (lambda: {(1, Masked()): 1}, "$ key[1]", "Masked"),
        (lambda: [Order], "$[0]", "ModelMetaclass"),
    ],
)
def test_what_cannot_be_stored_is_refused_with_its_place_and_reason(
    make: Callable[[], object], place: str, reason: str
) -> None:
    with pytest.raises(SerializationError) as caught:
        codec.encode(make())
    assert str(caught.value).startswith(place)
    assert reason in str(caught.value)


def test_a_socket_is_refused_with_its_place() -> None:
    with (
        socket.socket() as connection,
        pytest.raises(SerializationError, match=r"^\$\.peers\[0\] is a socket\.socket,"),
    ):
        codec.encode({"peers": [connection]})


def test_a_list_that_contains_itself_is_refused() -> None:
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(SerializationError, match="contains itself"):
        codec.encode(loop)


def test_a_number_too_long_for_json_is_refused() -> None:
    with pytest.raises(SerializationError, match="cannot be written"):
        codec.encode(10**5000)


def outcome(write: Callable[[], str]) -> object:
    try:
        return write()
    except SerializationError as error:
        return type(error), str(error)


@settings(deadline=None)
@given(arguments=st.lists(st.one_of(st.none(), st.booleans(), st.integers(), any_text, st.floats()), max_size=4))
@example(arguments=['"\\\x00\x1f\x7f\u2028\ud800'])
@example(arguments=[Level.LOW, True, 1])
@example(arguments=["a" * 2000])
@example(arguments=[10**5000])
def test_the_arguments_of_a_call_are_written_and_refused_like_any_other_list(arguments: list[Any]) -> None:
    for one in (codec, Codec(max_bytes=20)):
        plainly = outcome(functools.partial(one.encode, [arguments]))
        assert outcome(functools.partial(one.encode_arguments, tuple(arguments), {})) == plainly


def test_a_value_over_the_limit_is_refused_with_its_size() -> None:
    small = Codec(max_bytes=100)
    assert small.decode(small.encode("é" * 48)) == "é" * 48  # and a quote at each end, escaped once it is stored
    with pytest.raises(PayloadTooLargeError, match="takes 102 bytes, over the limit of 100"):
        small.encode("é" * 49)
    with pytest.raises(PayloadTooLargeError):
        small.encode("\ud800" * 20)  # six characters each, once it is escaped


# --- determinism -------------------------------------------------------------------------------------

PRINT_SETS = """
from decimal import Decimal
from tinyworkflow_core.serialization import Codec, digest
value = {"s": {str(i) for i in range(40)}, "f": frozenset({("a", 1), ("b", 2.5), Decimal("1.5"), None, b"x", "é"})}
text = Codec().encode(value)
assert Codec().decode(text) == value
print(digest(text), ascii(text))
"""


def test_a_set_has_the_same_text_in_every_process() -> None:
    def text_under(seed: int) -> str:
        environment = os.environ | {"PYTHONHASHSEED": str(seed)}
        return subprocess.run(
            [sys.executable, "-c", PRINT_SETS], env=environment, check=True, capture_output=True, text=True
        ).stdout

    assert len({text_under(seed) for seed in (0, 1, 2)}) == 1


def test_a_fingerprint_is_sixteen_digits_and_differs_with_the_text() -> None:
    assert digest("[1]") == digest("[1]")
    assert digest("[1]") != digest("[2]")
    assert len(digest("[1]")) == 16
    assert int(digest("[1]"), 16)


# --- data from outside, and damaged data -------------------------------------------------------------

HOSTILE = [
    "os:system",
    "subprocess:Popen",
    "builtins:eval",
    "builtins:dict",
    "builtins:tuple",
    "os:environ.clear",
    "tests.test_serialization:Masked",
    "no.such.module:Thing",
    "tinyworkflow_core.serialization:NoSuchThing",
    ":",
    "",
    "..:x",
    7,
    None,
]


@pytest.mark.parametrize("name", HOSTILE, ids=str)
@pytest.mark.parametrize("tag", ["enum", "dataclass", "model", "namedtuple"])
def test_a_stored_class_name_that_is_no_value_class_is_refused_and_not_called(
    tag: str, name: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    marker = tmp_path / "called"

    def refuse(*args: object, **kwargs: object) -> None:
        marker.write_text("called")

    monkeypatch.setattr(os, "system", refuse)
    monkeypatch.setattr(subprocess.Popen, "__init__", refuse)
    for stored in ("touch /tmp/x", ["touch /tmp/x"], {"args": "touch /tmp/x"}):
        with pytest.raises(SerializationError):
            codec.decode(json.dumps({"$": tag, "c": name, "v": stored}))
    assert not marker.exists()


@pytest.mark.parametrize("name", ["os:system", "subprocess:Popen", "builtins:SystemExit", "builtins:exec", ":", ""])
def test_a_stored_error_of_a_class_that_is_no_exception_becomes_an_activity_error(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    marker = tmp_path / "called"

    def refuse(*args: object, **kwargs: object) -> None:
        marker.write_text("called")

    monkeypatch.setattr(os, "system", refuse)
    monkeypatch.setattr(subprocess.Popen, "__init__", refuse)
    error = codec.exception(Failure(type="Bad", message="touch /tmp/x", cls=name, args='["touch /tmp/x"]'))
    assert type(error) is ActivityError
    assert (error.type, error.message) == ("Bad", "touch /tmp/x")
    assert not marker.exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        '{"$":"nonsense","v":1}',
        '{"$":[],"v":1}',
        '{"$":"decimal","v":"abc"}',
        '{"$":"timedelta","v":[999999999999,0,0]}',
        '{"$":"datetime","v":"yesterday"}',
        '{"$":"datetime","v":"2026-01-01T00:00:00+01:00","z":"../../etc/passwd"}',
        '{"$":"datetime","v":"2026-01-01T00:00:00+01:00","z":"Mars/Olympus"}',
        '{"$":"bytes"}',
        '{"$":"bytes","v":"a"}',
        '{"$":"set","v":[[1]]}',
        '{"$":"enum","c":"tests.test_serialization:Colour","v":"GREEN"}',
        '{"$":"enum","c":"tests.test_serialization:Rights","v":null,"n":"x"}',
        '{"$":"dataclass","c":"tests.test_serialization:Leg","v":[1]}',
        '{"$":"model","c":"tests.test_serialization:Order","v":3}',
        "[" * 100_000,
    ],
    ids=lambda text: text[:60],
)
def test_damaged_data_is_refused_with_an_error_of_ours(text: str) -> None:
    with pytest.raises(SerializationError):
        codec.decode(text)


@settings(deadline=None)
@given(
    data=st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["$", "v", "c", "s"]), inner),
    )
)
def test_no_plain_data_can_pose_as_something_else(data: object) -> None:
    assert same(codec.decode(codec.encode(data)), data)


def test_plain_data_is_for_people() -> None:
    value = {
        "order": Order(orderNumber=1, when=datetime(2026, 1, 2, 3, 4, tzinfo=UTC)),
        "leg": Leg("LH1", (1, 2)),
        "pause": timedelta(minutes=2),
        "price": Decimal("1.50"),
        "id": UUID(int=1),
        "colour": Colour.RED,
        "keys": {1: "a"},
    }
    assert codec.plain(codec.encode(value)) == {
        "order": {"number": 1, "lines": [], "when": "2026-01-02T03:04:00+00:00"},
        "leg": {"flight": "LH1", "seats": [1, 2], "note": None},
        "pause": 120.0,
        "price": "1.50",
        "id": "00000000-0000-0000-0000-000000000001",
        "colour": "RED",
        "keys": {"1": "a"},
    }


# --- sealed ------------------------------------------------------------------------------------------


class Backwards:
    """A payload codec in the open: the text backwards, behind a number that is never the same."""

    def __init__(self) -> None:
        self._numbers = itertools.count()

    def seal(self, text: str) -> str:
        text.encode()
        return f"mirror-1:{next(self._numbers)}:{text[::-1]}"

    def unseal(self, text: str) -> str:
        key, _, rest = text.split(":", 2)
        if key != "mirror-1":
            raise SerializationError(f"{key} is no mirror")
        return rest[::-1]


class Broken:
    """A payload codec that does not keep to its contract."""

    def seal(self, text: str) -> str:
        raise KeyError(text)

    def unseal(self, text: str) -> str:
        raise KeyError(text)


class Jumbled(Backwards):
    """A payload codec that does not notice what was changed."""

    def unseal(self, text: str) -> str:
        return super().unseal(text)[1:]


sealing = Codec(Backwards())


@settings(deadline=None)
@given(value=values)
@example(value={"$": "sealed", "v": "mirror-1:0:1"})
@example(value="\ud800 alone")
def test_every_storable_value_comes_back_from_under_its_seal(value: object) -> None:
    try:
        text = sealing.encode(value)
    except SerializationError as refused:
        if "pair of surrogates" in str(refused):
            return
        raise
    assert same(sealing.decode(text), value)
    assert json.loads(text).keys() == {"$", "v"}
    text.encode()
    assert sealing.plaintext(text) == codec.encode(value)
    assert sealing.plain(text) == codec.plain(codec.encode(value))


def test_what_was_stored_without_a_payload_codec_can_be_read_with_one() -> None:
    leg = Leg("LH1", (1, 2))
    assert sealing.decode(codec.encode(leg)) == leg
    assert sealing.plain(codec.encode(leg)) == codec.plain(codec.encode(leg))
    assert sealing.fingerprint(codec.encode(leg)) == digest(codec.encode(leg))


def test_code_without_the_payload_codec_is_told_what_would_open_the_value_and_people_see_the_same() -> None:
    text = sealing.encode({"secret": 1})
    with pytest.raises(SerializationError, match="is sealed with key mirror-1, and this process has no payload codec"):
        codec.decode(text)
    assert codec.plain(text) == "sealed with key mirror-1"
    assert codec.plain('{"$":"sealed","v":"no key here"}') == codec.plain('{"$":"sealed"}') == "sealed"


def test_what_the_payload_codec_cannot_open_is_refused_for_code_and_named_for_people() -> None:
    text = sealing.encode(1).replace("mirror-1", "mirror-2")
    for read in (sealing.decode, sealing.plaintext, sealing.fingerprint):
        with pytest.raises(SerializationError, match="mirror-2 is no mirror"):
            read(text)
    assert sealing.plain(text) == "sealed with key mirror-2"


def test_equal_values_have_one_fingerprint_however_often_they_are_sealed() -> None:
    one, other = sealing.encode([1]), sealing.encode([1])
    assert one != other
    assert sealing.fingerprint(one) == sealing.fingerprint(other) == digest("[1]") == codec.fingerprint("[1]")
    assert sealing.fingerprint(sealing.encode([2])) != sealing.fingerprint(one)


def test_the_limit_counts_what_is_stored() -> None:
    assert len(Codec(max_bytes=100).encode("x" * 80)) == 82
    with pytest.raises(PayloadTooLargeError, match="over the limit of 100"):
        Codec(Backwards(), max_bytes=100).encode("x" * 80)


def test_a_strange_error_of_a_payload_codec_is_one_of_ours_and_quotes_nothing() -> None:
    broken = Codec(Broken())
    with pytest.raises(SerializationError, match=r"cannot be sealed: KeyError$"):
        broken.encode("secret")
    with pytest.raises(SerializationError, match=r"what was sealed with key mirror-1 cannot be opened: KeyError$"):
        broken.decode(sealing.encode("secret"))
    with pytest.raises(SerializationError, match=r"is damaged$"):
        Codec(Jumbled()).exception(sealing.failure(ValueError("secret")))


def test_the_message_about_a_sealed_value_that_cannot_be_read_does_not_quote_it() -> None:
    stored = Sealing(Backwards()).seal_value('{"$":"datetime","v":"secret"}')
    with pytest.raises(SerializationError, match=r"cannot be read: ValueError$"):
        sealing.decode(stored)
    with pytest.raises(SerializationError, match="secret"):
        codec.decode('{"$":"datetime","v":"secret"}')


@pytest.mark.parametrize("text", ['{"$":"sealed","v":', '{"$":"sealed","v":1}', '{"$":"sealed","v":"?"}'])
def test_a_damaged_seal_is_refused_with_an_error_of_ours(text: str) -> None:
    with pytest.raises(SerializationError):
        sealing.decode(text)


# --- words of people ---------------------------------------------------------------------------------


@given(text=any_text)
@example(text="$sealed:mirror-1:0:1")
@example(text="$text:$sealed:")
@example(text="a lone \udcff")
def test_free_text_comes_back_whatever_it_looks_like(text: str) -> None:
    assert codec.unseal_text(codec.seal_text(text)) == text
    assert sealing.unseal_text(codec.seal_text(text)) == text
    sealed = sealing.seal_text(text)
    assert sealed is not None
    if not has_surrogate_pair(text):
        assert sealing.unseal_text(sealed) == sealing.plain_text(sealed) == text
    sealed.encode()


def test_free_text_is_stored_as_it_is_without_a_payload_codec_and_sealed_with_one() -> None:
    assert codec.seal_text("looks good") == "looks good"
    assert (
        codec.seal_text(None) is codec.unseal_text(None) is sealing.seal_text(None) is sealing.plain_text(None) is None
    )
    sealed = sealing.seal_text("looks good")
    assert sealed is not None
    assert "looks good" not in sealed
    with pytest.raises(SerializationError, match="sealed with key mirror-1"):
        codec.unseal_text(sealed)
    assert codec.plain_text(sealed) == "sealed with key mirror-1"
    assert codec.plain_text("looks good") == "looks good"


# --- sealed failures ---------------------------------------------------------------------------------


class DeclinedError(Exception):
    pass


def test_a_sealed_failure_shows_its_type_and_nothing_else() -> None:
    error = ApplicationError("secret", type="CardDeclined", details="secret", retryable=True)
    error.__cause__ = ValueError("secret")
    group = ExceptionGroup("secret", [error])
    assert sealing.failure(error).to_dict().keys() == {"type", "message", "retryable", "sealed"}
    for one, kind in ((error, "CardDeclined"), (group, "ExceptionGroup")):
        failure = sealing.failure(one)
        assert (failure.type, failure.message) == (kind, "sealed with key mirror-1")
        assert "secret" not in json.dumps(failure.to_dict())


def test_a_sealed_failure_comes_back_as_the_exception_with_all_its_parts() -> None:
    error = ApplicationError("no funds", type="CardDeclined", details=Leg("LH1", (1,)), retryable=True)
    error.__cause__ = ExceptionGroup("two", [DeclinedError("a", 1), KeyError("b")])
    failure = Failure.from_dict(json.loads(json.dumps(sealing.failure(error).to_dict())))
    assert sealing.opened(failure) == codec.failure(error)
    back = sealing.exception(failure)
    assert isinstance(back, ApplicationError)
    assert (back.message, back.type, back.details, back.retryable) == (
        "no funds",
        "CardDeclined",
        Leg("LH1", (1,)),
        True,
    )
    assert isinstance(back.__cause__, ExceptionGroup)
    assert [(type(one), one.args) for one in back.__cause__.exceptions] == [
        (DeclinedError, ("a", 1)),
        (KeyError, ("b",)),
    ]


def test_a_failure_that_was_stored_without_a_payload_codec_can_be_read_with_one() -> None:
    failure = codec.failure(DeclinedError("a"))
    assert failure.sealed is None
    assert sealing.opened(failure) is failure
    assert type(sealing.exception(failure)) is DeclinedError


def test_a_failure_that_cannot_be_opened_is_refused_for_code_and_shown_closed_to_people() -> None:
    failure = sealing.failure(DeclinedError("a"))
    other = dataclasses.replace(failure, sealed=str(failure.sealed).replace("mirror-1", "mirror-2"))
    for reader, one, message in ((codec, failure, "no payload codec"), (sealing, other, "mirror-2 is no mirror")):
        assert reader.opened(one) is one
        with pytest.raises(SerializationError, match=message):
            reader.exception(one)


def test_a_failure_that_is_too_long_once_it_is_sealed_is_kept_without_its_causes() -> None:
    error = ValueError("x" * 2_000)
    error.__cause__ = ValueError("y" * 2_000)
    small, large = Codec(Backwards(), max_bytes=5_000), Codec(Backwards())
    assert small.opened(small.failure(error)).cause is None
    assert small.opened(small.failure(error)).message == "x" * 2_000
    assert large.opened(large.failure(error)).cause is not None
