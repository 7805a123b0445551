"""The conversations of LoCoMo (Maharana et al., ACL 2024): months of sessions between two people.

=======================================================  ==========================================
in the file                                              here
=======================================================  ==========================================
``speaker_a``, ``speaker_b``                             a persona each
``session_N``, ``session_N_date_time``                   a conversation; speaker a is its user
``speaker``, ``dia_id``, ``img_url``, ``blip_caption``   the message's metadata
``session_N_summary``                                    the conversation's summary, and a memory of
                                                         the type conversation
``session_N_observation``, ``events_session_N``          in that memory's content
=======================================================  ==========================================

A session has a date and a minute, its turns have none: each is put some seconds after the one before, from the
session's minute on (UTC). A file is one such object, or the published array of them, where ``conversation``,
``session_summary`` and others are objects of their own. Questions and answers are left out.
"""

from __future__ import annotations

import datetime as dt
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from client_sdk.hub.records import SUMMARY_LENGTH_MAX, Conversation, Memory, Message, Persona
from client_sdk.transfer.source import Entry, JsonFile, derived_id, shortened

__all__ = ["LocomoFile", "session_time"]

_SESSION = re.compile(r"session_(\d+)")
_TIME = re.compile(
    r"\s*(\d{1,2}):(\d{2})\s*([ap])\.?m\.?\s+on\s+(\d{1,2})\s+([A-Za-z]+),?\s+(\d{4})\s*", re.IGNORECASE
)
_MONTHS = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)
_TURN_S = 20  # seconds from one turn to the next: about what saying it takes
_NOON = 12


class _Turn(msgspec.Struct):
    speaker: str
    dia_id: str
    text: str = ""
    img_url: list[str] | str | None = None
    blip_caption: str | None = None
    query: str | None = None


_Sample = dict[str, msgspec.Raw]


