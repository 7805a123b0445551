"""Files in and out: the formats are read as they are, bad ones are refused whole, and an export comes back the same."""

from __future__ import annotations

import datetime as dt
import io
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client_sdk.errors import FileUnreachable, ImportFailed
from client_sdk.hub import Conversation, Hub, Memory, Message, Persona, sample_path
from client_sdk.transfer import (
    decode_record,
    encode_record,
    export_to,
    export_to_file,
    import_file,
    importing,
)
from client_sdk.transfer.locomo import session_time
from client_sdk.transfer.source import derived_id, shortened
from crdt.fields import SealedValue

__all__: list[str] = []

DATA = Path(__file__).parent / "data"
NOW = dt.datetime(2026, 11, 24, 9, 0, tzinfo=dt.UTC)
LATER = dt.datetime(2026, 12, 1, 9, 0, tzinfo=dt.UTC)


@pytest.fixture
async def hub(path: Path, key: bytes) -> AsyncIterator[Hub]:
    async with Hub.open(path, key=key) as hub:
        yield hub


@pytest.fixture
async def other(tmp_path: Path, key: bytes) -> AsyncIterator[Hub]:
    async with Hub.open(tmp_path / "other.db", key=key) as hub:
        yield hub


Written = Callable[[Any], Path]


@pytest.fixture
def written(tmp_path: Path) -> Written:
    """Return a function that writes a file (JSON of what is no text or bytes) and returns its path."""

    def write(content: Any) -> Path:
        file = tmp_path / "offered.json"
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return file

    return write


async def exported(hub: Hub, now: dt.datetime = NOW) -> bytes:
    out = io.BytesIO()
    await export_to(hub, out, now=now)
    return out.getvalue()


async def records(hub: Hub) -> int:
    return sum([await collection.count() for collection in hub.collections.values()])


# ------------------------------------------------------------------------------------------------ our own format


async def test_an_export_imported_into_an_empty_file_exports_the_same_bytes(
    hub: Hub, other: Hub, written: Written
) -> None:
    for file in (sample_path(), DATA / "chatgpt.json", DATA / "locomo.json"):
        await import_file(hub, file)
    await hub.personas.insert(
        Persona(name="Ünï ⚡ \u2028", settings={"f": 1.0, "i": 1, "n": None, "l": [1, {"a": {}}]})
    )
    content = await exported(hub)
    done = await import_file(other, written(content))
    assert sum(done.added.values()) == await records(hub)
    first, _, rest = content.partition(b"\n")
    first_again, _, rest_again = (await exported(other, LATER)).partition(b"\n")
    assert rest_again == rest
    assert first != first_again, "the time of the export stands in the first line"


async def test_importing_the_sample_twice_adds_nothing(hub: Hub) -> None:
    first = await import_file(hub, sample_path())
    digest = await hub.client.digest()
    again = await import_file(hub, sample_path())
    assert sum(again.added.values()) == again.messages == 0
    assert again.present == first.added
    assert await hub.client.digest() == digest


async def test_the_sample_is_imported_as_it_stands(hub: Hub) -> None:
    await import_file(hub, sample_path())
    told = json.loads(sample_path().read_text(encoding="utf-8"))["collections"]
    content = json.loads(await exported(hub))["collections"]
    for name, offered in told.items():
        held = {record["id"]: record for record in content[name]}
        assert len(held) == len(offered)
        for record in offered:
            for sorted_field in ("tags", "topics"):
                if sorted_field in record:
                    record[sorted_field] = sorted(record[sorted_field])
            assert held[record["id"]] == held[record["id"]] | record


async def test_deleted_records_are_not_exported_and_stay_deleted(hub: Hub, written: Written) -> None:
    await hub.memories.insert(Memory(id="m", type="event", name="gone"))
    content = await exported(hub)
    await hub.memories.delete("m")
    assert b"gone" not in await exported(hub)
    done = await import_file(hub, written(content))
    assert done.present == {"memories": 1}
    assert await hub.memories.get("m") is None


