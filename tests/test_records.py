"""Records: the same as the standard library's dataclasses, and nothing compiled before somebody makes one."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import threading
from collections.abc import Callable
from dataclasses import KW_ONLY, asdict, field, replace
from functools import partial
from typing import Any, ClassVar

import pytest

from tinyworkflow_core.records import dataclass as record

Decorator = Callable[..., Any]
WAYS: tuple[Decorator, Decorator] = (dataclasses.dataclass, record)


def shapes(decorator: Decorator) -> dict[str, Any]:
    """The same classes, made by this decorator."""

    @decorator(frozen=True, kw_only=True, slots=True)
    class Parent:
        at: int

    @decorator(frozen=True, kw_only=True, slots=True)
    class Child(Parent):
        """Its own words."""

        name: str
        tags: list[str] = field(default_factory=list)
        secret: str = field(default="s", repr=False)
        note: str = field(default="", compare=False)

    @decorator(frozen=True, slots=True)
    class Two:
        first: int
        second: int = 2

    @decorator(frozen=True)
    class Mixed:
        first: int
        _: KW_ONLY
        later: int = 7
        made: int = field(init=False)

        def __post_init__(self) -> None:
            object.__setattr__(self, "made", self.first + self.later)

    @decorator(slots=True)
    class Open:
        seen: list[int] = field(default_factory=list)
        count: int = field(init=False, default=4)

    @decorator(frozen=True, eq=False)
    class Same:
        one: int

    @decorator
    class Bare:
        one: int = 1

        def __repr__(self) -> str:
            return "my own"

    @decorator(frozen=True)
    class Counted:
        one: int

        def __hash__(self) -> int:
            return 12

    @decorator(frozen=True, slots=True)
    class Nothing:
        pass

    return {one.__name__: one for one in (Parent, Child, Two, Mixed, Open, Same, Bare, Counted, Nothing)}


MADE: dict[str, list[Callable[[Any], Any]]] = {
    "Parent": [lambda c: c(at=1), lambda c: c(at=2)],
    "Child": [
        lambda c: c(at=1, name="x"),
        lambda c: c(at=1, name="x", secret="other"),
        lambda c: c(at=1, name="x", note="not compared"),
        lambda c: c(at=1, name="x", tags=["t"]),
    ],
    "Two": [lambda c: c(1), lambda c: c(1, 3), lambda c: c(first=1, second=2)],
    "Mixed": [lambda c: c(1), lambda c: c(1, later=2)],
    "Open": [lambda c: c(), lambda c: c([1])],
    "Same": [lambda c: c(1), lambda c: c(1)],
    "Bare": [lambda c: c(), lambda c: c(2)],
    "Counted": [lambda c: c(1), lambda c: c(2)],
    "Nothing": [lambda c: c(), lambda c: c()],
}


def told(action: Callable[[], Any]) -> Any:
    """What comes of it, comparable between the two ways."""
    try:
        value = action()
    except Exception as error:
        return type(error), str(error)
    return value


def change(one: Any) -> None:
    setattr(one, dataclasses.fields(one)[0].name, 5)


def remove(one: Any) -> None:
    delattr(one, dataclasses.fields(one)[0].name)


@pytest.mark.parametrize("name", MADE)
def test_a_record_shows_compares_hashes_copies_and_refuses_as_a_dataclass_does(name: str) -> None:
    seen = []
    for way in WAYS:
        cls = shapes(way)[name]
        ones = [make(cls) for make in MADE[name]]
        facts: dict[str, Any] = {
            "repr": [repr(one) for one in ones],
            "equal": [[a == b for a in ones] for b in ones],
            "other": [one == 3 for one in ones],
            "data": [asdict(one) for one in ones],
            "copied": [asdict(copy.deepcopy(one)) for one in ones],
            "signature": str(inspect.signature(cls)),
            "doc": cls.__doc__ if name == "Child" else None,
            "match": cls.__match_args__,
            "none": told(partial(cls, nothing=1)),
            "many": told(partial(cls, 1, 2, 3, 4, 5)),
            "set": told(partial(change, ones[0])),
            "deleted": told(partial(remove, ones[-1])),
            "named": cls.__init__.__qualname__.endswith(f"{name}.__init__"),
        }
        if name != "Same":  # whose hash is where it is in memory
            facts["hash"] = [told(partial(hash, one)) for one in ones]
        if name == "Two":
            facts["replaced"] = asdict(replace(ones[0], second=9))
        seen.append(facts)
    assert seen[1] == seen[0]


@record(frozen=True, kw_only=True, slots=True)
class Kept:
    """At the top of a module, where pickle finds it."""

    one: int
    many: tuple[int, ...] = ()


class Further(Kept):
    """Not a record itself."""


def test_a_closed_record_with_slots_comes_back_from_a_pickle() -> None:
    assert pickle.loads(pickle.dumps(Kept(one=1, many=(2,)))) == Kept(one=1, many=(2,))


def test_a_class_below_a_record_is_made_by_its_constructor_and_may_have_more() -> None:
    one = Further(one=3)
    one.more = 4  # type: ignore[attr-defined]  # as with a dataclass: what is closed are the fields
    assert (one.one, one.many, one.more) == (3, (), 4)  # type: ignore[attr-defined]
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.one = 5  # type: ignore[misc]


def test_a_standard_dataclass_may_stand_below_a_closed_record_and_an_open_one_may_not() -> None:
    @record(frozen=True)
    class Above:
        first: int = 1

    @record(frozen=True)
    class Between(Above):
        second: int = 2

    @dataclasses.dataclass(frozen=True)
    class Below(Between):
        third: int = 3

    assert replace(Below(third=4), first=5) == Below(5, 2, 4)
    for decorator in WAYS:
        for above in (Between, Below):
            with pytest.raises(TypeError, match="frozen"):
                decorator(type("Open", (above,), {}))
            assert getattr(above, "__dataclass_params__").frozen  # noqa: B009  # no type checker knows of it
        with pytest.raises(TypeError, match="frozen"):
            decorator(frozen=True)(type("Closed", (shapes(record)["Open"],), {}))


class Annotated:
    """Decorated by either."""

    of_all: ClassVar[int] = 1
    first: int
    _: KW_ONLY
    named: "list[int] | None" = None  # noqa: UP037  # one of several ways to write it


@pytest.mark.parametrize("slots", [False, True])
def test_annotations_are_kept_as_they_are_written_and_mean_the_same(slots: bool) -> None:
    standard, ours = (way(slots=slots)(type("One", (), dict(vars(Annotated)))) for way in WAYS)
    assert ours.__annotations__ == standard.__annotations__ == Annotated.__annotations__
    told = [[(one.name, one.type, one.kw_only) for one in dataclasses.fields(way)] for way in (standard, ours)]
    assert told == [[("first", "int", False), ("named", "'list[int] | None'", True)]] * 2
    assert ours.of_all == 1


def test_a_constructor_is_compiled_when_the_first_is_made_and_not_before() -> None:
    @record(frozen=True, slots=True)
    class Late:
        one: int

    assert not inspect.isfunction(vars(Late)["__init__"])
    Late(1)
    made = vars(Late)["__init__"]
    assert inspect.isfunction(made)
    Late(2)
    assert vars(Late)["__init__"] is made


def test_threads_may_make_the_first_one_together() -> None:
    for _ in range(50):

        @record(frozen=True, kw_only=True, slots=True)
        class Shared:
            one: int

        gate = threading.Barrier(4)
        found: list[Shared] = []

        def make(cls: type[Shared] = Shared, gate: threading.Barrier = gate, found: list[Shared] = found) -> None:
            gate.wait()
            found.append(cls(one=1))

        threads = [threading.Thread(target=make) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [Shared(one=1)] * 4
