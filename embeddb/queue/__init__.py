"""The queue's SQL and the functions over it: what a worker does to jobs, one transaction at a time."""

from __future__ import annotations

from embeddb.queue.batch import Done, Failed, Gone, Later, Outcome, Settled, settle, write
from embeddb.queue.jobs import (
    Job,
    Row,
    claim,
    finish,
    heartbeat,
    idle_until,
    leave,
    prepare,
    read,
    register_worker,
    release,
    split,
    wait,
)
from embeddb.queue.sizes import MOST, measure, portions
from embeddb.queue.target import Target, TargetChanged, targets

__all__ = [
    "MOST",
    "Done",
    "Failed",
    "Gone",
    "Job",
    "Later",
    "Outcome",
    "Row",
    "Settled",
    "Target",
    "TargetChanged",
    "claim",
    "finish",
    "heartbeat",
    "idle_until",
    "leave",
    "measure",
    "portions",
    "prepare",
    "read",
    "register_worker",
    "release",
    "settle",
    "split",
    "targets",
    "wait",
    "write",
]
