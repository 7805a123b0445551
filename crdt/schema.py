"""Records: a Python class declares a collection, and what each of its fields does when devices meet.

::

    class Note(Record, collection="notes", indexes=["pinned", ("pinned", "created_at")]):
        title: Annotated[str, Meta(max_length=200)]
        tags: set[str] = set()

A record is a `msgspec.Struct`; making one validates nothing, writing one validates everything (`Schema.validate`).
Names are snake_case in Python and camelCase in documents. `crdt.fields` says which types there are; `crdt.document`
how they are written.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, dataclass_transform, get_type_hints

import msgspec

from crdt.errors import ITEMS_ADVICE, SchemaError, ValidationError
from crdt.fields import FieldType, Kind, SealedValue, field_type
from crdt.items import ItemCodec
from crdt.lazy import NotLoaded
from crdt.limits import COLLECTION_NAME_BYTES_MAX, RECORD_ID_BYTES_MAX
from crdt.values import BadValue, convert, shown

__all__ = ["NEVER", "Field", "Record", "Schema", "check_record_id", "schema_of", "snake_to_camel"]

NEVER = dt.datetime(1, 1, 1, tzinfo=dt.UTC)
"""``created_at`` and ``updated_at`` of a record that was not written yet."""

_COLLECTION = re.compile(rf"[a-z][a-z0-9_]{{0,{COLLECTION_NAME_BYTES_MAX - 1}}}")
_FIELD = re.compile(r"[a-z][a-z0-9_]{0,62}")  # a column's name too, and the end of a root's
_RESERVED = ("pjais_", "sqlite_")
_OWN = {"id": str, "created_at": dt.datetime, "updated_at": dt.datetime}
_EXPLANATION = re.compile(
    r"(?P<what>.*?)(?:, got (?P<got>.*?))?(?: - at (?:`key` in )?`\$\.?(?P<path>[^`]*)`)?", re.DOTALL
)


class _RecordMeta(msgspec.StructMeta):
    """Takes ``collection``, ``indexes``, ``searchable``, ``lazy`` and ``vectors`` beside msgspec's own options."""

    def __new__(
        mcs,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        *,
        collection: str | None = None,
        indexes: Iterable[str | tuple[str, ...]] = (),
        searchable: Iterable[str] = (),
        lazy: Iterable[str] = (),
        vectors: Literal["shared", "device"] = "shared",
        **options: Any,
    ) -> Any:
        options.setdefault("kw_only", True)
        try:
            made = super().__new__(mcs, name, bases, namespace, **options)
        except TypeError as error:
            raise SchemaError(f"{name}: {error}") from None
        if collection is not None:
            if any(isinstance(names, str) for names in (indexes, searchable, lazy)):
                raise SchemaError(f"{name}: indexes, searchable and lazy are lists of names")
            declared = tuple((index,) if isinstance(index, str) else tuple(index) for index in indexes)
            if vectors not in ("shared", "device"):
                raise SchemaError(f'{name}: vectors are "shared" or stay on the "device", not {vectors!r}')
            _DECLARATIONS[made] = (collection, declared, tuple(searchable), tuple(lazy), vectors == "shared")
        return made

    if not TYPE_CHECKING:

        def __init__(self, name: str, bases: Any, namespace: Any, **options: Any) -> None:
            """Swallow the options that `__new__` took."""


_DECLARATIONS: dict[
    type, tuple[str, tuple[tuple[str, ...], ...], tuple[str, ...], tuple[str, ...], bool]
] = {}
_SCHEMAS: dict[type, Schema] = {}


@dataclass_transform(kw_only_default=True, field_specifiers=(msgspec.field,))
class Record(msgspec.Struct, metaclass=_RecordMeta):
    """The base of every record. ``id`` is minted when it is left empty; times have a zone, and are UTC when read.

    Declared with ``vectors="device"``, what stands for its searchable texts never leaves the device.
    """

    id: str = ""
    created_at: dt.datetime = NEVER
    updated_at: dt.datetime = NEVER

    def __repr__(self) -> str:
        """Show the fields, of sealed ones only whether they have a value: what is shown gets into logs."""
        fields = ", ".join(f"{name}={held!r}" for name, held in self.__rich_repr__())
        return f"{type(self).__name__}({fields})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Return what `rich` shows: the same."""
        sealed = _sealed_names(type(self))
        return [
            (name, _HIDDEN if name in sealed and _is_open(held) else held)
            for name, held in ((name, getattr(self, name)) for name in self.__struct_fields__)
        ]


