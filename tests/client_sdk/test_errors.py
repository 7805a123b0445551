"""Every error of the device is drawn in the tree, stands under one base, and says what to do."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from client_sdk import errors
from client_sdk.errors import ClientError
from crdt import errors as kernel

CLASSES = [
    error for _, error in inspect.getmembers(errors, inspect.isclass) if issubclass(error, ClientError)
]
PATH = Path("notes.db")
EXAMPLES: list[tuple[ClientError, str]] = [
    (errors.WrongKey(PATH), "Open it with the key"),
    (errors.DamagedFile(PATH, "its pages cannot be read", pages=[3, 9]), "damaged pages: 3, 9"),
    (errors.DamagedFile(PATH, "its pages cannot be read", pages=range(1, 100)), "7, 8, …"),
    (errors.NotADatabase(PATH, "a folder"), "Choose another path"),
    (errors.NewerFile(PATH, ours=1, theirs=2), "update"),
    (errors.FileInUse(PATH, pid=17), "process 17"),
    (errors.FileInUse(PATH, pid=None), "another process"),
    (
        errors.FileInUse(PATH, pid=17, are_several=True),
        "process 17 with multi_instance=True: open it so here",
    ),
    (errors.FileInUse(PATH, pid=None, waited_s=5), "keep transactions short"),
    (errors.DeclaredOtherwise(PATH, ["notes", "tags"]), "declarations of notes, tags: name the same"),
    (errors.FileUnreachable(PATH, "No such file or directory"), "Make the folder"),
    (errors.ReadOnlyFile(PATH), "writable"),
    (errors.DiskFull(PATH), "Make room"),
    (errors.DiskFailed(PATH, "SQLITE_IOERR_FSYNC"), "SQLITE_IOERR_FSYNC"),
    (errors.KeyFileInvalid(PATH, "holds no key", "bring the right file"), "bring the right file"),
    (errors.KeyMissing(PATH, "the keyring"), "bring the key back"),
    (errors.KeyringUnavailable("no backend"), "KeyFile(path)"),
    (errors.ClosedClient(), "open it again"),
    (errors.NotAvailable("rotating keys", "join again from a new file"), "join again"),
    (errors.RecordNotFound("notes", "n1"), "insert it first"),
    (errors.DuplicateRecord("notes", "n1"), "leave the id out"),
    (errors.TransactionFailed(), "repeat the whole block"),
    (errors.ReadOnlySql("DELETE FROM notes"), "DELETE FROM notes"),
    (errors.ImportFailed("export.json", "line 3", "no date"), "line 3: no date"),
    (errors.NotRegistered(), "register(url)"),
    (errors.AlreadyRegistered("space"), "another file"),
    (errors.ServerUnreachable("http://127.0.0.1:1", "refused"), "http://127.0.0.1:1"),
    (errors.ServerRefused("not_in_space", "no such space"), "not_in_space"),
    (errors.ClientIdTaken(), "new one"),
    (errors.ServerLostData(ours="a", theirs="b"), "update the package"),
    (errors.ProtocolMismatch(ours=1, theirs=2), "update this program"),
    (errors.InvitationInvalid("a character is mistyped"), "Copy the whole code again"),
    (errors.InvitationExpired(), "invite()"),
    (errors.InvitationUsed(), "invite()"),
    (errors.SyncElsewhere("the server refused (x): no"), "reports: the server refused (x): no"),
    (errors.SyncTimeout(seconds=10, pending=3, behind=4), "10 s: 3 updates wait to be sent, 4 to be read"),
]


def test_the_tree_at_the_top_is_the_tree_of_classes() -> None:
    depths: dict[str, int] = {}
    parents: dict[str, str] = {}
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"    ([│├└─ ]*)(\w+)", line)
        if found is None or (not above and found[2] != "ClientError"):
            continue
        depth = len(found[1]) // 4
        above = [*above[:depth], found[2]]
        depths[found[2]] = depth
        if depth:
            parents[found[2]] = above[depth - 1]
    assert set(depths) == {error.__name__ for error in CLASSES}
    for name, parent in parents.items():
        assert getattr(errors, name).__bases__[0].__name__ == parent, name


def test_all_is_every_error() -> None:
    assert set(errors.__all__) == {error.__name__ for error in CLASSES}


@pytest.mark.parametrize(("error", "advice"), EXAMPLES, ids=lambda value: type(value).__name__)
def test_each_message_says_what_was_wrong_and_what_to_do(error: ClientError, advice: str) -> None:
    assert advice in str(error)


def test_no_error_of_the_tree_lacks_an_example_of_its_message() -> None:
    bases = {
        ClientError,
        errors.FileProblem,
        errors.KeyProblem,
        errors.KeyInvalid,
        errors.QueryError,
        errors.ServerProblem,
    }
    assert {type(error) for error, _ in EXAMPLES} == set(CLASSES) - bases


def test_errors_that_both_rooms_have_are_caught_under_either_name() -> None:
    assert issubclass(errors.NotAvailable, kernel.NotAvailable)
    assert issubclass(errors.ProtocolMismatch, kernel.ProtocolMismatch)
