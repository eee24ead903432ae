"""Distilling a text encoder into token vectors that SQL alone adds up, from the rows that it has embedded."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
from sqlalchemy import Connection

from embeddb.encoders.protocol import Encoder
from embeddb.errors import EncoderError
from embeddb.insql.distill import (
    Subject,
    Tokenizer,
    default_config,
    embedded,
    put_distilled,
    read_rows,
    resolve_config,
    subject,
    tokenize,
)
from embeddb.insql.fast import PART, Fast, installed_fast
from embeddb.metrics import MetricName
from embeddb.train.token_vectors import Bags, Fit, Matrix, cosines, load_state, save_state, vocabulary

#: Called with what is being done, how much of it, and of how much.
Told = Callable[[str, int, int], None]

#: Rows that a fit needs to be worth anything, and texts that are held out of it at most.
FEWEST: Final = 50
HELD_OUT: Final = 500
#: Rows among which the nearest ones are looked for, to measure agreement.
AMONG: Final = 20_000
#: A fit is old when there are so many times as many rows.
GROWN: Final = 1.2
#: Pieces that are embedded where an encoder embeds questions otherwise than rows.
_ENOUGH: Final = 5000
#: Characters of the parts of a lexeme, the tokens that a part has to be in, and how the parts are fitted.
_PARTS: Final = (3, 5)
_PART_IN: Final = 5
_PART_STRENGTH: Final = 0.05
_PART_ROUNDS: Final = 20
#: Pieces that are embedded at a time.
_AT_ONCE: Final = 256
#: A lower cosine than this between two vectors of a text makes them different.
_SAME: Final = 0.9999
_SENTENCE: Final = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\s*\n\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class DistilRecipe:
    """How an encoder is distilled.

    ``tokenizer``: "lexemes" of the text search configuration ``config``, or "ngrams", pieces of ``shortest`` to
    ``longest`` characters of each word, for languages without stemmers or spaces. No configuration means the
    database's; if that is "simple", which stems nothing, "english" is tried too, and the better one kept. ``parts``:
    whether unknown lexemes are made of n-grams of 3 to 5 characters. ``rows``: how many are fitted to at most, drawn
    by a hash of their keys; ``characters``: as much of each text is read. ``vocabulary``, ``least``: the most frequent
    tokens, and texts that a token has to be in. ``pieces``: sentences of these texts that are embedded as questions,
    and fitted to as well. ``strength``: of the ridge, see ``token_vectors.Fit``. ``rounds``: at most; it ends after
    ``patience`` rounds that have not brought it nearer to the texts held out, a share of ``held_out``.
    """

    tokenizer: str = "lexemes"
    config: str | None = None
    shortest: int = 1
    longest: int = 3
    parts: bool = True
    rows: int = 50_000
    characters: int = 3000
    vocabulary: int = 50_000
    least: int = 1
    pieces: int = 0
    strength: float = 0.2
    rounds: int = 40
    patience: int = 4
    held_out: float = 0.05
    seed: int = 0


def distil(
    connection: Connection,
    name: str,
    encoder: Encoder | None = None,
    recipe: DistilRecipe = DistilRecipe(),
    *,
    half: bool = True,
    checkpoint: Path | None = None,
    told: Told | None = None,
) -> Fast:
    """Fit token vectors to an embedding's rows and put them into the database, in the caller's transaction.

    From then on ``embeddb.embed`` embeds with them where there is nothing exact, as long as the embedding's encoder
    keeps its fingerprint. How near they come to the encoder is measured on texts held out of the fit, and kept with
    them: the mean cosine, and the share of the ten nearest rows that are the same. Then all texts are fitted to.

    ``encoder``: that of the embedding; it is asked for ``recipe.pieces``, and for nothing else, unless it embeds
    questions otherwise than rows: then pieces alone are fitted to, 5,000 of them by default. ``half``: token vectors
    in half precision. ``checkpoint``: a folder for the state, with which the same call goes on after an
    interruption; its files are deleted at the end.

    Raises CatalogError for an unknown embedding, EncoderError for one that is not of texts, has fewer than 50 rows
    embedded, or whose encoder has another fingerprint than its rows.
    """
    what = subject(connection, name)
    fingerprint = _fingerprint(what, encoder)
    tell: Told = told or (lambda *_: None)
    tokenizers = _tokenizers(connection, recipe)
    rows = embedded(connection, what)
    texts, vectors = read_rows(connection, what, recipe.rows, recipe.seed)
    if len(texts) < FEWEST:
        raise EncoderError(f"{what.name} has {len(texts)} rows with a text and a vector: distilling needs {FEWEST}")
    among = vectors[:AMONG]
    asymmetric = encoder is not None and _asymmetric(encoder, texts[0][: recipe.characters])
    wanted = recipe.pieces or (_ENOUGH if asymmetric else 0)
    if encoder is not None and wanted:
        pieces, answers = _embed_pieces(encoder, pieces_of(texts, wanted, recipe.seed), checkpoint, tell)
        if asymmetric and len(pieces) < FEWEST:
            raise EncoderError(
                f"{what.name}: {encoder!r} embeds questions otherwise than rows, so distilling needs {FEWEST} "
                f"sentences as long as questions are, and the rows have {len(pieces)}"
            )
        texts, vectors = ([], among[:0]) if asymmetric else (texts, vectors)
        texts, vectors = texts + pieces, np.concatenate([vectors, answers])
    texts = [text[: recipe.characters] for text in texts]
    trials = []
    for tokenizer in tokenizers:
        tokens = _tokens(connection, tokenizer, texts, tell)
        trials.append(
            (*_try_out(tokens, vectors, among, what.spec.metric, recipe, checkpoint, tell), tokenizer, tokens)
        )
    rounds, agreement, tokenizer, tokens = max(trials, key=lambda trial: float(trial[1]["cosine"]))
    known = vocabulary(tokens, recipe.vocabulary, recipe.least)
    problem = Fit(Bags.of(tokens, known), _directions(vectors), len(known), recipe.strength, _file(checkpoint, "fit"))
    while problem.rounds < rounds:
        problem.step()
        problem.keep()
        tell("Fitting to all", problem.rounds, rounds)
    names, fitted = list(known), problem.vectors
    if recipe.parts and tokenizer.kind == "lexemes":
        parts, part_vectors = _fit_parts(names, fitted, recipe)
        names, fitted = names + parts, np.concatenate([fitted, part_vectors])
    lengths = np.linalg.norm(vectors, axis=1)
    fast = put_distilled(
        connection,
        what,
        fingerprint,
        tokenizer,
        names,
        # A common factor does not matter; this one keeps half precision away from its ends.
        fitted / float(np.linalg.norm(fitted, axis=1).mean()),
        length=1.0 if np.allclose(lengths, 1, atol=1e-3) else float(lengths.mean()),
        half=half,
        recipe={**asdict(recipe), "half": half, "of": rows},
        agreement=agreement,
    )
    for done in ("pieces", "trial", "fit"):
        if (path := _file(checkpoint, done)) is not None:
            path.unlink(missing_ok=True)
    return fast


def outdated(connection: Connection, name: str) -> str | None:
    """Why an embedding is to be distilled: never was, has another encoder, has many more rows. None: no need."""
    what = subject(connection, name)
    found = _installed(connection, what)
    if found is None:
        return "nothing was distilled from it"
    if found.fingerprint != what.fingerprint:
        return "its encoder has changed"
    fitted, now = int((found.recipe or {})["of"]), embedded(connection, what)
    return f"it has {now:,} rows, and had {fitted:,}" if now > GROWN * fitted else None


def recipe_of(connection: Connection, name: str) -> tuple[DistilRecipe, bool] | None:
    """How an embedding was distilled, and whether in half precision; None where it was not."""
    found = _installed(connection, subject(connection, name))
    if found is None:
        return None
    known = {field.name for field in fields(DistilRecipe)}
    return DistilRecipe(**{key: value for key, value in (found.recipe or {}).items() if key in known}), found.half


def pieces_of(texts: Sequence[str], wanted: int, seed: int) -> list[str]:
    """Sentences of 3 to 40 words, or of 10 to 200 characters where no blanks part them: as long as questions are."""
    found = {
        piece: None
        for text in texts
        for piece in map(str.strip, _SENTENCE.split(text))
        if 10 <= len(piece) <= 400 and (3 <= len(piece.split()) <= 40 or not piece.isascii())
    }
    drawn = np.random.default_rng(seed).permutation(len(found))[:wanted]
    every = list(found)
    return [every[place] for place in drawn]


def _installed(connection: Connection, what: Subject) -> Fast | None:
    """What was distilled last from this embedding, for its present encoder or an earlier one."""
    return max((f for f in installed_fast(connection) if f.embedding == what.name), key=lambda f: f.id, default=None)


def _fingerprint(what: Subject, encoder: Encoder | None) -> str:
    """Of the encoder that the rows were embedded with. Raises EncoderError where it is not known, or another one."""
    own = None if encoder is None else encoder.fingerprint
    if what.fingerprint is not None and own not in (None, what.fingerprint):
        raise EncoderError(
            f"{what.name}: its rows were embedded by another version of {encoder!r}: re-embed them first"
        )
    if found := what.fingerprint or own:
        return found
    raise EncoderError(f"{what.name}: the catalog does not know its encoder's fingerprint yet: pass the encoder")


def _tokenizers(connection: Connection, recipe: DistilRecipe) -> list[Tokenizer]:
    """Those to try: what is asked for, or the database's configuration, and English where that one stems nothing."""
    if recipe.tokenizer == "ngrams":
        if recipe.config is not None or not 1 <= recipe.shortest <= recipe.longest:
            raise EncoderError("ngrams have sizes from shortest to longest, and no text search configuration")
        return [Tokenizer("ngrams", None, recipe.shortest, recipe.longest)]
    if recipe.tokenizer != "lexemes":
        raise EncoderError(f"tokenizer is lexemes or ngrams, not {recipe.tokenizer!r}")
    if recipe.config is not None:
        configs = [resolve_config(connection, recipe.config)]
    else:
        configs = [default_config(connection)]
        configs += ["pg_catalog.english"] if configs == ["pg_catalog.simple"] else []
    return [Tokenizer("lexemes", config, *_PARTS) for config in configs]


