"""Errors are told apart by programs, understood by people, and tell devices nothing about the machine."""

from __future__ import annotations

import inspect
import re

import pytest

from server import errors
from server.errors import CannotServe, DatabaseUnavailable, EmbeddedInUse, RequestRefused, ServerError

__all__: list[str] = []

CLASSES = [getattr(errors, name) for name in errors.__all__]


def test_every_error_is_under_one_base() -> None:
    assert all(issubclass(error, ServerError) for error in CLASSES)
    assert {
        error.__name__
        for _, error in inspect.getmembers(errors, inspect.isclass)
        if issubclass(error, Exception)
    } == set(errors.__all__)


def test_every_error_stands_in_the_tree_with_what_to_do() -> None:
    tree = re.findall(r"── (\w+) +\S.*", errors.__doc__ or "")
    assert sorted(tree) == sorted(set(errors.__all__) - {"ServerError"})


@pytest.mark.parametrize("error", CLASSES)
def test_its_code_is_its_own_and_for_programs(error: type[ServerError]) -> None:
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", error.code)
    assert [other for other in CLASSES if other.code == error.code] == [error]


@pytest.mark.parametrize("error", CLASSES)
def test_its_status_says_whose_fault_it_is(error: type[ServerError]) -> None:
    if issubclass(error, CannotServe):
        assert error.status == 503


def test_a_device_hears_a_refusal_and_nothing_of_the_machine() -> None:
    assert errors.NotInSpace().message_for_device == str(errors.NotInSpace())
    for error in (
        DatabaseUnavailable(address="db.internal:5432", problem="refused", action="start it"),
        EmbeddedInUse("/home/someone/data", "process 1"),
    ):
        assert not isinstance(error, RequestRefused)
        assert error.message_for_device == "the server cannot do this now; try again later"
