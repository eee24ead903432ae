"""From the values of a row's sources to its encoder's input: a text, an image or a sound.

Hooks, the worker and ``embeddb verify`` all go through here, so that a row has one input whoever embeds it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from typing import Any, Final, Generic, NamedTuple, Self, TypeVar

from embeddb.encoders.protocol import Encoder, Modality
from embeddb.errors import SourceError
from embeddb.sources import audio, images
from embeddb.sources.files import MAX_BYTES, MAX_PIXELS, MAX_SECONDS, Files, FileState, shorten
from embeddb.sources.fragments import split
from embeddb.sources.histories import read_history
from embeddb.sources.roots import here
from embeddb.sources.text import compose
from embeddb.spec import EmbeddingSpec
from embeddb.waveform import Waveform

K = TypeVar("K")
V = TypeVar("V")

#: What decoded images and sounds of one part may take in memory, together, in bytes.
PART: Final = 256 * 2**20
#: Modalities whose input is in the row itself.
_WRITTEN: Final = ("text", "history")
#: Files that are read at once: a remote one is mostly waited for, and decoders leave the interpreter free.
AHEAD: Final = 4


class Read(NamedTuple):
    """An encoder's input (str, PIL image, Waveform, events), and which content it came from where that is a file."""

    value: Any
    state: FileState | None = None


@dataclass(frozen=True)
class Reader:
    """Reads what ``Inputs.locate`` found: a text is there already, a file must be read and decoded."""

    modality: Modality
    files: Files | None = None

    @property
    def ahead(self) -> int:
        """For ``in_parts``: texts are there already."""
        return 0 if self.modality in _WRITTEN else AHEAD

    def read(self, located: str | bytes) -> Read:
        """The encoder's input. Raises SourceError, which names the file, where it cannot be had.

        TransientSourceError, a kind of it, where trying again later is right.
        """
        return self.reading()(located)

    def reading(self) -> Callable[[str | bytes], Read]:
        """``read`` for many, which decodes a file once whose parts follow one another. For several threads."""
        last: tuple[str, Read] | None = None
        turn = Lock()

        def read(located: str | bytes) -> Read:
            nonlocal last
            if isinstance(located, bytes) or self.modality in _WRITTEN:
                return self._given(located)
            file, fragment = split(located)
            if fragment is None:
                return self._file(file)
            with turn:
                if last is None or last[0] != file:
                    last = None  # before the next one is in memory
                    last = file, self._file(file)
                whole = last[1]
            return Read(fragment.cut(whole.value, shorten(located)), whole.state)

        return read

    def _given(self, located: str | bytes) -> Read:
        if self.modality == "text" and isinstance(located, str):
            return Read(located)
        if self.modality == "history" and isinstance(located, str):
            return Read(read_history(located))
        if self.modality not in ("image", "audio") or isinstance(located, str):
            raise SourceError(f"an encoder of {self.modality} does not take {type(located).__name__}")
        return Read(self._decode(located, "its bytes"))

    def _file(self, name: str) -> Read:
        if self.files is None:
            raise SourceError(f"{shorten(name)}: nothing says which files may be read: declare files=Files(...)")
        data, state = self.files.fetch(name)
        return Read(self._decode(data, shorten(name)), state)

    def _decode(self, data: bytes, name: str) -> Any:
        files = self.files
        if self.modality == "image":
            most, pixels = (files.max_bytes, files.max_pixels) if files else (MAX_BYTES, MAX_PIXELS)
            return images.decode(data, name=name, max_bytes=most, max_pixels=pixels)
        most, seconds = (files.max_bytes, files.max_seconds) if files else (audio.MAX_BYTES, MAX_SECONDS)
        return audio.decode(data, name=name, max_bytes=most, max_seconds=seconds)


@dataclass(slots=True)
class Part(Generic[K]):
    """Rows that were read together: each with its input, and those that have none.

    ``inputs``: (row, the encoder's input); ``blank``: rows whose sources are NULL or blank; ``failed``: (row, why).
    ``states``: which content the files had, in the order of ``inputs``, None for what is no file.
    """

    inputs: list[tuple[K, Any]] = field(default_factory=list)
    states: list[FileState | None] = field(default_factory=list)
    blank: list[K] = field(default_factory=list)
    failed: list[tuple[K, SourceError]] = field(default_factory=list)


