"""Keys of a device: the one that opens its file, the one that it signs with, and those inside an invitation.

Three separate things, none of which ever leaves the device in the clear:

- **The database key**, 32 random bytes: from the operating system's keyring (`OsKeyring`, the default), from a file
  that only its owner can read (`KeyFile`), or handed in. `resolve_key` brings it. A new key is made only for a new
  database: where the database exists and its key does not, `KeyMissing` says so.
- **The device's identity** (`DeviceIdentity`), an Ed25519 key pair (RFC 8032). Its private half is kept inside the
  encrypted file; what it signs is named by the ``…_message`` functions, which the server builds the same way.
- **An invitation** (`Invitation`): a random id, which the server knows, and a random secret, which it never sees. From
  the secret HKDF-SHA256 (RFC 5869) derives a key pair with which the new device proves that it holds the code, and a
  key that seals the space key to it with AES-256-GCM-SIV (RFC 8452), bound to space and invitation.

The code that people copy is ``pjais1-`` and 56 symbols of Crockford's base32 in groups of eight: id, secret and 24 bits
of checksum, so that a mistyped code is told apart from an expired one without asking the server.

The keys of a space, under which fields are sealed, are `client_sdk.seal`'s.

Random bytes come in by the door, except that `resolve_key` takes them from the operating system unless it is given
another source.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from client_sdk import primitives
from client_sdk.errors import InvitationInvalid, KeyFileInvalid, KeyInvalid, KeyMissing, KeyringUnavailable

__all__ = [
    "KEY_BYTES",
    "DeviceIdentity",
    "Invitation",
    "KeyFile",
    "KeySource",
    "OsKeyring",
    "Random",
    "derive_key",
    "join_message",
    "register_message",
    "resolve_key",
    "token_message",
]

KEY_BYTES: Final = 32  # of a database key, a space key and an Ed25519 seed: 256 bits each


# ---------------------------------------------------------------------------------------------- the database key


@dataclass(frozen=True, slots=True)
class KeyFile:
    """The key is in a file of its own, as 64 hexadecimal digits, readable by its owner alone.

    The file is made when it is absent and the database is new. Keep it elsewhere than the database and its backups.
    """

    path: str | os.PathLike[str]
    create: bool = True
    """Whether to make the file when it is absent and the database is new."""


@dataclass(frozen=True, slots=True)
class OsKeyring:
    """The key is in the operating system's secret store, under ``service`` and ``name``.

    ``name`` defaults to the database's absolute path, links followed: a database that moves needs its name given.
    """

    service: str = "pjais"
    name: str | None = None


Random = Callable[[int], bytes]  # how many → that many random bytes

KeySource = bytes | KeyFile | OsKeyring | None


def resolve_key(key: KeySource, path: str | os.PathLike[str], *, random: Random = os.urandom) -> bytes:
    """Return the 32 bytes that open the database at ``path``; ``None`` stands for ``OsKeyring()``.

    Blocks while the keyring asks its user: run it on a thread. Raises `KeyInvalid` (not 32 bytes), `KeyFileInvalid`
    (unreadable, malformed or open to others), `KeyMissing` (the database exists, its key does not) and
    `KeyringUnavailable` (no secret store).
    """
    database = Path(path)
    match key:
        case bytes() | bytearray() | memoryview():
            if len(key) != KEY_BYTES:
                raise KeyInvalid(
                    f"a key is {KEY_BYTES} random bytes, and this one has {len(key)}: os.urandom({KEY_BYTES})"
                )
            return bytes(key)
        case KeyFile():
            return _key_from_file(key, database, random)
        case OsKeyring():
            return _key_from_keyring(key, database, random)
        case None:
            return _key_from_keyring(OsKeyring(), database, random)
        case _:
            raise KeyInvalid(f"a key is 32 bytes, a KeyFile or an OsKeyring, not {type(key).__name__}")


def _key_from_file(source: KeyFile, database: Path, random: Random) -> bytes:
    path = Path(source.path)
    try:
        return _read_key_file(path)
    except FileNotFoundError:
        if database.exists():
            raise KeyMissing(database, f"the key file {path}") from None
        if not source.create:
            raise KeyFileInvalid(path, "is not there", "bring it back, or let create=True make one") from None
    _write_key_file(path, random(KEY_BYTES))
    return _read_key_file(path)  # what stands there now, even where another process was quicker


def _read_key_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(1024)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise KeyFileInvalid(path, f"cannot be read ({error.strerror})", "let this user read it") from error
    if os.name == "posix" and stat.S_IMODE(mode) & 0o077:
        raise KeyFileInvalid(
            path, f"can be used by others (mode {stat.S_IMODE(mode):04o})", f"chmod 600 {path}"
        )
    text = content.strip()
    for decode in (binascii.unhexlify, base64.b64decode):
        with contextlib.suppress(ValueError):
            decoded = decode(text)
            if len(decoded) == KEY_BYTES:
                return decoded
    raise KeyFileInvalid(
        path,
        f"holds no key ({len(content)} bytes)",
        "it must hold 32 bytes as 64 hexadecimal digits; bring the right file",
    )


def _write_key_file(path: Path, key: bytes) -> None:
    """Make the file appear whole or not at all, and never over one that is there."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(descriptor, key.hex().encode() + b"\n")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
        draft.unlink()
        _sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise KeyFileInvalid(
            path, f"cannot be made ({error.strerror})", "make its folder, and let this user write"
        ) from error


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":  # a name is durable only once its folder is; Windows has no such call
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _key_from_keyring(source: OsKeyring, database: Path, random: Random) -> bytes:
    import keyring
    import keyring.errors  # 15 ms, which a key file or bytes need not wait for

    name = source.name or str(database.resolve())
    store = keyring.get_keyring()
    if (
        "Plaintext" in type(store).__name__
    ):  # a back end of keyrings.alt: a plain file that looks like a vault
        raise KeyringUnavailable(f"{type(store).__name__} would keep it in plain text")
    try:
        held = store.get_password(source.service, name)
        if held is None:
            if database.exists():
                raise KeyMissing(database, f"the keyring entry {source.service}/{name}")
            store.set_password(source.service, name, random(KEY_BYTES).hex())
            held = store.get_password(
                source.service, name
            )  # a store that forgets would lock the database out
    except keyring.errors.KeyringError as error:
        raise KeyringUnavailable(
            str(error).splitlines()[0] if str(error) else type(error).__name__
        ) from error
    if held is None:
        raise KeyringUnavailable(f"{type(store).__name__} does not keep what it is given")
    with contextlib.suppress(ValueError):
        key = bytes.fromhex(held)
        if len(key) == KEY_BYTES:
            return key
    raise KeyInvalid(
        f"the keyring entry {source.service}/{name} holds no key: give the entry of this database its name"
    )


