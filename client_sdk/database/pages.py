"""What the bytes of a file say before SQLCipher is asked: a wrong key told apart from damage, with no file beside it.

SQLCipher gives one message for both. But every page carries its own proof: of its 4,096 bytes the last 80 are 16 of
initialisation vector and 64 of HMAC-SHA512 over content, vector and page number (little endian), under a key that
PBKDF2-HMAC-SHA512 derives, in two rounds, from the database key and a salt (zetetic.net/sqlcipher/design). If one page
verifies the key is right, and the others are damaged; if none does, the key is wrong.

The salt stands in the file's first 16 bytes, where no HMAC covers it: one bit flipped there and nothing verifies any
more. So the salt of our files is derived from the key (`salt_of`) and handed to SQLCipher with it, which then does not
look at those bytes. A file whose salt is another (made by another tool) is opened by what stands in it.
"""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path
from typing import Final, NamedTuple

from client_sdk.errors import DamagedFile, FileProblem, NotADatabase, WrongKey

__all__ = ["PAGE_BYTES", "diagnose", "is_page_sound", "key_specification", "page_key", "salt_of"]

PAGE_BYTES: Final = 4096
_SALT_BYTES: Final = 16
_HMAC_BYTES: Final = 64
_PLAIN_HEADER: Final = b"SQLite format 3\0"
_PAGES_TRIED: Final = 64  # pages: enough to tell two salts apart where a few pages are damaged
_PAGES_CHECKED_MAX: Final = 65_536  # pages, 256 MB: half a second; of a larger file, as many, evenly spread


def salt_of(key: bytes) -> bytes:
    """Return the salt of every file that we make under this key: 16 bytes."""
    return hmac.digest(key, b"pjais database salt v1", "sha256")[:_SALT_BYTES]


def page_key(key: bytes, salt: bytes) -> bytes:
    """Return the 32 bytes under which pages are authenticated."""
    return hashlib.pbkdf2_hmac("sha512", key, bytes(byte ^ 0x3A for byte in salt), 2, 32)


def is_page_sound(page: bytes, number: int, authentication: bytes) -> bool:
    """Return whether ``page``, the ``number``-th from 1, is as it was written under `page_key`."""
    start = _SALT_BYTES if number == 1 else 0
    signed = page[start:-_HMAC_BYTES] + number.to_bytes(4, "little")
    return hmac.compare_digest(hmac.digest(authentication, signed, "sha512"), page[-_HMAC_BYTES:])


def key_specification(path: Path, key: bytes) -> str:
    """Return what follows ``PRAGMA key``: the key, and the salt unless the file has one of another origin."""
    ours = salt_of(key)
    with path.open("rb") as file:
        theirs = file.read(_SALT_BYTES)
    salt = ours
    if (
        theirs != ours and len(theirs) == _SALT_BYTES
    ):  # damaged, or of another origin: which of them fits the pages?
        size = min(path.stat().st_size, _PAGES_TRIED * PAGE_BYTES)
        salt = max((ours, theirs), key=lambda salt: _verify(path, size, page_key(key, salt)).sound)
    return f"x'{key.hex()}{salt.hex()}'"


def diagnose(path: Path, key: bytes, detail: str = "its pages cannot be read") -> FileProblem:
    """Return the error that tells why the existing file at ``path`` does not open under ``key``.

    ``detail`` is SQLite's message. Reads up to 65,536 pages. Never call it while a connection of this process has
    the file open: closing any descriptor of a file drops the locks that SQLite holds on it
    (sqlite.org/howtocorrupt.html, section 2.2).
    """
    if path.is_dir():
        return NotADatabase(path, "a folder")
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(PAGE_BYTES)
    if not head:
        return DamagedFile(path, "it is empty, and a database of ours never is")
    if head.startswith(_PLAIN_HEADER):
        return NotADatabase(path, "a plain SQLite database, without encryption")
    findings = [_verify(path, size, page_key(key, salt)) for salt in (salt_of(key), head[:_SALT_BYTES])]
    finding = max(findings, key=lambda finding: finding.sound)
    if finding.sound:
        if size % PAGE_BYTES:
            detail = f"it was cut off in a page, at {size:,} bytes"
        return DamagedFile(path, detail, pages=finding.damaged)
    if _is_text(head):
        return NotADatabase(path, "a text file")
    if size < PAGE_BYTES:
        return DamagedFile(path, f"it has {size:,} bytes, less than its first page")
    if size % PAGE_BYTES:
        return NotADatabase(
            path, "something else (its size is not a whole number of pages, and no page has our seal)"
        )
    return WrongKey(path)


class _Finding(NamedTuple):
    sound: int
    damaged: tuple[int, ...]


def _verify(path: Path, size: int, authentication: bytes) -> _Finding:
    pages = size // PAGE_BYTES
    step = max(1, -(-pages // _PAGES_CHECKED_MAX))
    sound = 0
    damaged = []
    with path.open("rb") as file:
        for number in range(1, pages + 1, step):
            file.seek((number - 1) * PAGE_BYTES)
            page = file.read(PAGE_BYTES)
            if is_page_sound(page, number, authentication):
                sound += 1
            elif any(page):  # a page of zeros was never written: SQLite leaves one at 1 GiB
                damaged.append(number)
    return _Finding(sound, tuple(damaged))


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if error.end < len(head):  # else the page ends inside a character
            return False
        text = head[: error.start].decode()
    return "\0" not in text
