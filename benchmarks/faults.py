"""Print what the tests of faults tried, from the lines they noted (`make faults`)."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path

from rich.console import Console
from rich.table import Table


def main() -> int:
    """Print the table; 1 if a fault did harm, or if nothing was tried."""
    rows: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    for line in Path(sys.argv[1]).read_text("utf-8").splitlines():
        noted = json.loads(line)
        row = rows[noted["kind"], noted["sees"]]
        row[0] += noted["points"]
        row[1] += noted["failures"]
    table = Table("fault", "tried", "failures", "what the user sees")
    for (kind, sees), (points, failures) in sorted(rows.items()):
        table.add_row(kind, f"{points:,}", f"{failures:,}", sees)
    points, failures = (sum(row[i] for row in rows.values()) for i in (0, 1))
    table.add_section()
    table.add_row("in all", f"{points:,}", f"{failures:,}", "")
    Console().print(table)
    return 1 if failures or not points else 0


if __name__ == "__main__":
    sys.exit(main())
