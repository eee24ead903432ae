"""Distilled encoders: fitted to rows that are embedded, and then equal in SQL to what was fitted."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from numpy.typing import NDArray
from sqlalchemy import Engine, create_engine
from typer.testing import CliRunner, Result

from embeddb.catalog.install import install
from embeddb.cli.distill import tell
from embeddb.cli.main import build
from embeddb.cli.output import out
from embeddb.encoders import Hashing
from embeddb.errors import CatalogError, EncoderError
from embeddb.insql import Fast, installed_fast, remove_fast
from embeddb.insql.distill import Tokenizer, put_distilled, subject, tokenize
from embeddb.local import LocalPostgres
from embeddb.spec import EmbeddingSpec
from embeddb.train.distil import DistilRecipe, distil, outdated, pieces_of, recipe_of, same_nearest
from embeddb.train.token_vectors import Bags, Fit, vocabulary
from tests.catalog.application import Database, connect, register
from tests.conftest import fresh_database
from tests.insql.conftest import InSQL

DIM = 24
RECIPE = DistilRecipe(config="english")
AGREEMENT = {"cosine": 1.0, "nearest": 1.0, "texts": 1}
SUBJECTS = ["planes", "boats", "bakers", "engines", "lawyers", "senators", "chocolate", "rivers", "gardens", "printers"]
VERBS = ["landing", "floating", "baking", "running", "arguing", "voting", "melting", "flowing", "growing", "printing"]
PLACES = ["water", "paris", "kitchens", "factories", "courts", "rome", "summer", "valleys", "spring", "offices"]


def sentences(count: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    words = [SUBJECTS, VERBS, PLACES, SUBJECTS, PLACES]
    return [f"The {' '.join(str(rng.choice(some)) for some in words)}." for _ in range(count)]


@dataclass(frozen=True)
class Additive:
    """An encoder whose vectors are sums of words' vectors, so that it can be distilled whole."""

    dim: int = DIM
    seed: int = 0
    offset: float = 0.0
    stems: bool = False
    asked: list[str] = field(default_factory=list, compare=False)
    modality: Any = "text"

    @property
    def fingerprint(self) -> str:
        return f"additive-{self.dim}-{self.seed}"

    @property
    def config(self) -> dict[str, Any]:
        return {"type": "additive", "dim": self.dim, "seed": self.seed}

    def encode_documents(self, inputs: Sequence[str]) -> NDArray[np.float32]:
        total = np.array([sum((self._word(w) for w in words(text)), np.zeros(self.dim)) for text in inputs])
        return np.asarray(total / np.linalg.norm(total, axis=1, keepdims=True), np.float32)

    def encode_queries(self, inputs: Sequence[str]) -> NDArray[np.float32]:
        self.asked.extend(inputs)
        return np.asarray(self.encode_documents(inputs) + np.float32(self.offset), np.float32)

    def _word(self, word: str) -> NDArray[np.float64]:
        word = word.removesuffix("s") if self.stems else word
        number = int.from_bytes(word.encode(), "little") % 2**32
        return np.random.default_rng((self.seed, number)).standard_normal(self.dim)


def words(text: str) -> list[str]:
    return [w for w in text.lower().replace(".", "").split() if w not in ("the", "a", "in")]


@dataclass(frozen=True)
class Shop:
    engine: Engine
    db: Database

    def table(self, name: str, texts: Sequence[str], encoder: Any, *, column: str = "vector") -> str:
        """A table of these texts, embedded and registered; the embedding's name."""
        self.db.execute(f"CREATE TABLE {name} (id int PRIMARY KEY, body text, embedding {column}({encoder.dim}))")
        storage: Any = column
        spec = EmbeddingSpec(
            table=name,
            column="embedding",
            sources=("body",),
            encoder=encoder.config,
            dim=encoder.dim,
            index=None,
            storage=storage,
        )
        register(self.db, spec)
        self.add(name, texts, encoder)
        return f"{name}.embedding"

    def add(self, name: str, texts: Sequence[str], encoder: Any, start: int = 0) -> None:
        with self.db.cursor() as cursor:
            cursor.executemany(
                f"INSERT INTO {name} VALUES (%s, %s, %s)",
                [
                    (start + n, text, json.dumps(vector.tolist()))
                    for n, (text, vector) in enumerate(zip(texts, encoder.encode_documents(texts), strict=True))
                ],
            )

    def distil(self, name: str, encoder: Any = None, recipe: DistilRecipe = RECIPE, **options: Any) -> Fast:
        with self.engine.begin() as connection:
            return distil(connection, name, encoder, recipe, **options)

    def embed(self, name: str, query: str, mode: str | None = None) -> NDArray[np.float32] | None:
        [(said,)] = self.db.execute("SELECT embeddb.embed(%s, %s, %s)::text", [name, query, mode]).fetchall()
        return None if said is None else np.array(json.loads(said), np.float32)


