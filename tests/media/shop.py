"""Photos in a database, embedded by a worker, and looked at again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from embeddb import Files, Image, nearest, register
from embeddb.queue import Target, prepare, targets
from embeddb.queue.rescan import rescan
from embeddb.worker import drain
from tests.media.library import library, png


class Shop:
    """The photos of ``library``, below ``root``."""

    def __init__(self, engine: Engine, root: Path | str, files: Files | None = None) -> None:
        self.engine, self.root = engine, Path(root)
        self.models = library(root, files=files)
        self.models.base.metadata.create_all(engine)
        register(engine, self.models.base, install=True)
        dsn = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
        self.connection = psycopg.connect(dsn, autocommit=True)
        prepare(self.connection)

    def add(self, **paths: str | None) -> None:
        with Session(self.engine) as session, session.begin():
            session.add_all([self.models.photo(id=int(key[1:]), path=path) for key, path in paths.items()])

    def drain(self) -> tuple[int, int]:
        totals = drain(self.engine, self.models.base)
        return totals.embedded, totals.failed

    def rescan(self, **options: Any) -> dict[str, str]:
        return {seen.key: seen.kind for seen in rescan(self.connection, self.target, **options)}

    @property
    def target(self) -> Target:
        [target] = targets(self.connection, "photos.embedding")
        return target

    def nearest(self, colour: str) -> int:
        with Session(self.engine) as session:
            return int(session.scalars(nearest(self.models.photo.embedding, Image(png(colour))).limit(1)).one().id)
