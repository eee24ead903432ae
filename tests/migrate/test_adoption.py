"""An application that is there already adopts embeddb; there and back again; the same as a script."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, text

from embeddb.catalog.register import register_spec
from embeddb.local import LocalPostgres
from embeddb.spec import EmbeddingSpec
from tests.conftest import fresh_database
from tests.migrate.project import Project, dump, psql, schema_of
from tests.migrate.shop import shop

ROWS = """
INSERT INTO users (email) VALUES ('ann@example.org');
INSERT INTO categories (name) VALUES ('tools');
INSERT INTO products (category_id, name, description, price) VALUES (1, 'hammer', 'for nails', 10), (1, 'saw', '', 20);
"""


@pytest.fixture
def project(engine: Engine, tmp_path: Path) -> Project:
    """An application with a history, rows in its tables, and models that now declare embeddings."""
    project = Project(tmp_path, engine, shop(embedded=False).metadata)
    project.revise("before")
    project.upgrade()
    project.check()
    with engine.begin() as connection:
        connection.execute(text(ROWS))
    project.metadata = shop().metadata
    return project


def test_an_application_adopts_embeddb_in_one_revision(project: Project) -> None:
    written = project.revise("adopt")
    project.upgrade()
    project.check()
    assert "JSON" not in written
    with project.engine.connect() as connection:
        names = connection.scalars(text("SELECT name FROM embeddb.embeddings ORDER BY name")).all()
        assert names == ["categories.name_embedding", "products.embedding", "reviews.embedding"]
        assert connection.scalars(text("SELECT embeddb.problems(id) FROM embeddb.embedding")).all() == []
    # Objects of the catalog are nobody's to drop.
    project.config.attributes["include_schemas"] = True
    project.check()


def test_there_and_back_again_is_the_same_schema(project: Project, server: LocalPostgres) -> None:
    url = project.engine.url
    project.revise("adopt")
    before = schema_of(server, url)
    project.upgrade()
    there = schema_of(server, url)
    project.downgrade()
    assert schema_of(server, url) == before
    project.upgrade()
    assert schema_of(server, url) == there
    project.downgrade("base")
    project.upgrade()
    project.check()


def test_a_downgrade_keeps_vectors_unless_asked(project: Project) -> None:
    project.revise("adopt")
    project.upgrade()
    fill = "UPDATE products SET embedding = array_fill(0.5, ARRAY[16])::vector WHERE id = 1"
    count = text("SELECT count(embedding) FROM products")
    with project.engine.begin() as connection:
        connection.exec_driver_sql(fill)
    project.downgrade()
    with project.engine.connect() as connection:
        assert connection.scalar(count) == 1
        assert connection.scalar(text("SELECT to_regnamespace('embeddb')")) is None
    project.upgrade()
    project.check()
    with project.engine.connect() as connection:
        assert connection.scalar(count) == 1
    project.downgrade(options={"embeddb_vectors": "drop"})
    with project.engine.connect() as connection:
        left = text("SELECT count(*) FROM information_schema.columns WHERE column_name ~ 'embedding'")
        assert connection.scalar(left) == 0


def test_a_downgrade_leaves_the_catalog_to_others(project: Project) -> None:
    project.revise("adopt")
    project.upgrade()
    with project.engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE others (id int PRIMARY KEY, body text, embedding vector(16))")
        spec = EmbeddingSpec(table="others", column="embedding", sources=("body",), encoder={"type": "hashing"}, dim=16)
        register_spec(connection, spec)
    project.downgrade()
    with project.engine.connect() as connection:
        assert connection.scalars(text("SELECT name FROM embeddb.embeddings")).all() == ["others.embedding"]
    project.upgrade()
    project.config.attributes["include_object"] = lambda item, name, kind, reflected, other: name != "others"
    project.check()


def test_the_script_does_the_same_in_psql(project: Project, server: LocalPostgres) -> None:
    project.revise("adopt")
    project.upgrade()
    there = schema_of(server, project.engine.url)
    with fresh_database(server) as url:
        psql(server, url, project.script("head"))
        assert schema_of(server, url) == there
        engine = create_engine(url)
        Project(project.folder, engine, project.metadata).check()
        engine.dispose()
        [first, second] = [script.revision for script in project.scripts()]
        psql(server, url, project.script(f"{second}:{first}", down=True))
        psql(server, url, project.script(f"{first}:{second}"))
        assert schema_of(server, url) == there


def test_a_revision_passes_ruff(project: Project) -> None:
    """What Alembic writes itself has single quotes; what is ours ruff would write in the same way."""
    written = project.revise("adopt")
    file = project.folder / "adopt.py"
    # Alembic's template imports it whether it is used or not.
    file.write_text(written.replace("import sqlalchemy as sa\n", ""))
    ruff = [sys.executable, "-m", "ruff"]
    # Of Alembic's template ruff's newest rules complain too; a project has its own.
    rules = ["--isolated", "--select=E4,E7,E9,F,B"]
    ran = subprocess.run([*ruff, "check", *rules, str(file)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout
    ran = subprocess.run([*ruff, "format", "--isolated", "--diff", str(file)], capture_output=True, text=True)
    changed = [line for line in ran.stdout.splitlines() if line.startswith("-    ")]
    assert changed == []


def test_dump_and_restore_bring_everything_back(project: Project, server: LocalPostgres) -> None:
    project.revise("adopt")
    project.upgrade()
    project.downgrade()
    project.upgrade()  # so that columns have other numbers than they will have
    with project.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE products SET embedding = array_fill(0.5, ARRAY[16])::vector")
        connection.exec_driver_sql("SELECT embeddb.backfill('products.embedding', true)")
    with fresh_database(server) as url:
        psql(server, url, dump(server, project.engine.url))
        restored = Project(project.folder, create_engine(url), project.metadata)
        restored.check()
        with restored.engine.begin() as connection:
            assert connection.scalar(text("SELECT count(embedding) FROM products")) == 2
            jobs = "SELECT count(*) FROM embeddb.job"
            waiting = connection.scalar(text(jobs))
            assert waiting
            connection.exec_driver_sql("INSERT INTO products (category_id, name, price) VALUES (1, 'new', 1)")
            assert connection.scalar(text(jobs)) == waiting + 1
            found = "SELECT id FROM products_similar(1, 5)"
            assert connection.scalar(text(found)) == 2
        restored.engine.dispose()
