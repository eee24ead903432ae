from __future__ import annotations

import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import Column, Engine, Integer, LargeBinary, MetaData, Table, case, func, insert, select, true
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from embeddb import Image, Vector, embedding_column, nearest, register
from embeddb.encoders import embed_documents, from_config
from embeddb.encoders.module import Module
from embeddb.errors import EncoderError
from embeddb.orm.types import VECTOR
from embeddb.worker import drain
from tests.encoders import modules

torch = pytest.importorskip("torch", reason="needs the extra embeddb[text]")

HERE = "tests.encoders.modules"


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def _sequences(seed: int = 0) -> list[NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((steps, 4)).astype(np.float32) for steps in (3, 9, 1, 5, 9, 2)]


# --- recurrent networks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("pooling", ["mean", "last", "max"])
def test_sequences_of_several_lengths_are_read_as_if_alone(kind: str, both: bool, pooling: Any) -> None:
    """Against torch's own final states, one sequence at a time, and whichever way the module takes lengths."""
    reader = modules.Reader(kind, both)
    by_lengths = Module(reader, layer="rnn", pooling=pooling, lengths="argument", normalize=False)
    packed = Module(reader.rnn, pooling=pooling, lengths="packed", normalize=False)
    equal = Module(reader.rnn, pooling=pooling, lengths="equal", normalize=False)
    sequences = _sequences()
    for row, sequence in enumerate(sequences):
        with torch.no_grad():
            states, final = reader.rnn(torch.from_numpy(sequence)[None])
        final = final[0] if kind == "LSTM" else final
        expected = {"mean": states[0].mean(0), "max": states[0].amax(0), "last": final[:, 0].flatten()}[pooling]
        for encoder in (by_lengths, packed, equal):
            found = encoder.encode_documents(sequences)[row]
            np.testing.assert_allclose(found, expected.numpy(), atol=1e-6, err_msg=repr(encoder))
    assert by_lengths.dim == packed.dim == equal.dim == (12 if both else 6)


def test_padding_would_be_seen() -> None:
    """The control: the mean over padded steps is another vector, so the test above would fail for it."""
    rnn = modules.lstm()
    sequences = _sequences()
    padded = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(s) for s in sequences], batch_first=True)
    with torch.no_grad():
        wrong = rnn(padded)[0].mean(1).numpy()
    right = Module(rnn, lengths="packed", normalize=False).encode_documents(sequences)
    assert np.abs(wrong[0] - right[0]).max() > 0.01


def test_a_layer_after_the_recurrent_one_knows_the_lengths_too() -> None:
    reader = modules.Reader(both=True, layers=2, batch_first=False)
    encoder = Module(reader, layer="head", lengths="argument", normalize=False, dimensions=3)
    sequences = _sequences()
    alone = np.concatenate([encoder.encode_documents([sequence]) for sequence in sequences])
    np.testing.assert_allclose(encoder.encode_documents(sequences), alone, atol=1e-6)
    last = Module(reader, layer="rnn", pooling="last", lengths="argument", normalize=False)
    whole = torch.from_numpy(sequences[1])[:, None]
    with torch.no_grad():
        final = reader.rnn(whole)[1][0]
    np.testing.assert_allclose(last.encode_documents(sequences)[1], final[-2:, 0].flatten().numpy(), atol=1e-6)


def test_steps_first_without_packing() -> None:
    network = modules.StepsFirst()
    sequences = _sequences()
    encoder = Module(network, layer="rnn", pooling="last", normalize=False)
    found = encoder.encode_documents(sequences)
    for sequence, vector in zip(sequences, found, strict=True):
        with torch.no_grad():
            final = network.rnn(torch.from_numpy(sequence)[:, None])[1]
        np.testing.assert_allclose(vector, final[0, 0].numpy(), atol=1e-6)
    with pytest.raises(EncoderError, match="batch_first=True"):
        Module(network.rnn).encode_documents(sequences)


def test_a_sequence_without_a_step_has_no_embedding() -> None:
    encoder = Module(modules.lstm(), lengths="packed")
    vectors = encoder.encode_documents([np.empty((0, 4), np.float32), *_sequences()])
    assert np.isnan(vectors[0]).all()
    assert np.isfinite(vectors[1:]).all()


