"""What can go wrong at the server, and what the caller does about it.

::

    ServerError
    ├── CannotServe                 the operator reads it; a device hears only "try again"
    │   ├── SettingsError           a setting is missing or wrong            correct what it names, start again
    │   ├── DatabaseUnavailable     Postgres does not answer                 try again; start Postgres, or fix the URL
    │   ├── UnsafeDatabase          Postgres may lose what it acknowledged   switch on what it names, start again
    │   ├── UnsupportedDatabase     Postgres or pgvector is too old, absent  upgrade or install it, start again
    │   ├── MigrationChanged        an applied migration reads differently   run the release that applied it, or newer
    │   ├── EmbeddedFailed          the embedded Postgres does not start     do what it says; its log's end is in it
    │   └── EmbeddedInUse           another server has this data folder      stop that one, or choose another folder
    └── RequestRefused              the device hears it, as code and message
        ├── Unauthorized            no token, or not a valid one             sign a new challenge
        ├── NotInSpace              no such space, or not this device's      join the space first
        ├── UnknownDevice           no such device, or a revoked one         register, or join again
        ├── InvitationExpired       too old, or never made                   ask for a new invitation
        ├── InvitationUsed          another device joined with it            ask for a new invitation
        ├── ClientIdTaken           another incarnation writes under it      mint a new client id, re-home, push again
        ├── OutOfOrder              a push leaves a gap                      begin again from Hello
        ├── TooLarge                past a limit, which it names             send less at a time
        ├── MalformedMessage        not a message that belongs here          correct the program that sent it
        ├── ModelMismatch           vectors of another model or size         use a model that it names
        ├── CursorAhead             it has read more than the log holds      the server was restored: wait for help
        ├── DocumentsBehind         documents are being folded anew          try again
        ├── SpaceBusy               others hold the space's log too long     try again
        ├── CannotAdmit             storing it failed for no known reason    try again later; the operator reads why
        └── ProtocolMismatch        another version of the protocol          update the older side

Each class has a stable ``code`` for programs and an HTTP ``status``; the message is for people. A bug is none
of these: it crashes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

__all__ = [
    "CannotAdmit",
    "CannotServe",
    "ClientIdTaken",
    "CursorAhead",
    "DatabaseUnavailable",
    "DocumentsBehind",
    "EmbeddedFailed",
    "EmbeddedInUse",
    "InvitationExpired",
    "InvitationUsed",
    "MalformedMessage",
    "MigrationChanged",
    "ModelMismatch",
    "NotInSpace",
    "OutOfOrder",
    "ProtocolMismatch",
    "RequestRefused",
    "ServerError",
    "SettingsError",
    "SpaceBusy",
    "TooLarge",
    "Unauthorized",
    "UnknownDevice",
    "UnsafeDatabase",
    "UnsupportedDatabase",
]


class ServerError(Exception):
    """The base of every expected failure at the server."""

    code: ClassVar[str] = "server_error"
    status: ClassVar[int] = 500
    #: Milliseconds after which the same request may succeed; None when repeating it cannot help.
    retry_after_ms: ClassVar[int | None] = None

    @property
    def message_for_device(self) -> str:
        """What may leave the server: it names no host, folder or setting."""
        return "the server cannot do this now; try again later"


class CannotServe(ServerError):
    """The server cannot start or go on; its operator has to act."""

    code = "cannot_serve"
    status = 503
    retry_after_ms = 5_000


class SettingsError(CannotServe):
    """Settings are missing or wrong. ``problems`` has one line for each."""

    code = "settings_error"

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class DatabaseUnavailable(CannotServe):
    """Postgres does not answer at ``address`` (host:port)."""

    code = "database_unavailable"
    retry_after_ms = 1_000

    def __init__(self, *, address: str, problem: str, action: str) -> None:
        super().__init__(f"no Postgres at {address}: {problem}; {action}")
        self.address = address


class UnsafeDatabase(CannotServe):
    """Postgres runs with ``setting`` off: what it acknowledged would not survive a crash."""

    code = "unsafe_database"

    def __init__(self, setting: str) -> None:
        super().__init__(
            f"Postgres runs with {setting} = off, so a crash loses acknowledged updates; set {setting} = on in its "
            "configuration, reload it and start again"
        )
        self.setting = setting


class UnsupportedDatabase(CannotServe):
    """Postgres itself, or its extension pgvector, is absent or too old; the message says which and what to do."""

    code = "unsupported_database"


class MigrationChanged(CannotServe):
    """Migration ``name`` was applied to this database with other contents than this release has."""

    code = "migration_changed"

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(
            f"migration {name} {problem}; start the release that applied it or a newer one, and never edit a "
            "migration that was released: add the next number"
        )
        self.name = name


class EmbeddedFailed(CannotServe):
    """The embedded Postgres cannot run. ``log`` is the end of its log, or ""."""

    code = "embedded_failed"

    def __init__(self, problem: str, *, log: str = "") -> None:
        super().__init__(f"{problem}\nits log ends:\n{log}" if log else problem)
        self.problem = problem
        self.log = log


class EmbeddedInUse(CannotServe):
    """Another server holds the data folder."""

    code = "embedded_in_use"

    def __init__(self, folder: str, holder: str) -> None:
        super().__init__(
            f"{folder} is in use by {holder}; stop that server, or choose another folder with --data"
        )
        self.folder = folder


class RequestRefused(ServerError):
    """A device asked for what it may not have, or in a way that cannot be served."""

    code = "request_refused"
    status = 400

    @property
    def message_for_device(self) -> str:
        """The whole message: it was written for the device."""
        return str(self)


class Unauthorized(RequestRefused):
    """There is no token, or it is unknown, expired or revoked; or a signature does not verify."""

    code = "unauthorized"
    status = 401

    def __init__(self, problem: str = "the token is missing, unknown or expired") -> None:
        super().__init__(f"{problem}; sign a new challenge")


class NotInSpace(RequestRefused):
    """The space is unknown, or not this device's: the two are told alike, so that nothing can be probed."""

    code = "not_in_space"
    status = 404

    def __init__(self) -> None:
        super().__init__("this device is not in such a space; join it with an invitation first")


