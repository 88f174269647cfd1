"""Caches and classifiers in other formats. Floor 8: made of caches and classifiers.

Empty until export is built (part 6 of the plan, see ARCHITECTURE.md).
"""
