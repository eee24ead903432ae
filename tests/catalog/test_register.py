"""Registering embeddings, from code and by SQL; views; backfill."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb
from sqlalchemy import Column, Engine, MetaData, Table, text
from sqlalchemy.dialects.postgresql import TEXT
from sqlalchemy.ext.asyncio import create_async_engine

from embeddb.catalog.install import install, uninstall
from embeddb.catalog.register import register as register_base
from embeddb.catalog.register import register_spec, register_sql, unregister, unregister_sql
from embeddb.encoders.identity import RUNNING, identity
from embeddb.encoders.registry import BUILT_IN
from embeddb.errors import CatalogError, CatalogMissing, DeclarationError
from embeddb.spec import EmbeddingSpec
from tests.catalog.application import ARTICLES, Database, connect, queued, register, spec, take


class Said:
    """What a declared column carries."""

    def __init__(self, spec: EmbeddingSpec) -> None:
        self.spec = spec


def declare(one: EmbeddingSpec) -> MetaData:
    metadata = MetaData()
    Table(one.table, metadata, Column(one.column, TEXT, info={"embeddb": Said(one)}), schema=one.schema)
    return metadata


def test_an_asynchronous_engine_is_told_the_way(catalog: Engine) -> None:
    engine = create_async_engine(catalog.url)
    with pytest.raises(CatalogError, match=r"not AsyncEngine; .*run_sync\(embeddb\.register"):
        register_base(engine, MetaData())  # type: ignore[arg-type]


def test_registering_again_makes_nothing_and_takes_no_lock(articles: Database, catalog: Engine) -> None:
    triggers = "SELECT oid, tgname FROM pg_trigger WHERE tgrelid = 'articles'::regclass"
    before = articles.execute(triggers).fetchall()
    with connect(catalog) as writer, writer.transaction():
        writer.execute("INSERT INTO articles (title) VALUES ('a')")
        articles.execute("SET lock_timeout = '200ms'")
        register(articles)
    assert articles.execute(triggers).fetchall() == before


def test_a_changed_declaration_is_taken_over(articles: Database) -> None:
    register(
        articles, spec(sources=("year", "title"), template="{year} {title}", metric="l2", encoder={"type": "other"})
    )
    articles.execute(
        "INSERT INTO articles (id, body) VALUES (1, 'unseen'); INSERT INTO articles (id, year) VALUES (2, 1)"
    )
    assert queued(articles) == [2]
    view = articles.execute("SELECT sources, metric, encoder ->> 'type' FROM embeddb.embeddings").fetchall()
    assert view == [(["year", "title"], "l2", "other")]


def test_many_processes_register_at_once(catalog: Engine, db: Database) -> None:
    db.execute(ARTICLES)

    def run(_: int) -> dict[str, int]:
        return register_base(catalog, declare(spec()))

    with ThreadPoolExecutor(4) as pool:
        [*found] = pool.map(run, range(4))
    assert found == [{"articles.embedding": found[0]["articles.embedding"]}] * 4


def test_the_same_name_has_the_same_id_everywhere(articles: Database) -> None:
    """So that pg_dump of two databases, or before and after a downgrade, is the same."""
    [(before,)] = articles.execute("SELECT id FROM embeddb.embedding")
    articles.execute("SELECT embeddb.unregister('articles.embedding'::text)")
    assert register(articles) == before


def test_unregister_leaves_the_table_alone(articles: Database) -> None:
    articles.execute("INSERT INTO articles (title) VALUES ('a')")
    articles.execute("SELECT embeddb.unregister('articles.embedding'::text)")
    articles.execute("INSERT INTO articles (title) VALUES ('b')")
    for table in ("job", "embedding", "encoder"):
        assert articles.execute("SELECT FROM embeddb." + table).fetchall() == []
    left = articles.execute("SELECT FROM pg_trigger WHERE tgrelid = 'articles'::regclass").fetchall()
    left += articles.execute("SELECT FROM pg_proc WHERE proname ~ '^on_[a-z]+_[0-9]+$'").fetchall()
    assert left == []


def test_two_embeddings_of_one_table(articles: Database) -> None:
    articles.execute("ALTER TABLE articles ADD second vector(3)")
    register(articles, spec(column="second", sources=("body",)))
    articles.execute("INSERT INTO articles (id, title) VALUES (1, 'a')")
    articles.execute("INSERT INTO articles (id, body) VALUES (2, 'b')")
    names = "SELECT embeddb.name(embedding), keys FROM embeddb.job ORDER BY id, 1"
    assert sorted(articles.execute(names).fetchall()) == [
        ("articles.embedding", [1]), ("articles.embedding", [2]), ("articles.second", [2])
    ]  # fmt: skip


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "table": ({"table": "nothing"}, "no such table"),
    "view": ({"table": "a_view"}, "no such table"),
    "source": ({"sources": ("title", "nothing")}, "no column nothing"),
    "column": ({"column": "nothing"}, "no column nothing"),
    "dimensions": ({"dim": 4}, r"vector\(3\).*vector\(4\)"),
    "storage": ({"storage": "halfvec"}, "halfvec"),
    "key": ({"table": "keyless"}, "no primary key"),
    "array key": ({"table": "array_key"}, "array"),
    "generated": ({"table": "generated", "sources": ("title",), "on_update": "clear"}, "keep"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_work_is_refused(catalog: Engine, db: Database, case: str) -> None:
    db.execute(
        ARTICLES + "; CREATE VIEW a_view AS TABLE articles;"
        "CREATE TABLE keyless (title text, body text, embedding vector(3));"
        "CREATE TABLE array_key (id int[] PRIMARY KEY, title text, body text, embedding vector(3));"
        "CREATE TABLE generated (id int PRIMARY KEY, body text, embedding vector(3),"
        " title text GENERATED ALWAYS AS (upper(body)) STORED)"
    )
    changes, message = WRONG[case]
    with pytest.raises(DeclarationError, match=message), catalog.begin() as connection:
        register_spec(connection, spec(**changes))


def test_unknown_and_ambiguous_names_say_what_there_is(articles: Database, catalog: Engine) -> None:
    with pytest.raises(CatalogError, match=r"There are: articles\.embedding"), catalog.begin() as connection:
        unregister(connection, "article.embedding")
    articles.execute("CREATE SCHEMA other; CREATE TABLE other.articles (LIKE articles INCLUDING ALL)")
    register(articles, spec(schema="other"))
    with pytest.raises(CatalogError, match="with its schema"), catalog.begin() as connection:
        unregister(connection, "articles.embedding")
    with catalog.begin() as connection:
        unregister(connection, "other.articles.embedding")
    articles.execute("DROP SCHEMA other CASCADE")


def test_a_table_is_looked_up_along_the_callers_path(db: Database) -> None:
    db.execute("CREATE SCHEMA app; SET search_path = app, public")
    db.execute(ARTICLES)
    register(db)
    assert db.execute("SELECT schema, name FROM embeddb.embeddings").fetchall() == [("app", "articles.embedding")]
    db.execute("SELECT embeddb.unregister('articles.embedding'::text); DROP SCHEMA app CASCADE")


def test_without_a_catalog_the_remedy_is_said(engine18: Engine) -> None:
    with engine18.begin() as connection:
        connection.execute(text(ARTICLES))
    with pytest.raises(CatalogMissing, match="embeddb schema install"):
        register_base(engine18, declare(spec()))
    with pytest.raises(CatalogMissing), engine18.begin() as connection:
        register_spec(connection, spec())
    assert [*register_base(engine18, declare(spec()), install=True)] == ["articles.embedding"]


def test_the_statements_for_a_script(db: Database) -> None:
    db.execute("""CREATE TABLE "it's" (id int PRIMARY KEY, "a\\b" text, v vector(3))""")
    odd = spec("it's", sources=("a\\b",), column="v", template="100% {a\\b}")
    db.execute(register_sql(odd))
    assert db.execute("SELECT spec FROM embeddb.embeddings").fetchall() == [(odd.to_dict(),)]
    db.execute(unregister_sql("it's.v"))
    assert db.execute("SELECT FROM embeddb.embedding").fetchall() == []


def test_backfill_queues_what_is_missing_once(db: Database) -> None:
    db.execute(ARTICLES)
    db.execute("INSERT INTO articles (id, title) SELECT i, 'x' FROM generate_series(1, 600) i")
    db.execute("INSERT INTO articles (id, title, embedding) VALUES (601, 'y', '[1,2,3]'), (602, NULL, NULL)")
    register(db)
    db.execute("INSERT INTO articles (id, title) VALUES (603, 'fresh')")
    assert queued(db) == [603]
    assert db.execute("SELECT embeddb.backfill('articles.embedding')").fetchall() == [(600,)]
    assert db.execute("SELECT embeddb.backfill('articles.embedding')").fetchall() == [(0,)]
    assert db.execute("SELECT DISTINCT priority FROM embeddb.job ORDER BY 1").fetchall() == [(0,), (10,)]
    assert sorted(take(db)) == [*range(1, 601), 603]
    assert db.execute("SELECT embeddb.backfill('articles.embedding', everything => true)").fetchall() == [(602,)]
    assert 602 not in queued(db)


def test_backfill_of_composite_keys(db: Database) -> None:
    db.execute("CREATE TABLE t (a int, b text, title text, body text, embedding vector(3), PRIMARY KEY (a, b))")
    db.execute("INSERT INTO t (a, b, title) VALUES (1, 'x', 't')")
    register(db, spec("t"))
    db.execute("INSERT INTO t (a, b, title) VALUES (2, 'y', 't')")
    assert db.execute("SELECT embeddb.backfill('t.embedding')").fetchall() == [(1,)]
    assert queued(db) == [[2, "y"], [1, "x"]]


def test_coverage(articles: Database) -> None:
    columns = (
        "SELECT embedding, rows, embedded, pending, failed, encoder, dim, index_valid, estimated FROM embeddb.coverage"
    )
    articles.execute(
        "INSERT INTO articles (id, title, embedding) VALUES (1, 'a', '[1,0,0]'), (2, 'b', NULL), (3, NULL, NULL)"
    )
    articles.execute("UPDATE articles SET title = title || '!'")
    articles.execute("INSERT INTO embeddb.failure SELECT id, '2', 'encode', 'no', 5 FROM embeddb.embedding")
    common = ("articles.embedding", 3, 1, 2, 1, "hashing", 3)
    assert articles.execute(columns).fetchall() == [(*common, None, False)]
    articles.execute("CREATE INDEX broken ON articles USING hnsw ((embedding::halfvec(3)) halfvec_cosine_ops)")
    assert articles.execute(columns).fetchall() == [(*common, True, False)]
    articles.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'broken'::regclass")
    assert articles.execute(columns).fetchall() == [(*common, False, False)]
    [(oldest,)] = articles.execute("SELECT oldest_pending FROM embeddb.coverage")
    assert oldest.total_seconds() > 0


def test_coverage_of_a_big_table_is_estimated(articles: Database) -> None:
    articles.execute("INSERT INTO articles (title, embedding) SELECT 'a', '[1,0,0]' FROM generate_series(1, 30)")
    articles.execute("INSERT INTO articles (title) SELECT 'a' FROM generate_series(1, 10); ANALYZE articles")
    articles.execute("UPDATE pg_class SET reltuples = 4000000 WHERE relname = 'articles'")
    view = "SELECT rows, embedded, estimated FROM embeddb.coverage"
    assert articles.execute(view).fetchall() == [(4000000, 3000000, True)]
    exact = articles.execute("SELECT (embeddb.count_rows(id, true)).* FROM embeddb.embedding").fetchall()
    assert exact == [(40, 30, False)]


def test_a_dropped_table_is_noticed_and_can_be_cleared(articles: Database) -> None:
    articles.execute("INSERT INTO articles (title) VALUES ('a')")
    articles.execute("DROP TABLE articles")
    [(problem,)] = articles.execute("SELECT embeddb.problems(id) FROM embeddb.embedding")
    assert "gone" in problem
    articles.execute("SELECT embeddb.unregister(id) FROM embeddb.embedding")
    assert articles.execute("SELECT FROM embeddb.job").fetchall() == []


def test_reinstalling_keeps_registrations_and_uninstalling_forgets_them(engine18: Engine) -> None:
    with connect(engine18) as db, engine18.connect() as connection:
        with connection.begin():
            install(connection)
        db.execute(ARTICLES)
        register(db)
        with connection.begin():
            install(connection)
        db.execute("INSERT INTO articles (title) VALUES ('a')")
        assert queued(db) == [1]
        with connection.begin():
            uninstall(connection)
        db.execute("INSERT INTO articles (title) VALUES ('a')")


def test_another_encoder_is_refused_once_there_are_vectors(articles: Database) -> None:
    other = spec(encoder={"type": "hashing", "dim": 3, "seed": 1})
    register(articles, other)
    register(articles)
    articles.execute("INSERT INTO articles (title, embedding) VALUES ('a', '[1,0,0]')")
    with pytest.raises(psycopg.Error, match="its vectors are by another encoder") as refused:
        register(articles, other)
    assert "reembed" in str(refused.value.diag.message_hint)
    register(articles, spec(mode="inline"))
    assert queued(articles) == []


def test_an_encoder_that_is_run_otherwise_is_the_same(articles: Database) -> None:
    def encoder(**settings: Any) -> dict[str, Any]:
        return {"type": "openai", "model": "m", "dim": 3, **settings}

    def registered() -> tuple[Any, ...]:
        query = "SELECT encoder_id, encoder, spec -> 'encoder', fingerprint FROM embeddb.embeddings WHERE name = %s"
        [row] = articles.execute(query, ["articles.embedding"]).fetchall()
        return row

    register(articles, spec(encoder=encoder()))
    articles.execute("INSERT INTO articles (id, title, embedding) VALUES (1, 'a', '[1,2,3]')")
    articles.execute("UPDATE embeddb.encoder SET fingerprint = 'noted'")
    before = registered()
    elsewhere = encoder(base_url="http://elsewhere/v1", batch_size=7, api_key_env="OTHER_API_KEY")
    register(articles, spec(encoder=elsewhere))
    assert registered() == (before[0], elsewhere, elsewhere, "noted")
    # Another embedding has the first configuration for itself; either may take the other's.
    articles.execute("ALTER TABLE articles ADD COLUMN second vector(3)")
    register(articles, spec(column="second", encoder=encoder()))
    register(articles, spec(encoder=encoder()))
    assert registered()[0] == before[0]
    assert registered()[2] == encoder()
    assert queued(articles) == []
    for other in (encoder(model="n"), encoder(query_prompt="query: "), {"type": "else", "model": "m"}):
        with pytest.raises(psycopg.errors.Error, match="by another encoder"):
            register(articles, spec(encoder=other))


CONFIGS: list[dict[str, Any]] = [
    {"type": name, "model": "m", **dict.fromkeys(RUNNING, 1), "encoder": {"type": inner, **dict.fromkeys(RUNNING, 2)}}
    for name in (*BUILT_IN, "other")
    for inner in ("openai", "other")
]


def test_the_database_knows_the_same_settings(articles: Database) -> None:
    for config in [*CONFIGS, {"type": "item2vec", "encoder": "a name"}, {"model": "of no type", "timeout": 1}]:
        [(found,)] = articles.execute("SELECT embeddb.identity_of(%s)", [Jsonb(config)])
        assert found == identity(config)


def test_while_an_encoder_is_changed_both_declarations_are_at_home(articles: Database) -> None:
    articles.execute("INSERT INTO articles (title, embedding) VALUES ('a', '[1,0,0]')")
    other = spec(encoder={"type": "hashing", "dim": 3, "seed": 1})
    articles.execute("SELECT embeddb.expand(%s::jsonb)", [other.to_json()])
    view = "SELECT name, encoder -> 'seed' FROM embeddb.embeddings ORDER BY name"
    before = articles.execute(view).fetchall()
    register(articles, other)
    register(articles)
    assert (
        articles.execute(view).fetchall() == before == [("articles.embedding", None), ("articles.embedding__next", 1)]
    )


@pytest.mark.parametrize("changes", [{"sources": ("title",)}, {"template": "{title}: {body}"}])
def test_rows_are_queued_where_their_text_changes(articles: Database, changes: dict[str, Any]) -> None:
    articles.execute("INSERT INTO articles (title, embedding) VALUES ('a', '[1,0,0]'), ('b', '[1,0,0]')")
    register(articles, spec(**changes))
    assert queued(articles) == [1, 2]
    register(articles, spec(**changes))
    assert queued(articles) == [1, 2]
