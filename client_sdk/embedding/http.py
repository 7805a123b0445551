"""Vectors from any endpoint that speaks OpenAI's ``POST …/embeddings``: OpenAI, Ollama, llama.cpp, vLLM, LM Studio.

The texts leave this device: that is the caller's choice, and the address names to whom. A request that may succeed
later (no answer, 408, 409, 429, 5xx) is tried again with growing pauses, as long as the endpoint asks for where it says
(``Retry-After``); any other refusal is `EmbedderFailed` at once. The key is in the request's header, and nowhere
else: not in errors, not in `repr`, not in logs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Annotated, Final

import httpx
import msgspec
import stamina

from client_sdk.embedding.batching import BatchingEmbedder
from client_sdk.embedding.embedder import Kind, Model, Vectors
from client_sdk.embedding.errors import EmbedderFailed, VectorInvalid
from client_sdk.embedding.vectors import checked

__all__ = ["HttpEmbedder"]

_MAY_PASS: Final = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_CHARACTERS_A_NUMBER_MAX: Final = 32  # a float in JSON has at most 25, with its comma
_OVERHEAD_BYTES_MAX: Final = 64 * 1024  # names, usage, an error page
_RETRY_AFTER_S_MAX: Final = 60.0  # a longer pause than this is an answer: not now


class _One(msgspec.Struct):
    index: Annotated[int, msgspec.Meta(ge=0)]
    embedding: list[float]


class _Answer(msgspec.Struct):
    data: list[_One]


class _Later(Exception):
    """A refusal that may pass."""

    def __init__(self, failure: EmbedderFailed, wait_s: float | None) -> None:
        super().__init__(str(failure))
        self.failure = failure
        self.wait_s = wait_s


class HttpEmbedder(BatchingEmbedder):
    """An endpoint. ``url`` is the base (``https://api.example.com/v1``), ``name`` the model's name there.

    ``dimensions`` is what the model gives; ``version`` makes a change of the model behind the same name another model.
    """

    texts_a_batch = 64
    characters_a_batch = 200_000

    def __init__(
        self,
        url: str,
        name: str,
        *,
        dimensions: int,
        key: str | None = None,
        version: str = "",
        prefixes: tuple[str, str] = ("", ""),
        tokens_max: int | None = None,
        timeout_s: float = 30.0,
        attempts: int = 5,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._url = f"{url.rstrip('/')}/embeddings"
        self._key = key
        self._timeout_s = timeout_s
        self._attempts = attempts
        self._transport = transport
        self._client: httpx.AsyncClient | None = None
        self._model = Model(name, version, dimensions, "endpoint", *prefixes, tokens_max=tokens_max)

    def __repr__(self) -> str:
        return f"HttpEmbedder({self._url!r}, {self._model.name!r}, dimensions={self._model.dimensions})"

    @property
    def model(self) -> Model:
        """Which model it is."""
        return self._model

    async def close(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _vectors_of(self, texts: Sequence[str], kind: Kind) -> Vectors:
        def pause(error: Exception) -> bool | float:
            if isinstance(error, _Later):
                return True if error.wait_s is None else error.wait_s
            return False

        try:
            async for attempt in stamina.retry_context(on=pause, attempts=self._attempts, timeout=None):
                with attempt:
                    return self._vectors_in(await self._ask(texts), len(texts))
        except _Later as later:
            raise later.failure from later.__cause__
        raise AssertionError  # pragma: no cover - stamina returns or raises

    async def _ask(self, texts: Sequence[str]) -> bytes:
        """Return the body of an answer with status 200. Raises `_Later` and `EmbedderFailed`."""
        if self._client is None:
            headers = {"authorization": f"Bearer {self._key}"} if self._key else {}
            self._client = httpx.AsyncClient(
                headers=headers, timeout=self._timeout_s, transport=self._transport
            )
        request = {"model": self._model.name, "input": list(texts), "encoding_format": "float"}
        bytes_max = len(texts) * self._model.dimensions * _CHARACTERS_A_NUMBER_MAX + _OVERHEAD_BYTES_MAX
        try:
            async with self._client.stream("POST", self._url, json=request) as response:
                body = bytearray()
                async for part in response.aiter_bytes():
                    body += part
                    if len(body) > bytes_max:
                        raise EmbedderFailed(self._url, f"its answer is longer than {bytes_max} bytes")
        except httpx.HTTPError as error:
            detail = self._without_key(f"{type(error).__name__} {error}".strip())
            raise _Later(EmbedderFailed(self._url, detail), None) from error
        if response.status_code == httpx.codes.OK:
            return bytes(body)
        told = self._without_key(body[:300].decode(errors="replace").strip())
        failure = EmbedderFailed(
            self._url, f"HTTP {response.status_code}: {told}", status=response.status_code
        )
        if response.status_code in _MAY_PASS:
            raise _Later(failure, _retry_after_s(response))
        raise failure

    def _vectors_in(self, body: bytes, count: int) -> Vectors:
        try:
            answer = msgspec.json.decode(body, type=_Answer)
        except msgspec.DecodeError as error:
            raise EmbedderFailed(self._url, f"its answer is not vectors: {error}", status=200) from None
        rows = {one.index: one.embedding for one in answer.data}
        if sorted(rows) != list(range(count)) or len(answer.data) != count:
            raise VectorInvalid(f"{len(answer.data)} came for {count} texts")
        in_order = [rows[place] for place in range(count)]
        return checked(in_order, count=count, dimensions=self._model.dimensions)

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "…") if self._key else text


def _retry_after_s(response: httpx.Response) -> float | None:
    """Return the seconds that the endpoint asks to wait, None where it does not say, or says a date."""
    with contextlib.suppress(ValueError):
        return min(max(float(response.headers.get("retry-after", "")), 0.0), _RETRY_AFTER_S_MAX)
    return None
