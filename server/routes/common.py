"""What all routes share: the rooms behind them, who calls, the form of bytes and of errors."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec
import structlog
from litestar import Request, Response
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.status_codes import HTTP_400_BAD_REQUEST, HTTP_500_INTERNAL_SERVER_ERROR
from litestar.types import ExceptionHandlersMap

from server import access
from server.errors import MalformedMessage, NotInSpace, ServerError, Unauthorized
from server.session import Meeting
from server.settings import Settings

__all__ = [
    "BODY_BYTES_MAX",
    "Body",
    "Problem",
    "Rooms",
    "bytes_of",
    "caller_of",
    "error_handlers",
    "ms_of",
    "rooms_of",
    "space_of",
    "text_of",
]

#: The largest body is a sealed space key in base64; what is larger is not ours.
BODY_BYTES_MAX: Final = 64 * 1024

_BEARER: Final = "Bearer "

_log = structlog.get_logger(__name__)


class Body(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    """The base of every body, asked and answered."""


class Problem(Body, frozen=True):
    """The body of every error."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Rooms:
    """What the routes lead to. `server.app` makes it."""

    meeting: Meeting
    settings: Settings


def rooms_of(state: State) -> Rooms:
    """Return the rooms of the application."""
    rooms: Rooms = state.rooms
    return rooms


async def caller_of(request: Request[Any, Any, Any], state: State) -> access.Caller:
    """Return the device whose token is in the ``Authorization`` header.

    Raises:
        Unauthorized: there is none, or not a valid one.
    """
    header = request.headers.get("authorization", "")
    if not header.startswith(_BEARER):
        raise Unauthorized
    meeting = rooms_of(state).meeting
    async with meeting.database.connection() as connection:
        return await access.caller_of(connection, header.removeprefix(_BEARER), now=meeting.now())


def space_of(text: str) -> UUID:
    """Return the space of a path. What is no UUID is no space of anybody."""
    try:
        return UUID(text)
    except ValueError:
        raise NotInSpace from None


def bytes_of(text: str) -> bytes:
    """Return the bytes of unpadded base64url (RFC 4648, section 5)."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise MalformedMessage("bytes are sent as unpadded base64url") from None


def text_of(data: bytes) -> str:
    """Return bytes as unpadded base64url."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def ms_of(time: datetime) -> int:
    """Return a time as milliseconds since 1970."""
    return int(time.timestamp() * 1_000)


def _server_error(_request: Request[Any, Any, Any], error: ServerError) -> Response[Problem]:
    headers = {}
    if error.retry_after_ms is not None:
        headers["Retry-After"] = str(-(-error.retry_after_ms // 1_000))
    return Response(
        Problem(code=error.code, message=error.message_for_device), status_code=error.status, headers=headers
    )


def _http_error(_request: Request[Any, Any, Any], error: HTTPException) -> Response[Problem]:
    """What Litestar refuses: no such path, a wrong method, a body that does not fit."""
    code = {404: "no_such_path", 405: "no_such_method", 413: "too_large"}.get(error.status_code, "malformed")
    message = error.detail
    if isinstance(error.extra, list) and error.extra:
        message = "; ".join(
            str(problem.get("message", problem)) for problem in error.extra if isinstance(problem, dict)
        )
    return Response(Problem(code=code, message=message), status_code=error.status_code, headers=error.headers)


def _too_deep(_request: Request[Any, Any, Any], _error: RecursionError) -> Response[Problem]:
    """A body of brackets: nothing else here recurses."""
    return Response(
        Problem(code="malformed", message="the body is nested too deep"), status_code=HTTP_400_BAD_REQUEST
    )


def _own_error(request: Request[Any, Any, Any], error: Exception) -> Response[Problem]:
    _log.error("a request ended by an error of ours", path=request.scope["path"], exc_info=error)
    return Response(
        Problem(code="internal", message="an error of the server ended this request; try again later"),
        status_code=HTTP_500_INTERNAL_SERVER_ERROR,
    )


error_handlers: Final[ExceptionHandlersMap] = {
    ServerError: _server_error,
    HTTPException: _http_error,
    RecursionError: _too_deep,
    Exception: _own_error,
}
