"""Every scenario still runs from end to end; what it measures on a busy machine means nothing.

All run at once, for most of their time is waiting: those that share contenders one after the other, the others beside
them, each with a platform of its own.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.bench.__main__ import leave_out_missing
from tests.bench.context import Bench
from tests.bench.report import scenario_table
from tests.bench.scenarios import SCENARIOS
from tests.faults.namespaces import unavailable

pytestmark = [pytest.mark.bench, pytest.mark.slow, pytest.mark.integration]

_SHARING = ("http_cpu", "open_loop", "bulk", "stalled_readers")
_ALONE = tuple(name for name in SCENARIOS if name not in _SHARING)


@pytest.mark.timeout(150)
async def test_every_scenario_runs_and_brings_the_figures_that_its_bars_judge(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with capsys.disabled():
        plans = leave_out_missing({name: scenario.quick for name, scenario in SCENARIOS.items()})
    async with Bench.running(tmp_path, exact=False) as bench, asyncio.TaskGroup() as group:

        async def one_after_the_other(names: tuple[str, ...]) -> None:
            for name in names:
                await SCENARIOS[name].measure(bench, plans[name])

        for names in (_SHARING, *((name,) for name in _ALONE)):
            group.create_task(one_after_the_other(names), name=names[0])
    results = bench.results
    expected = set(SCENARIOS) - ({"half_open"} if unavailable() is not None else set())
    assert set(results.scenarios()) == expected
    for name in expected:
        ours = [row for row in results.rows if row.scenario == name and row.contender == "platformctl"]
        assert ours, name
        assert "| platformctl |" in scenario_table(results, name)
        wrong = {(row.setting, row.metrics["errors"]) for row in ours if row.metrics.get("errors")}
        assert not wrong, f"{name}: {wrong}"
