"""Searches in SQL alone: the functions beside a table, and those that take an embedding's name."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql
from sqlalchemy import Engine, text

from embeddb.catalog.install import install, uninstall
from embeddb.catalog.register import unregister
from embeddb.local import LocalPostgres
from embeddb.orm.effort import UNFITTED, candidates
from embeddb.spec import HNSW, IVFFlat
from tests.catalog.application import Database, connect, register, spec
from tests.insql.shelf import KINDS, QUERY, Shelf, remember, shelve

SEARCH = f"SELECT id, distance, score FROM articles_search('{QUERY}', 10)"


@pytest.fixture
def shelf(catalog: Engine, db: Database) -> Iterator[Shelf]:
    """600 rows, cosine, HNSW; small tables would be scanned."""
    shelf = shelve(catalog, db)
    db.execute("SET enable_seqscan = off; SET enable_sort = off")
    yield shelf
    db.execute("ROLLBACK; DROP VIEW IF EXISTS nearest, dashboard")


def functions(db: Database) -> list[str]:
    """The functions of the public schema that are the catalog's, with their arguments and results."""
    rows = db.execute(
        "SELECT format('%s(%s) %s', p.proname, pg_get_function_arguments(p.oid), pg_get_function_result(p.oid))"
        " FROM pg_proc p WHERE prosrc LIKE '-- embeddb %' ORDER BY 1"
    ).fetchall()
    return [name for (name,) in rows]


@pytest.mark.parametrize(
    ("changes", "dim"),
    [
        ({}, 16),
        ({"metric": "l2", "storage": "halfvec"}, 16),
        ({"metric": "inner_product", "index": HNSW(cast="halfvec")}, 16),
        ({"metric": "l1"}, 16),
        ({"index": HNSW(prefix=16)}, 32),
        ({"index": HNSW(cast="binary"), "metric": "l2"}, 64),
        ({"index": HNSW(cast="binary", prefix=64), "storage": "halfvec"}, 96),
        ({"index": IVFFlat(lists=5)}, 16),
        ({"index": None}, 16),
    ],
    ids=["cosine", "l2 halfvec", "cast", "l1", "prefix", "binary", "binary prefix", "ivfflat", "no index"],
)
def test_the_nearest_rows_by_the_declared_index(
    catalog: Engine, db: Database, changes: dict[str, Any], dim: int
) -> None:
    shelf = shelve(catalog, db, dim=dim, **changes)
    db.execute("SET enable_seqscan = off")
    found = shelf.rows(SEARCH)
    keys = [key for key, _, _ in found]
    assert len(set(keys) & set(shelf.nearest(10))) >= 9
    expected = shelf.distances()[np.array(keys) - 1]
    distances = np.array([distance for _, distance, _ in found])
    loose = 5e-3 if changes.get("storage") or changes.get("index") == HNSW(cast="halfvec") else 1e-5
    assert np.allclose(distances, expected, rtol=loose, atol=loose)
    assert distances.tolist() == sorted(distances.tolist())
    score = {"cosine": 1 - distances, "inner_product": -distances}.get(shelf.metric, 1 / (1 + distances))
    assert np.allclose([score for _, _, score in found], score)
    indexed = "articles_embedding" in shelf.plan(SEARCH)
    assert indexed == (changes.get("index", HNSW()) is not None)
    assert [tuple(row) for row in shelf.rows("SELECT key::bigint, distance, score FROM embeddb.search(%s, %s)",
                                             "articles.embedding", QUERY)] == found  # fmt: skip


@pytest.mark.parametrize("level", [None, 0.99])
def test_as_many_candidates_as_in_python(catalog: Engine, db: Database, level: float | None) -> None:
    for dim in (16, 48, 64, 100, 128, 200, 256, 384):
        for index in (HNSW(cast="binary"), HNSW(cast="binary", prefix=12), HNSW(prefix=12)):
            declared = spec(index=index, dim=dim).to_json()
            [(composed,)] = db.execute(
                "SELECT embeddb.candidates_sql(1, %s, 'k', %s)", [declared, UNFITTED[level][3]]
            ).fetchall()
            assert f"GREATEST(100, {candidates(index, dim, level)} OPERATOR" in composed


