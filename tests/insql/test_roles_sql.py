"""Analysts: a role that may SELECT and nothing else, through the clients that they use."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas
import psycopg
import pytest
from sqlalchemy import Engine, create_engine, text

from embeddb.local import LocalPostgres
from tests.catalog.application import Database, drop_role, register, spec
from tests.insql.shelf import KINDS, QUERY, Shelf, remember, shelve

READER = "bi_reader"
STATEMENT = f"SELECT id, title, score FROM articles_search('{QUERY}', 3) JOIN articles USING (id) ORDER BY score DESC"


@pytest.fixture
def shelf(catalog: Engine, db: Database) -> Iterator[Shelf]:
    """A table that the role may read, as a dashboard does."""
    shelf = shelve(catalog, db, rows=200)
    db.execute(f"CREATE ROLE {READER} LOGIN; SELECT embeddb.grant_reader('{READER}')")
    db.execute(f"GRANT SELECT ON articles TO {READER}")
    yield shelf
    db.execute("ROLLBACK; RESET ROLE")
    drop_role(db, READER)


@pytest.fixture
def reader(shelf: Shelf) -> Iterator[Database]:
    with psycopg.connect(shelf.db.info.dsn, user=READER, autocommit=True) as db:
        yield db


def by_psql(server: LocalPostgres, engine: Engine) -> list[tuple[Any, ...]]:
    command = [str(server.programs / "psql"), "-XqAtF|", "-U", READER, "-h", str(engine.url.query["host"])]
    ran = subprocess.run(
        [*command, "-c", STATEMENT, str(engine.url.database)], capture_output=True, check=True, text=True
    )
    return [
        (int(key), title, float(score)) for key, title, score in (line.split("|") for line in ran.stdout.splitlines())
    ]


def by_psycopg(server: LocalPostgres, engine: Engine) -> list[tuple[Any, ...]]:
    dsn = engine.url.set(drivername="postgresql", username=READER).render_as_string(hide_password=False)
    with psycopg.connect(dsn) as connection:
        return connection.execute(STATEMENT.replace(f"'{QUERY}'", "%s"), [QUERY], prepare=True).fetchall()


def by_sqlalchemy(server: LocalPostgres, engine: Engine) -> list[tuple[Any, ...]]:
    own = create_engine(engine.url.set(username=READER))
    with own.connect() as connection:
        rows = connection.execute(text(STATEMENT.replace(f"'{QUERY}'", ":query")), {"query": QUERY}).all()
    own.dispose()
    return [tuple(row) for row in rows]


def by_pandas(server: LocalPostgres, engine: Engine) -> list[tuple[Any, ...]]:
    own = create_engine(engine.url.set(username=READER))
    frame = pandas.read_sql(text(STATEMENT.replace(f"'{QUERY}'", ":query")), own, params={"query": QUERY})
    own.dispose()
    return list(frame.itertuples(index=False, name=None))


def by_odbc(server: LocalPostgres, engine: Engine) -> list[tuple[Any, ...]]:
    """As Tableau and Excel connect."""
    try:
        import pyodbc
    except ImportError as error:  # libodbc.so is a package of the system
        pytest.skip(f"pyodbc cannot be imported: {error}")
    if "PostgreSQL Unicode" not in pyodbc.drivers():
        pytest.skip("there is no ODBC driver for Postgres: install odbc-postgresql")
    dsn = f"DRIVER={{PostgreSQL Unicode}};Server={engine.url.query['host']};Database={engine.url.database};UID={READER}"
    connection = pyodbc.connect(dsn)
    try:
        rows = connection.execute(STATEMENT.replace(f"'{QUERY}'", "?"), QUERY).fetchall()
        return [tuple(row) for row in rows]
    finally:
        connection.close()


@pytest.mark.parametrize("client", [by_psql, by_psycopg, by_sqlalchemy, by_pandas, by_odbc])
def test_every_client_searches(
    shelf: Shelf,
    catalog: Engine,
    server: LocalPostgres,
    client: Callable[[LocalPostgres, Engine], list[tuple[Any, ...]]],
) -> None:
    found = client(server, catalog)
    keys = shelf.nearest(3)
    assert [(key, title) for key, title, _ in found] == [(key, f"title {key}") for key in keys]
    scores = [1 - shelf.distances()[key - 1] for key in keys]
    assert [float(score) for *_, score in found] == pytest.approx(scores, abs=1e-5)


CALLS = (
    f"SELECT id FROM articles_search('{QUERY}', 1000)",
    f"SELECT id FROM articles_hybrid('{QUERY}', 1000)",
    "SELECT id FROM articles_similar(1, 1000) UNION SELECT 1",
    f"SELECT key::int FROM embeddb.search('articles.embedding', '{QUERY}', 1000)",
    "SELECT key::int FROM embeddb.neighbors('articles.embedding', '1', 1000) UNION SELECT 1",
    "SELECT key::int FROM embeddb.duplicates('articles.embedding', 2, 300) UNION"
    " SELECT other::int FROM embeddb.duplicates('articles.embedding', 2, 300)",
    "SELECT key::int FROM embeddb.cluster('articles.embedding', 3)",
)


def test_rows_that_the_caller_may_not_see(shelf: Shelf, reader: Database) -> None:
    """Row-level security is the caller's in all of them, and their owner, who made the functions, sees all rows."""
    shelf.db.execute("ALTER TABLE articles ENABLE ROW LEVEL SECURITY")
    shelf.db.execute(f"CREATE POLICY notes ON articles TO {READER} USING (kind = 'paper')")
    papers = {key for key in range(1, 201) if KINDS[key % 4] == "paper"}
    assert len(papers) == 50
    for call in CALLS:
        assert {key for (key,) in reader.execute(call).fetchall()} == papers, call
        assert {key for (key,) in shelf.rows(call)} == set(range(1, 201)), call
    votes = "SELECT value, votes FROM embeddb.classify('articles.embedding', 'kind', %s, 1000)"
    assert reader.execute(votes, [QUERY]).fetchall() == [("paper", 50)]
    # The vector of a row that is hidden tells nothing either.
    assert reader.execute("SELECT * FROM articles_similar(2)").fetchall() == []
    assert reader.execute("SELECT * FROM embeddb.neighbors('articles.embedding', '2')").fetchall() == []


