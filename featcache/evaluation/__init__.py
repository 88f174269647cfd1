"""How a number becomes one that can be believed.

    splits      which rows may be held out together: folds, stratified and by group
    metrics     accuracy, mean per class, log-loss, confusion, each with its exact definition
    intervals   the uncertainty of an accuracy, rows of one group counted as what they are

Paired tests, calibration and the rule behind a recommendation belong here as well. Arrays in,
numbers out: this room knows no head, no feature and no file.
"""
