"""Who this device is to the server: its account, space and keys, kept inside the encrypted file.

The first device registers: it makes its identity, and the key that its file has becomes the space's. Others join with a
code that is valid once, for ten minutes: the code's secret proves that its holder was invited, and opens the space key
that the inviting device sealed to it; the server sees neither. `client_sdk.keys` says how.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import platform
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from client_sdk.commit import Corridor
from client_sdk.errors import AlreadyRegistered, NotRegistered
from client_sdk.keys import KEY_BYTES, DeviceIdentity, Invitation
from client_sdk.reseal import read_keys, take_key
from client_sdk.seal import NONCE_BYTES, SpaceKey
from client_sdk.writer import Writer

if TYPE_CHECKING:
    from client_sdk.sync.http import Registered, ServerApi, Token
    from crdt.requests import Found, Search

__all__ = ["Account", "Membership"]

_NAME: Final = "membership"
_INVITATION_BYTES: Final = 32
_TOKEN_MARGIN: Final = dt.timedelta(minutes=1)  # a token about to expire is not worth sending


class Membership(msgspec.Struct, frozen=True):
    """What the device keeps of its place in a space. ``identity`` is secret."""

    url: str
    account: str
    space: str
    device: str
    identity: bytes

    def __repr__(self) -> str:
        """Name the place, and not the secret: what is shown gets into logs."""
        return f"Membership({self.url!r}, space={self.space!r}, device={self.device!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Return what `rich` shows: the same."""
        return [("url", self.url), ("space", self.space), ("device", self.device)]


class Account:
    """This device's membership: made by `register` or `join`, needed by `invite` and `token`."""

    def __init__(self, writer: Writer, membership: Membership | None, random: Callable[[int], bytes]) -> None:
        self.membership = membership
        self._writer = writer
        self._random = random
        self._token: Token | None = None

    @classmethod
    async def load(cls, writer: Writer, random: Callable[[int], bytes]) -> Account:
        """Return what the file knows."""
        found = await writer.database.read(
            lambda connection: connection.execute(
                "SELECT value FROM pjais_meta WHERE name = ?", (_NAME,)
            ).fetchone(),
            brief=True,
        )
        membership = None if found is None else msgspec.msgpack.decode(found[0], type=Membership)
        return cls(writer, membership, random)

    async def reload(self) -> None:
        """Look whether another instance on this file has registered or joined meanwhile."""
        if self.membership is None:
            self.membership = (await Account.load(self._writer, self._random)).membership
            if self.membership is not None:  # with it came the space's key
                await self._writer.run(lambda corridor: read_keys(corridor, self._random), is_remote=True)

    def require(self) -> Membership:
        """Return the membership. Raises `NotRegistered`."""
        if self.membership is None:
            raise NotRegistered
        return self.membership

    async def register(self, url: str) -> Membership:
        """Make an account and its space at the server, with this device as the first.

        Raises `AlreadyRegistered`, `ServerUnreachable`, `ServerRefused`.
        """
        await self._require_none()
        identity = DeviceIdentity.generate(self._random(KEY_BYTES))
        async with await _api(url) as api:
            home = await api.register(
                public_key=identity.public_key, sign=identity.sign, name=platform.node() or "device"
            )
        return await self._keep(url, home, identity, None)

    async def join(self, url: str, code: str) -> Membership:
        """Enter the space of an invitation. What is sealed in this file is sealed anew under its key.

        Raises `AlreadyRegistered`, `InvitationInvalid`, `InvitationExpired`, `InvitationUsed`,
        `ServerUnreachable`, `ServerRefused`.
        """
        await self._require_none()
        invitation = Invitation.parse(code)
        identity = DeviceIdentity.generate(self._random(KEY_BYTES))
        async with await _api(url) as api:
            home = await api.join(
                invitation=invitation.id,
                public_key=identity.public_key,
                sign=identity.sign,
                prove=invitation.prove,
                name=platform.node() or "device",
            )
        space_key = invitation.open_space_key(home.sealed, space=home.space)
        return await self._keep(url, home, identity, SpaceKey(space_key))

    async def invite(self) -> str:
        """Leave an invitation at the server and return its code. Raises `NotRegistered` and as `register`."""
        await self.reload()
        membership = self.require()
        invitation = Invitation.generate(self._random(_INVITATION_BYTES))
        sealed = invitation.seal_space_key(
            self._writer.corridor.seals.keys[0].key, space=membership.space, nonce=self._random(NONCE_BYTES)
        )
        token = await self.token()
        async with await _api(membership.url) as api:
            await api.invite(
                space=membership.space,
                token=token,
                invitation=invitation.id,
                proof_key=invitation.proof_key,
                sealed=sealed,
            )
        return invitation.code

    async def search(self, question: Search) -> Found:
        """Ask what the space holds, without a session. Raises `NotRegistered` and as `register`."""
        membership = self.require()
        token = await self.token()
        async with await _api(membership.url) as api:
            return await api.search(question, token=token)

    async def token(self, is_refused: bool = False) -> str:
        """Return a token for the server, a fresh one if the last was refused or is about to expire."""
        membership = self.require()
        if (
            is_refused
            or self._token is None
            or self._token.expires_at - _TOKEN_MARGIN < dt.datetime.now(dt.UTC)
        ):
            identity = DeviceIdentity(membership.identity)
            async with await _api(membership.url) as api:
                self._token = await api.token(device=membership.device, sign=identity.sign)
        return self._token.token

    async def _require_none(self) -> None:
        await self.reload()
        if self.membership is not None:
            raise AlreadyRegistered(self.membership.space)

    async def _keep(
        self, url: str, home: Registered, identity: DeviceIdentity, space_key: SpaceKey | None
    ) -> Membership:
        membership = Membership(url, home.account, home.space, home.device, identity.private)
        kept = msgspec.msgpack.encode(membership)

        def work(corridor: Corridor) -> None:
            inserted = corridor.connection.execute(
                "INSERT INTO pjais_meta(name, value) VALUES (?, ?) ON CONFLICT DO NOTHING", (_NAME, kept)
            )
            if not inserted.rowcount:  # another instance was faster
                raise AlreadyRegistered(home.space)
            if space_key is not None:
                take_key(corridor, space_key)

        await self._writer.run(work)
        self.membership, self._token = membership, home.token
        return membership


async def _api(url: str) -> ServerApi:
    """Return the server's HTTP side, made in a thread: httpx takes 50 ms to import, which a device offline need not
    wait for, and 20 ms to read the certificates that it trusts.
    """

    def make() -> ServerApi:
        from client_sdk.sync.http import ServerApi

        return ServerApi(url)

    return await asyncio.to_thread(make)
