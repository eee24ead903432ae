"""The legacy bulk methods of a Session, with vectors.

They bypass the flush and every event, so there is nothing to listen to: ``install`` puts these in their place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MethodType
from typing import Any, Final

from sqlalchemy import inspect
from sqlalchemy.orm import Session

from embeddb.encoders import Progress
from embeddb.orm.declaration import declarations_of
from embeddb.orm.following import followed
from embeddb.orm.inserts import embed_mappings
from embeddb.orm.pending import embed_instances
from embeddb.orm.updates import embed_updated

BULK_METHODS: Final = ("bulk_save_objects", "bulk_insert_mappings", "bulk_update_mappings")


def bulk_methods(owner: type[Session] | Session, progress: Progress | None) -> Mapping[str, Callable[..., Any]]:
    """The three methods to set on ``owner``, each going on to the one that stands there now."""
    save, insert, update = (_function(owner, name) for name in BULK_METHODS)

    def bulk_save_objects(self: Session, objects: Iterable[object], *args: Any, **kwargs: Any) -> None:
        instances = list(objects)
        with followed(self, {inspect(instance).mapper for instance in instances}):
            embed_instances(self, instances, progress)
        save(self, instances, *args, **kwargs)

    def bulk_insert_mappings(
        self: Session,
        mapper: Any,
        mappings: Iterable[dict[str, Any]],
        return_defaults: bool = False,
        render_nulls: bool = False,
    ) -> None:
        # With return_defaults the caller's own dictionaries are filled in, so those must be the ones; else copies
        # are made, lest a vector stay behind in a dictionary that is used again with other sources.
        rows = list(mappings) if return_defaults else [dict(row) for row in mappings]
        brought = [set(row) for row in rows]
        with followed(self, [inspect(mapper)]):
            embed_mappings(self, inspect(mapper), rows, progress)
        insert(self, mapper, rows, return_defaults, render_nulls)
        for row, keys in zip(rows, brought, strict=True):
            for declaration in declarations_of(inspect(mapper)):
                if declaration.key not in keys:
                    row.pop(declaration.key, None)

    def bulk_update_mappings(self: Session, mapper: Any, mappings: Iterable[dict[str, Any]]) -> None:
        rows = list(mappings)
        update(self, mapper, rows)
        with followed(self, inspect(mapper).self_and_descendants):
            embed_updated(self, inspect(mapper), rows, progress)

    methods = (bulk_save_objects, bulk_insert_mappings, bulk_update_mappings)
    if isinstance(owner, Session):
        return {method.__name__: MethodType(method, owner) for method in methods}
    return {method.__name__: method for method in methods}


def _function(owner: type[Session] | Session, name: str) -> Callable[..., Any]:
    method = getattr(owner, name)
    function: Callable[..., Any] = getattr(method, "__func__", method)
    return function
