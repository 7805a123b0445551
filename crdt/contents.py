"""What a document says: its entries resolved to one value each, readable without a schema, and their digest.

A document holds entries (``title@17`` → a reading and a value); its *contents* are what they come to: of several
entries of one path the largest (reading, client) counts. Both ends compute the same contents from the same updates,
and prove it with a digest: BLAKE2b (RFC 7693) over the resolved values' own bytes, never re-encoded, so that no
difference between two codecs can make equal records differ. The digests of a space's records are summed modulo
2**128; the sum does not depend on order, so it is kept by adding and subtracting as records change.

A list is digested as a polynomial of its items' hashes at a fixed point modulo the prime 2**127 - 1 (Karp and Rabin,
1987): appending costs one step, however long the list, and its order counts.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec

from crdt.lanes import Creation
from crdt.limits import VALUE_DEPTH_MAX
from crdt.values import (
    BadValue,
    check_plain,
    decode_value,
    key_to_element,
    reading_of,
    split_edit,
    unflatten,
)

__all__ = [
    "DELETED",
    "DIGEST_MODULUS",
    "Contents",
    "ListDigest",
    "Register",
    "add_digests",
    "to_int64",
    "total_of",
]

DELETED = "$deleted"
DIGEST_MODULUS = 1 << 128
_TRUE = b"\xc3"
_INT64_HALF = 1 << 63
_PRIME = (1 << 127) - 1
_POINT = int.from_bytes(blake2b(b"pjais list digest v1", digest_size=15).digest(), "big")
_canonical = msgspec.msgpack.Encoder(order="deterministic")


class Register(NamedTuple):
    """One entry of a register: ``client`` is 0 if it was given at creation, ``value`` None if it removed a leaf."""

    reading: int
    client: int
    value: bytes | None


class ListDigest(msgspec.Struct, frozen=True, gc=False):
    """The digest of a list so far: how many items, and their polynomial."""

    count: int = 0
    value: int = 0

    def extend(self, items: Iterable[bytes]) -> ListDigest:
        """Return the digest after appending some items."""
        count, value = self.count, self.value
        power = pow(_POINT, count, _PRIME)
        for item in items:
            value = (value + int.from_bytes(blake2b(item, digest_size=15).digest(), "big") * power) % _PRIME
            power = power * _POINT % _PRIME
            count += 1
        return ListDigest(count, value)


class Contents:
    """The raw entries of one document by root, and what they come to.

    Attributes: ``reg`` (key → entry), ``sets`` (name → keys), ``counts`` (name → key → entry), ``lists`` (name → items'
    bytes), ``texts`` (name → text), ``list_digests`` (name → digest; filled when first asked for).
    """

    __slots__ = ("counts", "list_digests", "lists", "reg", "sets", "texts")

    def __init__(
        self,
        reg: Mapping[str, bytes],
        sets: Mapping[str, Iterable[str]],
        counts: Mapping[str, Mapping[str, bytes]],
        lists: Mapping[str, Iterable[bytes]],
        texts: Mapping[str, str],
    ) -> None:
        self.reg = reg
        self.sets = sets
        self.counts = counts
        self.lists = {name: list(items) for name, items in lists.items()}
        self.texts = texts
        self.list_digests: dict[str, ListDigest] = {}

    @classmethod
    def from_creation(cls, creation: Creation) -> Contents:
        """Return the contents of a document that is one creation update."""
        return cls(creation.registers, creation.sets, creation.counts, creation.lists, creation.texts)

    def entries(self, path: str) -> list[tuple[str, Register]]:
        """Return the entries of one path as (raw key, register), the one that counts first."""
        created = self.created_reading
        found = []
        for key, entry in self.reg.items():
            if key.startswith(path):
                parsed = _register(key, entry, created)
                if parsed is not None and parsed[0] == path:
                    found.append((key, parsed[1]))
        found.sort(key=lambda pair: pair[1][:2], reverse=True)
        return found

    def resolved(self) -> dict[str, Register]:
        """Return the entry that counts, by path; removed leaves included."""
        created = self.created_reading
        best: dict[str, Register] = {}
        for key, entry in self.reg.items():
            parsed = _register(key, entry, created)
            if parsed is not None:
                path, register = parsed
                held = best.get(path)
                if held is None or register[:2] > held[:2]:
                    best[path] = register
        return best

    def values(self) -> Mapping[str, bytes]:
        """Return the value that counts, by path; without removed leaves."""
        if self._is_plain:
            return {path: entry for path, entry in self.reg.items() if path != "@"}
        resolved = self.resolved().items()
        return {path: register.value for path, register in resolved if register.value is not None}

    @property
    def _is_plain(self) -> bool:
        """Whether every register is as it was created: most documents are, and then nothing needs resolving."""
        return "".join(self.reg).count("@") == ("@" in self.reg)

    def _sorted_elements(self, name: str) -> list[str]:
        keys = self.sets[name]
        return sorted(self.elements(name)) if any("@" in key for key in keys) else sorted(keys)

    @property
    def is_deleted(self) -> bool:
        """Whether the record is deleted: it has a tombstone that no later restore lifted."""
        if self._is_plain:
            return self.reg.get(DELETED) == _TRUE
        entries = self.entries(DELETED)
        return bool(entries) and entries[0][1].value == _TRUE

    @property
    def created_reading(self) -> int:
        """The clock reading of the creation."""
        return reading_of(self.reg.get("@", b""))

    def reading_max(self) -> int:
        """Return the largest reading in the document, for the clock to follow."""
        readings = [split[0] for entry in self.reg.values() if (split := split_edit(entry))]
        return max(readings, default=0) or self.created_reading

    def elements(self, name: str) -> dict[str, list[str]]:
        """Return a set's elements (as JSON), each with its raw keys."""
        found: dict[str, list[str]] = {}
        for key in self.sets.get(name, ()):
            found.setdefault(_element_of(key), []).append(key)
        return found

    def count(self, name: str) -> int:
        """Return a counter's value: the sum of every client's running total, in 64 bits that wrap around."""
        return to_int64(sum(map(total_of, self.counts.get(name, {}).values())))

    def list_digest(self, name: str) -> ListDigest:
        """Return a list's digest."""
        digest = self.list_digests.get(name)
        if digest is None:
            digest = self.list_digests[name] = ListDigest().extend(self.lists.get(name, ()))
        return digest

    def digest(self, collection: str, record: str) -> int:
        """Return the record's digest, 0 ≤ digest < 2**128."""
        state = [
            collection,
            record,
            self.values(),
            {name: elements for name in self.sets if (elements := self._sorted_elements(name))},
            {name: total for name in self.counts if (total := self.count(name))},
            {
                name: [digest.count, digest.value.to_bytes(16, "big")]
                for name in self.lists
                if (digest := self.list_digest(name)).count
            },
            {name: text for name, text in self.texts.items() if text},
        ]
        return int.from_bytes(blake2b(_canonical.encode(state), digest_size=16).digest(), "big")

    def leaves(self, field: str) -> list[tuple[str, bytes]]:
        """Return a map's leaves as (path, value's bytes), oldest first."""
        prefix = field + "/"
        if self._is_plain:
            return sorted(
                (path, entry)
                for path, entry in self.reg.items()
                if path.startswith(prefix) and path.count("/") <= VALUE_DEPTH_MAX
            )
        found = [
            (register[:2], path, register.value)
            for path, register in self.resolved().items()
            if register.value is not None and path.startswith(prefix) and path.count("/") <= VALUE_DEPTH_MAX
        ]
        return [(path, value) for _, path, value in sorted(found)]

    def value(self, *, with_bytes: bool = True) -> dict[str, Any]:
        """Return everything by camelCase name, without a schema: JSON and times.

        Bytes, as a sealed field has them, are unpadded base64url, or left out as None; None stands for what is
        none of these.
        """
        made: dict[str, Any] = {}
        for path, entry in sorted(self.values().items()):  # a register before the map of its name
            field, is_map, _ = path.partition("/")
            if field in made or field.startswith("$"):
                continue
            if is_map:
                leaves = self.leaves(field)
                made[field] = unflatten(
                    (leaf, _value_or_none(value, with_bytes=with_bytes)) for leaf, value in leaves
                )
            else:
                made[field] = _value_or_none(entry, with_bytes=with_bytes)
        for name in self.sets:
            made[name] = [_element_or_none(element) for element in sorted(self.elements(name))]
        for name in self.counts:
            made[name] = self.count(name)
        for name, items in self.lists.items():
            made[name] = [_value_or_none(item, with_bytes=with_bytes) for item in items]
        made.update(self.texts)
        return made


