"""Vectors made small, and compared while small.

A vector of length 1 is kept as a float32 scale and one signed byte a dimension: 388 bytes for 384. The scale is a
127th of its largest component, so rounding errs by at most half of that in each component: symmetric linear
quantisation with a scale a vector (Jacob et al., CVPR 2018, without the zero point: components are centred).

::

    stored  = scale (float32, little-endian) + components (int8)
    cosine ≈ scale × (components · query)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from client_sdk.embedding.embedder import Vectors
from client_sdk.embedding.errors import VectorInvalid

__all__ = [
    "SCALE_BYTES",
    "Components",
    "checked",
    "dequantised",
    "dot",
    "normalised",
    "quantised",
    "unpacked",
]

Components: TypeAlias = npt.NDArray[np.int8]

SCALE_BYTES: Final = 4
_COMPONENT_MAX: Final = 127
_WIDENED_AT_ONCE: Final = 393_216
"""Components: 1.5 MB of float32, which stay in the cache. From 460,800 on OpenBLAS splits a block among threads, which
wait for one another: with the machine busy 40 ms (120 at worst) for what takes one thread 7."""
_SCALE = np.dtype("<f4")


def checked(vectors: npt.ArrayLike, *, count: int, dimensions: int) -> Vectors:
    """Return as float32 of shape (count, dimensions). Raises `VectorInvalid` for another shape, NaN or infinity."""
    try:
        with np.errstate(over="ignore"):  # a number past float32 becomes infinite, and is refused below
            found = np.asarray(vectors, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise VectorInvalid(f"it is not numbers of one length ({error})") from None
    if found.shape != (count, dimensions):
        raise VectorInvalid(f"the shape is {found.shape}, and {count} of {dimensions} dimensions were due")
    if not np.isfinite(found).all():
        raise VectorInvalid("a component is NaN or infinite")
    return found


def normalised(vectors: Vectors) -> Vectors:
    """Return each row at length 1; a row of zeros stays."""
    wide = vectors.astype(np.float64)  # float32 overflows where components are near its end
    lengths = np.sqrt(np.einsum("ij,ij->i", wide, wide))[:, None]
    unit: Vectors = np.divide(wide, lengths, out=np.zeros_like(wide), where=lengths > 0).astype(np.float32)
    return unit


def quantised(vectors: Vectors) -> list[bytes]:
    """Return each row in ``SCALE_BYTES + dimensions`` bytes. Raises `VectorInvalid` for NaN or infinity."""
    if vectors.ndim != 2:  # noqa: PLR2004 - rows and columns
        raise VectorInvalid(f"the shape is {vectors.shape}, and rows of components were due")
    vectors = checked(vectors, count=vectors.shape[0], dimensions=vectors.shape[1])
    scales = (np.abs(vectors).max(axis=1, initial=0) / _COMPONENT_MAX).astype(_SCALE)
    steps = np.divide(vectors, scales[:, None], out=np.zeros_like(vectors), where=scales[:, None] > 0)
    components = np.clip(np.rint(steps), -_COMPONENT_MAX, _COMPONENT_MAX).astype(np.int8)
    return [scale.tobytes() + row.tobytes() for scale, row in zip(scales, components, strict=True)]


def unpacked(stored: Sequence[bytes], *, dimensions: int) -> tuple[npt.NDArray[np.float32], Components]:
    """Return scales of shape (n,) and components of shape (n, dimensions), one copy of the bytes.

    Raises `VectorInvalid` for a wrong length or a scale that no vector has, naming the first place.
    """
    size = SCALE_BYTES + dimensions
    for place, one in enumerate(stored):
        if len(one) != size:
            raise VectorInvalid(f"number {place} has {len(one)} bytes, and {size} were due")
    table = np.frombuffer(b"".join(stored), np.uint8).reshape(len(stored), size)
    scales = np.ascontiguousarray(table[:, :SCALE_BYTES]).view(_SCALE)[:, 0].astype(np.float32)
    if not (np.isfinite(scales) & (scales >= 0)).all():
        raise VectorInvalid("a scale is NaN, infinite or negative")
    return scales, np.ascontiguousarray(table[:, SCALE_BYTES:]).view(np.int8)


def dequantised(stored: Sequence[bytes], *, dimensions: int) -> Vectors:
    """Return float32 rows of shape (n, dimensions). Raises `VectorInvalid` as `unpacked` does."""
    scales, components = unpacked(stored, dimensions=dimensions)
    return components.astype(np.float32) * scales[:, None]


def dot(
    scales: npt.NDArray[np.float32],
    components: Components,
    query: Vectors,
    *,
    rows_at_once: int | None = None,
) -> npt.NDArray[np.float32]:
    """Return the cosine of each stored vector and a query of shape (dimensions,), as shape (n,).

    A block of rows at a time is widened to float32 and goes through BLAS (`_WIDENED_AT_ONCE`, or ``rows_at_once``):
    100,000 rows of 384 take 7 ms.
    Raises `VectorInvalid` where the query is of another length or not finite.
    """
    dimensions = components.shape[1]
    query = checked(query[None], count=1, dimensions=dimensions)[0]
    rows_at_once = rows_at_once or max(1, _WIDENED_AT_ONCE // max(1, dimensions))
    cosines = np.empty(len(components), np.float32)
    block = np.empty((min(rows_at_once, len(components)), dimensions), np.float32)
    for start in range(0, len(components), rows_at_once):
        rows = components[start : start + rows_at_once]
        widened = block[: len(rows)]
        np.copyto(widened, rows)
        np.matmul(widened, query, out=cosines[start : start + rows_at_once])
    return cosines * scales
