"""The transformer itself."""

from __future__ import annotations

import os
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin

from featcache.errors import BackboneError, CacheMismatchError
from featcache.recipe import PENULTIMATE, Pooling, Precision, Preprocessing
from featcache.transformer.given import GivenSource
from featcache.transformer.keeping import MEMORY, rows_of
from featcache.transformer.networks import Network, Wanted, weights_name


class FeatureExtractor(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Pictures to the features of a frozen network, as a step of a scikit-learn pipeline.

    X is a list (or an array or frame of one column) of paths, PIL images and uint8 arrays (H, W, 3)
    or (H, W); or one uint8 array (N, H, W, 3). Features are those that `extract` keeps, and each
    picture's are computed once, whatever folds and grids ask for it. Nothing is learnt from X: it
    transforms without a fit too, but once fitted, it refuses to go on with another network.

    Args:
        backbone: a network's name, or `package.module:factory`.
        weights: None for the published ones, a file, "random" or "random:SEED".
        image_size: side in pixels instead of the published one.
        preprocessing: instead of the published one.
        cut: the unit after which the activation is taken; "penultimate" is the input of the last
            linear layer.
        pooling: of the activation at a cut: "avg", "cls" or "flatten".
        precision: "fp32", "tf32", "bf16" or "fp16".
        fast_decode: decode large JPEGs at a fraction of their size; gives other features.
        engine: "auto", "torch", "torch-compile" or "openvino".
        device: "auto" or a name.
        batch_size: pictures a forward pass; None: 32, or as many as there are.
        cache: where features are kept, by the pictures' content: "memory" (of this process, up to
            1 GiB), a folder (for other processes, and another day; a cache for each network lies
            in it), or None, which keeps nothing.

    Attributes:
        recipe_: key of what decides the values, once fitted.
        n_features_out_: D, once fitted.
    """

    def __init__(
        self,
        backbone: str = "efficientnet_lite0",
        *,
        weights: str | os.PathLike[str] | None = None,
        image_size: int | None = None,
        preprocessing: Preprocessing | None = None,
        cut: str = PENULTIMATE,
        pooling: Pooling = "avg",
        precision: Precision = "fp32",
        fast_decode: bool = False,
        engine: str = "auto",
        device: str = "auto",
        batch_size: int | None = None,
        cache: str | os.PathLike[str] | None = MEMORY,
    ) -> None:
        self.backbone = backbone
        self.weights = weights
        self.image_size = image_size
        self.preprocessing = preprocessing
        self.cut = cut
        self.pooling: Pooling = pooling
        self.precision: Precision = precision
        self.fast_decode = fast_decode
        self.engine = engine
        self.device = device
        self.batch_size = batch_size
        self.cache = cache

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: N803 - scikit-learn's name
        """Load the network, and remember which one it is.

        Args:
            X: pictures.
            y: ignored.

        Raises:
            SourceError: X holds no pictures.
            BackboneError, EngineError: the network cannot be had as asked for.
        """
        self._given(X)
        network = self._network()
        self.recipe_ = network.stream.key
        self.n_features_out_ = self._width(network)
        return self

    def transform(self, X: Any) -> npt.NDArray[np.float32]:  # noqa: N803 - scikit-learn's name
        """(N, D) float32 features of N pictures.

        Args:
            X: pictures.

        Raises:
            SourceError: X holds no pictures.
            PictureError: a picture cannot be read; names it.
            CacheMismatchError: the network is not the one that it was fitted with.
            BackboneError, EngineError, StoreError: says what to do.
        """
        source, network = self._given(X), self._network()
        fitted = getattr(self, "recipe_", network.stream.key)
        if fitted != network.stream.key:
            raise CacheMismatchError(
                f"fitted with a network or settings of key {fitted[:12]}, which now are "
                f"{network.stream.key[:12]}: what was fitted on its features does not know these; "
                "fit again, or load the weights of then"
            )
        return rows_of(network, source, self.cache)

    def _given(self, X: Any) -> GivenSource:  # noqa: N803 - scikit-learn's name
        return GivenSource(X)

    def _network(self) -> Network:
        if self.pooling == "none" and self.cut != PENULTIMATE:
            raise BackboneError("pooling 'none' gives no vectors; give avg, cls or flatten")
        return Wanted(
            backbone=self.backbone,
            weights=weights_name(self.weights),
            image_size=self.image_size,
            preprocessing=self.preprocessing,
            cut=self.cut,
            pooling=self.pooling,
            precision=self.precision,
            fast_decode=self.fast_decode,
            engine=self.engine,
            device=self.device,
            batch_size=self.batch_size,
        ).network()

    @staticmethod
    def _width(network: Network) -> int:
        return int(np.prod(network.shape))

    @property
    def _n_features_out(self) -> int:
        """How many columns there are; scikit-learn asks for it to name them."""
        return self._width(self._network())

    def __sklearn_is_fitted__(self) -> bool:
        """Nothing is learnt, so nothing is missing."""
        return True

    def __sklearn_tags__(self) -> Any:
        """What it takes: pictures, which are no table of numbers."""
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.requires_fit = False
        if tags.transformer_tags is not None:
            tags.transformer_tags.preserves_dtype = []
        return tags
