"""Records: `dataclass` as of the standard library, whose methods are made when they are first used.

The standard one writes the source of up to seven methods for each class and compiles it at import: 0.8 ms a class, more
than half of what it took to load this package, for classes most of which one process never makes. Here the fields are
collected by the standard library, the constructor is compiled on its first call, and the other methods are shared code.
What may be seen is the same: `fields`, `replace`, `asdict`, `repr`, equality, hashes, `FrozenInstanceError`, copies,
pickles, signatures, errors for wrong arguments, standard dataclasses below them. Not here: `order`, `unsafe_hash`,
`weakref_slot`, `InitVar`, a ClassVar under another name.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import MISSING, Field, FrozenInstanceError, fields
from dataclasses import dataclass as standard_dataclass
from operator import attrgetter
from reprlib import recursive_repr
from types import MemberDescriptorType
from typing import TYPE_CHECKING, Any, TypeVar

T = TypeVar("T")

if TYPE_CHECKING:
    # What type checkers have to know of it, they know of that one; the alias hands it on.
    from dataclasses import dataclass as dataclass  # noqa: PLC0414
else:

    def dataclass(cls=None, /, *, frozen=False, kw_only=False, slots=False, eq=True):
        """A decorator, bare or with these arguments of `dataclasses.dataclass`."""

        def make(cls: type[T]) -> type[T]:
            own = vars(cls)
            hashed = own.get("__hash__", MISSING)
            says_hash = hashed is not MISSING and not (hashed is None and "__eq__" in own)
            if cls.__doc__ is None:
                cls.__doc__ = cls.__name__  # else the signature is made, to stand here
            made = _collected(cls, frozen=frozen, kw_only=kw_only, slots=slots)
            every = fields(made)
            methods = {"__init__": _Constructor(made, frozen), "__repr__": _repr_of(every)}
            if eq:
                methods["__eq__"] = _equality_of(every)
                if not says_hash:
                    made.__hash__ = _hash_of(every) if frozen else None
            if frozen:
                methods |= _closing(made, frozenset(one.name for one in every))
                if slots:
                    methods |= {"__getstate__": _state, "__setstate__": _set_state}
            for name, method in methods.items():
                if name not in own:
                    setattr(made, name, method)
            return made

        return make if cls is None else make(cls)


_COLLECTING = threading.Lock()
_SPECIAL = ("ClassVar", "InitVar", "KW_ONLY")


def _collected(cls: type[T], *, frozen: bool, kw_only: bool, slots: bool) -> type[T]:
    """The class with its fields, and with parameters that let a standard dataclass be made below it."""
    parents = [found for one in cls.__mro__[1:] if (found := vars(one).get("__dataclass_params__")) is not None]
    closed = [one for one in parents if one.frozen]
    if parents and bool(closed) is not frozen:
        raise TypeError(f"{cls.__name__} has to be frozen if and only if what it inherits from is")
    annotations = vars(cls).get("__annotations__", {})
    plain = {
        name: text
        for name, text in annotations.items()
        if isinstance(text, str) and not any(word in text for word in _SPECIAL)
    }
    with _COLLECTING:  # told of `frozen`, the standard library would compile what makes it so
        for one in closed:
            one.frozen = False
        annotations.update(dict.fromkeys(plain, object))  # in each text it would look three times for what is not there
        try:
            made = standard_dataclass(cls, init=False, repr=False, eq=False, kw_only=kw_only, slots=slots)
        finally:
            annotations.update(plain)
            for one in closed:
                one.frozen = True
    for name, text in plain.items():
        made.__dataclass_fields__[name].type = text  # type: ignore[attr-defined]  # every dataclass has them
    made.__dataclass_params__.frozen = frozen  # type: ignore[attr-defined]
    return made


class _Made:
    """Stands for a value that a factory makes, where none is given."""

    def __repr__(self) -> str:
        return "<factory>"


_MADE = _Made()


class _Constructor:
    """Stands for `__init__` until somebody looks at it."""

    def __init__(self, owner: type, frozen: bool) -> None:
        self._owner = owner
        self._frozen = frozen

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        # Only in place of itself: another thread may have been first, and its function is as good.
        made = _constructor_of(self._owner, self._frozen)
        if vars(self._owner).get("__init__") is self:
            self._owner.__init__ = made
        return made if instance is None else made.__get__(instance, owner)


def _constructor_of(cls: type, frozen: bool) -> Any:
    names: dict[str, Any] = {"_MADE": _MADE, "_set": object.__setattr__}
    positional: list[str] = []
    keyword: list[str] = []
    lines: list[str] = []
    for one in fields(cls):
        if one.init:
            (keyword if one.kw_only else positional).append(_parameter(one, names))
        if (value := _value(one, names)) is not None:
            lines.append(_assignment(cls, one.name, value, frozen, names))
    if hasattr(cls, "__post_init__"):
        lines.append("self.__post_init__()")
    parameters = ["self", *positional, *(["*", *keyword] if keyword else [])]
    exec(f"def __init__({', '.join(parameters)}):\n " + "\n ".join(lines or ["pass"]), names)
    made = names["__init__"]
    made.__qualname__ = f"{cls.__qualname__}.__init__"
    made.__module__ = cls.__module__
    made.__annotations__ = {one.name: one.type for one in fields(cls) if one.init} | {"return": None}
    return made


def _parameter(one: Field[Any], names: dict[str, Any]) -> str:
    if one.default is not MISSING:
        names[f"_default_{one.name}"] = one.default
        return f"{one.name}=_default_{one.name}"
    return one.name if one.default_factory is MISSING else f"{one.name}=_MADE"


def _value(one: Field[Any], names: dict[str, Any]) -> str | None:
    """The expression for the field's value; None where the constructor sets none."""
    if one.default_factory is not MISSING:
        made = f"_factory_{one.name}"
        names[made] = one.default_factory
        return f"{made}() if {one.name} is _MADE else {one.name}" if one.init else f"{made}()"
    if one.init:
        return one.name
    if one.default is MISSING:
        return None
    names[f"_default_{one.name}"] = one.default
    return f"_default_{one.name}"


