"""``on_error="queue"``: rows whose encoder or file failed are left to a worker, if there is a queue that takes them."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final

from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.orm import Session

from embeddb.errors import EncoderError, SourceError
from embeddb.naming import CATALOG
from embeddb.orm.declaration import Declaration

log = logging.getLogger(__name__)

# The triggers are what turns a missing vector into a job; every role may look for them, also one that may not read
# the catalog.
_HAS_TRIGGER: Final = text(
    """
    SELECT EXISTS (
        SELECT FROM pg_catalog.pg_trigger t
          JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
          JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace AND n.nspname = :catalog
         WHERE t.tgrelid = pg_catalog.to_regclass(:table) AND t.tgenabled <> 'D')
    """
).bindparams(bindparam("catalog", CATALOG))

_quote: Final = PGDialect().identifier_preparer.format_table  # type: ignore[no-untyped-call]


def hand_over(session: Session, declarations: Iterable[Declaration], error: EncoderError | SourceError) -> None:
    """Return if the database queues the rows of every declaration, else raise ``error`` and say what is missing."""
    for declaration in declarations:
        bind = {"mapper": declaration.mapper}
        if not session.scalar(_HAS_TRIGGER, {"table": _quote(declaration.table)}, bind_arguments=bind):
            raise type(error)(
                f"{error} (on_error='queue' of {declaration.name} cannot help: its table has no queue; "
                "register it with embeddb.register or a migration)"
            ) from error
        log.warning("%s: left to the queue, because %s", declaration.name, error)
