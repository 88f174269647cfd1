"""The trainer of tails and MLP heads: a tail and a `LinearHead` in, tuned ones out.

Pure: given modules and arrays; it knows no cache and no file.

    spec        `TrainingSpec`: everything that is asked of a training
    model       a tail and a linear layer joined, and read back from it
    examples    pictures: where their activations are, targets, weights
    feeding     activations in shuffled batches within a memory budget, read ahead by a thread
    losses      the one statement of the loss, of soft targets and of weights
    mixing      mixup, CutMix and noise on activations
    groups      which rate each parameter has, and which ones decay
    schedules   the share of its rate at every step
    guard       BatchNorm statistics stay what they are
    trainer     `train`: epochs, early stop, the best weights kept
    rates       a grid of rates, chosen on the validation rows
"""
