"""What users' own tests may import, and a plug-in that pytest loads by itself.

It is loaded in every run of pytest where embeddb is installed, so it imports nothing of embeddb until it is used::

    def test_search_is_served_by_the_index(session, assert_uses_index):
        assert_uses_index(session, nearest(Article.embedding, "seaplanes").limit(10))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from sqlalchemy import Select

    from embeddb.query.bind import Bind
    from embeddb.query.plan import Plan


def assert_uses_index(
    bind: Bind,
    statement: Select[Any],
    index: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    *,
    planner: bool = False,
) -> Plan:
    """Raise AssertionError, with the plan and a remedy, unless a vector index can serve the statement.

    ``index``: the one that must, by name. ``planner=True``: whether the planner does choose it, with the rows that
    there are. Returns the plan. See ``embeddb.query.plan.assert_uses_index``.
    """
    from embeddb.query.plan import assert_uses_index

    return assert_uses_index(bind, statement, index, parameters, planner=planner)


@pytest.fixture(name="assert_uses_index")
def _assert_uses_index() -> Callable[..., Plan]:
    """The function ``assert_uses_index(bind, statement, index=None, parameters=None, *, planner=False)``."""
    return assert_uses_index
