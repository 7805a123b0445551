"""Keys come from where they are kept, are never made twice, and an invitation opens for one space and one code."""

from __future__ import annotations

import base64
import hashlib
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import keyring
import keyring.backend
import keyring.errors
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st
from rich.pretty import pretty_repr

from client_sdk.errors import InvitationInvalid, KeyFileInvalid, KeyInvalid, KeyMissing, KeyringUnavailable
from client_sdk.keys import (
    KEY_BYTES,
    DeviceIdentity,
    Invitation,
    KeyFile,
    OsKeyring,
    join_message,
    register_message,
    resolve_key,
    token_message,
)
from client_sdk.sync.account import Membership

__all__: list[str] = []

SPACE = "0198a5b0-0000-7000-8000-000000000001"
FIXED = hashlib.sha512(b"random bytes that do not change").digest()


def fixed(count: int) -> bytes:
    return FIXED[:count]


class Store(keyring.backend.KeyringBackend):
    """A secret store in memory, as `keyring` asks of any backend."""

    priority = 1

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # theirs
        self.held: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.held.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.held[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        del self.held[service, username]


class Forgetful(Store):
    def set_password(self, service: str, username: str, password: str) -> None:
        pass


class Locked(Store):
    def get_password(self, service: str, username: str) -> str | None:
        raise keyring.errors.KeyringLocked("the user said no")


class PlaintextKeyring(Store):
    """Named as the one of `keyrings.alt` is."""


@pytest.fixture
def store() -> Iterator[Store]:
    before = keyring.get_keyring()
    store = Store()
    keyring.set_keyring(store)
    yield store
    keyring.set_keyring(before)


# ---------------------------------------------------------------------------------------------- handed in


def test_32_bytes_are_the_key_itself(path: Path, key: bytes) -> None:
    assert resolve_key(key, path) == key


@pytest.mark.parametrize("count", [0, 16, 31, 33])
def test_bytes_of_another_length_are_no_key(path: Path, count: int) -> None:
    with pytest.raises(KeyInvalid, match=f"has {count}"):
        resolve_key(b"k" * count, path)


def test_a_password_is_no_key(path: Path) -> None:
    with pytest.raises(KeyInvalid, match="not str"):
        resolve_key("correct horse", path)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------ a file


def test_a_key_file_is_made_once_for_its_owner_alone(path: Path, tmp_path: Path) -> None:
    file = tmp_path / "notes.key"
    made = resolve_key(KeyFile(file), path)
    assert len(made) == KEY_BYTES
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert resolve_key(KeyFile(file), path) == made
    assert [entry.name for entry in tmp_path.iterdir()] == ["notes.key"], "no draft stays"


def test_the_bytes_of_a_new_key_come_in_by_the_door(path: Path, tmp_path: Path) -> None:
    assert resolve_key(KeyFile(tmp_path / "notes.key"), path, random=fixed) == fixed(KEY_BYTES)


@pytest.mark.parametrize(
    "encode", [bytes.hex, lambda key: base64.b64encode(key).decode()], ids=["hex", "base64"]
)
def test_a_key_file_may_be_written_by_hand(path: Path, tmp_path: Path, key: bytes, encode: object) -> None:
    file = tmp_path / "notes.key"
    assert callable(encode)
    file.write_text(f"\n  {encode(key)}  \n")
    file.chmod(0o400)
    assert resolve_key(KeyFile(file), path) == key


@pytest.mark.skipif(os.name != "posix", reason="other systems have no such modes")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o777])
def test_a_key_file_open_to_others_is_refused(path: Path, tmp_path: Path, key: bytes, mode: int) -> None:
    file = tmp_path / "notes.key"
    file.write_text(key.hex())
    file.chmod(mode)
    with pytest.raises(KeyFileInvalid, match=rf"mode {mode:04o}.*chmod 600"):
        resolve_key(KeyFile(file), path)


