"""The server ranks by the device's recipe: the statement says of the same rows what `client_sdk.ranking` says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from client_sdk.embedding.vectors import dot, normalised, quantised, unpacked
from client_sdk.ranking import Neighbours, best, fused, lengths, shared
from server import vectors
from server.database import Database
from server.search import Hit
from server.vectors import Vector
from tests.server.people import Device, enrolled
from tests.server.test_search import ask, fold, put
from tests.server.test_vectors import vector

__all__: list[str] = []

DIMENSIONS = 8
WORDS = ("bike", "sea", "tea", "tower", "lamp", "river")
PEOPLE = ("Anna", "Ben", "Cy")

Floats = npt.NDArray[np.float32]


class Talks:
    """Conversations of chance: texts said by somebody, most with a vector, one place of some empty; and a note each."""

    def __init__(self, seed: int) -> None:
        chance = np.random.default_rng(seed)
        self.places: list[tuple[str, int]] = []
        self.texts: list[str] = []
        self.groups: list[int] = []
        for talk in range(int(chance.integers(1, 5))):
            gap, group = int(chance.integers(0, 12)), 3 * talk
            for part in range(-1, int(chance.integers(0, 12))):
                if part == gap:  # nothing was said there: who stands around it does not stand together
                    group += 1
                    continue
                self.places.append((f"talk{talk}", part))
                self.texts.append(f"{chance.choice(PEOPLE)}: {' '.join(chance.choice(WORDS, 3))}")
                self.groups.append(-1 - talk if part < 0 else group)
        self.vectors = normalised(
            chance.standard_normal((len(self.places), DIMENSIONS)).astype(np.float32) + np.float32(0.3)
        )
        self.asked = normalised(chance.standard_normal((1, DIMENSIONS)).astype(np.float32) + np.float32(0.3))[
            0
        ]

    async def store(self, database: Database, device: Device) -> None:
        for record in {record for record, _ in self.places}:
            await fold(database, device, {record: ""}, deleted=True)  # its texts follow, place by place
        async with database.connection() as connection:
            await connection.executemany(
                "INSERT INTO texts (space_id, collection, record_id, part, body, speaker) "
                "VALUES ($1, 'notes', $2, $3, $4, $5)",
                [
                    (device.space, record, part, text, text.partition(": ")[0])
                    for (record, part), text in zip(self.places, self.texts, strict=True)
                ],
            )
            await connection.execute("UPDATE documents SET deleted = false")
        sent = [
            Vector("notes", record, part, "small", b"h", data)
            for (record, part), data in zip(self.places, quantised(self.vectors), strict=True)
        ]
        await database.transaction(lambda connection: vectors.put(connection, device.space, sent))

    def ranked(
        self, names: Sequence[str], words: dict[tuple[str, int], float] | None
    ) -> list[tuple[Any, float]]:
        """What the device would say: (place, score), the best first."""
        scales, components = unpacked(quantised(self.vectors), dimensions=DIMENSIONS)
        neighbours = Neighbours.in_order(self.groups)
        meaning = shared(dot(scales, components, self.asked), neighbours) / lengths(
            scales, components, neighbours
        )
        text = None
        if words is not None:
            text = shared(np.array([words.get(place, 0) for place in self.places], np.float32), neighbours)
        is_named = np.array([text.partition(": ")[0] in names for text in self.texts])
        scores = fused(text=text, meaning=meaning, is_named=is_named)
        return [(self.places[row], float(scores[row])) for row in best(scores, 100)]


def places(hits: Sequence[Hit]) -> dict[tuple[str, int], float]:
    return {(hit.record_id, hit.part): hit.score for hit in hits}


@pytest.mark.parametrize("is_small", [True, False])
@pytest.mark.parametrize("seed", range(8))
async def test_what_the_server_finds_is_what_the_device_would(
    database: Database, seed: int, is_small: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not is_small:
        monkeypatch.setattr("server.search._SMALL_MAX", 0)
    talks, device = Talks(seed), await enrolled(database)
    await talks.store(database, device)
    text, names = "bikes by the sea or tower", PEOPLE[: seed % 3]
    asked = {"vector": talks.asked.tolist(), "model": "small", "names": names, "limit": 100}
    by_words = places((await ask(database, device, text=text, limit=100)).hits)
    for mode, words in (("meaning", None), ("hybrid", by_words)):
        answer = await ask(database, device, mode, text=text, **asked)  # type: ignore[arg-type]
        ours, theirs = places(answer.hits), talks.ranked(names, words)
        assert ours == pytest.approx(dict(theirs), abs=2e-3)
        assert list(ours.values()) == sorted(ours.values(), reverse=True)


async def test_an_answer_is_found_beside_the_turn_that_has_the_words(database: Database) -> None:
    device = await enrolled(database)
    await fold(
        database,
        device,
        {
            "talk": ["Anna: hello", "Ben: was the bike stolen?", "Anna: yes, last June", "Ben: oh"],
            "note": "tea",
        },
    )
    sent = [vector("talk", *steps, part=part) for part, steps in enumerate([(-5, 9), (9, 1), (1, 9), (0, 9)])]
    await put(database, device, *sent, vector("note", 1, 8))
    asked: dict[str, Any] = {"text": "stolen bike", "vector": [1.0, 0.0], "model": "small"}
    hits = (await ask(database, device, "hybrid", **asked)).hits
    assert [(hit.part, hit.snippet) for hit in hits[:2]] == [
        (1, "Ben: was the bike stolen?"),
        (2, "Anna: yes, last June"),
    ]
    plain = places(hits)
    named = places((await ask(database, device, "hybrid", names=["Anna"], **asked)).hits)
    gained = {place: named[place] - plain[place] for place in plain}
    assert gained == pytest.approx({place: 0.3 if place[1] in {0, 2} else 0 for place in plain})


async def test_a_candidates_neighbours_are_ranked_though_no_list_has_them(database: Database) -> None:
    """The turn that answers may be like nothing that was asked: it is not among the candidates of 300."""
    device = await enrolled(database)
    await fold(database, device, {"talk": ["Ben: bike?", "Anna: June", "Ben: oh"]})
    await fold(database, device, {f"n{n}": "sea" for n in range(300)})
    await put(
        database,
        device,
        vector("talk", 100, 0, 0, part=0),
        vector("talk", -50, 100, 0, part=1),
        vector("talk", 0, 0, 100, part=2),
        *(vector(f"n{n}", 10, 0, 100) for n in range(300)),
    )
    answer = await ask(database, device, "meaning", vector=[1.0, 0.0, 0.0], model="small", limit=100)
    assert ("talk", 0) in places(answer.hits)
    answer = await ask(
        database,
        device,
        "hybrid",
        text="bike",
        vector=[1.0, 0.0, 0.0],
        model="small",
        names=["Anna"],
        limit=2,
    )
    assert [(hit.record_id, hit.part) for hit in answer.hits] == [("talk", 0), ("talk", 1)]


async def test_a_vector_whose_part_has_no_text_is_never_shown(database: Database) -> None:
    device = await enrolled(database)
    await fold(database, device, {"talk": ["Anna: hello"]})
    await put(
        database,
        device,
        *(vector("talk", 1, 2, part=part) for part in (-1, 0, 1, 2**31 - 1)),
        vector("other", 1, 2),
    )
    for mode in ("meaning", "hybrid"):
        answer = await ask(database, device, mode, text="hello", vector=[1.0, 2.0], model="small")
        assert [(hit.record_id, hit.part) for hit in answer.hits] == [("talk", 0)]


@pytest.mark.parametrize("is_small", [True, False])
async def test_no_vector_that_is_stored_ends_a_search(
    database: Database, is_small: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is taken in is checked; what a release before took in may have any scale that float4 holds."""
    if not is_small:
        monkeypatch.setattr("server.search._SMALL_MAX", 0)
    device = await enrolled(database)
    await fold(database, device, {"talk": ["Anna: bike", "Ben: tea", "Anna: sea"]})
    await put(database, device, *(vector("talk", 100, 100, part=part) for part in range(3)))
    for scale in (1e-45, 1e-30, 3e38):
        async with database.connection() as connection:
            await connection.execute("UPDATE vectors SET scale = $1 WHERE part > 0", scale)
        for asked in ([1.0, 2.0], [1.0, 1e-42], [1.0, 5e-324]):
            for mode in ("meaning", "hybrid"):
                answer = await ask(database, device, mode, text="bike", vector=asked, model="small")
                assert ("talk", 0) in places(answer.hits)