def test_more_rows_than_a_scan_keeps_and_settings_that_stay_in_the_statement(shelf: Shelf) -> None:
    """ef_search is 40 unless it is set, and 1,000 at most."""
    keys = [key for key, _, _ in shelf.rows(f"SELECT * FROM articles_search('{QUERY}', 300)")]
    assert len(set(keys) & set(shelf.nearest(300))) >= 297
    assert shelf.rows("SHOW hnsw.ef_search") == [("40",)]
    assert len(shelf.rows(f"SELECT * FROM articles_search('{QUERY}', 600)")) == 600
    assert shelf.rows(f"SELECT * FROM articles_search('{QUERY}', 0)") == []
    most = 2**31 - 1
    assert len(shelf.rows(f"SELECT * FROM articles_search('{QUERY}', {most})")) == 600
    assert len(shelf.rows(f"SELECT * FROM articles_hybrid('{QUERY}', {most})")) == 600
    assert len(shelf.rows(f"SELECT * FROM articles_similar(1, {most})")) == 599
    with pytest.raises(psycopg.errors.InvalidRowCountInLimitClause):
        shelf.rows(f"SELECT * FROM articles_search('{QUERY}', -1)")


def test_what_the_functions_look_like(shelf: Shelf) -> None:
    result = "TABLE(id integer, distance double precision, score double precision)"
    assert functions(shelf.db) == [
        f"articles_hybrid(query text, k integer DEFAULT 10) {result}",
        f"articles_search(query text, k integer DEFAULT 10) {result}",
        f"articles_similar(of_id integer, k integer DEFAULT 10) {result}",
    ]


@pytest.mark.parametrize(
    "statement",
    [
        f"SELECT a.title FROM articles_search('{QUERY}', 2) s JOIN articles a USING (id) ORDER BY s.distance",
        f"SELECT title FROM articles WHERE id IN (SELECT id FROM articles_search('{QUERY}', 2))"
        " ORDER BY array_position(ARRAY(SELECT id FROM nearest), id)",
        f"SELECT s.title FROM (VALUES ('{QUERY}'), ('other')) q (q)"
        " CROSS JOIN LATERAL (SELECT a.title FROM articles_search(q.q, 2) n JOIN articles a USING (id)"
        " ORDER BY n.distance) s LIMIT 2",
        "SELECT a.title FROM nearest n JOIN articles a USING (id) ORDER BY n.distance",
    ],
    ids=["join", "in", "lateral", "view"],
)
def test_an_index_serves_them_wherever_they_stand(shelf: Shelf, statement: str) -> None:
    remember(shelf.db, "other", shelf.vectors[10])
    shelf.db.execute(f"CREATE VIEW nearest AS SELECT * FROM articles_search('{QUERY}', 2)")
    assert "Index Scan using ix_articles_embedding_hnsw" in shelf.plan(statement)
    first, second = shelf.nearest(2)
    assert shelf.rows(statement) == [(f"title {first}",), (f"title {second}",)]


def test_prepared_and_generic_plans(shelf: Shelf) -> None:
    shelf.db.execute("PREPARE search (text, int) AS SELECT id FROM articles_search($1, $2)")
    expected = [(key,) for key in shelf.nearest(3)]
    for mode in ("auto", "force_generic_plan", "force_custom_plan"):
        shelf.db.execute(f"SET plan_cache_mode = {mode}")
        assert "Index Scan" in shelf.plan(f"EXECUTE search ('{QUERY}', 3)")
        for _ in range(7):
            assert shelf.rows(f"EXECUTE search ('{QUERY}', 3)") == expected


def test_in_a_read_only_transaction(shelf: Shelf) -> None:
    shelf.db.execute("BEGIN TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE")
    for call in (
        f"articles_search('{QUERY}')",
        "articles_similar(1)",
        f"articles_hybrid('{QUERY}')",
        f"embeddb.search('articles.embedding', '{QUERY}')",
        "embeddb.neighbors('articles.embedding', '1')",
        "embeddb.duplicates('articles.embedding', 0.5)",
        f"embeddb.classify('articles.embedding', 'kind', '{QUERY}')",
        "embeddb.cluster('articles.embedding', 3, 100)",
    ):
        assert shelf.rows("SELECT * FROM " + call), call
    shelf.db.execute("COMMIT")


def test_no_row_where_there_is_no_vector(shelf: Shelf) -> None:
    assert shelf.rows("SELECT * FROM articles_search(NULL)") == []
    assert shelf.rows("SELECT * FROM articles_similar(NULL)") == []
    assert shelf.rows("SELECT * FROM articles_similar(-1)") == []
    assert shelf.rows("SELECT * FROM embeddb.search('articles.embedding', NULL)") == []
    assert shelf.rows("SELECT * FROM embeddb.neighbors('articles.embedding', NULL)") == []
    shelf.db.execute("UPDATE articles SET embedding = NULL WHERE id = 5")
    assert shelf.rows("SELECT * FROM articles_similar(5)") == []
    assert 5 not in [key for key, _, _ in shelf.rows(f"SELECT * FROM articles_search('{QUERY}', 1000)")]
    with pytest.raises(psycopg.Error, match="cannot embed"):
        shelf.rows("SELECT * FROM articles_search('never heard of')")