# --- layers ----------------------------------------------------------------------------------------------------


def test_any_layer_and_pooling_of_a_convolution() -> None:
    network = modules.convolutions().eval()
    image = np.random.default_rng(0).random((16, 16))
    tensor = torch.from_numpy(modules.grey(image))[None]
    cases: list[tuple[str, Any, int | None, Any]] = [
        ("4", "mean", None, lambda t: t.mean((2, 3))),
        ("7", "max", 32, lambda t: t.amax((2, 3))),
        ("8", "flatten", 64 * 16, lambda t: t.flatten(1)),
        ("embedding", "mean", None, lambda t: t),
        ("", "mean", None, lambda t: t),
    ]
    for layer, pooling, dimensions, reduce in cases:
        encoder = Module(
            network, layer=layer, pooling=pooling, preprocess=modules.grey, normalize=False, dimensions=dimensions
        )
        expected = tensor
        with torch.no_grad():
            for name, part in network.named_children():
                expected = part(expected)
                if name == layer:
                    break
        np.testing.assert_allclose(encoder.encode_documents([image]), reduce(expected).numpy(), atol=1e-5)
    with pytest.raises(EncoderError, match="no layer 'body', only 0, 1"):
        Module(network, layer="body", preprocess=modules.grey).encode_documents([image])
    with pytest.raises(EncoderError, match="not used"):
        Module(modules.Reader(), layer="unused", lengths="argument", dimensions=1).encode_documents(_sequences())
    with pytest.raises(EncoderError, match="does not tell its dimensions"):
        _ = Module(network, layer="7").dim


def test_a_module_in_training_is_left_so_and_shared_by_threads() -> None:
    network = modules.convolutions().train()
    network[1].eval()
    encoder = Module(network, layer="head", preprocess=modules.grey, batch_size=4)
    images = np.random.default_rng(0).random((12, 16, 16))
    expected = encoder.encode_documents(list(images))
    with ThreadPoolExecutor(6) as pool:
        for found in pool.map(lambda _: encoder.encode_documents(list(images)), range(12)):
            np.testing.assert_allclose(found, expected, atol=1e-6)
    assert network.training
    assert network[14].training
    assert not network[1].training
    assert len(network[12]._forward_hooks) == 0


# --- configurations and weights ----------------------------------------------------------------------------------


def test_errors_name_the_encoder_in_one_line() -> None:
    deep = Module(torch.nn.Sequential(*[torch.nn.ReLU()] * 50), layer="nowhere")
    assert repr(deep) == "Module(<Sequential>, layer='nowhere')"
    with pytest.raises(EncoderError, match=r"^Module\(<Sequential>, layer='nowhere'\): there is no layer"):
        _ = deep.dim
    with pytest.raises(EncoderError, match=r"making the module failed: TypeError: .*'color'"):
        _ = Module(modules.convolutions, arguments={"color": 3}).dim


def test_a_configuration_is_made_again_only_by_functions_that_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = Module(modules.convolutions, arguments={"classes": 3}, layer="embedding", preprocess=modules.grey)
    config = json.loads(json.dumps(encoder.config))
    assert config["module"] == f"{HERE}:convolutions"
    assert config["preprocess"] == f"{HERE}:grey"
    with pytest.raises(EncoderError, match="EMBEDDB_ALLOW_FACTORIES=tests.encoders.modules"):
        from_config(config)
    with pytest.raises(EncoderError, match="cannot be made of"):
        from_config({**config, "allow_factories": ["tests"]})
    monkeypatch.setenv("EMBEDDB_ALLOW_FACTORIES", "elsewhere, tests.encoders")
    assert from_config(config) == encoder
    for name in ("os:system", "tests.encoders_of_others:f", "subprocess:run", "testsXencoders:f"):
        with pytest.raises(EncoderError, match="may be"):
            from_config({**config, "module": name})
        with pytest.raises(EncoderError, match="may be"):
            from_config({**config, "preprocess": name})
    borrowed = from_config({**config, "module": f"{HERE}:imported_from_elsewhere"})
    with pytest.raises(EncoderError, match="name the module that defines it"):
        borrowed.encode_documents([np.zeros((16, 16))])
    assert Module.from_config(config, allow_factories=["tests.encoders.modules"]) == encoder


