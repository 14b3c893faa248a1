"""Fail when a test was skipped: `junit_skips.py REPORT.xml…`. In CI a skip is a hole in what we claim.

Exit 0: nothing skipped. Exit 1: something was, and it is listed. Exit 2: a report is missing, broken or has no test.
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from pathlib import Path


def skips(report: Path) -> tuple[int, list[str]]:
    """How many tests a JUnit report has, and one line for each that was skipped."""
    cases = list(ET.parse(report).getroot().iter("testcase"))
    lines = []
    for case in cases:
        skipped = case.find("skipped")
        if skipped is not None and skipped.get("type") != "pytest.xfail":
            lines.append(f"{case.get('classname')}::{case.get('name')}: {skipped.get('message', '')}")
    return len(cases), lines


def main(paths: list[str]) -> int:
    if not paths:
        print("usage: junit_skips.py REPORT.xml…", file=sys.stderr)
        return 2
    total, found = 0, []
    for path in paths:
        try:
            count, lines = skips(Path(path))
        except (OSError, ET.ParseError) as e:
            print(f"{path}: {e}", file=sys.stderr)
            return 2
        if not count:
            print(f"{path}: no test ran", file=sys.stderr)
            return 2
        total += count
        found += lines
    for line in found:
        print(f"skipped: {line}", file=sys.stderr)
    print(f"{total} tests, {len(found)} skipped")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