def test_rows_of_a_partitioned_table_that_the_caller_may_not_see(catalog: Engine, db: Database) -> None:
    """Vectors and words, index by index of its partitions."""
    db.execute(
        "CREATE TABLE articles (id int, region text, title text, body text, embedding vector(3),"
        " PRIMARY KEY (region, id)) PARTITION BY LIST (region);"
        "CREATE TABLE articles_eu PARTITION OF articles FOR VALUES IN ('eu');"
        "CREATE TABLE articles_us PARTITION OF articles FOR VALUES IN ('us');"
        "CREATE INDEX ON articles USING gin (to_tsvector('english', body));"
        "CREATE INDEX ON articles USING hnsw (embedding vector_cosine_ops)"
    )
    register(db, spec())
    db.execute(
        "INSERT INTO articles SELECT i, (ARRAY['eu', 'us'])[i % 2 + 1], 'title', 'boats', ARRAY[sin(i), cos(i), 1]"
        " FROM generate_series(1, 60) i"
    )
    remember(db, "boats", np.array([1.0, 0, 1]))
    db.execute(
        f"CREATE ROLE {READER} LOGIN; SELECT embeddb.grant_reader('{READER}'); GRANT SELECT ON articles TO {READER}"
    )
    db.execute(
        f"ALTER TABLE articles ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON articles TO {READER} USING (id % 3 = 0)"
    )
    try:
        with psycopg.connect(db.info.dsn, user=READER, autocommit=True) as reader:
            for call, without in (
                ("SELECT id FROM articles_search('boats', 99)", 0),
                ("SELECT id FROM articles_hybrid('boats', 99)", 0),
                ("SELECT id FROM articles_similar('eu', 6, 99)", 6),
                ("SELECT (key ->> 1)::int FROM embeddb.search('articles.embedding', 'boats', 99)", 0),
                ("SELECT (key ->> 1)::int FROM embeddb.neighbors('articles.embedding', '[\"eu\", 6]', 99)", 6),
            ):
                expected = {key for key in range(3, 61, 3) if key != without}
                assert {key for (key,) in reader.execute(call).fetchall()} == expected, call
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                reader.execute("SELECT * FROM articles_eu")
    finally:
        drop_role(db, READER)


