"""What can go wrong with search by meaning, beside the model itself (`client_sdk.embedding.errors`).

::

    ClientError (client_sdk.errors)
    ├── MeaningOff          the client was opened with embedder="off"    open it with one, or search by text
    ├── EmbeddingTimeout    not every text has its vector yet            wait longer; searches work meanwhile
    └── VectorsStay         the collection keeps its vectors here        search by text, or on the device
"""

from __future__ import annotations

from client_sdk.errors import ClientError

__all__ = ["EmbeddingTimeout", "MeaningOff", "VectorsStay"]


class MeaningOff(ClientError):
    """Nothing is embedded here."""

    def __init__(self) -> None:
        super().__init__(
            'this client was opened with embedder="off": open it with an embedder, or search with mode="text"'
        )


class EmbeddingTimeout(ClientError, TimeoutError):
    """Texts still wait for their vectors. It goes on in the background."""

    def __init__(self, seconds: float, waiting: int) -> None:
        some = f"{waiting:,} records, or more," if waiting else "some records"
        super().__init__(f"after {seconds:g} s {some} still wait for their vectors: wait longer, it goes on")
        self.waiting = waiting


class VectorsStay(ClientError):
    """The server cannot compare what it is not given."""

    def __init__(self, collection: str) -> None:
        super().__init__(
            f'{collection} was declared with vectors="device", so that only devices search it by meaning: this one was'
            ' searched; mode="text" searches the whole space'
        )
        self.collection = collection
