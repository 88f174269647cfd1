"""The sweep over depth: the last units of a network, trained from activations cached at the cut.

depths   which depths were asked for, and what each trains
spec     everything that is asked of a sweep
rows     where the activations of a cut lie, view by view; or pixels, where nothing is cached
pixels   pictures as rows that are decoded, augmented and normalised when they are asked for
courses  what each depth trains on, at the recipe's size and before that at others
scratch  the whole network from random weights, for comparison
parts    what is held out: one split for all depths
fitting  one depth on one part: from the solved head, at a rate that validation pictures choose
mlp      an MLP head on the cached features, beside the linear one
sweeping all depths on all parts, resumed at the last one finished
"""

from featcache.unfreezing.depths import PIXELS, Rung, ladder, parse_depths
from featcache.unfreezing.fitting import DepthFit
from featcache.unfreezing.mlp import MlpFound, MlpSpec, probe_mlp, refit_mlp
from featcache.unfreezing.spec import SweepSpec
from featcache.unfreezing.sweeping import DepthFound, Swept, refit, sweep, sweep_sizes

__all__ = [
    "PIXELS",
    "DepthFit",
    "DepthFound",
    "MlpFound",
    "MlpSpec",
    "Rung",
    "SweepSpec",
    "Swept",
    "ladder",
    "parse_depths",
    "probe_mlp",
    "refit",
    "refit_mlp",
    "sweep",
    "sweep_sizes",
]
