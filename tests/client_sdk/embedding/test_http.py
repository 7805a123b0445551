"""An endpoint's vectors are taken as they are due; what may pass is tried again, and the key is told to nobody."""

from __future__ import annotations

import json
from collections.abc import Callable

import httpx
import numpy as np
import pytest
import stamina

from client_sdk.embedding import EmbedderFailed, HttpEmbedder, VectorInvalid

KEY = "sk-a-secret-key"
URL = "http://127.0.0.1:9/v1"
Handler = Callable[[httpx.Request], httpx.Response]


def answer(request: httpx.Request, *, dimensions: int = 3) -> httpx.Response:
    """Answer as the endpoint does, in the wrong order; the vector of a text is its length, and ones."""
    texts = json.loads(request.content)["input"]
    rows = [{"index": n, "embedding": [len(text)] + [1.0] * (dimensions - 1)} for n, text in enumerate(texts)]
    return httpx.Response(200, json={"object": "list", "data": rows[::-1], "usage": {}})


def embedder_at(handler: Handler, *, attempts: int = 3) -> HttpEmbedder:
    return HttpEmbedder(
        URL, "a-model", dimensions=3, key=KEY, attempts=attempts, transport=httpx.MockTransport(handler)
    )


async def test_vectors_come_back_in_the_order_of_the_texts() -> None:
    requests: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return answer(request)

    embedder = embedder_at(handler)
    texts = ["x" * length for length in range(200, 0, -1)]
    vectors = await embedder.embed(texts)
    assert vectors[:, 0] / vectors[:, 1] == pytest.approx([len(text) for text in texts], rel=1e-5)
    assert len(requests) == 4  # 64 texts a request
    assert requests[0].url == f"{URL}/embeddings"
    assert requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert json.loads(requests[0].content)["model"] == "a-model"
    await embedder.close()


@pytest.mark.parametrize("status", [429, 503])
async def test_what_may_pass_is_tried_again(status: int) -> None:
    tried = 0

    def handler(request: httpx.Request) -> httpx.Response:
        nonlocal tried
        tried += 1
        if tried == 1:
            return httpx.Response(status, headers={"retry-after": "0"})
        if tried == 2:
            raise httpx.ConnectError("refused")
        return answer(request)

    embedder = embedder_at(handler)
    with stamina.set_testing(True, attempts=3):
        assert np.isfinite(await embedder.embed(["a"])).all()
    assert tried == 3
    await embedder.close()


async def test_after_all_tries_the_last_refusal_is_told() -> None:
    embedder = embedder_at(lambda request: httpx.Response(503, text="down for a while"))
    with stamina.set_testing(True, attempts=2), pytest.raises(EmbedderFailed, match="503: down") as caught:
        await embedder.embed(["a"])
    assert caught.value.status == 503
    await embedder.close()


async def test_a_refusal_that_stays_is_not_tried_again_and_never_tells_the_key() -> None:
    tried = 0

    def handler(request: httpx.Request) -> httpx.Response:
        nonlocal tried
        tried += 1
        return httpx.Response(401, json={"error": f"Incorrect API key provided: {KEY}"})

    embedder = embedder_at(handler)
    with pytest.raises(EmbedderFailed, match="401") as caught:
        await embedder.embed(["a"])
    assert tried == 1
    assert KEY not in str(caught.value)
    assert KEY not in repr(embedder)
    await embedder.close()


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"<html>", EmbedderFailed),
        (b'{"data": 3}', EmbedderFailed),
        (b'{"data": []}', VectorInvalid),
        (b'{"data": [{"index": 0, "embedding": [NaN, 1, 1]}]}', EmbedderFailed),
        (b'{"data": [{"index": 0, "embedding": [1, 1]}]}', VectorInvalid),
        (b'{"data": [{"index": 7, "embedding": [1, 1, 1]}]}', VectorInvalid),
        (b'{"data": [{"index": 0, "embedding": [1e300, 1, 1]}]}', VectorInvalid),
        (b" " * 100_000, EmbedderFailed),
    ],
)
async def test_an_answer_that_is_not_vectors_of_the_model_is_refused(
    body: bytes, error: type[Exception]
) -> None:
    embedder = embedder_at(lambda request: httpx.Response(200, content=body))
    with pytest.raises(error):
        await embedder.embed(["a"])
    await embedder.close()


async def test_where_nothing_answers_the_error_names_the_address() -> None:
    embedder = HttpEmbedder(URL, "a-model", dimensions=3, attempts=1)  # the discard port: nobody listens
    with pytest.raises(EmbedderFailed, match=r"127\.0\.0\.1:9") as caught:
        await embedder.embed(["a"])
    assert caught.value.status is None
    await embedder.close()
