"""What stands in a record where a list was not loaded.

A conversation may have 100,000 messages, and a list of conversations is shown without them. So a record class names
its long lists (``lazy=["messages"]``), and who reads many records gets `NotLoaded` in their place, unless asked for.

It is no list: any use of it as one raises `ItemsNotLoaded`, and no encoder writes it, so that what was not loaded is
never taken for empty, nor written back as such. It equals itself: records that differ in nothing else are equal.
"""

from __future__ import annotations

from typing import Any, Final, NoReturn, Self

from crdt.errors import ItemsNotLoaded

__all__ = ["NotLoaded"]

_LIST_METHODS: Final = frozenset(name for name in dir(list) if not name.startswith("_"))


class NotLoaded:
    """The items of ``record``'s list ``field`` are in the file, and not here."""

    __slots__ = ("field", "record")

    def __init__(self, record: str, field: str) -> None:
        self.record = record
        self.field = field

    def __repr__(self) -> str:
        """Name the field."""
        return f"<{self.record}.{self.field} not loaded>"

    def __copy__(self) -> Self:
        """Return the same one: a copy of a record equals the record."""
        return self

    def __deepcopy__(self, memo: Any) -> Self:
        """Return the same one."""
        return self

    def __getattr__(self, name: str) -> Any:
        """Refuse what lists can do."""
        if name in _LIST_METHODS:
            self._refuse()
        raise AttributeError(name)

    def _refuse(self, *_: Any) -> NoReturn:
        raise ItemsNotLoaded(self.record, self.field)

    __bool__ = __len__ = __iter__ = __reversed__ = __contains__ = _refuse
    __getitem__ = __setitem__ = __delitem__ = _refuse
    __add__ = __radd__ = __iadd__ = __mul__ = __rmul__ = __imul__ = _refuse
    __lt__ = __le__ = __gt__ = __ge__ = _refuse
    __hash__ = None  # type: ignore[assignment]  # as a list has none

    def __eq__(self, other: object) -> bool:
        """Equal itself, and refuse to say what is in it."""
        return self is other or self._refuse()

    def __ne__(self, other: object) -> bool:
        """As `__eq__`."""
        return self is not other and self._refuse()