def _tokens(connection: Connection, tokenizer: Tokenizer, texts: Sequence[str], tell: Told) -> list[list[str]]:
    tokens: list[list[str]] = []
    for found in tokenize(connection, tokenizer, texts):
        tokens.append(found)
        tell("Reading", len(tokens), len(texts))
    return tokens


def _asymmetric(encoder: Encoder, text: str) -> bool:
    """Whether this text gets another vector as a question than as a row."""
    asked, stored = np.asarray(encoder.encode_queries([text])), np.asarray(encoder.encode_documents([text]))
    return bool(np.isfinite([asked, stored]).all()) and float(cosines(asked, stored)[0]) < _SAME


def _embed_pieces(encoder: Encoder, pieces: list[str], checkpoint: Path | None, tell: Told) -> tuple[list[str], Matrix]:
    """Those pieces that have a vector, and their vectors as questions, (pieces, dim)."""
    path = _file(checkpoint, "pieces")
    run = {"run": hashlib.sha256("\0".join([encoder.fingerprint, *pieces]).encode()).hexdigest()}
    state = None if path is None else load_state(path, run)
    vectors = np.empty((0, encoder.dim), np.float32) if state is None else state[1]["vectors"]
    for start in range(len(vectors), len(pieces), _AT_ONCE):
        asked = encoder.encode_queries(pieces[start : start + _AT_ONCE])
        vectors = np.concatenate([vectors, np.asarray(asked, np.float32)])
        if path is not None:
            save_state(path, run, {"vectors": vectors})
        tell("Embedding pieces", len(vectors), len(pieces))
    good = np.isfinite(vectors).all(1) & (np.linalg.norm(vectors, axis=1) > 0)
    return [piece for piece, kept in zip(pieces, good, strict=True) if kept], vectors[good]