def derive_key(key: bytes, purpose: bytes) -> bytes:
    """Return a 32-byte key for another purpose, from which ``key`` does not follow (HKDF-SHA256, RFC 5869)."""
    return primitives.HKDF(
        primitives.SHA256(), KEY_BYTES, salt=None, info=b"pjais device v1\0" + purpose
    ).derive(key)


# ------------------------------------------------------------------------------------------- the device's identity


def register_message(nonce: bytes, public_key: bytes) -> bytes:
    """Return what a device signs to make an account: it holds the private half of ``public_key``."""
    return b"pjais register v1\0" + nonce + public_key


def token_message(nonce: bytes, device: bytes) -> bytes:
    """Return what a device signs for a token; ``device`` is its UUID as 16 bytes."""
    return b"pjais token v1\0" + nonce + device


def join_message(nonce: bytes, public_key: bytes) -> bytes:
    """Return what a joining device signs twice: with its own key, and with the invitation's proof key."""
    return b"pjais join v1\0" + nonce + public_key


@dataclass(frozen=True, slots=True, repr=False)
class DeviceIdentity:
    """An Ed25519 signing key. ``private`` (the 32-byte seed) belongs inside the encrypted file and nowhere else."""

    private: bytes

    def __post_init__(self) -> None:
        if len(self.private) != KEY_BYTES:
            raise KeyInvalid(
                f"a device's signing key is {KEY_BYTES} bytes, and this one has {len(self.private)}"
            )

    @classmethod
    def generate(cls, random: bytes) -> Self:
        """Return an identity made of 32 random bytes."""
        return cls(bytes(random))

    @property
    def public_key(self) -> bytes:
        """The 32 bytes by which others know this device."""
        return primitives.Ed25519PrivateKey.from_private_bytes(self.private).public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature of ``message``; build it with one of the ``…_message`` functions."""
        return primitives.Ed25519PrivateKey.from_private_bytes(self.private).sign(message)


# --------------------------------------------------------------------------------------------------- an invitation

_PREFIX: Final = "pjais1-"
_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's: no I, L, O or U
_VALUE_BY_SYMBOL: Final = {symbol: value for value, symbol in enumerate(_ALPHABET)} | {"O": 0, "I": 1, "L": 1}
_ID_BYTES: Final = 16
_SECRET_BYTES: Final = 16  # 128 bits, valid ten minutes and once: nothing is left to search
_CHECK_BYTES: Final = 3  # a typo passes once in 16 million; and 35 bytes are 56 symbols exactly
_SYMBOLS: Final = (_ID_BYTES + _SECRET_BYTES + _CHECK_BYTES) * 8 // 5
_GROUP: Final = 8
_NONCE_BYTES: Final = 12


@dataclass(frozen=True, slots=True, repr=False)
class Invitation:
    """A one-time code. ``id`` is known to the server, ``secret`` only to the two devices.

    One device makes it from random bytes and uploads ``id``, `proof_key` and what `seal_space_key` returns; the
    other reads it with `parse`, answers the server's challenge with `prove` and opens the space key.
    """

    id: bytes
    secret: bytes

    @classmethod
    def generate(cls, random: bytes) -> Self:
        """Return an invitation made of 32 random bytes."""
        if len(random) != _ID_BYTES + _SECRET_BYTES:
            raise KeyInvalid(
                f"an invitation is made of {_ID_BYTES + _SECRET_BYTES} random bytes, not {len(random)}"
            )
        return cls(bytes(random[:_ID_BYTES]), bytes(random[_ID_BYTES:]))

    @classmethod
    def parse(cls, code: str) -> Self:
        """Read a code, as forgivingly as Crockford's base32 allows: any case, spaces or hyphens, O for 0, I or L for 1.

        Raises `InvitationInvalid`, which says what is wrong: no network is needed to know.
        """
        compact = "".join(code.split()).replace("-", "").upper()
        prefix = _PREFIX.rstrip("-").upper()
        if not compact.startswith(prefix):
            raise InvitationInvalid(f"it does not begin with {_PREFIX}")
        symbols = compact.removeprefix(prefix)
        for symbol in symbols:
            if symbol not in _VALUE_BY_SYMBOL:
                raise InvitationInvalid(f"the character {symbol!r} occurs in none")
        if len(symbols) != _SYMBOLS:
            raise InvitationInvalid(f"it has {len(symbols)} characters after {_PREFIX}, not {_SYMBOLS}")
        number = 0
        for symbol in symbols:
            number = number << 5 | _VALUE_BY_SYMBOL[symbol]
        content = number.to_bytes(_SYMBOLS * 5 // 8, "big")
        invitation = cls(content[:_ID_BYTES], content[_ID_BYTES : _ID_BYTES + _SECRET_BYTES])
        if content[-_CHECK_BYTES:] != invitation._checksum():
            raise InvitationInvalid("a character is mistyped (its checksum does not fit)")
        return invitation

    @property
    def code(self) -> str:
        """The string that people copy."""
        number = int.from_bytes(self.id + self.secret + self._checksum(), "big")
        symbols = "".join(_ALPHABET[number >> 5 * place & 31] for place in reversed(range(_SYMBOLS)))
        return _PREFIX + "-".join(symbols[start : start + _GROUP] for start in range(0, _SYMBOLS, _GROUP))

    def _checksum(self) -> bytes:
        return hashlib.sha256(b"pjais invitation code v1\0" + self.id + self.secret).digest()[:_CHECK_BYTES]

    def _derive(self, purpose: bytes) -> bytes:
        return primitives.HKDF(
            primitives.SHA256(), KEY_BYTES, salt=self.id, info=b"pjais invitation v1\0" + purpose
        ).derive(self.secret)

    @property
    def proof_key(self) -> bytes:
        """The 32-byte Ed25519 public key under which the server checks `prove`."""
        return (
            primitives.Ed25519PrivateKey.from_private_bytes(self._derive(b"proof"))
            .public_key()
            .public_bytes_raw()
        )

    def prove(self, challenge: bytes, device_public_key: bytes) -> bytes:
        """Return the 64-byte proof that the joining device holds the secret, bound to challenge and device."""
        return primitives.Ed25519PrivateKey.from_private_bytes(self._derive(b"proof")).sign(
            join_message(challenge, device_public_key)
        )

    def seal_space_key(self, space_key: bytes, *, space: str, nonce: bytes) -> bytes:
        """Return ``nonce`` (12 random bytes), the sealed key and its tag, which the server keeps and cannot open."""
        if len(nonce) != _NONCE_BYTES:
            raise KeyInvalid(f"the nonce is {_NONCE_BYTES} random bytes, not {len(nonce)}")
        return nonce + primitives.AESGCMSIV(self._derive(b"seal")).encrypt(
            nonce, space_key, self._context(space)
        )

    def open_space_key(self, sealed: bytes, *, space: str) -> bytes:
        """Return the space key. Raises `InvitationInvalid` if it was not sealed by this invitation for this space."""
        try:
            return primitives.AESGCMSIV(self._derive(b"seal")).decrypt(
                sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], self._context(space)
            )
        except (primitives.InvalidTag, ValueError) as error:
            raise InvitationInvalid(
                "what the server keeps for it does not open: ask for a new one"
            ) from error

    def _context(self, space: str) -> bytes:
        name = space.encode()
        return b"pjais space key v1\0" + self.id + len(name).to_bytes(2, "big") + name