def test_rows_like_a_row(shelf: Shelf) -> None:
    expected = shelf.nearest(10, shelf.vectors[6], without=7)
    assert "Index Scan using ix_articles_embedding_hnsw" in shelf.plan("SELECT * FROM articles_similar(7)")
    assert [key for key, _, _ in shelf.rows("SELECT * FROM articles_similar(7)")] == expected
    found = shelf.rows(
        "SELECT key FROM embeddb.neighbors('articles.embedding', '7', filter => '{\"year\": {\"<\": 1930}}')"
    )
    old = [key for key in shelf.nearest(600, shelf.vectors[6], without=7) if key % 60 < 30]
    assert [key for (key,) in found] == old[:10]


def scans(db: Database, index: str) -> int:
    """Scans of an index that this session has not reported yet; in a transaction it reports nothing."""
    [(count,)] = db.execute("SELECT pg_stat_get_xact_numscans(%s::regclass)", [index]).fetchall()
    return int(count)


def test_vectors_and_full_text_together(shelf: Shelf) -> None:
    """A row that only one of the two finds is found; one that both find comes first."""
    db = shelf.db
    second = shelf.nearest(2)[1]
    db.execute(f"UPDATE articles SET body = 'planes may land on water' WHERE id IN (599, {second})")
    hybrid = f"SELECT id, distance IS NULL FROM articles_hybrid('{QUERY}', 20)"
    slowly = shelf.rows(hybrid)
    assert slowly[0] == (second, False)
    found = [key for key, _ in slowly]
    assert {599, *shelf.nearest(10)} < set(found)
    document = "to_tsvector('english', coalesce(title, '') || ' ' || coalesce(body, ''))"
    db.execute(f"CREATE INDEX full_text ON articles USING gin (({document}))")
    assert [tuple(row) for row in shelf.rows("SELECT embeddb.refresh(id) FROM embeddb.embedding")] == [(True,)]
    db.execute("BEGIN")
    before = scans(db, "full_text"), scans(db, "ix_articles_embedding_hnsw")
    assert shelf.rows(hybrid) == slowly
    assert (scans(db, "full_text"), scans(db, "ix_articles_embedding_hnsw")) == (before[0] + 1, before[1] + 1)
    db.execute("COMMIT")
    [(score,)] = shelf.rows(f"SELECT score FROM articles_hybrid('{QUERY}', 1)")
    ranks = sorted((shelf.rows(f"SELECT id FROM articles_search('{QUERY}', 2)").index((second,)) + 1, 1))
    assert score == pytest.approx(sum(1 / (60 + rank) for rank in ranks), rel=0.01)


def test_full_text_by_a_column_of_its_own(shelf: Shelf) -> None:
    """The configuration is that of the column: in German "Häuser" are "Haus"."""
    db = shelf.db
    db.execute("ALTER TABLE articles ADD words tsvector GENERATED ALWAYS AS (to_tsvector('german', body)) STORED")
    db.execute("CREATE INDEX by_words ON articles USING gin (words)")
    db.execute("UPDATE articles SET body = 'Häusern' WHERE id = 17; SELECT embeddb.refresh(id) FROM embeddb.embedding")
    remember(db, "Häuser", shelf.query)
    db.execute("BEGIN")
    before = scans(db, "by_words")
    assert 17 in [key for key, *_ in shelf.rows("SELECT * FROM articles_hybrid('Häuser', 60)")]
    assert scans(db, "by_words") == before + 1


def test_an_effort_that_was_fitted(shelf: Shelf) -> None:
    """It stands in the comment of the index, and holds from the next search on."""
    comment = "COMMENT ON INDEX ix_articles_embedding_hnsw IS 'embeddb recall@10: 0.9=14 0.95=22 default=123'"
    shelf.db.execute(comment)
    shelf.db.execute("BEGIN")
    for k, ef_search in ((10, "123"), (5, "123"), (20, "246"), (1000, "1000")):
        shelf.rows(f"SELECT * FROM articles_search('{QUERY}', {k})")
        assert shelf.rows("SHOW hnsw.ef_search") == [(ef_search,)]
    shelf.db.execute("COMMIT")
    assert shelf.rows("SHOW hnsw.ef_search") == [("40",)]


