"""What commands print: tables for people, JSON and YAML for programs, names for shell loops."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "Column",
    "Format",
    "FormatOption",
    "coloured",
    "console",
    "document",
    "few",
    "instant",
    "paint",
    "plain",
    "rows",
    "size",
    "table",
]

PIPED_COLUMNS = 120
FEW_COLUMNS = 40


class Format(StrEnum):
    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


FormatOption = Annotated[Format, typer.Option("--output", "-o", help="How to print.")]

_CODES = {"red": "31", "green": "32", "yellow": "33", "cyan": "36", "bold": "1", "dim": "2"}
_TONES = {
    "connected": "green",
    "healthy": "green",
    "ready": "green",
    "unused": "green",
    "degraded": "yellow",
    "draining": "yellow",
    "pending": "yellow",
    "ejected": "yellow",
    "used": "dim",
    "expired": "dim",
    "offline": "red",
    "unhealthy": "red",
    "revoked": "red",
    "unknown": "red",
}


@dataclass(frozen=True)
class Column:
    """`value` gets one item of the API, and `plain` shows what it returns. `wide`: shown by `-o wide` alone;
    `short`: shown instead of `value` unless `-o wide`.
    """

    title: str
    value: Callable[[Mapping[str, Any]], object]
    wide: bool = False
    short: Callable[[Mapping[str, Any]], object] | None = None

    def cell(self, item: Mapping[str, Any], wide: bool) -> str:
        return plain((self.value if wide or self.short is None else self.short)(item))


def coloured(environ: Mapping[str, str] | None = None) -> bool:
    """Colour only on a terminal, and never against NO_COLOR (https://no-color.org)."""
    environ = os.environ if environ is None else environ
    return sys.stdout.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


def paint(text: str, tone: str) -> str:
    return f"\x1b[{_CODES[tone]}m{text}\x1b[0m"


def plain(value: object) -> str:
    """One cell. What came from a satellite can hold anything: only printable characters reach the terminal."""
    if value is None or value == "" or value == [] or value == {}:
        return "-"
    if isinstance(value, Mapping):
        text = ",".join(f"{k}={v}" for k, v in sorted(value.items()))
    elif isinstance(value, float):
        text = f"{value:.1f}"
    elif isinstance(value, Iterable) and not isinstance(value, str):
        text = ",".join(str(each) for each in value)
    else:
        text = str(value)
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def few(values: Sequence[str], columns: int = FEW_COLUMNS) -> str:
    """As many of `values` as fit in so many columns, at least one, and how many more there are."""
    shown = list(values)
    while len(shown) > 1 and len(",".join(shown)) > columns:
        shown.pop()
    more = len(values) - len(shown)
    return ",".join(shown) + (f" +{more}" if more else "")


def instant(value: object) -> object:
    """A time of the API (RFC 3339) for people: whole seconds, UTC. What is no time stays as it is."""
    try:
        return f"{datetime.fromisoformat(str(value)).astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"
    except ValueError:
        return value


def size(count: object) -> object:
    """A number of bytes for people: 999 B, 1.5 MB (10⁶ bytes). What is no number stays as it is."""
    if not isinstance(count, int):
        return count
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.1f} {unit}" if unit != "B" else f"{count} B"


def console(file: TextIO | None = None) -> Console:
    """Where rich text is printed. A pipe or file has no width of its own: there it is wide enough not to wrap."""
    from rich.console import Console

    file = file or sys.stdout
    width = None if file.isatty() or os.environ.get("COLUMNS") else PIPED_COLUMNS
    return Console(file=file, highlight=False, width=width)


def table(items: Sequence[Mapping[str, Any]], columns: Sequence[Column], *, wide: bool, colour: bool) -> str:
    """Columns as wide as their widest cell, two spaces between; the last is not padded. Ends without a line end."""
    shown = [column for column in columns if wide or not column.wide]
    grid = [[column.title for column in shown], *([column.cell(item, wide) for column in shown] for item in items)]
    widths = [max(len(row[i]) for row in grid) for i in range(len(shown))]
    lines = []
    for number, row in enumerate(grid):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        cells[-1] = row[-1]
        if colour:
            cells = [_toned(cell, number == 0) for cell in cells]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _toned(cell: str, title: bool) -> str:
    if title:
        return paint(cell, "bold")
    tone = _TONES.get(cell.strip())
    return paint(cell, tone) if tone else cell


def document(value: object, form: Format) -> str:
    """JSON or YAML text without a line end at its end."""
    if form is Format.YAML:
        import yaml

        return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True)).rstrip("\n")
    return json.dumps(value, indent=2, ensure_ascii=False)


def rows(
    items: Sequence[Mapping[str, Any]],
    columns: Sequence[Column],
    form: Format,
    *,
    kind: str,
    name: Callable[[Mapping[str, Any]], str],
    colour: bool = False,
) -> str:
    """A list in the format asked for. `-o name` prints `kind/name` lines, as kubectl does."""
    if form in (Format.JSON, Format.YAML):
        return document({"items": list(items)}, form)
    if form is Format.NAME:
        return "\n".join(f"{kind}/{name(item)}" for item in items)
    if not items:
        return f"No {kind}s."
    return table(items, columns, wide=form is Format.WIDE, colour=colour)
