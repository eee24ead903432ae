"""Histories: HR@10 of the next item by each model, beside popularity.

    python -m benchmarks.histories [--threads 2] [--baskets 5000]

Synthetic users who drift through topics, and real baskets: what Debian's packages depend on, where apt has lists.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.harness import machine
from embeddb.encoders.history import ItemVectors, histories
from embeddb.encoders.history.base import HistoryEncoder
from embeddb.train.als import train_als
from embeddb.train.gru4rec import train_gru4rec
from embeddb.train.item2vec import train_item2vec
from embeddb.train.leave_one_out import LeaveOneOut
from tests.histories.debian_baskets import debian_baskets
from tests.histories.drifting_users import drifting_users


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--baskets", type=int, default=5_000, help="of Debian's packages, at most")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    console = Console()
    console.print(f"{machine()}, {options.threads} threads")
    table = Table("users", "model", "HR@10", "popularity", "ratio", "seconds of training")
    baskets = histories(debian_baskets())
    every = max(1, len(baskets) // options.baskets)
    measure(table, "drifting", LeaveOneOut.of(histories(drifting_users())))
    if baskets:
        measure(table, "Debian packages", LeaveOneOut.of({user: baskets[user] for user in list(baskets)[::every]}))
    else:
        console.print("apt has no package lists here: Debian's baskets are left out")
    console.print(table)


def measure(table: Table, users: str, split: LeaveOneOut) -> None:
    """A row for each model."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        models: dict[str, Callable[[], HistoryEncoder]] = {
            "item2vec": lambda: train_item2vec(split.train, place / "item2vec"),
            "item2vec, half-life of two events": lambda: ItemVectors(str(place / "item2vec"), 2, "events"),
            "ALS": lambda: train_als(split.train, place / "als"),
            "GRU4Rec": lambda: train_gru4rec(split.train, place / "gru4rec"),
        }
        for name, make in models.items():
            begin = time.perf_counter()
            encoder = make()
            seconds = time.perf_counter() - begin
            rates = split.hit_rates(encoder)
            ratio = f"{rates.model / rates.popularity:.1f}"
            table.add_row(users, name, f"{rates.model:.3f}", f"{rates.popularity:.3f}", ratio, f"{seconds:.0f}")


if __name__ == "__main__":
    main()
