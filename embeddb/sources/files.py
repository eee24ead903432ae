"""Files that rows name: read from explicit roots only, never from elsewhere, and never more than a limit."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Final
from urllib.parse import SplitResult, unquote, urlsplit

from embeddb.errors import MissingExtra, SourceError
from embeddb.sources import http

MAX_BYTES: Final = 64 * 2**20

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_FOLDER_FLAGS: Final = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)
#: A FIFO or a terminal must not make the reader wait.
_FILE_FLAGS: Final = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


@dataclass(frozen=True)
class Files:
    """What may be read: ``Files("/srv/photos", "s3://bucket/photos", "https://images.example.com")``.

    ``roots``: local folders, and beginnings of URLs of any scheme that fsspec knows; "https://" alone allows every
    host. A name is one of a file below a root; a relative one is meant below the first local root. ``max_bytes``: of
    a file. ``private``: whether http may reach addresses that are not public (loopback, private networks, link-local
    and so metadata services); redirects are followed within the roots only. ``seconds``: until http gives up.

    Nothing is read that lies outside: not by "..", nor by a link, nor by a name that resolves to a private address
    only when it is connected to. Only regular files are read.
    """

    roots: tuple[str, ...]
    max_bytes: int
    private: bool
    seconds: float

    def __init__(
        self, *roots: str | os.PathLike[str], max_bytes: int = MAX_BYTES, private: bool = False, seconds: float = 30.0
    ) -> None:
        if not roots:
            raise SourceError("name the roots that files may be read from: folders, or beginnings of URLs")
        object.__setattr__(self, "roots", tuple(os.fspath(root) for root in roots))
        object.__setattr__(self, "max_bytes", max_bytes)
        object.__setattr__(self, "private", private)
        object.__setattr__(self, "seconds", seconds)

    def read(self, name: str | os.PathLike[str]) -> bytes:
        """The content of a file. Raises SourceError, which names it, where it may not or cannot be read."""
        given = os.fspath(name)
        shown = shorten(given)
        if not given or any(ord(character) < 32 or ord(character) == 127 for character in given):
            raise SourceError(f"{shown}: this is no name of a file: it is empty or holds control characters")
        try:
            with self._open(given) as stream:
                data = _read(stream, self.max_bytes + 1)
        except SourceError as error:
            raise SourceError(f"{shown}: {error}") from error.__cause__
        except ImportError as error:
            raise MissingExtra(f"{shown} needs a package that is not installed: {error}") from error
        except Exception as error:  # fsspec's file systems raise whatever their libraries do
            raise SourceError(f"{shown}: it cannot be read: {type(error).__name__}: {error}") from error
        if len(data) > self.max_bytes:
            raise SourceError(f"{shown}: it is larger than {self.max_bytes:,} bytes: shrink it, or raise max_bytes")
        return data

    @contextmanager
    def _open(self, name: str) -> Iterator[BinaryIO]:
        scheme = _SCHEME.match(name)
        if scheme is None or scheme[1].lower() == "file":
            opened: Any = self._open_local(name if scheme is None else _local_path(name))
        else:
            url = self.check_url(name)
            opened = self._filesystem(url.scheme).open(name, "rb", block_size=0 if url.scheme in http.SCHEMES else None)
        with opened as stream:
            yield stream

    # --- local files ---

    def _open_local(self, name: str) -> BinaryIO:
        """Open a file below a root, refusing at every step of the way a link that was put there meanwhile."""
        folders = [Path(_local_path(root)).resolve() for root in self.roots if not _is_remote(root)]
        if not folders:
            raise SourceError(f"there is no local root: files may come from {', '.join(self.roots)} only")
        try:
            path = (folders[0] / name).resolve(strict=True)
        except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
            raise SourceError(f"it cannot be read: {_reason(error)}") from error
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
            raise SourceError(f"it cannot be read: {_reason(error)}") from error
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
        if not any(_is_below(url, _split(root)) for root in self.roots if _is_remote(root)):
            raise SourceError(f"this URL is below no root: {', '.join(self.roots)}")
        return url

    def _filesystem(self, scheme: str) -> Any:
        key = (scheme, os.getpid())  # its connections are run by a thread, which a forked child has not
        if key not in self._filesystems:
            if scheme in http.SCHEMES:
                self._filesystems[key] = http.filesystem(self.check_url, private=self.private, seconds=self.seconds)
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


def shorten(name: str) -> str:
    """A file's name as errors show it, without what could be a secret: a URL's user, password and query."""
    scheme = _SCHEME.match(name)
    if scheme:
        head, _, rest = name.partition("://")
        host, slash, path = rest.partition("?")[0].partition("/")
        name = f"{head}://{host.rpartition('@')[2]}{slash}{path}"
    shown = ascii(name)[1:-1] if any(not character.isprintable() for character in name) else name
    return shown if len(shown) <= 200 else f"{shown[:100]}…{shown[-99:]}"


def _read(stream: BinaryIO, limit: int) -> bytes:
    blocks = bytearray()
    while len(blocks) < limit and (block := stream.read(min(2**20, limit - len(blocks)))):
        blocks += block
    return bytes(blocks)


def _is_remote(root: str) -> bool:
    scheme = _SCHEME.match(root)
    return scheme is not None and scheme[1].lower() != "file"


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


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno in (errno.ELOOP, errno.ENOTDIR):
        return "a link, or a file where a folder is named"
    return str(getattr(error, "strerror", None) or error)