def _try_out(
    tokens: list[list[str]], vectors: Matrix, among: Matrix, metric: MetricName, recipe: DistilRecipe,
    checkpoint: Path | None, tell: Told,
) -> tuple[int, dict[str, Any]]:  # fmt: skip
    """Fit to all texts but some: after how many rounds those came out best, and how near to the truth."""
    order = np.random.default_rng(recipe.seed).permutation(len(tokens))
    count = min(HELD_OUT, int(len(tokens) * recipe.held_out) + 1)
    held, rest = order[:count], order[count:]
    known = vocabulary((tokens[n] for n in rest), recipe.vocabulary, recipe.least)
    bags = Bags.of((tokens[n] for n in held), known)
    path = _file(checkpoint, "trial")
    problem = Fit(
        Bags.of((tokens[n] for n in rest), known), _directions(vectors[rest]), len(known), recipe.strength, path
    )
    losses = problem.losses
    found = bags.sums(problem.vectors)
    while not losses or (problem.rounds < recipe.rounds and min(losses) in losses[-recipe.patience :]):
        problem.step()
        found = bags.sums(problem.vectors)
        losses.append(1 - float(cosines(found, vectors[held]).mean()))
        problem.keep()
        tell("Fitting", problem.rounds, recipe.rounds)
    tell("Fitting", len(losses), len(losses))
    best = int(np.argmin(losses)) + 1
    return best, {
        "cosine": round(1 - losses[best - 1], 4),
        "nearest": round(same_nearest(found, vectors[held], among, metric), 4),
        "texts": count,
        "fitted": len(rest),
    }


