"""Operations as Python source: executed, they are the same operations; and ruff would write them in the same way."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from alembic.autogenerate import render_python_code
from alembic.migration import MigrationContext
from alembic.operations import MigrateOperation, Operations, ops
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.dialects import postgresql

import embeddb
from embeddb import HNSW, IVFFlat
from embeddb.migrate.catalog_operations import InstallEmbeddbOp, UninstallEmbeddbOp, UpgradeEmbeddbOp
from embeddb.migrate.column_operations import AddEmbeddingColumnOp, DropEmbeddingColumnOp
from embeddb.migrate.embedding_operations import (
    AlterEmbeddingOp,
    CreateEmbeddingOp,
    DisarmEmbeddingOp,
    DropEmbeddingOp,
    RefreshEmbeddingOp,
)
from embeddb.migrate.encoder_operations import InstallEncoderOp, RemoveEncoderOp
from embeddb.migrate.history_operations import CreateHistoryOp, DropHistoryOp
from embeddb.migrate.index_operations import (
    CreateVectorIndexOp,
    DropVectorIndexOp,
    RenameVectorIndexOp,
    ReplaceVectorIndexOp,
    VectorIndex,
)
from embeddb.migrate.reembed_operations import (
    AbandonEmbeddingOp,
    ContractEmbeddingOp,
    ExpandEmbeddingOp,
    RollBackEmbeddingOp,
    SwapEmbeddingOp,
)
from embeddb.migrate.rename_operations import RenameEmbeddedColumnOp, RenameEmbeddedTableOp
from embeddb.orm.history_spec import HistorySpec
from embeddb.spec import EmbeddingSpec
from embeddb.spec import VectorIndex as Index

CONTEXT = MigrationContext.configure(dialect=postgresql.dialect())  # type: ignore[no-untyped-call]


class Recorder(Operations):
    """Keeps operations instead of running them."""

    def __init__(self) -> None:
        super().__init__(CONTEXT)
        self.seen: list[MigrateOperation] = []

    def invoke(self, operation: Any) -> Any:
        self.seen.append(operation)


def executed(code: str) -> list[MigrateOperation]:
    """What source makes when it is executed."""
    op = Recorder()
    namespace: dict[str, Any] = {"op": op, "embeddb": embeddb}
    exec(f"def upgrade():\n{code}", namespace)  # noqa: S102 - a revision is executed in the same way
    namespace["upgrade"]()
    return op.seen


def spec(**arguments: Any) -> EmbeddingSpec:
    given: dict[str, Any] = {"table": "t", "column": "v", "sources": ("a",), "encoder": {"type": "x"}, "dim": 16}
    return EmbeddingSpec(**given | arguments)


LONG = "a_very_long_name_of_a_table_that_takes_nearly_sixty_bytes"
INDEX = VectorIndex("i", "t", "v", "hnsw", "vector_l2_ops", "((v)::halfvec(16))", {"m": 4}, "a > 'x'", "s", True)
HISTORY = HistorySpec(
    users="users",
    users_schema="s",
    column="taste",
    user_key="id",
    user_type="INTEGER",
    events="orders",
    event_keys=("a", "b"),
    user_ref="user_id",
    item_ref="item_id",
    at="at",
    at_type="TIMESTAMP WITH TIME ZONE",
    is_time=True,
    items="items",
    item_key="id",
    pooled="vector",
    dim=4,
    half_life=3.5,
)
EVERY: list[MigrateOperation] = [
    InstallEmbeddbOp(),
    UninstallEmbeddbOp(),
    UpgradeEmbeddbOp(7, 6),
    AddEmbeddingColumnOp("t", "v", "vector", 16, None),
    AddEmbeddingColumnOp(LONG, "v", "halfvec", 16, "s"),
    DropEmbeddingColumnOp("t", "v", "halfvec", 16, "s", "drop", comment="it's made"),
    CreateEmbeddingOp(spec(schema="s", index=None, mode="queued", on_error="queue", on_update="clear")),
    CreateEmbeddingOp(spec(table=LONG, sources=(LONG, LONG[::-1]), encoder={"model": LONG, "prompts": {"q": LONG}})),
    CreateEmbeddingOp(spec(encoder={"deep": {"names": [LONG, LONG], "on": True, "none": None}, LONG: 1e-5})),
    CreateEmbeddingOp(spec(template="""{a} 'q' "d" \\' \\""", sources=("a",))),
    CreateEmbeddingOp(spec(template='{a} is "it"', encoder={"it's": '"', "'": "''\""})),
    CreateEmbeddingOp(spec(index=IVFFlat(lists=7, cast="binary", prefix=8), files={"roots": ["/srv/photos"]})),
    AlterEmbeddingOp("t", "v", "s", {"index": None, "template": None}, {"index": HNSW(m=3), "template": "{a}"}),
    AlterEmbeddingOp("t", "v", None, {"sources": ("a", "b")}, {"sources": ("a",)}),
    DisarmEmbeddingOp("t", "v", "s"),
    DropEmbeddingOp("t", "v"),
    RefreshEmbeddingOp("t", "v"),
    CreateVectorIndexOp(INDEX),
    DropVectorIndexOp(INDEX),
    ReplaceVectorIndexOp(INDEX, replace(INDEX, opclass="halfvec_l2_ops", expression=None, options={}, where=None)),
    ReplaceVectorIndexOp(replace(INDEX, options={}, expression=None), INDEX),
    RenameVectorIndexOp("i", "j", "s"),
    CreateHistoryOp(HISTORY),
    DropHistoryOp("users", "taste", "s", existing=HISTORY),
    ExpandEmbeddingOp(spec(metric="l1")),
    AbandonEmbeddingOp("t", "v"),
    SwapEmbeddingOp("t", "v"),
    RollBackEmbeddingOp("t", "v"),
    ContractEmbeddingOp("t", "v", "s"),
    InstallEncoderOp("t", "v", "s", halfvec=True, name="n"),
    RemoveEncoderOp("t", "v"),
    RenameEmbeddedTableOp("t", "u", "s", {"i": "j"}),
    RenameEmbeddedColumnOp("t", "v", "w", None, {}),
]


