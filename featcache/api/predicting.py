"""`predict`: a classifier and pictures to labels. `list_backbones`: which networks there are."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featcache.api.requests import PathLike, PredictRequest, Progress, as_request
from featcache.backbones import registry
from featcache.classifier.joined import Answer, Classifier, load_classifier
from featcache.heads.averaging import Averaging, averaged
from featcache.images.expanding import expand
from featcache.results import BackboneRow, LabelProbability, Prediction, Records

_MULTI_LABEL_THRESHOLD = 0.5


def predict(
    classifier: PathLike | PredictRequest,
    pictures: PathLike | Sequence[PathLike] = (),
    *,
    progress: Progress | None = None,
    **options: Any,
) -> Records[Prediction]:
    """Label pictures; one that cannot be read is reported in its row and stops nothing.

    Args:
        classifier: a request, or a .fc file.
        pictures: files, folders and patterns.
        progress: called with ("predict", done, total).
        **options: the other fields of `PredictRequest`.

    Raises:
        ClassifierError, BackboneError: the classifier cannot be used.
        SourceError: a folder without pictures, or a pattern that matches nothing.
    """
    named = (pictures,) if isinstance(pictures, (str, os.PathLike)) else tuple(pictures)
    request = as_request(PredictRequest, classifier, options, named)
    paths = expand(os.fspath(picture) for picture in request.pictures)
    loaded = load_classifier(
        Path(request.classifier), backbone=request.backbone, weights=request.weights
    )
    predictions: list[Prediction] = []
    crops = request.crops
    for answer in loaded.answers(paths, engine=request.engine, device=request.device, crops=crops):
        predictions.append(prediction_of(answer, loaded, request))
        if progress:
            progress("predict", len(predictions), len(paths))
    return Records(predictions)


def prediction_of(answer: Answer, classifier: Classifier, request: PredictRequest) -> Prediction:
    """What a classifier's answer means.

    Args:
        answer: of one picture.
        classifier: whose.
        request: how many classes, and from which probability on.
    """
    if answer.logits is None:
        return Prediction(answer.path, None, None, error=answer.error)
    views = np.concatenate([answer.logits[None], answer.crops])
    probabilities = _averaged(classifier, views, request.tta_by)
    return _prediction(answer.path, probabilities, classifier, request)


def _averaged(
    classifier: Classifier, logits: npt.NDArray[np.float32], how: Averaging
) -> npt.NDArray[np.float64]:
    """(K,) probabilities of one picture, from the logits (V, K) of its views."""
    each = classifier.probabilities(logits)[:, None]
    return averaged(each, how, multi_label=classifier.content.head.multi_label)[0]


def _prediction(
    path: str,
    probabilities: npt.NDArray[np.float64],
    classifier: Classifier,
    request: PredictRequest,
) -> Prediction:
    order = np.argsort(-probabilities, kind="stable")
    ranked = tuple(
        LabelProbability(classifier.classes[int(i)], float(probabilities[i])) for i in order
    )
    best, labels = ranked[0], None
    least = request.min_probability
    if classifier.content.head.multi_label:
        least = _MULTI_LABEL_THRESHOLD if least is None else least
        labels = tuple(entry.label for entry in ranked if entry.probability >= least)
    known = least is None or best.probability >= least
    return Prediction(
        path=path,
        label=best.label if known else None,
        probability=best.probability,
        top=ranked[: request.top],
        labels=labels,
    )


def list_backbones(pattern: str | None = None) -> Records[BackboneRow]:
    """Networks that can be used, the embedded ones first.

    Args:
        pattern: part of a name, or a pattern with * and ?.
    """
    return Records(
        BackboneRow(row.name, row.library, row.weights, row.size)
        for row in registry.list_backbones(pattern)
    )
