"""Encoders are put into the database, and taken out of it, by a migration."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from embeddb.catalog.install import install
from embeddb.encoders import WordVectors, word_store
from embeddb.migrate.encoder_operations import InstallEncoderOp, RemoveEncoderOp
from embeddb.spec import EmbeddingSpec


def operations(connection: Connection, **options: Any) -> Any:
    """What a revision calls ``op``."""
    return Operations(MigrationContext.configure(connection, opts=options))


def test_there_and_back(engine18: Engine, tmp_path: Path) -> None:
    word_store.write(tmp_path / "words", word_store.Words(["cat", "dog"], np.eye(2, dtype=np.float32)))
    encoder = WordVectors(str(tmp_path / "words"))
    embed = text("SELECT embeddb.embed('Odd \"notes.v', 'cat')::text")
    with engine18.begin() as connection:
        connection.exec_driver_sql("CREATE EXTENSION IF NOT EXISTS vector")
        install(connection)
        connection.exec_driver_sql('CREATE TABLE "Odd ""notes" (id int PRIMARY KEY, body text, v vector(2))')
        spec = EmbeddingSpec(
            table='Odd "notes', column="v", sources=("body",), encoder=encoder.config, dim=encoder.dim, index=None
        )
        connection.execute(
            text("SELECT embeddb.register(cast(:spec AS jsonb), :fingerprint)"),
            {"spec": spec.to_json(), "fingerprint": encoder.fingerprint},
        )
        op = operations(connection)
        op.install_encoder('Odd "notes', "v", name="pets")
        assert connection.scalar(text("SELECT name FROM embeddb.fast_encoder")) == "pets"
        assert connection.scalar(embed) == "[1,0]"
        op.remove_encoder('Odd "notes', "v")
    with pytest.raises(DBAPIError, match="this database cannot embed"), engine18.connect() as connection:
        connection.execute(embed)


def test_a_script_warns(engine18: Engine) -> None:
    """For it cannot hold the weights."""
    script = io.StringIO()
    with engine18.connect() as connection:
        op = operations(connection, as_sql=True, output_buffer=script)
        op.install_encoder("it's", "v")
        op.remove_encoder("it's", "v")
        notices: list[str] = []
        driver: Any = connection.connection.driver_connection
        driver.add_notice_handler(lambda notice: notices.append(str(notice.message_primary)))
        driver.execute(script.getvalue())
    assert ["embeddb sql install it's.v" in notices[0], "embeddb sql remove" in notices[1]] == [True, True]


def test_each_is_the_way_back_of_the_other() -> None:
    assert isinstance(InstallEncoderOp("t", "v").reverse(), RemoveEncoderOp)
    assert isinstance(RemoveEncoderOp("t", "v").reverse(), InstallEncoderOp)
