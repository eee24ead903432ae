"""item2vec, ALS and GRU4Rec: trained on users that drift, measured beside popularity; and real baskets."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from embeddb.encoders import embed_documents
from embeddb.encoders.history import ALS, Event, GRU4Rec, ItemVectors, histories
from embeddb.encoders.history.base import HistoryEncoder
from embeddb.encoders.protocol import Encoder
from embeddb.errors import EncoderError
from embeddb.train.als import ALSRecipe, train_als
from embeddb.train.gru4rec import GRU4RecRecipe, train_gru4rec
from embeddb.train.item2vec import Item2VecRecipe, train_item2vec
from embeddb.train.leave_one_out import LeaveOneOut
from tests.histories.debian_baskets import debian_baskets
from tests.histories.drifting_users import drifting_users

pytest.importorskip("gensim", reason="needs the extra embeddb[history]")

DAY = 86_400.0


class Models(NamedTuple):
    split: LeaveOneOut
    item2vec: ItemVectors
    als: ALS
    gru4rec: GRU4Rec


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    split = LeaveOneOut.of(histories(drifting_users()))
    folder = tmp_path_factory.mktemp("histories")
    return Models(
        split,
        train_item2vec(split.train, folder / "item2vec", Item2VecRecipe(epochs=12), half_life=2 * DAY),
        train_als(split.train, folder / "als"),
        train_gru4rec(split.train, folder / "gru4rec", GRU4RecRecipe(epochs=12)),
    )


def test_a_fading_past_predicts_the_next_item_better_than_popularity_and_than_all_of_the_past(models: Models) -> None:
    fading = models.split.hit_rates(models.item2vec)
    whole = models.split.hit_rates(ItemVectors(models.item2vec.model))
    assert fading.users > 500
    assert fading.model >= 3 * fading.popularity, fading
    assert fading.model > 1.1 * whole.model, (fading, whole)


def test_als_and_gru4rec_predict_better_than_popularity(models: Models) -> None:
    for encoder in (models.als, models.gru4rec):
        rates = models.split.hit_rates(encoder)
        assert rates.model >= 3 * rates.popularity, (encoder, rates)


def test_baskets_of_debian_packages_are_completed_better_than_by_popularity(tmp_path: Path) -> None:
    rows = debian_baskets()
    if not rows:
        pytest.skip("apt has no package lists here (apt-get update fetches them)")
    found = histories(rows)
    split = LeaveOneOut.of({user: found[user] for user in list(found)[::4]})
    rates = split.hit_rates(train_item2vec(split.train, tmp_path, Item2VecRecipe(epochs=12), half_life=DAY))
    assert rates.users > 500
    assert rates.model >= 1.2 * rates.popularity, rates


def test_untrained_vectors_are_no_better_than_chance(models: Models, tmp_path: Path) -> None:
    """The control of the measure itself: random items' vectors find nothing."""
    from embeddb.encoders.history import catalogue

    random, pooled = np.random.default_rng(0).standard_normal((2, *models.item2vec.targets.shape), np.float32)
    others = {"pooled": pooled}
    catalogue.write(tmp_path, {"kind": "item2vec"}, models.item2vec.items, random, others)
    assert models.split.hit_rates(ItemVectors(str(tmp_path))).model < 0.03


def test_als_folds_a_user_in_as_implicit_does(models: Models) -> None:
    from implicit.cpu.als import AlternatingLeastSquares
    from scipy.sparse import csr_matrix

    history = next(iter(models.split.train.values()))
    weighted = [event._replace(weight=1.0 + place % 3) for place, event in enumerate(history)]
    places = {item: place for place, item in enumerate(models.als.items)}
    recipe = ALSRecipe()
    # Its alpha is applied when it trains; recalculate_user takes confidences as they are.
    reference = AlternatingLeastSquares(factors=recipe.dim, regularization=recipe.regularization, alpha=1.0)
    reference.item_factors = models.als.targets
    columns = [places[event.item] for event in weighted]
    row = np.zeros((1, len(places)), np.float32)
    np.add.at(row[0], columns, [recipe.alpha * event.weight for event in weighted])
    expected = reference.recalculate_user(0, csr_matrix(row))
    np.testing.assert_allclose(models.als.encode_documents([weighted])[0], expected, atol=1e-4)


