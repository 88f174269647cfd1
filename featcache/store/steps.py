"""sweeps/<key>/: what an interrupted sweep has finished, kept until it is whole.

Each step is a finding of its own, written and checked as those of `results` are.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt

from featcache.errors import CacheDamagedError, CacheMissingError, StoreError
from featcache.store.files import make_folder, naming
from featcache.store.findings import read_findings, write_findings

SWEEPS = "sweeps"

log = logging.getLogger(__name__)


class Steps:
    """The finished steps of one sweep.

    Args:
        folder: of the cache.
        key: names the sweep: what was asked, of which pictures.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self._cache, self._folder = folder, folder / SWEEPS / key

    def read(self, name: str) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]] | None:
        """A step's record and arrays; None where it was not finished, or is damaged."""
        try:
            return read_findings(self._folder, name)
        except (CacheMissingError, CacheDamagedError):
            return None

    def write(
        self, name: str, record: Mapping[str, Any], rows: Mapping[str, npt.NDArray[Any]]
    ) -> None:
        """Keep a step; a cache that cannot be written is swept all the same."""
        try:
            if self._cache.is_dir():
                make_folder(self._folder)
            write_findings(self._folder, name, record, rows)
        except StoreError as error:
            log.info("step %s not kept: %s", name, error)

    def remove(self) -> None:
        """Forget the sweep: it is whole."""
        with naming(self._folder):
            shutil.rmtree(self._folder, ignore_errors=True)


def remove_steps(folder: Path) -> int:
    """Forget all interrupted sweeps; returns how many there were."""
    sweeps = folder / SWEEPS
    if not sweeps.is_dir():
        return 0
    with naming(sweeps):
        found = len(list(sweeps.iterdir()))
        shutil.rmtree(sweeps)
    return found