def test_columns_that_the_caller_may_not_read(shelf: Shelf, reader: Database) -> None:
    shelf.db.execute(f"REVOKE SELECT ON articles FROM {READER}")
    for call in CALLS:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            reader.execute(call)
    shelf.db.execute(f"GRANT SELECT (id, embedding) ON articles TO {READER}")
    for call in (*CALLS[:1], *CALLS[2:]):
        assert len(reader.execute(call).fetchall()) == 200
    for call in (
        f"SELECT * FROM articles_hybrid('{QUERY}')",
        f"SELECT * FROM embeddb.search('articles.embedding', '{QUERY}', 3, '{{\"year\": 1950}}')",
        f"SELECT * FROM embeddb.classify('articles.embedding', 'kind', '{QUERY}')",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            reader.execute(call)
    shelf.db.execute(
        f"REVOKE SELECT (id, embedding) ON articles FROM {READER}; GRANT SELECT (id, title) ON articles TO {READER}"
    )
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        reader.execute(CALLS[0])


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT embeddb.remember('articles.embedding', 'x', '[1]')",
        "SELECT embeddb.refresh(1)",
        "SELECT embeddb.make_functions(1)",
        "SELECT embeddb.drop_functions(1)",
        "SELECT embeddb.unregister('articles.embedding')",
        "SELECT embeddb.drain_write(1, NULL, NULL, NULL, NULL)",
        "SELECT embeddb.embed_document(1, 'x')",
        "CALL embeddb.drain()",
        "SELECT * FROM embeddb.query_cache",
        "SELECT * FROM embeddb.job",
    ],
)
def test_nothing_else_is_theirs(reader: Database, statement: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        reader.execute(statement)


def test_objects_of_others_in_the_path_lead_nothing_astray(shelf: Shelf, reader: Database) -> None:
    """Functions, operators and types that someone put into a schema that the analyst searches first."""
    expected = reader.execute(STATEMENT).fetchall()
    shelf.db.execute(
        "CREATE SCHEMA trap; GRANT USAGE ON SCHEMA trap TO PUBLIC; SET search_path = trap, public;"
        "CREATE FUNCTION trap.set_config(text, text, boolean) RETURNS text LANGUAGE sql AS 'SELECT NULL::text';"
        "CREATE FUNCTION trap.minus(integer, float8) RETURNS float8 LANGUAGE sql AS 'SELECT 42::float8';"
        "CREATE OPERATOR trap.- (LEFTARG = integer, RIGHTARG = float8, FUNCTION = trap.minus);"
        "CREATE FUNCTION trap.apart(public.vector, public.vector) RETURNS float8 LANGUAGE sql AS 'SELECT 42::float8';"
        "CREATE OPERATOR trap.<=> (LEFTARG = public.vector, RIGHTARG = public.vector, FUNCTION = trap.apart);"
        "CREATE TYPE trap.vector AS (x int);"
        "CREATE TABLE trap.articles (id int, title text, embedding public.vector); RESET search_path"
    )
    try:
        reader.execute("SET search_path = trap, public, pg_catalog")
        statement = STATEMENT.replace("JOIN articles", "JOIN public.articles")
        assert reader.execute(statement).fetchall() == expected
        found = reader.execute("SELECT key::int FROM embeddb.search('articles.embedding', %s, 3)", [QUERY]).fetchall()
        assert found == [(key,) for key, *_ in expected]
    finally:
        shelf.db.execute("DROP SCHEMA trap CASCADE")


def test_nothing_of_the_callers_runs_as_the_catalogs_owner(reader: Database) -> None:
    """Neither a cursor called as embed's memory is, with a function or a cast in it, nor a view to count."""
    embed = f"SELECT vector_dims(embeddb.embed('articles.embedding', '{QUERY}'))"
    reader.execute(
        "CREATE FUNCTION pg_temp.who() RETURNS text LANGUAGE sql AS"
        " $$ SELECT set_config('test.ran_as', current_user, false) $$;"
        " CREATE TYPE pg_temp.odd AS (a int);"
        " CREATE FUNCTION pg_temp.read(odd pg_temp.odd) RETURNS text LANGUAGE sql AS 'SELECT pg_temp.who()';"
        " CREATE CAST (pg_temp.odd AS text) WITH FUNCTION pg_temp.read(pg_temp.odd) AS IMPLICIT;"
        " CREATE TEMP VIEW trap AS SELECT pg_temp.who() AS vector; SET test.ran_as = ''"
    )
    with reader.transaction():
        reader.execute(embed)
        [(memo,)] = reader.execute("SELECT name FROM pg_cursors").fetchall()
    with reader.transaction():
        reader.execute(f'DECLARE "{memo}" SCROLL CURSOR FOR SELECT pg_temp.who(), NULL::vector')
        assert reader.execute(embed).fetchall() == [(16,)]
    with reader.transaction():
        reader.execute(
            "DO $$ DECLARE asked pg_temp.odd := row(1); result int := 1;"
            f" memo refcursor := '{memo}'; BEGIN OPEN memo SCROLL FOR SELECT asked, result; END $$"
        )
        assert reader.execute(embed).fetchall() == [(16,)]
    assert reader.execute("SELECT rows FROM embeddb.count_users('trap', 'vector')").fetchall() == [(None,)]
    assert reader.execute("SHOW test.ran_as").fetchall() == [("",)]
