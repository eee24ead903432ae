"""What queues a row and what does not, for every way of writing and every kind of table."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import Engine

from tests.catalog.application import ARTICLES, Database, connect, queued, register, spec, take

V1, V2 = "'[1,0,0]'", "'[0,1,0]'"


def trigger_problems(db: Database) -> list[str]:
    """Without those of the functions for searching, which follow renames only when refreshed."""
    problems = db.execute("SELECT embeddb.problems(id) FROM embeddb.embedding")
    return [problem for (problem,) in problems if not problem.startswith("the function")]


def test_insert_queues_rows_whose_vector_is_missing(articles: Database) -> None:
    articles.execute("INSERT INTO articles (id, title) VALUES (1, 'a'), (2, 'b')")
    articles.execute("INSERT INTO articles (id, title, embedding) VALUES (3, 'c', '[1,2,3]')")
    assert take(articles) == [1, 2]


@pytest.mark.parametrize("blank", ["NULL", "''", "'  '", "E' \\t\\n\\r\\f\\v'"])
def test_blank_rows_are_not_queued(articles: Database, blank: str) -> None:
    articles.execute(f"INSERT INTO articles (id, title, body) VALUES (1, NULL, {blank})")
    articles.execute("UPDATE articles SET title = ' '")
    assert take(articles) == []
    articles.execute("UPDATE articles SET title = 'x'")
    articles.execute(f"UPDATE articles SET title = {blank}, body = NULL")
    assert take(articles) == [1]
    articles.execute(f"INSERT INTO articles (id, title, body) VALUES (2, 'x', {blank}), (3, {blank}, 'y')")
    assert take(articles) == [2, 3]


def test_what_sql_is_unsure_about_is_queued(articles: Database) -> None:
    """Blanks beyond ASCII, and long runs of them: the worker decides."""
    articles.execute(
        "INSERT INTO articles (id, title) VALUES (1, U&'\\00A0'), (2, repeat(' ', 65)), (3, repeat(' ', 64))"
    )
    assert take(articles) == [1, 2]


def test_a_vector_of_blank_sources_is_queued_to_be_taken_away(articles: Database) -> None:
    articles.execute(f"INSERT INTO articles (id, embedding) VALUES (1, {V1})")
    articles.execute(f"INSERT INTO articles (id, title, embedding) VALUES (2, 'x', {V1})")
    articles.execute(f"UPDATE articles SET title = NULL, embedding = {V2} WHERE id = 2")
    assert take(articles) == [1, 2]


@pytest.mark.parametrize("rows", [1, 63, 64, 600])
def test_copy_queues_every_row_in_jobs_of_at_most_256(articles: Database, rows: int) -> None:
    with articles.cursor().copy("COPY articles (id, title) FROM STDIN") as copy:
        for key in range(rows):
            copy.write_row((key, "text"))
    sizes = [size for (size,) in articles.execute("SELECT jsonb_array_length(keys) FROM embeddb.job ORDER BY id")]
    assert sizes == ([1] * rows if rows < 64 else [256] * (rows // 256) + [rows % 256])
    assert queued(articles) == [*range(rows)]


def test_update_queues_only_when_sources_changed_and_the_vector_did_not(articles: Database) -> None:
    articles.execute(
        f"INSERT INTO articles (id, title, embedding) VALUES (1, 'a', {V1}), (2, 'b', {V1}), (3, NULL, NULL)"
    )
    for statement, expected in [
        ("UPDATE articles SET year = 1999", []),
        ("UPDATE articles SET title = title, body = body", []),
        ("UPDATE articles SET title = 'A' WHERE id = 1", [1]),
        ("UPDATE articles SET body = 'more' WHERE id = 3", [3]),
        (f"UPDATE articles SET title = 'AA', embedding = {V2} WHERE id = 1", []),
        (f"UPDATE articles SET embedding = {V1} WHERE id = 1", []),
        ("UPDATE articles SET embedding = NULL WHERE id = 2", [2]),
        ("UPDATE articles SET title = 'BB', embedding = NULL WHERE id = 2", [2]),
        ("UPDATE articles SET title = NULL, body = NULL WHERE id = 1", [1]),
        ("UPDATE articles SET title = NULL, body = NULL, embedding = NULL WHERE id = 1", []),
    ]:
        articles.execute(statement)
        assert take(articles) == expected, statement


def test_upsert_and_merge(articles: Database) -> None:
    articles.execute(f"INSERT INTO articles (id, title, embedding) VALUES (1, 'a', {V1}), (2, 'b', {V1})")
    articles.execute(
        "INSERT INTO articles (id, title) VALUES (1, 'a'), (2, 'changed'), (3, 'new')"
        " ON CONFLICT (id) DO UPDATE SET title = excluded.title"
    )
    assert sorted(take(articles)) == [2, 3]
    articles.execute("INSERT INTO articles (id, title) VALUES (1, 'no') ON CONFLICT DO NOTHING")
    assert take(articles) == []
    articles.execute(
        "MERGE INTO articles a USING (VALUES (1, 'merged'), (4, 'new')) AS v (id, title) ON a.id = v.id"
        " WHEN MATCHED THEN UPDATE SET title = v.title WHEN NOT MATCHED THEN INSERT (id, title) VALUES (v.id, v.title)"
    )
    assert sorted(take(articles)) == [1, 4]


def test_deleted_and_truncated_rows_leave_nothing(articles: Database) -> None:
    articles.execute("INSERT INTO articles (id, title) SELECT i, 'x' FROM generate_series(1, 10) i")
    [(embedding,)] = articles.execute("SELECT id FROM embeddb.embedding")
    articles.execute(
        "INSERT INTO embeddb.failure (embedding, key, step, error, attempts)"
        " SELECT %s, to_jsonb(i), 'encode', 'no', 1 FROM generate_series(1, 3) i",
        [embedding],
    )
    articles.execute("DELETE FROM articles WHERE id IN (1, 7)")
    assert queued(articles) == [2, 3, 4, 5, 6, 8, 9, 10]
    assert [key for (key,) in articles.execute("SELECT key FROM embeddb.failure ORDER BY key")] == [2, 3]
    articles.execute("TRUNCATE articles")
    assert queued(articles) == []
    assert articles.execute("SELECT FROM embeddb.failure").fetchall() == []


def test_a_writer_that_brings_the_vector_settles_the_row(articles: Database) -> None:
    articles.execute("INSERT INTO articles (id, title) VALUES (1, 'a'), (2, 'b')")
    articles.execute(f"UPDATE articles SET title = 'aa', embedding = {V1} WHERE id = 1")
    assert queued(articles) == [2]


def test_a_vector_that_comes_beside_its_sources_settles_the_row_though_they_are_the_same(articles: Database) -> None:
    articles.execute("INSERT INTO articles (id, title) SELECT i, 'a' FROM generate_series(1, 5) i")
    articles.execute(f"UPDATE articles SET title = title, embedding = {V1} WHERE id = 1")
    assert queued(articles) == [2, 3, 4, 5]
    articles.execute(f"UPDATE articles SET embedding = {V1} WHERE id = 2")  # of which sources, nobody says
    articles.execute("UPDATE articles SET title = title, embedding = embedding WHERE id = 3")  # as it was read
    articles.execute("UPDATE articles SET title = title WHERE id = 4")
    articles.execute(f"UPDATE articles SET title = ' ', embedding = {V1} WHERE id = 5")
    assert queued(articles) == [2, 3, 4, 5, 5]
    articles.execute("UPDATE articles SET title = ' ', embedding = NULL WHERE id = 5")
    assert queued(articles) == [2, 3, 4]


def test_what_is_pending_follows_a_changed_key(articles: Database) -> None:
    articles.execute(f"INSERT INTO articles (id, title, embedding) VALUES (1, 'a', NULL), (2, 'b', {V1})")
    articles.execute("INSERT INTO articles (id, title) SELECT i, 'x' FROM generate_series(1000, 1300) i")
    articles.execute("UPDATE articles SET id = id + 100 WHERE id IN (1, 2)")
    articles.execute("UPDATE articles SET id = 5000 WHERE id = 1123")
    assert queued(articles)[-2:] == [101, 5000]
    [(embedding,)] = articles.execute("SELECT id FROM embeddb.embedding")
    take(articles)
    articles.execute("INSERT INTO embeddb.failure VALUES (%s, '101', 'encode', 'no', 1)", [embedding])
    articles.execute("UPDATE articles SET id = 7, title = title WHERE id = 101")
    assert queued(articles) == [7]


def test_on_update_clear_takes_the_vector_at_once(db: Database) -> None:
    db.execute(ARTICLES)
    register(db, spec(on_update="clear"))
    db.execute(f"INSERT INTO articles (id, title, embedding) VALUES (1, 'a', {V1}), (2, 'b', {V1}), (3, 'c', {V1})")
    db.execute("UPDATE articles SET title = 'A' WHERE id = 1")
    db.execute("UPDATE articles SET year = 1 WHERE id = 2")
    db.execute(f"UPDATE articles SET title = 'C', embedding = {V2} WHERE id = 3")
    assert queued(db) == [1]
    assert db.execute("SELECT id FROM articles WHERE embedding IS NULL").fetchall() == [(1,)]
    take(db)
    db.execute("UPDATE articles SET title = NULL WHERE id = 2")
    assert queued(db) == []
    db.execute("ALTER TABLE articles RENAME embedding TO e")
    db.execute("UPDATE articles SET title = 'CC' WHERE id = 3")
    assert (queued(db), db.execute("SELECT count(e) FROM articles").fetchall()) == ([3], [(0,)])


KEYS = {
    "uuid": ("k uuid PRIMARY KEY", "'6f9619ff-8b86-d011-b42d-00c04fc964ff'", "6f9619ff-8b86-d011-b42d-00c04fc964ff"),
    "text": ("k text PRIMARY KEY", "'it''s \"1\" %s'", 'it\'s "1" %s'),
    "timestamptz": ("k timestamptz PRIMARY KEY", "'2024-07-01 12:00+02'", "2024-07-01T10:00:00+00:00"),
    "bytea": ("k bytea PRIMARY KEY", r"'\x00ff'", r"\x00ff"),
    "float8": ("k float8 PRIMARY KEY", "0.1", 0.1),
    "composite": ("a int, k text, PRIMARY KEY (k, a)", "'x', 5", ["x", 5]),
}


@pytest.mark.parametrize("kind", KEYS)
def test_keys_of_any_type_are_the_same_json_in_every_session(db: Database, kind: str) -> None:
    columns, value, expected = KEYS[kind]
    names = "k, a" if kind == "composite" else "k"
    db.execute(f"CREATE TABLE t ({columns}, title text, body text, embedding vector(3))")
    register(db, spec("t"))
    db.execute("SET timezone = 'Asia/Tokyo'; SET bytea_output = 'escape'; SET extra_float_digits = -5")
    db.execute(f"INSERT INTO t ({names}, title) VALUES ({value}, 'a')")
    db.execute("UPDATE t SET title = 'b'")
    assert queued(db) == [expected, expected]
    [(match,)] = db.execute("SELECT embeddb.match_sql(relation, keys, 't', 'j.keys -> 0') FROM embeddb.embeddings")
    assert db.execute(f"SELECT count(*) FROM t, embeddb.job j WHERE {match}").fetchall() == [(2,)]
    db.execute("DELETE FROM t")
    assert queued(db) == []


NAMES = ['Mixed "Case"', "per % cent %s", "dots.and:colons", "naïve Ünïcode", "$body$ 'q' \\", "x" * 63, "é" * 31]


@pytest.mark.parametrize("name", NAMES)
def test_any_name_up_to_63_bytes(db: Database, name: str) -> None:
    identifier = sql.Identifier(name)
    db.execute(sql.SQL("CREATE SCHEMA {}").format(identifier))
    table = sql.Identifier(name, name)
    other = sql.Identifier(name[:-1] + "z")
    db.execute(sql.SQL("CREATE TABLE {} ({} int PRIMARY KEY, {} text, v vector(3))").format(table, identifier, other))
    column = name[:-1] + "z"
    register(db, spec(name, schema=name, sources=(column,), column="v"))
    db.execute(sql.SQL("INSERT INTO {} VALUES (1, 'a'), (2, 'b')").format(table))
    db.execute(sql.SQL("UPDATE {} SET {} = 'c' WHERE {} = 1").format(table, other, identifier))
    db.execute(sql.SQL("DELETE FROM {} WHERE {} = 2").format(table, identifier))
    assert queued(db) == [1, 1]
    assert db.execute("SELECT name, keys, sources FROM embeddb.embeddings").fetchall() == [
        (f"{name}.{name}.v", [name], [column])
    ]
    db.execute("SELECT embeddb.unregister(id) FROM embeddb.embedding")
    db.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(identifier))


def test_long_vector_names_keep_their_triggers_apart(db: Database) -> None:
    first, second = "v" * 62 + "1", "v" * 62 + "2"
    db.execute(f"CREATE TABLE t (id int PRIMARY KEY, title text, {first} vector(3), {second} vector(3))")
    for column in (first, second):
        register(db, spec("t", column=column, sources=("title",)))
    db.execute("INSERT INTO t (id, title) VALUES (1, 'a')")
    assert queued(db) == [1, 1]


def test_renames_are_followed_at_once(articles: Database) -> None:
    articles.execute(
        "ALTER TABLE articles RENAME id TO key; ALTER TABLE articles RENAME title TO headline;"
        "ALTER TABLE articles RENAME embedding TO vec; CREATE SCHEMA moved;"
        "ALTER TABLE articles SET SCHEMA moved; ALTER TABLE moved.articles RENAME TO posts"
    )
    articles.execute("INSERT INTO moved.posts (key, headline) VALUES (1, 'a'), (2, NULL), (3, 'c')")
    articles.execute("UPDATE moved.posts SET headline = 'b' WHERE key = 2")
    articles.execute("DELETE FROM moved.posts WHERE key = 3")
    articles.execute("UPDATE moved.posts SET key = 20 WHERE key = 2")
    assert queued(articles) == [1, 2, 20]
    view = 'SELECT schema, "table", "column", keys, sources FROM embeddb.embeddings'
    expected = [("moved", "posts", "vec", ["key"], ["headline", "body"])]
    assert articles.execute(view).fetchall() == expected
    assert trigger_problems(articles) == []
    take(articles)
    # Written anew, the functions are fast again, and the same.
    assert articles.execute("SELECT embeddb.refresh(id) FROM embeddb.embedding").fetchall() == [(True,)]
    assert articles.execute("SELECT embeddb.refresh(id) FROM embeddb.embedding").fetchall() == [(False,)]
    articles.execute("INSERT INTO moved.posts (key, headline) VALUES (4, 'a')")
    assert (queued(articles), articles.execute(view).fetchall()) == ([4], expected)
    articles.execute("SELECT embeddb.unregister(id) FROM embeddb.embedding; DROP SCHEMA moved CASCADE")


def test_swapped_names_do_not_mislead(articles: Database) -> None:
    """The names still exist, and mean other columns."""
    articles.execute("ALTER TABLE articles RENAME title TO t; ALTER TABLE articles ADD title text")
    articles.execute("ALTER TABLE articles RENAME id TO old; ALTER TABLE articles ADD id bigint")
    articles.execute("INSERT INTO articles (old, id, t, title) VALUES (1, 100, 'text', NULL), (2, 200, NULL, 'other')")
    articles.execute("UPDATE articles SET title = 'x', id = 7")
    articles.execute("UPDATE articles SET t = 'more' WHERE old = 1")
    assert queued(articles) == [1, 1]


def test_altering_a_type_between_disarm_and_refresh(articles: Database) -> None:
    with pytest.raises(psycopg.errors.FeatureNotSupported):
        articles.execute("ALTER TABLE articles ALTER title TYPE varchar(200)")
    articles.execute(
        "DO $$ DECLARE e int := embeddb.find('articles.embedding'); BEGIN PERFORM embeddb.disarm(e);"
        " ALTER TABLE articles ALTER title TYPE varchar(200); PERFORM embeddb.refresh(e); END $$"
    )
    articles.execute("INSERT INTO articles (id, title) VALUES (1, 'a'), (2, ' ')")
    assert queued(articles) == [1]


def test_dropped_columns_and_new_ones_change_nothing(articles: Database) -> None:
    articles.execute("ALTER TABLE articles DROP year, ADD more int DEFAULT 3")
    articles.execute("INSERT INTO articles (id, title) VALUES (1, 'a')")
    assert queued(articles) == [1]


def test_a_key_type_that_grows(db: Database) -> None:
    db.execute("CREATE TABLE t (id int PRIMARY KEY, title text, body text, embedding vector(3))")
    register(db, spec("t"))
    db.execute("INSERT INTO t (id, title) VALUES (1, 'a')")
    db.execute(
        "SELECT embeddb.disarm(id) FROM embeddb.embedding; ALTER TABLE t ALTER id TYPE bigint;"
        "SELECT embeddb.refresh(id) FROM embeddb.embedding"
    )
    db.execute("INSERT INTO t (id, title) VALUES (5000000000, 'a')")
    assert queued(db) == [1, 5000000000]


def test_stored_generated_columns_as_sources(db: Database) -> None:
    db.execute(
        "CREATE TABLE t (id int PRIMARY KEY, a text, b text, title text GENERATED ALWAYS AS (a || '!') STORED,"
        " embedding vector(3))"
    )
    register(db, spec("t", sources=("title",)))
    db.execute("INSERT INTO t (id, a) VALUES (1, 'x'), (2, NULL)")
    db.execute("UPDATE t SET b = 'z'")
    assert take(db) == [1]
    db.execute("UPDATE t SET a = 'y' WHERE id = 1")
    db.execute("UPDATE t SET a = 'y' WHERE id = 2")
    assert take(db) == [1, 2]


def test_virtual_generated_columns_as_sources(db: Database) -> None:
    if db.info.server_version < 180000:
        pytest.skip("virtual generated columns came with Postgres 18")
    db.execute(
        "CREATE TABLE t (id int PRIMARY KEY, a text, b text, title text GENERATED ALWAYS AS (upper(a)) VIRTUAL,"
        " embedding vector(3))"
    )
    register(db, spec("t", sources=("title",)))
    db.execute("INSERT INTO t (id, a) VALUES (1, 'x'), (2, NULL)")
    db.execute("UPDATE t SET b = 'z'")
    assert take(db) == [1]
    db.execute("UPDATE t SET a = 'X' WHERE id = 1")
    assert take(db) == []
    db.execute("UPDATE t SET a = 'y' WHERE id = 1")
    db.execute("UPDATE t SET a = 'y' WHERE id = 2")
    assert take(db) == [1, 2]


def test_sources_changed_by_the_applications_own_trigger(db: Database) -> None:
    """UPDATE OF would not see them: the statement names another column."""
    db.execute(ARTICLES)
    db.execute(
        "CREATE FUNCTION public.strip() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN NEW.title := 'about ' || NEW.year; RETURN NEW; END $$"
    )
    trigger = "CREATE TRIGGER strip BEFORE INSERT OR UPDATE ON articles FOR EACH ROW EXECUTE FUNCTION public.strip()"
    db.execute(trigger)
    register(db)
    db.execute(f"INSERT INTO articles (id, year, embedding) VALUES (1, 1999, {V1})")
    db.execute("UPDATE articles SET year = 2000")
    assert take(db) == [1]
    db.execute("UPDATE articles SET year = year")
    assert take(db) == []
    db.execute("DROP TRIGGER strip ON articles; SELECT embeddb.refresh(id) FROM embeddb.embedding")
    # One that comes later is found, and the remedy helps.
    db.execute(trigger)
    [(problem,)] = db.execute("SELECT embeddb.problems(id) FROM embeddb.embedding")
    assert "strip" in problem
    assert "embeddb.refresh" in problem
    db.execute("SELECT embeddb.refresh(id) FROM embeddb.embedding")
    db.execute("UPDATE articles SET year = 2001")
    assert take(db) == [1]
    assert db.execute("SELECT embeddb.problems(id) FROM embeddb.embedding").fetchall() == []
    db.execute("DROP FUNCTION public.strip CASCADE")


PARTITIONED = """
CREATE TABLE t (part int, id int, title text, body text, embedding vector(3), PRIMARY KEY (part, id))
    PARTITION BY LIST (part);