def test_every_operation_is_the_same_after_it_was_written_down() -> None:
    code = render_python_code(ops.UpgradeOps(EVERY), migration_context=CONTEXT)
    assert [op.to_diff_tuple() for op in executed(code)] == [op.to_diff_tuple() for op in EVERY]


ANY = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=100)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | ANY,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY, inner, max_size=3),
    max_leaves=6,
)
INDEXES: st.SearchStrategy[Index | None] = st.none() | st.builds(
    HNSW, m=st.integers(2, 32), prefix=st.none() | st.integers(1, 8), cast=st.sampled_from([None, "halfvec", "binary"])
)


@settings(max_examples=100, deadline=None)
@given(ANY, st.lists(ANY, min_size=1, max_size=3, unique=True), st.dictionaries(ANY, VALUES, max_size=3), INDEXES)
def test_any_spec_is_the_same_after_it_was_written_down(
    name: str, sources: list[str], encoder: dict[str, Any], index: Index | None
) -> None:
    given = spec(table=name, schema=name, sources=tuple(sources), encoder=encoder, index=index)
    code = render_python_code(ops.UpgradeOps([CreateEmbeddingOp(given)]), migration_context=CONTEXT)
    [made] = executed(code)
    assert isinstance(made, CreateEmbeddingOp)
    assert made.spec == given


def test_ruff_would_write_them_in_the_same_way(tmp_path: Path) -> None:
    code = render_python_code(ops.UpgradeOps(EVERY), migration_context=CONTEXT)
    body = [line for line in code.splitlines() if "###" not in line]
    file = tmp_path / "revision.py"
    file.write_text("import embeddb\nfrom alembic import op\n\n\ndef upgrade() -> None:\n" + "\n".join(body) + "\n")
    ruff = [sys.executable, "-m", "ruff", "format", "--isolated", "--diff", str(file)]
    ran = subprocess.run(ruff, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (0, "")
