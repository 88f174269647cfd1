"""Store -> fitted heads: choose C on held-out rows, estimate honestly, refit.

    rows      what of a cache can be probed
    roles     which rows train, which choose C, which are measured on
    spec      what a probe is asked, and what it gives
    fitting   the probe

What is held out depends on the data; rows that are in neither val nor test train:

    no split            nested cross-validation: each outer fold is predicted by a head whose C was
                        chosen by inner folds of the other outer folds; refit on all rows
    train, test         C by cross-validation within train; refit on train; measured on test
    train, val, test    C on val; refit on train and val; measured on test
    train, val          C by cross-validation within train; refit on train; measured on val, which
                        therefore chooses nothing

Rows that share a content or a group are never on both sides: the rows that are measured on stay,
those that belong to them are left out of the other side. No number that the estimate depends on
sees a row it is measured on, the place of the grid of C included. The head that is measured on
test or val is the head that is returned.
"""

from featcache.probing.fitting import fit_probe
from featcache.probing.rows import LabelledRows, labelled_rows
from featcache.probing.spec import Probed, ProbeSpec

__all__ = ["LabelledRows", "ProbeSpec", "Probed", "fit_probe", "labelled_rows"]