@dataclass(frozen=True)
class Inputs:
    """The sources of one embedding, by their names in its spec, and what reads them."""

    sources: tuple[str, ...]
    template: str | None
    reader: Reader

    @classmethod
    def of(cls, spec: EmbeddingSpec, encoder: Encoder) -> Self:
        """Of an embedding. Files are read as it declares, within what this process's environment allows."""
        files = None if spec.files is None else here(Files.from_dict(spec.files))
        return cls(spec.sources, spec.template, Reader(encoder.modality, files))

    def locate(self, values: Sequence[Any]) -> str | bytes | None:
        """The text of the row, the name of its file, or a file's bytes; None where its sources are NULL or blank.

        Reads no file, so equal results tell that nothing changed. Raises SourceError, naming the source, for values
        that are none of these.
        """
        return locate(values, self.sources, self.template)

    def read(self, values: Sequence[Any]) -> Read | None:
        """The encoder's input for a row, or None where its sources are NULL or blank. Raises as ``Reader.read``."""
        located = self.locate(values)
        return None if located is None else self.reader.read(located)

    def compose(self, values: Sequence[Any]) -> Any:
        """The same without the file's state: a str, PIL image or Waveform, or None."""
        read = self.read(values)
        return read and read.value

    def parts(self, rows: Iterable[tuple[K, Sequence[Any]]]) -> Iterator[Part[K]]:
        """Rows, each with its sources' values, read in parts that memory can hold; a text weighs nothing here.

        A row that cannot be read is in its part's ``failed``, and never raises.
        """
        read = self.reader.reading()

        def of(values: Sequence[Any]) -> Read | None:
            located = self.locate(values)
            return None if located is None else read(located)

        return in_parts(rows, of, ahead=self.reader.ahead)


def locate(values: Sequence[Any], sources: Sequence[str], template: str | None = None) -> str | bytes | None:
    """``Inputs.locate``, where no encoder is at hand."""
    if len(values) == 1 and isinstance(values[0], bytes | bytearray | memoryview):
        return bytes(values[0])
    return compose(values, sources, template)


def in_parts(rows: Iterable[tuple[K, V]], read: Callable[[V], Read | None], *, ahead: int) -> Iterator[Part[K]]:
    """Read rows until their inputs together are large, and go on when those are done with.

    ``ahead``: how many are read at once, in threads; 0 where there is nothing to wait for.
    """
    part: Part[K] = Part()
    weight = 0
    for row, reading in _reading(rows, read, ahead):
        try:
            found = reading()
        except SourceError as error:
            part.failed.append((row, error))
            continue
        if found is None:
            part.blank.append(row)
            continue
        part.inputs.append((row, found.value))
        part.states.append(found.state)
        weight += _weight(found.value)
        if weight >= PART:
            yield part
            part, weight = Part(), 0
    if part.inputs or part.blank or part.failed:
        yield part


def _reading(
    rows: Iterable[tuple[K, V]], read: Callable[[V], Read | None], ahead: int
) -> Iterator[tuple[K, Callable[[], Read | None]]]:
    """Each row with what returns its input, or raises, in their order."""
    if not ahead:
        yield from ((row, partial(read, given)) for row, given in rows)
        return
    with ThreadPoolExecutor(ahead, thread_name_prefix="embeddb-read") as pool:
        coming: deque[tuple[K, Future[Read | None]]] = deque()
        for row, given in rows:
            coming.append((row, pool.submit(read, given)))
            if len(coming) > ahead:
                first, future = coming.popleft()
                yield first, future.result
        while coming:
            first, future = coming.popleft()
            yield first, future.result


def _weight(value: Any) -> int:
    if isinstance(value, str | list):
        return 0
    if isinstance(value, Waveform):
        return int(value.samples.nbytes)
    width, height = value.size
    return 3 * int(width) * int(height)
