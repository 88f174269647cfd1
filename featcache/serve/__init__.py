"""A classifier behind a small page and a JSON endpoint, for one machine.

running   serve_classifier: binds a port, loads, runs until it is interrupted
app       classifier_app: the routes; one forward pass at a time
uploads   what a request sends, bounded while it comes, never on disk
guarding  who may ask: names of this host, pages of this origin; headers of every answer
page/     what a browser gets: one page, its style, its script, nothing from elsewhere
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from featcache.extras import require_extra

if TYPE_CHECKING:
    from featcache.serve.app import classifier_app
    from featcache.serve.running import serve_classifier

__all__ = ["classifier_app", "serve_classifier"]

_HOMES = {"classifier_app": "app", "serve_classifier": "running"}
_NEEDS = ("starlette", "uvicorn", "python_multipart")


def __getattr__(name: str) -> Any:
    """Load what is asked for, or say what it needs.

    Raises:
        MissingExtraError: the extra is not installed.
    """
    if name not in _HOMES:
        raise AttributeError(f"module 'featcache.serve' has no attribute {name!r}")
    require_extra("serving", _NEEDS, "serve")
    return getattr(import_module(f"featcache.serve.{_HOMES[name]}"), name)
