from __future__ import annotations

import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from embeddb import Files, Image, Vector, embedding_column, nearest, register
from embeddb.encoders import embed_documents, embed_query, from_config
from embeddb.encoders.clip import CLIP
from embeddb.encoders.vision import Vision
from embeddb.errors import EncoderError
from embeddb.metrics import MetricName
from embeddb.worker import drain

torch = pytest.importorskip("torch", reason="needs the extra embeddb[image]")
transformers = pytest.importorskip("transformers", reason="needs the extra embeddb[image]")
pillow = pytest.importorskip("PIL.Image", reason="needs the extra embeddb[image]")

from tests.encoders import shapes  # noqa: E402 - it needs them too
from tests.encoders.tiny_models import save_vision  # noqa: E402


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A trained and an untrained CLIP."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    folders = {name: tmp_path_factory.mktemp(name) for name in ("trained", "untrained")}
    shapes.save_clip(folders["trained"], steps=250)
    shapes.save_clip(folders["untrained"], steps=0)
    torch.set_num_threads(threads)
    return folders


def _drawn(seed: int) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [shapes.draw(one, rng) for one in shapes.unseen()]


def _recall(encoder: CLIP) -> tuple[float, float]:
    """Recall@1 among 20 combinations that no training saw, text to image and back, over five drawings of each."""
    captions = [shapes.caption(one) for one in shapes.unseen()]
    found = []
    for seed in range(100, 105):
        images = embed_documents(encoder, _drawn(seed))
        texts = np.stack([embed_query(encoder, caption) for caption in captions])
        scores = texts @ images.T
        found.append([(scores.argmax(axis) == np.arange(20)).mean() for axis in (1, 0)])
    to_image, to_text = np.mean(found, axis=0)
    return float(to_image), float(to_text)


def test_text_finds_images_it_never_saw_and_images_find_text(clips: dict[str, Path]) -> None:
    to_image, to_text = _recall(CLIP(str(clips["trained"])))
    assert to_image >= 0.6, to_image
    assert to_text >= 0.6, to_text
    assert max(_recall(CLIP(str(clips["untrained"])))) <= 0.2


@pytest.mark.parametrize("metric", ["cosine", "inner_product"])
def test_text_finds_files_through_the_database(
    clips: dict[str, Path], engine18: Engine, tmp_path: Path, metric: MetricName
) -> None:
    """Declared on a model, queued by their paths, embedded by a worker, searched in the same space by words."""

    class Base(DeclarativeBase):
        pass

    class Photo(Base):
        __tablename__ = "photos"
        id: Mapped[int] = mapped_column(primary_key=True)
        path: Mapped[str]
        shows: Mapped[str]
        embedding: Mapped[Vector | None] = embedding_column(
            "path", encoder=CLIP(str(clips["trained"])), files=Files(tmp_path), metric=metric
        )

    Base.metadata.create_all(engine18)
    register(engine18, Base, install=True)
    captions = [shapes.caption(one) for one in shapes.unseen()]
    with Session(engine18) as session, session.begin():
        for seed in range(100, 103):
            for number, (image, caption) in enumerate(zip(_drawn(seed), captions, strict=True)):
                name = f"{seed}-{number}.png"
                image.save(tmp_path / name)
                session.add(Photo(path=name, shows=caption))
    assert drain(engine18).embedded == 60
    with Session(engine18) as session:
        first = [session.scalars(nearest(Photo.embedding, caption).limit(1)).one().shows for caption in captions]
        alike = nearest(Photo.embedding, Image("100-0.png", files=Files(tmp_path))).limit(1)
        assert session.scalars(alike).one().path == "100-0.png"
    assert np.mean([shown == caption for shown, caption in zip(first, captions, strict=True)]) >= 0.6


def test_rows_of_text_are_found_by_images_in_the_same_space(clips: dict[str, Path]) -> None:
    of_texts, of_images = CLIP(str(clips["trained"]), documents="text"), CLIP(str(clips["trained"]))
    captions = [shapes.caption(one) for one in shapes.unseen()]
    image = _drawn(1)[0]
    np.testing.assert_allclose(embed_query(of_texts, image), of_images.encode_documents([image])[0], atol=1e-6)
    np.testing.assert_allclose(of_texts.encode_documents(captions), of_images.encode_queries(captions), atol=1e-6)
    mixed = of_texts.encode_queries([captions[0], image, captions[1]])
    np.testing.assert_allclose(mixed[1], embed_query(of_texts, image), atol=1e-5)
    np.testing.assert_allclose(mixed[[0, 2]], of_texts.encode_documents(captions[:2]), atol=1e-5)
    assert (of_texts.modality, of_images.modality) == ("text", "image")


def test_alone_is_as_in_a_batch_and_in_any_thread(clips: dict[str, Path]) -> None:
    encoder = CLIP(str(clips["trained"]), batch_size=8)
    captions = ["a", "a small red circle", "large blue", "circle " * 30]
    images = _drawn(2)
    together = encoder.encode_queries([*captions, *images])
    alone = np.concatenate([encoder.encode_queries([value]) for value in [*captions, *images]])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: encoder.encode_queries(captions), range(8)):
            np.testing.assert_allclose(found, together[:4], atol=1e-5)


