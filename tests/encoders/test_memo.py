from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from embeddb.encoders.memo import Memo


def test_the_least_used_goes_first() -> None:
    memo: Memo[str, int] = Memo(size=2)
    made: list[str] = []

    def make(key: str) -> int:
        made.append(key)
        return len(made)

    for key in ("a", "b", "a", "c", "a", "b"):
        memo.get(key, partial(make, key))
    assert made == ["a", "b", "c", "b"]


def test_those_who_wait_share_a_failure_and_the_next_tries_again() -> None:
    memo: Memo[str, int] = Memo()
    begun, fail = threading.Event(), threading.Event()

    def make() -> int:
        begun.set()
        fail.wait(5)
        raise RuntimeError("no")

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(memo.get, "a", make)
        begun.wait(5)
        second = pool.submit(memo.get, "a", lambda: 1)
        while not second.running():
            pass
        fail.set()
        with pytest.raises(RuntimeError):
            first.result()
        # It either waited for the first, or came after it.
        assert second.exception() is first.exception() or second.result() == 1
    assert memo.get("a", lambda: 2) in (1, 2)


def test_an_interrupt_is_for_one_thread_only() -> None:
    memo: Memo[str, int] = Memo()

    def make() -> int:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        memo.get("a", make)
    assert memo.get("a", lambda: 1) == 1


def test_what_was_being_made_when_all_was_cleared_is_not_kept() -> None:
    memo: Memo[str, int] = Memo()

    def make() -> int:
        memo.clear()
        return 1

    assert memo.get("a", make) == 1
    assert memo.get("a", lambda: 2) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_does_not_wait_for_a_thread_that_it_lacks() -> None:
    program = """
import os, threading
from embeddb.encoders.memo import Memo
memo, begun, go_on = Memo(), threading.Event(), threading.Event()
memo.get("kept", lambda: "kept")
def make():
    begun.set(); go_on.wait(); return "parent's"
threading.Thread(target=lambda: memo.get("made", make), daemon=True).start()
begun.wait()
child = os.fork()
if child == 0:
    print(memo.get("kept", lambda: "again"), memo.get("made", lambda: "child's"), flush=True)
    os._exit(0)
os.waitpid(child, 0); go_on.set()
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=20, check=True
    )
    assert done.stdout.strip() == "kept child's"
