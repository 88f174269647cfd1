"""Store -> fitted heads: choose C on held-out rows, estimate honestly, refit.

    rows      what of a cache can be probed
    views     augmented views, which train beside the plain one
    roles     which rows train, which choose C, which are measured on
    spec      what a probe is asked, and what it gives
    crops     test-time augmentation of what was held out
    judging   what held-out rows say
    solving   folds, grids and fits of one probe
    fitting   the probe
    screening ridge and neighbours, in closed form
    few_shots heads of k pictures a class
    protocols published protocols by name

What is held out depends on the data; rows that are in neither val nor test train:

    no split            nested cross-validation: each outer fold is predicted by a head whose C was
                        chosen by inner folds of the other outer folds; refit on all rows
    train, test         C by cross-validation within train; refit on train; measured on test
    train, val, test    C on val; refit on train and val; measured on test
    train, val          C by cross-validation within train; refit on train; measured on val, which
                        therefore chooses nothing

Where the cache has augmented views, a picture trains by all of them and is measured by the plain
one. Rows that share a content or a group are never on both sides: the rows that are measured on
stay, those that belong to them are left out of the other side. No number that the estimate depends
on sees a row it is measured on, the place of the grid of C included. The head that is measured on
test or val is the head that is returned.
"""

from featcache.probing.crops import TtaScore, score_crops
from featcache.probing.few_shots import FewShots, few_shots
from featcache.probing.fitting import fit_probe
from featcache.probing.rows import LabelledRows, labelled_rows
from featcache.probing.screening import fit_screen
from featcache.probing.spec import Probed, ProbeSpec, ShotScore
from featcache.probing.views import ViewChoice, crop_views, cropped_rows

__all__ = [
    "FewShots",
    "LabelledRows",
    "ProbeSpec",
    "Probed",
    "ShotScore",
    "TtaScore",
    "ViewChoice",
    "crop_views",
    "cropped_rows",
    "few_shots",
    "fit_probe",
    "fit_screen",
    "labelled_rows",
    "score_crops",
]
