"""What was not loaded is never taken for an empty list: not by a program, not by an encoder, not by a copy."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from crdt.errors import ItemsNotLoaded, SchemaError, ValidationError
from crdt.lazy import NotLoaded
from crdt.schema import Record, schema_of

__all__: list[str] = []


class Talk(Record, collection="talks", lazy=["lines"]):
    name: str = ""
    lines: list[str] = []
    marks: list[int] = []


LINES: Any = schema_of(Talk).lazy["lines"]

USES: dict[str, Callable[[Any], Any]] = {
    "iterate": iter,
    "len": len,
    "bool": bool,
    "index": lambda lines: lines[0],
    "slice": lambda lines: lines[-2:],
    "equal": lambda lines: lines == [],
    "unequal": lambda lines: lines != [],
    "equal, from the other side": lambda lines: [] == lines,  # noqa: SIM300
    "in": lambda lines: "a" in lines,
    "reversed": reversed,
    "list": list,
    "add": lambda lines: lines + ["a"],  # noqa: RUF005
    "added": lambda lines: ["a"] + lines,  # noqa: RUF005
    "append": lambda lines: lines.append("a"),
    "extend": lambda lines: lines.extend([]),
    "sort": lambda lines: lines.sort(),
    "delete": lambda lines: lines.__delitem__(0),
    "set": lambda lines: lines.__setitem__(0, "a"),
    "or nothing": lambda lines: lines or [],
    "equal records": lambda lines: Talk(lines=lines) == Talk(lines=[]),
}


@pytest.mark.parametrize("use", USES)
def test_any_use_says_what_to_do(use: str) -> None:
    with pytest.raises(ItemsNotLoaded, match=r'Talk\.lines is not loaded: .*include\("lines"\).*get\(id\)'):
        USES[use](LINES)


@pytest.mark.parametrize(
    "encode",
    [msgspec.json.encode, msgspec.msgpack.encode, msgspec.to_builtins, msgspec.yaml.encode],
    ids=["json", "msgpack", "builtins", "yaml"],
)
def test_no_encoder_writes_it(encode: Callable[[Any], Any]) -> None:
    for held in (LINES, Talk(lines=LINES)):
        with pytest.raises((TypeError, ImportError)):
            encode(held)


def test_no_schema_takes_it() -> None:
    with pytest.raises(
        ValidationError, match=r"Talk\.lines: got <Talk\.lines not loaded>; expected its items"
    ):
        schema_of(Talk).validate(Talk(lines=LINES))
    with pytest.raises(ValidationError):
        schema_of(Talk).validate_value("lines", LINES)
    with pytest.raises(ValidationError):
        schema_of(Talk).validate(Talk(marks=LINES))


def test_records_that_differ_in_nothing_else_are_equal_and_so_are_copies() -> None:
    assert Talk(name="a", lines=LINES) == Talk(name="a", lines=LINES)
    assert Talk(name="a", lines=LINES) != Talk(name="b", lines=LINES)
    assert copy.deepcopy(LINES) is copy.copy(LINES) is LINES


def test_it_shows_what_it_is() -> None:
    assert repr(LINES) == "<Talk.lines not loaded>"
    assert isinstance(LINES, NotLoaded)
    assert not hasattr(LINES, "anything")
    with pytest.raises(TypeError, match="unhashable"):
        hash(LINES)


def test_only_a_list_is_lazy() -> None:
    for names, problem in (
        (["name"], "only a list"),
        (["id"], "only a list"),
        (["no"], "not a field"),
        ("lines", "lists"),
    ):
        with pytest.raises(SchemaError, match=problem):

            class Wrong(Record, collection="wrongs", lazy=names):
                name: str = ""
                lines: list[str] = []

            schema_of(Wrong)
