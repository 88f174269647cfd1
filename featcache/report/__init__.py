"""One self-contained HTML page of a result. Floor 8: made of records and caches.

Empty until the report is built (part 6 of the plan, see ARCHITECTURE.md).
"""
