"""Texts as words on disk: read once from wherever they come, and then as often as training wants."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from embeddb.encoders.word_tokens import tokens
from embeddb.errors import EncoderError

#: Called with how much is done, and of how much.
Progress = Callable[[int, int], None]

#: Words of a text that are read as one; a longer text is several, which lose the words across the cut.
LONGEST: Final = 10_000


@dataclass(frozen=True)
class Corpus:
    """A file of a text a line, its words parted by spaces. ``texts``: its lines; ``counts``: of every word."""

    file: Path
    texts: int
    counts: Counter[str]
    digest: str

    def __iter__(self) -> Iterator[list[str]]:
        with self.file.open(encoding="utf-8", newline="\n") as lines:
            for line in lines:
                yield line.split()

    def vocabulary(self, least: int) -> list[str]:
        """The words that occur ``least`` times or more, the most frequent first. Raises EncoderError for none."""
        words = [word for word, count in self.counts.items() if count >= least]
        if len(words) < 2:
            raise EncoderError(
                f"{len(words)} words occur {least} times or more in {self.texts} texts: give more, or lower least"
            )
        return sorted(words, key=lambda word: (-self.counts[word], word))


def spool(texts: Iterable[str], file: Path) -> Corpus:
    """Write the words of ``texts``, which are read once and not kept in memory; those without words are left out."""
    counts: Counter[str] = Counter()
    hashed = hashlib.sha256()
    written = 0
    with file.open("w", encoding="utf-8", newline="\n") as out:
        for text in texts:
            words = tokens(text)
            counts.update(words)
            for start in range(0, len(words), LONGEST):
                line = " ".join(words[start : start + LONGEST]) + "\n"
                hashed.update(line.encode())
                out.write(line)
                written += 1
    return Corpus(file, written, counts, hashed.hexdigest())
