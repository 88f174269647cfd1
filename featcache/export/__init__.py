"""Out to others: a cache as npz, parquet, CSV or HDF5.

caches       export_cache: which writer, what goes out
samples      which samples have features, and what is said of each, in blocks
found        held-out probabilities of a probe's result, as cleanlab takes them
npz, parquet, table, everything   a writer each
pictures     the pictures themselves, for a file that shows them
places       the file's name, its format, and how it gets there whole
"""

from __future__ import annotations

from featcache.export.caches import export_cache

__all__ = ["export_cache"]
