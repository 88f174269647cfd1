"""Rows of the source network's own classifier, for classes that it knows already."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from torch import nn

from featcache.backbones.registry import load_from_locator
from featcache.classifier.joined import trusted_name
from featcache.errors import ProbeError
from featcache.store.cache import Cache


def source_rows(
    cache: Cache, classes: tuple[str, ...], chosen: Mapping[str, int], vouched: str | None
) -> npt.NDArray[np.float64]:
    """The weights of the source's classifier, of penultimate features, that match the classes.

    A class that none was named for gets the mean of all the source's rows, which says nothing.

    Args:
        cache: whose backbone is the source.
        classes: K names.
        chosen: by class, the number of the source's class.
        vouched: `package.module:factory`, where the source is a network of one's own.

    Returns:
        (K, D) float64.

    Raises:
        ProbeError: no such class, or the source has no such row.
    """
    manifest = cache.manifest
    name = trusted_name(manifest.backbone["name"], vouched)
    locator, preprocessing = manifest.backbone["locator"], manifest.recipe.preprocessing
    classifier = load_from_locator(name, locator, preprocessing=preprocessing).classifier
    if not isinstance(classifier, nn.Linear):
        raise ProbeError(
            f"{name} has no linear classifier of its own; leave out --init-from-source"
        )
    rows = classifier.weight.detach().double().numpy()
    prior = np.repeat(rows.mean(axis=0, keepdims=True), len(classes), axis=0)
    for label, number in chosen.items():
        if label not in classes:
            raise ProbeError(f"no class {label!r}; there are: {', '.join(map(repr, classes))}")
        if not 0 <= number < len(rows):
            raise ProbeError(f"{label}={number}: {name} has the classes 0 to {len(rows) - 1}")
        prior[classes.index(label)] = rows[number]
    return prior
