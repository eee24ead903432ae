"""Advice from a diagnosis, in words: each rule with the figure that it follows from and its reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from embeddb.insight.diagnosis import Diagnosis

#: A recall that is as good as the whole.
_GOOD: Final = 0.95
_KEPT: Final = 0.99


def advice(found: Diagnosis) -> tuple[str, ...]:
    """What to do, most telling first; one line that says so where nothing stands out."""
    said = [line for rule in _RULES for line in rule(found)]
    return tuple(said) or ("Nothing stands out: keep what is declared.",)


def _norms(found: Diagnosis) -> Iterator[str]:
    if found.norms.spread < 1e-3 and abs(found.norms.median - 1) < 1e-3:
        if found.metric in ("cosine", "l2"):
            yield (
                "Every vector has length 1, so cosine, inner product and l2 rank alike. The inner product is the "
                'cheapest of them: metric="inner_product" searches the same, if the encoder keeps its lengths.'
            )
    elif found.metric == "inner_product" and found.norms.spread > 0.1:
        yield (
            f"Lengths differ (standard deviation {found.norms.spread:.0%} of the mean), and inner product prefers long "
            "vectors whatever they point at. Unless length means something, as in some recommenders, use cosine."
        )


def _duplicates(found: Diagnosis) -> Iterator[str]:
    if found.duplicates > 0.05:
        yield (
            f"{found.duplicates:.1%} of the sampled rows have another within cosine {found.duplicate_cosine:g}, and in "
            "the whole table more have. They fill results with copies: find them with duplicates(), or search with "
            "diverse()."
        )


def _cone(found: Diagnosis) -> Iterator[str]:
    if found.mean_cosine > 0.5:
        yield (
            f"Two rows at random have a cosine of {found.mean_cosine:.2f}: all vectors lie in a narrow cone. Ranking "
            "is not harmed by that as such, but a threshold on the cosine must be found on your own rows, and binary "
            "quantisation sees little: it only sees signs."
        )


def _hubs(found: Diagnosis) -> Iterator[str]:
    if found.hubness > 3:
        yield (
            f"Hubs: the k-occurrences are skewed by {found.hubness:.1f}, and a hundredth of the rows are "
            f"{found.hub:.0%} of all neighbours. They come up whatever is asked for. See what they are (short or empty "
            "texts, often), leave those out, or take the mean away from the vectors before they are stored."
        )


def _dimensions(found: Diagnosis) -> Iterator[str]:
    sizes = sorted({reduction.dim for reduction in found.reductions if reduction.kind == "prefix"})
    prefix = next((size for size in sizes if found.recall_of("prefix", size) >= _GOOD), None)
    pca = next((size for size in sizes if found.recall_of("pca", size) >= _GOOD), None)
    if prefix is not None and (pca is None or prefix <= pca):
        yield (
            f"The first {prefix} of {found.dim} dimensions keep a recall@{found.k} of "
            f"{found.recall_of('prefix', prefix):.3f}: HNSW(prefix={prefix}) makes the index that much smaller, and "
            "results are still ranked by the whole vectors."
        )
    elif pca is not None:
        yield (
            f"{pca} principal components of {found.dim} dimensions keep a recall@{found.k} of "
            f"{found.recall_of('pca', pca):.3f} (the first {pca} dimensions alone "
            f"{found.recall_of('prefix', pca):.3f}): embeddb fit-pca {found.name} --dim {pca} makes an "
            "encoder of that many."
        )
    elif sizes and found.intrinsic == found.intrinsic:
        yield (
            f"Cut to half its dimensions, by prefix or PCA, a search would lose more than {1 - _GOOD:.0%} of its "
            f"neighbours, though the intrinsic dimension is only about {found.intrinsic:.0f}: the rows lie on "
            "something curved, which no cut follows. Keep the dimensions and save on their precision."
        )


def _storage(found: Diagnosis) -> Iterator[str]:
    half = found.recall_of("halfvec")
    if found.storage == "vector" and half >= _KEPT:
        yield (
            f"Half precision keeps a recall@{found.k} of {half:.3f} at half the memory: "
            'HNSW(cast="halfvec"), or storage="halfvec" to save on the column too.'
        )
    binary = found.recall_of("binary+rerank")
    if binary >= _GOOD and found.dim >= 128:
        yield (
            f"A binary index with rerank keeps a recall@{found.k} of {binary:.3f} on the sample, at the smallest "
            f"size. In the whole table more candidates are needed: try it with embeddb advise {found.name} --try."
        )


def _few(found: Diagnosis) -> Iterator[str]:
    if found.rows < 15_000:
        yield (
            f"With {found.rows:,} rows an exact scan takes some milliseconds and finds everything: an index is "
            "for later."
        )


_RULES: Final[tuple[Callable[[Diagnosis], Iterator[str]], ...]] = (
    _duplicates,
    _hubs,
    _norms,
    _cone,
    _dimensions,
    _storage,
    _few,
)
