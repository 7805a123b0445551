"""Field kinds: how the declared Python type of a field says what happens when two devices change it at once.

===================================  =========  =====================================================
declared as                          kind       two devices at once
===================================  =========  =====================================================
``str int float bool datetime``,     register   the later edit wins; the other stays in ``conflicts``
``Enum``, ``Literal``, or ``None``
`Counter`                            counter    both increments count
``set[T]``                           set        both adds stay; an add beats a remove that had not seen it
``list[T]``                          list       both appends stay, in one order everywhere
``dict[str, Any]``                   map        merged leaf by leaf, each leaf a register
`Text`                               text       merged character by character
``Sealed[T]``                        sealed     a register that only the space's devices can open
===================================  =========  =====================================================
"""

from __future__ import annotations

import contextlib
import datetime as dt
import enum
import sys
import types
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Literal,
    TypeVar,
    Union,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec

from crdt.errors import SchemaError

__all__ = ["Counter", "FieldType", "Item", "Kind", "Sealed", "SealedValue", "Text", "field_type"]

T = TypeVar("T")


class _SealedMark:
    """What ``Sealed[T]`` adds to the annotation."""


Sealed = Annotated[T, _SealedMark]
"""``Sealed[str | None]``: a value that is opaque to the server. It may be of any type that MessagePack can hold."""


class SealedValue(msgspec.Struct, frozen=True):
    """Stands where a sealed field's value should, while it cannot be opened here: ``reason`` says why.

    The bytes stay in the document, whatever else is written. A key that comes later opens them.
    """

    reason: str
    sealed: bytes

    def __repr__(self) -> str:
        """Say why, and show nothing."""
        return f"<SealedValue: {self.reason}>"


if TYPE_CHECKING:
    Text = str
    Counter = int
else:

    class Text(str):
        """Declares a text field: ``body: Text = Text()``. Values are plain strings."""

        __slots__ = ()

    class Counter(int):
        """Declares a counter: ``views: Counter = Counter(0)``. Values are plain integers."""

        __slots__ = ()


@dataclass_transform(kw_only_default=True, field_specifiers=(msgspec.field,))
class Item(msgspec.Struct, kw_only=True, rename="camel"):
    """A base for the structs in a list field: keyword arguments here, camelCase in documents.

    ``searchable`` names the attributes, or properties, that are its text where the list is searchable; if it is empty,
    every attribute declared as ``str`` but ``id`` is.
    """

    searchable: ClassVar[tuple[str, ...]] = ()


class Kind(enum.Enum):
    """How a field merges."""

    REGISTER = "register"
    COUNTER = "counter"
    SET = "set"
    LIST = "list"
    MAP = "map"
    TEXT = "text"
    SEALED = "sealed"


_AFFINITY: dict[type, str] = {
    str: "TEXT",
    bool: "INTEGER",
    int: "INTEGER",
    float: "REAL",
    dt.datetime: "INTEGER",
}
# What both SQL databases, JSON and a JavaScript reader hold; a NaN would come back as NULL.
_BOUNDS: dict[Any, tuple[float, float]] = {
    int: (-(1 << 63), (1 << 63) - 1),
    float: (-sys.float_info.max, sys.float_info.max),
}


class FieldType(msgspec.Struct, frozen=True):
    """What an annotation means.

    ``value`` is the annotation that validates a value: the declared one, and what both ends can hold (integers of 64
    bits, finite numbers, times with a zone). ``element`` does the same for one element of a set or one item of a
    list. ``stored`` reads what documents hold, without the declared constraints: they are for writing, what was
    written is read. ``scalar`` is the class of a register's value, an element or an item; ``affinity`` its SQL type.
    """

    kind: Kind
    value: Any
    scalar: type
    optional: bool = False
    affinity: str = "TEXT"
    element: Any = None
    stored: Any = None

    def describe(self) -> str:
        """Say what values there are, for a message."""
        plain = _strip(self.element or self.value)[2]
        if self.kind is Kind.SEALED:
            return f"a value of the type {plain.__name__ if isinstance(plain, type) else plain}"
        for part in (plain, *get_args(plain)):
            values = get_args(part) if get_origin(part) is Literal else ()
            if isinstance(part, type) and issubclass(part, enum.Enum):
                values = tuple(member.value for member in part)
            if values:
                return f"one of {', '.join(map(repr, values))}"
        return (
            f"a {self.kind.value} of {self.scalar.__name__}" if self.element else f"a {self.scalar.__name__}"
        )


def field_type(annotation: Any, *, where: str) -> FieldType:
    """Return what an annotation (with extras) means. ``where`` names the record and field in errors.

    Raises:
        SchemaError: no field kind has this type; the message says what would be right.
    """
    sealed, metas, plain = _strip(annotation)
    if sealed:
        return FieldType(
            Kind.SEALED,
            _with_metas(plain, metas),
            object,
            optional=plain is Any or type(None) in (plain, *get_args(plain)),
            affinity="BLOB",
            stored=plain,
        )
    if _holds_a_seal(annotation, set()):
        raise SchemaError(
            f"{where}: only a whole field is sealed: declare it as Sealed[...], as Sealed[str | None]"
        )
    if plain is Counter:
        return FieldType(Kind.COUNTER, _bounded(int, metas, where=where), int, affinity="INTEGER")
    if plain is Text:
        return FieldType(Kind.TEXT, _with_metas(str, metas), str)
    origin, arguments = get_origin(plain), get_args(plain)
    if origin is set:
        element, scalar = _element(arguments[0], where=where)
        value = _with_metas(set[element], metas)  # type: ignore[valid-type]
        return FieldType(Kind.SET, value, scalar, element=element, stored=_bounded(scalar, [], where=where))
    if origin is list:
        return _list_type(arguments[0], metas, where=where)
    if origin is dict or plain is dict:
        if arguments and arguments != (str, Any):
            raise SchemaError(
                f"{where}: a map's keys are strings and its leaves what JSON holds; declare it as dict[str, Any]"
            )
        return FieldType(Kind.MAP, _with_metas(dict[str, Any], metas), dict)
    return _register_type(plain, metas, where=where)


