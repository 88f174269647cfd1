"""A network of one's own: `package.module:factory`."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import re
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

from featcache.backbones.origin import Origin
from featcache.backbones.published import scaled
from featcache.errors import BackboneError
from featcache.recipe import Preprocessing

_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


_seen: WeakKeyDictionary[ModuleType, bytes] = WeakKeyDictionary()
"""Source of each of the user's modules when this process first identified it."""


def is_factory_name(name: str) -> bool:
    """Whether a name has the form `package.module:factory`."""
    return _NAME.fullmatch(name) is not None


class FactoryOrigin(Origin):
    """The network a function returns, a new one at each call; it is called when this is made.

    Its preprocessing is, in this order: the one given here, the second of a returned pair, the
    module's attribute `preprocessing`; each a `Preprocessing` or a dictionary of its fields.

    Raises:
        BackboneError: it cannot be imported or called, or no preprocessing is given.
    """

    def __init__(self, name: str, preprocessing: Preprocessing | None = None) -> None:
        self.name = name
        module, factory = _resolve(name)
        self.architecture = f"{name}@{_source_hash(name, module)}"
        self._network, returned = _called(name, factory)
        given = preprocessing or returned or getattr(module, "preprocessing", None)
        self._preprocessing = _as_preprocessing(name, given)
        self.published_size = self._preprocessing.size

    def preprocessing(self, image_size: int | None = None) -> Preprocessing:
        """The given transform, or the same at another size."""
        given = self._preprocessing
        return given if image_size is None else scaled(given, image_size)

    def build(self) -> nn.Module:
        """The network the factory returned."""
        return self._network

    def published(self) -> tuple[nn.Module, dict[str, Any]]:
        """The network with the tensors the factory gave it."""
        return self._network, {"kind": "factory"}


def _resolve(name: str) -> tuple[ModuleType, Any]:
    path, _, attributes = name.partition(":")
    try:
        module = importlib.import_module(path)
    except Exception as error:
        raise BackboneError(
            f"{name}: the module {path} cannot be imported ({type(error).__name__}: {error}); it "
            "must be installed, or its folder named in PYTHONPATH"
        ) from error
    found: Any = module
    for attribute in attributes.split("."):
        found = getattr(found, attribute, None)
    if not callable(found):
        raise BackboneError(f"{name}: {path} has no function {attributes} that returns a network")
    return module, found


def _source_hash(name: str, module: ModuleType) -> str:
    """Identity of the code: the factory's module and the user's own modules that it imports.

    Installed packages are left out: their versions are provenance, as the libraries' are.

    Raises:
        BackboneError: there is no source file, or one changed after this process imported it.
    """
    if not getattr(module, "__file__", None):
        raise BackboneError(
            f"{name}: {module.__name__} has no source file to identify it by; name a function in a "
            "file of its own"
        )
    digest = hashlib.sha256()
    for imported in _own_modules(module):
        path = Path(imported.__file__ or "")
        source = path.read_bytes()
        if _seen.setdefault(imported, source) != source:
            raise BackboneError(
                f"{name}: {path} was changed after this process had imported it; restart Python, "
                "so that the code that runs is the code in the file"
            )
        digest.update(f"{imported.__name__} {len(source)}\n".encode() + source)
    return digest.hexdigest()[:16]


def _own_modules(module: ModuleType) -> list[ModuleType]:
    """A module and those it imports, however indirectly, without installed ones; by name."""
    found, waiting = {module.__name__: module}, [module]
    while waiting:
        current = waiting.pop()
        for name in _imported_names(current):
            imported = sys.modules.get(name)
            if imported is not None and name not in found and _is_own(imported):
                found[name] = imported
                waiting.append(imported)
    return [found[name] for name in sorted(found)]


def _imported_names(module: ModuleType) -> Iterator[str]:
    """Absolute names in the import statements of a module, wherever in it they stand."""
    tree = ast.parse(Path(module.__file__ or "").read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                parts = alias.name.split(".")
                yield from (".".join(parts[: i + 1]) for i in range(len(parts)))
        elif isinstance(node, ast.ImportFrom):
            relative = "." * node.level + (node.module or "")
            base = importlib.util.resolve_name(relative, module.__package__ or None)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _is_own(module: ModuleType) -> bool:
    path = getattr(module, "__file__", None)
    if not path or not path.endswith(".py"):
        return False
    installed = [
        sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")
    ]
    return not any(Path(path).is_relative_to(place) for place in installed)


def _called(name: str, factory: Any) -> tuple[nn.Module, Any]:
    try:
        result = factory()
    except Exception as error:
        raise BackboneError(
            f"{name}: the factory failed ({type(error).__name__}: {error}); it is called without "
            "arguments and must return a torch.nn.Module"
        ) from error
    network, preprocessing = (
        result if isinstance(result, tuple) and len(result) == 2 else (result, None)
    )
    if not isinstance(network, nn.Module):
        raise BackboneError(
            f"{name}: the factory returned {type(network).__name__}; it must return a "
            "torch.nn.Module, or a pair of it and its preprocessing"
        )
    return network, preprocessing


def _as_preprocessing(name: str, given: Any) -> Preprocessing:
    if isinstance(given, Preprocessing):
        return given
    if given is None:
        raise BackboneError(
            f"{name}: nothing says how pictures become its input; let the factory return "
            '(network, preprocessing), or set `preprocessing = {"size": (224, 224), "resize": '
            '(256,), "mean": (...), "std": (...)}` in its module'
        )
    if not isinstance(given, Mapping):
        raise BackboneError(
            f"{name}: its preprocessing is a {type(given).__name__}; give a Preprocessing or a "
            "dictionary of its fields"
        )
    try:
        return Preprocessing.given(given)
    except ValueError as error:
        raise BackboneError(f"{name}: its preprocessing is not usable: {error}") from error
