"""Packages that an extra installs: asked for where they are needed, named where they are not."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec

from featcache.errors import MissingExtraError


def require_extra(what: str, packages: Iterable[str], extra: str, instead: str = "") -> None:
    """Refuse what needs packages that are not installed.

    Args:
        what: needs them, in words.
        packages: by the names that import them.
        extra: of featcache, that installs them.
        instead: what does without them.

    Raises:
        MissingExtraError: names what is missing and the command that installs it.
    """
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        other = f", or {instead}" if instead else ""
        raise MissingExtraError(
            f"{what} needs {', '.join(missing)}, not installed; run: pip install "
            f"'featcache[{extra}]'{other}"
        )