class _Hidden:
    """Stands for a value that is not shown."""

    def __repr__(self) -> str:
        return "<sealed>"


_HIDDEN = _Hidden()


class Field(msgspec.Struct, frozen=True, eq=False):
    """One field of a record: its name in Python and on the wire, its type, and what stands there by default."""

    name: str
    wire: str
    type: FieldType
    required: bool
    default: Any
    kind: Kind  # that of the type: how the field merges
    key: bytes  # the wire name in UTF-8
    is_time: bool  # a register of times

    def make_default(self) -> Any:
        """Return a fresh default (None for a required field)."""
        return self.default() if callable(self.default) else self.default


class Schema:
    """What a record class declares.

    Attributes: ``record`` (the class), ``collection``, ``fields`` (without ``id``; ``created_at`` and ``updated_at``
    first), ``by_name``, ``by_wire``, ``sealed`` (the sealed fields), ``items`` (the codec of each list field, by name),
    ``indexes`` (tuples of field names), ``searchable``, ``lazy`` (the lists that queries leave out unless asked for: by
    name, what stands there), ``shares_vectors`` (what stands for searchable texts may leave the device).
    """

    def __init__(
        self,
        record: type[Record],
        collection: str,
        indexes: tuple[tuple[str, ...], ...],
        searchable: tuple[str, ...],
        lazy: tuple[str, ...] = (),
        shares_vectors: bool = True,
    ) -> None:
        self.record = record
        self.collection = collection
        name = record.__name__
        if not isinstance(collection, str) or not _COLLECTION.fullmatch(collection):
            raise SchemaError(
                f"{name}: {collection!r} is no collection's name; it matches {_COLLECTION.pattern}"
            )
        if collection.startswith(_RESERVED):
            raise SchemaError(f"{name}: {collection!r} begins with {' or '.join(_RESERVED)}, which is ours")
        self.fields = tuple(_fields(record))
        self.by_name: Mapping[str, Field] = {field.name: field for field in self.fields}
        self.by_wire: Mapping[str, Field] = {field.wire: field for field in self.fields}
        if len(self.by_wire) != len(self.fields):
            raise SchemaError(f"{name}: two fields have the same name in camelCase")
        self.sealed = tuple(field for field in self.fields if field.kind is Kind.SEALED)
        self.indexes = indexes
        self.searchable = searchable
        self.shares_vectors = shares_vectors
        self.lazy: Mapping[str, NotLoaded] = {field: NotLoaded(name, field) for field in lazy}
        self._check_names()
        self._validator = msgspec.defstruct(
            name, [("id", str), *((field.name, field.type.value) for field in self.fields)], kw_only=True
        )
        self.items: Mapping[str, ItemCodec] = {
            field.name: ItemCodec(field.type, where=f"{name}.{field.name}")
            for field in self.fields
            if field.kind is Kind.LIST
        }

    def __repr__(self) -> str:
        """Name the collection and its class."""
        return f"<Schema {self.collection}: {self.record.__name__}>"

    def validate(self, record: Record) -> Any:
        """Check a record against its declaration; return its values as attributes of the same names, converted.

        Raises:
            ValidationError: naming the record, the field, what was wrong and what would be right.
        """
        if type(record) is not self.record:
            raise ValidationError(
                record=self.record.__name__,
                field="*",
                problem=f"got a {type(record).__name__}",
                expected=f"a {self.record.__name__}",
            )
        for field in self.sealed:
            self._check_open(field.name, getattr(record, field.name))
        for name in self.lazy:
            self._check_loaded(name, getattr(record, name))
        try:
            return msgspec.convert(record, self._validator, from_attributes=True)
        except msgspec.ValidationError as error:
            raise self.explain(error, held=record) from None
        except ValueError:  # not Unicode, or too many digits: msgspec does not say where
            for field in self.fields:
                self.validate_value(field.name, getattr(record, field.name))
            raise

    def validate_value(self, name: str, value: Any) -> Any:
        """Check one field's new value and return it, converted. Raises as `validate`."""
        self._check_open(name, value)
        self._check_loaded(name, value)
        return self._convert(name, value, self.field(name).type.value)

    def validate_elements(self, field: Field, elements: Any) -> list[Any]:
        """Check elements to add to a set or to remove from it; return them, converted. Raises as `validate`."""
        return list(self._convert(field.name, elements, set[field.type.element]))  # type: ignore[name-defined]

    def field(self, name: str) -> Field:
        """Return the field of that name.

        Raises:
            ValidationError: there is none; the message lists those that there are.
        """
        field = self.by_name.get(name)
        if field is None:
            raise ValidationError(
                record=self.record.__name__,
                field=name,
                problem="there is no such field",
                expected=f"one of {', '.join(self.by_name)}",
            )
        return field

    def explain(self, error: Exception, *, root: str = "", held: Any = None) -> ValidationError:
        """Turn an error of msgspec's into one that names the field.

        ``held`` is what was checked: the value of the field ``root``, or without one the record.
        """
        found = _EXPLANATION.fullmatch(str(error))
        assert found is not None  # every part of it may be empty
        what, got, below = found["what"].replace("`", ""), found["got"], found["path"] or ""
        path = f"{root}{'' if below[:1] in ('', '[') or not root else '.'}{below}"
        top = re.split(r"[.\[]", path, maxsplit=1)[0]
        if not root:
            held = getattr(held, top, held)
        problem, expected = f"got {(got or shown(held)).replace('`', '')}", what.removeprefix("Expected ")
        if top in self.by_name and self.by_name[top].kind is Kind.SEALED:  # which no message shows
            problem = f"got {got.replace('`', '') if got else f'a {type(held).__name__}'}"
            expected = self.by_name[top].type.describe() if expected == what else expected
        elif expected == what and top in self.by_name:  # not of the form "Expected …, got …"
            expected = self.by_name[top].type.describe()
            if not what.startswith("Invalid"):  # which repeats the value, however long
                problem = f"{what[:1].lower()}{what[1:]}, {problem}"
        return ValidationError(
            record=self.record.__name__, field=path or "*", problem=problem, expected=expected
        )

    def _convert(self, name: str, value: Any, annotation: Any) -> Any:
        try:
            return convert(value, annotation)
        except msgspec.ValidationError as error:
            raise self.explain(error, root=name, held=value) from None
        except BadValue as error:
            is_sealed = self.field(name).kind is Kind.SEALED
            raise ValidationError(
                record=self.record.__name__,
                field=name,
                problem=f"got a {type(value).__name__}" if is_sealed else error.problem,
                expected=error.expected,
            ) from None

    def _check_open(self, name: str, value: Any) -> None:
        if isinstance(value, SealedValue):
            raise ValidationError(
                record=self.record.__name__,
                field=name,
                problem="got a SealedValue, which nobody here can open",
                expected="a value, or to leave the field as it is: its bytes stay",
            )

    def _check_loaded(self, name: str, value: Any) -> None:
        if isinstance(value, NotLoaded):
            raise ValidationError(
                record=self.record.__name__,
                field=name,
                problem=f"got {value!r}",
                expected=f"its items: {ITEMS_ADVICE.format(name)}",
            )

    def _check_names(self) -> None:
        for option, names in (
            *(("indexes", index) for index in self.indexes),
            ("searchable", self.searchable),
            ("lazy", tuple(self.lazy)),
        ):
            if (option == "indexes" and not names) or len(set(names)) != len(names):
                raise SchemaError(f"{self.record.__name__}: {option} has {names!r}: names, each once")
            for name in names:
                field = self.by_name.get(name)
                if field is None and name != "id":
                    raise SchemaError(
                        f"{self.record.__name__}: {option} names {name!r}, which is not a field; there are "
                        + ", ".join(self.by_name)
                    )
                if option == "indexes" and field is not None and field.kind in {Kind.LIST, Kind.SEALED}:
                    raise SchemaError(
                        f"{self.record.__name__}: a {field.kind.value} field cannot be indexed: {name!r}"
                    )
                if option == "lazy" and (field is None or field.kind is not Kind.LIST):
                    raise SchemaError(f"{self.record.__name__}: only a list can be lazy, not {name!r}")
                if option == "searchable" and field is not None and field.kind is Kind.SEALED:
                    raise SchemaError(f"{self.record.__name__}: a sealed field is never searchable: {name!r}")


