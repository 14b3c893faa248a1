"""What turns rows into figures: a wrong median or a bar that is met by a missing value would mislead everybody."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.report import bars_table, scenario_table, write_section
from tests.bench.results import Bar, Results, Row, at_least, at_most
from tests.bench.scenarios import SCENARIOS, http_cpu


def _row(contender: str, round_: int, hub_us: float, setting: str = "c=64") -> Row:
    return Row("http_cpu", setting, contender, round_, {"hub_us": hub_us})


def test_a_spread_is_the_median_and_the_range_of_one_cell() -> None:
    results = Results([_row("frp-http", 1, 90), _row("frp-http", 2, 110), _row("frp-http", 3, 91), _row("other", 1, 1)])
    spread = results.spread("http_cpu", "c=64", "frp-http", "hub_us")
    assert spread is not None
    assert (spread.median, spread.low, spread.high) == (91, 90, 110)


def test_what_was_not_measured_has_no_spread_and_judges_no_bar() -> None:
    results = Results([_row("frp-http", 1, 90)])
    assert results.spread("http_cpu", "c=64", "platformctl", "hub_us") is None
    assert {bar.met for bar in http_cpu.bars(results)} == {None}


@pytest.mark.parametrize(("ours", "met"), [(18.0, True), (18.1, False)])
def test_the_bar_of_hub_cpu_is_a_fifth_of_frp_vhost(ours: float, met: bool) -> None:
    results = Results([_row("frp-http", 1, 90), _row("platformctl", 1, ours)])
    assert http_cpu.bars(results)[0].met is met


def test_bars_compare_both_ways_and_say_both_figures() -> None:
    assert at_most("f", 2, 1, "ms") == Bar("f", "2 ms ≤ 1 ms", False)
    assert at_least("f", 2, 1, "MB/s") == Bar("f", "2 MB/s ≥ 1 MB/s", True)
    assert at_least("f", 12345.6, 0.99e4, "/s").measured == "12,346 /s ≥ 9,900 /s"
    assert at_least("f", None, 1, "MB/s").met is None
    assert at_most("f", 1, None, "ms").met is None


def test_a_metric_without_a_label_is_refused() -> None:
    with pytest.raises(KeyError, match="speed"):
        Results().add(Row("http_cpu", "c=1", "direct", 1, {"speed": 1.0}))


def test_the_table_shows_a_range_only_where_there_is_one() -> None:
    table = scenario_table(Results([_row("a", 1, 1), _row("a", 2, 3), _row("b", 1, 5)]), "http_cpu")
    assert table.splitlines()[2:] == ["| c=64 | a | 2.0 (1.0–3.0) |", "|  | b | 5.0 |"]


def test_bars_are_shown_as_met_missed_or_not_measured() -> None:
    table = bars_table([Bar("x", "1", True), Bar("y", "2", False), Bar("z", "-", None)])
    assert [line.split("|")[3].strip() for line in table.splitlines()[2:]] == ["met", "**missed**", "–"]


def test_a_section_is_replaced_and_the_prose_around_it_stays(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- bench:bulk -->\nold\n<!-- /bench:bulk -->\nafter\n")
    for text in ("new", "newer"):
        write_section(page, "bulk", text)
    assert page.read_text() == "before\n<!-- bench:bulk -->\n\nnewer\n\n<!-- /bench:bulk -->\nafter\n"


def test_a_page_without_the_section_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("prose\n")
    with pytest.raises(ValueError, match="bench:bulk"):
        write_section(page, "bulk", "text")
    assert page.read_text() == "prose\n"


def test_the_page_of_benchmarks_has_a_section_for_every_scenario(tmp_path: Path) -> None:
    source = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"
    copy = tmp_path / "benchmarks.md"
    copy.write_text(source.read_text())
    for name in SCENARIOS:
        write_section(copy, name, "figures")
    assert copy.read_text().count("\nfigures\n") == len(SCENARIOS)
