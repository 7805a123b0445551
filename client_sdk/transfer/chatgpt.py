"""``conversations.json`` of a ChatGPT export: each conversation's current branch, as the person last saw it.

The file is an array. A conversation's ``mapping`` is a tree of nodes (an edited question and a regenerated answer each
make a branch), and ``current_node`` is the leaf that is shown: following ``parent`` from there gives the branch, read
backwards. There is no official specification; this follows the exports of 2023 to 2026, and takes what older and newer
ones leave out or add.

==================================================  ============================================
in the export                                       here
==================================================  ============================================
title, create_time, update_time, is_archived        summary, created_at, updated_at, is_archived
user, assistant and visible system messages         messages, text parts joined
images, files, recordings                           named in the message's metadata
messages to and from tools, hidden or empty ones,   counted as left out
reasoning, other branches
==================================================  ============================================

All conversations belong to one persona, ChatGPT. Ids are derived from the export's own.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from client_sdk.hub.records import Conversation, Message, Persona
from client_sdk.transfer.source import Entry, JsonFile, derived_id
from crdt.schema import NEVER

__all__ = ["ChatGptFile"]

_ROLES = ("user", "assistant", "system")
# Content that the application itself does not show as part of the conversation.
_UNSHOWN = frozenset(
    {
        "thoughts",
        "reasoning_recap",
        "user_editable_context",
        "model_editable_context",
        "execution_output",
        "system_error",
        "tether_browsing_display",
        "tether_quote",
        "sonic_webpage",
    }
)

_Seconds = float | str | None


class _Author(msgspec.Struct):
    role: str = ""


class _Content(msgspec.Struct):
    content_type: str = "text"
    parts: list[Any] | None = None
    text: Any = None
    language: str | None = None


class _Message(msgspec.Struct):
    author: _Author
    id: str | None = None
    create_time: _Seconds = None
    content: _Content | None = None
    recipient: str | None = None
    metadata: dict[str, Any] | None = None


class _Node(msgspec.Struct):
    message: _Message | None = None
    parent: str | None = None


class _Conversation(msgspec.Struct):
    mapping: dict[str, _Node]
    id: str | None = None
    conversation_id: str | None = None
    title: str | None = None
    create_time: _Seconds = None
    update_time: _Seconds = None
    current_node: str | None = None
    is_archived: bool | None = None


class ChatGptFile:
    """The conversations of an export, and the persona that they were with."""

    def __init__(self, file: JsonFile, conversations: list[msgspec.Raw]) -> None:
        self.left_out: Counter[str] = Counter()
        self._file = file
        self._conversations = conversations

    def entries(self) -> Iterator[Entry]:
        """Yield the persona, then the conversations in the file's order."""
        self.left_out = Counter()
        persona = derived_id("chatgpt", "persona")
        yield Entry("personas", Persona(id=persona, name="ChatGPT"), "its persona", 200)
        for place, raw in enumerate(self._conversations):
            where = f"conversation {place}"
            held = self._file.decode(raw, _Conversation, where)
            if held.title:
                where = f"{where} ({held.title[:60]!r})"
            try:
                conversation = self._conversation(held, persona)
            except _Unreadable as error:
                raise self._file.failed(where, str(error)) from None
            if conversation.messages:
                yield Entry("conversations", conversation, where, len(memoryview(raw)))
            else:
                self.left_out["conversations without a message"] += 1

    def _conversation(self, held: _Conversation, persona: str) -> Conversation:
        source_id = held.conversation_id or held.id
        if not source_id:
            raise _Unreadable("it has no id")
        created, updated = _time(held.create_time), _time(held.update_time)
        messages: list[Message] = []
        branch = _current_branch(held)
        for node_id in branch:
            message = held.mapping[node_id].message
            if message is None:
                continue
            made = self._message(message, source_id, node_id)
            if made is not None:
                # A message without a time was said when the one before it was.
                at = _time(message.create_time) or (messages[-1].timestamp if messages else created)
                messages.append(msgspec.structs.replace(made, timestamp=at))
        elsewhere = sum(node.message is not None for node in held.mapping.values()) - sum(
            held.mapping[node].message is not None for node in branch
        )
        self.left_out.update({"messages on other branches": elsewhere} if elsewhere else {})
        times = [message.timestamp for message in messages if message.timestamp is not None]
        created = created or min(times, default=NEVER)
        updated = updated or max(times, default=created)
        return Conversation(
            id=derived_id("chatgpt", "conversation", source_id),
            created_at=created,
            updated_at=max(created, updated),
            persona_id=persona,
            session_id=source_id,
            messages=messages,
            summary=held.title or "",
            is_archived=bool(held.is_archived),
            archived_at=updated if held.is_archived and updated is not NEVER else None,
        )

    def _message(self, message: _Message, conversation: str, node: str) -> Message | None:
        """Return what a node says, or None and count it if it says nothing to the person."""
        metadata, content = message.metadata or {}, message.content or _Content()
        role = message.author.role
        if role not in _ROLES or (role == "assistant" and message.recipient not in (None, "", "all")):
            return self._leave_out("messages to and from tools")
        if metadata.get("is_visually_hidden_from_conversation") or content.content_type in _UNSHOWN:
            return self._leave_out("hidden messages")
        text, attachments = _read(content)
        for held in metadata.get("attachments") or ():
            if isinstance(held, dict):
                attachments.append(_named(held, "file"))
        if not text and not attachments:
            return self._leave_out("empty messages")
        kept: dict[str, Any] = {}
        if isinstance(metadata.get("model_slug"), str):
            kept["model"] = metadata["model_slug"]
        if content.content_type != "text":
            kept["contentType"] = content.content_type
        if attachments:
            kept["attachments"] = attachments
        return Message(
            id=derived_id("chatgpt", "message", conversation, message.id or node),
            role=role,  # type: ignore[arg-type]  # it is one of _ROLES
            content=text,
            metadata=kept,
        )

    def _leave_out(self, what: str) -> Message | None:
        self.left_out[what] += 1
        return None


