"""Each statistic against NumPy, SciPy and scikit-learn, and on vectors of which the answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import skew
from sklearn.decomposition import PCA
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.neighbors import NearestNeighbors

from embeddb.errors import QueryError
from embeddb.insight import statistics
from embeddb.insight.reductions import reductions
from embeddb.metrics import MetricName
from tests.insight.vectors import Vectors, decaying, gaussian, manifold


def nearest(vectors: Vectors, k: int, metric: MetricName = "l2") -> statistics.Places:
    return statistics.neighbours(vectors, k, metric)


@pytest.mark.parametrize(("metric", "reference"), [("cosine", "cosine"), ("l2", "euclidean"), ("l1", "cityblock")])
def test_neighbours_as_scikit_learn(metric: MetricName, reference: str) -> None:
    vectors = gaussian(300, 16) + 20
    fitted = NearestNeighbors(n_neighbors=5, metric=reference, algorithm="brute").fit(vectors)
    expected = fitted.kneighbors(return_distance=False)
    found = nearest(vectors, 5, metric)
    assert np.mean(found == expected) > 0.99  # two may be as near as float32 can tell


def test_neighbours_by_inner_product_and_of_some_rows() -> None:
    vectors = gaussian(200, 8)
    products = vectors @ vectors.T
    np.fill_diagonal(products, -np.inf)
    queries = np.array([7, 3])
    found = statistics.neighbours(vectors, 4, "inner_product", queries=queries)
    assert found.tolist() == np.argsort(-products[queries], axis=1)[:, :4].tolist()


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = gaussian(150, 8)
    whole = nearest(vectors, 3)
    monkeypatch.setattr(statistics, "_BLOCK", 1000)
    assert (nearest(vectors, 3) == whole).all()


def test_too_few_rows_for_neighbours() -> None:
    with pytest.raises(QueryError, match="5 rows do not have 5 neighbours"):
        nearest(gaussian(5, 3), 5)


@pytest.mark.parametrize(("inner", "within"), [(2, 0.1), (5, 0.1), (9, 0.2)])  # a cube has edges, more of them at 9
def test_intrinsic_dimension_is_found_in_any_space(inner: int, within: float) -> None:
    for dim in (16, 48):
        vectors = manifold(3000, dim, inner, seed=inner)
        assert statistics.two_nn(vectors, nearest(vectors, 2)) == pytest.approx(inner, rel=within)


def test_intrinsic_dimension_of_a_curve_and_with_copies() -> None:
    angle = np.random.default_rng(0).uniform(0, 2 * np.pi, 2000)
    circle = np.stack([np.cos(angle), np.sin(angle), np.zeros(2000)], axis=1).astype(np.float32)
    assert statistics.two_nn(circle, nearest(circle, 2)) == pytest.approx(1, rel=0.1)
    copied = np.concatenate([manifold(2000, 16, 4), manifold(200, 16, 4)])
    assert statistics.two_nn(copied, nearest(copied, 2)) == pytest.approx(4, rel=0.15)
    same = np.ones((50, 4), np.float32)
    assert np.isnan(statistics.two_nn(same, nearest(same, 2)))


def test_participation_ratio() -> None:
    assert statistics.participation_ratio(np.array([1.0, 1, 1, 0, 0])) == pytest.approx(3)
    assert statistics.participation_ratio(np.array([1.0, 0, 0])) == pytest.approx(1)
    assert statistics.participation_ratio(np.zeros(3)) == 0
    vectors = decaying(500, 12) + 5
    values = statistics.eigenvalues(vectors)
    expected = PCA().fit(vectors.astype(np.float64)).explained_variance_
    np.testing.assert_allclose(values, expected, rtol=1e-4)
    assert statistics.participation_ratio(values) == pytest.approx(expected.sum() ** 2 / (expected**2).sum(), rel=1e-4)


def test_hubness_is_the_skewness_and_grows_with_dimension() -> None:
    found = {}
    for dim in (3, 100):
        vectors = gaussian(1000, dim)
        counts = statistics.occurrences(nearest(vectors, 10), 1000)
        assert counts.sum() == 10 * 1000
        found[dim] = statistics.skewness(counts)
        assert found[dim] == pytest.approx(float(skew(counts)))
    # In Radovanović et al. 2010, table 1 and figure 1: none at 3 dimensions, strong at 100.
    assert abs(found[3]) < 0.7
    assert found[100] > 2.5
    assert statistics.skewness(np.full(9, 4)) == 0


def test_a_planted_hub_is_seen() -> None:
    on_sphere = statistics.unit(gaussian(400, 30))
    with_hub = np.concatenate([on_sphere, np.zeros((1, 30), np.float32)])  # the centre is nearest to all
    counts = statistics.occurrences(nearest(with_hub, 5), 401)
    assert counts[-1] > 390
    without = statistics.occurrences(nearest(on_sphere, 5), 400)
    assert statistics.skewness(counts) > 10 > 3 * statistics.skewness(without)


def test_mean_cosine() -> None:
    vectors = gaussian(300, 20) + np.float32(0.8)
    pairs = cosine_similarity(vectors.astype(np.float64))
    assert statistics.mean_cosine(vectors) == pytest.approx(pairs[np.triu_indices(300, 1)].mean(), abs=1e-6)
    assert abs(statistics.mean_cosine(gaussian(2000, 20))) < 0.01


def test_nearest_cosine() -> None:
    vectors = gaussian(200, 20)
    pairs = cosine_similarity(vectors.astype(np.float64))
    np.fill_diagonal(pairs, -2)
    found = statistics.nearest_cosine(vectors, nearest(vectors, 1, "cosine"))
    np.testing.assert_allclose(found, pairs.max(axis=1), atol=1e-6)


def test_reductions_tell_what_is_lost() -> None:
    vectors = decaying(1500, 64)
    queries = np.arange(100)
    found = {(item.kind, item.dim): item.recall for item in reductions(vectors, queries, 10, "cosine")}
    assert {dim for _, dim in found} == {64, 32, 16, 8}
    assert found["halfvec", 64] > 0.99
    assert found["binary", 64] < found["binary+rerank", 64] < 1
    assert found["pca", 32] > 0.98
    for dim in (32, 16, 8):
        assert found["pca", dim] > found["prefix", dim] + 0.2
    # The first axes are the best ones here: then the prefix is PCA's equal.
    turned = gaussian(1500, 64) * np.float32(0.8) ** np.arange(64, dtype=np.float32)
    again = {(item.kind, item.dim): item.recall for item in reductions(turned, queries, 10, "l2")}
    assert again["prefix", 16] == pytest.approx(again["pca", 16], abs=0.05)
    assert again["prefix", 16] > 0.8
    # Pure noise cannot be cut: half of it finds few of the neighbours.
    noise = {(item.kind, item.dim): item.recall for item in reductions(gaussian(1500, 64), queries, 10, "cosine")}
    assert noise["pca", 32] < 0.6