CREATE TABLE t1 PARTITION OF t FOR VALUES IN (1);
CREATE TABLE t2 (embedding vector(3), gone int, body text, title text, id int NOT NULL, part int NOT NULL);
ALTER TABLE t2 DROP gone; ALTER TABLE t ATTACH PARTITION t2 FOR VALUES IN (2)"""


def test_partitions_written_through_the_parent_and_directly(db: Database) -> None:
    db.execute(PARTITIONED)
    register(db, spec("t"))
    db.execute("CREATE TABLE t3 PARTITION OF t FOR VALUES IN (3)")
    db.execute("INSERT INTO t (part, id, title) VALUES (1, 1, 'a'), (2, 1, 'b'), (3, 1, 'c'), (1, 2, NULL)")
    for part in (1, 2, 3):
        db.execute(f"INSERT INTO t{part} (part, id, title) VALUES ({part}, 9, 'a')")
    assert take(db) == [[1, 1], [2, 1], [3, 1], [1, 9], [2, 9], [3, 9]]
    db.execute("UPDATE t SET title = 'z' WHERE id = 1")
    db.execute("UPDATE t2 SET title = 'y' WHERE id = 9")
    assert take(db) == [[1, 1], [2, 1], [3, 1], [2, 9]]
    db.execute("ALTER TABLE t RENAME id TO number")
    db.execute("UPDATE t SET body = 'z' WHERE number = 1")
    db.execute("DELETE FROM t WHERE part = 1; DELETE FROM t2")
    assert take(db) == [[3, 1]]
    assert trigger_problems(db) == []


@pytest.mark.parametrize("changes", [{}, {"on_update": "clear"}])
def test_a_row_that_moves_to_another_partition(db: Database, changes: dict[str, Any]) -> None:
    db.execute(PARTITIONED)
    register(db, spec("t", **changes))
    db.execute(f"INSERT INTO t (part, id, title, embedding) SELECT 1, i, 'a', {V1} FROM generate_series(1, 4) i")
    db.execute("UPDATE t SET part = 2 WHERE id = 1")
    assert queued(db) == []
    db.execute("UPDATE t SET title = 'stale' WHERE id = 2")
    db.execute("UPDATE t SET part = 2 WHERE id = 2")
    db.execute("UPDATE t SET part = 2, title = 'stale' WHERE id = 3")
    db.execute(f"UPDATE t SET part = 2, title = 'fresh', embedding = {V2} WHERE id = 4")
    assert {tuple(key) for key in queued(db)} - {(1, 2)} == {(2, 2), (2, 3)}


def test_tables_that_inherit(db: Database) -> None:
    db.execute(
        "CREATE TABLE t (id int PRIMARY KEY, title text, body text, embedding vector(3));"
        "CREATE TABLE child (extra text, PRIMARY KEY (id)) INHERITS (t)"
    )
    register(db, spec("t"))
    db.execute("INSERT INTO t (id, title) VALUES (1, 'a')")
    db.execute("INSERT INTO child (id, title) VALUES (2, 'b')")
    assert take(db) == [1, 2]
    db.execute("UPDATE t SET title = title || '!'")
    assert take(db) == [1, 2]
    db.execute("UPDATE child SET title = 'c'; UPDATE t SET id = id + 10")
    assert take(db) == [2, 12]
    db.execute("UPDATE t SET title = title || '?'; TRUNCATE ONLY t")
    assert queued(db) == [11, 12]
    db.execute("DELETE FROM t")
    assert 12 not in queued(db)
    db.execute("CREATE TABLE late () INHERITS (t)")
    [(problem,)] = db.execute("SELECT embeddb.problems(id) FROM embeddb.embedding")
    assert "late" in problem


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_writers_at_higher_isolation_never_fail_because_of_workers(
    articles: Database, level: str, catalog: Any
) -> None:
    articles.execute("INSERT INTO articles (id, title) SELECT i, 'x' FROM generate_series(1, 10) i")
    with connect(catalog) as writer:
        writer.autocommit = False
        writer.execute("SET TRANSACTION ISOLATION LEVEL " + level)
        writer.execute("SELECT count(*) FROM articles")
        articles.execute("UPDATE embeddb.job SET lease_until = now() + interval '1 hour', worker = 1")
        writer.execute("UPDATE articles SET title = 'y' WHERE id = 1")
        writer.execute("UPDATE articles SET title = 'y', embedding = '[1,2,3]' WHERE id = 2")
        writer.execute("UPDATE articles SET id = 30 WHERE id = 3")
        writer.execute("DELETE FROM articles WHERE id = 4")
        writer.execute("INSERT INTO articles (id, title) VALUES (11, 'z')")
        writer.commit()
    assert queued(articles)[-3:] == [1, 30, 11]


def test_a_writer_never_waits_for_a_worker(articles: Database, catalog: Engine) -> None:
    articles.execute("INSERT INTO articles (id, title) SELECT i, 'x' FROM generate_series(1, 3) i")
    with connect(catalog) as worker, worker.transaction():
        worker.execute("UPDATE embeddb.job SET attempts = 1")
        articles.execute("SET lock_timeout = '200ms'")
        articles.execute("UPDATE articles SET title = 'y' WHERE id = 1")
        articles.execute("DELETE FROM articles WHERE id = 2")
        articles.execute("UPDATE articles SET title = 'y', embedding = '[1,2,3]' WHERE id = 3")


def test_the_workers_own_write_makes_no_job(articles: Database) -> None:
    articles.execute("INSERT INTO articles (id, title) VALUES (1, 'a')")
    take(articles)
    articles.execute(f"UPDATE articles SET embedding = {V1}")
    articles.execute(f"UPDATE articles SET embedding = {V2}")
    assert queued(articles) == []


def test_rolled_back_statements_leave_no_job(articles: Database) -> None:
    with articles.transaction():
        articles.execute("INSERT INTO articles (id, title) VALUES (1, 'a')")
        with articles.transaction(force_rollback=True):
            articles.execute("INSERT INTO articles (id, title) VALUES (2, 'b')")
    assert queued(articles) == [1]


def test_a_failure_does_not_outlive_the_key_of_its_row(articles: Database) -> None:
    articles.execute("INSERT INTO articles (id, title) VALUES (1, 'a'), (2, 'b')")
    take(articles)
    articles.execute(
        "INSERT INTO embeddb.failure SELECT e.id, k::text::jsonb, 'encode', 'no', 1"
        " FROM embeddb.embedding e, generate_series(1, 2) k"
    )
    articles.execute("UPDATE articles SET id = 11 WHERE id = 1")
    articles.execute("UPDATE articles SET id = 12, title = NULL WHERE id = 2")
    assert articles.execute("SELECT count(*) FROM embeddb.failure").fetchall() == [(0,)]
    assert set(take(articles)) >= {11}
