"""The HTTP routes as a device calls them, against a server in memory that checks each signature."""

from __future__ import annotations

import base64
import gzip
import json
import socket
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from client_sdk.errors import ClientError, InvitationExpired, InvitationUsed, ServerRefused, ServerUnreachable
from client_sdk.sync.http import Joined, Registered, ServerApi, Token

NONCE = bytes(range(240, 256)) + bytes(16)  # with characters that plain and URL-safe base64 write differently
DEVICE, SPACE, ACCOUNT, GENERATION = (str(uuid.UUID(int=number)) for number in range(1, 5))
SEALED = b"\xff\xfe sealed"
EXPIRES = datetime(2031, 2, 3, 4, 5, 6, tzinfo=UTC)
TOKEN = Token("t0ken", EXPIRES)

DEVICE_KEY = Ed25519PrivateKey.generate()
PROOF_KEY = Ed25519PrivateKey.generate()
PUBLIC = DEVICE_KEY.public_key().public_bytes_raw()


def text(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def plain(value: str) -> bytes:
    return base64.urlsafe_b64decode(value + "==")


def is_signed(key: Ed25519PublicKey, signature: str, signed: bytes) -> bool:
    try:
        key.verify(plain(signature), signed)
    except InvalidSignature:
        return False
    return True


class Server:
    """Answers as the server does; a wrong signature, or token, is a 401."""

    def __init__(self, expires: object = "2031-02-03T04:05:06Z") -> None:
        self.home = {"account": ACCOUNT, "space": SPACE, "device": DEVICE, "generation": GENERATION}
        self.token = {"token": "t0ken", "expiresAt": expires}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        answer = self._answer(request, body)
        if answer is None:
            return httpx.Response(401, json={"code": "unauthorized", "message": "sign a new challenge"})
        return httpx.Response(201, json=answer)

    def _answer(self, request: httpx.Request, body: dict[str, str]) -> dict[str, Any] | None:
        key = DEVICE_KEY.public_key()
        match request.url.path:
            case "/base/v1/challenges":
                return {"nonce": text(NONCE)}
            case "/base/v1/register":
                assert (plain(body["publicKey"]), plain(body["nonce"]), body["name"]) == (
                    PUBLIC,
                    NONCE,
                    "mine",
                )
                is_good = is_signed(key, body["signature"], b"pjais register v1\0" + NONCE + PUBLIC)
                return self.home | self.token if is_good else None
            case "/base/v1/tokens":
                signed = b"pjais token v1\0" + NONCE + uuid.UUID(body["device"]).bytes
                return self.token if is_signed(key, body["signature"], signed) else None
            case "/base/v1/join":
                signed = b"pjais join v1\0" + NONCE + PUBLIC
                is_good = is_signed(key, body["signature"], signed)
                is_good &= is_signed(PROOF_KEY.public_key(), body["proof"], signed)
                assert plain(body["invitation"]) == b"invitation-id-16"
                return self.home | self.token | {"sealed": text(SEALED)} if is_good else None
            case path if path == f"/base/v1/spaces/{SPACE}/invitations":
                assert plain(body["proofKey"]) == PROOF_KEY.public_key().public_bytes_raw()
                assert (plain(body["invitation"]), plain(body["sealed"])) == (b"invitation-id-16", SEALED)
                is_good = request.headers.get("authorization") == "Bearer t0ken"
                return {"expiresAt": self.token["expiresAt"]} if is_good else None
            case path:
                raise AssertionError(path)


def api(answer: Callable[[httpx.Request], httpx.Response]) -> ServerApi:
    return ServerApi("http://server.example/base/", transport=httpx.MockTransport(answer))


async def test_register_signs_the_challenge_and_returns_the_new_home() -> None:
    async with api(Server()) as server:
        home = await server.register(public_key=PUBLIC, sign=DEVICE_KEY.sign, name="mine")
    assert home == Registered(ACCOUNT, SPACE, DEVICE, GENERATION, TOKEN)


@pytest.mark.parametrize("expires", ["2031-02-03T04:05:06Z", "2031-02-03T05:05:06+01:00", 1_927_857_906_000])
async def test_a_token_has_its_end_in_utc_however_the_server_writes_it(expires: object) -> None:
    async with api(Server(expires)) as server:
        assert await server.token(device=DEVICE, sign=DEVICE_KEY.sign) == TOKEN


async def test_an_invitation_is_left_under_the_token() -> None:
    async with api(Server()) as server:
        expires = await server.invite(
            space=SPACE,
            token="t0ken",
            invitation=b"invitation-id-16",
            proof_key=PROOF_KEY.public_key().public_bytes_raw(),
            sealed=SEALED,
        )
    assert expires == EXPIRES


async def test_joining_signs_with_both_keys_and_brings_what_was_sealed() -> None:
    async with api(Server()) as server:
        joined = await server.join(
            invitation=b"invitation-id-16",
            public_key=PUBLIC,
            sign=DEVICE_KEY.sign,
            prove=lambda nonce, public: PROOF_KEY.sign(b"pjais join v1\0" + nonce + public),
            name="second",
        )
    assert joined == Joined(ACCOUNT, SPACE, DEVICE, GENERATION, TOKEN, SEALED)


async def test_a_signature_of_another_key_is_refused_with_the_servers_code() -> None:
    async with api(Server()) as server:
        with pytest.raises(ServerRefused) as refused:
            await server.token(device=DEVICE, sign=PROOF_KEY.sign)
    assert (refused.value.code, refused.value.message) == ("unauthorized", "sign a new challenge")


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("invitation_expired", InvitationExpired),
        ("invitation_used", InvitationUsed),
        ("not_in_space", ServerRefused),
        ("a code of next year", ServerRefused),
    ],
)
async def test_each_code_has_its_error(code: str, kind: type[ClientError]) -> None:
    async with api(lambda _: httpx.Response(410, json={"code": code, "message": "m"})) as server:
        with pytest.raises(ClientError) as refused:
            await server.challenge()
    assert type(refused.value) is kind


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(httpx.Response(200, text="<html>welcome to the printer</html>"), id="a page"),
        pytest.param(httpx.Response(404, text="not found"), id="an error page"),
        pytest.param(httpx.Response(500, json=["code"]), id="an error of another shape"),
        pytest.param(httpx.Response(201, json={"nonce": "not base64!"}), id="no base64"),
        pytest.param(httpx.Response(201, json={"nonce": 7}), id="another type"),
        pytest.param(httpx.Response(201, json={}), id="nothing in it"),
        pytest.param(httpx.Response(201, content=b"\xff\xfe"), id="no text"),
        pytest.param(
            httpx.Response(302, headers={"location": "http://elsewhere.example/"}), id="a redirection"
        ),
        pytest.param(httpx.Response(201, content=b" " * 1_000_000), id="a megabyte"),
        pytest.param(httpx.Response(201, content=b"[" * 100_000), id="deep"),
        pytest.param(
            httpx.Response(201, content=gzip.compress(b"{}"), headers={"content-encoding": "gzip"}), id="zip"
        ),
    ],
)
async def test_another_program_at_that_address_is_not_taken_for_the_server(answer: httpx.Response) -> None:
    async with api(lambda _: answer) as server:
        with pytest.raises(ServerUnreachable, match=r"server\.example"):
            await server.challenge()


async def test_a_server_that_is_not_there_is_named_with_its_address() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    async with ServerApi(url) as server:
        with pytest.raises(ServerUnreachable, match=url):
            await server.challenge()


@pytest.mark.parametrize("url", ["", "127.0.0.1:8787", "ftp://x", "http://", "localhost", "http://[::1"])
def test_what_is_no_address_is_refused_by_name(url: str) -> None:
    with pytest.raises(ServerUnreachable):
        ServerApi(url)