async def test_an_export_is_paged_and_in_the_order_of_ids(hub: Hub) -> None:
    ids = [f"id-{n:04}" for n in range(450)]
    await hub.memories.insert_many([Memory(id=name, type="event", name=name) for name in reversed(ids)])
    told: list[tuple[int, int]] = []
    out = io.BytesIO()
    assert await export_to(hub, out, now=NOW, on_progress=lambda *progress: told.append(progress)) == 450
    assert [record["id"] for record in json.loads(out.getvalue())["collections"]["memories"]] == ids
    assert told[-1] == (450, 450)
    assert len({done for done, _ in told}) > 2


async def test_an_exported_file_is_its_owners_and_appears_whole(hub: Hub, tmp_path: Path) -> None:
    await import_file(hub, sample_path())
    path = tmp_path / "out" / "export.json"
    with pytest.raises(FileUnreachable):
        await export_to_file(hub, path, now=NOW)
    path.parent.mkdir()
    await export_to_file(hub, path, now=NOW)
    assert path.read_bytes() == await exported(hub)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["export.json"]


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
times = st.datetimes(
    dt.datetime(1, 1, 2),  # noqa: DTZ001 - the strategy wants bounds without a zone
    dt.datetime(9999, 12, 30),  # noqa: DTZ001
    timezones=st.just(dt.UTC),
)
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
maps = st.dictionaries(texts, plain, max_size=4)


@given(
    memory=st.builds(
        Memory,
        id=texts,
        created_at=times,
        updated_at=times,
        type=st.just("event"),
        name=texts,
        content=maps,
        tags=st.sets(texts, max_size=4),
        importance=st.integers(0, 100),
        last_accessed=st.none() | times,
        connection_count=st.integers(0, 2**40),
    ),
    message=st.builds(
        Message, id=texts, role=st.just("user"), content=texts, timestamp=st.none() | times, metadata=maps
    ),
)
def test_a_record_is_the_same_after_its_line_is_read(memory: Memory, message: Message) -> None:
    assert decode_record("memories", encode_record("memories", memory)) == memory
    talk = Conversation(id="c", created_at=NOW, updated_at=NOW, messages=[message])
    assert decode_record("conversations", encode_record("conversations", talk)) == talk


def test_a_sealed_field_is_not_in_a_line() -> None:
    line = encode_record("personas", Persona(name="Wren", api_keys={"models": "secret"}))
    assert b"secret" not in line
    assert b"apiKeys" not in line


async def test_secrets_leave_and_come_only_when_asked_for(hub: Hub, tmp_path: Path) -> None:
    await hub.personas.insert(Persona(id="wren", name="Wren", api_keys={"models": "sk-1"}))
    await export_to_file(hub, tmp_path / "plain.json", now=NOW)
    assert b"sk-1" not in (tmp_path / "plain.json").read_bytes()
    await export_to_file(hub, tmp_path / "secrets.json", now=NOW, include_sealed=True)
    for name, secrets in (("plain", None), ("secrets", {"models": "sk-1"})):
        async with Hub.open(tmp_path / f"{name}.db", key=bytes(32)) as other:
            await import_file(other, tmp_path / f"{name}.json")
            persona = await other.personas.get("wren")
            assert persona is not None
            assert persona.api_keys == secrets


def test_a_value_that_cannot_be_opened_is_not_exported() -> None:
    persona = Persona(name="Wren")
    persona.api_keys = SealedValue("why", b"bytes")  # type: ignore[assignment]
    line = encode_record("personas", persona, include_sealed=True)
    assert b"apiKeys" not in line
    assert b'"privateMemory":null' in line


# ------------------------------------------------------------------------------------------------------- ChatGPT


async def test_the_current_branch_of_a_chatgpt_conversation_is_imported(hub: Hub) -> None:
    await import_file(hub, DATA / "chatgpt.json")
    talk = await hub.conversations.where(summary="Knots for a hammock").include("messages").first()
    assert talk is not None
    assert [(message.role, message.content) for message in talk.messages] == [
        ("user", "Which knot holds a hammock?"),
        ("assistant", "A tree-strap hitch.\n\nIt unties after a night of rain."),
        ("user", "Is this one tied right?"),
        ("assistant", "Nearly: pass the end once more."),
        ("assistant", '```python\nprint("over, under, through")\n```'),
        ("system", "The person prefers short answers."),
    ]


