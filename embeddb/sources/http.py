"""HTTP for files that rows name: fsspec's, held to public addresses and to the roots at every connection."""

from __future__ import annotations

import ipaddress
import socket
import sys
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urljoin

from embeddb.errors import MissingExtra, SourceError

SCHEMES: Final = ("http", "https")
#: Statuses under which the same request may succeed later: timeout, too early, too many, and the server's own.
_LATER: Final = frozenset({408, 425, 429, *range(500, 600)})


def filesystem(check_url: Callable[[str], object], *, private: bool, seconds: float) -> Any:
    """fsspec's file system for http and https.

    The address is looked at when the socket is made for it, so that no name can resolve to another one between a check
    and the connection, and a redirect is no way around. ``check_url`` raises for a redirect's target that may not be
    read. Proxies of the environment are not used: they would connect to what this cannot see.
    """
    try:
        import aiohttp
        from fsspec.implementations.http import HTTPFileSystem
    except ImportError as error:
        raise MissingExtra(f"http needs fsspec and aiohttp: pip install 'embeddb[files]' ({error})") from error

    def make_socket(address: Any) -> socket.socket:
        family, kind, protocol, _, place = address
        if not private and not is_public(place[0]):
            raise SourceError(f"{place[0]} is not a public address: it is not connected to (private=True allows it)")
        return socket.socket(family=family, type=kind, proto=protocol)

    async def follow(_session: object, _context: object, parameters: Any) -> None:
        check_url(urljoin(str(parameters.url), parameters.response.headers.get("Location", "")))

    async def make_client(**settings: Any) -> aiohttp.ClientSession:
        trace = aiohttp.TraceConfig()
        trace.on_request_redirect.append(follow)
        connector = aiohttp.TCPConnector(socket_factory=make_socket)
        timeout = aiohttp.ClientTimeout(total=seconds)
        return aiohttp.ClientSession(connector=connector, trace_configs=[trace], timeout=timeout, **settings)

    return HTTPFileSystem(get_client=make_client, skip_instance_cache=True, use_listings_cache=False)


def chain(error: BaseException) -> list[BaseException]:
    """An error and those that it came of: a refusal of ours stands, however a library wraps it."""
    found: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in found:
        found.append(cause)
        cause = cause.__cause__ or cause.__context__
    return found


def answer(error: BaseException) -> str | None:
    """What a server answered instead of a file, which fsspec takes for a file that is not there; None if it did not."""
    aiohttp = sys.modules.get("aiohttp")
    for cause in chain(error):
        if aiohttp is not None and isinstance(cause, aiohttp.ClientResponseError) and cause.status >= 400:
            return f"the server answered {cause.status} {cause.message.partition(':')[0]}".strip()
    return None


def passes(error: BaseException) -> bool:
    """Whether a request that failed so may succeed later."""
    aiohttp = sys.modules.get("aiohttp")
    if aiohttp is None:
        return False
    if isinstance(error, aiohttp.ClientResponseError):
        return error.status in _LATER
    return isinstance(error, aiohttp.ClientConnectionError | aiohttp.ClientPayloadError)


def is_final(error: BaseException) -> bool:
    """Whether it says that there is no such host, which no waiting will change."""
    return isinstance(error, socket.gaierror) and error.errno != socket.EAI_AGAIN


def is_public(address: str) -> bool:
    """Whether an IP address is one of the internet at large; one that wraps an IPv4 address is what that is."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is None and ip in ipaddress.ip_network("64:ff9b::/96"):
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not ip.is_multicast
