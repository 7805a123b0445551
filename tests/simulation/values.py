"""Values for fields, at random: each item and each character is the only one of its kind."""

from __future__ import annotations

import datetime as dt
import itertools
import random
from collections.abc import Iterator
from typing import Any, Final

from crdt.fields import Kind
from crdt.schema import Field
from tests.simulation.records import Line, Mood

__all__ = ["COLOURS", "LEAVES", "Values", "flat", "is_same", "nested"]

COLOURS: Final = ("red", "green", "blue", "white", "black", 'a "quoted" one')
LEAVES: Final = ("theme", "font.size", "font.face", "tricky/na~me@7")


class Values:
    """A supply of values that all devices of a world draw from."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._numbers = itertools.count(1)

    def of(self, field: Field) -> Any:
        """Return a value for a field."""
        chance = self._chance
        if field.kind is Kind.SET:
            return set(chance.sample(COLOURS, chance.randint(1, 3)))
        if field.kind is Kind.COUNTER:
            return chance.choice((1, 2, -1))
        if field.kind is Kind.MAP:
            return nested({leaf: self.leaf() for leaf in chance.sample(LEAVES, chance.randint(1, 3))})
        if field.kind is Kind.TEXT:
            return "".join(self._character() for _ in range(chance.randint(1, 4)))
        if field.name == "lines":
            return [
                Line(id=f"line {next(self._numbers)}", content="…" * chance.randrange(40))
                for _ in range(chance.randint(1, 3))
            ]
        if field.name == "scores":
            return [next(self._numbers) for _ in range(chance.randint(1, 3))]
        number = next(self._numbers)
        match field.name:
            case "pinned":
                return chance.random() < 0.5
            case "rating":
                return None if chance.random() < 0.2 else number / 4
            case "due":
                return dt.datetime(2024, 1, 1, tzinfo=dt.UTC) + dt.timedelta(minutes=number)
            case "mood":
                return chance.choice(list(Mood))
            case "importance":
                return chance.randint(0, 100)
            case _:
                return f"{field.name} {number}"

    def leaf(self) -> Any:
        """Return a value for a map's leaf."""
        return self._chance.choice(
            (None, True, f"leaf {next(self._numbers)}", next(self._numbers), [1, "two"])
        )

    def _character(self) -> str:
        """Return a character that no text has yet: from a private plane, each second one a pair in UTF-16."""
        number = next(self._numbers)
        return chr((0xF_0000 if number % 2 else 0xE000) + number // 2 % 0x1900)


def is_same(held: dict[str, Any], name: str, value: Any) -> bool:
    """Whether a map holds this value under this name, type and all."""
    return name in held and type(held[name]) is type(value) and held[name] == value


def flat(value: dict[str, Any]) -> dict[str, Any]:
    """Return a map's leaves, by their names with dots."""
    return dict(_leaves(value, ""))


def nested(leaves: dict[str, Any]) -> dict[str, Any]:
    """Return the map that has these leaves."""
    made: dict[str, Any] = {}
    for name, value in leaves.items():
        *above, last = name.split(".")
        place = made
        for part in above:
            place = place.setdefault(part, {})
        place[last] = value
    return made


def _leaves(value: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, inner in value.items():
        if isinstance(inner, dict) and inner:
            yield from _leaves(inner, f"{prefix}{name}.")
        else:
            yield prefix + name, inner
