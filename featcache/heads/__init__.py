"""Heads: the objective, its certificate, the path of solves and the fitted head.

Pure mathematics on arrays; this room knows no file, no picture and no fold rule.

    linear        the fitted `LinearHead`: features in, logits and probabilities out
    hidden        new hidden units before it, which make an MLP of it
    objective     the one statement of loss, gradient, penalty and the two-class convention
    certificate   a proven bound of how far a point is from the optimum
    grid          where on the axis of C to look
    columns       labels -> independent problems, and back to the columns of a head
    design        features -> coordinates: centred, scaled, in the eigenbasis; and back
    rows          rows in those coordinates, and the two products that everything costs
    batch         problems solved together: their sums over the rows
    abreast       batches of different rows side by side, as one
    quasi_newton  L-BFGS whose memory survives a change of C
    walk          the algorithm: a batch of problems, each on its own way along C
    solver        `solve_path`, `solve_paths`: every fold and C of a `PathProblem`, or of several,
                  each fit certified
    ridge         ridge regression for a grid of C from one decomposition, exact leave-one-out
    knn           weighted votes of nearest neighbours
"""
