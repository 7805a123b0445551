r"""Who may come in: a first device makes an account and its space, others join by invitation.

What a device signs: ``pjais register v1\0`` + nonce + public key; ``pjais token v1\0`` + nonce + the 16
bytes of its id; ``pjais join v1\0`` + nonce + public key, once with its own key and once with the
invitation's. A challenge is used up by the first attempt, whatever comes of it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID, uuid4

import msgspec
from litestar import Controller, post
from litestar.datastructures import State
from litestar.di import NamedDependency, Provide
from litestar.params import FromPath, JSONBody

from server import access, devices, spaces
from server.access import Caller
from server.database import Connection
from server.errors import MalformedMessage, Unauthorized, UnknownDevice
from server.routes.common import Body, bytes_of, caller_of, ms_of, rooms_of, space_of, text_of

__all__ = [
    "AccountRoutes",
    "Challenge",
    "Invite",
    "Invited",
    "Join",
    "Joined",
    "Register",
    "Registered",
    "TokenRequest",
    "TokenText",
]

Name = Annotated[str, msgspec.Meta(max_length=devices.DEVICE_NAME_CHARACTERS_MAX)]


class Challenge(Body, frozen=True):
    """32 random bytes to sign, once, within a minute."""

    nonce: str


class Register(Body, frozen=True):
    """A first device: its Ed25519 public key, and its signature of the challenge."""

    public_key: str
    nonce: str
    signature: str
    name: Name = ""


class Registered(Body, frozen=True):
    """The new account, its space, the device in it, and a first token."""

    account: UUID
    space: UUID
    device: UUID
    generation: UUID
    token: str
    expires_at: int


class TokenRequest(Body, frozen=True):
    """A known device asks for a token."""

    device: UUID
    nonce: str
    signature: str


class TokenText(Body, frozen=True):
    """A token, and the end of its life in milliseconds since 1970."""

    token: str
    expires_at: int


class Invite(Body, frozen=True):
    """An invitation: a random id, the public half of its proof key, and the space key sealed to it."""

    invitation: str
    proof_key: str
    sealed: str
    expires_at: int | None = None


class Invited(Body, frozen=True):
    """When the invitation ends, in milliseconds since 1970."""

    expires_at: int


class Join(Body, frozen=True):
    """A further device: as `Register`, with the invitation and a signature by its proof key."""

    invitation: str
    public_key: str
    nonce: str
    signature: str
    proof: str
    name: Name = ""


class Joined(Registered, frozen=True):
    """As `Registered`, with the space key sealed to the invitation."""

    sealed: str


class AccountRoutes(Controller):
    """Challenges, accounts, tokens and invitations."""

    path = "/v1"
    tags = ("accounts",)

    @post("/challenges")
    async def challenge(self, state: State) -> Challenge:
        """Ask for something to sign."""
        rooms = rooms_of(state)
        async with rooms.meeting.database.connection() as connection:
            nonce = await devices.challenge(
                connection, now=rooms.meeting.now(), lifetime_s=rooms.settings.challenge_lifetime_s
            )
        return Challenge(nonce=text_of(nonce))

    @post("/register")
    async def register(self, data: JSONBody[Register], state: State) -> Registered:
        """Make an account with one space and this device in it."""
        public_key = bytes_of(data.public_key)
        nonce = await _use_challenge(state, data.nonce)
        devices.check_signature(
            public_key, bytes_of(data.signature), signed=devices.REGISTER_PURPOSE + nonce + public_key
        )
        account, space, device, generation = uuid4(), uuid4(), uuid4(), uuid4()

        async def work(connection: Connection) -> devices.Token:
            await spaces.add_account(connection, account, space=space, generation=generation)
            await devices.enrol(
                connection, device, account=account, public_key=public_key, name=_shown(data.name)
            )
            await spaces.add_member(connection, space, device)
            return await _token(connection, state, device)

        token = await rooms_of(state).meeting.database.transaction(work)
        return Registered(
            account=account,
            space=space,
            device=device,
            generation=generation,
            token=token.text,
            expires_at=ms_of(token.expires_at),
        )

    @post("/tokens")
    async def token(self, data: JSONBody[TokenRequest], state: State) -> TokenText:
        """Exchange a signed challenge for a token."""
        signature = bytes_of(data.signature)
        nonce = await _use_challenge(state, data.nonce)
        async with rooms_of(state).meeting.database.connection() as connection:
            public_key = await devices.key_of(connection, data.device)
            try:
                devices.check_signature(
                    public_key, signature, signed=devices.TOKEN_PURPOSE + nonce + data.device.bytes
                )
            except Unauthorized:  # told alike, so that nobody finds out which devices there are
                raise UnknownDevice from None
            token = await _token(connection, state, data.device)
        return TokenText(token=token.text, expires_at=ms_of(token.expires_at))

    @post(
        "/spaces/{space:str}/invitations",
        dependencies={"caller": Provide(caller_of)},
        security=[{"token": []}],
    )
    async def invite(
        self, space: FromPath[str], data: JSONBody[Invite], caller: NamedDependency[Caller], state: State
    ) -> Invited:
        """Leave an invitation to a space."""
        meeting = rooms_of(state).meeting
        wanted = _time(data.expires_at)

        async def work(connection: Connection) -> datetime:
            space_id = space_of(space)
            await access.require_spaces(connection, caller.device, [space_id])
            return await spaces.invite(
                connection,
                space_id,
                invitation=bytes_of(data.invitation),
                proof_key=bytes_of(data.proof_key),
                sealed=bytes_of(data.sealed),
                created_by=caller.device,
                expires_at=wanted,
                now=meeting.now(),
            )

        return Invited(expires_at=ms_of(await meeting.database.transaction(work)))

    @post("/join")
    async def join(self, data: JSONBody[Join], state: State) -> Joined:
        """Enter a space by invitation."""
        meeting = rooms_of(state).meeting
        public_key, signature, proof = (
            bytes_of(data.public_key),
            bytes_of(data.signature),
            bytes_of(data.proof),
        )
        invitation_id = bytes_of(data.invitation)
        nonce = await _use_challenge(state, data.nonce)
        signed = devices.JOIN_PURPOSE + nonce + public_key
        devices.check_signature(public_key, signature, signed=signed)
        fresh = uuid4()

        async def work(connection: Connection) -> tuple[spaces.Invitation, devices.Token]:
            invitation = await spaces.use_invitation(
                connection, invitation_id, device=fresh, public_key=public_key, now=meeting.now()
            )
            devices.check_signature(invitation.proof_key, proof, signed=signed)
            if invitation.device == fresh:
                await devices.enrol(
                    connection,
                    fresh,
                    account=invitation.account,
                    public_key=public_key,
                    name=_shown(data.name),
                )
                await spaces.add_member(connection, invitation.space, fresh)
            return invitation, await _token(connection, state, invitation.device)

        invitation, token = await meeting.database.transaction(work)
        return Joined(
            account=invitation.account,
            space=invitation.space,
            device=invitation.device,
            generation=invitation.generation,
            sealed=text_of(invitation.sealed),
            token=token.text,
            expires_at=ms_of(token.expires_at),
        )


async def _use_challenge(state: State, nonce: str) -> bytes:
    meeting = rooms_of(state).meeting
    raw = bytes_of(nonce)
    async with meeting.database.connection() as connection:
        await devices.use_challenge(connection, raw, now=meeting.now())
    return raw


async def _token(connection: Connection, state: State, device: UUID) -> devices.Token:
    rooms = rooms_of(state)
    return await devices.token_issued(
        connection, device, now=rooms.meeting.now(), lifetime_s=rooms.settings.token_lifetime_s
    )


def _shown(name: str) -> str:
    """A name is for people: what Postgres or a terminal would stumble over goes."""
    return "".join(character for character in name if character.isprintable())


def _time(ms: int | None) -> datetime | None:
    try:
        return None if ms is None else datetime.fromtimestamp(ms / 1_000, UTC)
    except (OverflowError, ValueError, OSError) as error:
        raise MalformedMessage(f"{ms} is no time in milliseconds since 1970: {error}") from None
