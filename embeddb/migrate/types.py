"""Types of vectors in revisions: ``embeddb.VECTOR(384)``, with their import."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from embeddb.orm.types import HALFVEC, VectorType

RenderItem = Callable[[str, Any, Any], str | Literal[False]]


def rendering_types(otherwise: RenderItem | None) -> RenderItem:
    """A ``render_item`` for Alembic that knows types of vectors, and asks ``otherwise`` first, the project's own."""

    def render_item(kind: str, item: Any, context: Any) -> str | Literal[False]:
        said = otherwise(kind, item, context) if otherwise is not None else False
        if said is not False or kind != "type":
            return said
        if isinstance(item, VectorType):
            context.imports.add("import embeddb")
            name = "HALFVEC" if isinstance(item, HALFVEC) else "VECTOR"
            return f"embeddb.{name}({'' if item.dim is None else item.dim})"
        module = type(item).__module__
        if module.partition(".")[0] in ("embeddb", "pgvector"):
            context.imports.add(f"import {module}")
        return False

    return render_item
