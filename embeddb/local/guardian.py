"""What stops a server once nobody uses it, however its users ended.

Whoever uses a server holds a shared lock (flock) on its data folder, which the kernel takes back from a process that
dies, SIGKILL included. So the exclusive lock can be had only when nobody is left, and whoever has it stops the server:
the last user, or, if that one was killed, this file, run as a process of its own beside the server. It imports nothing
but the standard library, so that it is up in milliseconds and small.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

#: In a data folder that goes with its server.
TEMPORARY: Final = "embeddb.temporary"
#: How long a server may take to write its last checkpoint before it is stopped without one, in seconds.
PATIENCE: Final = 60.0


def pid_file(folder: Path) -> list[str]:
    """The lines of the server's own record: pid, data folder, start time, port, socket folder, …; [] for no record."""
    try:
        return (folder / "postmaster.pid").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []


def lives(pid: int) -> bool:
    """Whether a process runs. One that ended, but that its parent has not waited for, does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is someone else's, and runs
        return True
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:  # no /proc on macOS
        return True
    return status.rpartition(")")[2].split()[0] not in ("Z", "X")


def postmaster(folder: Path) -> int | None:
    """The pid of the server that runs on a data folder."""
    lines = pid_file(folder)
    if not lines or not lives(pid := int(lines[0])):
        return None
    with suppress(OSError):  # no /proc on macOS
        # After a crash the pid may have been given to something else; a server works in its data folder.
        return pid if Path(f"/proc/{pid}/cwd").samefile(folder) else None
    return pid


def stop(folder: Path) -> None:
    """Stop the server and remove what is temporary. The caller holds the exclusive lock on the folder."""
    lines = pid_file(folder)
    if pid := postmaster(folder):
        for how, seconds in ((signal.SIGINT, PATIENCE), (signal.SIGQUIT, PATIENCE), (signal.SIGKILL, 1.0)):
            with suppress(ProcessLookupError):
                os.kill(pid, how)
            deadline = time.monotonic() + seconds
            while lives(pid) and time.monotonic() < deadline:
                time.sleep(0.01)
            if not lives(pid):
                break
    if len(lines) > 4 and Path(lines[4]) != folder:
        shutil.rmtree(lines[4], ignore_errors=True)
    if (folder / TEMPORARY).exists():
        shutil.rmtree(folder, ignore_errors=True)


def wait_and_stop(folder: Path) -> None:
    """Stop the server as soon as nobody uses it."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:  # a temporary folder, already gone
        return
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    stop(folder)


if __name__ == "__main__":
    wait_and_stop(Path(sys.argv[1]))