def test_an_object_has_a_configuration_that_says_so() -> None:
    encoder = Module(modules.convolutions(), preprocess=lambda value: value)
    assert encoder.config["module"] == "Sequential"
    with pytest.raises(EncoderError, match="in one program only"):
        from_config(encoder.config)


def test_weights_are_tensors_only(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    torch.manual_seed(1)
    network = modules.convolutions()
    image = [np.random.default_rng(0).random((16, 16))]
    expected = Module(network, layer="embedding", preprocess=modules.grey)
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    torch.save(network.state_dict(), tmp_path / "w.pt")
    torch.save({"state_dict": network.state_dict(), "epoch": 3}, tmp_path / "checkpoint.pt")
    torch.save(network, tmp_path / "pickled.pt")
    torch.save(_Runs(str(tmp_path / "ran")), tmp_path / "code.pt")
    (tmp_path / "broken.safetensors").write_bytes((tmp_path / "w.safetensors").read_bytes()[:999])

    def of(name: str, **settings: Any) -> Module:
        return Module(modules.convolutions, weights=str(tmp_path / name), preprocess=modules.grey, **settings)

    for name in ("w.safetensors", "w.pt", "checkpoint.pt"):
        found = of(name, layer="embedding")
        np.testing.assert_allclose(found.encode_documents(image), expected.encode_documents(image), atol=1e-6)
    for name, said in (
        ("pickled.pt", "more than tensors"),
        ("code.pt", "more than tensors"),
        ("broken.safetensors", "cannot be read"),
        ("absent.pt", "there are no weights"),
    ):
        with pytest.raises(EncoderError, match=said):
            of(name).encode_documents(image)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(EncoderError, match="does not fit"):
        of("w.pt", arguments={"classes": 2}).encode_documents(image)
    # By content: the same weights in another file are the same encoder's, others are not.
    prints = {of(name, layer="embedding").fingerprint for name in ("w.safetensors", "w.pt")}
    prints |= {of("w.pt", layer="head").fingerprint, Module(modules.convolutions, preprocess=modules.grey).fingerprint}
    assert len(prints) == 3


class _Runs:
    """A pickle that writes a file when it is loaded."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (self.path, "w"))


def test_what_cannot_be() -> None:
    with pytest.raises(EncoderError, match="pooling is one of"):
        Module(modules.lstm, pooling="sum")  # type: ignore[arg-type]  # as a user may
    with pytest.raises(EncoderError, match="not a torch"):
        Module(modules.not_a_module, dimensions=2).encode_documents([np.zeros(3)])
    with pytest.raises(EncoderError, match="no importable"):
        Module("tests.encoders.modules:absent", dimensions=2).encode_documents([np.zeros(3)])


# --- a network that learned something -----------------------------------------------------------------------------


def _digits(shift: int = 4) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """scikit-learn's 8×8 digits, each somewhere on a canvas of 16×16."""
    datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn carries the digits")
    images, labels = datasets.load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    canvases = np.zeros((len(images), 16, 16), np.float32)
    for canvas, image in zip(canvases, images.reshape(-1, 8, 8), strict=True):
        top, left = rng.integers(4 - shift, 5 + shift, 2)
        canvas[top : top + 8, left : left + 8] = image / 16
    return canvases, labels


def _train(network: Any, images: NDArray[np.float32], labels: NDArray[np.int64]) -> None:
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3, weight_decay=1e-2)
    rng = np.random.default_rng(0)
    network.train()
    for epoch in range(20):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * (1 - epoch / 20)
        for rows in np.array_split(rng.permutation(len(images)), len(images) // 64):
            moved = np.stack([np.roll(image, rng.integers(-2, 3, 2), (0, 1)) for image in images[rows]])
            told = network(torch.from_numpy(moved)[:, None])
            loss = torch.nn.functional.cross_entropy(told, torch.from_numpy(labels[rows]), label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def _precision(engine: Engine, vectors: NDArray[np.float32], labels: NDArray[np.int64], at: int = 10) -> float:
    """Of the nearest ``at`` others by cosine, the share of the same label; found by the database, reading every row."""
    table = Table(
        "digits",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("label", Integer),
        Column("vector", VECTOR(vectors.shape[1])),
    )
    table.create(engine)
    with engine.begin() as connection:
        pairs = enumerate(zip(labels.tolist(), vectors, strict=True))
        connection.execute(insert(table), [{"id": row, "label": label, "vector": v} for row, (label, v) in pairs])
        other = table.alias("other")
        nearest = (
            select(other.c.label)
            .where(other.c.id != table.c.id)
            .order_by(other.c.vector.cosine_distance(table.c.vector))
            .limit(at)
            .lateral()
        )
        same = func.avg(case((nearest.c.label == table.c.label, 1.0), else_=0.0))
        found = connection.scalar(select(same).select_from(table.join(nearest, true())))
    table.drop(engine)
    assert found is not None
    return float(found)


@pytest.fixture(scope="module")
def digits() -> tuple[Any, NDArray[np.float32], NDArray[np.int64]]:
    """A network trained on the digits 0 to 6, and the images of 7 to 9."""
    images, labels = _digits()
    torch.manual_seed(0)
    network = modules.convolutions()
    known = labels < 7
    _train(network, images[known], labels[known])
    return network, images[~known], labels[~known]


def test_a_middle_layer_tells_classes_apart_that_it_never_saw(digits: Any, engine18: Engine) -> None:
    network, images, labels = digits
    torch.manual_seed(0)
    untrained = modules.convolutions()
    found = {
        name: _precision(engine18, embed_documents(encoder, list(images)), labels)
        for name, encoder in {
            "middle": Module(network, layer="embedding", preprocess=modules.grey),
            "last": Module(network, layer="head", preprocess=modules.grey),
            "untrained": Module(untrained, layer="embedding", preprocess=modules.grey),
        }.items()
    }
    found["pixels"] = _precision(engine18, images.reshape(len(images), -1), labels)
    assert found["middle"] >= 0.75, found
    assert found["pixels"] <= 0.55, found
    assert found["untrained"] < found["middle"] - 0.05, found


def test_pictures_of_classes_that_it_never_saw_are_found_through_the_database(
    digits: Any, engine18: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Declared on a model, queued as PNG files in a column, embedded by a worker that has only the configuration."""
    safetensors = pytest.importorskip("safetensors.torch", reason="needs the extra embeddb[text]")
    pillow = pytest.importorskip("PIL.Image", reason="needs the extra embeddb[image]")
    network, images, labels = digits
    safetensors.save_model(network, str(tmp_path / "network.safetensors"))
    encoder = Module(
        f"{HERE}:convolutions",
        weights=str(tmp_path / "network.safetensors"),
        layer="embedding",
        preprocess=f"{HERE}:grey_picture",
    )

    class Base(DeclarativeBase):
        pass

    class Digit(Base):
        __tablename__ = "digits"
        id: Mapped[int] = mapped_column(primary_key=True)
        label: Mapped[int]
        picture: Mapped[bytes] = mapped_column(LargeBinary)
        embedding: Mapped[Vector | None] = embedding_column("picture", encoder=encoder)

    def png(image: NDArray[np.float32]) -> bytes:
        out = io.BytesIO()
        pillow.fromarray((image * 255).astype(np.uint8)).save(out, "PNG")
        return out.getvalue()

    Base.metadata.create_all(engine18)
    register(engine18, Base, install=True)
    with Session(engine18) as session, session.begin():
        rows = zip(images, labels.tolist(), strict=True)
        session.execute(insert(Digit), [{"picture": png(image), "label": label} for image, label in rows])
    monkeypatch.setenv("EMBEDDB_ALLOW_FACTORIES", HERE)
    assert drain(engine18).embedded == len(images)
    hits = []
    with Session(engine18) as session:
        for digit in session.scalars(select(Digit).where(Digit.id % 9 == 0)):
            others = nearest(Digit.embedding, Image(digit.picture)).where(Digit.id != digit.id).limit(10)
            hits += [other.label == digit.label for other in session.scalars(others)]
    assert len(hits) == 10 * (len(images) // 9)
    assert np.mean(hits) >= 0.75
