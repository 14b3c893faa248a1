"""Results as text: Markdown tables for docs/benchmarks.md, between markers that a person's prose survives around."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.bench.results import METRICS, Bar, Results, Row, Spread, spread_of

_SIGNS = {True: "met", False: "**missed**", None: "–"}


def scenario_table(results: Results, scenario: str) -> str:
    """Settings and contenders down, metrics across; median, and the range when there was more than one round."""
    cells = results.cells(scenario)
    used = [m for m in METRICS if any(m in row.metrics for rows in cells.values() for row in rows)]
    lines = [
        "| | contender | " + " | ".join(METRICS[m].label for m in used) + " |",
        "|---|---|" + "---:|" * len(used),
    ]
    shown = ""
    for (setting, contender), rows in cells.items():
        values = [_cell(rows, metric) for metric in used]
        lines.append(f"| {setting if setting != shown else ''} | {contender} | " + " | ".join(values) + " |")
        shown = setting
    return "\n".join(lines)


def _cell(rows: Sequence[Row], metric: str) -> str:
    values = [row.metrics[metric] for row in rows if metric in row.metrics]
    return _format(spread_of(values), METRICS[metric].decimals) if values else ""


def _format(spread: Spread, decimals: int) -> str:
    middle, low, high = (f"{value:,.{decimals}f}" for value in (spread.median, spread.low, spread.high))
    return middle if low == high else f"{middle} ({low}–{high})"


def bars_table(bars: Sequence[Bar]) -> str:
    lines = ["| figure | measured, and the bar | |", "|---|---|---|"]
    lines += [f"| {bar.figure} | {bar.measured} | {_SIGNS[bar.met]} |" for bar in bars]
    return "\n".join(lines)


def notes_list(results: Results, scenario: str) -> str:
    return "\n".join(f"- {note}" for note in results.notes.get(scenario, ()))


def machine_lines(machine: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"{machine['cores']} cores of {machine['cpu']}, {machine['memory_gib']} GiB, Linux {machine['kernel']}, "
        f"Python {machine['python']}, hot path {machine['hot_path']}; {versions}; commit {machine['commit']}.\n\n"
        f"    {machine['command']}"
    )


def markdown(results: Results, scenario: str, machine: Mapping[str, Any], bars: Sequence[Bar]) -> str:
    """What stands between a page's markers; headings are the page's own."""
    parts = [scenario_table(results, scenario)]
    if bars:
        parts.append(bars_table(bars))
    if results.notes.get(scenario):
        parts.append(notes_list(results, scenario))
    return "\n\n".join([*parts, machine_lines(machine)])


def write_section(page: Path, name: str, text: str) -> None:
    """Replace what is between `<!-- bench:NAME -->` and `<!-- /bench:NAME -->`; a page without them is a ValueError."""
    opening, closing = f"<!-- bench:{name} -->", f"<!-- /bench:{name} -->"
    before, found, rest = page.read_text().partition(opening)
    _, ended, after = rest.partition(closing)
    if not found or not ended:
        raise ValueError(f"{page} has no section {opening} … {closing}")
    page.write_text(f"{before}{opening}\n\n{text}\n\n{closing}{after}")
