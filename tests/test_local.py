"""The embedded Postgres: shared by processes, left by no process, and clear about what it cannot do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import psycopg
import pytest

from embeddb import local
from embeddb.errors import LocalServerError
from embeddb.local import LocalPostgres

OPEN = """
import sys, time
from embeddb.local import LocalPostgres
import psycopg
with LocalPostgres(sys.argv[1]) as server:
    with psycopg.connect(server.dsn) as connection:
        print(connection.execute("SELECT '[1,2]'::vector <-> '[1,1]'").fetchone()[0], flush=True)
    sys.stdin.read()
"""


Opener = Callable[[Path], "subprocess.Popen[str]"]


def servers(folder: Path) -> list[psutil.Process]:
    """Running servers of a data folder: not the processes that a server has forked."""
    found = {}
    for process in psutil.process_iter(["name", "cmdline", "ppid"]):
        if process.info["name"] == "postgres" and str(folder) in (process.info["cmdline"] or []):
            found[process.pid] = process
    return [process for process in found.values() if process.info["ppid"] not in found]


@pytest.fixture
def opener() -> Iterator[Opener]:
    """Starts a process that opens a server on a folder and holds it until its input ends."""
    started: list[subprocess.Popen[str]] = []

    def start(folder: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-W", "error", "-c", OPEN, str(folder)]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        with process:
            pass


def interpreter_for_everyone() -> str:
    """This interpreter, or the system's of the same version where this one lies in someone's home."""
    for python in (sys.executable, "/usr/bin/python3"):
        version = "import sys; print(*sys.version_info[:2])"
        try:
            told = subprocess.run([python, "-c", version], user=65534, cwd="/", capture_output=True, text=True)
        except OSError:
            continue
        if told.stdout.split() == [str(part) for part in sys.version_info[:2]]:
            return python
    pytest.skip("no interpreter of this version that an ordinary user may run")


@pytest.mark.parametrize("version", [16, 18])
def test_a_folder_in_a_server_out(tmp_path: Path, version: int) -> None:
    folder = tmp_path / "data"
    with LocalPostgres(folder, version=version) as server:
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            assert connection.info.server_version // 10000 == version
            connection.execute("CREATE TABLE kept (e vector(2))")
            connection.execute("INSERT INTO kept VALUES ('[1,2]')")
        with LocalPostgres(folder) as again:
            assert again.dsn == server.dsn
        assert server.url.startswith("postgresql+psycopg://")
        assert (server.programs / "psql").exists()
        assert len(servers(folder)) == 1
    assert servers(folder) == []
    with LocalPostgres(folder) as server, psycopg.connect(server.dsn) as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (1,)
        other = 34 - version
        with pytest.raises(LocalServerError, match=f"Postgres {version}, not {other}"):
            LocalPostgres(folder, version=other)


def test_settings_of_a_new_folder(tmp_path: Path) -> None:
    """Its own, quoted; shared_buffers by default more than Postgres's 128 MB where there is memory."""
    settings = {"work_mem": "7MB", "embeddb.note": "a'b\\c"}
    with LocalPostgres(tmp_path / "data", settings=settings) as server, psycopg.connect(server.dsn) as connection:
        row = connection.execute("SELECT current_setting('work_mem'), current_setting('embeddb.note')").fetchone()
        assert row == ("7MB", "a'b\\c")
        buffers = connection.execute("SELECT pg_size_bytes(current_setting('shared_buffers'))").fetchone()
    memory = psutil.virtual_memory().total
    assert buffers is not None
    assert buffers[0] >> 20 == min(max(memory // 8 >> 20, 128), 2048)


def test_settings_refused(tmp_path: Path) -> None:
    with pytest.raises(LocalServerError, match="is no setting"):
        LocalPostgres(tmp_path / "data", settings={"work_mem = 1\nport": "1"})
    with pytest.raises(LocalServerError, match="no_such_setting"):
        LocalPostgres(tmp_path / "other", settings={"no_such_setting": "1"})


def test_a_temporary_folder_goes() -> None:
    server = LocalPostgres()
    folder = server.folder
    assert servers(folder)
    server.stop()
    server.stop()
    assert not folder.exists()
    assert servers(folder) == []


def test_two_processes_race_and_share(tmp_path: Path, opener: Opener) -> None:
    folder = tmp_path / "data"
    first, second = opener(folder), opener(folder)
    for process in (first, second):
        assert process.stdout is not None
        assert process.stdout.readline() == "1.0\n", process.communicate()[1]
    assert len(servers(folder)) == 1
    assert first.communicate("")[1] == ""
    assert len(servers(folder)) == 1
    assert second.communicate("")[1] == ""
    assert servers(folder) == []


def test_a_killed_process_is_not_waited_for(tmp_path: Path, opener: Opener) -> None:
    folder = tmp_path / "data"
    killed, survivor = opener(folder), opener(folder)
    for process in (killed, survivor):
        assert process.stdout is not None
        assert process.stdout.readline() == "1.0\n"
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    with LocalPostgres(folder) as server, psycopg.connect(server.dsn) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert len(servers(folder)) == 1
    survivor.communicate("")
    assert servers(folder) == []


def test_exit_without_stop(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    code = "import sys; from embeddb.local import LocalPostgres; LocalPostgres(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True, timeout=60)
    assert servers(folder) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user; else every test here runs as one")
def test_an_ordinary_user(tmp_path: Path) -> None:
    if not Path(local.__file__).stat().st_mode & 0o004:
        pytest.skip("this checkout is for its owner alone")
    folder = tmp_path / "data"
    folder.mkdir()
    for parent in (tmp_path, *tmp_path.parents):
        if parent.stat().st_uid == os.geteuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o711)
    nobody = 65534
    os.chown(folder, nobody, nobody)
    packages = os.pathsep.join(path for path in sys.path if path)
    ran = subprocess.run(
        [interpreter_for_everyone(), "-c", OPEN, str(folder)],
        input="", text=True, capture_output=True, user=nobody, group=nobody, cwd="/", timeout=60,
        env={"PYTHONPATH": packages, "HOME": str(folder.parent), "PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert (ran.stdout, ran.stderr) == ("1.0\n", "")
    assert servers(folder) == []


def test_what_a_strict_umask_hides_from_the_servers_user(tmp_path: Path) -> None:
    package, libraries = tmp_path / "server", tmp_path / "server.libs"
    share = package / "pginstall18" / "share"
    before = os.umask(0o077)
    try:
        share.mkdir(parents=True)
        libraries.mkdir()
        for file in (share / "postgres.bki", libraries / "libpq.so"):
            file.touch()
    finally:
        os.umask(before)
    local._let_others_read(package)
    modes = [path.stat().st_mode & 0o077 for path in (share, share / "postgres.bki", libraries, libraries / "libpq.so")]
    assert modes == [0o055, 0o044, 0o055, 0o044]


def test_refusals(tmp_path: Path) -> None:
    a_file = tmp_path / "file"
    a_file.write_text("")
    with pytest.raises(LocalServerError, match="is a file"):
        LocalPostgres(a_file)
    with pytest.raises(LocalServerError, match="no embedded Postgres 9"):
        LocalPostgres(tmp_path / "data", version=9)
    with pytest.raises(LocalServerError, match="something else"):
        LocalPostgres(tmp_path)
    with pytest.raises(LocalServerError, match="without spaces"):
        LocalPostgres(tmp_path / "My Data")
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "PG_VERSION").write_text("\0\0")
    with pytest.raises(LocalServerError, match="PG_VERSION is damaged"):
        LocalPostgres(damaged)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "PG_VERSION").write_text("18\n")
    with pytest.raises(LocalServerError, match="did not start"):
        LocalPostgres(broken)


def test_a_crashed_server_is_started_again(tmp_path: Path, opener: Opener) -> None:
    folder = tmp_path / "data"
    first = opener(folder)
    assert first.stdout is not None
    assert first.stdout.readline() == "1.0\n"
    (server,) = servers(folder)
    server.kill()
    deadline = time.monotonic() + 20
    while servers(folder) and time.monotonic() < deadline:
        time.sleep(0.1)
    with LocalPostgres(folder) as again, psycopg.connect(again.dsn) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    first.communicate("")
    assert servers(folder) == []


def test_threads_share_and_a_crash_is_mended(tmp_path: Path) -> None:
    folder = tmp_path / "data"

    def use(_: int) -> int:
        with LocalPostgres(folder) as server, psycopg.connect(server.dsn) as connection:
            (found,) = connection.execute("SELECT 1").fetchone() or (0,)
            return int(found)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(use, range(4))) == [1] * 4
    with LocalPostgres(folder):
        (server,) = servers(folder)
        server.kill()
        psutil.wait_procs([server], timeout=20)
        assert use(0) == 1
    assert servers(folder) == []


def test_what_a_lost_machine_leaves_behind(tmp_path: Path) -> None:
    """A restarted container finds the old pid file, and may give its number to anyone."""
    folder = tmp_path / "data"
    with LocalPostgres(folder):
        lines = (folder / "postmaster.pid").read_text().splitlines()
    (folder / "postmaster.pid").write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
    (folder / ".handle_pids.json").write_text("[12")
    with LocalPostgres(folder) as server, psycopg.connect(server.dsn) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert servers(folder) == []