class LocomoFile:
    """One or several samples."""

    def __init__(self, file: JsonFile, samples: list[_Sample]) -> None:
        self.left_out: Counter[str] = Counter()
        self._file = file
        self._samples = samples

    def entries(self) -> Iterator[Entry]:
        """Yield the two personas of each sample, then its sessions, each followed by its memory."""
        self.left_out = Counter()
        for place, sample in enumerate(self._samples):
            where = f"sample {place}, " if len(self._samples) > 1 else ""
            yield from self._sample(self._flat(sample, where), where)

    def _flat(self, sample: _Sample, where: str) -> _Sample:
        """Return a sample of the published array as one object, named as the single files name it."""
        if "conversation" not in sample:
            return sample
        flat = dict(self._file.decode(sample["conversation"], _Sample, f"{where}conversation"))
        for name in ("session_summary", "observation", "event_summary"):
            if name in sample:
                flat |= self._file.decode(sample[name], _Sample, where + name)
        return flat | {name: held for name, held in sample.items() if name == "qa"}

    def _sample(self, sample: _Sample, where: str) -> Iterator[Entry]:
        speaker_a, speaker_b = (self._get(sample, name, str, where) for name in ("speaker_a", "speaker_b"))
        numbers = sorted(int(found[1]) for name in sample if (found := _SESSION.fullmatch(name)))
        if not numbers:
            raise self._file.failed(f"{where}session_1", "there is no session")
        begun = self._get(sample, f"session_{numbers[0]}_date_time", str, where)
        key = ("locomo", speaker_a, speaker_b, begun)
        personas = {speaker: derived_id(*key, "persona", speaker) for speaker in (speaker_a, speaker_b)}
        since = self._time(sample, numbers[0], where)
        for speaker, persona in personas.items():
            other = speaker_b if speaker == speaker_a else speaker_a
            yield Entry(
                "personas",
                Persona(
                    id=persona,
                    created_at=since,
                    updated_at=since,
                    name=speaker,
                    description=f"Speaks with {other} in {len(numbers)} sessions of LoCoMo.",
                ),
                f"{where}{speaker}",
                200,
            )
        for number in numbers:
            yield from self._session(sample, number, key, personas, where)
        if "qa" in sample:
            self.left_out["questions and answers"] += len(self._get(sample, "qa", list[msgspec.Raw], where))

    def _session(
        self, sample: _Sample, number: int, key: tuple[str, ...], personas: Mapping[str, str], where: str
    ) -> Iterator[Entry]:
        name = f"session_{number}"
        begun = self._time(sample, number, where)
        speaker_a, speaker_b = personas if len(personas) > 1 else [*personas] * 2
        conversation_id = derived_id(*key, "session", str(number))
        messages = []
        for place, turn in enumerate(self._get(sample, name, list[_Turn], where)):
            if turn.speaker not in personas:
                raise self._file.failed(
                    f"{where}{name}[{place}]",
                    f"the speaker {turn.speaker!r:.60} is neither {speaker_a!r:.60} nor {speaker_b!r:.60}",
                )
            messages.append(
                Message(
                    id=derived_id(*key, "turn", turn.dia_id),
                    role="user" if turn.speaker == speaker_a else "assistant",
                    content=turn.text,
                    timestamp=begun + dt.timedelta(seconds=_TURN_S * place),
                    metadata=_turn_metadata(turn, personas[turn.speaker]),
                )
            )
        ended = messages[-1].timestamp if messages else None
        summary = self._get(sample, f"{name}_summary", str, where, "").strip()
        yield Entry(
            "conversations",
            Conversation(
                id=conversation_id,
                created_at=begun,
                updated_at=ended or begun,
                persona_id=personas[speaker_b],
                session_id=name,
                messages=messages,
                summary=summary,
            ),
            f"{where}{name}",
            len(memoryview(sample[name])),
        )
        if not summary:
            return
        content: dict[str, Any] = {"session": number, "speakers": [speaker_a, speaker_b]}
        short = shortened(summary, SUMMARY_LENGTH_MAX)
        if short != summary:
            content["summary"] = summary
        for ours, theirs in (("observations", f"{name}_observation"), ("events", f"events_{name}")):
            held = self._get(sample, theirs, dict[str, Any], where, {})
            if held:
                content[ours] = held
        yield Entry(
            "memories",
            Memory(
                id=derived_id(*key, "summary", str(number)),
                created_at=ended or begun,
                updated_at=ended or begun,
                persona_id=personas[speaker_b],
                type="conversation",
                name=f"{speaker_a} and {speaker_b}, session {number}"[-500:],
                content=content,
                summary=short,
                last_accessed=ended or begun,
                metadata={"source": "locomo", "conversationId": conversation_id},
            ),
            f"{where}{name}_summary",
            len(summary),
        )

    def _get(self, sample: _Sample, name: str, kind: Any, where: str, default: Any = None) -> Any:
        raw = sample.get(name)
        if raw is None:
            if default is not None:
                return default
            raise self._file.failed(f"{where}{name}", "it is missing")
        return self._file.decode(raw, kind, f"{where}{name}")

    def _time(self, sample: _Sample, number: int, where: str) -> dt.datetime:
        name = f"session_{number}_date_time"
        text = self._get(sample, name, str, where)
        try:
            return session_time(text)
        except ValueError as error:
            raise self._file.failed(f"{where}{name}", str(error)) from None


def session_time(text: str) -> dt.datetime:
    """Return the time of a session: ``1:56 pm on 8 May, 2023``, taken as UTC. Raises ``ValueError``."""
    found = _TIME.fullmatch(text)
    if found is None or found[5].lower() not in _MONTHS or not 1 <= int(found[1]) <= _NOON:
        raise ValueError(f"{text!r:.60} is no time such as '1:56 pm on 8 May, 2023'")
    hour = int(found[1]) % _NOON + (_NOON if found[3].lower() == "p" else 0)
    month = _MONTHS.index(found[5].lower()) + 1
    return dt.datetime(int(found[6]), month, int(found[4]), hour, int(found[2]), tzinfo=dt.UTC)


def _turn_metadata(turn: _Turn, persona: str) -> dict[str, Any]:
    metadata: dict[str, Any] = {"speaker": turn.speaker, "personaId": persona, "diaId": turn.dia_id}
    if turn.img_url:
        metadata["imageUrls"] = [turn.img_url] if isinstance(turn.img_url, str) else turn.img_url
    if turn.blip_caption:
        metadata["imageCaption"] = turn.blip_caption
    if turn.query:
        metadata["imageQuery"] = turn.query
    return metadata