def _register_type(plain: Any, metas: list[msgspec.Meta], *, where: str) -> FieldType:
    parts = get_args(plain) if get_origin(plain) in (Union, types.UnionType) else (plain,)
    kept = [part for part in parts if part is not type(None)]
    if len(kept) != 1:
        raise SchemaError(f"{where}: a register holds one type, or None; {plain} is several")
    _, inner_metas, inner = _strip(kept[0])
    scalar = _scalar(inner, where=where)
    value = _bounded(inner, [*metas, *inner_metas], where=where)
    optional = len(kept) < len(parts)
    return FieldType(
        Kind.REGISTER,
        value | None if optional else value,
        scalar,
        optional=optional,
        affinity=_affinity(scalar),
        stored=_bounded(scalar, [], where=where),
    )


def _list_type(argument: Any, metas: list[msgspec.Meta], *, where: str) -> FieldType:
    _, _, inner = _strip(argument)
    if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
        if inner.__struct_config__.forbid_unknown_fields:
            raise SchemaError(
                f"{where}: items carry what a newer device added; let {inner.__name__} take unknown fields"
            )
        return FieldType(Kind.LIST, _with_metas(list[argument], metas), inner, element=argument, stored=inner)
    element, scalar = _element(argument, where=where)
    return FieldType(
        Kind.LIST,
        _with_metas(list[element], metas),  # type: ignore[valid-type]
        scalar,
        affinity=_affinity(scalar),
        element=element,
        stored=_bounded(scalar, [], where=where),
    )


def _element(argument: Any, *, where: str) -> tuple[Any, type]:
    """Return the annotation that validates an element, and its class."""
    _, metas, inner = _strip(argument)
    scalar = _scalar(inner, where=where)
    return _bounded(inner, metas, where=where), scalar


def _strip(annotation: Any) -> tuple[bool, list[msgspec.Meta], Any]:
    sealed, metas = False, []
    while get_origin(annotation) is Annotated:
        annotation, *extras = get_args(annotation)
        sealed = sealed or _SealedMark in extras
        metas += [extra for extra in extras if isinstance(extra, msgspec.Meta)]
    return sealed, metas, annotation


def _holds_a_seal(annotation: Any, seen: set[Any]) -> bool:
    """Whether ``Sealed`` stands somewhere inside an annotation, where it would seal nothing."""
    if get_origin(annotation) is Annotated and _SealedMark in get_args(annotation)[1:]:
        return True
    inner = get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct) and annotation not in seen:
        seen.add(annotation)
        with contextlib.suppress(NameError):  # it is named as an error where the struct is read
            inner = tuple(get_type_hints(annotation, include_extras=True).values())
    return any(_holds_a_seal(part, seen) for part in inner)


def _bounded(plain: Any, metas: list[msgspec.Meta], *, where: str) -> Any:
    """Return the annotation with its constraints, and those of what both ends can hold where it has none."""
    if plain is dt.datetime:
        if any(meta.tz is False for meta in metas):
            raise SchemaError(f"{where}: times have a zone; leave out tz=False")
        metas = [*metas, msgspec.Meta(tz=True)]
    elif plain in _BOUNDS:
        least, most = _BOUNDS[plain]
        if all(meta.ge is None and meta.gt is None for meta in metas):
            metas = [*metas, msgspec.Meta(ge=least)]
        if all(meta.le is None and meta.lt is None for meta in metas):
            metas = [*metas, msgspec.Meta(le=most)]
    return _with_metas(plain, metas)


def _with_metas(plain: Any, metas: list[msgspec.Meta]) -> Any:
    for meta in metas:
        plain = Annotated[plain, meta]
    return plain


def _scalar(plain: Any, *, where: str) -> type:
    if get_origin(plain) is Literal:
        kinds = {type(value) for value in get_args(plain)}
        if len(kinds) == 1 and kinds <= {str, int}:
            return kinds.pop()
    if isinstance(plain, type) and (plain in _AFFINITY or issubclass(plain, enum.Enum)):
        return plain
    raise SchemaError(
        f"{where}: no field kind has the type {plain}; use str, int, float, bool, datetime, an Enum or Literal (each"
        " also 'or None'), Counter, Text, set[...], list[...] of structs or scalars, dict[str, Any] or Sealed[...]"
    )


def _affinity(scalar: type) -> str:
    if issubclass(scalar, enum.Enum):
        return "INTEGER" if all(isinstance(member.value, int) for member in scalar) else "TEXT"
    return _AFFINITY[scalar]
