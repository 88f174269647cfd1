"""Before an exported classifier appears: on real pictures, does the file say what it says?"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from featcache.classifier.joined import Classifier
from featcache.engines import make_engine
from featcache.errors import ExportError, ParityError, PictureError
from featcache.export.graphs import Run
from featcache.export.whole import Input
from featcache.images.expanding import expand
from featcache.images.files import read_file
from featcache.images.loading import pixels_of_views
from featcache.images.sources import content_hash
from featcache.naming import shown
from featcache.recipe import View

TOLERANCE = 1e-3
"""Largest difference of a log-probability, as a share of the row's largest (of 1, if smaller)."""

PICTURES = 16
"""That are run, at most."""

_LEAST = 1e-30
"""Probability below which nothing is told apart."""


def real_pixels(classifier: Classifier, pictures: Sequence[str]) -> npt.NDArray[np.uint8]:
    """(n, H, W, 3) pixels of pictures, or of parts of scikit-learn's two photos if none is named.

    Raises:
        ExportError: one of them cannot be read.
        SourceError: a folder without pictures.
    """
    named = expand(pictures)
    chosen = np.unique(np.linspace(0, len(named) - 1, min(PICTURES, len(named))).astype(int))
    contents: dict[str, Any] = {named[i]: _content(named[i]) for i in chosen}
    contents = contents or {str(i): part for i, part in enumerate(_photos())}
    return np.stack([_pixels(classifier, *item) for item in contents.items()])


def _content(path: str) -> bytes:
    try:
        return read_file(".", path)
    except PictureError as error:
        raise ExportError(f"{shown(path)}: {error}; give pictures that can be read") from error


def _pixels(classifier: Classifier, name: str, content: Any) -> npt.NDArray[np.uint8]:
    try:
        return pixels_of_views(content, classifier.recipe, (View(),), content_hash(content))[0]
    except PictureError as error:
        raise ExportError(f"{shown(name)}: {error}; give pictures that can be read") from error


def _photos() -> list[npt.NDArray[np.uint8]]:
    """Two photos, whole and in part."""
    from sklearn.datasets import load_sample_images

    wholes = [np.ascontiguousarray(image) for image in load_sample_images().images]
    corners = [(0, 0), (200, 100), (150, 400)]
    return wholes + [image[y : y + 220, x : x + 240] for image in wholes for y, x in corners]


def measure(classifier: Classifier, run: Run, pixels: npt.NDArray[np.uint8], takes: Input) -> float:
    """How far the file is from the classifier in fp32, on all pictures together and each alone."""
    preprocessing = classifier.recipe.preprocessing
    with make_engine("torch", classifier.stem, preprocessing, device="cpu") as engine:
        expected = classifier.probabilities(classifier.logits(engine, pixels))
    given = (
        pixels if takes == "uint8" else normalised(pixels, preprocessing.mean, preprocessing.std)
    )
    together = run(given)
    alone = np.concatenate([run(given[i : i + 1]) for i in range(len(given))])
    both = [difference(together, expected), difference(alone, expected)]
    return float(np.max(both))  # NaN wins, as it does not in Python's own


def normalised(
    pixels: npt.NDArray[np.uint8], mean: Sequence[float], std: Sequence[float]
) -> npt.NDArray[np.float32]:
    """(N, H, W, 3) uint8 to (N, 3, H, W) float32."""
    scaled = (pixels / 255 - np.array(mean)) / np.array(std)
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2), np.float32)


def difference(given: npt.NDArray[Any], expected: npt.NDArray[Any]) -> float:
    """Of two (n, K) probabilities; see `TOLERANCE`. Infinite where the shapes differ."""
    if given.shape != expected.shape:
        return float("inf")
    ours, theirs = (np.log(np.maximum(p.astype(np.float64), _LEAST)) for p in (given, expected))
    scale = np.maximum(np.abs(theirs).max(axis=1), 1.0)
    return float((np.abs(ours - theirs).max(axis=1) / scale).max())


def refuse_unlike(file: str | os.PathLike[str], found: float, count: int) -> None:
    """Refuse a file that says something else.

    Raises:
        ParityError: says by how much. The file is not kept.
    """
    if not found <= TOLERANCE:
        raise ParityError(
            f"{file}: not written. On {count} pictures it gives log-probabilities that differ from "
            f"the classifier's by {found:.2g} of their size (allowed: {TOLERANCE:g}); take another "
            "--format"
        )
