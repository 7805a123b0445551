"""What the server answers: HTTP for accounts and people, one WebSocket for devices.

* `accounts`: challenges, register, tokens, invitations, join: who may come in;
* `documents`: the records of a space as JSON, as far as they are folded, for people and tests;
* `health`: is the process alive, can it serve;
* `search`: vectors that devices share, and search in all that a space holds;
* `live`: the socket, a thin loop around `server.session`.

Bodies are JSON in camelCase (their schema is at ``/schema/openapi.json``); bytes are unpadded base64url,
times milliseconds since 1970, as in `crdt.wire`. An error is ``{"code", "message"}`` with a status that fits;
the codes are those of `server.errors`. A space that is unknown and one that is somebody else's get the same
answer.
"""

from __future__ import annotations

from server.routes.accounts import AccountRoutes
from server.routes.common import BODY_BYTES_MAX, Rooms, error_handlers
from server.routes.documents import list_documents
from server.routes.health import health, ready
from server.routes.live import sync
from server.routes.search import SearchRoutes

__all__ = ["BODY_BYTES_MAX", "ROUTES", "Rooms", "error_handlers"]

ROUTES = (AccountRoutes, SearchRoutes, list_documents, health, ready, sync)
"""All handlers, for `server.app`."""
