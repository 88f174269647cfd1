"""`serve_classifier`: a port, and a server on it until it is interrupted."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Callable, Iterable

import uvicorn

from featcache.api.requests import PathLike
from featcache.errors import ServeError
from featcache.serve.app import MOST_BYTES, classifier_app
from featcache.serve.guarding import is_loopback

log = logging.getLogger(__name__)

_WAITING = 64
"""Connections, at most."""


def serve_classifier(
    classifier: PathLike,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    allow_hosts: Iterable[str] = (),
    most_bytes: int = MOST_BYTES,
    device: str = "auto",
    backbone: str | None = None,
    weights: PathLike | None = None,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve a classifier on this machine until Ctrl-C: a page for people, JSON for programs.

    Nothing that is sent is kept. Whoever reaches the port may ask: there is no password.

    Args:
        classifier: a .fc file.
        host: address to bind; the default is reached from this machine alone.
        port: 0 takes a free one.
        allow_hosts: names besides the host's own by which it may be asked.
        most_bytes: of a request.
        device: "auto" or a name.
        backbone: `package.module:factory`, to vouch for the code of a network of one's own.
        weights: the backbone's, where the file that the classifier names is gone.
        ready: called with the URL once it answers.

    Raises:
        ServeError: the address cannot be bound.
        ClassifierError, BackboneError, EngineError: the classifier cannot be used.
    """
    with _bound(host, port) as bound:
        if not is_loopback(host):
            log.warning("%s is reached from other machines, and nobody is asked who they are", host)
        app = classifier_app(
            classifier,
            host=host,
            allow_hosts=allow_hosts,
            most_bytes=most_bytes,
            device=device,
            backbone=backbone,
            weights=weights,
        )
        bound.listen()
        if ready:
            ready(_url(host, bound.getsockname()[1]))
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            ws="none",
            limit_concurrency=_WAITING,
            timeout_graceful_shutdown=3,
        )
        with contextlib.suppress(KeyboardInterrupt):  # which is how it ends
            uvicorn.Server(config).run(sockets=[bound])


def _bound(host: str, port: int) -> socket.socket:
    """A socket that is bound and does not listen yet."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind(address)
        except OSError:
            bound.close()
            raise
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ServeError(
            f"{host}:{port}: {reason}; give another --port (0 takes a free one) or --host"
        ) from error
    return bound


def _url(host: str, port: int) -> str:
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}"
