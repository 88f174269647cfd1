"""How a number becomes one that can be believed.

    splits          which rows may be held out together: folds, stratified and by group
    metrics         accuracy, mean per class, log-loss, confusion, each with its exact definition
    intervals       the uncertainty of an accuracy, rows of one group counted as what they are
    paired          which of two probes is better, told from the same rows
    pairwise        several classifiers and training seeds on the same rows, compared two by two
    recommendation  the shallowest depth that is as good as the best, or that it is undecided
    calibration     whether probabilities mean what they say, and one temperature that helps
    suspects        labels that are likely wrong, by confident learning
    shots           few-shot support sets that depend on content and seed alone

Arrays in, numbers out: this room knows no head, no feature and no file.
"""