def test_keys_of_several_columns_and_names_that_need_quotes(db: Database) -> None:
    """Columns called as parameters are, and a name that reads like SQL."""
    db.execute(
        'CREATE SCHEMA "My Shop"; CREATE TABLE "My Shop"."Odd ""Name%" ("k" uuid, "distance" char(4), "query" date,'
        ' "T;DROP" text, "Vec" vector(3), PRIMARY KEY ("query", "k", "distance"))'
    )
    keys = [(f"2020-01-0{n}", f"00000000-0000-0000-0000-00000000000{n}", f"ab{n}") for n in range(1, 6)]
    for n, key in enumerate(keys, 1):
        insert = 'INSERT INTO "My Shop"."Odd ""Name%%" ("query", k, distance, "T;DROP", "Vec")'
        db.execute(insert + " VALUES (%s, %s, %s, %s, %s)", [*key, f"text {n}", f"[{n},1,0]"])
    name = 'My Shop.Odd "Name%.Vec'
    register(db, spec('Odd "Name%', schema="My Shop", column="Vec", sources=("T;DROP",)))
    assert [signature.partition(" TABLE")[0] for signature in functions(db)] == [
        'Odd "Name%_hybrid(query_ text, k_ integer DEFAULT 10)',
        'Odd "Name%_search(query_ text, k_ integer DEFAULT 10)',
        'Odd "Name%_similar(of_query date, of_k uuid, of_distance character, k_ integer DEFAULT 10)',
    ]
    remember(db, "x", np.array([5.0, 1, 0]), name)
    found = db.execute('SELECT query::text, k::text, distance FROM "My Shop"."Odd ""Name%_search"(\'x\', 2)').fetchall()
    assert found == [keys[4], keys[3]] or [(q, k, d.strip()) for q, k, d in found] == [keys[4], keys[3]]
    similar = db.execute(
        'SELECT "query"::text FROM "My Shop"."Odd ""Name%%_similar"(%s, %s, %s, k_ => 1)', list(keys[0])
    ).fetchall()
    assert similar == [(keys[1][0],)]
    assert db.execute('SELECT count(*) FROM "My Shop"."Odd ""Name%_hybrid"(\'x\')').fetchall() == [(5,)]
    [(key,), *_] = db.execute("SELECT key FROM embeddb.search(%s, 'x')", [name]).fetchall()
    assert [part.strip() for part in key] == list(keys[4])
    near = db.execute("SELECT key FROM embeddb.neighbors(%s, %s, 1)", [name, json.dumps(key)]).fetchall()
    assert [part.strip() for part in near[0][0]] == list(keys[3])
    db.execute("SELECT embeddb.unregister(id) FROM embeddb.embedding")
    assert functions(db) == []
    db.execute('DROP SCHEMA "My Shop" CASCADE')


def test_several_embeddings_of_a_table(db: Database) -> None:
    """The first keeps the short names, which dashboards may use already; with a second, both have the long ones."""
    db.execute(
        "CREATE TABLE articles (id int PRIMARY KEY, title text, body text, embedding vector(3), body_vec vector(3))"
    )
    register(db, spec())
    register(db, spec(column="body_vec", sources=("body",)))
    names = [name.partition("(")[0] for name in functions(db)]
    verbs = ("hybrid", "search", "similar")
    assert names == sorted(f"articles{prefix}_{verb}" for prefix in ("", "_embedding", "_body_vec") for verb in verbs)
    db.execute("SELECT embeddb.unregister('articles.embedding')")
    assert [name.partition("(")[0] for name in functions(db)] == [f"articles_{verb}" for verb in verbs]
    db.execute("INSERT INTO articles (id, body, body_vec) VALUES (1, 'x', '[1,0,0]')")
    remember(db, "x", np.array([1.0, 0, 0]), "articles.body_vec")
    assert db.execute("SELECT id FROM articles_search('x')").fetchall() == [(1,)]


