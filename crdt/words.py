"""Texts made ready to be found by their words, alike on a device and at the server: in every script.

An index that sees words between spaces finds them then whatever their case and accents, and a run of characters of a
script that leaves no spaces.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

__all__ = ["folded", "is_unspaced", "spaced"]

# Thai and Lao, Myanmar, Khmer, kana, Han (with its extensions) and Hangul. `re` makes it a pattern, in 4 ms, when the
# first text asks, and keeps it.
_UNSPACED: Final = (
    "([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff"
    "\U00020000-\U0003ffff])"
)

# What is written over a letter of an alphabet; the vowels of other scripts stand elsewhere in Unicode, and stay.
_ACCENTS: Final = re.compile("[\u0300-\u036f]")


def spaced(text: str) -> str:
    """Return a text as it is indexed and asked for: `folded`, and unspaced scripts taken apart."""
    return text if text.isascii() else re.sub(_UNSPACED, r" \1 ", folded(text))


def folded(text: str) -> str:
    """Return a text with case, accents and compatible forms made one, in every script.

    Full-text indexes do less: FTS5's tokenizer folds the accents of Latin letters only, and neither "ς" nor "ß";
    Postgres' folds none. (Unicode 17, section 3.13.5.)
    """
    if text.isascii():
        return text.lower()
    apart = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return unicodedata.normalize("NFKC", _ACCENTS.sub("", apart))


def is_unspaced(text: str) -> bool:
    """Return whether there is a character of a script that leaves no space between words."""
    return re.search(_UNSPACED, text) is not None
