"""The catalog as a Postgres extension: its control file and scripts, out of the same files that install it anywhere.

The extension's version is the catalog's. Its objects are members of the extension; functions and triggers that are made
for tables later are not, and depend on it. Format: https://www.postgresql.org/docs/current/extend-extensions.html
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from psycopg import sql

from embeddb.catalog.blocks import blocks
from embeddb.catalog.steps import VECTOR_SCHEMA, current, record, statements, steps
from embeddb.errors import CatalogError

NAME: Final = "embeddb"
#: The first Postgres whose scripts learn by themselves in which schema an extension is that they need.
FINDS_SCHEMAS: Final = 16

_BLOCKS: Final = blocks("embeddb.catalog", "extension.sql")
_SCHEMA: Final = re.compile(r"^CREATE SCHEMA ", re.MULTILINE)


def build(postgres: int = 18, vector_schema: str = "public") -> dict[str, str]:
    """The extension's files for a major version of Postgres: text by file name.

    ``vector_schema``: where pgvector is. Only Postgres 15 needs it; later ones find it when the extension is created.
    """
    newest = len(steps())
    scripts = {
        f"{NAME}--{newest}": _script("CREATE", _install()),
        f"{NAME}--unpackaged": _script("CREATE", _adopt()),
        f"{NAME}--unpackaged--{newest}": _script("ALTER", _upgrade(newest)),
        **{f"{NAME}--{start}--{newest}": _script("ALTER", _upgrade(start)) for start in range(1, newest)},
    }
    if postgres < FINDS_SCHEMAS:
        place = sql.Identifier(vector_schema).as_string(None)
        scripts = {name: text.replace(VECTOR_SCHEMA, place) for name, text in scripts.items()}
    return {f"{NAME}.control": _control(postgres), **{f"{name}.sql": text for name, text in sorted(scripts.items())}}


def write(folder: Path, files: dict[str, str]) -> list[Path]:
    """Put ``build``'s files into a folder, over older ones of these names; their paths.

    Raises CatalogError where the folder is not ours to write to.
    """
    paths = [folder / name for name in files]
    path = folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # The control file, which names the scripts' newest version, comes last.
        for path in reversed(paths):
            path.write_text(files[path.name], "utf-8", newline="\n")
            path.chmod(0o644)
    except OSError as error:
        raise CatalogError(f"{path} cannot be written: {error.strerror}") from error
    return paths


def find_server(pg_config: str = "pg_config") -> tuple[int, Path]:
    """The major version of the Postgres that a ``pg_config`` is of, and the folder of its extensions.

    Raises CatalogError where there is no such program.
    """
    try:
        command = [pg_config, "--version", "--sharedir"]
        ran = subprocess.run(command, capture_output=True, check=True, text=True)  # noqa: S603 - the user names it
    except (OSError, subprocess.CalledProcessError) as error:
        raise CatalogError(f"{pg_config} does not run: name the server's pg_config, or write to a folder") from error
    version, share = ran.stdout.splitlines()
    found = re.search(r"\d+", version)
    assert found is not None
    return int(found[0]), Path(share) / "extension"


def _control(postgres: int) -> str:
    lines = [
        "comment = 'Embeddings of tables: a queue, triggers, and search by meaning'",
        f"default_version = '{len(steps())}'",
        "encoding = 'UTF8'",
        "requires = 'vector'",
        "relocatable = false",
        f"schema = '{NAME}'",
        # Nothing in it needs more than the right to create a schema.
        "superuser = false",
    ]
    if postgres >= FINDS_SCHEMAS:
        # The schema that pgvector is in stands in the functions' bodies.
        lines.append("no_relocate = 'vector'")
    return "\n".join(lines) + "\n"


def _script(verb: str, body: Iterable[str]) -> str:
    update = " UPDATE" if verb == "ALTER" else ""
    guard = f'\\echo Use "{verb} EXTENSION {NAME}{update}" to load this file. \\quit\n\n'
    return guard + ";\n\n".join([_BLOCKS["preamble"], *body]) + ";\n"


def _install() -> Iterator[str]:
    yield _BLOCKS["refuse_catalog"]
    yield from _from_version(0)
    yield _BLOCKS["settle"]


def _upgrade(start: int) -> Iterator[str]:
    yield from _from_version(start)
    yield _BLOCKS["settle"]
    yield _BLOCKS["refresh"]


def _from_version(start: int) -> Iterator[str]:
    for step in steps()[start:]:
        # CREATE EXTENSION has made the schema before it runs a script.
        yield from (statement for statement in statements(step.text) if not _SCHEMA.search(statement))
        yield record(step)
    for file in current():
        yield from statements(file)


def _adopt() -> Iterator[str]:
    yield _BLOCKS["adopt"].replace("{version}", str(len(steps())))
    yield _BLOCKS["settle"]