@pytest.fixture(scope="module")
def shop(server18: LocalPostgres) -> Iterator[Shop]:
    with fresh_database(server18) as url:
        engine = create_engine(url)
        with engine.begin() as connection:
            install(connection)
        with connect(engine) as db:
            yield Shop(engine, db)
        engine.dispose()


def test_comes_near_the_encoder_on_texts_that_it_never_saw(shop: Shop) -> None:
    encoder = Additive()
    name = shop.table("near", sentences(400), encoder)
    fast = shop.distil(name, encoder)
    asked = "Bakers are baking chocolate in Paris"
    found = shop.embed(name, asked)
    assert found is not None
    assert float(found @ encoder.encode_queries(["bakers baking chocolate paris"])[0]) > 0.98
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-5)
    assert fast.agreement is not None
    assert fast.agreement["cosine"] > 0.97
    assert fast.agreement["nearest"] > 0.6
    assert fast.agreement["texts"] == 21
    row = shop.db.execute("SELECT fast_cosine, fast_nearest FROM embeddb.coverage WHERE embedding = %s", [name])
    assert row.fetchall() == [(fast.agreement["cosine"], fast.agreement["nearest"])]
    with pytest.raises(psycopg.Error, match="cannot embed a text for near"):
        shop.embed(name, asked, "exact")


def test_sql_adds_up_what_was_fitted(shop: Shop) -> None:
    """Tokens times the root of how often they occur; halves and unknown words; the length of the true vectors."""
    name = shop.table("sums", sentences(60), Additive(dim=3))
    tokens = ["plane", "boat", "\x01<br", "\x01rea", "\x01ead", "\x01d>x"]
    vectors = np.array([[1, 2, 3], [-1, 0.5, 0], [3, 0, 0], [0, 3, 0], [0, 0, 3], [9, 9, 9]], np.float32)
    for half in (False, True):
        with shop.engine.begin() as connection:
            put_distilled(
                connection, subject(connection, name), "f", Tokenizer("lexemes", "pg_catalog.english", 3, 3), tokens,
                vectors, length=2.5, half=half, recipe={}, agreement=AGREEMENT,
            )  # fmt: skip
        for text, expected in {
            "A plane": vectors[0],
            "planes, and 4 planes with boats": vectors[0] * np.sqrt(2) + vectors[1],
            "bread": vectors[2:5].mean(0),
            "the boat with bread and bread": vectors[1] + np.sqrt(2) * vectors[2:5].mean(0),
        }.items():
            found = shop.embed(name, text, "fast")
            assert found is not None
            assert np.abs(found - 2.5 * expected / np.linalg.norm(expected)).max() < 1e-5
        assert shop.embed(name, "zzz") is None
        assert shop.embed(name, "the") is None
        assert shop.embed(name, "") is None


def test_without_parts_an_unknown_word_says_nothing(shop: Shop) -> None:
    name = shop.table("whole", sentences(200), Additive())
    shop.distil(name, Additive(), DistilRecipe(config="english", parts=False))
    assert shop.embed(name, "quixotic") is None
    both, alone = shop.embed(name, "quixotic planes"), shop.embed(name, "planes")
    assert both is not None
    assert alone is not None
    assert np.array_equal(both, alone)


@pytest.mark.parametrize(("stems", "better"), [(True, "pg_catalog.english"), (False, "pg_catalog.simple")])
def test_where_the_database_does_not_stem_english_is_tried(shop: Shop, stems: bool, better: str) -> None:
    encoder = Additive(stems=stems, seed=20 + stems)
    rng = np.random.default_rng(0)
    nouns = [f"{a}{b}" for a in ("plane", "boat", "baker", "engine", "lawyer") for b in "bdfgkmpt"]
    texts = [
        " ".join(rng.choice(nouns) + "s" * int(rng.integers(2)) for _ in range(5)) for _ in range(80 if stems else 800)
    ]
    name = shop.table(f"stems_{better[-6:]}", texts, encoder)
    with shop.engine.begin() as connection:
        connection.exec_driver_sql("SET LOCAL default_text_search_config = 'simple'")
        fast = distil(connection, name, encoder)
    assert shop.db.execute("SELECT config FROM embeddb.fast_encoder WHERE id = %s", [fast.id]).fetchall() == [(better,)]