@pytest.mark.parametrize("content", [b"", b"secret", b"00" * 31, b"zz" * 32, b"\xff" * 900], ids=repr)
def test_a_file_that_holds_no_key_is_left_as_it_is(path: Path, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "notes.key"
    file.write_bytes(content)
    file.chmod(0o600)
    with pytest.raises(KeyFileInvalid, match="holds no key"):
        resolve_key(KeyFile(file), path)
    assert file.read_bytes() == content


def test_no_new_key_is_made_for_an_existing_database(path: Path, tmp_path: Path) -> None:
    path.write_bytes(b"there is something")
    with pytest.raises(KeyMissing, match="bring the key back"):
        resolve_key(KeyFile(tmp_path / "notes.key"), path)
    assert not (tmp_path / "notes.key").exists()


def test_a_key_file_is_not_made_where_that_is_not_wanted(path: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyFileInvalid, match="is not there"):
        resolve_key(KeyFile(tmp_path / "notes.key", create=False), path)


def test_a_key_file_in_a_folder_that_is_not_there_says_so(path: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyFileInvalid, match="make its folder"):
        resolve_key(KeyFile(tmp_path / "missing" / "notes.key"), path)


def test_four_processes_that_make_the_same_key_file_agree_on_it(path: Path, tmp_path: Path) -> None:
    program = (
        "import sys; from client_sdk.keys import KeyFile, resolve_key;"
        "print(resolve_key(KeyFile(sys.argv[1]), sys.argv[2]).hex())"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / "notes.key"), str(path)], stdout=subprocess.PIPE
        )
        for _ in range(4)
    ]
    assert len({process.communicate()[0] for process in processes}) == 1


# ---------------------------------------------------------------------------------------------- a keyring


def test_without_a_secret_store_the_error_names_the_other_ways(path: Path) -> None:
    with pytest.raises(KeyringUnavailable, match=r"KeyFile\(path\).*32 bytes"):
        resolve_key(None, path)


def test_the_default_is_an_entry_of_the_keyring_named_by_the_path(path: Path, store: Store) -> None:
    made = resolve_key(None, path)
    assert store.held == {("pjais", str(path)): made.hex()}
    path.write_bytes(b"now it exists")
    assert resolve_key(OsKeyring(), path) == made


def test_an_entry_may_have_a_name_of_its_own(path: Path, store: Store) -> None:
    resolve_key(OsKeyring(service="hub", name="mine"), path)
    assert list(store.held) == [("hub", "mine")]


def test_a_database_whose_entry_is_gone_gets_no_new_key(path: Path, store: Store) -> None:
    path.write_bytes(b"there is something")
    with pytest.raises(KeyMissing):
        resolve_key(None, path)
    assert not store.held


def test_an_entry_that_is_no_key_is_refused(path: Path, store: Store) -> None:
    store.held["pjais", str(path)] = "hunter2"
    with pytest.raises(KeyInvalid, match="holds no key"):
        resolve_key(None, path)


@pytest.mark.parametrize("unusable", [Forgetful, Locked, PlaintextKeyring])
def test_a_store_that_forgets_refuses_or_keeps_plain_text_is_none(
    path: Path, store: Store, unusable: type[Store]
) -> None:
    keyring.set_keyring(unusable())
    with pytest.raises(KeyringUnavailable):
        resolve_key(None, path)


# --------------------------------------------------------------------------------------------- a device


