"""Every error featcache raises on purpose.

    FeatcacheError
    ├── MissingExtraError (ImportError)       a package is needed that an extra installs
    ├── TableError (LookupError)              a record has no such table
    ├── SourceError (ValueError)              the data cannot be understood as labelled pictures
    │   ├── SourceMissingError (FileNotFoundError)   the pictures are needed and are not there
    │   └── DownloadError (ConnectionError)          a public data set could not be fetched
    ├── PictureError (ValueError)             one picture cannot be turned into pixels
    ├── AugmentationError (ValueError)        no such views of pictures can be made
    ├── BackboneError (ValueError)            a network cannot be used as a backbone
    │   ├── UnknownBackboneError (LookupError)       no network of that name
    │   └── WeightsError (OSError)                   weights cannot be fetched, read or fitted
    ├── EngineError (RuntimeError)            an engine or a device cannot run here
    ├── StoreError (OSError)                  the cache on disk cannot be used
    │   ├── CacheMissingError (FileNotFoundError)    no cache at that place
    │   ├── CacheMismatchError (ValueError)          another recipe or another source
    │   ├── CacheDamagedError (ValueError)           bytes are not the ones that were written
    │   ├── CacheIncompleteError (ValueError)        rows are asked for that were never computed
    │   ├── CacheBusyError (BlockingIOError)         another process is writing it
    │   ├── DiskSpaceError (OSError)                 what is to be written does not fit
    │   └── StoredOverflowError (OverflowError)      a value does not fit the stored dtype
    ├── ProbeError (ValueError)               the labels do not allow the probe asked for
    ├── TrainingError (ValueError)            a tail cannot be trained as asked
    ├── ClassifierError (ValueError)          a saved classifier cannot be read or used
    │   └── ParityError (ArithmeticError)            joined, it does not give the cached logits
    ├── ExportError (ValueError)              what is asked for cannot be exported, or not to there
    └── ServeError (OSError)                  a classifier cannot be served there

Each has `FeatcacheError` and a builtin as parents, so that code which knows nothing of featcache
still catches it. A message says what happened, to which file or value, and what to do next.
"""


class FeatcacheError(Exception):
    """Parent of every error that featcache raises on purpose."""


class MissingExtraError(FeatcacheError, ImportError):
    """A package is needed that an extra of featcache installs."""


class TableError(FeatcacheError, LookupError):
    """A record has no table of that name."""


class SourceError(FeatcacheError, ValueError):
    """The data cannot be understood as (labelled) pictures."""


class SourceMissingError(SourceError, FileNotFoundError):
    """The pictures are needed and are not where the source says."""


class DownloadError(SourceError, ConnectionError):
    """A public data set could not be fetched."""


class PictureError(FeatcacheError, ValueError):
    """One picture cannot be turned into pixels; its text is the reason of a skip record."""


class AugmentationError(FeatcacheError, ValueError):
    """No such views of pictures can be made."""


class BackboneError(FeatcacheError, ValueError):
    """A network cannot be used as a backbone."""


class UnknownBackboneError(BackboneError, LookupError):
    """No network has that name."""


class WeightsError(BackboneError, OSError):
    """Weights cannot be fetched, read, or fitted to the network."""


class EngineError(FeatcacheError, RuntimeError):
    """An engine or a device cannot run here."""


class StoreError(FeatcacheError, OSError):
    """The cache on disk cannot be used."""


class CacheMissingError(StoreError, FileNotFoundError):
    """There is no cache at that place."""


class CacheMismatchError(StoreError, ValueError):
    """The cache belongs to another recipe, another source, or disagrees with a recomputation."""


class CacheDamagedError(StoreError, ValueError):
    """The bytes on disk are not the ones that were written."""


class CacheIncompleteError(StoreError, ValueError):
    """Rows are asked for that were never computed."""


class CacheBusyError(StoreError, BlockingIOError):
    """Another process is writing this cache."""


class DiskSpaceError(StoreError):
    """What is to be written does not fit on the disk."""


class StoredOverflowError(StoreError, OverflowError):
    """A value does not fit the dtype it is to be stored in."""


class ProbeError(FeatcacheError, ValueError):
    """The labels or the rows do not allow the probe that was asked for."""


class TrainingError(FeatcacheError, ValueError):
    """A tail cannot be trained as it was asked for, or training it went astray."""


class ClassifierError(FeatcacheError, ValueError):
    """A saved classifier cannot be read or used."""


class ParityError(ClassifierError, ArithmeticError):
    """The joined model does not reproduce the cached logits."""


class ExportError(FeatcacheError, ValueError):
    """What is asked for cannot be exported, or not to that file."""


class ServeError(FeatcacheError, OSError):
    """A classifier cannot be served there."""