async def test_times_models_and_pictures_of_a_chatgpt_message_are_kept(hub: Hub) -> None:
    await import_file(hub, DATA / "chatgpt.json")
    talk = await hub.conversations.where(summary="Knots for a hammock").include("messages").first()
    assert talk is not None
    first, answer, picture, untimed, *_ = talk.messages
    assert first.timestamp == dt.datetime(2025, 7, 1, 9, 0, 1, 250_000, tzinfo=dt.UTC)
    assert answer.metadata == {"model": "gpt-4o"}
    assert picture.metadata["attachments"] == [
        {"kind": "image_asset_pointer", "asset": "file-service://file-Ab12", "bytes": 48213},
        {"kind": "file", "asset": "file-Ab12", "name": "knot.jpg", "mimeType": "image/jpeg"},
    ]
    assert untimed.timestamp == picture.timestamp, "a message without a time has that of the one before"
    assert talk.created_at == dt.datetime(2025, 7, 1, 9, tzinfo=dt.UTC)
    assert talk.updated_at == dt.datetime(2025, 7, 1, 9, 1, 11, 500_000, tzinfo=dt.UTC)
    assert talk.session_id == "68641f10-aaaa-8001-9a52-54b10000c0e1"


async def test_an_older_chatgpt_conversation_without_a_current_node_ends_at_its_newest_leaf(hub: Hub) -> None:
    await import_file(hub, DATA / "chatgpt.json")
    talk = await hub.conversations.where(session_id="older-without-current-node").include("messages").first()
    assert talk is not None
    assert [message.content for message in talk.messages] == ["Ein Gruß aus Köln 🌧️", "Und zurück!"]
    assert talk.is_archived
    assert talk.archived_at == talk.updated_at == talk.messages[-1].timestamp


async def test_what_a_chatgpt_export_has_besides_is_counted(hub: Hub) -> None:
    done = await import_file(hub, DATA / "chatgpt.json")
    assert done.format == "chatgpt"
    assert done.added == {"personas": 1, "conversations": 2}
    assert done.messages == 8
    assert done.left_out == {
        "hidden messages": 4,
        "messages to and from tools": 2,
        "empty messages": 2,
        "messages on other branches": 2,
        "conversations without a message": 1,
    }
    again = await import_file(hub, DATA / "chatgpt.json")
    assert sum(again.added.values()) == 0


async def test_a_chatgpt_conversation_alone_is_imported_like_one_of_an_export(
    hub: Hub, written: Written
) -> None:
    whole = json.loads((DATA / "chatgpt.json").read_text(encoding="utf-8"))
    await import_file(hub, written(whole[0]))
    done = await import_file(hub, DATA / "chatgpt.json")
    assert done.present == {"personas": 1, "conversations": 1}


# -------------------------------------------------------------------------------------------------------- LoCoMo


async def test_a_locomo_file_becomes_personas_conversations_and_memories(hub: Hub) -> None:
    done = await import_file(hub, DATA / "locomo.json")
    assert (done.format, done.messages) == ("locomo", 5)
    assert done.added == {"personas": 2, "conversations": 2, "memories": 2}
    assert done.left_out == {"questions and answers": 1}
    nora, emil = [await hub.personas.where(name=name).first() for name in ("Nora", "Emil")]
    assert nora is not None
    assert emil is not None
    talk = await hub.conversations.where(session_id="session_1").include("messages").first()
    assert talk is not None
    midnight = dt.datetime(2024, 3, 3, 0, 9, tzinfo=dt.UTC)
    assert [(message.role, message.timestamp) for message in talk.messages] == [
        ("user", midnight),
        ("assistant", midnight + dt.timedelta(seconds=20)),
        ("user", midnight + dt.timedelta(seconds=40)),
    ]
    assert talk.messages[2].metadata == {
        "speaker": "Nora",
        "personaId": nora.id,
        "diaId": "D1:3",
        "imageUrls": ["https://example.org/lamp.jpg"],
        "imageCaption": "a photo of a lamp room",
        "imageQuery": "lamp room",
    }
    memory = (
        await hub.memories.where(type="conversation").where("summary", "startswith", "Nora finished").first()
    )
    assert memory is not None
    assert memory.content["observations"] == {"Nora": [["Nora finished the lamp room.", "D1:1"]]}
    assert memory.metadata["conversationId"] == talk.id


