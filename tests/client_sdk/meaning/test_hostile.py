"""Whatever is written, and whatever becomes of the model, there is a sensible result or an error that has a type."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import pytest

from client_sdk import Client
from client_sdk.embedding import HashingEmbedder, MiniLm, minilm
from client_sdk.embedding.embedder import Kind, Vectors
from client_sdk.embedding.errors import (
    EmbedderFailed,
    EmbeddingProblem,
    ModelDamaged,
    ModelMissing,
    VectorInvalid,
)
from tests.client_sdk.device import check_laws, open_device
from tests.client_sdk.records import Note

__all__: list[str] = []

Mode: TypeAlias = Literal["text", "meaning", "hybrid"]

MODES: Final[tuple[Mode, ...]] = ("text", "meaning", "hybrid")
MEGABYTE: Final = 1_000_000


async def titles(client: Client, text: str, mode: Mode, limit: int = 10) -> list[str]:
    return [hit.record.title for hit in await client.collection(Note).search(text, mode=mode, limit=limit)]


# ----------------------------------------------------------------------------------------------------- what is written

#: The same said in fifteen languages, each with one of its words as a person may type it.
LANGUAGES: Final = (
    ("The lighthouse keeper paints the stair", "keepers"),
    ("Der Leuchtturmwärter streicht die Treppe", "treppe"),
    ("Le gardien du phare repeint l'escalier", "ESCALIER"),
    ("El farero pintó la escalera", "pinto"),
    ("Người gác hải đăng sơn cầu thang", "cau thang"),
    ("Fener bekçisi merdiveni boyuyor", "MERDİVENİ"),
    ("Смотритель маяка красит лестницу", "Маяка"),
    ("Ο φαροφύλακας βάφει τη σκάλα", "ΣΚΆΛΑ"),
    ("حارس المنارة يطلي الدرج", "المنارة"),
    ("שומר המגדלור צובע את המדרגות", "המדרגות"),
    ("दीपघर का रखवाला सीढ़ी रंगता है", "सीढ़ी"),
    ("ผู้ดูแลประภาคารทาสีบันได", "บันได"),
    ("灯台守が階段を塗る", "階段"),
    ("灯塔看守人粉刷楼梯", "楼梯"),
    ("등대지기가 계단을 칠한다", "계단"),
)


async def test_a_record_in_any_language_is_found_by_a_word_of_its_own_and_by_its_meaning(
    tmp_path: Path,
) -> None:
    model = MiniLm()
    async with open_device(tmp_path / "a.db", embedder=model) as client:
        notes = client.collection(Note)
        made = await notes.insert_many(Note(title=title) for title, _ in LANGUAGES)
        await client.embedded(timeout=60)
        for note, (title, word) in zip(made, LANGUAGES, strict=True):
            assert await titles(client, word, "text") == [title]
            assert (await titles(client, word, "hybrid"))[0] == title
            assert (await titles(client, title, "meaning"))[0] == title
            assert title not in [hit.record.title for hit in await notes.similar(note.id)]
    await model.close()


@pytest.mark.parametrize(
    "unit",
    ["word ", "a", " ", "\n", "\0", '"', '"a b" ', "* OR NOT ( ", "e\u0301", "\u200d", "😀", "ح", "漢字"],
)
async def test_a_megabyte_of_anything_is_written_embedded_and_asked_for(unit: str, tmp_path: Path) -> None:
    text, model = unit * (MEGABYTE // len(unit.encode())), MiniLm()
    async with open_device(tmp_path / "a.db", embedder=model) as client:
        await client.collection(Note).insert(Note(title="here", body=text))
        await client.embedded(timeout=60)
        progress = await client.embedding_progress()
        assert (progress.done, progress.total) == (1, 1)
        assert set(await titles(client, "here", "hybrid")) == {"here"}
        question = (
            text[:20] if unit == "漢字" else text
        )  # a run of a thousand such characters takes seconds to find
        for mode in MODES:
            assert set(await titles(client, question, mode)) <= {"here"}
    await model.close()


async def test_what_says_nothing_is_done_and_near_to_nothing(tmp_path: Path) -> None:
    model = MiniLm()
    async with open_device(tmp_path / "a.db", embedder=model) as client:
        notes = client.collection(Note)
        empty = await notes.insert_many(Note(title=title) for title in ("", " ", "\n\t"))
        await notes.insert(Note(title="tea"))
        await client.embedded(timeout=60)
        progress = await client.embedding_progress()
        assert (progress.done, progress.total) == (4, 4)
        for note in empty:
            assert await notes.similar(note.id) == []
        for mode in MODES:
            for question in ("", "  ", "\0", "?!"):
                assert await titles(client, question, mode) == []
        assert await titles(client, "tea", "meaning") == ["tea"]
    await model.close()


# ---------------------------------------------------------------------------------------------------- an odd embedder


class Odd(HashingEmbedder):
    """Gives for passages, or for all, what somebody's program may give."""

    def __init__(self, give: Callable[[Vectors], Any]) -> None:
        super().__init__()
        self.give = give

    async def embed(self, texts: Sequence[str], *, kind: Kind = "passage") -> Vectors:
        given: Vectors = self.give(await super().embed(texts, kind=kind))
        return given


