"""Images and sounds as sources: declared, embedded inline and by the worker, searched, described, counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, LargeBinary, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from embeddb import (
    Audio,
    DeclarationError,
    Files,
    Hashing,
    Image,
    Module,
    SourceError,
    Vector,
    Waveform,
    embedding_column,
    embedding_mode,
    install,
    nearest,
    register,
)
from embeddb.metrics import MetricName
from embeddb.spec import EmbeddingSpec
from embeddb.worker import drain
from tests.media.library import COLOURS, PITCHES, Library, library, png, wav
from tests.media.senses import Colours, Pitches


def create(engine: Engine, models: Library) -> sessionmaker[Session]:
    models.base.metadata.create_all(engine)
    register(engine, models.base, install=True)
    factory = sessionmaker(engine)
    install(factory)
    return factory


def rows(models: Library) -> list[Any]:
    return [
        *(models.photo(id=n, path=f"{colour}.png") for n, colour in enumerate(COLOURS)),
        *(models.scan(id=n, data=png(colour)) for n, colour in enumerate(COLOURS)),
        *(models.take(id=n, path=f"{pitch}.wav") for n, pitch in enumerate(PITCHES)),
    ]


def pending(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.scalar(text("SELECT sum(pending + failed) FROM embeddb.coverage")) or 0)


@pytest.mark.parametrize("metric", ["cosine", "l2", "inner_product"])
@pytest.mark.parametrize("inline", [True, False], ids=["inline", "queued"])
def test_embedded_on_insert_and_searched(engine18: Engine, root: Path, metric: MetricName, inline: bool) -> None:
    models = library(root, metric=metric, mode="inline" if inline else None)
    factory = create(engine18, models)
    with factory.begin() as session:
        session.add_all(rows(models))
    assert pending(engine18) == (0 if inline else 12)
    assert drain(engine18, models.base).embedded == (0 if inline else 12)
    assert pending(engine18) == 0

    import PIL.Image

    with factory() as session:
        red = (Image(root / "red.png"), Image("red.png", files=Files(root)), Image(png("red")))
        for query in (*red, PIL.Image.new("RGB", (9, 9), "red"), Colours().encode_queries([red[2]])[0]):
            assert session.scalars(nearest(models.photo.embedding, query).limit(1)).one().path == "red.png"
            assert session.scalars(nearest(models.scan.embedding, query).limit(1)).one().id == 0
        tone = Waveform(np.sin(2 * np.pi * 2_700 * np.arange(4_000) / 16_000).astype(np.float32), 16_000)
        for sound in (Audio(root / "2700.wav"), Audio(wav(2_700, rate=22_050)), tone, Audio(tone)):
            found = session.scalars(nearest(models.take.embedding, sound).limit(1)).one()
            assert found.path == "2700.wav"
        assert session.scalars(nearest(models.take.embedding, found).limit(1)).one() is found


async def test_searched_and_embedded_by_async_sessions(async_engine18: AsyncEngine, root: Path) -> None:
    models = library(root, mode="inline")
    async with async_engine18.begin() as connection:
        await connection.run_sync(models.base.metadata.create_all)
    factory = async_sessionmaker(async_engine18)
    install(factory)
    async with factory.begin() as session:
        session.add_all(rows(models))
    async with factory() as session:
        query = nearest(models.photo.embedding, Image(root / "blue.png")).limit(1)
        assert (await session.scalars(query)).one().path == "blue.png"
        heard = nearest(models.take.embedding, Audio(root / "300.wav")).limit(1)
        assert (await session.scalars(heard)).one().path == "300.wav"


def test_files_are_queued_by_default_and_statements_embed_inline(engine18: Engine, root: Path) -> None:
    models = library(root)
    factory = create(engine18, models)
    with factory.begin() as session, embedding_mode("inline"):
        session.execute(insert(models.photo), [{"id": 1, "path": "red.png"}, {"id": 2, "path": None}])
        session.execute(insert(models.scan), [{"id": 1, "data": png("red")}])
    assert pending(engine18) == 0
    with factory.begin() as session, embedding_mode("inline"):
        session.execute(update(models.photo).where(models.photo.id == 1).values(path="blue.png"))
        [blue] = session.scalars(select(models.photo.embedding).where(models.photo.id == 1))
        np.testing.assert_array_equal(blue, Colours().encode_documents([Image(root / "blue.png")])[0])
    drain(engine18, models.base)
    with factory.begin() as session:
        session.execute(update(models.photo).where(models.photo.id == 1).values(path="lime.png"))
    assert pending(engine18) == 1
    with factory.begin() as session:
        session.get_one(models.photo, 1).path = None
    drain(engine18, models.base)
    with factory() as session:
        assert session.scalars(select(models.photo.embedding)).all() == [None, None]


def test_an_unchanged_file_row_is_read_once(engine18: Engine, root: Path) -> None:
    models = library(root, mode="inline")
    factory = create(engine18, models)
    with factory() as session:
        photo = models.photo(id=1, path="red.png")
        session.add(photo)
        session.flush()
        (root / "red.png").unlink()
        photo.path = "red.png"
        session.commit()


def test_a_file_that_cannot_be_read_inline_names_its_row_or_goes_to_the_queue(engine18: Engine, root: Path) -> None:
    models = library(root, mode="inline")
    factory = create(engine18, models)
    with factory() as session:
        session.add_all([models.photo(id=1, path="red.png"), models.photo(id=7, path="../secret.png")])
        with pytest.raises(SourceError, match=r"photos\.embedding of a new Photo\(id=7\).*\.\./secret\.png"):
            session.flush()
    models = library(root, mode="inline", on_error="queue")
    register(engine18, models.base)
    with factory.begin() as session:
        session.add_all([models.photo(id=1, path="red.png"), models.photo(id=7, path="../secret.png")])
    totals = drain(engine18, models.base)
    assert (totals.embedded, totals.failed) == (1, 1)
    with engine18.connect() as connection:
        [(step, error)] = connection.execute(text("SELECT step, error FROM embeddb.failure"))
    assert step == "read"
    assert "../secret.png" in error


def test_the_worker_reads_within_what_is_declared_and_its_environment_allows(
    engine18: Engine, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = library(root)
    factory = create(engine18, models)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "red.png").write_bytes(png("blue"))
    with factory.begin() as session:
        session.add(models.photo(id=1, path="red.png"))
    monkeypatch.setenv("EMBEDDB_FILES", f'{{"{root}": "{elsewhere}"}}')
    drain(engine18, models.base)
    with factory() as session:
        [blue] = session.scalars(select(models.photo.embedding))
    np.testing.assert_array_equal(blue, Colours().encode_documents([Image(png("blue"))])[0])


def test_the_policy_is_in_the_spec(root: Path) -> None:
    files = Files(root, "https://images.example.com", max_bytes=5, max_pixels=6, max_seconds=7, timeout=8)
    spec = library(root, files=files).photo.__table__.c.embedding.info["embeddb"].spec
    again = EmbeddingSpec.from_json(spec.to_json())
    assert again == spec
    assert again.files is not None
    assert Files.from_dict(again.files) == files
    with pytest.raises(SourceError, match="unknown keys in what files may be read: devices"):
        Files.from_dict({**again.files, "devices": True})
    bare = EmbeddingSpec(table="t", column="c", sources=("s",), encoder={"type": "hashing"}, dim=3)
    assert "files" not in bare.to_dict()


def declare(*sources: str, **settings: Any) -> None:
    class Base(DeclarativeBase):
        pass

    class Photo(Base):
        __tablename__ = "photos"
        id: Mapped[int] = mapped_column(primary_key=True)
        path: Mapped[str]
        other: Mapped[str]
        data: Mapped[bytes] = mapped_column(LargeBinary)
        embedding: Mapped[Vector | None] = embedding_column(*sources, **settings)

    Base.registry.configure()


FILES = Files("photos")


@pytest.mark.parametrize(
    ("sources", "settings", "message"),
    [
        (["path"], {"encoder": Colours()}, r"Photo\.embedding: 'path' names files: say which may be read, files=Files"),
        (["path", "other"], {"encoder": Colours(), "files": FILES}, "takes one source column"),
        (["path"], {"encoder": Pitches(), "files": FILES, "template": "{path}"}, "without a template"),
        (["id"], {"encoder": Colours(), "files": FILES}, "takes a path or URI"),
        (["data"], {"encoder": Hashing(dim=4)}, "a text encoder takes text columns"),
        (["path"], {"encoder": Hashing(dim=4), "files": FILES}, "a text encoder reads no files"),
    ],
)
def test_what_cannot_work_is_refused(sources: list[str], settings: Any, message: str) -> None:
    with pytest.raises(DeclarationError, match=message):
        declare(*sources, **settings)


def spectrum(sound: Waveform) -> Any:
    """How strong each frequency is, (1, 2048)."""
    return np.abs(np.fft.rfft(sound.samples, 4096)[:-1])[None].astype(np.float32)


def test_any_module_may_listen(engine18: Engine, root: Path) -> None:
    torch = pytest.importorskip("torch", reason="needs the extra embeddb[audio]")
    encoder = Module(
        torch.nn.AdaptiveAvgPool1d(8), modality="audio", preprocess=spectrum, pooling="flatten", dimensions=8
    )

    class Base(DeclarativeBase):
        pass

    class Take(Base):
        __tablename__ = "takes"
        id: Mapped[int] = mapped_column(primary_key=True)
        data: Mapped[bytes] = mapped_column(LargeBinary)
        embedding: Mapped[Vector | None] = embedding_column("data", encoder=encoder)

    Base.metadata.create_all(engine18)
    register(engine18, Base, install=True)
    with Session(engine18) as session, session.begin():
        session.add_all(Take(id=pitch, data=wav(pitch)) for pitch in (500, 3_000, 7_000))
    assert drain(engine18, Base).embedded == 3
    with Session(engine18) as session:
        assert session.scalars(nearest(Take.embedding, Audio(wav(2_900))).limit(1)).one().id == 3_000