def schema_of(record: type[Record]) -> Schema:
    """Return what a record class declares; made once for each class.

    Raises:
        SchemaError: the class is no record, names no collection, or declares a field that cannot be.
    """
    schema = _SCHEMAS.get(record)
    if schema is None:
        declaration = _DECLARATIONS.get(record)
        if declaration is None:
            name = getattr(record, "__name__", repr(record))
            raise SchemaError(f'{name} is not a record: declare it as class {name}(Record, collection="...")')
        schema = _SCHEMAS[record] = Schema(record, *declaration)
    return schema


def _sealed_names(record: type[Record]) -> set[str]:
    try:
        return {field.name for field in schema_of(record).sealed}
    except SchemaError:  # then no record of it was ever written
        return set()


def _is_open(held: Any) -> bool:
    return held is not None and not isinstance(held, SealedValue)


def check_record_id(record: str, record_id: str) -> None:
    """Raise `ValidationError` if an id that the application chose cannot be one."""
    size = len(record_id.encode("utf-8", "surrogatepass")) if isinstance(record_id, str) else 0
    if not 0 < size <= RECORD_ID_BYTES_MAX or "\0" in record_id or not _is_unicode(record_id):
        raise ValidationError(
            record=record,
            field="id",
            problem=f"got {shown(record_id)}",
            expected=f"1 to {RECORD_ID_BYTES_MAX} bytes of text without NUL",
        )


