"""The classifier: pictures in, probabilities out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import nn

from featcache.backbones.registry import Backbone, load_backbone, load_from_locator
from featcache.classifier import files
from featcache.classifier.files import ClassifierFile
from featcache.classifier.tuned import halved_at, tuned_stem
from featcache.engines import Engine, available_cores, make_engine
from featcache.engines.parity import refuse_disparity
from featcache.errors import BackboneError, ClassifierError, WeightsError
from featcache.extraction.pipeline import (
    Pixels,
    Unusable,
    by_workers,
    is_passing,
    load_content,
    load_file,
    processes_for_files,
)
from featcache.extraction.shards import NOT_FINITE
from featcache.images.clock import Clock
from featcache.images.workers import Workers
from featcache.recipe import Recipe, View, differing_fields

BATCH = 32
"""Pictures a forward pass, at most."""


@dataclass(frozen=True, eq=False)
class Answer:
    """What the network says of one picture: (K,) logits, or why there are none.

    Attributes:
        crops: (N, K) logits of the random crops that were asked for, of none (0, 0).
    """

    path: str
    logits: npt.NDArray[np.float32] | None
    error: str | None = None
    crops: npt.NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0), np.float32))


class Classifier:
    """A head, and what was tuned below it, joined to the backbone they were fitted on.

    Args:
        content: what a .fc file holds.
        backbone: the untuned network; must have the recipe's identity, and is not changed.

    Raises:
        ClassifierError: the network is another one (names the fields that differ), or the tuned
            tensors are not of it.
    """

    def __init__(self, content: ClassifierFile, backbone: Backbone) -> None:
        ours = backbone.recipe_like(content.recipe)
        if ours != content.recipe:
            fields = "; ".join(differing_fields(ours.to_dict(), content.recipe.to_dict()))
            remedy = (
                "give its weights with --weights"
                if ours == replace(content.recipe, weights=ours.weights)
                else "extract and probe again with the network as it is now"
            )
            raise ClassifierError(
                f"{content.backbone['name']}: the network is not the one the head was fitted on "
                f"({fields}); {remedy}"
            )
        self.content = content
        self._stem = tuned_stem(backbone.stem, content.tail)

    @property
    def classes(self) -> tuple[str, ...]:
        """K names."""
        return self.content.classes

    @property
    def recipe(self) -> Recipe:
        """What decides the values."""
        return self.content.recipe

    @property
    def stem(self) -> nn.Module:
        """Normalised pictures (B, 3, H, W) to features, tuned; in evaluation mode."""
        return self._stem

    def probabilities(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """(n, K) logits to (n, K) probabilities, as the head's loss reads them."""
        return self.content.head.probabilities_of(logits)

    def answers(
        self,
        paths: Sequence[str],
        *,
        engine: str = "auto",
        device: str = "auto",
        crops: Sequence[View] = (),
    ) -> Iterator[Answer]:
        """Logits of pictures, one answer a path, in order.

        Args:
            paths: files; one that cannot be read gets its reason and stops nothing.
            engine: "auto" or a name.
            device: "auto" or a name.
            crops: views to be answered beside the plain one; see `tta_views`.

        Raises:
            EngineError: no such engine, or it does not agree with torch on the first pictures.
        """
        cores = available_cores()
        workers = Workers(partial(load_file, self.recipe, (View(), *crops)), again=is_passing)
        with workers, ExitStack() as held:
            workers.start(processes_for_files(len(paths), cores))
            running = self.engine(engine, device)
            vouched = running.name == "torch"
            pixels = by_workers(workers, paths, threads=cores, ahead=2 * BATCH, clock=Clock())
            held.enter_context(closing(pixels))
            for start in range(0, len(paths), BATCH):
                some = paths[start : start + BATCH]
                loaded = list(islice(pixels, len(some)))
                vouched = vouched or self._vouch(running, loaded)
                with running:  # its settings are the process's: not to be held over a yield
                    answers = list(self._answer(running, some, loaded))
                yield from answers

    def answer(self, engine: Engine, name: str, content: bytes) -> Answer:
        """Logits of one picture in memory.

        Args:
            engine: of `engine`; not entered.
            name: of the picture, for the answer.
            content: of a picture's file.
        """
        loaded = load_content(self.recipe, (View(),), content)
        with engine:
            (answer,) = self._answer(engine, [name], [loaded])
        return answer

    def _vouch(self, engine: Engine, loaded: Sequence[Pixels | Unusable]) -> bool:
        """Compare an engine with torch on the plain views of what can be read, if there is any."""
        plain = [views[0] for views in loaded if not isinstance(views, Unusable)]
        if plain:
            reference = self.engine("torch", engine.device)
            refuse_disparity(engine, reference, np.stack(plain), self.recipe.precision)
        return bool(plain)

    def engine(self, name: str = "auto", device: str = "auto") -> Engine:
        """What runs the network; enter it before use."""
        precision = self.recipe.precision
        return make_engine(
            name, self._stem, self.recipe.preprocessing, device=device, precision=precision
        )

    def engine_as_cached(self) -> Engine:
        """The same, with the activation at the cut rounded as the cache it was trained from is."""
        preprocessing, stream = self.recipe.preprocessing, self.content.stream
        stem = self._stem
        if stream.dtype == "float16":
            stem = halved_at(stem, stream.cut, preprocessing.size)
        return make_engine("auto", stem, preprocessing, precision=self.recipe.precision)

    def logits(self, engine: Engine, pixels: Iterable[Pixels]) -> npt.NDArray[np.float32]:
        """(n, K) logits of n >= 1 pictures, in one forward pass."""
        features = engine.run(np.stack(list(pixels)))
        return self.content.logits(features.reshape(len(features), -1))

    def _answer(
        self, engine: Engine, paths: Sequence[str], loaded: list[Pixels | Unusable]
    ) -> Iterator[Answer]:
        readable = [pixels for pixels in loaded if not isinstance(pixels, Unusable)]
        views = zip(*readable, strict=True)  # each: the pixels of one view of all pictures
        logits = zip(*(self.logits(engine, pixels) for pixels in views), strict=True)
        for path, outcome in zip(paths, loaded, strict=True):
            if isinstance(outcome, Unusable):
                yield Answer(path, None, outcome.reason)
            else:
                plain, *crops = given = next(logits)
                if np.isfinite(given).all():
                    yield Answer(path, plain, crops=np.array(crops).reshape(-1, len(plain)))
                else:
                    yield Answer(path, None, NOT_FINITE)


