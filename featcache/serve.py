"""A classifier behind a page and a JSON endpoint. Floor 8: made of a classifier.

Empty until serving is built (part 6 of the plan, see ARCHITECTURE.md).
"""
