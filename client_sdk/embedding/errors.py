"""What can go wrong between a text and its vector.

::

    ClientError (client_sdk.errors)
    └── EmbeddingProblem
        ├── ModelMissing        a package or a file is not there      install or place what it names
        ├── ModelDamaged        the bytes are not the model's         install it again
        ├── ModelUnsuitable     a folder that cannot be run here      choose another model, or mend its files
        ├── EmbedderFailed      an endpoint said no, or nothing       act on its status; text search goes on
        └── VectorInvalid       NaN, infinite, or of a wrong length   mend the embedder; nothing was stored

Records are written and found by their text whatever happens here.
"""

from __future__ import annotations

from client_sdk.errors import ClientError

__all__ = [
    "EmbedderFailed",
    "EmbeddingProblem",
    "ModelDamaged",
    "ModelMissing",
    "ModelUnsuitable",
    "VectorInvalid",
]


class EmbeddingProblem(ClientError):
    """The base: there is no vector. The record and its text are untouched."""


class ModelMissing(EmbeddingProblem):
    """Something that the model is made of is not on this machine. ``what`` names it."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what} is not on this machine: {remedy}")
        self.what = what


class ModelDamaged(EmbeddingProblem):
    """A file of the model is there and is not what it should be. ``what`` names it."""

    def __init__(self, what: str, detail: str, remedy: str) -> None:
        super().__init__(f"{what} is damaged ({detail}): {remedy}")
        self.what = what


class ModelUnsuitable(EmbeddingProblem, ValueError):
    """A model that this embedder does not know how to run."""


class EmbedderFailed(EmbeddingProblem):
    """An endpoint gave no vectors, tried several times where that could help.

    ``status`` is HTTP's, None where no answer came.
    """

    def __init__(self, url: str, detail: str, *, status: int | None = None) -> None:
        super().__init__(f"no vectors from {url} ({detail}): check the address, the key and the model's name")
        self.url = url
        self.status = status


class VectorInvalid(EmbeddingProblem, ValueError):
    """Numbers that are no vector of this model. Nothing of the batch is used."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"not a vector of this model: {problem}. Mend the embedder; nothing was stored")
        self.problem = problem
