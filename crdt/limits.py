"""Every limit of the system: its name, its unit (last in the name) and its reason.

Past one there is an error that names it; nothing is dropped silently. The order is: one update, one document,
one frame, one exchange.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "CLOCK_DRIFT_MS_MAX",
    "COLLECTION_NAME_BYTES_MAX",
    "COMPRESS_FROM_BYTES",
    "DECODED_AT_ONCE_BYTES_MAX",
    "DECOMPRESSED_BYTES_MAX",
    "DEVICE_MESSAGE_BYTES_MAX",
    "DOCUMENT_BYTES_MAX",
    "FRAME_BYTES_MAX",
    "INVITATION_LIFETIME_S",
    "KEY_BYTES_MAX",
    "PAGES_IN_FLIGHT",
    "PAGE_BYTES_TARGET",
    "PAGE_ENTRIES_MAX",
    "PUSHES_IN_FLIGHT",
    "PUSH_BYTES_TARGET",
    "PUSH_EDITS_MAX",
    "PUSH_VECTORS_MAX",
    "RECORD_ID_BYTES_MAX",
    "REQUESTS_IN_FLIGHT",
    "SEARCH_CHARACTERS_MAX",
    "SEARCH_COLLECTIONS_MAX",
    "SEARCH_CONDITIONS_MAX",
    "SEARCH_HITS_MAX",
    "SEARCH_NAMES_MAX",
    "SEARCH_TEXT_BYTES_MAX",
    "SEARCH_VALUES_MAX",
    "SESSION_SPACES_MAX",
    "SESSION_WRITE_TIMEOUT_S",
    "UPDATE_BYTES_MAX",
    "UPDATE_ITEMS_MAX",
    "VALUE_DEPTH_MAX",
    "VECTORS_BODY_BYTES_MAX",
    "VECTORS_MODELS_MAX",
    "VECTORS_PAGE_BYTES_TARGET",
    "VECTOR_DIMENSIONS_MAX",
    "VECTOR_HASH_BYTES_MAX",
    "VECTOR_MODEL_BYTES_MAX",
]

# One update. A record is a form or a conversation, not a film: 4 MiB holds two thousand pages of text. The most
# hostile 4 MiB that were found (one long block, and a million deletes of one unit each) are refused after a second on
# one core, 0.6 s of it for the walk; as many blocks as `UPDATE_ITEMS_MAX` allows are judged in 0.7 s.
UPDATE_BYTES_MAX: Final = 4 * 1024 * 1024
# Blocks in one update, and values in one of its blocks: bounds the time and memory of the walk where bytes are
# cheap (a block takes 4 bytes or more, a value 2). So many blocks take 90 MB while they are judged.
UPDATE_ITEMS_MAX: Final = 200_000
# A map key in a document is a field's path or a set's element; longer ones are content and belong in a value.
KEY_BYTES_MAX: Final = 4_096
# Nesting of one value: deeper ones overflow the stack of some decoder on the way (HAZARDS: `Any` 100,000 deep).
VALUE_DEPTH_MAX: Final = 32

# One document: a snapshot must fit into one frame after compression, and folding it must fit into memory.
DOCUMENT_BYTES_MAX: Final = 48 * 1024 * 1024
RECORD_ID_BYTES_MAX: Final = 200
COLLECTION_NAME_BYTES_MAX: Final = 63  # also a table's name, and Postgres' identifiers end there

# One frame on the wire, compressed; websockets and uvicorn are told the same number.
FRAME_BYTES_MAX: Final = 16 * 1024 * 1024
# What a frame may decompress to; read from its header and enforced while decompressing.
DECOMPRESSED_BYTES_MAX: Final = 64 * 1024 * 1024
# The same of a device's messages: a push ends with the edit that reaches its target, and names take 0.5 MiB. The
# interpreter's lock is held while a message is decoded, in a thread too: of 64 MiB made up for it, 0.45 s.
DEVICE_MESSAGE_BYTES_MAX: Final = 6 * 1024 * 1024
# A larger message is decoded in a thread, which leaves the event loop what decompressing takes.
DECODED_AT_ONCE_BYTES_MAX: Final = 192 * 1024
# Below this, zstd's header and call cost more than they save.
COMPRESS_FROM_BYTES: Final = 512

# One push: small enough that an acknowledgement comes often, large enough that a commit is shared.
PUSH_EDITS_MAX: Final = 2_000
PUSH_BYTES_TARGET: Final = 1024 * 1024
PUSHES_IN_FLIGHT: Final = 4
# One page of a pull; a device commits a page in one transaction.
PAGE_ENTRIES_MAX: Final = 2_000
PAGE_BYTES_TARGET: Final = 1024 * 1024
# Pages that the server sends ahead of the device's durable cursor: bounds both ends' memory.
PAGES_IN_FLIGHT: Final = 3
SESSION_SPACES_MAX: Final = 64
SESSION_WRITE_TIMEOUT_S: Final = 10.0

# A clock further ahead than this is not followed (Evolu rejected such writes for ever; we take them, but do not
# let them pull our clock along).
CLOCK_DRIFT_MS_MAX: Final = 5 * 60 * 1000
INVITATION_LIFETIME_S: Final = 600

# Vectors. pgvector indexes no more dimensions of float16 than this; the models in use have 384 to 3,072.
VECTOR_DIMENSIONS_MAX: Final = 4_000
VECTOR_HASH_BYTES_MAX: Final = 64  # the longest of the common hashes
VECTOR_MODEL_BYTES_MAX: Final = 200
# In one request: 500 of 384 dimensions are 0.4 MB as JSON, checked in 10 ms and stored in 60.
PUSH_VECTORS_MAX: Final = 500
VECTORS_BODY_BYTES_MAX: Final = 2 * 1024 * 1024
# In bytes of vectors, what one push and one page of a pull end with: 500 of 384 dimensions, 66 of 4,000. What is done
# with them stays under 10 ms.
VECTORS_PAGE_BYTES_TARGET: Final = 256 * 1024
# Requests of a session that are served at a time, beside its pushes: a search, the one typed after it, and
# vectors in both directions.
REQUESTS_IN_FLIGHT: Final = 4
# Models that a space has vectors of at a time: the one in use, the one that it is changing to, and stragglers.
VECTORS_MODELS_MAX: Final = 8

# One search. A question is a sentence or a page, not a book: each of its words is looked for.
SEARCH_TEXT_BYTES_MAX: Final = 8 * 1024
SEARCH_HITS_MAX: Final = 100
SEARCH_CONDITIONS_MAX: Final = 16
SEARCH_VALUES_MAX: Final = 1_000  # that one condition allows a field
SEARCH_COLLECTIONS_MAX: Final = 64
SEARCH_CHARACTERS_MAX: Final = 512 * 1024  # of all its texts together: 16 conditions of 1,000 ids each
SEARCH_NAMES_MAX: Final = 64  # people whom one question names; each is compared with who said what was found