def test_an_embedding_that_is_taken_back_takes_its_tokens_along(shop: Shop) -> None:
    encoder = Additive(seed=30)
    name = shop.table("gone", sentences(60), encoder)
    fast = shop.distil(name, encoder)
    shop.db.execute("SELECT embeddb.unregister(%s)", [name])
    assert fast.id not in [one.id for one in _installed(shop)]
    left = shop.db.execute("SELECT count(*) FROM embeddb.fast_token WHERE fast = %s", [fast.id])
    assert left.fetchall() == [(0,)]


@pytest.mark.parametrize(
    ("language", "texts", "asked"),
    [
        ("ko", ["비행기가 물에 착륙한다", "제빵사가 빵을 굽는다", "강이 계곡을 흐른다"], "비행기는 물에서"),
        ("ja", ["飛行機が水に着陸する", "パン屋がパンを焼く", "川が谷を流れる"], "飛行機は水上に"),
        ("th", ["เครื่องบินลงจอดบนน้ำ", "คนทำขนมปังอบขนมปัง", "แม่น้ำไหลผ่านหุบเขา"], "เครื่องบินบนน้ำ"),
    ],
)
def test_ngrams_for_languages_without_stemmers_or_spaces(
    shop: Shop, language: str, texts: list[str], asked: str
) -> None:
    encoder = Hashing(DIM)
    name = shop.table(f"grams_{language}", [texts[n % 3] + "一二三四五六七八九"[n % 9] for n in range(90)], encoder)
    shop.distil(name, encoder, DistilRecipe(tokenizer="ngrams", shortest=1, longest=2))
    found = shop.embed(name, asked)
    assert found is not None
    assert int(np.argmax(encoder.encode_documents(texts) @ found)) == 0
    with shop.engine.begin() as connection:
        long = "".join(map(chr, range(0x4E00, 0x4E00 + 1200)))
        [grams, many] = tokenize(connection, Tokenizer("ngrams", None, 1, 2), ["Añ１, b!", long])
        assert grams == ["a", "añ", "ñ", "ñ1", "1", "b"]
        assert many == [long[at : at + size] for at in range(1200) for size in (1, 2) if at + size <= 1200]


def test_a_token_takes_about_a_kilobyte(shop: Shop) -> None:
    name = shop.table("wide", sentences(60), Additive(dim=384))
    tokens = [f"token{n}" for n in range(5000)]
    vectors = np.random.default_rng(0).standard_normal((5000, 384)).astype(np.float32)
    shop.db.execute("TRUNCATE embeddb.fast_encoder CASCADE")
    with shop.engine.begin() as connection:
        put_distilled(
            connection, subject(connection, name), "f", Tokenizer("lexemes", "pg_catalog.english", 3, 5), tokens,
            vectors, length=1, half=True, recipe={}, agreement=AGREEMENT,
        )  # fmt: skip
    [(size,)] = shop.db.execute("SELECT pg_total_relation_size('embeddb.fast_token')").fetchall()
    assert size / 5000 <= 1100


def test_another_encoder_never_gets_its_tokens(shop: Shop) -> None:
    """Neither another version, nor one that the embedding is declared with now; and back again."""
    encoder = Additive(seed=5)
    name = shop.table("swapped", sentences(100), encoder)
    shop.distil(name, encoder)
    with shop.engine.begin() as connection:
        assert outdated(connection, name) is None
    shop.db.execute("UPDATE embeddb.encoder SET fingerprint = 'newer' WHERE config = %s", [json.dumps(encoder.config)])
    with pytest.raises(psycopg.Error, match="cannot embed"):
        shop.embed(name, "planes")
    with shop.engine.begin() as connection:
        assert outdated(connection, name) == "its encoder has changed"
    with pytest.raises(EncoderError, match="embedded by another version of"):
        shop.distil(name, encoder)
    shop.distil(name)  # the rows are of the newer one, as the catalog says
    assert shop.embed(name, "planes") is not None
    spec = EmbeddingSpec(
        table="swapped", column="embedding", sources=("body",), encoder=Hashing(DIM).config, dim=DIM, index=None
    )
    changes = {"encoder": spec.to_dict()["encoder"], "dim": DIM}
    shop.db.execute("SELECT embeddb.alter('swapped.embedding', %s::jsonb)", [json.dumps(changes)])
    with pytest.raises(psycopg.Error, match="cannot embed"):
        shop.embed(name, "planes")
    fast = shop.distil(name, Hashing(DIM))
    assert shop.embed(name, "planes") is not None
    assert [one.id for one in _installed(shop) if one.embedding == name] == [fast.id]
    left = shop.db.execute("SELECT count(*) FROM embeddb.encoder WHERE config = %s", [json.dumps(encoder.config)])
    assert left.fetchall() == [(0,)]