class UnknownDevice(RequestRefused):
    """There is no such device, or it was revoked."""

    code = "unknown_device"
    status = 401

    def __init__(self) -> None:
        super().__init__(
            "this device is unknown here, or was revoked; register it, or join again by invitation"
        )


class InvitationExpired(RequestRefused):
    """The invitation is past its time, or was never made: the two are told alike."""

    code = "invitation_expired"
    status = 410

    def __init__(self) -> None:
        super().__init__("this invitation has expired; ask for a new one on a device of the space")


class InvitationUsed(RequestRefused):
    """An invitation lets one device in, once."""

    code = "invitation_used"
    status = 409

    def __init__(self) -> None:
        super().__init__("this invitation was already used; ask for a new one on a device of the space")


class ClientIdTaken(RequestRefused):
    """Another incarnation already writes under this client id in this space."""

    code = "client_id_taken"
    status = 409

    def __init__(self, client: int) -> None:
        super().__init__(
            f"client id {client} belongs to another incarnation in this space; mint a new one and push again under it"
        )
        self.client = client


class OutOfOrder(RequestRefused):
    """A push does not continue where the last one ended: number ``expected`` comes next."""

    code = "out_of_order"
    status = 409
    retry_after_ms = 0

    def __init__(self, *, expected: int, first: int) -> None:
        super().__init__(
            f"the push begins at number {first}, but {expected} comes next; begin again from Hello"
        )
        self.expected = expected


class TooLarge(RequestRefused):
    """Something is past ``limit``, a name in `crdt.limits`."""

    code = "too_large"
    status = 413

    def __init__(self, limit: str, *, size: int, allowed: int) -> None:
        super().__init__(f"{size:,} is past {limit} ({allowed:,}); send less at a time")
        self.limit = limit
        self.size = size
        self.allowed = allowed


class MalformedMessage(RequestRefused):
    """A message that is not of the protocol, or does not belong at this place of it."""

    code = "malformed"


class ModelMismatch(RequestRefused):
    """A vector is of a model, or of a size, that does not compare with what the space has.

    ``has`` lists that: (model, dimensions, vectors).
    """

    code = "model_mismatch"
    status = 409

    def __init__(self, model: str, dimensions: int, has: Sequence[tuple[str, int, int]]) -> None:
        held = "; ".join(
            f"{name!r} with {size:,} dimensions ({count:,} vectors)" for name, size, count in has
        )
        super().__init__(
            f"a vector of {model!r} with {dimensions:,} dimensions does not compare with what the space has: "
            f"{held or 'none'}"
        )
        self.has = has


class CursorAhead(RequestRefused):
    """The device has read further than the log reaches, in the same generation: the server lost data."""

    code = "cursor_ahead"
    status = 409

    def __init__(self, *, cursor: int, head: int) -> None:
        super().__init__(
            f"the device has read to position {cursor}, but the log ends at {head}: the server was restored from an "
            "older copy without a new generation; its operator has to give it one"
        )


class DocumentsBehind(RequestRefused):
    """The device reads documents, and they stand before its cursor: they are being folded anew."""

    code = "documents_behind"
    status = 503
    retry_after_ms = 2_000

    def __init__(self) -> None:
        super().__init__("the documents of this space are being folded anew; come again")


class SpaceBusy(RequestRefused):
    """Another process holds the space's log for too long."""

    code = "space_busy"
    status = 503
    retry_after_ms = 1_000

    def __init__(self) -> None:
        super().__init__("others are writing into this space for too long; push again")


class CannotAdmit(RequestRefused):
    """A push could not be stored, for a reason that no check foresaw; the server's log has it."""

    code = "cannot_admit"
    status = 500
    retry_after_ms = 60_000

    def __init__(self) -> None:
        super().__init__(
            "the server could not store this push; its operator finds the reason in the server's log"
        )


class ProtocolMismatch(RequestRefused):
    """The device speaks another version of the protocol."""

    code = "protocol_mismatch"
    status = 426

    def __init__(self, *, ours: int, theirs: int) -> None:
        older = "server" if ours < theirs else "device"
        super().__init__(f"the device speaks protocol {theirs}, the server {ours}; update the {older}")
        self.ours = ours
        self.theirs = theirs
