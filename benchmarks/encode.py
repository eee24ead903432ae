"""What ``embed_documents`` adds to a bare ``SentenceTransformer.encode`` of 1,000 texts, as a ratio in one run.

    python benchmarks/encode.py ../shared/data/sts/sts-dev.csv [--runs 5] [--threads 2] [--plot encode.png]

Both take turns, after a warm-up. Three loads: single sentences, eight sentences joined to one text, and sentences of
which half are duplicates.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from embeddb.encoders import SentenceTransformer, embed_documents
from embeddb.encoders.sentence_files import find


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sentences", type=Path, help="sts-dev.csv of the STS benchmark")
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    parser.add_argument("--texts", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--plot", type=Path, help="save the times as a picture")
    options = parser.parse_args()

    import torch
    from sentence_transformers import SentenceTransformer as Bare

    torch.set_num_threads(options.threads)
    encoder = SentenceTransformer(options.model, device="cpu")
    bare = Bare(str(find(options.model, None) or options.model), device="cpu")
    loads = make_loads(options.sentences, options.texts)
    print(f"{options.texts} texts, {options.model}, {options.threads} threads, {options.runs} runs, {machine()}")
    print(f"{'load':<12}{'bare encode, s':>22}{'embed_documents, s':>22}{'ratio of medians':>18}{'of pairs':>16}")
    times = {}
    for name, texts in loads.items():
        pairs = take_turns(
            [partial(bare.encode, texts, show_progress_bar=False), partial(embed_documents, encoder, texts)],
            options.runs,
        )
        times[name] = pairs
        theirs, ours = zip(*pairs, strict=True)
        ratios = [our / their for their, our in pairs]
        median = statistics.median(ours) / statistics.median(theirs)
        spread = f"{min(ratios):.2f}–{max(ratios):.2f}"
        print(f"{name:<12}{shown(theirs):>22}{shown(ours):>22}{median:>18.3f}{spread:>16}")
    if options.plot:
        plot(times, options.plot)


def make_loads(file: Path, count: int) -> dict[str, list[str]]:
    rows = [line.split("\t") for line in file.read_text("utf-8").splitlines()]
    sentences = list(dict.fromkeys(row[place] for row in rows for place in (5, 6)))
    short = sentences[:count]
    long = [" ".join(sentences[(start + step) % len(sentences)] for step in range(8)) for start in range(count)]
    return {"short": short, "long": long, "duplicates": [*short[: count // 2], *short[: count - count // 2]]}


def take_turns(work: Sequence[Callable[[], object]], runs: int) -> list[tuple[float, ...]]:
    """Seconds of each, in turns that alternate who is first, so that a slow spell of the machine hits both."""
    for each in work:
        each()
    rows = []
    for run in range(runs):
        row = [0.0] * len(work)
        for place in sorted(range(len(work)), reverse=run % 2 == 1):
            start = time.perf_counter()
            work[place]()
            row[place] = time.perf_counter() - start
        rows.append(tuple(row))
    return rows


def shown(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds):.3f} ({min(seconds):.3f}–{max(seconds):.3f})"


def machine() -> str:
    return f"{platform.processor() or platform.machine()}, Python {platform.python_version()}"


def plot(times: dict[str, list[tuple[float, ...]]], file: Path) -> None:
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(times), figsize=(4 * len(times), 3))
    for axis, (name, pairs) in zip(axes, times.items(), strict=True):
        axis.boxplot(list(zip(*pairs, strict=True)), tick_labels=["bare encode", "embed_documents"])
        axis.set(title=name, ylabel="seconds", ylim=(0, None))
    figure.tight_layout()
    figure.savefig(file)


if __name__ == "__main__":
    main()