class _Unreadable(Exception):
    """What is wrong with a conversation."""


def _current_branch(held: _Conversation) -> list[str]:
    """Return the nodes of the current branch, root first."""
    mapping = held.mapping
    node = held.current_node
    if node not in mapping:
        node = _newest_leaf(mapping)
    branch: list[str] = []
    seen: set[str] = set()
    while node is not None and node in mapping:
        if node in seen:
            raise _Unreadable(f"node {node[:60]!r} is its own ancestor")
        seen.add(node)
        branch.append(node)
        node = mapping[node].parent
    return branch[::-1]


def _newest_leaf(mapping: Mapping[str, _Node]) -> str | None:
    """Return the leaf that was written last: old exports do not say which is current."""
    parents = {node.parent for node in mapping.values()}
    leaves = [name for name in mapping if name not in parents]
    if mapping and not leaves:
        raise _Unreadable("its nodes have no end: each is the parent of another")

    def written(name: str) -> dt.datetime:
        message = mapping[name].message
        return (_time(message.create_time) if message else None) or NEVER

    return max(leaves, key=written, default=None)


def _read(content: _Content) -> tuple[str, list[dict[str, Any]]]:
    """Return the text of some content, and what else is in it."""
    texts: list[str] = []
    attachments: list[dict[str, Any]] = []
    for part in content.parts or ():
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict):
            if isinstance(part.get("text"), str):
                texts.append(part["text"])  # a recording's words
            if part.get("content_type") not in (None, "text"):
                attachments.append(_named(part, str(part["content_type"])))
    if isinstance(content.text, str):
        code = content.content_type == "code"
        language = content.language if content.language not in (None, "unknown") else ""
        texts.append(f"```{language}\n{content.text}\n```" if code and content.text else content.text)
    return "\n\n".join(text for text in texts if text.strip()), attachments


def _named(part: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Return what tells of an image, a file or a recording that is not here."""
    names = {
        "asset_pointer": "asset",
        "id": "asset",
        "name": "name",
        "mime_type": "mimeType",
        "size_bytes": "bytes",
    }
    plain = {ours: part[theirs] for theirs, ours in names.items() if isinstance(part.get(theirs), str | int)}
    return {"kind": kind, **plain}


def _time(seconds: _Seconds) -> dt.datetime | None:
    """Return a time of the export, in seconds since 1970 or (rarely) as text."""
    if seconds is None or seconds == "":
        return None
    try:
        if isinstance(seconds, str):
            time = dt.datetime.fromisoformat(seconds)
            return time.astimezone(dt.UTC) if time.tzinfo else time.replace(tzinfo=dt.UTC)
        return dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=seconds)
    except (ValueError, OverflowError) as error:
        raise _Unreadable(f"{seconds!r:.60} is no time ({error})") from None
