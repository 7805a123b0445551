"""Limits have a unit in their name, a reason beside them, and fit together."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from crdt import limits
from crdt.errors import UpdateRefused
from crdt.grammar import ROOT_BYTES_MAX
from crdt.updates import check_shape, check_update

__all__: list[str] = []

SEARCHED = "CHARACTERS|HITS|NAMES|CONDITIONS|COLLECTIONS|VALUES"
COUNTED = f"BYTES|ITEMS|MS|S|EDITS|ENTRIES|SPACES|DEPTH|VECTORS|MODELS|DIMENSIONS|{SEARCHED}"
UNITS = rf"_({COUNTED})(_MAX|_TARGET)?$|_IN_FLIGHT$"


@pytest.mark.parametrize("name", limits.__all__)
def test_a_limit_is_a_positive_number_with_its_unit_in_its_name(name: str) -> None:
    assert getattr(limits, name) > 0
    assert re.search(UNITS, name)


def test_every_limit_or_group_of_limits_has_its_reason_above_it() -> None:
    lines = Path(limits.__file__).read_text(encoding="utf-8").splitlines()
    declared = [number for number, line in enumerate(lines) if re.match(r"[A-Z_]+: Final", line)]
    for number in declared:
        above = number
        while lines[above - 1] and not lines[above - 1].startswith("#"):
            above -= 1
        assert lines[above - 1].startswith("#"), lines[number]


def test_what_fits_into_an_update_fits_into_all_that_carries_it() -> None:
    assert limits.UPDATE_BYTES_MAX < limits.FRAME_BYTES_MAX < limits.DECOMPRESSED_BYTES_MAX
    assert limits.UPDATE_BYTES_MAX < limits.DOCUMENT_BYTES_MAX < limits.DECOMPRESSED_BYTES_MAX
    # The last edit of a push or a page may come on top of the target, and may not compress.
    overhead = limits.RECORD_ID_BYTES_MAX + limits.COLLECTION_NAME_BYTES_MAX + 100
    for target, count in (
        (limits.PUSH_BYTES_TARGET, limits.PUSH_EDITS_MAX),
        (limits.PAGE_BYTES_TARGET, limits.PAGE_ENTRIES_MAX),
    ):
        assert target + limits.UPDATE_BYTES_MAX + count * overhead < limits.FRAME_BYTES_MAX


def test_names_fit_into_what_holds_them() -> None:
    longest_field = 63
    assert len("count:") + longest_field <= ROOT_BYTES_MAX
    assert len("@") + len(str(2**53)) + longest_field < limits.KEY_BYTES_MAX


def test_the_most_hostile_update_that_is_known_is_judged_within_its_limits() -> None:
    """As many values as there may be, in one block; one more is refused."""
    head = b"\x01\x01\x07\x00\x08\x01\x06list:m"

    def update(count: int) -> bytes:
        size = bytes([count & 0x7F | 0x80, count >> 7 & 0x7F | 0x80, count >> 14])
        return head + size + b"\x74\x00" * count + b"\x00"

    most = limits.UPDATE_ITEMS_MAX
    assert check_shape(update(most), client=7).end == most
    assert check_update(update(most), client=7, index=None).end == most
    with pytest.raises(UpdateRefused):
        check_shape(update(most + 1), client=7)
