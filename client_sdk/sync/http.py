r"""The server's HTTP routes, as far as a device needs them: to register, join and invite, for tokens, and to search.

A device has no password: it signs a nonce of the server (a challenge, good for one answer) with its Ed25519 key. The
private keys never come here: whoever calls brings ``sign``, from bytes to a signature of 64 bytes.

===========  ======================================================  =================================
answer to    is signed                                               by
===========  ======================================================  =================================
`register`   ``b"pjais register v1\0" + nonce + public key``         the device's key
`join`       ``b"pjais join v1\0" + nonce + public key``             the device's, and the invitation's
`token`      ``b"pjais token v1\0" + nonce + device (16 bytes)``     the device's key
===========  ======================================================  =================================

Bytes travel as base64url without padding (RFC 4648, section 5). Nothing is tried again here: a registration that
was sent twice would make two accounts.

Errors: `ServerUnreachable` where nothing of ours answers, `InvitationExpired`, `InvitationUsed`, and
`ServerRefused` with the server's code for all others.
"""

from __future__ import annotations

import base64
import binascii
import struct
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Self, TypeAlias, TypeVar
from urllib.parse import urlsplit

import httpx
import msgspec

from client_sdk.errors import (
    ClientError,
    InvitationExpired,
    InvitationUsed,
    ServerRefused,
    ServerUnreachable,
)
from crdt import requests

__all__ = ["Joined", "Prove", "Registered", "ServerApi", "Sign", "Token"]

Sign: TypeAlias = Callable[[bytes], bytes]
Prove: TypeAlias = Callable[[bytes, bytes], bytes]
_Answer = TypeVar("_Answer", bound=msgspec.Struct)

_TIMEOUT_S: Final = 10.0
_SAID: Final[Mapping[requests.Operator, str]] = {
    "in": "in",
    "has": "has",
    "at least": "atLeast",
    "above": "above",
    "at most": "atMost",
    "below": "below",
}
# The largest honest answer is a hundred hits: 60 KB. An error page of a proxy may be some, too.
_ANSWER_BYTES_MAX: Final = 256 * 1024
_ERRORS: Final[Mapping[str, Callable[[], ClientError]]] = {
    "invitation_expired": InvitationExpired,
    "invitation_used": InvitationUsed,
}


@dataclass(frozen=True, slots=True)
class Token:
    """What opens a session until ``expires_at`` (UTC, by the server's clock)."""

    token: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Registered:
    """This device is the first in a new space, of a new account. Names are UUIDs as 36 characters."""

    account: str
    space: str
    device: str
    generation: str
    token: Token


@dataclass(frozen=True, slots=True)
class Joined(Registered):
    """This device is in the space. ``sealed`` is what the inviting device left for the holder of the code."""

    sealed: bytes


class _Json(msgspec.Struct, frozen=True, rename="camel"):
    """A JSON object of the server, its names in camelCase. Times: RFC 3339, or milliseconds since 1970."""


class _Challenge(_Json, frozen=True):
    nonce: str


class _Invitation(_Json, frozen=True):
    expires_at: datetime | int


class _Token(_Json, frozen=True):
    token: str
    expires_at: datetime | int


class _Registered(_Token, frozen=True):
    account: str
    space: str
    device: str
    generation: str


class _Joined(_Registered, frozen=True):
    sealed: str


class _Hit(_Json, frozen=True):
    collection: str
    record: str
    part: int
    score: float
    found_by: list[requests.Finder]


class _Found(_Json, frozen=True):
    hits: list[_Hit]
    head: int
    materialized: int


class _Problem(_Json, frozen=True):
    code: str
    message: str