def fails(_: Vectors) -> Vectors:
    raise KeyError("weights")


ODD: Final[dict[str, tuple[Callable[[Vectors], Any], type[EmbeddingProblem]]]] = {
    "a dimension too few": (lambda vectors: vectors[:, :-1], VectorInvalid),
    "a dimension too many": (lambda vectors: np.pad(vectors, ((0, 0), (0, 1))), VectorInvalid),
    "a row too many": (lambda vectors: np.pad(vectors, ((0, 1), (0, 0))), VectorInvalid),
    "no rows": (lambda vectors: vectors[:0], VectorInvalid),
    "one long row": (lambda vectors: vectors.ravel(), VectorInvalid),
    "rows of different lengths": (lambda vectors: [*vectors.tolist()[1:], [1.0]], VectorInvalid),
    "NaN": (lambda vectors: vectors * np.nan, VectorInvalid),
    "infinity": (lambda vectors: vectors + np.inf, VectorInvalid),
    "numbers past float32": (lambda vectors: np.full(vectors.shape, 1e300), VectorInvalid),
    "words": (lambda vectors: [["a"] * vectors.shape[1]] * len(vectors), VectorInvalid),
    "nothing": (lambda _: None, VectorInvalid),
    "an error of its own": (fails, EmbedderFailed),
}


@pytest.mark.parametrize("name", ODD)
async def test_an_odd_embedder_is_named_and_a_mended_one_goes_on(name: str, tmp_path: Path) -> None:
    give, error = ODD[name]
    async with open_device(tmp_path / "a.db", embedder=Odd(give)) as client:
        notes = client.collection(Note)
        made = await notes.insert_many([Note(title="green tea"), Note(title="black coffee")])
        with pytest.raises(error):
            await client.embedded(timeout=30)
        assert isinstance((await client.embedding_progress()).problem, error)
        assert await client.sql("SELECT count(*) FROM pjais_vectors") == [(0,)]
        assert await titles(client, "tea", "hybrid") == ["green tea"]
        with pytest.raises(error):
            await titles(client, "tea", "meaning")
        with pytest.raises(error):
            await notes.similar(made[0].id)
        await check_laws(client)
    async with open_device(tmp_path / "a.db", seed=2, embedder=HashingEmbedder()) as client:
        await client.embedded(timeout=30)
        assert (await client.embedding_progress()).problem is None
        assert await titles(client, "tea", "meaning") == ["green tea"]


@pytest.mark.parametrize("vector", [b"", b"short", b"\xff" * 388])
async def test_a_vector_that_is_damaged_in_the_file_is_found_out_and_made_again(
    vector: bytes, tmp_path: Path
) -> None:
    async with open_device(tmp_path / "a.db", embedder=HashingEmbedder()) as client:
        await client.collection(Note).insert(Note(title="green tea"))
        await client.embedded(timeout=30)
        await client._writer.database.write(
            lambda connection: connection.execute("UPDATE pjais_vectors SET vector = ?", (vector,))
        )
    async with open_device(tmp_path / "a.db", seed=2, embedder=HashingEmbedder()) as client:
        await client.embedded(timeout=30)
        assert await titles(client, "tea", "hybrid") == ["green tea"]
        await client.embedded(timeout=30)
        assert await titles(client, "tea", "meaning") == ["green tea"]


# ------------------------------------------------------------------------------------------------- the model's files


class Installed:
    """Stands for the installed package of the weights, in a folder."""

    def __init__(self, weights: Path) -> None:
        self._weights = weights

    def locate_file(self, _: str) -> Path:
        return self._weights


@pytest.mark.parametrize("which", ["weights", "tokenizer"])
@pytest.mark.parametrize(
    ("held", "error"), [(None, ModelMissing), (b"", ModelDamaged), (b"\0" * 1_000, ModelDamaged)]
)
async def test_without_a_file_of_the_default_model_words_go_on_and_once_it_is_there_so_does_meaning(
    which: str, held: bytes | None, error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, model = tmp_path / which, MiniLm()
    if held is not None:
        path.write_bytes(held)
    async with open_device(tmp_path / "a.db", embedder=model) as client:
        with monkeypatch.context() as gone:
            if which == "weights":
                gone.setattr(minilm, "distribution", lambda _: Installed(path))
            else:
                gone.setattr(minilm, "_TOKENIZER", path)
            await client.collection(Note).insert(Note(title="Anna's bike was stolen"))
            with pytest.raises(error, match="pip install --force-reinstall"):
                await client.embedded(timeout=30)
            assert await titles(client, "bike", "hybrid") == ["Anna's bike was stolen"]
            with pytest.raises(error):
                await titles(client, "bike", "meaning")
        await client.embedded(timeout=60)
        assert await titles(client, "bicycle theft", "meaning") == ["Anna's bike was stolen"]
    await model.close()