def test_names_of_others_are_left_alone(db: Database) -> None:
    db.execute("CREATE TABLE articles (id int PRIMARY KEY, title text, body text, embedding vector(3))")
    db.execute("CREATE FUNCTION articles_search(query text, k int) RETURNS int LANGUAGE sql AS 'SELECT 42'")
    told: list[str] = []
    db.add_notice_handler(lambda notice: told.append(str(notice.message_primary)))
    register(db, spec())
    assert [name.partition("(")[0] for name in functions(db)] == [
        "articles_embedding_hybrid", "articles_embedding_search", "articles_embedding_similar",
    ]  # fmt: skip
    assert ["another function has the short name" in line for line in told] == [True]
    assert db.execute("SELECT articles_search('x', 1)").fetchall() == [(42,)]
    assert db.execute("SELECT embeddb.problems(id) FROM embeddb.embedding").fetchall() == []
    db.execute("SELECT embeddb.unregister(id) FROM embeddb.embedding")
    db.execute("CREATE FUNCTION articles_embedding_search() RETURNS int LANGUAGE sql AS 'SELECT 42'")
    with pytest.raises(psycopg.Error, match="there is a function public.articles_embedding_search already") as raised:
        register(db, spec())
    assert raised.value.sqlstate == "EB001"
    db.execute("DROP FUNCTION articles_search(text, int), articles_embedding_search()")


def test_an_owner_who_may_make_no_function_in_the_schema(db: Database) -> None:
    """Has an embedding all the same."""
    db.execute("CREATE ROLE keeper; CREATE SCHEMA vault; GRANT USAGE ON SCHEMA vault TO keeper")
    db.execute("CREATE TABLE vault.articles (id int PRIMARY KEY, title text, body text, embedding vector(3))")
    db.execute("ALTER TABLE vault.articles OWNER TO keeper")
    register(db, spec(schema="vault"))
    assert (functions(db), db.execute("SELECT embeddb.problems(id) FROM embeddb.embedding").fetchall()) == ([], [])
    db.execute("GRANT CREATE ON SCHEMA vault TO keeper; SELECT embeddb.refresh(id) FROM embeddb.embedding")
    assert len(functions(db)) == 3
    db.execute("SELECT embeddb.unregister(id) FROM embeddb.embedding; DROP SCHEMA vault CASCADE; DROP ROLE keeper")


def test_long_names_are_cut_to_what_postgres_takes(db: Database) -> None:
    for table in ("t" * 63, "é" * 31):
        db.execute(sql.SQL("CREATE TABLE {} (id int PRIMARY KEY, title text, body text, embedding vector(3))").format(
            sql.Identifier(table)))  # fmt: skip
        register(db, spec(table))
    names = [name.partition("(")[0] for name in functions(db)]
    assert len(set(names)) == 6
    assert all(len(name.encode()) <= 63 and name.endswith(("_search", "_similar", "_hybrid")) for name in names)
    assert db.execute("SELECT embeddb.problems(id) FROM embeddb.embedding").fetchall() == []


def test_renames_are_followed_by_refresh_and_views_stay(shelf: Shelf) -> None:
    db = shelf.db
    db.execute(f"CREATE VIEW dashboard AS SELECT * FROM articles_search('{QUERY}', 3)")
    before = shelf.rows("SELECT * FROM dashboard")
    db.execute("ALTER TABLE articles RENAME title TO headline; ALTER TABLE articles RENAME embedding TO vec")
    with pytest.raises(psycopg.errors.UndefinedColumn):
        shelf.rows("SELECT * FROM dashboard")
    assert [
        "embeddb.refresh" in problem for (problem,) in shelf.rows("SELECT embeddb.problems(id) FROM embeddb.embedding")
    ]
    db.execute("SELECT embeddb.refresh(id) FROM embeddb.embedding")
    assert shelf.rows("SELECT * FROM dashboard") == before
    db.execute("ALTER TABLE articles RENAME id TO number")
    # The view has a column that the new function would not have: Postgres says so.
    with pytest.raises(psycopg.errors.DependentObjectsStillExist):
        db.execute("SELECT embeddb.refresh(id) FROM embeddb.embedding")
    db.execute("DROP VIEW dashboard; SELECT embeddb.refresh(id) FROM embeddb.embedding")
    assert [key for (key,) in shelf.rows(f"SELECT number FROM articles_search('{QUERY}', 3)")] == [
        row[0] for row in before
    ]
    db.execute("ALTER TABLE articles RENAME TO papers; SELECT embeddb.refresh(id) FROM embeddb.embedding")
    assert [name.partition("(")[0] for name in functions(db)] == ["papers_hybrid", "papers_search", "papers_similar"]


def test_what_is_missing_is_told_and_made(shelf: Shelf) -> None:
    shelf.db.execute("DROP FUNCTION articles_search(text, int)")
    [(problem,)] = shelf.rows("SELECT embeddb.problems(id) FROM embeddb.embedding")
    assert problem.startswith("the function public.articles_search is missing")
    assert shelf.rows("SELECT embeddb.refresh(id) FROM embeddb.embedding") == [(True,)]
    assert shelf.rows("SELECT embeddb.problems(id) FROM embeddb.embedding") == []
    assert shelf.rows("SELECT embeddb.refresh(id) FROM embeddb.embedding") == [(False,)]


