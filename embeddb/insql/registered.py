"""The catalog's row of an encoder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, text


def encoder_id(connection: Connection, config: Mapping[str, Any], dim: int, fingerprint: str) -> int:
    """The number of the encoder with this configuration, made if need be; its fingerprint is this one from now on."""
    return int(
        connection.scalar(
            text(
                "INSERT INTO embeddb.encoder AS x (config, dim, fingerprint)"
                " VALUES (cast(:config AS jsonb), :dim, :fingerprint)"
                " ON CONFLICT (md5(config::text), dim) DO UPDATE SET fingerprint = excluded.fingerprint RETURNING x.id"
            ),
            {"config": json.dumps(dict(config)), "dim": dim, "fingerprint": fingerprint},
        )
    )


def forget_encoder(connection: Connection, number: int) -> None:
    """Delete the encoder where nothing uses it."""
    connection.execute(
        text(
            "DELETE FROM embeddb.encoder x WHERE x.id = :encoder"
            " AND NOT EXISTS (SELECT FROM embeddb.embedding e WHERE e.encoder = x.id)"
            " AND NOT EXISTS (SELECT FROM embeddb.transformer t WHERE t.encoder = x.id)"
            " AND NOT EXISTS (SELECT FROM embeddb.fast_encoder f WHERE f.encoder = x.id)"
        ),
        {"encoder": number},
    )
