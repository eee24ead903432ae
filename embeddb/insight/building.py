"""What an index is built with: memory, and workers, as Postgres gives them."""

from __future__ import annotations

import math
from typing import Final

from embeddb.insight.candidates import Candidate
from embeddb.insight.server import Server
from embeddb.insight.sizes import column_bytes

#: The share of the memory for caching that a build may take.
_SHARE: Final = 0.5
#: Postgres starts a worker for 8 MB of a table, another for three times as many (min_parallel_table_scan_size), and
#: only so many that each, and the first process, has 32 MB: ``plan_create_index_workers`` in its planner.c.
_PARALLEL: Final = 8 * 2**20
_A_WORKER: Final = 32 * 2**20


def memory_for(candidate: Candidate, rows: float, dim: int, server: Server) -> float:
    """Bytes of maintenance_work_mem to build with: for the graph and all workers, at most half of what is cached."""
    graph = candidate.graph(rows, dim)
    if not graph:
        return server.building
    wanted = max(1.1 * graph, _A_WORKER * (_by_size(candidate, rows, dim, server) + 1))
    return max(server.building, min(wanted, _SHARE * server.cache))


def workers_for(candidate: Candidate, rows: float, dim: int, server: Server, building: float) -> int:
    """How many Postgres starts beside the first process, with that much memory."""
    return max(0, min(_by_size(candidate, rows, dim, server), int(building // _A_WORKER) - 1))


def _by_size(candidate: Candidate, rows: float, dim: int, server: Server) -> int:
    """By the table's size, of which vectors out of line are no part."""
    each = column_bytes(dim, candidate.storage)
    table = rows * (60 + (each if each < 2000 else 18))
    return min(server.workers, 1 + int(math.log(table / _PARALLEL, 3))) if table >= _PARALLEL else 0
