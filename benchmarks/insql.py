"""Encoders in SQL: how near fast ones come to the true one, how long they take to make and to use; and the same of the
transformer itself.

    python -m benchmarks.insql ../shared/data --plot insql.png

``data`` holds Cranfield (``cranfield``) and the STS benchmark (``sts``). Vectors of the true encoder, all-MiniLM-L6-v2,
are kept below ``--cache``. The questions, and what is relevant for them, are seen by no fit.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql
from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine, create_engine

from benchmarks.harness import Figure, machine, plot, report, take_turns
from embeddb.catalog.install import install
from embeddb.encoders import SentenceTransformer
from embeddb.insql import Fast, install_transformer
from embeddb.local import LocalPostgres
from embeddb.spec import EmbeddingSpec
from embeddb.train.distil import DistilRecipe, distil
from embeddb.vectors.wire import pack

Matrix = NDArray[np.float32]
#: By question and document: how much it is worth.
Relevance = Mapping[int, Mapping[int, float]]


@dataclass(frozen=True)
class Collection:
    """Documents and questions."""

    name: str
    documents: Sequence[str]
    questions: Sequence[str]
    relevance: Relevance


def cranfield(folder: Path) -> Collection:
    """Title and abstract; grades 1 to 4 are worth 4 to 1."""
    documents = []
    for part in re.split(r"(?m)^\.I ", (folder / "cran.all.1400").read_text())[1:]:
        title = re.search(r"\.T\n(.*?)\n?\.A\n", part, re.DOTALL)
        body = re.search(r"\n\.W\n?(.*)", part, re.DOTALL)
        documents.append("\n".join(" ".join(found[1].split()) for found in (title, body) if found))
    parts = (folder / "cran.qry").read_text().split(".I ")[1:]
    relevance: dict[int, dict[int, float]] = {}
    for line in (folder / "cranqrel").read_text().splitlines():
        question, document, grade = map(int, line.split())
        relevance.setdefault(question - 1, {})[document - 1] = 5 - grade if grade > 0 else 0
    return Collection("cranfield", documents, [" ".join(p.split(".W", 1)[1].split()) for p in parts], relevance)


def sts(folder: Path) -> Collection:
    """Second sentences are documents, first ones questions; a pair rated 3 or better is relevant."""
    rows = [line.split("\t") for line in (folder / "sts-dev.csv").read_text().splitlines()]
    documents = sorted({row[6] for row in rows})
    questions = sorted({row[5] for row in rows} - set(documents))
    places, asked = {d: n for n, d in enumerate(documents)}, {q: n for n, q in enumerate(questions)}
    relevance: dict[int, dict[int, float]] = {}
    for row in rows:
        if row[5] in asked and float(row[4]) >= 3:
            relevance.setdefault(asked[row[5]], {})[places[row[6]]] = float(row[4])
    return Collection("sts", documents, questions, relevance)


def sentences(texts: Sequence[str], count: int) -> list[str]:
    """The first ``count`` sentences of these texts, each once."""
    found = {s.strip(): None for text in texts for s in re.split(r"\s\.\s|\n", text) if len(s.split()) >= 4}
    return list(found)[:count]


def ndcg(ranked: Mapping[int, Sequence[int]], relevance: Relevance) -> float:
    """nDCG@10 in the mean of all questions that something is relevant for."""
    discount = 1 / np.log2(np.arange(2, 12))
    scores = []
    for question, grades in relevance.items():
        ideal = sorted(grades.values(), reverse=True)[:10]
        if ideal and ideal[0] > 0:
            gains = [grades.get(document, 0) for document in ranked[question][:10]]
            scores.append(float(gains @ discount[: len(gains)]) / float(ideal @ discount[: len(ideal)]))
    return float(np.mean(scores))


class Bench:
    """A database, the true encoder, and a folder for its vectors."""

    def __init__(self, engine: Engine, dsn: str, cache: Path) -> None:
        self.engine, self.cache = engine, cache
        self.db = psycopg.connect(dsn, autocommit=True)
        self.encoder = SentenceTransformer("all-MiniLM-L6-v2", device="cpu")

    def vectors(self, name: str, texts: Sequence[str], encode: Callable[[Sequence[str]], Matrix]) -> Matrix:
        """Those of the true encoder, made once."""
        file = self.cache / f"{name}-{len(texts)}.npy"
        if not file.exists():
            np.save(file, encode(texts))
        found: Matrix = np.load(file)
        return found

    def fill(self, table: str, texts: Sequence[str]) -> None:
        """A table of these texts, embedded."""
        name = sql.Identifier(table)
        self.db.execute(sql.SQL("CREATE TABLE {} (id int PRIMARY KEY, body text, embedding vector(384))").format(name))
        spec = EmbeddingSpec(
            table=table, column="embedding", sources=("body",), encoder=self.encoder.config, dim=384, index=None
        )
        self.db.execute("SELECT embeddb.register(%s::jsonb, %s)", [spec.to_json(), self.encoder.fingerprint])
        rows = zip(texts, self.vectors(table, texts, self.encoder.encode_documents), strict=True)
        statement = sql.SQL("COPY {} FROM STDIN WITH (FORMAT binary)").format(name)
        with self.db.cursor().copy(statement) as copy:
            copy.set_types(["int4", "text", "bytea"])
            for number, (body, vector) in enumerate(rows):
                copy.write_row((number, body, pack(vector)))
        self.db.execute("DELETE FROM embeddb.job; ANALYZE")

    def distil(self, table: str, recipe: DistilRecipe) -> tuple[Fast, float]:
        """The fast encoder, and seconds."""
        begin = time.perf_counter()
        with self.engine.begin() as connection:
            fast = distil(connection, f"{table}.embedding", self.encoder if recipe.pieces else None, recipe)
        return fast, time.perf_counter() - begin

    def ask(self, table: str, questions: Sequence[str], mode: str) -> dict[int, list[int]]:
        """The ten nearest documents of each, everything in SQL."""
        statement = sql.SQL(
            "SELECT id FROM {} ORDER BY embedding <=> (SELECT embeddb.embed({}, %s, {})), id LIMIT 10"
        ).format(sql.Identifier(table), f"{table}.embedding", mode)
        return {n: [row[0] for row in self.db.execute(statement, [q])] for n, q in enumerate(questions)}


@contextmanager
def bench(cache: Path) -> Iterator[Bench]:
    """On an embedded server."""
    with LocalPostgres(version=18) as server:
        engine = create_engine(server.url)
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE EXTENSION IF NOT EXISTS vector")
            install(connection)
        made = Bench(engine, server.dsn, cache)
        yield made
        made.db.close()
        engine.dispose()


def quality(made: Bench, collection: Collection, recipe: DistilRecipe, table: Table) -> None:
    """One line: nDCG@10 by the true encoder, and what is kept of it."""
    made.fill(collection.name, collection.documents)
    fast, seconds = made.distil(collection.name, recipe)
    reached, kept = measured(made, collection, "fast") if collection.relevance else (math.nan, math.nan)
    agreement = fast.agreement or {}
    [(size, tokens)] = made.db.execute(
        "SELECT pg_total_relation_size('embeddb.fast_token'), (SELECT count(*) FROM embeddb.fast_token)"
    ).fetchall()
    table.add_row(
        collection.name,
        f"{len(collection.documents):,}",
        f"{reached:.4f}",
        f"{kept:.3f}",
        f"{agreement['cosine']:.3f}, {agreement['nearest']:.3f}",
        f"{seconds:.1f}",
        f"{fast.tokens:,}",
        f"{size / tokens / 1000:.2f}",
    )


def measured(made: Bench, collection: Collection, mode: str) -> tuple[float, float]:
    """nDCG@10 by the true encoder in Python, and the share of it that the one in SQL keeps."""
    documents = made.vectors(collection.name, collection.documents, made.encoder.encode_documents)
    questions = made.vectors(f"{collection.name}-questions", collection.questions, made.encoder.encode_queries)
    true = {n: row.tolist() for n, row in enumerate(np.argsort(-(questions @ documents.T), axis=1)[:, :10])}
    reached = ndcg(true, collection.relevance)
    return reached, ndcg(made.ask(collection.name, collection.questions, mode), collection.relevance) / reached


def latency(made: Bench, collection: Collection, runs: int) -> dict[str, list[float]]:
    """Seconds for a hundred calls with 12 words, all different: an empty function, and embed."""
    words = " ".join(collection.documents).split()
    asked = iter([" ".join(words[at : at + 12]) for at in range(0, 12 * 200 * (runs + 1), 12)])
    made.db.execute(
        "CREATE FUNCTION pg_temp.empty(name text, query text) RETURNS vector LANGUAGE plpgsql STABLE"
        " AS 'BEGIN RETURN NULL; END'"
    )

    def call(statement: sql.Composed) -> Callable[[], None]:
        def run() -> None:
            for _ in range(100):
                made.db.execute(statement, [next(asked)], prepare=True)

        return run

    name = sql.Literal(f"{collection.name}.embedding")
    return take_turns(
        {
            "an empty function": call(sql.SQL("SELECT pg_temp.empty({}, %s) IS NULL").format(name)),
            "embed, fast": call(sql.SQL("SELECT embeddb.embed({}, %s, 'fast') IS NULL").format(name)),
        },
        runs,
    )


def of_tokens(tokens: int, words: Iterator[str], count: Callable[[str], int]) -> Iterator[str]:
    """Texts of so many tokens, with those that go around every text."""
    kept: list[str] = []
    for word in words:
        kept.append(word)
        size = count(" ".join(kept))
        if size == tokens:
            yield " ".join(kept)
        if size >= tokens:
            kept.clear()


def exact(made: Bench, collection: Collection, runs: int, tokens: int) -> dict[str, list[float]]:
    """Seconds for ten texts of so many tokens, one by one and all different: in sentence-transformers, and in SQL."""
    model = made.encoder.opened()[0]
    words = iter(" ".join(collection.documents).split())
    texts = of_tokens(tokens, words, lambda text: len(model.tokenizer(text)["input_ids"]))
    embed = sql.SQL("SELECT embeddb.embed({}, %s, 'exact')").format(f"{collection.name}.embedding")

    def run(embed_one: Callable[[str], object]) -> Callable[[], None]:
        return lambda: [embed_one(next(texts)) for _ in range(10)].clear()

    return take_turns(
        {"encode": run(model.encode), "embed": run(lambda text: made.db.execute(embed, [text]).fetchall())}, runs
    )


def main() -> None:
    """Print the tables, save the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("data", type=Path)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "embeddb-benchmarks")
    parser.add_argument("--recipe", type=json.loads, default={}, help="Members of DistilRecipe, as JSON.")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    recipe = DistilRecipe(**{"config": "english", **options.recipe})
    console = Console(width=150)
    with bench(options.cache) as made:
        heads = ("collection", "rows", "nDCG@10 in Python", "share kept, fast in SQL", "agreement: cosine, nearest")
        table = Table(*heads, "seconds to distil", "tokens", "kB a token, with index")
        cran = cranfield(options.data / "cranfield")
        for collection in (cran, sts(options.data / "sts"),
                           Collection("sentences", sentences(cran.documents, 10_000), cran.questions, {})):  # fmt: skip
            quality(made, collection, recipe, table)
        console.print(machine(), table)
        times = latency(made, cran, options.runs)
        with made.engine.begin() as connection:
            install_transformer(connection, made.encoder)
        _, kept = measured(made, cran, "exact")
        console.print(f"transformer in SQL: nDCG@10 of cranfield / the same in Python: {kept:.4f}, 1.00 is wanted")
        for tokens, most in ((8, 3), (20, 6)):
            measure = exact(made, cran, options.runs, tokens)
            ratios = [ours / theirs for ours, theirs in zip(measure["embed"], measure["encode"], strict=True)]
            own, other = (100 * np.median(measure[way]) for way in ("embed", "encode"))
            console.print(
                f"{tokens} tokens: embed, exact {own:.1f} ms, SentenceTransformer.encode {other:.1f} ms; ratio "
                f"{np.median(ratios):.2f} (median; {min(ratios):.2f} to {max(ratios):.2f}), at most {most} is wanted"
            )
    title = "embed of 12 words, fast"
    report(title, times, [Figure("embed / an empty function", "embed, fast", "an empty function")], 100, "calls")
    beyond = [1000 * (a - b) / 100 for a, b in zip(times["embed, fast"], times["an empty function"], strict=True)]
    console.print(f"beyond an empty function: {np.median(beyond):.2f} ms (median), at most 1 ms is wanted")
    if options.plot:
        plot(options.plot, title, times, 100, "calls")


if __name__ == "__main__":
    main()
