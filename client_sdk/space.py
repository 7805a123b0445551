"""A search of the whole space: the question as the server takes it, and what it found as places on this device.

The server filters by the conditions that can be said to it (`said`), so that what does not fit takes no hit's place.
Whatever it answers is held against all conditions once more, here, where they are exact.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from client_sdk.conditions import Column, Comparison, Condition, Operator
from client_sdk.database import Connection
from client_sdk.meaning.shared import field_of_part
from client_sdk.plan import Plan
from client_sdk.rows import Table, from_sql, to_sql
from client_sdk.text_index import TextTable
from crdt.fields import Kind
from crdt.limits import SEARCH_CONDITIONS_MAX, SEARCH_VALUES_MAX
from crdt.requests import FieldCondition, FoundPart, Scalar
from crdt.requests import Operator as Bound
from crdt.schema import Field

__all__ = ["Located", "located", "said", "unknown"]

_BOUNDS: Final[dict[str, Bound]] = {">=": "at least", ">": "above", "<=": "at most", "<": "below"}
_FIRST_PLACE: Final = 2  # of a row's columns: before them stand the document's number and the id
_DERIVED: Final = frozenset(
    {"created_at", "updated_at"}
)  # from readings of the clock: in no document's value
_LOOKUP_MAX: Final = 500


class Located(msgspec.Struct, frozen=True):
    """Where a part that was found stands here."""

    table: TextTable
    doc: int
    position: int | None
    part: FoundPart


def said(plan: Plan) -> tuple[list[FieldCondition], bool]:
    """Return what the server can be told of a query's conditions, and whether that is all of them."""
    made = [_said(plan.table, condition) for condition in plan.conditions]
    told = [one for one in made if one is not None][:SEARCH_CONDITIONS_MAX]
    return told, len(told) == len(made)


def unknown(connection: Connection, table: Table, found: Sequence[FoundPart]) -> list[str]:
    """Return the records among those found of which this device has never heard."""
    records = list(dict.fromkeys(one.record for one in found))
    known: set[str] = set()
    for start in range(0, len(records), _LOOKUP_MAX):
        some = records[start : start + _LOOKUP_MAX]
        rows = connection.execute(
            "SELECT record FROM pjais_documents WHERE collection = ?"
            f" AND record IN ({', '.join('?' * len(some))})",
            (table.name, *some),
        )
        known.update(row[0] for row in rows)
    return [record for record in records if record not in known]


def located(connection: Connection, plan: Plan, found: Sequence[FoundPart]) -> list[Located]:
    """Return where what was found stands here, in its order, without what is deleted here or does not fit."""
    table = plan.table
    texts = {text.list_field or "": text for text in table.text.tables} if table.text else {}
    docs = {record: table.find(connection, record) for record in {one.record for one in found}}
    fitting = _fitting(connection, plan, [doc for doc in docs.values() if doc is not None])
    places: list[Located] = []
    for one in found:
        doc, field = docs[one.record], field_of_part(table, one.part)
        if one.collection == table.name and doc in fitting and field is not None:
            places.append(Located(texts[field], doc, one.part if field else None, one))
    return places


def _fitting(connection: Connection, plan: Plan, docs: Sequence[int]) -> dict[int, None]:
    where, parameters = plan.where()
    if not where:
        return dict.fromkeys(docs)
    name = plan.table.name
    fitting: dict[int, None] = {}
    for start in range(0, len(docs), _LOOKUP_MAX):
        some = docs[start : start + _LOOKUP_MAX]
        rows = connection.execute(
            f'SELECT "{name}".doc FROM "{name}" WHERE "{name}".doc IN ({", ".join("?" * len(some))}) AND {where}',
            (*some, *parameters),
        )
        fitting.update(dict.fromkeys(row[0] for row in rows))
    return fitting


def _said(table: Table, condition: Condition) -> FieldCondition | None:
    if (
        not isinstance(condition, Comparison)
        or condition.column.leaf
        or condition.column.place < _FIRST_PLACE
    ):
        return None
    field = table.schema.field(table.columns[condition.column.place - _FIRST_PLACE].name)
    operator, value = condition.operator, condition.value
    if field.name in _DERIVED:
        return None
    if operator == "has element" and field.kind is Kind.SET:
        return FieldCondition(field.wire, "has", value)
    if field.kind is not Kind.REGISTER:
        return None
    if operator in ("=", "in"):
        return _among(field, [value] if operator == "=" else value)
    bound = _BOUNDS.get(operator)
    if bound is None or _lacks(field, lambda default: _fits(default, operator, value)):
        return None
    if field.is_time:
        # RFC 3339 with or without a fraction: compared by the second, and exactly when it is here
        second = from_sql(value) + dt.timedelta(seconds=1 if bound in ("at most", "below") else 0)
        bound = "at least" if bound in ("at least", "above") else "below"
        value = second.strftime("%Y-%m-%dT%H:%M:%S")
    return FieldCondition(field.wire, bound, value)


def _among(field: Field, values: Sequence[Any]) -> FieldCondition | None:
    if field.is_time:
        return None
    if len(values) >= SEARCH_VALUES_MAX:
        return None
    told: list[Scalar] = [bool(value) if field.type.scalar is bool else value for value in values]
    if _lacks(field, lambda default: default in values):
        told.append(None)
    return FieldCondition(field.wire, "in", told)


def _lacks(field: Field, fits: Callable[[Any], bool]) -> bool:
    """Whether a record that was never given the field fits, by its default: the server knows no defaults."""
    default = to_sql(field.make_default())
    return not field.required and default is not None and fits(default)


def _fits(default: Any, operator: Operator, value: Any) -> bool:
    return Comparison(Column("", 0), operator, value).test((default,))