async def test_a_message_is_found_by_what_its_picture_shows(hub: Hub) -> None:
    await import_file(hub, DATA / "locomo.json")
    hits = await hub.conversations.search("photo of a room", mode="text")
    (hit,) = [hit for hit in hits if hit.message is not None]
    assert hit.message is not None
    assert (hit.message.content, hit.snippet) == ("Here.", "**a** **photo** **of** **a** lamp **room**")


async def test_a_summary_past_the_limit_is_cut_at_a_sentence_and_kept_whole_beside(hub: Hub) -> None:
    await import_file(hub, DATA / "locomo.json")
    told = json.loads((DATA / "locomo.json").read_text(encoding="utf-8"))["session_2_summary"]
    memory = await hub.memories.where("summary", "startswith", "Nora and Emil").first()
    assert memory is not None
    assert len(told) > 1000 >= len(memory.summary)
    assert memory.summary.endswith("the lighthouse.")
    assert memory.content["summary"] == told


async def test_the_published_array_of_locomo_gives_the_same_records_as_the_single_files(
    hub: Hub, other: Hub, written: Written
) -> None:
    single = json.loads((DATA / "locomo.json").read_text(encoding="utf-8"))
    await import_file(hub, DATA / "locomo.json")
    sample: dict[str, Any] = {
        "sample_id": "conv-1",
        "conversation": {},
        "session_summary": {},
        "observation": {},
    }
    for name, held in single.items():
        if name == "qa":
            sample["qa"] = held
        elif name.endswith("_summary"):
            sample["session_summary"][name] = held
        elif name.endswith("_observation"):
            sample["observation"][name] = held
        elif name.startswith("events_"):
            sample.setdefault("event_summary", {})[name] = held
        else:
            sample["conversation"][name] = held
    await import_file(other, written([sample]))
    assert await exported(other) == await exported(hub)


LOCOMO = Path(__file__).resolve().parents[3] / "shared" / "data" / "locomo"
"""Where they lie beside this checkout, if they do."""


@pytest.mark.parametrize("file", sorted(LOCOMO.glob("*.json")), ids=lambda file: file.name)
async def test_a_real_locomo_file_is_imported_whole_and_once(hub: Hub, file: Path) -> None:
    told = json.loads(file.read_text(encoding="utf-8"))
    turns = [turn for name, held in told.items() if isinstance(held, list) and name != "qa" for turn in held]
    done = await import_file(hub, file)
    assert done.messages == len(turns)
    assert done.added["personas"] == 2
    assert done.added["memories"] == sum(name.endswith("_summary") for name in told)
    assert sum((await import_file(hub, file)).added.values()) == 0


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("1:56 pm on 8 May, 2023", dt.datetime(2023, 5, 8, 13, 56, tzinfo=dt.UTC)),
        ("12:09 am on 13 September, 2023", dt.datetime(2023, 9, 13, 0, 9, tzinfo=dt.UTC)),
        ("12:30 pm on 29 February, 2024", dt.datetime(2024, 2, 29, 12, 30, tzinfo=dt.UTC)),
    ],
)
def test_a_session_time_is_read(text: str, time: dt.datetime) -> None:
    assert session_time(text) == time


@pytest.mark.parametrize(
    "text", ["", "13:00 pm on 8 May, 2023", "1:00 pm on 8 Mai, 2023", "1:00 pm on 31 June, 2023"]
)
def test_what_is_no_session_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no time|day|hour|month|range"):
        session_time(text)


