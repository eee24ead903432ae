"""Another encoder for an embedding, step by step: expand, fill, index, swap; and back, or to the end."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final, Literal, NamedTuple

from psycopg import errors
from sqlalchemy import Connection, Engine, TextClause, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.schema import CreateIndex

from embeddb.catalog.errors import catalog_errors
from embeddb.catalog.install import require
from embeddb.encoders import Encoder
from embeddb.errors import CatalogError
from embeddb.naming import index_name
from embeddb.queue.backfill import Backfill
from embeddb.spec import EmbeddingSpec
from embeddb.worker.index_builds import Observer, drop_index, index_of, run_build
from embeddb.worker.options import Options
from embeddb.worker.totals import Totals
from embeddb.worker.worker import Worker

State = Literal["none", "filling", "swapped"]

#: Seconds between attempts to swap, while writers and searches are in the way.
_PAUSE: Final = 0.2

_SPEC = text(
    "SELECT v.spec || jsonb_build_object('table', v.\"table\", 'column', v.\"column\", 'sources', to_jsonb(v.sources))"
    " FROM embeddb.embeddings v WHERE v.id = embeddb.find(:name)"
)
_STATE = text(
    "SELECT r.state, s.name AS shadow, s.state = 'paused' AS paused FROM embeddb.reembedding r"
    " JOIN embeddb.embeddings s ON s.id = r.shadow WHERE r.serving = embeddb.find(:name)"
)
_EXPAND = text("SELECT embeddb.expand(cast(:spec AS jsonb))")
_PAUSED = text("UPDATE embeddb.embedding SET state = :state WHERE id = embeddb.find(:name)")
_EXCHANGE = {
    "swap": text("SELECT embeddb.swap(:name, :max_pending)"),
    "roll_back": text("SELECT embeddb.roll_back(:name, :max_pending)"),
}
_CONTRACT = text("SELECT embeddb.contract(:name)")
_ABANDON = text("SELECT embeddb.abandon(:name)")
_ASIDE = text("SELECT embeddb.aside_name(:name, '__next')")
_INDEX = text(
    "SELECT c.relname, x.indisvalid FROM embeddb.vector_indexes(embeddb.find(:name)) v"
    " JOIN pg_class c ON c.oid = v.index JOIN pg_index x ON x.indexrelid = v.index"
)


class Progress(NamedTuple):
    """How far a change is: its state, the shadow's name, whether it is paused, and rows that wait for it."""

    state: State
    shadow: str | None = None
    paused: bool = False
    pending: int = 0


class Reembedding:
    """The change of one embedding's encoder, in the database of ``engine``. Every step can be repeated."""

    def __init__(self, engine: Engine, name: str) -> None:
        self.engine = engine
        with engine.connect() as connection, catalog_errors():
            require(connection)
            self.spec = _spec(connection, name)
        self.name = self.spec.name

    def progress(self) -> Progress:
        """How far it is."""
        with self.engine.connect() as connection:
            row = connection.execute(_STATE, {"name": self.name}).one_or_none()
            if row is None:
                return Progress("none")
            pending = Backfill.of(connection, [row.shadow]).pending(connection)
            return Progress(row.state, row.shadow, row.paused, pending)

    def expand(self, encoder: Encoder, *, dim: int | None = None) -> str:
        """Add the second column for ``encoder`` and queue all rows; the shadow's name. Takes up one that is there."""
        found = self.progress()
        if found.state == "filling" and found.shadow is not None:
            return found.shadow
        spec = replace(self.spec, encoder=dict(encoder.config), dim=dim or encoder.dim)
        with self.engine.begin() as connection, catalog_errors():
            return str(connection.scalar(_EXPAND, {"spec": spec.to_json()}))

    def pause(self, paused: bool = True) -> None:
        """Let workers leave the new column alone, or go on with it."""
        with self.engine.begin() as connection:
            parameters = {"name": self._shadow(), "state": "paused" if paused else "active"}
            connection.execute(_PAUSED, parameters)

    def fill(self, *, options: Options | None = None, observer: Callable[[int], None] | None = None) -> Totals:
        """Embed what waits for the new column, in this process, beside any workers. ``observer``: rows done so far."""
        shadow = self._shadow()

        def observe(*_: object) -> None:
            if observer is not None:
                observer(worker.totals.embedded + worker.totals.gone + worker.totals.failed)

        worker = Worker(self.engine, names=[shadow], options=options, observer=observe)
        return worker.run(once=True)

    def build_index(self, *, observer: Observer | None = None) -> str | None:
        """Build the new column's index concurrently, as the serving one is declared; its name, None for none.

        ``observer``: is told how far it is.
        """
        shadow = self._shadow()
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            for name, valid in connection.execute(_INDEX, {"name": shadow}).all():
                if valid:
                    return str(name)
                drop_index(connection, self.spec.schema, name)
            spec = _spec(connection, shadow)
            if spec.index is None:
                return None
            name = index_name(spec.table, self.spec.column, spec.index.method)
            name = str(connection.scalar(_ASIDE, {"name": name}))
            create = CreateIndex(index_of(spec, name)).compile(dialect=connection.dialect)
            run_build(connection, str(create), observer)
            return name

    def swap(self, *, max_pending: int = 0, patience: float = 30.0) -> str:
        """Let the new column serve; the name of the old embedding. Tries for ``patience`` seconds to find a moment."""
        return self._exchange("swap", max_pending, patience)

    def roll_back(self, *, max_pending: int = 0, patience: float = 30.0) -> str:
        """Let the old column serve again."""
        return self._exchange("roll_back", max_pending, patience)

    def contract(self) -> None:
        """Drop the old column: there is no way back then."""
        self._end(_CONTRACT)

    def abandon(self) -> None:
        """Drop the new column, which has never served."""
        self._end(_ABANDON)

    def _exchange(self, function: Literal["swap", "roll_back"], max_pending: int, patience: float) -> str:
        statement = _EXCHANGE[function]
        end = time.monotonic() + patience
        while True:
            try:
                with self.engine.begin() as connection, catalog_errors():
                    return str(connection.scalar(statement, {"name": self.name, "max_pending": max_pending}))
            except DBAPIError as error:
                passes = isinstance(error, OperationalError) and isinstance(error.orig, errors.LockNotAvailable)
                waiting = getattr(error.orig, "sqlstate", None) == "EB009"
                if not (passes or waiting):
                    raise
                if time.monotonic() > end:
                    raise CatalogError(
                        f"{self.name}: no moment to {function.replace('_', ' ')}: {error.orig}"
                    ) from error
                time.sleep(_PAUSE)

    def _end(self, statement: TextClause) -> None:
        with self.engine.begin() as connection, catalog_errors():
            connection.execute(statement, {"name": self.name})

    def _shadow(self) -> str:
        found = self.progress()
        if found.shadow is None:
            raise CatalogError(f"{self.name}: its encoder is not being changed: begin with expand")
        return found.shadow


def _spec(connection: Connection, name: str) -> EmbeddingSpec:
    """The registered spec by today's names, with the schema as it was declared."""
    return EmbeddingSpec.from_dict(connection.scalars(_SPEC, {"name": name}).one())
