"""Line and branch coverage by room: combines what every process of a test run has measured, and prints a row a package.

    make test-all            measures, then prints this
    make coverage            prints it again

Only processes that end by themselves report: what a killed Ray worker ran is missing here, so figures are lower bounds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

COVERAGE = [sys.executable, "-m", "coverage"]
COUNTED = ("num_statements", "covered_lines", "num_branches", "covered_branches")


def measured() -> dict[str, dict[str, int]]:
    """The counts of each file that any process has measured."""
    folder = Path(os.environ.get("COVERAGE_FILE", ".coverage/data")).parent
    if not any(folder.glob("data*")):
        sys.exit("error: nothing was measured; run make test COVER=1 first")
    if any(folder.glob("data.*")):
        subprocess.run([*COVERAGE, "combine", "--quiet", "--append", str(folder)], check=True)
    with tempfile.TemporaryDirectory() as temp:
        file = Path(temp, "coverage.json")
        subprocess.run([*COVERAGE, "json", "--quiet", "-i", "-o", file], check=True)
        return counts_of(file)


def counts_of(file: Path) -> dict[str, dict[str, int]]:
    """Read the counts of a `coverage json` file by path."""
    return {path: entry["summary"] for path, entry in json.loads(file.read_text())["files"].items()}


def by_room(files: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    """Add the counts of files up by their folder, and in all."""
    rooms: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(COUNTED, 0))
    for path, summary in files.items():
        for room in (str(Path(path).parent), "all"):
            for name in COUNTED:
                rooms[room][name] += summary[name]
    return rooms


def frac(counts: dict[str, int], covered: str, total: str) -> str:
    """Return a share as text, in percent."""
    return f"{100 * counts[covered] / counts[total]:5.1f}" if counts[total] else "    -"


def main() -> None:
    """Print the table."""
    rooms = by_room(measured())
    print(f"{'room':<34}{'lines':>8}{'covered %':>11}{'branches':>10}{'covered %':>11}")
    for room in sorted(rooms, key=lambda name: (name == "all", name)):
        counts = rooms[room]
        lines, branches = frac(counts, "covered_lines", "num_statements"), frac(counts, "covered_branches", "num_branches")
        print(f"{room:<34}{counts['num_statements']:>8}{lines:>11}{counts['num_branches']:>10}{branches:>11}")


if __name__ == "__main__":
    main()
