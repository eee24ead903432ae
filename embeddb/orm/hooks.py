"""``install`` and ``uninstall``: the session events that embed rows as they are written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import event, inspect
from sqlalchemy.engine import Result
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker
from sqlalchemy.orm import Mapper, ORMExecuteState, Session, UOWTransaction, scoped_session, sessionmaker

from embeddb.encoders import Progress
from embeddb.errors import EmbeddbError
from embeddb.orm.bulk_methods import BULK_METHODS, bulk_methods
from embeddb.orm.following import followed
from embeddb.orm.inserts import run_insert
from embeddb.orm.pending import changed_late, embed_instances, stale
from embeddb.orm.stored import embed_flushed
from embeddb.orm.updates import run_update

SessionTarget = (
    type[Session]
    | Session
    | sessionmaker[Any]
    | scoped_session[Any]
    | AsyncSession
    | async_sessionmaker[Any]
    | async_scoped_session[Any]
)

_FLUSHED: Final = "embeddb_flushed"
_LATE: Final = "embeddb_late"
_INSTALLED: Final = "_embeddb_hooks"
_FACTORY: Final = "_embeddb_factory"


@dataclass(frozen=True, eq=False)
class _Hooks:
    """The listeners of one installation; its target keeps it, so that ``uninstall`` can find it."""

    progress: Progress | None
    #: What stood in the place of the bulk methods: SQLAlchemy's own are Session's, and not to be lost with ours.
    replaced: Mapping[str, Any]

    def before_flush(self, session: Session, context: UOWTransaction, instances: Any) -> None:
        written = [*session.new, *session.dirty]
        mappers = dict.fromkeys(inspect(instance).mapper for instance in written)
        with followed(session, mappers):
            session.info[_FLUSHED] = embed_instances(session, written, self.progress)

    def after_flush(self, session: Session, context: UOWTransaction) -> None:
        # A later before_flush listener, or a mapper's before_insert or before_update, may have changed a source after
        # it was looked at.
        session.info[_LATE] = [*stale(session.info.pop(_FLUSHED, [])), *changed_late(session.dirty)]

    def after_flush_postexec(self, session: Session, context: UOWTransaction) -> None:
        late = session.info.pop(_LATE, [])
        if late:
            with followed(session, dict.fromkeys(inspect(instance).mapper for instance, _ in late)):
                embed_flushed(session, late, self.progress)

    def do_orm_execute(self, state: ORMExecuteState) -> Result[Any] | None:
        if state.is_column_load or state.is_relationship_load:
            return None
        mappers: Iterable[Mapper[Any]] = state.all_mappers
        if state.is_update:  # reaches the rows of subclasses, too
            mappers = [kind for mapper in mappers for kind in mapper.self_and_descendants]
        with followed(state.session, mappers, state.bind_arguments) as others:
            if state.is_insert:
                return run_insert(state, self.progress)
            if state.is_update:
                return run_update(state, self.progress)
            return state.invoke_statement() if others and state.is_select else None

    def listeners(self) -> Iterable[tuple[str, Callable[..., Any]]]:
        yield "before_flush", self.before_flush
        yield "after_flush", self.after_flush
        yield "after_flush_postexec", self.after_flush_postexec
        yield "do_orm_execute", self.do_orm_execute


def install(target: SessionTarget, *, progress: Progress | None = None) -> None:
    """Embed what the sessions of ``target`` write, in the transaction that writes it.

    ``target``: a sessionmaker, a scoped_session, a Session class or instance, or their asyncio twins; for an
    async factory, sessions that it makes from now on. ``progress``: called as ``progress(done, total)`` during
    long batches. Installing twice does nothing; ``uninstall`` takes everything away again.
    """
    session = _sync_target(target)
    if _INSTALLED in vars(session):
        return
    own = vars(session)
    hooks = _Hooks(progress, {name: own[name] for name in BULK_METHODS if name in own})
    for name, listener in hooks.listeners():
        event.listen(session, name, listener)
    for name, method in bulk_methods(session, progress).items():
        setattr(session, name, method)
    setattr(session, _INSTALLED, hooks)


def uninstall(target: SessionTarget) -> None:
    """Take away what ``install`` put there; without it, do nothing."""
    session = _sync_target(target)
    hooks = vars(session).get(_INSTALLED)
    if hooks is None:
        return
    for name, listener in hooks.listeners():
        event.remove(session, name, listener)
    for name in (*BULK_METHODS, _INSTALLED):
        delattr(session, name)
    for name, method in hooks.replaced.items():
        setattr(session, name, method)


def _sync_target(target: SessionTarget) -> type[Session] | Session:
    """The Session class, or the one session, whose events and methods are meant."""
    if isinstance(target, scoped_session | async_scoped_session):
        return _sync_target(target.session_factory)
    if isinstance(target, sessionmaker):
        return target.class_  # a class of this factory's own
    if isinstance(target, async_sessionmaker):
        return _own_sync_class(target)
    if isinstance(target, AsyncSession):
        return target.sync_session
    if isinstance(target, Session) or (isinstance(target, type) and issubclass(target, Session)):
        return target
    raise EmbeddbError(f"install takes a sessionmaker, scoped_session, Session or an async twin, not {target!r}")


def _own_sync_class(factory: async_sessionmaker[Any]) -> type[Session]:
    """Give an async factory a Session class of its own, so that hooks on it touch no other factory."""
    given: type[Session] = factory.kw.get("sync_session_class") or factory.class_.sync_session_class
    if vars(given).get(_FACTORY) is factory:
        return given
    own = type(given.__name__, (given,), {_FACTORY: factory})
    factory.configure(sync_session_class=own)
    return own
