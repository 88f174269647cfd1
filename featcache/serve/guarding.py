"""Who may ask, and what a browser may do with the answers.

A page of a stranger can make a browser ask any address, and a name of his can be made to lead here
(DNS rebinding); so what was asked for by another name, or from another page, is refused.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from featcache.serve.answering import refusal

_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


@dataclass(frozen=True)
class Names:
    """By which names a server may be asked.

    Attributes:
        known: in lower case.
        any_address: whether by any address, too; a number leads nowhere else.
    """

    known: frozenset[str]
    any_address: bool

    def hold(self, host: str) -> bool:
        """Whether a Host header names this server."""
        name = host_name(host)
        return name in self.known or (self.any_address and _address(name) is not None)


def names_of(host: str, more: Iterable[str] = ()) -> Names:
    """The names of a server that is bound to a host.

    Args:
        host: an address or a name.
        more: names that lead to it besides.
    """
    known = {"localhost", "127.0.0.1", "::1", host, *more}
    if not is_loopback(host):
        known.add(socket.gethostname())
    return Names(frozenset(map(str.lower, known)), not is_loopback(host))


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what is bound to a host."""
    address = _address(host)
    return host.lower() == "localhost" if address is None else address.is_loopback


def host_name(host: str) -> str:
    """The name of a Host header, without its port; "" where it is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


class Guard:
    """Refuses what was asked by another name or from another page, and marks all answers.

    Args:
        app: what is guarded.
        names: of this server.
    """

    def __init__(self, app: ASGIApp, names: Names) -> None:
        self._app, self._names = app, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        reason = self._reason(Headers(scope=scope))
        app = self._app if reason is None else refusal(403, reason)
        await app(scope, receive, marked)

    def _reason(self, headers: Headers) -> str | None:
        """Why a request is refused, or None."""
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self._names.hold(host):
            return "this server is not asked by that name; see --allow-host"
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return "pages of other origins may not ask this server"
        return None