def test_a_table_that_grows_is_distilled_anew(shop: Shop) -> None:
    encoder = Additive()
    name = shop.table("growing", sentences(100), encoder)
    with shop.engine.begin() as connection:
        assert outdated(connection, name) == "nothing was distilled from it"
        assert recipe_of(connection, name) is None
    recipe = DistilRecipe(config="simple", seed=3)
    shop.distil(name, encoder, recipe, half=False)
    shop.add("growing", sentences(30, seed=1), encoder, start=1000)
    with shop.engine.begin() as connection:
        assert outdated(connection, name) == "it has 130 rows, and had 100"
        found, half = recipe_of(connection, name) or (None, None)
        assert (found, half) == (recipe, False)
    shop.distil(name, encoder, recipe)
    with shop.engine.begin() as connection:
        assert outdated(connection, name) is None
        assert [fast.embedding for fast in installed_fast(connection)].count(name) == 1


class Cut(Exception):
    """An interruption."""


@pytest.mark.parametrize("stage", ["Embedding pieces", "Reading", "Fitting", "Fitting to all"])
def test_a_run_that_was_cut_off_goes_on(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    monkeypatch.setattr("embeddb.train.token_vectors._SAVED", 0.0)
    monkeypatch.setattr("embeddb.train.distil._AT_ONCE", 50)
    table = "cut_" + stage.replace(" ", "_").lower()
    encoder = Additive()
    name = shop.table(table, sentences(150), encoder)
    recipe = DistilRecipe(config="english", pieces=120)

    def told(what: str, done: int, _total: int) -> None:
        if what == stage and done >= 2:
            raise Cut

    with pytest.raises(Cut):
        shop.distil(name, encoder, recipe, checkpoint=tmp_path, told=told)
    assert [fast for fast in _installed(shop) if fast.embedding == name] == []
    asked = len(encoder.asked)
    shop.distil(name, encoder, recipe, checkpoint=tmp_path)
    again = len(encoder.asked) - asked
    assert again == (71 if stage == "Embedding pieces" else 1)  # one to see whether questions are embedded otherwise
    assert list(tmp_path.iterdir()) == []
    found = shop.embed(name, "bakers in paris")
    shop.distil(name, encoder, recipe)
    whole = shop.embed(name, "bakers in paris")
    assert found is not None
    assert whole is not None
    assert np.abs(found - whole).max() < 5e-3


def _installed(shop: Shop) -> list[Fast]:
    with shop.engine.begin() as connection:
        return installed_fast(connection)


def test_an_encoder_that_embeds_questions_otherwise_is_learnt_from_questions(shop: Shop) -> None:
    encoder = Additive(offset=0.3)
    name = shop.table("questions", sentences(300), encoder)
    shop.distil(name, encoder)
    found = shop.embed(name, "printers printing in offices")
    [true] = encoder.encode_queries(["printers printing in offices"])
    assert found is not None
    assert float(found @ true / np.linalg.norm(true)) > 0.95
    assert np.linalg.norm(found) == pytest.approx(
        np.linalg.norm(encoder.encode_queries(sentences(300)), axis=1).mean(), rel=0.02
    )


def test_what_cannot_be_distilled_is_said(shop: Shop) -> None:
    name = shop.table("few", sentences(20), Additive(seed=8))
    with pytest.raises(EncoderError, match="few.embedding has 20 rows with a text and a vector: distilling needs 50"):
        shop.distil(name, Additive(seed=8))
    with pytest.raises(EncoderError, match="does not know its encoder's fingerprint yet: pass the encoder"):
        shop.distil(name)
    with pytest.raises(EncoderError, match="there is no text search configuration 'klingon', only .*english"):
        shop.distil(name, Additive(seed=8), DistilRecipe(config="klingon"))
    with pytest.raises(CatalogError, match="no embedding is called other.embedding"):
        shop.distil("other.embedding", Additive())
    short = shop.table("short", [f"n{n}" for n in range(60)], Additive(seed=9))
    with pytest.raises(EncoderError, match="needs 50 sentences as long as questions are, and the rows have 0"):
        shop.distil(short, Additive(seed=9, offset=0.5))
    with pytest.raises(EncoderError, match="no text search configuration"):
        shop.distil(short, Additive(seed=9), DistilRecipe(tokenizer="ngrams", config="english"))
    with shop.engine.begin() as connection, pytest.raises(CatalogError, match="no fast encoder here is called 'few'"):
        remove_fast(connection, "few")


def test_half_columns_can_be_learnt_from(shop: Shop) -> None:
    name = shop.table("halves", sentences(100), Additive(), column="halfvec")
    fast = shop.distil(name, Additive())
    assert fast.agreement is not None
    assert fast.agreement["cosine"] > 0.9


def test_an_analyst_searches_through_the_index(shop: Shop) -> None:
    """With SELECT alone, in a read-only transaction, by a generic plan."""
    encoder = Additive(seed=40)
    name = shop.table("read_only", sentences(300), encoder)
    shop.distil(name, encoder)
    db = shop.db
    db.execute("CREATE INDEX ON read_only USING hnsw (embedding vector_cosine_ops); CREATE ROLE fast_analyst")
    db.execute("SELECT embeddb.grant_reader('fast_analyst'); GRANT SELECT ON read_only TO fast_analyst")
    try:
        db.execute("SET ROLE fast_analyst; SET enable_seqscan = off; SET plan_cache_mode = force_generic_plan")
        db.execute("BEGIN TRANSACTION READ ONLY")
        db.execute(
            "PREPARE nearest (text) AS SELECT body FROM read_only"
            " ORDER BY embedding <=> embeddb.embed('read_only.embedding', $1) LIMIT 3"
        )
        plan = "\n".join(line for (line,) in db.execute("EXPLAIN EXECUTE nearest ('bakers')").fetchall())
        assert "Index Scan using read_only_embedding_idx" in plan
        assert all("bakers" in body for (body,) in db.execute("EXECUTE nearest ('bakers')").fetchall())
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            db.execute("SELECT * FROM embeddb.fast_token")
    finally:
        db.execute("ROLLBACK; RESET ROLE; RESET enable_seqscan; RESET plan_cache_mode; DEALLOCATE ALL")
        db.execute("DROP OWNED BY fast_analyst; DROP ROLE fast_analyst")


def test_cache_then_transformer_then_fast(insql18: InSQL) -> None:
    with connect(insql18.engine) as db:
        shop = Shop(insql18.engine, db)
        texts = sentences(60)
        name = shop.table("ordered", texts, insql18.encoder)
        with insql18.engine.begin() as connection:
            put_distilled(
                connection, subject(connection, name), insql18.encoder.fingerprint,
                Tokenizer("lexemes", "pg_catalog.english", 3, 5), ["plane"], np.eye(1, 384, dtype=np.float32),
                length=1, half=True, recipe={}, agreement=AGREEMENT,
            )  # fmt: skip
        [exact] = insql18.encoder.encode_queries(["planes"])
        for mode, expected in ((None, exact), ("exact", exact), ("fast", np.eye(1, 384)[0])):
            found = shop.embed(name, "planes", mode)
            assert found is not None
            assert np.abs(found - expected).max() < 1e-5
        db.execute("SELECT embeddb.remember(%s, 'planes', %s)", [name, json.dumps(np.eye(2, 384)[1].tolist())])
        for mode, place in ((None, 1), ("exact", 1), ("fast", 0)):
            found = shop.embed(name, "planes", mode)
            assert found is not None
            assert int(np.argmax(found)) == place
        db.execute("SELECT embeddb.unregister(%s)", [name])
        db.execute("DROP TABLE ordered CASCADE; DELETE FROM embeddb.query_cache")


# --- the fit -----------------------------------------------------------------------------------------------------


def test_conjugate_gradients_reach_the_ridge() -> None:
    texts = [words(text) for text in sentences(80)]
    known = vocabulary(texts, 1000, 1)
    targets = np.random.default_rng(0).standard_normal((80, 5)).astype(np.float32)
    problem = Fit(Bags.of(texts, known), targets, len(known), 0.3)
    for _ in range(60):
        problem.step()
    counts = np.array([[text.count(token) for token in known] for text in texts], float)
    rarity = np.log1p(len(texts) / (counts > 0).sum(0))
    matrix = np.sqrt(counts) * rarity
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    exact = rarity[:, None] * np.linalg.solve(matrix.T @ matrix + 0.3 * np.eye(len(known)), matrix.T @ targets)
    assert np.abs(problem.vectors - exact).max() < 1e-4
    assert np.allclose(Bags.of(texts, known).sums(problem.vectors), np.sqrt(counts) @ exact, atol=1e-3)


@pytest.mark.parametrize("metric", ["cosine", "l2", "inner_product"])
def test_agreement_is_the_share_of_equal_neighbours(metric: Any) -> None:
    rng = np.random.default_rng(0)
    found, true, rows = (rng.standard_normal((n, 4)).astype(np.float32) for n in (7, 7, 40))
    found *= np.linalg.norm(true, axis=1, keepdims=True) / np.linalg.norm(found, axis=1, keepdims=True)

    def nearest(vector: NDArray[np.float32]) -> set[int]:
        distances = {
            "cosine": -(rows @ vector) / np.linalg.norm(rows, axis=1),
            "l2": ((rows - vector) ** 2).sum(1),
            "inner_product": -(rows @ vector),
        }[metric]
        return set(np.argsort(distances)[:10].tolist())

    expected = np.mean([len(nearest(a) & nearest(b)) / 10 for a, b in zip(found, true, strict=True)])
    assert same_nearest(found, true, rows, metric) == pytest.approx(expected)


def test_pieces_are_sentences_each_once() -> None:
    texts = [
        "Planes land on water. They float!  They float!\nWhy do boats float?",
        "飛行機が水に着陸する。パン屋がパンを焼くのはなぜか。",
        "No.",
    ]
    found = pieces_of(texts, 10, 0)
    assert sorted(found) == sorted(
        ["Planes land on water.", "Why do boats float?", "飛行機が水に着陸する。", "パン屋がパンを焼くのはなぜか。"]
    )
    assert len(pieces_of(texts, 2, 1)) == 2
    assert all(a != b for a, b in pairwise(found))


# --- the commands ------------------------------------------------------------------------------------------------


def run(*arguments: str, error: bool = False) -> Result:
    result = CliRunner().invoke(build(), list(arguments), env={"COLUMNS": "200"})
    if not error:
        assert result.exit_code == 0, (result.output, result.exception)
    return result


def test_commands(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDDB_CACHE", str(tmp_path))
    url = shop.engine.url.render_as_string(hide_password=False)
    encoder = Hashing(DIM)
    name = shop.table("commanded", sentences(200), encoder)
    assert "has no SQL of its own" in str(run("sql", "install", name, "-u", url, error=True).exception)
    said = run("distill", name, "-u", url, "--config", "english").output
    assert "tokens" in said
    assert "of the ten nearest rows the same" in said
    assert shop.embed(name, "planes") is not None
    assert "no refresh is needed" in run("distill", name, "--refresh", "-u", url).output
    shop.add("commanded", sentences(90, seed=1), encoder, start=1000)
    assert "it has 290 rows, and had 200" in run("distill", name, "--refresh", "-u", url).output
    listed = run("sql", "list", "-u", url).output
    assert "distilled, lexemes" in listed
    [called] = [fast.name for fast in _installed(shop) if fast.embedding == name]
    run("sql", "remove", called, "-u", url)
    assert "no encoder here is called" in str(run("sql", "remove", called, "-u", url, error=True).exception)
    assert "tokens" in run("sql", "install", name, "--fast", "-u", url).output


def test_tokens_that_fit_badly_are_told_of() -> None:
    """Thai in lexemes: every sentence is one, which no other has."""
    far = Fast(1, "th", 1, "f", "th.v", "lexemes", 60, True, 1000, {"cosine": 0.0, "nearest": 0.1, "texts": 12}, None)
    with out.capture() as said:
        tell(far)
    assert "--tokenizer ngrams comes nearer" in said.get()