def test_they_go_with_the_embedding_and_with_the_catalog(engine18: Engine) -> None:
    with engine18.begin() as connection:
        install(connection)
    with connect(engine18) as db:
        shelve(engine18, db, rows=3)
        with engine18.begin() as connection:
            unregister(connection, "articles.embedding")
        assert functions(db) == []
        register(db, spec(dim=16, encoder={"type": "hashing", "dim": 16}))
        assert len(functions(db)) == 3
        with engine18.begin() as connection:
            uninstall(connection)
            assert connection.scalar(text("SELECT count(*) FROM pg_proc WHERE prosrc LIKE '-- embeddb %'")) == 0


def test_a_dump_brings_them_back(shelf: Shelf, server: LocalPostgres) -> None:
    """In working order, a view over them and a text that is remembered too."""
    shelf.db.execute(f"CREATE VIEW dashboard AS SELECT * FROM articles_search('{QUERY}', 3)")
    before = functions(shelf.db), shelf.rows("SELECT * FROM dashboard")
    source = shelf.db.info.dsn
    target = psycopg.conninfo.make_conninfo(source, dbname=f"{shelf.db.info.dbname}_restored")
    shelf.db.execute(f"CREATE DATABASE {shelf.db.info.dbname}_restored TEMPLATE template0")
    try:
        dump = subprocess.run(
            [str(server.programs / "pg_dump"), source], capture_output=True, check=True, text=True
        ).stdout
        command = [str(server.programs / "psql"), "-Xq", "-v", "ON_ERROR_STOP=1", target]
        subprocess.run(command, input=dump, capture_output=True, check=True, text=True)
        with psycopg.connect(target, autocommit=True) as db:
            assert (functions(db), db.execute("SELECT * FROM dashboard").fetchall()) == before
            db.execute("SET enable_seqscan = off")
            plan = db.execute("EXPLAIN SELECT * FROM dashboard").fetchall()
            assert "Index Scan using ix_articles_embedding_hnsw" in str(plan)
            assert db.execute("SELECT embeddb.problems(id) FROM embeddb.embedding").fetchall() == []
    finally:
        shelf.db.execute(f"DROP DATABASE {shelf.db.info.dbname}_restored WITH (FORCE)")


def test_filters_against_python(shelf: Shelf) -> None:
    def found(**wanted: Any) -> list[int]:
        rows = shelf.rows(
            "SELECT key FROM embeddb.search('articles.embedding', %s, 1000, %s)", QUERY, json.dumps(wanted)
        )
        return [key for (key,) in rows]

    def expected(test: Any) -> list[int]:
        return [key for key in shelf.nearest(600) if test(key)]

    assert found(year=1907) == expected(lambda key: key % 60 == 7)
    assert found(year={">=": 1910, "<": 1920, "<>": 1915}) == expected(
        lambda key: 10 <= key % 60 < 20 and key % 60 != 15
    )
    assert found(kind=["paper", "note"]) == expected(lambda key: KINDS[key % 4] in ("paper", "note"))
    assert found(kind=["paper", None]) == expected(lambda key: KINDS[key % 4] in ("paper", None))
    assert found(kind={"in": [None]}, year=1903) == expected(lambda key: KINDS[key % 4] is None and key % 60 == 3)
    assert found(year={">": None}) == []
    assert found(kind={"in": []}) == []
    assert found(kind=None) == expected(lambda key: KINDS[key % 4] is None)
    assert found(kind={"<>": None}) == expected(lambda key: KINDS[key % 4] is not None)
    assert found(title={"like": "title 1%"}) == expected(lambda key: str(key).startswith("1"))
    assert found(title={"ilike": "TITLE 2_"}) == expected(lambda key: 20 <= key <= 29)
    assert found(code="abc", year={">": 1958}) == expected(lambda key: key % 60 == 59)
    assert found(code="a") == []
    assert found() == expected(lambda key: True)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ([1], "a filter is a JSON object of columns and values, not array"),
        ({"nothing": 1}, "public.articles has no column nothing"),
        ({"ctid": "(0,1)"}, "public.articles has no column ctid"),
        ({"year": {"==": 1}}, "a filter knows no comparison '=='"),
        ({"year": {"in": 1}}, "the filter of year compares by 'in' with a JSON number"),
        ({"year": {"<": [1]}}, "the filter of year compares by '<' with a JSON array"),
        ({"year": {}}, "the filter of year has no comparison"),
        ({"year": "soon"}, "the filter of year has 'soon', which is no integer"),
        ({"year": [1907, None, "1908.5"]}, "the filter of year has '1908.5', which is no integer"),
        ({"year": {">": True}}, "the filter of year has 'true', which is no integer"),
    ],
)
def test_filters_that_make_no_sense(shelf: Shelf, wanted: Any, message: str) -> None:
    with pytest.raises(psycopg.Error) as raised:
        shelf.rows("SELECT * FROM embeddb.search('articles.embedding', %s, 3, %s)", QUERY, json.dumps(wanted))
    assert (raised.value.sqlstate, raised.value.diag.message_primary) == ("EB005", message)