def load_classifier(
    path: Path, *, backbone: str | None = None, weights: str | os.PathLike[str] | None = None
) -> Classifier:
    """Load a .fc file and the backbone it names; see `join`.

    Raises:
        ClassifierError: not a classifier, or the network is another one.
        BackboneError, WeightsError: the backbone cannot be loaded.
    """
    content = files.read(path)
    try:
        return join(content, backbone=backbone, weights=weights)
    except (BackboneError, ClassifierError) as error:
        raise type(error)(f"{path}: {error}") from error


def join(
    content: ClassifierFile,
    *,
    backbone: str | None = None,
    weights: str | os.PathLike[str] | None = None,
) -> Classifier:
    """Load the backbone that a classifier's file names, and join them.

    A network of one's own runs code, so its factory is never taken from a file: it must be named.

    Args:
        content: what the file holds.
        backbone: `package.module:factory` of a network of one's own.
        weights: a file of weights, where the one that the classifier names is gone.

    Raises:
        ClassifierError: the network is another one, or runs code that nobody vouched for.
        BackboneError, WeightsError: the backbone cannot be loaded.
    """
    name = trusted_name(content.backbone["name"], backbone)
    preprocessing = content.recipe.preprocessing
    given = weights or content.backbone_tensors
    if given:
        return Classifier(content, load_backbone(name, weights=given, preprocessing=preprocessing))
    locator = content.backbone["locator"]
    try:
        loaded = load_from_locator(name, locator, preprocessing=preprocessing)
    except WeightsError as error:
        raise WeightsError(
            f"the backbone's weights are not where they were: {error}; if they are elsewhere, give "
            "that file with --weights"
        ) from error
    return Classifier(content, loaded)


def trusted_name(recorded: str, confirmed: str | None) -> str:
    """The backbone's name, if it is one of a library or the user has named it too.

    Raises:
        ClassifierError: a factory that the user has not named, or another name.
    """
    if confirmed not in (None, recorded):
        raise ClassifierError(
            f"--backbone {confirmed}: the features are those of {recorded}; give that name, or "
            "leave it out"
        )
    if ":" in recorded and confirmed is None:
        raise ClassifierError(
            f"the backbone is a network of one's own ({recorded}), which runs code; "
            f"if you trust that code, say --backbone {recorded}"
        )
    return recorded
