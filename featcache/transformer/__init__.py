"""A scikit-learn transformer from pictures to features: `FeatureExtractor`.

given       what may be given as pictures, and a source made of it
networks    what computes their features
keeping     features that were computed once, in memory or in a folder
estimator   the transformer itself
"""

from __future__ import annotations

from featcache.transformer.estimator import FeatureExtractor

__all__ = ["FeatureExtractor"]
