"""Word vectors trained by our own code on the text that gensim's wheel carries, and judged by people's ratings."""

from __future__ import annotations

import bz2
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from embeddb.encoders import embed_documents, embed_query
from embeddb.encoders.words import WordVectors
from embeddb.errors import EncoderError
from embeddb.train.corpus import spool
from embeddb.train.glove import GloveRecipe, cooccurrences, train_glove
from embeddb.train.words import WordRecipe, adapt, train_fasttext, train_word2vec

utils = pytest.importorskip("gensim.test.utils", reason="gensim carries the text and the ratings")
stats = pytest.importorskip("scipy.stats", reason="gensim brings it")

SMALL = ["the king rules the land", "the queen rules the land", "a cat chases a mouse", "a dog chases a cat"] * 40


@pytest.fixture(scope="module")
def articles() -> list[str]:
    """206 articles of Wikipedia and 300 news: 540,000 words."""
    from gensim.corpora.wikicorpus import extract_pages, filter_wiki

    dump = "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
    with bz2.open(utils.datapath(dump)) as pages:
        found = [filter_wiki(text) for _, text, _ in extract_pages(pages, ("0",))]
    return found + Path(utils.datapath("lee_background.cor")).read_text().splitlines()


def _wordsim(vector: Callable[[str], NDArray[np.float32]], words: WordVectors) -> float:
    """Spearman's correlation with people's ratings of those pairs of words (wordsim353) that the vocabulary has."""
    scores, ratings = [], []
    for line in Path(utils.datapath("wordsim353.tsv")).read_text().splitlines():
        if line.startswith("#"):
            continue
        first, second, rating = line.split("\t")
        if first.lower() in words.loaded.places and second.lower() in words.loaded.places:
            one, other = vector(first), vector(second)
            scores.append(float(one @ other / np.linalg.norm(one) / np.linalg.norm(other)))
            ratings.append(float(rating))
    assert len(scores) > 200
    return float(stats.spearmanr(scores, ratings).statistic)


def _lee(encoder: WordVectors) -> float:
    """Pearson's correlation with people's ratings of all pairs of 50 news (Lee, Pincombe, Welsh 2005)."""
    texts = Path(utils.datapath("lee.cor")).read_text("cp1252").splitlines()
    vectors = embed_documents(encoder, texts)
    above = np.triu_indices(len(texts), 1)
    return float(
        np.corrcoef((vectors @ vectors.T)[above], np.loadtxt(utils.datapath("similarities0-1.txt"))[above])[0, 1]
    )


@pytest.fixture(scope="module")
def word2vec(articles: list[str], tmp_path_factory: pytest.TempPathFactory) -> WordVectors:
    recipe = WordRecipe(dim=64, epochs=10, threads=min(2, os.cpu_count() or 1))
    return train_word2vec(articles, tmp_path_factory.mktemp("word2vec"), recipe)


def test_word2vec_rates_pairs_of_words_as_people_do(word2vec: WordVectors) -> None:
    rng = np.random.default_rng(0)
    at_random = {word: rng.standard_normal(64).astype(np.float32) for word in word2vec.loaded.words}
    assert _wordsim(word2vec.vector, word2vec) >= 0.40
    assert abs(_wordsim(lambda word: at_random[word.lower()], word2vec)) < 0.1


def test_sif_rates_pairs_of_texts_better_than_the_mean(
    word2vec: WordVectors, articles: list[str], tmp_path: Path
) -> None:
    """With the common component of texts of their kind."""
    fitted = adapt(word2vec.model, articles[-300:], tmp_path / "fitted")
    sif, mean = _lee(fitted), _lee(WordVectors(word2vec.model, weighting="mean"))
    assert sif >= 0.38, (sif, mean)
    assert sif > mean + 0.02, (sif, mean)


