"""A Postgres server over a data folder, shared by whoever opens the folder and stopped by whoever leaves last."""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import quote

import psycopg

from embeddb.errors import LocalServerError
from embeddb.local import guardian
from embeddb.local.programs import VERSIONS, Programs, guard, temporary_folder

if TYPE_CHECKING:
    from sqlalchemy import Engine

#: Held while a server is made or started, and while a user leaves.
DOOR: Final = "embeddb.lock"
#: Where a new folder's files are made, so that it is whole or empty.
_UNFINISHED: Final = "embeddb.new"
_PORT: Final = 5432  # only a part of the socket's name: the server listens on no address
#: What a path may take of the 103 bytes of a Unix socket's address (107 on Linux), the socket's own name left out.
_LONGEST: Final = 103 - len(f"/.s.PGSQL.{_PORT}")
#: How long a server may take to be ready, in seconds: after a crash it reads its log first.
_PATIENCE: Final = 60.0


class LocalPostgres:
    """A running Postgres with pgvector over a data folder, for as long as anyone uses it.

    ``folder``: where the data lives, made if need be; None for a temporary one that is removed at the end.
    ``version``: 16 or 18, the major version of a new folder (18 if not given); an existing folder keeps its own.

    Opening the same folder again, in this process or another, gives the same server, and whoever leaves last stops
    it. Used as a context manager, or with ``stop()``; else it stops when the interpreter exits, or is killed. It
    listens on a Unix socket that only this user may use. Under root, the server runs as the data's owner, the user
    ``pgserver`` if they are new, and the folders above the data are made passable. Raises LocalServerError, or
    MissingExtra without ``embeddb[local]``.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None, *, version: int | None = None) -> None:
        self._users: int | None = None
        given = None if folder is None else _checked(Path(folder))
        self.version = _version_of(given, version)
        self._programs = Programs(self.version, _owner(given) if given else None)
        self.folder = given or temporary_folder()
        if given is None:
            (self.folder / guardian.TEMPORARY).touch()
        try:
            self._enter()
        except BaseException as error:
            self.stop()
            if isinstance(error, OSError | psycopg.Error):
                raise LocalServerError(f"the Postgres in {self.folder} did not start: {error}") from error
            raise
        atexit.register(self.stop)

    @property
    def dsn(self) -> str:
        """A libpq connection string: ``postgresql://…``."""
        return f"postgresql://postgres@/postgres?host={quote(self._socket)}&port={_PORT}"

    @property
    def url(self) -> str:
        """The same for SQLAlchemy: ``postgresql+psycopg://…``."""
        return self.dsn.replace("postgresql://", "postgresql+psycopg://", 1)

    @property
    def programs(self) -> Path:
        """The folder of ``psql``, ``pg_dump`` and the server's other programs."""
        return self._programs.folder

    def engine(self, **options: Any) -> Engine:
        """A new SQLAlchemy engine on this server, with the options of ``create_engine``."""
        from sqlalchemy import create_engine

        return create_engine(self.url, **options)

    def stop(self) -> None:
        """Leave the server; the last to leave stops it, and removes a temporary folder."""
        mine, self._users = self._users, None
        if mine is None:
            return
        atexit.unregister(self.stop)
        if not self.folder.exists():  # someone removed it: Postgres notices within a minute, and ends by itself
            os.close(mine)
            return
        with self._door(), _opened(self.folder) as users:
            # Not unlocked but closed: a forked child that has the descriptor too goes on using the server.
            os.close(mine)
            try:
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                # There are others, or the guardian was faster and is stopping it: then we wait until it has.
                fcntl.flock(users, fcntl.LOCK_SH)
            else:
                guardian.stop(self.folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<LocalPostgres {self.version} in {self.folder}>"

    def _enter(self) -> None:
        self._users = os.open(self.folder, os.O_RDONLY)
        # Waits only for a server that is being stopped. From here on nobody stops it: whoever does, needs this lock
        # for himself.
        fcntl.flock(self._users, fcntl.LOCK_SH)
        with self._door():
            if not (self.folder / "PG_VERSION").exists():
                self._programs.give(self.folder)
                self._make()
            pid = guardian.postmaster(self.folder)
            if pid is None:
                guard(self.folder)
                pid = self._start()
            self._socket = self._await(pid)
            with psycopg.connect(self.dsn) as connection:
                connection.execute("CREATE EXTENSION IF NOT EXISTS vector")

    @contextmanager
    def _door(self) -> Iterator[None]:
        with _opened(self.folder / DOOR, os.O_RDWR | os.O_CREAT) as door:
            fcntl.flock(door, fcntl.LOCK_EX)
            yield

    def _make(self) -> None:
        new = self.folder / _UNFINISHED
        shutil.rmtree(new, ignore_errors=True)
        self._programs.run("initdb", "-D", str(new), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-instructions")
        # PG_VERSION last: with it the folder counts as made.
        for path in sorted(new.iterdir(), key=lambda path: path.name == "PG_VERSION"):
            path.rename(self.folder / path.name)
        new.rmdir()
        self.folder.chmod(0o700)

    def _start(self) -> int:
        # After a crash Postgres would take these for a running server's, as long as the pid is in the process table.
        (self.folder / "postmaster.pid").unlink(missing_ok=True)
        (self.folder / f".s.PGSQL.{_PORT}.lock").unlink(missing_ok=True)
        socket = self._socket_folder()
        quoted = str(socket).replace('"', '""')
        return self._programs.detach(
            self.folder / "log", "postgres", "-D", str(self.folder), "-p", str(_PORT),
            "-c", "listen_addresses=", "-c", f'unix_socket_directories="{quoted}"',
        )  # fmt: skip

    def _socket_folder(self) -> Path:
        """The data folder, or one with a short and simple path where that one's is no address of a socket."""
        if len(os.fsencode(self.folder)) <= _LONGEST and "," not in str(self.folder):
            return self.folder
        socket = temporary_folder()
        self._programs.give(socket)
        if len(os.fsencode(socket)) > _LONGEST:
            socket.rmdir()
            raise LocalServerError(f"{socket} is too long for a Unix socket: set TMPDIR to a folder with a short path")
        return socket

    def _await(self, pid: int) -> str:
        """Wait until the server takes connections, and return the folder of its socket."""
        deadline = time.monotonic() + _PATIENCE
        while guardian.lives(pid) and time.monotonic() < deadline:
            lines = guardian.pid_file(self.folder)
            if len(lines) > 7 and int(lines[0]) == pid and lines[7].strip() == "ready":
                return lines[4]
            time.sleep(0.01)
        log = self.folder / "log"
        last = log.read_text(errors="replace").strip().splitlines()[-5:] if log.exists() else []
        raise LocalServerError("\n".join([f"the Postgres in {self.folder} did not start. Its log ends:", *last]))


@contextmanager
def _opened(path: Path, how: int = os.O_RDONLY) -> Iterator[int]:
    descriptor = os.open(path, how, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _checked(folder: Path) -> Path:
    folder = folder.expanduser().resolve()
    if folder.exists() and not folder.is_dir():
        raise LocalServerError(f"{folder} is a file: name a folder for the server's data")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LocalServerError(f"{folder} cannot be made: {error.strerror}") from error
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise LocalServerError(f"{folder} is not writable for this user: name another folder")
    if not (folder / "PG_VERSION").exists() and any(path.name not in (DOOR, _UNFINISHED) for path in folder.iterdir()):
        raise LocalServerError(f"{folder} holds something else than a server's data: name an empty or a new folder")
    return folder


def _owner(folder: Path) -> os.stat_result | None:
    """Whose data they are, once there are any."""
    try:
        return (folder / "PG_VERSION").stat()
    except FileNotFoundError:
        return None


def _version_of(folder: Path | None, wanted: int | None) -> int:
    if wanted is not None and wanted not in VERSIONS:
        raise LocalServerError(f"there is no embedded Postgres {wanted}: choose one of {', '.join(map(str, VERSIONS))}")
    try:
        found = int((folder / "PG_VERSION").read_text()) if folder else None
    except FileNotFoundError:
        found = None
    if found is None:
        return wanted or VERSIONS[-1]
    if wanted not in (None, found):
        raise LocalServerError(
            f"{folder} is of Postgres {found}, not {wanted}: name another folder, or version={found}"
        )
    if found not in VERSIONS:
        raise LocalServerError(f"{folder} is of Postgres {found}, which is not among {', '.join(map(str, VERSIONS))}")
    return found
