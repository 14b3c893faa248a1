"""Scenarios as data: a name, a title, who takes part, a function that measures, a function that judges."""

from __future__ import annotations

from tests.bench.scenarios import (
    agent_killed,
    bulk,
    half_open,
    http_cpu,
    many_satellites,
    open_loop,
    rolling_restart,
    stalled_readers,
)
from tests.bench.scenarios.scenario import Scenario

SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        http_cpu.SCENARIO,
        open_loop.SCENARIO,
        bulk.SCENARIO,
        stalled_readers.SCENARIO,
        many_satellites.SCENARIO,
        rolling_restart.SCENARIO,
        agent_killed.SCENARIO,
        half_open.SCENARIO,
    )
}