class ServerApi:
    """The HTTP side of the server at ``url`` (http:// or https://). An async context manager.

    ``transport`` replaces the network, for tests.
    """

    def __init__(self, url: str, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        try:
            parts = urlsplit(url)
            is_address = parts.scheme in {"http", "https"} and bool(parts.hostname)
        except ValueError:
            is_address = False
        if not is_address:
            raise ServerUnreachable(url, "it is not an address such as http://127.0.0.1:8787")
        self.url = url
        # Answers are small; one that is compressed could be large, and is not asked for.
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        self._client = httpx.AsyncClient(
            base_url=url, headers=headers, timeout=_TIMEOUT_S, transport=transport
        )

    async def __aenter__(self) -> Self:
        """Return itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close its connections."""
        await self.close()

    async def close(self) -> None:
        """Close its connections."""
        await self._client.aclose()

    async def challenge(self) -> bytes:
        """Return a nonce to sign, good for one answer within a minute or so."""
        answer = await self._post("/v1/challenges", {}, _Challenge)
        return self._bytes(answer.nonce)

    async def register(self, *, public_key: bytes, sign: Sign, name: str) -> Registered:
        """Make an account and its space, with this device in it. ``public_key``: Ed25519, 32 bytes."""
        nonce = await self.challenge()
        body = {
            "publicKey": _text(public_key),
            "nonce": _text(nonce),
            "signature": _text(sign(b"pjais register v1\0" + nonce + public_key)),
            "name": name,
        }
        home = await self._post("/v1/register", body, _Registered)
        return Registered(home.account, home.space, home.device, home.generation, _token(home))

    async def token(self, *, device: str, sign: Sign) -> Token:
        """Return a fresh token for a registered device (a UUID as 36 characters)."""
        nonce = await self.challenge()
        body = {
            "device": device,
            "nonce": _text(nonce),
            "signature": _text(sign(b"pjais token v1\0" + nonce + uuid.UUID(device).bytes)),
        }
        return _token(await self._post("/v1/tokens", body, _Token))

    async def invite(
        self, *, space: str, token: str, invitation: bytes, proof_key: bytes, sealed: bytes
    ) -> datetime:
        """Leave an invitation at the server; return when it expires, which the server decides.

        ``invitation`` is its random id, ``proof_key`` (Ed25519, 32 bytes) checks who joins with it, and ``sealed`` is
        for them: the server can open neither.
        """
        body = {
            "invitation": _text(invitation),
            "proofKey": _text(proof_key),
            "sealed": _text(sealed),
        }
        answer = await self._post(f"/v1/spaces/{space}/invitations", body, _Invitation, token=token)
        return _time(answer.expires_at)

    async def join(
        self, *, invitation: bytes, public_key: bytes, sign: Sign, prove: Prove, name: str
    ) -> Joined:
        """Enter the space of an invitation.

        ``sign`` signs with the device's key; ``prove`` (from nonce and public key) with the invitation's.
        """
        nonce = await self.challenge()
        signed = b"pjais join v1\0" + nonce + public_key
        body = {
            "invitation": _text(invitation),
            "publicKey": _text(public_key),
            "nonce": _text(nonce),
            "signature": _text(sign(signed)),
            "proof": _text(prove(nonce, public_key)),
            "name": name,
        }
        home = await self._post("/v1/join", body, _Joined)
        sealed = self._bytes(home.sealed)
        return Joined(home.account, home.space, home.device, home.generation, _token(home), sealed)

    async def search(self, question: requests.Search, *, token: str) -> requests.Found:
        """Ask what the question's space holds. The answer names no request."""
        body = {
            "mode": question.mode,
            "text": question.text,
            "vector": list(struct.unpack(f"<{len(question.vector) // 4}f", question.vector)),
            "model": question.model,
            "names": question.names,
            "collections": question.collections,
            "filter": [{"field": one.field, _SAID[one.operator]: one.value} for one in question.conditions],
            "limit": question.limit,
        }
        found = await self._post(f"/v1/spaces/{question.space}/search", body, _Found, token=token)
        hits = [
            requests.FoundPart(one.collection, one.record, one.part, one.score, one.found_by)
            for one in found.hits
        ]
        return requests.Found(0, hits, found.head, found.materialized)

    async def _post(
        self, route: str, body: dict[str, Any], kind: type[_Answer], *, token: str | None = None
    ) -> _Answer:
        headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
        try:
            async with self._client.stream("POST", route, json=body, headers=headers) as response:
                answer = await self._read(response)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ServerUnreachable(self.url, str(error) or type(error).__name__) from error
        if not response.is_success:
            raise self._refused(response.status_code, answer)
        try:
            return msgspec.json.decode(answer, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ServerUnreachable(self.url, f"what answers there is another program: {error}") from error

    async def _read(self, response: httpx.Response) -> bytes:
        if response.headers.get("content-encoding", "identity") != "identity":
            raise ServerUnreachable(self.url, "an answer that is compressed, which was not asked for")
        answer = bytearray()
        async for part in response.aiter_bytes():
            answer += part
            if len(answer) > _ANSWER_BYTES_MAX:
                raise ServerUnreachable(self.url, f"an answer of more than {_ANSWER_BYTES_MAX} bytes")
        return bytes(answer)

    def _refused(self, status: int, answer: bytes) -> ClientError:
        try:
            problem = msgspec.json.decode(answer, type=_Problem)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return ServerUnreachable(self.url, f"it answered with HTTP status {status}, and not as we do")
        error = _ERRORS.get(problem.code)
        return error() if error else ServerRefused(problem.code, problem.message)

    def _bytes(self, text: str) -> bytes:
        try:
            return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError) as error:
            raise ServerUnreachable(self.url, f"what answers there is another program: {error}") from error


def _text(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def _time(value: datetime | int) -> datetime:
    if isinstance(value, int):
        return datetime.fromtimestamp(value / 1000, UTC)
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def _token(answer: _Token) -> Token:
    return Token(answer.token, _time(answer.expires_at))