# ------------------------------------------------------------------------------------------------------ bad files


def hub_file(**collections: Any) -> dict[str, Any]:
    return {"format": "pjais-export", "version": 1, "collections": collections}


def chat(**changed: Any) -> dict[str, Any]:
    node = {"message": {"author": {"role": "user"}, "content": {"parts": ["hi"]}}, "parent": None}
    return {"id": "c", "title": "T", "mapping": {"n": node}, "current_node": "n", **changed}


GOOD = {"id": "m", "type": "event", "name": "good"}
SESSION = {
    "speaker_a": "A",
    "speaker_b": "B",
    "session_1_date_time": "1:56 pm on 8 May, 2023",
    "session_1": [{"speaker": "A", "dia_id": "D1:1", "text": "hi"}],
}


@pytest.mark.parametrize(
    ("content", "where", "problem"),
    [
        ("", "line 1", "truncated"),
        ('{"format":"pjais-export",\n "version":1,\n oops}', "line 3, column 2", "malformed"),
        (b"\xff\xfe\x00", "line 1", "malformed"),
        (b"PK\x03\x04 and so on", "its beginning", "zip"),
        ("[]", "its beginning", "neither"),
        ('{"a": 1}', "its beginning", "neither"),
        ("[1, 2]", "its beginning", "neither"),
        ("[" * 100_000, "its beginning", "nested"),
        ({"format": "pjais-export", "version": 2, "collections": {}}, "version", "update"),
        (hub_file(notes=[]), "collections", "notes"),
        (hub_file(memories=[GOOD, {**GOOD, "id": "x", "colour": "red"}]), "memories[1]", "colour"),
        (hub_file(memories=[GOOD, {"id": "x", "type": "event"}]), "memories[1]", "name"),
        (hub_file(memories=[GOOD, {**GOOD, "id": ""}]), "memories[1]", "id is empty"),
        (hub_file(memories=[GOOD, {**GOOD, "id": "x", "importance": 101}]), "memories[1]", "<= 100"),
        (
            hub_file(memories=[GOOD, {**GOOD, "id": "x", "lastAccessed": "2026-01-01"}]),
            "memories[1]",
            "RFC3339",
        ),
        (hub_file(memories=[GOOD, {**GOOD, "id": "x", "content": {"n": 2**70}}]), "memories[1]", "64 bits"),
        (hub_file(memories=[GOOD, {**GOOD, "id": "x" * 201}]), "memories[1]", "200 bytes"),
        (hub_file(personas=[{"id": "p", "name": "P", "apiKeys": {"a": 5}}]), "personas[0]", "apiKeys"),
        (
            hub_file(conversations=[{"id": "c", "messages": [{"id": "m", "role": "tool", "content": ""}]}]),
            "conversations[0]",
            "messages[0].role",
        ),
        ([chat(), chat(id="d", mapping=3)], "conversation 1", "mapping"),
        ([chat(), chat(id=None)], "conversation 1 ('T')", "no id"),
        ([chat(), chat(id="d", create_time="yesterday")], "conversation 1 ('T')", "no time"),
        (
            [chat(mapping={"n": {"message": None, "parent": "o"}, "o": {"message": None, "parent": "n"}})],
            "conversation 0 ('T')",
            "own ancestor",
        ),
        (SESSION | {"session_1_date_time": "yesterday"}, "session_1_date_time", "no time"),
        (SESSION | {"session_1": [{"speaker": "C", "dia_id": "D1:1"}]}, "session_1[0]", "'C'"),
        (SESSION | {"session_1": [{"speaker": "A"}]}, "session_1", "dia_id"),
        ({"speaker_a": "A", "speaker_b": "B"}, "session_1", "no session"),
        ({"speaker_a": "A"}, "speaker_b", "missing"),
    ],
)
async def test_a_bad_file_is_refused_by_file_place_and_problem_and_nothing_is_imported(
    hub: Hub, written: Written, content: Any, where: str, problem: str
) -> None:
    file = written(content)
    with pytest.raises(ImportFailed) as failed:
        await import_file(hub, file)
    assert failed.value.file == file
    assert failed.value.where.startswith(where)
    assert problem in failed.value.problem
    assert str(file) in str(failed.value)
    assert await records(hub) == 0


