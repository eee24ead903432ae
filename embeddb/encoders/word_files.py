"""Word vectors in the formats of others: word2vec (text and binary), GloVe, and FastText.

None of them can run code. Pickles, which gensim's own ``save`` writes, can, and are refused.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal, cast

import numpy as np
from numpy.typing import NDArray

from embeddb.encoders.settings import require
from embeddb.encoders.subwords import Subwords
from embeddb.encoders.word_store import Words
from embeddb.errors import EncoderError

Format = Literal["word2vec-text", "word2vec-binary", "glove", "fasttext"]
Row = tuple[bytes, NDArray[np.float32]]

#: Lines that are looked at to tell the dimensions of a file without a header.
_LOOK: Final = 1000
_HEAD: Final = 2**20
_HEADER: Final = re.compile(rb"(\d+) (\d+) ?\r?\n")
_NUMBER: Final = re.compile(rb"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|[-+]?(nan|inf)")
_FASTTEXT: Final = 793712314
_REMEDY: Final = (
    "If you trust it, convert it once: embeddb.train.words.convert(gensim.models.KeyedVectors.load(file), folder), "
    "then WordVectors(folder)"
)


def read(file: Path) -> Words:
    """The words and vectors of a file, its format told from its content; ``.gz`` is unpacked.

    Of words that are there twice the first is kept. Raises EncoderError, naming file and line, for a file that is
    damaged, of another format or a pickle.
    """
    kind = sniff(file)
    if kind == "fasttext":
        return _read_fasttext(file)
    with _open(file) as stream:
        if kind == "glove":
            return _gather(_text(stream, dimensions(file), file), file)
        count, width = _header(stream.readline())
        if width < 1 or width > 2**16:
            raise EncoderError(f"{file} claims vectors of {width} dimensions: that is no model")
        if kind == "word2vec-binary":
            return _gather(_binary(stream, count, width, file), file)
        return _gather(_counted(_text(stream, width, file, first=2), count, file), file)


def dimensions(file: Path) -> int:
    """Dimensions of the vectors of a file, from its beginning."""
    kind = sniff(file)
    with _open(file) as stream:
        if kind == "fasttext":
            return int(np.frombuffer(stream.read(12), "<i4")[2])
        if kind != "glove":
            return _header(stream.readline())[1]
        # A token may end in numbers of its own ("at 10 20"): the line with the fewest says how many are the vector's.
        lines = [line for line, _ in zip(stream, range(_LOOK), strict=False) if line.strip()]
    whole = [line for line in lines if line.endswith(b"\n")]  # the last line of a file that was cut off is not
    width = min((_trailing_numbers(line) for line in whole or lines), default=0)
    if not width:
        raise EncoderError(f"{file} holds no word vectors: a line of its beginning does not end in numbers")
    return width


def sniff(file: Path) -> Format:
    """The format of a file. Raises EncoderError where it is none that is read here."""
    try:
        with _open(file) as stream:
            head = stream.read(_HEAD)
    except (OSError, EOFError) as error:
        raise EncoderError(f"{file} cannot be read: {error}") from error
    if head[:1] == b"\x80" and head[1:2] <= b"\x05":
        raise EncoderError(f"{file} is a pickle, which can run code when it is loaded: it is not opened. {_REMEDY}")
    if head[:6] == b"\x93NUMPY":
        raise EncoderError(f"{file} holds an array without its words: it belongs to a pickle of gensim. {_REMEDY}")
    if head[:4] == b"PK\x03\x04":
        raise EncoderError(f"{file} is an archive: unzip it")
    if len(head) >= 12 and int(np.frombuffer(head[:4], "<i4")[0]) == _FASTTEXT:
        return "fasttext"
    header = _HEADER.match(head)
    if header is None:
        return "glove"
    lines = head[header.end() :].split(b"\n", 1)
    return "word2vec-text" if _trailing_numbers(lines[0]) >= int(header[2]) else "word2vec-binary"


def write_text(file: Path, words: Sequence[str], vectors: NDArray[np.float32], *, header: bool = False) -> None:
    """Write GloVe's format, or with ``header`` word2vec's: numbers as short as they can be and still read the same."""
    with file.open("wb") as stream:
        if header:
            stream.write(f"{len(words)} {vectors.shape[1]}\n".encode())
        for word, vector in zip(words, vectors, strict=True):
            if "\n" in word:
                raise EncoderError(f"a word with a line break has no place in this format: {word!r}")
            stream.write(f"{word} {' '.join(map(str, vector))}\n".encode())


def of_keyed_vectors(keyed: Any) -> Words:
    """What gensim holds in memory (KeyedVectors or FastTextKeyedVectors, or the model that has them as ``wv``)."""
    keyed = getattr(keyed, "wv", keyed)
    try:
        words, vectors = list(keyed.index_to_key), np.asarray(keyed.vectors, np.float32)
    except AttributeError:
        raise EncoderError(f"{type(keyed).__name__} is neither gensim's KeyedVectors nor a model with them") from None
    counts = keyed.expandos.get("count")
    # Where a file had no counts, gensim makes them up from the order.
    if counts is not None and np.array_equal(counts, np.arange(len(words), 0, -1)):
        counts = None
    grams = getattr(keyed, "vectors_ngrams", None)
    has_grams = grams is not None and len(grams) and keyed.max_n > 0
    return Words(
        words,
        vectors,
        None if counts is None else np.asarray(counts, np.int64),
        subwords=Subwords(np.asarray(grams, np.float32), keyed.min_n, keyed.max_n) if has_grams else None,
    )


def _read_fasttext(file: Path) -> Words:
    fasttext = require("gensim.models.fasttext", "words", "WordVectors of a FastText .bin file")
    try:
        return of_keyed_vectors(fasttext.load_facebook_vectors(str(file)))
    except Exception as error:
        raise EncoderError(f"{file} cannot be read as an unsupervised FastText model: {error}") from error


def _open(file: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(file) if file.suffix == ".gz" else file.open("rb"))


def _header(line: bytes) -> tuple[int, int]:
    count, width = line.split()
    return int(count), int(width)


def _trailing_numbers(line: bytes) -> int:
    fields = line.rstrip().split(b" ")
    count = next((n for n, field in enumerate(reversed(fields)) if not _NUMBER.fullmatch(field)), len(fields))
    return min(count, len(fields) - 1)


def _text(stream: Iterable[bytes], width: int, file: Path, first: int = 1) -> Iterator[Row]:
    for number, line in enumerate(stream, first):
        # Not split(): a word may hold spaces, and no-break spaces, which bytes do not take for such.
        fields = line.rstrip(b" \r\n").rsplit(b" ", width)
        if fields == [b""]:
            continue
        try:
            vector = np.array(fields[1:], np.float32)
        except ValueError:
            vector = np.empty(0, np.float32)
        if len(vector) != width:
            raise EncoderError(f"{file}, line {number}: it does not end in {width} numbers")
        yield fields[0], vector


def _counted(rows: Iterable[Row], count: int, file: Path) -> Iterator[Row]:
    found = 0
    for row in rows:
        found += 1
        yield row
    if found < count:
        raise EncoderError(f"{file} ends after {found} of {count} words: it was cut off")


def _binary(stream: BinaryIO, count: int, width: int, file: Path) -> Iterator[Row]:
    for number in range(count):
        word = bytearray()
        while (byte := stream.read(1)) not in (b" ", b""):
            word += byte
        data = stream.read(4 * width)
        if len(data) < 4 * width:
            raise EncoderError(f"{file} ends after {number} of {count} words: it was cut off")
        # Some writers end a vector with a line break.
        yield bytes(word.lstrip(b"\n")), np.frombuffer(data, "<f4")
    if stream.read(2).strip():
        raise EncoderError(f"{file} goes on after {count} words: one holds a space, which this format cannot tell")


def _gather(rows: Iterable[Row], file: Path) -> Words:
    places: dict[str, int] = {}
    vectors = np.empty((0, 0), np.float32)
    for encoded, vector in rows:
        word = encoded.decode("utf-8", "replace")
        if word in places:
            continue
        if not np.isfinite(vector).all():
            raise EncoderError(f"{file}: the vector of {word!r} holds NaN or infinity")
        if len(places) == len(vectors):  # grown as rows come: a header may claim anything
            grown = np.empty((max(1024, 2 * len(vectors)), len(vector)), np.float32)
            grown[: len(places)] = vectors[: len(places)].reshape(-1, len(vector))
            vectors = grown
        vectors[len(places)] = vector
        places[word] = len(places)
    if not places:
        raise EncoderError(f"{file} holds no word")
    return Words(list(places), vectors[: len(places)])