def snake_to_camel(name: str) -> str:
    """``created_at`` → ``createdAt``."""
    head, *tail = name.split("_")
    return head + "".join(part.capitalize() for part in tail)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _fields(record: type[Record]) -> Iterable[Field]:
    try:
        hints = get_type_hints(record, include_extras=True)
    except NameError as error:
        raise SchemaError(
            f"{record.__name__}: {error}; declare at module level what a field's type names"
        ) from None
    for name, own in _OWN.items():
        if hints[name] is not own:
            raise SchemaError(
                f"{record.__name__}.{name}: every record has it, as {own.__name__}; leave it out"
            )
    for info in msgspec.structs.fields(record):
        if info.name == "id":
            continue
        where = f"{record.__name__}.{info.name}"
        wire = snake_to_camel(info.name)
        if not _FIELD.fullmatch(info.name) or info.name == "doc" or wire == "id":
            raise SchemaError(
                f"{where}: a field's name is snake_case, matches {_FIELD.pattern}, and is not 'doc' or 'id'"
            )
        kind = field_type(hints[info.name], where=where)
        default = info.default_factory if info.default is msgspec.NODEFAULT else info.default
        required = default is msgspec.NODEFAULT
        if kind.kind in {Kind.SET, Kind.LIST, Kind.MAP} and not required and not callable(default):
            raise SchemaError(
                f"{where}: give a fresh default: {info.name} = msgspec.field(default_factory=...)"
            )
        field = Field(
            name=info.name,
            wire=wire,
            type=kind,
            required=required,
            default=None if required else default,
            kind=kind.kind,
            key=wire.encode(),
            is_time=kind.kind is Kind.REGISTER and kind.scalar is dt.datetime,
        )
        try:
            msgspec.msgpack.Decoder(kind.value)
            if not required:
                msgspec.convert(field.make_default(), kind.value, from_attributes=True)
        except msgspec.ValidationError as error:
            raise SchemaError(f"{where}: its default does not fit: {error}") from None
        except TypeError as error:
            raise SchemaError(f"{where}: {error}") from None
        yield field
