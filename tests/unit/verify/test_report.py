"""One report in every format, compared with files; `UPDATE_GOLDEN=1 pytest …` writes them anew."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from platformctl.verify import reference
from platformctl.verify.checks import CHECKS
from platformctl.verify.model import CATEGORIES, DOCS, CheckResult, Progress, Report
from platformctl.verify.report import LiveProgress, render_json, render_junit, render_table

GOLDEN = Path(__file__).parent / "golden"
ROOT = Path(__file__).parents[3]


def _row(name: str, status: str, ms: float, detail: str, hint: str = "", category: str = "data path") -> CheckResult:
    return CheckResult(name, category, status, ms, detail, hint)  # type: ignore[arg-type]


REPORT = Report(
    (
        _row("hub-ready[hub-1]", "passed", 3.2, "every check of /readyz passes", category="hub"),
        _row("hub-ready[hub-2]", "passed", 12.0, "every check of /readyz passes", category="hub"),
        _row("connected[sat-1 via hub-1]", "passed", 4.1, "connected to 2 of 2 replicas", category="satellites"),
        _row(
            "connected[sat-1 via hub-2]",
            "failed",
            2103.7,
            "no tunnel to this replica, which counts 1 of 2",
            "The agent of satellite sat-1 (pid 4711) is not running: start it again, or see its log. "
            "See docs/reference/verify.md#connected.",
            "satellites",
        ),
        _row("unary[sat-1 via hub-1]", "passed", 5.0, "a request and its answer"),
        _row("unary[sat-1 via hub-2]", "skipped", 0.0, "connected[sat-1 via hub-2] failed"),
        _row("unary[sat-2 via hub-2]", "skipped", 0.0, "connected[sat-2 via hub-2] failed"),
        _row(
            "latency[sat-1 via hub-1]",
            "passed",
            801.0,
            "warning: p50 3.1 ms, p99 301.5 ms, which is over 250 ms",
            "The path is slow.",
        ),
        _row("denied[sat-1 via hub-1]", "failed", 2.0, "answered with <b>\x1b[31m[red]ok[/red]", "Look.", "identity"),
    ),
    duration_ms=3456.0,
)


def _golden(name: str, text: str) -> None:
    file = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8")


def _table(width: int, *, colour: bool = False) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=colour, color_system="truecolor" if colour else None)
    console.print(render_table(REPORT))
    return out.getvalue()


def test_the_table_is_as_in_its_golden_file() -> None:
    _golden("table.txt", _table(110))


def test_a_narrow_table_keeps_every_name_and_hint() -> None:
    text = "".join(_table(70).split())
    assert "pid4711" in text
    assert "unary" in text


def test_control_characters_of_others_do_not_reach_the_terminal() -> None:
    assert "\x1b[31m[red]" not in _table(110, colour=True)


def test_json_is_as_in_its_golden_file_and_is_the_contract() -> None:
    text = render_json(REPORT)
    _golden("report.json", text)
    document = json.loads(text)
    assert list(document) == ["passed", "failed", "skipped", "checks"]
    assert all(
        list(row) == ["name", "category", "status", "duration_ms", "detail", "hint"] for row in document["checks"]
    )
    assert (document["passed"], document["failed"], document["skipped"]) == (5, 2, 2)


def test_a_report_comes_back_from_its_json() -> None:
    assert Report.from_dict(json.loads(render_json(REPORT))).checks == REPORT.checks


def test_junit_is_as_in_its_golden_file_and_is_xml() -> None:
    text = render_junit(REPORT)
    _golden("report.xml", text)
    root = ElementTree.fromstring(text)
    assert root.attrib["tests"] == "9"
    assert len(root.findall(".//failure")) == 2
    assert [case.attrib["name"] for case in root.findall("testsuite[@name='hub']/testcase")] == [
        "hub-ready[hub-1]",
        "hub-ready[hub-2]",
    ]


def test_a_report_in_which_nothing_passed_is_not_fine() -> None:
    assert not Report(()).ok
    assert not Report((REPORT.checks[5],)).ok
    assert Report((REPORT.checks[0],)).ok
    assert not REPORT.ok


def test_progress_is_shown_on_a_terminal_and_leaves_nothing_behind() -> None:
    out = io.StringIO()
    with LiveProgress(Console(file=out, force_terminal=True, width=100, _environ={"TERM": "xterm"})) as progress:
        progress(Progress("unary[a via b]", 3, 9, None, ("unary[a via b]",)))
    assert "3/9" in out.getvalue()
    assert "unary[a via b]" in out.getvalue()


def test_progress_is_silent_where_there_is_no_terminal() -> None:
    out = io.StringIO()
    with LiveProgress(Console(file=out, force_terminal=False)) as progress:
        progress(Progress("x", 1, 2, REPORT.checks[0]))
    assert out.getvalue() == ""


# ---- the reference page


def test_the_reference_page_is_fresh() -> None:
    assert (ROOT / DOCS).read_text(encoding="utf-8") == reference.render(), (
        "python -m platformctl.verify.reference > " + DOCS
    )


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_each_check_has_its_anchor_a_known_category_and_needs_that_exist(check) -> None:  # type: ignore[no-untyped-def]
    assert f"\n## {check.hint_anchor}\n" in reference.render()
    assert check.category in CATEGORIES
    names = [other.name for other in CHECKS]
    assert names.count(check.name) == 1
    # A need must come before what needs it, so that no two wait for each other.
    assert all(names.index(need) < names.index(check.name) for need in check.needs)