def test_filters_of_types_that_are_compared_in_ways_of_their_own(shelf: Shelf) -> None:
    """Arrays, enums, domains and types without an order, of which a filter says that they have none."""
    shelf.db.execute(
        "CREATE TYPE mood AS ENUM ('calm', 'glad'); CREATE DOMAIN short AS varchar(9); CREATE DOMAIN shorter AS short;"
        " ALTER TABLE articles ADD tags text[] DEFAULT '{a,b}', ADD mood mood DEFAULT 'glad', ADD raw json,"
        " ADD nick short DEFAULT 'ann', ADD pet shorter DEFAULT 'rex'"
    )
    try:
        for wanted in (
            {"tags": "{a,b}"}, {"tags": ["{a,b}", "{c}"]}, {"mood": "glad"}, {"mood": {">": "calm"}},
            {"nick": ["ann"]}, {"nick": {"<": "bob"}}, {"pet": "rex"}, {"pet": {">": "max"}}, {"raw": None},
        ):  # fmt: skip
            found = "SELECT count(*) FROM embeddb.search('articles.embedding', %s, 9, %s)"
            assert shelf.rows(found, QUERY, json.dumps(wanted)) == [(9,)], wanted
        with pytest.raises(psycopg.Error, match="compares by '=', which its type json does not have") as raised:
            shelf.rows("SELECT * FROM embeddb.search('articles.embedding', %s, 9, '{\"raw\": \"{}\"}')", QUERY)
        assert raised.value.sqlstate == "EB005"
        with pytest.raises(psycopg.Error, match="compares by '>', which its type json does not have"):
            shelf.rows("SELECT * FROM embeddb.search('articles.embedding', %s, 9, '{\"raw\": {\">\": null}}')", QUERY)
    finally:
        shelf.db.execute(
            "ALTER TABLE articles DROP tags, DROP mood, DROP nick, DROP pet, DROP raw;"
            "DROP TYPE mood; DROP DOMAIN shorter; DROP DOMAIN short"
        )


HOSTILE = st.sampled_from(
    ["'", '"', "';DROP TABLE articles;--", "\\", "$$", "%s", "%I", "$1", "{}", "year", "title) OR true --", "' OR ''='"]
)
WORDS = HOSTILE | st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8)
NAMES = st.sampled_from(["title", "kind", "year", "code"]) | WORDS
VALUES = st.none() | st.booleans() | st.integers() | WORDS | st.lists(WORDS, max_size=2)
FILTERS = st.dictionaries(
    NAMES,
    VALUES | st.dictionaries(st.sampled_from(["=", "<>", "<", "in", "like"]) | WORDS, VALUES, max_size=2),
    max_size=2,
)


@given(wanted=FILTERS)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_filter_becomes_sql(shelf: Shelf, wanted: Any) -> None:
    """Whatever is asked, the answer is right, or an error about the filter: never one of syntax, never another row."""
    statement = "SELECT key FROM embeddb.search('articles.embedding', %s, 1000, %s)"
    refused: psycopg.Error | None = None
    rows: list[Any] = []
    try:
        rows = shelf.rows(statement, QUERY, json.dumps(wanted))
    except psycopg.Error as error:
        refused = error
    # Of our own, or a value that is not of the column's type.
    assert refused is None or refused.sqlstate == "EB005" or isinstance(refused, psycopg.errors.DataError)
    for (key,) in rows:
        row = {"title": f"title {key}", "kind": KINDS[key % 4], "year": 1900 + key % 60, "code": "abc"}
        for name, value in wanted.items():
            if isinstance(value, str):
                assert str(row[name]) == value.strip()