def verifies(public_key: bytes, signature: bytes, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except InvalidSignature:
        return False
    return True


def test_a_device_signs_what_its_public_key_verifies() -> None:
    device = DeviceIdentity.generate(fixed(32))
    message = register_message(b"n" * 32, device.public_key)
    assert verifies(device.public_key, device.sign(message), message)
    assert not verifies(device.public_key, device.sign(message), token_message(b"n" * 32, bytes(16)))


def test_a_device_is_the_same_after_its_private_half_was_stored() -> None:
    device = DeviceIdentity.generate(fixed(32))
    assert DeviceIdentity(device.private).public_key == device.public_key


def test_what_is_signed_for_one_purpose_fits_no_other() -> None:
    nonce, public_key = b"n" * 32, b"k" * 32
    messages = {
        register_message(nonce, public_key),
        join_message(nonce, public_key),
        token_message(nonce, public_key),
    }
    assert len(messages) == 3


def test_a_signing_key_of_another_length_is_refused() -> None:
    with pytest.raises(KeyInvalid):
        DeviceIdentity.generate(b"short")


def test_no_secret_stands_in_a_representation() -> None:
    assert fixed(32).hex() not in repr(DeviceIdentity.generate(fixed(32)))
    assert repr(fixed(32)) not in repr(DeviceIdentity.generate(fixed(32)))
    assert repr(FIXED[16:32]) not in repr(Invitation.generate(fixed(32)))
    membership = Membership("http://x", "account", "space", "device", fixed(32))
    for shown in (repr(membership), pretty_repr(membership)):
        assert "http://x" in shown
        assert repr(fixed(32))[2:-1] not in shown


# ---------------------------------------------------------------------------------------- an invitation


@given(st.binary(min_size=32, max_size=32))
def test_a_code_reads_back_however_it_was_typed(random: bytes) -> None:
    invitation = Invitation.generate(random)
    code = invitation.code
    assert code.startswith("pjais1-")
    for typed in (
        code,
        code.lower(),
        code.upper(),
        f"  {code}\n",
        code.replace("-", " "),
        code[:7] + code[7:].replace("0", "o").replace("1", "l"),
    ):
        assert Invitation.parse(typed) == invitation


@given(st.binary(min_size=32, max_size=32), st.data())
def test_one_mistyped_character_is_noticed(random: bytes, data: st.DataObject) -> None:
    code = Invitation.generate(random).code
    place = data.draw(st.sampled_from([place for place in range(7, len(code)) if code[place] != "-"]))
    typed = data.draw(st.sampled_from("0123456789ABCDEFGHJKMNPQRSTVWXYZ".replace(code[place], "")))
    with pytest.raises(InvitationInvalid, match="checksum"):
        Invitation.parse(code[:place] + typed + code[place + 1 :])


@given(st.binary(min_size=32, max_size=32), st.data())
def test_two_exchanged_neighbours_are_noticed(random: bytes, data: st.DataObject) -> None:
    code = Invitation.generate(random).code.replace("-", "").replace("pjais1", "pjais1-")
    places = [place for place in range(7, len(code) - 1) if code[place] != code[place + 1]]
    place = data.draw(st.sampled_from(places))
    with pytest.raises(InvitationInvalid, match="checksum"):
        Invitation.parse(code[:place] + code[place + 1] + code[place] + code[place + 2 :])


@given(st.text())
def test_any_other_text_is_refused_with_its_reason(text: str) -> None:
    for code in (text, "pjais1-" + text):
        with pytest.raises(InvitationInvalid, match="Copy the whole code again"):
            Invitation.parse(code)


def test_what_is_wrong_with_a_code_is_said() -> None:
    code = Invitation.generate(fixed(32)).code
    for typed, problem in (
        ("https://example.org", "does not begin with pjais1-"),
        (code[:-5], "has 51 characters after pjais1-, not 56"),
        (code.replace("-", "!", 2), "character '!' occurs in none"),
    ):
        with pytest.raises(InvitationInvalid, match=problem):
            Invitation.parse(typed if typed.startswith("http") else "pjais1-" + typed[7:])


def test_an_invitation_of_another_length_is_refused() -> None:
    with pytest.raises(KeyInvalid, match="32 random bytes, not 31"):
        Invitation.generate(fixed(31))


def test_the_joining_device_proves_that_it_holds_the_code() -> None:
    made = Invitation.generate(fixed(32))
    read = Invitation.parse(made.code)
    device = DeviceIdentity.generate(FIXED[32:])
    proof = read.prove(b"challenge", device.public_key)
    assert verifies(made.proof_key, proof, join_message(b"challenge", device.public_key))
    assert not verifies(made.proof_key, proof, join_message(b"another", device.public_key))
    assert not verifies(made.proof_key, proof, join_message(b"challenge", bytes(32)))
    assert not verifies(device.public_key, proof, join_message(b"challenge", device.public_key))


def test_the_space_key_opens_for_who_has_the_code() -> None:
    made = Invitation.generate(fixed(32))
    sealed = made.seal_space_key(b"s" * 32, space=SPACE, nonce=fixed(12))
    assert b"s" * 32 not in sealed
    assert Invitation.parse(made.code).open_space_key(sealed, space=SPACE) == b"s" * 32


def test_a_sealed_space_key_opens_neither_elsewhere_nor_changed() -> None:
    made = Invitation.generate(fixed(32))
    sealed = made.seal_space_key(b"s" * 32, space=SPACE, nonce=fixed(12))
    another_id = Invitation(bytes(16), made.secret)
    another_secret = Invitation(made.id, bytes(16))
    changed = bytes([*sealed[:-1], sealed[-1] ^ 1])
    for invitation, space, content in (
        (made, SPACE[:-1] + "2", sealed),
        (another_id, SPACE, sealed),
        (another_secret, SPACE, sealed),
        (made, SPACE, changed),
        (made, SPACE, sealed[:20]),
        (made, SPACE, b""),
    ):
        with pytest.raises(InvitationInvalid, match="does not open"):
            invitation.open_space_key(content, space=space)


def test_nothing_that_the_server_gets_contains_the_secret() -> None:
    made = Invitation.generate(fixed(32))
    sealed = made.seal_space_key(b"s" * 32, space=SPACE, nonce=fixed(12))
    for sent in (made.id, made.proof_key, sealed, made.prove(b"challenge", bytes(32))):
        assert made.secret not in sent


def test_a_nonce_of_another_length_is_refused() -> None:
    with pytest.raises(KeyInvalid, match="12 random bytes"):
        Invitation.generate(fixed(32)).seal_space_key(b"s" * 32, space=SPACE, nonce=b"")
