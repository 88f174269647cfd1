"""One self-contained HTML page of a result. Floor 8: made of records and caches.

kept result ──contents──▶ page ──pages (templates)──▶ HTML ──writing──▶ file
  rows, pictures, projections, classes, reliability, charts, commands
"""

from featcache.report.writing import write_report

__all__ = ["write_report"]
