"""The edits that meet: what the laptop and the phone each do offline, and what is promised to come of it.

Each is made with the public methods alone, on the sample's records.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from client_sdk.demo.steps import Check
from client_sdk.errors import ClientError
from client_sdk.hub import Hub, Message

__all__ = ["Doomed", "Meeting", "SampleChanged", "meetings"]

Edit = Callable[[Hub], Awaitable[Any]]
Read = Callable[[Hub], Awaitable[Any]]


class SampleChanged(ClientError):
    """The sample has not got what the demo edits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Meeting:
    """Two edits of one thing. ``promised`` is what `read` gives on both devices once they have met; ``kept`` what
    `beside` gives: the value that lost and is still there.
    """

    what: str
    before: str
    laptop: str
    phone: str
    on_laptop: Edit
    on_phone: Edit
    read: Read
    promised: Any
    beside: Read | None = None
    kept: Any = None

    async def checks(self, laptop: Hub, phone: Hub) -> list[Check]:
        """Compare what both devices hold with what was promised."""
        made = [Check(self.what, self.promised, await self.read(laptop), await self.read(phone))]
        if self.beside is not None:
            beside = f"{self.what}: the other value is kept"
            made.append(Check(beside, self.kept, await self.beside(laptop), await self.beside(phone)))
        return made


@dataclass(frozen=True, slots=True)
class Doomed:
    """The memory that one device deletes while the other edits it."""

    id: str
    name: str
    importance: int


async def meetings(hub: Hub) -> tuple[list[Meeting], Doomed]:
    """Return the meetings, on records that the hub holds, and the memory that is deleted on one side."""
    wren = _found(await hub.personas.where(name="Wren").first(), "the persona Wren")
    moss = _found(await hub.memories.where(name="Withens Moss").first(), "the memory Withens Moss")
    flow = _found(
        await hub.workflows.where(name="After a field day").first(), "the workflow After a field day"
    )
    talk = _found(
        await hub.conversations.order_by("created_at").include("messages").first(), "a conversation"
    )
    doomed = _found(
        await hub.memories.where("id", "!=", moss.id).order_by("importance").first(), "a second memory"
    )

    async def messages(held: Hub) -> Any:
        said = await held.conversations.messages(talk.id, offset=len(talk.messages), limit=10)
        return sorted(message.content for message in said)

    async def say(held: Hub, text: str) -> None:
        await held.conversations.add_message(talk.id, Message(role="user", content=text))

    async def wren_on(held: Hub) -> Any:
        return _found(await held.personas.get(wren.id), "Wren")

    async def tags(held: Hub) -> Any:
        return sorted(_found(await held.memories.get(moss.id), "Withens Moss").tags)

    async def retag(held: Hub, added: set[str], removed: set[str]) -> None:
        async with held.client.transaction():
            await held.memories.add(moss.id, tags=added)
            await held.memories.remove(moss.id, tags=removed)

    async def flow_name(held: Hub) -> Any:
        return _found(await held.workflows.get(flow.id), "the workflow").name

    async def style(held: Hub) -> Any:
        settings = (await wren_on(held)).settings
        return {name: settings.get(name) for name in ("theme", "language")}

    async def uses(held: Hub) -> Any:
        return (await wren_on(held)).usage_count

    async def description(held: Hub) -> Any:
        return (await wren_on(held)).description

    first_tag = min(moss.tags)
    prose = wren.description
    made = [
        Meeting(
            what="the same field: a workflow's name",
            before=flow.name,
            laptop="→ After a wet field day",
            phone="→ After every field day (later)",
            on_laptop=lambda held: held.workflows.update(flow.id, name="After a wet field day"),
            on_phone=lambda held: held.workflows.update(flow.id, name="After every field day"),
            read=flow_name,
            promised="After every field day",
            beside=lambda held: held.workflows.conflicts(flow.id, "name"),
            kept=["After a wet field day"],
        ),
        Meeting(
            what="two leaves of a map: Wren's settings",
            before=", ".join(f"{name} {wren.settings.get(name)}" for name in ("theme", "language")),
            laptop="theme → light",
            phone="language → cy",
            on_laptop=lambda held: held.personas.update(wren.id, **{"settings.theme": "light"}),
            on_phone=lambda held: held.personas.update(wren.id, **{"settings.language": "cy"}),
            read=style,
            promised={"theme": "light", "language": "cy"},
        ),
        Meeting(
            what="the same counter: how often Wren was used",
            before=str(wren.usage_count),
            laptop="+ 2",
            phone="+ 3",
            on_laptop=lambda held: held.personas.increment(wren.id, usage_count=2),
            on_phone=lambda held: held.personas.increment(wren.id, usage_count=3),
            read=uses,
            promised=wren.usage_count + 5,
        ),
        Meeting(
            what="the same set: the tags of Withens Moss",
            before=", ".join(sorted(moss.tags)),
            laptop=f"adds snow, removes {first_tag}",
            phone=f"adds winter, and {first_tag} again",
            on_laptop=lambda held: retag(held, {"snow"}, {first_tag}),
            on_phone=lambda held: retag(held, {"winter", first_tag}, set()),
            read=tags,
            promised=sorted(moss.tags | {"snow", "winter"}),
        ),
        Meeting(
            what="the same list: messages of a conversation",
            before=f"{len(talk.messages)} messages",
            laptop="adds “Said on the laptop.”",
            phone="adds “Said on the phone.”",
            on_laptop=lambda held: say(held, "Said on the laptop."),
            on_phone=lambda held: say(held, "Said on the phone."),
            read=messages,
            promised=["Said on the laptop.", "Said on the phone."],
        ),
        Meeting(
            what="the same text: Wren's description",
            before=f"{prose[:24]}…{prose[-20:]}",
            laptop="writes “At last: ” before it",
            phone="writes “ Likes rain.” after it",
            on_laptop=lambda held: held.personas.edit_text(wren.id, "description", insert=(0, "At last: ")),
            on_phone=lambda held: held.personas.edit_text(
                wren.id, "description", insert=(len(prose), " Likes rain.")
            ),
            read=description,
            promised=f"At last: {prose} Likes rain.",
        ),
    ]
    return made, Doomed(doomed.id, doomed.name, doomed.importance)


def _found(held: Any, what: str) -> Any:
    if held is None:
        raise SampleChanged(f"the demo's sample has lost {what}: bring client_sdk/hub/sample.json back")
    return held
