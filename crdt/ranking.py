"""How words, meaning and names are weighed against one another: the numbers that a device and a server share.

A search of the device and one of the space are the same search. `client_sdk.ranking` tells the whole recipe and applies
it to a device's rows, `server.search.statement` applies it in SQL; what each part gives is in ``loadtests/README.md``.
"""

from __future__ import annotations

from typing import Final

__all__ = ["NAME_WEIGHT", "NEIGHBOUR_SHARE", "TEXT_WEIGHT"]

NEIGHBOUR_SHARE: Final = 0.4
"""What a row takes in of the numbers of the rows just before and after it. Passages are scored with the text around
them (Callan, SIGIR 1994; Fernández, Losada and Azzopardi, Information Retrieval 14, 2011). 0.3 to 0.5 do as well."""
TEXT_WEIGHT: Final = 0.4
"""Of words; meaning has the rest of 1. A convex combination of normalised scores (Bruch, Gai and Ingber, ACM TOIS
2023). 0.3 to 0.5 do as well."""
NAME_WEIGHT: Final = 0.3
"""What comes on top where somebody said it whom the question names. 0.3 to 0.5 do as well."""
