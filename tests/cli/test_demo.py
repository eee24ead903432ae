"""The demo as a person runs it: a process of its own, with a terminal and without one."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
from pathlib import Path

import psutil

EMBEDDB = (sys.executable, "-m", "embeddb")


def running(folder: Path) -> list[psutil.Process]:
    return [p for p in psutil.process_iter(["name", "cmdline"]) if str(folder) in " ".join(p.info["cmdline"] or ())]


def test_the_demo_finds_what_one_would(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    command = [*EMBEDDB, "demo", "--folder", str(folder)]
    ran = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=150,
        env={**os.environ, "COLUMNS": "200", "PYTHONWARNINGS": "error"},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert re.search(r"2\d\d texts, each embedded", ran.stdout)
    for query, titles in {
        "planes that land on water": {"Flying boats", "Floatplanes of the north"},
        "why dough gets bigger": {"How bread rises"},
        "a wrong test result": {"Bayes' rule"},
    }.items():
        answer = ran.stdout.partition(query)[2][:600]
        assert all(title in answer for title in titles), answer
    for metric, index in (("<=>", "embedding_hnsw"), ("<->", "embedding_l2_hnsw"), ("<#>", "embedding_ip_hnsw")):
        assert metric in ran.stdout
        assert f"Index Scan using ix_passages_{index}" in ran.stdout
    assert running(folder) == []

    # A second run embeds nothing anew, and asks for searches on a terminal.
    theirs, ours = pty.openpty()
    process = subprocess.Popen([*command, "--limit", "1"], stdin=ours, stdout=ours, stderr=subprocess.DEVNULL)
    os.close(ours)
    for answer in ("how do bats hunt in the dark\n", "\x04"):
        said = ""
        while not said.endswith("search> "):
            assert select.select([theirs], [], [], 60)[0], said
            said += os.read(theirs, 4096).decode(errors="replace")
        os.write(theirs, answer.encode())
    assert process.wait(60) == 0
    os.close(theirs)
    assert "Echolocation" in said
    assert running(folder) == []
