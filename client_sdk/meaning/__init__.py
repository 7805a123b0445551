"""What records mean, on this device: a vector for each searchable text, kept right in the background, and searched.

======================  ===============================================================================
module                  does
======================  ===============================================================================
`stored`                the table ``pjais_vectors``: what lacks a vector is known from the text's hash
`shared`                which of them the server has, and which of other devices are taken
`shelf`                 vectors in memory, compared exactly
`background`            texts become vectors, in batches, behind the writes
`patience`              what came from other devices is left to them for a while
`meaning`               the door: progress, waiting, and what a search needs to know before it reads
`errors`                what can go wrong
======================  ===============================================================================

What is embedded: of a record, its searchable fields that are no lists, each on a line; of a searchable list each item's
texts. A sealed field is in neither, since none can be searchable. Writes never wait for any of it.
"""

from __future__ import annotations

__all__: list[str] = []
