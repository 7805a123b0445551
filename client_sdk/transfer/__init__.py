"""Records in and out of a Hub as files: imports from three formats, and the export.

`importing` and `exporting` are the two ways; `hub_format` (our own), `chatgpt` and `locomo` read one format each,
through the seam in `source`.
"""

from __future__ import annotations

from client_sdk.transfer.exporting import export_to, export_to_file
from client_sdk.transfer.hub_format import decode_record, encode_record
from client_sdk.transfer.importing import FORMATS, Format, Imported, import_file

__all__ = [
    "FORMATS",
    "Format",
    "Imported",
    "decode_record",
    "encode_record",
    "export_to",
    "export_to_file",
    "import_file",
]