def test_a_text_that_looks_like_a_path_is_text(clips: dict[str, Path], tmp_path: Path) -> None:
    """Nothing is opened: a directory or a URL in a text column is words like any other."""
    picture = tmp_path / "a.png"
    _drawn(1)[0].save(picture)
    encoder = CLIP(str(clips["trained"]), documents="text")
    path, url, nothing = encoder.encode_documents([str(picture), "http://127.0.0.1:9/a.png", "/nowhere/a.png"])
    assert np.isfinite([path, url, nothing]).all()
    assert np.abs(path - encoder.encode_queries([_drawn(1)[0]])[0]).max() > 0.01
    with pytest.raises(EncoderError, match="input 1 is str, not image"):
        CLIP(str(clips["trained"])).encode_documents([_drawn(1)[0], str(picture)])


def test_an_image_to_search_by_may_be_a_source(clips: dict[str, Path], tmp_path: Path) -> None:
    encoder = CLIP(str(clips["trained"]))
    image = _drawn(1)[0]
    image.save(tmp_path / "a.png")
    expected = encoder.encode_documents([image])[0]
    encoded = io.BytesIO()
    image.save(encoded, "PNG")
    for source in (Image(tmp_path / "a.png"), Image(encoded.getvalue()), Image(image)):
        np.testing.assert_allclose(embed_query(encoder, source), expected, atol=1e-6)
    (tmp_path / "broken.png").write_bytes(encoded.getvalue()[:200])
    with pytest.raises(EncoderError, match=r"input 1: .*broken\.png") as caught:
        encoder.encode_documents([image, Image(tmp_path / "broken.png")])
    assert caught.value.position == 1


def test_clip_as_a_value(clips: dict[str, Path]) -> None:
    encoder = CLIP(str(clips["trained"]), prompt="a ")
    assert from_config(json.loads(json.dumps(encoder.config))) == encoder
    assert encoder.dim == encoder.encode_queries(["small circle"]).shape[1] == 32
    assert encoder.encode_documents([]).shape == (0, 32)
    plain = CLIP(str(clips["trained"]))
    np.testing.assert_allclose(
        encoder.encode_queries(["small circle"]), plain.encode_queries(["a small circle"]), atol=1e-6
    )
    prints = {encoder.fingerprint, plain.fingerprint, CLIP(str(clips["untrained"])).fingerprint}
    prints.add(CLIP(str(clips["trained"]), documents="text").fingerprint)
    assert len(prints) == 4
    with pytest.raises(EncoderError, match="documents is one of"):
        CLIP("model", documents="sound")  # type: ignore[arg-type]  # as a user may


# --- models of images alone ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["resnet", "vit"])
def vision(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    save_vision(folder, request.param)
    return folder


def test_any_layer_of_a_vision_model(vision: Path) -> None:
    images = _drawn(4)[:5]
    model = transformers.AutoModel.from_pretrained(vision).eval()
    processor = Vision(str(vision))
    processor.encode_documents(images)
    from embeddb.encoders import pretrained

    with torch.no_grad():
        pixels = pretrained.image_processor(vision)(images=images, return_tensors="pt")["pixel_values"]
        output = model(pixels, output_hidden_states=True)
    for layer in range(-len(output.hidden_states), len(output.hidden_states)):
        states = output.hidden_states[layer]
        if layer in (-1, len(output.hidden_states) - 1):
            states = output.last_hidden_state
        expected = states.mean((2, 3)) if states.dim() == 4 else states.mean(1)
        encoder = Vision(str(vision), layer=layer, normalize=False, batch_size=2)
        found = embed_documents(encoder, images)
        assert encoder.dim == found.shape[1] == expected.shape[1]
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)
    with pytest.raises(EncoderError, match="has layers"):
        Vision(str(vision), layer=9).encode_documents(images)
    encoder = Vision(str(vision), layer=1, pooling="max")
    assert from_config(json.loads(json.dumps(encoder.config))) == encoder
    assert len({encoder.fingerprint, processor.fingerprint}) == 2


def test_a_class_token_and_what_has_none(vision: Path) -> None:
    encoder = Vision(str(vision), pooling="cls", normalize=False)
    image = _drawn(4)[0]
    if "resnet" in vision.name:
        with pytest.raises(EncoderError, match="no order of places"):
            encoder.encode_documents([image])
        return
    model = transformers.AutoModel.from_pretrained(vision).eval()
    from embeddb.encoders import pretrained

    with torch.no_grad():
        pixels = pretrained.image_processor(vision)(images=[image], return_tensors="pt")["pixel_values"]
        expected = model(pixels).last_hidden_state[:, 0].numpy()
    np.testing.assert_allclose(encoder.encode_documents([image]), expected, atol=1e-5)


def test_inputs_that_are_no_images(vision: Path) -> None:
    with pytest.raises(EncoderError, match="input 2 is bytes, not an image") as caught:
        Vision(str(vision), batch_size=1).encode_documents([*_drawn(4)[:2], b"\xff\xd8"])
    assert caught.value.position == 2