def _assignment(cls: type, name: str, value: str, frozen: bool, names: dict[str, Any]) -> str:
    if not frozen:
        return f"self.{name} = {value}"
    slot = getattr(cls, name, None)
    if not isinstance(slot, MemberDescriptorType):
        return f"_set(self, {name!r}, {value})"
    names[f"_set_{name}"] = slot.__set__  # faster than looking the slot up by its name
    return f"_set_{name}(self, {value})"


def _repr_of(every: tuple[Field[Any], ...]) -> Any:
    shown = tuple(one.name for one in every if one.repr)

    @recursive_repr()
    def __repr__(self: Any) -> str:
        return f"{type(self).__qualname__}({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"

    return __repr__


def _equality_of(every: tuple[Field[Any], ...]) -> Any:
    values = _values_of([one.name for one in every if one.compare])

    def __eq__(self: Any, other: object) -> Any:
        return values(self) == values(other) if other.__class__ is self.__class__ else NotImplemented

    return __eq__


def _hash_of(every: tuple[Field[Any], ...]) -> Any:
    values = _values_of([one.name for one in every if (one.compare if one.hash is None else one.hash)])

    def __hash__(self: Any) -> int:
        return hash(values(self))

    return __hash__


def _values_of(names: list[str]) -> Callable[[Any], tuple[Any, ...]]:
    if len(names) > 1:
        return attrgetter(*names)
    return lambda one: tuple(getattr(one, name) for name in names)  # attrgetter gives no tuple of one


def _closing(cls: type[object], names: frozenset[str]) -> dict[str, Any]:
    def __setattr__(self: Any, name: str, value: Any) -> None:
        if type(self) is cls or name in names:
            raise FrozenInstanceError(f"cannot assign to field {name!r}")
        super(cls, self).__setattr__(name, value)

    def __delattr__(self: Any, name: str) -> None:
        if type(self) is cls or name in names:
            raise FrozenInstanceError(f"cannot delete field {name!r}")
        super(cls, self).__delattr__(name)

    return {"__setattr__": __setattr__, "__delattr__": __delattr__}


def _state(self: Any) -> list[Any]:
    """What a copy and a pickle of a closed record with slots take along."""
    return [getattr(self, one.name) for one in fields(self)]


def _set_state(self: Any, state: list[Any]) -> None:
    for one, value in zip(fields(self), state, strict=True):
        object.__setattr__(self, one.name, value)
