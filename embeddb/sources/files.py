"""Files that rows name: read from explicit roots only, never from elsewhere, and never more than a limit."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple, Self
from urllib.parse import SplitResult, unquote, urlsplit

from embeddb.errors import MissingExtra, SourceError, TransientSourceError
from embeddb.sources import http
from embeddb.sources.fragments import split

MAX_BYTES: Final = 64 * 2**20
MAX_PIXELS: Final = 50_000_000
#: Decoded sound is larger than its file: an hour at 48 kHz is 0.7 GB of float32 a channel.
MAX_SECONDS: Final = 3600.0

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
#: Of URLs in what a library says: user and password, and the query.
_SECRETS: Final = re.compile(r"(\w+://)(?:[^\s/@'\"]*@)?([^\s?'\"]*)(?:\?[^\s'\"]*)?")
_OPEN: Final = r"\1\2"
_FOLDER_FLAGS: Final = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)
#: A FIFO or a terminal must not make the reader wait.
_FILE_FLAGS: Final = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
#: A file server that is away, or too many open files: another time the same file may be read.
_PASSING: Final = frozenset(
    {errno.EAGAIN, errno.EBUSY, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE, errno.ETIMEDOUT}
)
#: What fsspec's file systems tell of a file that changes with its content.
_TELLING: Final = ("size", "ETag", "etag", "Last-Modified", "LastModified", "last_modified", "mtime", "updated", "md5")


class FileState(NamedTuple):
    """Which content of which file was read: ``file`` and ``digest``, the SHA-256 of its name and of its content.

    ``stamp``: what a change shows by without reading the file. An empty one is unknown, and equal to none.
    """

    file: str
    digest: str
    stamp: str

    @staticmethod
    def of_name(name: str) -> str:
        """The ``file`` of a name."""
        return digest(name.encode("utf-8", "surrogatepass"))


class Content(NamedTuple):
    """A file as it was read."""

    data: bytes
    state: FileState


@dataclass(frozen=True)
class Files:
    """What may be read: ``Files("/srv/photos", "s3://bucket/photos", "https://images.example.com")``.

    ``roots``: local folders, and beginnings of URLs of any scheme that fsspec knows; "https://" alone allows every
    host. A name is one of a file below a root; a relative one is meant below the first local root. ``max_bytes``: of
    a file; ``max_pixels``: of an image; ``max_seconds``: of a sound. ``private``: whether http may reach addresses
    that are not public (loopback, private networks, link-local and so metadata services); redirects are followed
    within the roots only. ``timeout``: seconds until http gives up.

    Nothing is read that lies outside: not by "..", nor by a link, nor by a name that resolves to a private address
    only when it is connected to. Only regular files are read.
    """

    roots: tuple[str, ...]
    max_bytes: int
    max_pixels: int
    max_seconds: float
    private: bool
    timeout: float

    def __init__(
        self,
        *roots: str | os.PathLike[str],
        max_bytes: int = MAX_BYTES,
        max_pixels: int = MAX_PIXELS,
        max_seconds: float = MAX_SECONDS,
        private: bool = False,
        timeout: float = 30.0,
    ) -> None:
        if not roots:
            raise SourceError("name the roots that files may be read from: folders, or beginnings of URLs")
        object.__setattr__(self, "roots", tuple(os.fspath(root) for root in roots))
        object.__setattr__(self, "max_bytes", max_bytes)
        object.__setattr__(self, "max_pixels", max_pixels)
        object.__setattr__(self, "max_seconds", max_seconds)
        object.__setattr__(self, "private", private)
        object.__setattr__(self, "timeout", timeout)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, for a declaration's spec; ``from_dict`` is the inverse."""
        return {**{f.name: getattr(self, f.name) for f in fields(self)}, "roots": list(self.roots)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The policy of ``to_dict``. A key of a newer version is a SourceError: it might forbid something."""
        unknown = set(values) - {f.name for f in fields(cls)}
        if unknown:
            raise SourceError(f"unknown keys in what files may be read: {', '.join(sorted(unknown))}")
        limits = {name: value for name, value in values.items() if name != "roots"}
        return cls(*values["roots"], **limits)

    def with_roots(self, *roots: str) -> Self:
        """The same policy for other roots."""
        return type(self).from_dict({**self.to_dict(), "roots": roots})

    def read(self, name: str | os.PathLike[str]) -> bytes:
        """The content of a file. Raises SourceError, which names it, where it may not or cannot be read.

        TransientSourceError, a kind of it, where trying again later is right: a timeout, a server that is away.
        """
        return self.fetch(name).data

    def fetch(self, name: str | os.PathLike[str]) -> Content:
        """The content and its state. Raises as ``read`` does."""
        with _naming(name) as given, self._open(given) as stream:
            stamp = "" if is_remote(given) else _local_stamp(stream)  # of before, so that a change meanwhile shows
            data = _read(stream, self.max_bytes + 1)
            if len(data) > self.max_bytes:
                raise SourceError(f"it is larger than {self.max_bytes:,} bytes: shrink it, or raise max_bytes")
        return Content(data, FileState(FileState.of_name(given), digest(data), stamp))

    def stamp(self, name: str | os.PathLike[str]) -> str:
        """What changes with the file's content, found without reading it; empty where there is nothing such.

        Of a local file its inode, size and times; of others what their file system tells: ETag, size, time.
        Raises as ``read`` does.
        """
        with _naming(name) as given:
            if not is_remote(given):
                with self._open(given) as stream:
                    return _local_stamp(stream)
            info = self._filesystem(self.check_url(given).scheme).info(given)
            told = {key: str(info[key]) for key in _TELLING if info.get(key) is not None}
            return json.dumps(told, sort_keys=True) if told.keys() - {"size"} else ""

    @contextmanager
    def _open(self, name: str) -> Iterator[BinaryIO]:
        if is_remote(name):
            url = self.check_url(name)
            opened: Any = self._filesystem(url.scheme).open(
                name, "rb", block_size=0 if url.scheme in http.SCHEMES else None
            )
        else:
            opened = self._open_local(_local_path(name))
        with opened as stream:
            yield stream

    # --- local files ---

    def _open_local(self, name: str) -> BinaryIO:
        """Open a file below a root, refusing at every step of the way a link that was put there meanwhile."""
        folders = [Path(_local_path(root)).resolve() for root in self.roots if not is_remote(root)]
        if not folders:
            raise SourceError(f"there is no local root: files may come from {', '.join(self.roots)} only")
        try:
            path = (folders[0] / name).resolve(strict=True)
        except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
            raise _cannot_read(error) from error
        root = next((folder for folder in folders if path != folder and path.is_relative_to(folder)), None)
        if root is None:
            raise SourceError(f"it lies outside of {', '.join(map(str, folders))}: add a root if it may be read")
        *parents, last = path.relative_to(root).parts
        folder = os.open(root, _FOLDER_FLAGS)
        try:
            for part in parents:
                inner = os.open(part, _FOLDER_FLAGS, dir_fd=folder)
                os.close(folder)
                folder = inner
            descriptor = os.open(last, _FILE_FLAGS, dir_fd=folder)
        except OSError as error:
            raise _cannot_read(error) from error
        finally:
            os.close(folder)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise SourceError("it is not a regular file")
        return os.fdopen(descriptor, "rb")

    # --- URLs ---

    def check_url(self, name: str) -> SplitResult:
        """The parts of a URL below a root. Raises SourceError for another one."""
        url = _split(name)
        if not any(_is_below(url, _split(root)) for root in self.roots if is_remote(root)):
            raise SourceError(f"this URL is below no root: {', '.join(self.roots)}")
        return url

    def _filesystem(self, scheme: str) -> Any:
        key = (scheme, os.getpid())  # its connections are run by a thread, which a forked child has not
        if key not in self._filesystems:
            if scheme in http.SCHEMES:
                self._filesystems[key] = http.filesystem(self.check_url, private=self.private, seconds=self.timeout)
            else:
                try:
                    import fsspec
                except ImportError as error:
                    raise MissingExtra(f"{scheme} files need fsspec: pip install 'embeddb[files]'") from error
                self._filesystems[key] = fsspec.filesystem(scheme)
        return self._filesystems[key]

    @cached_property
    def _filesystems(self) -> dict[tuple[str, int], Any]:
        return {}


def digest(data: bytes) -> str:
    """SHA-256 of a file's content, hexadecimal: whether it is still the one that was embedded."""
    return hashlib.sha256(data).hexdigest()


def read_source(source: str | Path, files: Files | None, kind: str, max_bytes: int) -> bytes:
    """The bytes that an ``Image`` or ``Audio`` (``kind``) names: a user's name below roots, or a program's own path."""
    if files is not None:
        return files.read(split(source)[0] if isinstance(source, str) else source)
    if isinstance(source, str):
        raise SourceError(
            f"{shorten(source)}: say where it may be read from, {kind}(name, files=Files(folder or URL)); a file of "
            f"your own program is {kind}(pathlib.Path(name))"
        )
    path = source.resolve()
    return Files(path.parent, max_bytes=max_bytes).read(path)


def shorten(name: str) -> str:
    """A file's name as errors show it, without what could be a secret: a URL's user, password and query."""
    scheme = _SCHEME.match(name)
    if scheme:
        head, _, rest = name.partition("://")
        host, slash, path = rest.partition("?")[0].partition("/")
        name = f"{head}://{host.rpartition('@')[2]}{slash}{path}"
    shown = ascii(name)[1:-1] if any(not character.isprintable() for character in name) else name
    return shown if len(shown) <= 200 else f"{shown[:100]}…{shown[-99:]}"


@contextmanager
def _naming(name: str | os.PathLike[str]) -> Iterator[str]:
    """The name, looked at; and every error within as a SourceError that begins with it."""
    given = os.fspath(name)
    shown = shorten(given)
    if not given or any(ord(character) < 32 or ord(character) == 127 for character in given):
        raise SourceError(f"{shown}: this is no name of a file: it is empty or holds control characters")
    try:
        yield given
    except SourceError as error:
        raise type(error)(f"{shown}: {error}") from error.__cause__
    except ImportError as error:
        raise MissingExtra(f"{shown} needs a package that is not installed: {error}") from error
    except Exception as error:  # fsspec's file systems raise whatever their libraries do
        refusal = next((cause for cause in http.chain(error) if isinstance(cause, SourceError)), None)
        if refusal is not None:
            raise SourceError(f"{shown}: {refusal}") from error
        kind = TransientSourceError if _passes(error) else SourceError
        said = http.answer(error) or f"it cannot be read: {type(error).__name__}: {error}"
        raise kind(f"{shown}: {_SECRETS.sub(_OPEN, said)}") from error


def _passes(error: Exception) -> bool:
    """Whether trying again later is right."""
    chain = http.chain(error)
    return not any(map(http.is_final, chain)) and any(
        isinstance(cause, TimeoutError | ConnectionError)
        or http.passes(cause)
        or (isinstance(cause, OSError) and cause.errno in _PASSING)
        for cause in chain
    )


def _local_stamp(stream: BinaryIO) -> str:
    found = os.fstat(stream.fileno())
    return f"{found.st_dev}:{found.st_ino}:{found.st_size}:{found.st_mtime_ns}:{found.st_ctime_ns}"


def _read(stream: BinaryIO, limit: int) -> bytes:
    blocks = bytearray()
    while len(blocks) < limit and (block := stream.read(min(2**20, limit - len(blocks)))):
        blocks += block
    return bytes(blocks)


def is_remote(root: str) -> bool:
    """Whether a root or a name is a URL, and none of this machine."""
    scheme = _SCHEME.match(root)
    return scheme is not None and scheme[1].lower() != "file"


def is_below(root: str, other: str) -> bool:
    """Whether a root is another one, or lies below it."""
    if is_remote(root) != is_remote(other):
        return False
    if is_remote(root):
        return root == other or _is_below(_split(root), _split(other))
    return Path(_local_path(root)).resolve().is_relative_to(Path(_local_path(other)).resolve())


def _local_path(name: str) -> str:
    if not _SCHEME.match(name):
        return name
    url = urlsplit(name)
    if url.netloc not in ("", "localhost") or url.query or url.fragment:
        raise SourceError("a file URL names a path on this machine, and nothing else")
    return unquote(url.path)


def _split(name: str) -> SplitResult:
    try:
        url = urlsplit(name)
        _ = url.port
    except ValueError as error:
        raise SourceError(f"this is no URL: {error}") from error
    if "\\" in name or "@" in url.netloc:  # what some servers and parsers take for another host or folder
        raise SourceError("a URL with a user, a password or a backslash is not read")
    if any(part in (".", "..") for part in unquote(unquote(url.path)).split("/")):
        raise SourceError("a URL with '.' or '..' in its path is not read")
    return url


def _is_below(url: SplitResult, root: SplitResult) -> bool:
    if url.scheme != root.scheme or not url.netloc:
        return False
    if not root.netloc:
        return True
    return (url.hostname, url.port) == (root.hostname, root.port) and (
        url.path == root.path or url.path.startswith(root.path.rstrip("/") + "/")
    )


def _cannot_read(error: Exception) -> SourceError:
    if isinstance(error, OSError) and error.errno in (errno.ELOOP, errno.ENOTDIR):
        return SourceError("it cannot be read: a link, or a file where a folder is named")
    kind = TransientSourceError if _passes(error) else SourceError
    return kind(f"it cannot be read: {getattr(error, 'strerror', None) or error}")
