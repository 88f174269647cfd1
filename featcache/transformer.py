"""A scikit-learn transformer that gives cached features. Floor 8: made of `api`.

Empty until the transformer is built (part 6 of the plan, see ARCHITECTURE.md).
"""
