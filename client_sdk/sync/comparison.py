"""Are both sides equal? The rules by which a digest of the server counts for the state that this device is in.

A digest is asked for at one position, and the answer may be late. So at most one request is open for a position, and
an answer counts only if nothing changed here since its request was sent: otherwise it is asked for again. A difference
is asked for once more before it is believed: a server that learns of our last push by another way than this session
may have answered just before it did. Once believed it stays until something changes.
"""

from __future__ import annotations

from client_sdk.sync.errors import ContentsDiffer
from crdt import wire

__all__ = ["Comparison"]


class Comparison:
    """What is known of the equality of both sides, now.

    ``verified`` is True or False once it is known, and ``difference`` is the error to show when it is False.
    """

    __slots__ = ("_is_asked", "_is_doubted", "_is_stale", "_theirs", "difference", "verified")

    def __init__(self) -> None:
        self.verified: bool | None = None
        self.difference: ContentsDiffer | None = None
        self._theirs: wire.Verified | None = None  # waits for our own digest
        self._is_asked = False  # a request for exactly this position has no answer yet
        self._is_stale = False  # … and was sent before the last change
        self._is_doubted = False  # the digests differed once at this state

    def change(self) -> None:
        """Something is not as it was: what was known no longer is."""
        self.verified = self.difference = self._theirs = None
        self._is_stale, self._is_doubted = True, False

    def move(self) -> None:
        """The cursor moved: an answer for the old position no longer comes, or no longer counts."""
        self._is_asked = False
        self.change()

    def ask(self) -> bool:
        """Say whether to ask the server now; if so, it counts as asked."""
        if self._is_asked or self._theirs is not None or self.verified is not None:
            return False
        self._is_asked, self._is_stale = True, False
        return True

    def answer(self, theirs: wire.Verified) -> bool:
        """Take an answer for the present position; say whether to read our own digest for it now."""
        if not self._is_asked:
            return False
        self._is_asked = False
        if self._is_stale:
            return False
        self._theirs = theirs
        return True

    def compare(self, digest: bytes, records: int) -> None:
        """Compare with our own digest, and number of records, at this very state."""
        theirs, self._theirs = self._theirs, None
        if theirs is None:
            return  # something changed since the digest was asked for
        if (digest, records) == (theirs.digest, theirs.records):
            self.verified = True
        elif not self._is_doubted:
            self._is_doubted = True
        else:
            self.verified = False
            self.difference = ContentsDiffer(position=theirs.position, ours=records, theirs=theirs.records)
