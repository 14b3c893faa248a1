"""Every scenario still runs from end to end; what it measures on a busy machine means nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.context import Bench
from tests.bench.report import scenario_table
from tests.bench.run import at_once, leave_out_missing
from tests.bench.scenarios import SCENARIOS
from tests.faults.namespaces import unavailable

pytestmark = [pytest.mark.bench, pytest.mark.slow, pytest.mark.integration]


@pytest.mark.timeout(150)
async def test_every_scenario_runs_and_no_request_of_ours_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plans, warnings = leave_out_missing({name: scenario.quick for name, scenario in SCENARIOS.items()})
    with capsys.disabled():
        for warning in warnings:
            print(warning)
    async with Bench.running(tmp_path, exact=False) as bench:
        await at_once(bench, plans)
    results = bench.results
    expected = set(SCENARIOS) - ({"half_open"} if unavailable() is not None else set())
    assert set(results.scenarios()) == expected
    for name in expected:
        ours = [row for row in results.rows if row.scenario == name and row.contender == "platformctl"]
        assert ours, name
        assert "| platformctl |" in scenario_table(results, name)
        wrong = {(row.setting, row.metrics["errors"]) for row in ours if row.metrics.get("errors")}
        assert not wrong, f"{name}: {wrong}"