@given(name=WORDS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_name_becomes_sql(shelf: Shelf, name: str) -> None:
    for call in (
        "embeddb.search(%s, 'x')", "embeddb.neighbors(%s, '1')", "embeddb.duplicates(%s, 0.1)",
        "embeddb.cluster(%s, 2)", "embeddb.classify(%s, 'kind', 'x')", "embeddb.embed(%s, 'x')",
    ):  # fmt: skip
        with pytest.raises(psycopg.Error) as raised:
            shelf.rows("SELECT * FROM " + call, name)
        assert raised.value.sqlstate == "EB002"
    with pytest.raises(psycopg.Error) as raised:
        shelf.rows("SELECT * FROM embeddb.classify('articles.embedding', %s, of_key => '1')", name + "?")
    assert raised.value.sqlstate == "EB005"
    shelf.rows("SELECT * FROM embeddb.neighbors('articles.embedding', '1', 1)")


def test_pairs_that_are_close(shelf: Shelf) -> None:
    unit = shelf.vectors / np.linalg.norm(shelf.vectors, axis=1, keepdims=True)
    apart = 1 - unit @ unit.T
    threshold = float(np.sort(apart[np.triu_indices(len(apart), 1)])[40])
    found = shelf.rows(
        f"SELECT key, other, distance FROM embeddb.duplicates('articles.embedding', {threshold + 1e-6}, 20)"
    )
    expected = {(int(i) + 1, int(j) + 1) for i, j in np.argwhere(apart <= threshold) if i < j}
    assert {(key, other) for key, other, _ in found} == expected
    assert [d for _, _, d in found] == sorted(d for _, _, d in found)


def test_votes_of_the_neighbours(shelf: Shelf) -> None:
    keys = [key for key in shelf.nearest(600) if KINDS[key % 4]][:20]
    votes: dict[Any, int] = {}
    for key in keys:
        votes[KINDS[key % 4]] = votes.get(KINDS[key % 4], 0) + 1
    found = shelf.rows("SELECT value, votes, share FROM embeddb.classify('articles.embedding', 'kind', %s, 20)", QUERY)
    assert {value: number for value, number, _ in found} == votes
    assert [number for _, number, _ in found] == sorted(votes.values(), reverse=True)
    assert sum(share for _, _, share in found) == pytest.approx(1)
    own = shelf.rows("SELECT sum(votes) FROM embeddb.classify('articles.embedding', 'year', of_key => '9', k => 7)")
    assert own == [(7,)]


@pytest.mark.parametrize("changes", [{}, {"metric": "l2", "storage": "halfvec"}, {"metric": "l1"}])
def test_clusters_are_found_again(catalog: Engine, db: Database, changes: dict[str, Any]) -> None:
    """Rows around four far corners; the same table gives the same clusters."""
    shelf = shelve(catalog, db, rows=0, **changes)
    rng = np.random.default_rng(1)
    corners = np.repeat(10 * np.eye(4, 16), [40, 30, 20, 10], axis=0)
    corners += 0.3 * rng.normal(size=corners.shape)
    for key, vector in enumerate(corners):
        db.execute(
            "INSERT INTO articles (id, title, embedding) VALUES (%s, 'x', %s)", [key, json.dumps(vector.tolist())]
        )
    found = shelf.rows(
        "SELECT cluster, min(key::int), count(*) FROM embeddb.cluster('articles.embedding', 4) GROUP BY 1 ORDER BY 1"
    )
    assert found == [(1, 0, 40), (2, 40, 30), (3, 70, 20), (4, 90, 10)]
    centre = corners[70:90].mean(axis=0)
    if changes.get("metric") == "l1":
        # By the metric, from the mean.
        [(key, apart)] = shelf.rows(
            "SELECT key::int, distance FROM embeddb.cluster('articles.embedding', 4) WHERE cluster = 3 LIMIT 1"
        )
        assert apart == pytest.approx(np.abs(corners[key] - centre).sum(), rel=1e-4)
    clusters = "SELECT * FROM embeddb.cluster('articles.embedding', 7, 50, seed => 3)"
    assert shelf.rows(clusters) == shelf.rows(clusters)
    assert len(shelf.rows(clusters)) == 50
    db.execute("UPDATE articles SET embedding = (SELECT embedding FROM articles WHERE id = 0)")
    assert shelf.rows("SELECT DISTINCT cluster FROM embeddb.cluster('articles.embedding', 3)") == [(1,)]
    db.execute("DELETE FROM articles")
    assert shelf.rows("SELECT * FROM embeddb.cluster('articles.embedding', 3)") == []
    for n in (0, None):
        with pytest.raises(psycopg.Error, match="at least 1"):
            shelf.rows("SELECT * FROM embeddb.cluster('articles.embedding', %s)", n)