@pytest.mark.parametrize("name", ["item2vec", "als", "gru4rec"])
def test_every_model_keeps_the_promises_of_an_encoder(models: Models, name: str) -> None:
    encoder: HistoryEncoder = getattr(models, name)
    assert isinstance(encoder, Encoder)
    assert encoder.modality == "history"
    config = json.loads(json.dumps(encoder.config))
    assert config.pop("type") == encoder.type
    assert type(encoder)(**config) == encoder
    known = list(models.split.train.values())[:300]
    inputs = [[], *known, [("no such item", 0.0)], [*known[0], Event("nor this", 1e12, 5.0)]]
    vectors = embed_documents(encoder, inputs)
    cold = np.flatnonzero(np.isnan(vectors).any(1))
    assert cold.tolist() == [0, len(inputs) - 2]
    # An unknown item counts for nothing, and neither does the order in which events are given.
    np.testing.assert_allclose(vectors[-1], vectors[1], atol=1e-6)
    np.testing.assert_allclose(encoder.encode_documents([known[0][::-1]])[0], vectors[1], atol=1e-5)
    alone = np.concatenate([encoder.encode_documents([history]) for history in known[:10]])
    np.testing.assert_allclose(alone, vectors[1:11], atol=1e-5)
    assert encoder.targets.shape == (len(encoder.items), encoder.dim)


def test_bare_items_and_tuples_are_histories_too(models: Models) -> None:
    item = models.item2vec.items[5]
    bare, pair, event = models.item2vec.encode_documents([[item], [(item, 3.0)], [Event(item, 3.0)]])
    np.testing.assert_array_equal(bare, pair)
    np.testing.assert_array_equal(bare, event)
    np.testing.assert_allclose(bare, models.item2vec.pooled[5], atol=1e-6)


@pytest.mark.parametrize("history", ["item", 7, [1.5], [("a", "soon")]])
def test_what_is_no_history_is_refused_by_position(models: Models, history: object) -> None:
    with pytest.raises(EncoderError, match="input 1") as caught:
        models.item2vec.encode_documents([[], history])
    assert caught.value.position == 1


def test_the_half_life_is_part_of_the_fingerprint_and_the_place_is_not(models: Models, tmp_path: Path) -> None:
    folder = models.item2vec.folder
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    here, there = ItemVectors(str(folder), half_life=DAY), ItemVectors(str(tmp_path), half_life=DAY)
    assert here.fingerprint == there.fingerprint != ItemVectors(str(folder)).fingerprint


def same_rows(user: int) -> list[tuple[int, int, float]]:
    return [(user, item, float(item)) for item in range(user % 3, 9)]


ROWS = [row for user in range(12) for row in same_rows(user)]


@pytest.mark.parametrize(
    "train",
    [
        lambda folder: train_item2vec(ROWS, folder, Item2VecRecipe(dim=8, epochs=2)),
        lambda folder: train_als(ROWS, folder, ALSRecipe(dim=8, iterations=2)),
        lambda folder: train_gru4rec(ROWS, folder, GRU4RecRecipe(dim=8, hidden=8, epochs=2, candidates=4)),
    ],
    ids=["item2vec", "als", "gru4rec"],
)
def test_training_twice_gives_the_same_model(train: Callable[[Path], HistoryEncoder], tmp_path: Path) -> None:
    first, second = train(tmp_path / "a"), train(tmp_path / "b")
    assert set(first.items) == set(range(9))
    assert np.isfinite(first.targets).all()
    np.testing.assert_allclose(first.targets, second.targets, atol=1e-6)


def test_too_little_to_learn_from_is_said(tmp_path: Path) -> None:
    for train in (train_item2vec, train_als, train_gru4rec):
        with pytest.raises(EncoderError, match="nothing to learn from"):
            train([("ann", 1), ("bob", 1)], tmp_path)
    with pytest.raises(EncoderError, match="no next one"):
        train_gru4rec([("ann", 1), ("bob", 2)], tmp_path)


def test_leave_one_out_asks_only_about_items_new_to_their_user() -> None:
    split = LeaveOneOut.of(histories([("ann", 1), ("ann", 2), ("bob", 1), ("bob", 2), ("bob", 1), ("eve", 3)]))
    assert split.kept == {"ann": 2}
    assert set(split.train) == {"ann", "bob"}
