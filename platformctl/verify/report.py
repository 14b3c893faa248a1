"""A report as JSON, JUnit XML, or a table for people; and the live line while it is made."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, ItemsView, Iterable
from types import TracebackType
from xml.etree import ElementTree

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn
from rich.progress import Progress as Bar
from rich.table import Column, Table
from rich.text import Text

from platformctl.errors import excerpt
from platformctl.verify.model import CheckResult, Progress, Report, Status

__all__ = ["LiveProgress", "render_json", "render_junit", "render_table"]

MAX_TEXT = 1000
_SIGNS: dict[Status, tuple[str, str]] = {"passed": ("✓", "green"), "failed": ("✗", "bold red"), "skipped": ("–", "dim")}
_WARNED = ("!", "yellow")
_PLACE = re.compile(r"(?<=\w)\[[^]]*\](?= failed$)")
# XML 1.0 section 2.2: characters that no document may hold, however they are escaped.
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render_json(report: Report) -> str:
    return json.dumps(report.to_dict(), indent=2, ensure_ascii=False) + "\n"


def render_junit(report: Report) -> str:
    """One test suite for each category, in the form that CI servers read."""
    root = ElementTree.Element("testsuites", _counts(report.checks) | {"name": "platformctl verify"})
    for category, results in _grouped(report.checks, lambda result: result.category):
        suite = ElementTree.SubElement(root, "testsuite", _counts(results) | {"name": category})
        for result in results:
            case = ElementTree.SubElement(
                suite, "testcase", classname=f"verify.{category}", name=result.name, time=_seconds([result])
            )
            if result.status == "failed":
                element = ElementTree.SubElement(case, "failure", message=_xml(result.detail))
                element.text = _xml(f"{result.detail}\n{result.hint}".rstrip())
            elif result.status == "skipped":
                ElementTree.SubElement(case, "skipped", message=_xml(result.detail))
            else:
                ElementTree.SubElement(case, "system-out").text = _xml(f"{result.detail}\n{result.hint}".rstrip())
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _counts(results: Iterable[CheckResult]) -> dict[str, str]:
    rows = list(results)
    return {
        "tests": str(len(rows)),
        "failures": str(sum(row.status == "failed" for row in rows)),
        "skipped": str(sum(row.status == "skipped" for row in rows)),
        "time": _seconds(rows),
    }


def _seconds(results: Iterable[CheckResult]) -> str:
    return f"{sum(result.duration_ms for result in results) / 1000:.3f}"


def _xml(text: str) -> str:
    return _NOT_XML.sub("�", text)


def render_table(report: Report) -> RenderableType:
    """For a rich console. Places of one check that say the same share a line; a failure has its own, with its hint."""
    names = max((len(result.check) for result in report.checks), default=0)
    places = max((len(result.place) for result in report.checks), default=0)
    parts: list[RenderableType] = []
    for category, results in _grouped(report.checks, lambda result: result.category):
        parts.append(Text(f"   {category.capitalize()}", style="bold"))
        for name, alike in _grouped(results, lambda result: result.check):
            for row in _alike(alike):
                parts += _row(name, row, names, max(places, len("99 places")))
        parts.append(Text())
    return Group(*parts, _summary(report))


def _alike(results: list[CheckResult]) -> list[list[CheckResult]]:
    """Lines of the table: results that differ in place and time alone share one, unless they failed or warned."""
    lines: dict[tuple[str, str], list[CheckResult]] = {}
    for result in results:
        line = result.name if result.status == "failed" or result.warned else _said(result)
        lines.setdefault((result.status, line), []).append(result)
    return list(lines.values())


def _said(result: CheckResult) -> str:
    """The detail; of a skipped check without the place of what it needs, for it is its own."""
    return _PLACE.sub("", result.detail) if result.status == "skipped" else result.detail


def _row(name: str, results: list[CheckResult], names: int, places: int) -> list[RenderableType]:
    """One line in columns, and its hint below it over the whole width."""
    first = results[0]
    sign, style = _WARNED if first.warned else _SIGNS[first.status]
    where = first.place if len(results) == 1 else f"{len(results)} places"
    duration = "" if first.status == "skipped" else _duration(max(result.duration_ms for result in results))
    line = Table.grid(padding=(0, 1), expand=False)
    for width, justify in ((2, "right"), (names, "left"), (places, "left"), (7, "right")):
        line.add_column(width=width, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    line.add_column(overflow="fold")
    # What a hub or backend said may hold anything; `excerpt` leaves nothing that a terminal would obey.
    detail = Text(
        excerpt(_said(first), MAX_TEXT), style="" if first.status == "passed" else style.removeprefix("bold ")
    )
    line.add_row(Text(sign, style=style), Text(name), Text(where, "dim"), Text(duration, "dim"), detail)
    if not first.hint or first.status == "skipped":
        return [line]
    return [line, Padding(Text(f"→ {excerpt(first.hint, MAX_TEXT)}", style="yellow"), (0, 0, 0, 5))]


def _duration(ms: float) -> str:
    return f"{ms / 1000:.1f} s" if ms >= 1000 else f"{ms:.0f} ms"


def _summary(report: Report) -> Text:
    failed, warned = report.count("failed"), sum(result.warned for result in report.checks)
    parts = [(f"{report.count('passed')} passed", "bold green" if not failed else "green")]
    if warned:
        parts.append((f"{warned} with a warning", "yellow"))
    parts.append((f"{failed} failed", "bold red" if failed else "dim"))
    parts.append((f"{report.count('skipped')} skipped", "dim"))
    text = Text(", ").join([Text(words, style=style) for words, style in parts])
    if report.duration_ms:
        text.append(f"  in {_duration(report.duration_ms)}", style="dim")
    return text


def _grouped(results: Iterable[CheckResult], key: Callable[[CheckResult], str]) -> ItemsView[str, list[CheckResult]]:
    groups: dict[str, list[CheckResult]] = {}
    for result in results:
        groups.setdefault(key(result), []).append(result)
    return groups.items()


class LiveProgress:
    """A bar and the names of what runs, on a terminal; nothing elsewhere. It is the runner's `progress` callback.

    with LiveProgress(console) as progress: report = await run(env, exporter, progress=progress)
    """

    def __init__(self, console: Console) -> None:
        self._bar = Bar(
            SpinnerColumn(),
            TextColumn("verify", table_column=Column(min_width=6)),
            BarColumn(24),
            MofNCompleteColumn(),
            TextColumn("[dim]{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis")),
            console=console,
        )
        self._task = self._bar.add_task("exporting the echo backend", total=None)
        self._live = (
            Live(self._bar, console=console, transient=True, refresh_per_second=10) if console.is_terminal else None
        )

    def __enter__(self) -> LiveProgress:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def __call__(self, progress: Progress) -> None:
        more = len(progress.running) - 1
        running = "".join(progress.running[:1]) + (f" and {more} more" if more > 0 else "")
        # Names hold square brackets, which rich would read as markup.
        self._bar.update(
            self._task, completed=progress.done, total=progress.total, description=running.replace("[", r"\[")
        )
