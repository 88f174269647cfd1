"""Linear heads: the objective, its certificate, the path of solves and the fitted head.

Pure mathematics on arrays; this room knows no file, no picture and no fold rule.

    linear       the fitted `LinearHead`: features in, logits and probabilities out
    objective    the one statement of loss, gradient, penalty and the two-class convention
    certificate  a proven bound of how far a point is from the optimum
    grid         where on the axis of C to look
    design       the rows of one fit: centred, scaled, reduced; and the way back
    lbfgs        the engine; the only file that knows scikit-learn
    solver       `solve_path`: every fold and every C of a `PathProblem`, each fit certified
"""
