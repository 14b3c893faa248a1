"""What a command line asks for is what is measured, and the one command that fills the page fits into its time."""

from __future__ import annotations

import pytest

from tests.bench.__main__ import parse, plans_of
from tests.bench.plan import Plan
from tests.bench.run import expected_seconds
from tests.bench.scenarios import SCENARIOS


def test_without_options_every_scenario_runs_its_full_plan() -> None:
    assert plans_of(parse([])) == {name: scenario.full for name, scenario in SCENARIOS.items()}


def test_the_command_that_fills_the_page_takes_at_most_twenty_minutes() -> None:
    assert expected_seconds(plans_of(parse([])), exact=True) <= 20 * 60


def test_a_quick_run_takes_at_most_a_minute_and_a_half() -> None:
    assert expected_seconds(plans_of(parse(["--quick"])), exact=False) <= 90


def test_options_change_the_plans_that_have_them() -> None:
    plans = plans_of(parse(["http_cpu", "open_loop", "--seconds", "2", "--rates", "500", "--connections", "1,4"]))
    assert plans["http_cpu"].connections == (1, 4)
    assert plans["http_cpu"].rates == ()
    assert plans["open_loop"].rates == (500,)
    assert {plan.seconds for plan in plans.values()} == {2}


@pytest.mark.parametrize("wrong", [["nothing"], ["--contenders", "direct,nobody"], ["--quick", "--check"]])
def test_a_mistake_on_the_command_line_is_a_usage_error(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as failure:
        parse(wrong)
    assert failure.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_a_plan_goes_on_without_those_that_are_missing() -> None:
    assert Plan(("direct", "frp-http")).without(frozenset({"frp-http"})).contenders == ("direct",)