def test_glove_rates_pairs_of_words_as_people_do(articles: list[str], tmp_path: Path) -> None:
    glove = train_glove(articles, tmp_path / "glove", GloveRecipe(dim=64, epochs=6))
    assert _wordsim(glove.vector, glove) >= 0.25
    rng = np.random.default_rng(0)
    at_random = {word: rng.standard_normal(64).astype(np.float32) for word in glove.loaded.words}
    assert abs(_wordsim(lambda word: at_random[word.lower()], glove)) < 0.1


def test_fasttext_has_vectors_for_words_it_never_saw(articles: list[str], tmp_path: Path) -> None:
    recipe = WordRecipe(dim=32, epochs=2, buckets=20_000, threads=min(2, os.cpu_count() or 1))
    fasttext = train_fasttext(articles[-300:], tmp_path, recipe)
    assert "australians" in fasttext.loaded.places
    assert "australianlike" not in fasttext.loaded.places
    like = embed_query(WordVectors(fasttext.model, weighting="mean"), "australianlike")
    near, far = (fasttext.vector(word) for word in ("australians", "fire"))
    cosine = [float(like @ vector / np.linalg.norm(vector)) for vector in (near, far)]
    assert cosine[0] > cosine[1]
    assert np.isnan(embed_documents(WordVectors(fasttext.model, unknown="skip"), ["australianlike"])).all()


# --- what is counted and kept ----------------------------------------------------------------------------------------


def test_cooccurrences_by_hand(tmp_path: Path) -> None:
    corpus = spool(["a b c a", "b zzz c"], tmp_path / "corpus")
    words = ["a", "b", "c"]
    found = cooccurrences(corpus, words, window=2)
    named = {
        (words[one], words[other]): times
        for one, other, times in zip(found.first, found.second, found.times, strict=True)
    }
    # a b c a: at distance 1 ab, bc, ca; at distance 2 ac, ba. b zzz c without zzz: bc at distance 1.
    assert named == {("a", "b"): 1.5, ("b", "c"): 2.0, ("a", "c"): 1.5}


def test_a_corpus_is_read_once_and_in_order(tmp_path: Path) -> None:
    def rows() -> Iterator[str]:
        yield from ["One two.", "…", "Two THREE"]

    corpus = spool(rows(), tmp_path / "corpus")
    assert list(corpus) == list(corpus) == [["one", "two"], ["two", "three"]]
    assert (corpus.texts, corpus.counts["two"]) == (2, 2)
    assert corpus.vocabulary(1) == ["two", "one", "three"]
    with pytest.raises(EncoderError, match="1 words occur 2 times or more in 2 texts"):
        corpus.vocabulary(2)


def test_the_same_seed_gives_the_same_model_and_progress_ends(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    recipe = WordRecipe(dim=8, epochs=3)
    models = [
        train_word2vec(iter(SMALL), tmp_path / name, recipe, progress=lambda *done: seen.append(done)) for name in "ab"
    ]
    assert models[0].fingerprint == models[1].fingerprint
    assert seen[-1] == (480, 480)
    assert (
        train_word2vec(SMALL, tmp_path / "c", WordRecipe(dim=8, epochs=3, seed=1)).fingerprint != models[0].fingerprint
    )


def test_glove_goes_on_where_it_was_cut_off(tmp_path: Path) -> None:
    recipe = GloveRecipe(dim=8, epochs=4, batch=16, least=1)
    whole = train_glove(SMALL, tmp_path / "whole", recipe)

    def stop(done: int, _: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_glove(SMALL, tmp_path / "cut", recipe, progress=stop)
    with pytest.raises(EncoderError, match="of another run"):
        train_glove(SMALL[1:], tmp_path / "cut", recipe)
    seen: list[int] = []
    resumed = train_glove(SMALL, tmp_path / "cut", recipe, progress=lambda done, _: seen.append(done))
    assert seen == [3, 4]
    assert resumed.fingerprint == whole.fingerprint
    assert not (tmp_path / "cut" / "checkpoint.safetensors").exists()