def add_digests(*digests: int) -> int:
    """Return the sum of digests modulo 2**128; subtract by adding a negative one."""
    return sum(digests) % DIGEST_MODULUS


def total_of(entry: bytes) -> int:
    """Return a client's running total from its entry, 0 if it is none."""
    try:
        total = decode_value(entry)
    except BadValue:
        return 0
    return total if type(total) is int else 0


def to_int64(number: int) -> int:
    """Return a sum as what 64 bits hold of it: past either end it wraps around, at every device alike."""
    return (number + _INT64_HALF) % (2 * _INT64_HALF) - _INT64_HALF


def _register(key: str, entry: bytes, created: int) -> tuple[str, Register] | None:
    """Return the path and register of an entry, None if it is not one of ours."""
    path, at, client = key.rpartition("@")
    if not at:
        return key, Register(created, 0, entry)
    edit = split_edit(entry) if path and _is_client(client) else None
    return None if edit is None else (path, Register(edit[0], int(client), edit[1]))


def _is_client(mark: str) -> bool:
    return mark.isdecimal() and mark.isascii() and len(mark) <= 16


def _element_of(key: str) -> str:
    element, at, client = key.rpartition("@")
    return element if at and _is_client(client) else key


def _value_or_none(data: bytes, *, with_bytes: bool) -> Any:
    try:
        value = decode_value(data)
        if isinstance(value, bytes):
            if not with_bytes:
                return None
            return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
        check_plain("", value, is_time_plain=True)
    except BadValue:
        return None
    return value


def _element_or_none(key: str) -> Any:
    try:
        element = key_to_element(key)
        check_plain("", element)
    except BadValue:
        return None
    return element
