"""Out to others: a cache as npz, parquet, CSV or HDF5; a classifier as ONNX, TorchScript or pt2.

caches       export_cache: which writer, what goes out
samples      which samples have features, and what is said of each, in blocks
found        held-out probabilities of a probe's result, as cleanlab takes them
npz, parquet, table, everything   a writer each
pictures     the pictures themselves, for a file that shows them
classifiers  export_classifier: written, checked, described
whole        the classifier as one module
graphs       a format each: written from the module, run from the file
checking     whether the file says what the classifier says
examples     the lines that use it without featcache
places       the file's name, its format, and how it gets there whole
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from featcache.export.caches import export_cache
    from featcache.export.classifiers import export_classifier

__all__ = ["export_cache", "export_classifier"]

_HOMES = {"export_cache": "caches", "export_classifier": "classifiers"}


def __getattr__(name: str) -> Any:
    """Load what is asked for: a cache goes out without a network's libraries."""
    if name in _HOMES:
        return getattr(import_module(f"featcache.export.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'featcache.export' has no attribute {name!r}")