def same_nearest(found: Matrix, true: Matrix, among: Matrix, metric: MetricName, k: int = 10) -> float:
    """The share of the ``k`` nearest rows of ``among`` that is the same for both vectors, in the mean of all pairs."""
    scaled = _directions(found) * np.linalg.norm(true, axis=1, keepdims=True)
    both = (_nearest(vectors, among, metric, k) for vectors in (scaled, true))
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(*both, strict=True)]))


def _nearest(vectors: Matrix, among: Matrix, metric: MetricName, k: int) -> list[list[int]]:
    if metric == "cosine":
        among = _directions(among)
    scores = vectors @ among.T
    if metric == "l2":
        scores = 2 * scores - np.einsum("ij,ij->i", among, among)
    return [list(row) for row in np.argpartition(-scores, min(k, len(among)) - 1, axis=1)[:, :k]]


def _directions(vectors: Matrix) -> Matrix:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0))


def _fit_parts(names: list[str], vectors: Matrix, recipe: DistilRecipe) -> tuple[list[str], Matrix]:
    """Vectors of n-grams, whose mean comes near the vectors of the tokens that they are parts of."""
    shortest, longest = _PARTS
    marked = [f"<{name}>" for name in names]
    grams = [
        [word[at : at + size] for at in range(len(word)) for size in range(shortest, min(longest, len(word) - at) + 1)]
        for word in marked
    ]
    known = vocabulary(grams, recipe.vocabulary // 2, _PART_IN)
    if not known:
        return [], vectors[:0]
    problem = Fit(Bags.of(grams, known).means(), vectors, len(known), _PART_STRENGTH, plain=True)
    for _ in range(_PART_ROUNDS):
        problem.step()
    return [f"{PART}{gram}" for gram in known], problem.vectors


def _file(checkpoint: Path | None, name: str) -> Path | None:
    return None if checkpoint is None else checkpoint / f"{name}.safetensors"
