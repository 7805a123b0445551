"""What is used here of the package ``cryptography``, which is imported when the first of it is asked for.

That takes 10 ms, and most openings seal nothing, sign nothing, and share their file with nobody.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

__all__ = ["AESGCMSIV", "HKDF", "SHA256", "Ed25519PrivateKey", "InvalidTag"]

_MODULES: Final = {
    "AESGCMSIV": "hazmat.primitives.ciphers.aead",
    "Ed25519PrivateKey": "hazmat.primitives.asymmetric.ed25519",
    "HKDF": "hazmat.primitives.kdf.hkdf",
    "InvalidTag": "exceptions",
    "SHA256": "hazmat.primitives.hashes",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"cryptography.{_MODULES[name]}"), name)
    return found