async def test_a_file_that_cannot_be_read_is_named(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(ImportFailed, match=r"absent\.json.*No such file"):
        await import_file(hub, tmp_path / "absent.json")


async def test_a_format_that_is_named_is_the_one_that_is_read(hub: Hub) -> None:
    with pytest.raises(ImportFailed, match="format"):
        await import_file(hub, DATA / "locomo.json", format="pjais")


async def test_a_byte_order_mark_is_passed_over(hub: Hub, written: Written) -> None:
    done = await import_file(hub, written(b"\xef\xbb\xbf" + json.dumps(hub_file(memories=[GOOD])).encode()))
    assert done.added == {"memories": 1}


# ----------------------------------------------------------------------------------------------------- long files


async def test_a_long_file_goes_in_by_batches_and_what_a_cut_left_is_added_the_next_time(
    hub: Hub, written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "ATOMIC_RECORDS_MAX", 100)
    file = written(hub_file(memories=[{**GOOD, "id": f"m{n}"} for n in range(1300)]))

    class Cut(Exception):
        pass

    def cut(done: int, total: int) -> None:
        assert total == 1300
        if done > 500:
            raise Cut

    with pytest.raises(Cut):
        await import_file(hub, file, on_progress=cut)
    there = await hub.memories.count()
    assert there == 1000
    done = await import_file(hub, file)
    assert not done.is_atomic
    assert (done.added, done.present) == ({"memories": 300}, {"memories": 1000})


async def test_a_short_file_goes_in_whole_or_not_at_all(hub: Hub, written: Written) -> None:
    file = written(hub_file(memories=[{**GOOD, "id": f"m{n}"} for n in range(1300)]))

    class Cut(Exception):
        pass

    def cut(done: int, total: int) -> None:
        if done > 500:
            raise Cut

    with pytest.raises(Cut):
        await import_file(hub, file, on_progress=cut)
    assert await records(hub) == 0
    assert (await import_file(hub, file)).is_atomic


async def test_a_conversation_past_one_update_is_imported_whole_and_exported_the_same(
    hub: Hub, other: Hub, written: Written
) -> None:
    messages = [
        {"id": f"m{n}", "role": "user", "content": "ß" * 4000, "timestamp": "2026-01-01T00:00:00Z"}
        for n in range(1000)
    ]
    talk = {
        "id": "c",
        "createdAt": "2026-01-01T00:00:00Z",
        "updatedAt": "2026-01-02T00:00:00Z",
        "messages": messages,
    }
    await import_file(hub, written(hub_file(conversations=[talk])))
    content = await exported(hub)
    assert json.loads(content)["collections"]["conversations"][0]["messages"][-1]["id"] == "m999"
    await import_file(other, written(content))
    assert await exported(other) == content


# ---------------------------------------------------------------------------------------------------------- parts


def test_derived_ids_are_the_same_each_time_and_differ_by_every_part() -> None:
    assert derived_id("chatgpt", "a", "b") == derived_id("chatgpt", "a", "b")
    assert len({derived_id("a", "b"), derived_id("ab"), derived_id("b", "a"), derived_id("a", "b", "")}) == 4


@given(text=texts, length=st.integers(1, 50))
def test_a_shortened_text_is_within_its_length_and_begins_as_the_whole_does(text: str, length: int) -> None:
    short = shortened(text, length)
    assert len(short) <= length
    assert text.startswith(short.removesuffix("…").rstrip() if short != text else text)


def test_a_text_is_shortened_at_a_sentence_or_else_at_a_word() -> None:
    assert shortened("One. Two! Three?", 11) == "One. Two!"
    assert shortened("One two three", 9) == "One two…"
    assert shortened("3.14 is pi. And so on", 12) == "3.14 is pi."
